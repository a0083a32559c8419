import JSON
import Model
import Wire

/// Changes of what runs, without a new start.
extension TaskMachine {
    /// Remembers what the pod was made from when the new assignment says something else of it.
    mutating func noteChange(from previous: TaskAssignment) {
        guard record.applied == nil else {
            // Something newer is to be brought about: at once, whatever became of the last attempt.
            if previous != assignment { updateAt = nil }
            return
        }
        let isThere = record.prepared || record.isLive || operation != nil
        if isThere, assignment.differs(from: previous) { record.applied = previous }
    }

    /// Gives out the next update when one is due.
    ///
    /// - Returns: whether one was given out.
    mutating func beginUpdate(_ now: Timestamp, _ effects: inout [AgentEffect]) -> Bool {
        guard let applied = record.applied else { return false }
        let isThere = record.isLive || record.prepared
        // Where nothing is yet, all of it is made anew. A container that does not run gets its limits with its start.
        guard isThere, assignment.differs(from: applied), record.isLive || assignment.connectsOtherwise(than: applied)
        else {
            record.applied = nil
            updateAt = nil
            updateDelay = 0
            return false
        }
        guard updateAt.map({ $0 <= now }) ?? true else { return false }
        updateAt = nil
        operation = .updating
        updating = assignment
        effects.append(.update(assignment, previous: applied))
        return true
    }

    mutating func updated(_ failure: ExecutorFailure?, now: Timestamp) {
        guard operation == .updating else { return }
        operation = nil
        let target = updating
        updating = nil
        if let failure {
            updateDelay = min(Pace.longestDelay, max(Pace.retry, updateDelay * 2))
            updateAt = now + updateDelay
            record.message = failure.message
            return
        }
        if updateDelay != 0 { record.message = "" }
        updateDelay = 0
        updateAt = nil
        // Meanwhile something newer may have come.
        record.applied = target.flatMap { assignment.differs(from: $0) ? $0 : nil }
    }
}

extension TaskAssignment {
    /// Whether what runs has to change for it.
    fileprivate func differs(from other: TaskAssignment) -> Bool {
        connectsOtherwise(than: other) || pod.containers.map(\.limits) != other.pod.containers.map(\.limits)
    }

    /// Whether networks, or its name there, are others.
    fileprivate func connectsOtherwise(than other: TaskAssignment) -> Bool {
        pod.attachments != other.pod.attachments || pod.network != other.pod.network || networks != other.networks
            || instanceName != other.instanceName
    }
}
