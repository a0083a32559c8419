import JSON
import Model
import Wire

/// Changes of what runs, without a new start.
///
/// While a change is not finished, what is there may be a mixture of what was before (`record.applied`) and of all that
/// was tried since (`record.attempted`): each of them is led to what is wanted now, and only then is it brought about.
extension TaskMachine {
    /// Attempts that are remembered; a user who changes his mind more often while all of them fail may find something of
    /// the oldest left.
    private static let mostAttempts = 4

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
        guard record.applied != nil else { return false }
        // Where nothing is yet, all of it is made anew. A container that does not run gets limits and devices with its start.
        let previous = mayBeThere.first {
            record.isLive ? assignment.differs(from: $0) : record.prepared && assignment.connectsOtherwise(than: $0)
        }
        guard let previous else {
            endUpdate()
            return false
        }
        guard updateAt.map({ $0 <= now }) ?? true else { return false }
        updateAt = nil
        operation = .updating
        updating = (assignment, previous)
        let attempted = record.attempted ?? []
        if attempted.allSatisfy({ assignment.differs(from: $0) }) {
            record.attempted = (attempted + [assignment]).suffix(Self.mostAttempts)
        }
        effects.append(.update(assignment, previous: previous))
        return true
    }

    mutating func updated(_ failure: ExecutorFailure?, now: Timestamp) {
        guard operation == .updating else { return }
        operation = nil
        let done = updating
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
        guard let done, let applied = record.applied else { return }
        // Nothing is left of the one that it began with, and the target is there in its place.
        record.attempted?.removeAll { !done.previous.differs(from: $0) }
        if !done.previous.differs(from: applied) {
            record.applied = done.target
            record.attempted?.removeAll { !done.target.differs(from: $0) }
        }
        // Meanwhile something newer may have come.
        if !mayBeThere.contains(where: { assignment.differs(from: $0) }) { endUpdate() }
    }

    private var mayBeThere: [TaskAssignment] { record.changed }

    private mutating func endUpdate() {
        record.applied = nil
        record.attempted = nil
        updateAt = nil
        updateDelay = 0
    }
}

extension TaskAssignment {
    /// Whether what runs has to change for it.
    fileprivate func differs(from other: TaskAssignment) -> Bool {
        connectsOtherwise(than: other) || pod.containers.map(\.limits) != other.pod.containers.map(\.limits)
            || grantedDevices != other.grantedDevices
    }

    /// Whether networks, or its name there, are others.
    fileprivate func connectsOtherwise(than other: TaskAssignment) -> Bool {
        pod.attachments != other.pod.attachments || pod.network != other.pod.network || networks != other.networks
            || addresses != other.addresses || instanceName != other.instanceName
    }
}
