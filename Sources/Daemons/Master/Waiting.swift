import MasterCore
import Model
import Wire

/// What a client can wait for.
package enum WaitCondition: String, Sendable, CaseIterable {
    /// It ran, or it failed to, or no node fits it as yet.
    case started
    /// It ended, and nothing starts it again but its user.
    case stopped
    case paused
    /// It goes on, or has ended.
    case unpaused
    /// It does not run: it ended for good, or never began.
    case notRunning = "not-running"
    /// The next start from now on ended, whatever follows.
    case nextExit = "next-exit"
    /// Nothing of it is left.
    case removed
}

/// Somebody waits for a container: from here on nothing that happens to it is missed.
package struct ContainerWait: Sendable {
    fileprivate let condition: WaitCondition
    fileprivate let present: ContainerView
    fileprivate let changes: AsyncThrowingStream<WatchLine<ContainerView>, any Error>

    /// Returns when the container is as it is waited for, or will never be. To be called once.
    ///
    /// - Throws: `APIProblem`; `CancellationError`.
    package func result() async throws -> WaitResult {
        var last = present
        if let result = last.result(of: condition, since: nil) { return result }
        for try await line in changes {
            switch line.change {
            case .put:
                guard let view = line.object else { continue }
                last = view
                if let result = view.result(of: condition, since: present) { return result }
            case .delete:
                let ended = WaitResult(
                    exitCode: last.container.exitCode ?? 0, outOfMemory: last.container.outOfMemory,
                    message: condition == .removed ? "" : "the container was removed")
                return ended
            case .synced, .heartbeat: continue
            }
        }
        try Task.checkCancellation()
        throw APIProblem(.unavailable, "the master stopped watching the container \(present.name); ask again")
    }
}

extension ClusterMaster {
    /// Returns when the container is as it is waited for, or will never be.
    ///
    /// - Throws: `APIProblem`; `CancellationError`.
    package func wait(for ref: String, _ condition: WaitCondition) async throws -> WaitResult {
        try await beginWait(for: ref, condition).result()
    }

    /// Begins to watch the container.
    package func beginWait(for ref: String, _ condition: WaitCondition) async throws(APIProblem) -> ContainerWait {
        let (present, changes) = try await watchContainer(ref)
        return ContainerWait(condition: condition, present: present, changes: changes)
    }

    /// Where the container's task is, once it has a node.
    ///
    /// - Throws: `APIProblem`: there is no such container; no node fits, and why.
    package func locate(_ ref: String) async throws -> TaskLocation {
        let (present, changes) = try await watchContainer(ref)
        if present.task == nil, present.unschedulable == nil, present.desired != .stopped {
            for try await line in changes {
                if line.change == .delete { break }
                guard let view = line.object else { continue }
                if view.task != nil || view.unschedulable != nil { break }
            }
        }
        guard case .location(let location) = try await query(.location(present.id.text)) else {
            throw APIProblem.unexpected
        }
        guard location.task != nil else {
            let reason =
                location.waiting.isEmpty ? "it has never been started" : "it waits for a node: \(location.waiting)"
            throw APIProblem(.conflict, "the container \(location.name) runs nowhere: \(reason)")
        }
        guard location.node != nil else {
            throw APIProblem(.conflict, "the node of the container \(location.name) is gone")
        }
        return location
    }
}

extension ClusterMaster {
    /// Where the container's task is, for whoever waits for its next start; also while no node fits.
    ///
    /// - Returns: nil when there is no such start: it was removed, or given up after no node fitted.
    /// - Throws: `APIProblem`; `CancellationError`.
    package func locateNextStart(of ref: String) async throws -> TaskLocation? {
        let (present, changes) = try await watchContainer(ref)
        if present.task == nil {
            for try await line in changes {
                if line.change == .delete { return nil }
                guard let view = line.object else { continue }
                if view.task != nil { break }
                let isNew = present.desired != .stopped || view.generation > present.generation
                if view.desired == .removed || view.desired == .stopped && isNew { return nil }
            }
            try Task.checkCancellation()
        }
        guard case .location(let location) = try await query(.location(present.id.text)) else {
            throw APIProblem.unexpected
        }
        return location.task == nil ? nil : location
    }
}

extension ContainerView {
    /// The node has acted on the user's last wish to start it.
    private var isUpToDate: Bool { status.generation >= generation }

    /// The answer for somebody who waits; nil: not yet.
    ///
    /// - Parameter before: how it was when the wait began; nil: it begins now.
    fileprivate func result(of condition: WaitCondition, since before: ContainerView?) -> WaitResult? {
        switch condition {
        case .started: startResult
        case .stopped: stopResult
        case .paused: pauseResult
        case .unpaused: status.phase == .paused ? nil : WaitResult(exitCode: 0)
        case .notRunning: isIdle ? WaitResult(exitCode: container.exitCode ?? 0) : stopResult
        case .nextExit: before.flatMap(exitResult)
        case .removed: nil
        }
    }

    private var startResult: WaitResult? {
        if task == nil, desired == .running, let unschedulable {
            return WaitResult(exitCode: 125, message: "\(name) waits for a node: \(unschedulable.message)")
        }
        switch status.phase {
        case .running, .paused: return isUpToDate ? WaitResult(exitCode: 0) : nil
        case .exited where isUpToDate && container.start > 0:
            return WaitResult(exitCode: 0, outOfMemory: container.outOfMemory)
        case .failed where isUpToDate || status.restartAt == nil && desired == .prepared:
            return WaitResult(exitCode: container.exitCode ?? 125, message: status.message)
        default:
            guard desired == .stopped || desired == .removed else { return nil }
            return WaitResult(exitCode: 125, message: "it was stopped before it started")
        }
    }

    private var stopResult: WaitResult? {
        if task == nil { return desired == .stopped ? WaitResult(exitCode: 0, message: "it was never started") : nil }
        let wantsNoMore = desired == .stopped || desired == .removed
        guard status.restartAt == nil, isUpToDate || wantsNoMore else { return nil }
        switch status.phase {
        case .exited:
            return WaitResult(
                exitCode: container.exitCode ?? 0, outOfMemory: container.outOfMemory, message: container.reason)
        case .failed: return WaitResult(exitCode: container.exitCode ?? 125, message: status.message)
        case .prepared, .assigned: return wantsNoMore ? WaitResult(exitCode: 0, message: "it was never started") : nil
        default: return nil
        }
    }

    /// It has never run, and is not about to.
    private var isIdle: Bool {
        container.start == 0 && desired != .running && desired != .paused && status.phase != .running
    }

    /// The end of a start that had not ended `before`.
    private func exitResult(since before: ContainerView) -> WaitResult? {
        // It stays when the next start has begun meanwhile.
        if let finishedAt = container.finishedAt, finishedAt != before.container.finishedAt {
            return WaitResult(
                exitCode: container.exitCode ?? 0, outOfMemory: container.outOfMemory, message: container.reason)
        }
        // It could not be prepared: there will be no start.
        guard status.phase == .failed, status.restartAt == nil, isUpToDate, before.status != status else { return nil }
        return WaitResult(exitCode: container.exitCode ?? 125, message: status.message)
    }

    private var pauseResult: WaitResult? {
        switch status.phase {
        case .paused: WaitResult(exitCode: 0)
        case .exited, .failed, .removed: WaitResult(exitCode: container.exitCode ?? 125, message: "it ended")
        default: nil
        }
    }
}
