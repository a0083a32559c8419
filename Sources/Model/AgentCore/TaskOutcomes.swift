import JSON
import Model
import Wire

extension TaskMachine {
    /// The master changed its mind, or repeats itself. An older epoch of the task is ignored.
    mutating func assign(_ assignment: TaskAssignment) {
        guard assignment.epoch >= record.assignment.epoch else { return }
        orphaned = false
        // Removal is final: nothing of the task may come back.
        if record.removed || record.assignment.desired == .removed { return }
        let previous = record.assignment
        record.assignment = assignment
        if previous.pod.restart != assignment.pod.restart { endDelayIfRefused() }
        noteChange(from: previous)
    }

    /// The master does not know it, or a newer task of its instance has come: it goes.
    mutating func condemn() {
        record.assignment.desired = .removed
    }

    mutating func prepared(_ result: Result<PreparedPod, ExecutorFailure>, now: Timestamp) {
        guard operation == .preparing else { return }
        operation = nil
        switch result {
        case .success(let pod):
            record.prepared = true
            rewired(pod)
            record.failed = false
            record.message = ""
            if !wantsLife { record.restartAt = nil }
        case .failure(let failure):
            fail(failure, now: now)
        }
    }

    /// Where the pod is on its networks now.
    mutating func rewired(_ pod: PreparedPod) {
        record.addresses = pod.addresses
        record.endpoints = pod.endpoints
    }

    mutating func started(
        start: Int, _ result: Result<StartedContainer, ExecutorFailure>, now: Timestamp
    ) {
        guard operation == .starting, start == record.start else { return }
        operation = nil
        switch result {
        case .success(let container):
            run(container, paused: false, now: now)
            note("start", now: now)
            if restarts { note("restart", now: now) }
            restarts = false
            if let exit = earlyExit, exit.start == start { exited(exit, now: now) }
        case .failure(let failure):
            record.startPending = false
            record.container.state = .exited
            record.container.exitCode = failure.exitCode
            record.container.finishedAt = now
            record.container.reason = ContainerStatus.startFailed
            note("die", ["exitCode": "\(failure.exitCode)", "reason": ContainerStatus.startFailed], now: now)
            fail(failure, now: now)
        }
        earlyExit = nil
    }

    /// The newest start is alive.
    private mutating func run(_ container: StartedContainer, paused: Bool, now: Timestamp) {
        record.startPending = false
        record.restartAt = nil
        record.failed = false
        record.message = ""
        record.container.state = paused ? .paused : .running
        record.container.start = record.start
        record.container.pid = container.pid
        record.container.startedAt = container.startedAt
        if let check = self.container?.healthCheck {
            if record.container.health == .none { record.container.health = .starting }
            probeAt = now + probeInterval(check, now)
        }
        killAt = nil
        retryAt = nil
        signalled = false
    }

    /// An attempt to prepare or to start has failed: again later, or given up.
    private mutating func fail(_ failure: ExecutorFailure, now: Timestamp) {
        record.failed = true
        record.message = failure.message
        record.restartAt = nil
        if wantsLife {
            scheduleRestart(failed: true, isTransient: failure.isTransient, now: now)
        } else if assignment.desired == .prepared && failure.isTransient {
            wait(now)
        }
    }

    /// Applies the restart policy to an end or a failure.
    private mutating func scheduleRestart(failed: Bool, isTransient: Bool, now: Timestamp) {
        let policy = assignment.pod.restart
        guard isTransient || policy.allows(failed) && policy.maximumRetries.map({ record.streak < $0 }) ?? true else {
            return
        }
        if !isTransient { record.container.restarts += 1 }
        wait(now)
    }

    /// A container that has ended and waits for its restart waits no longer when a new policy has none for it.
    private mutating func endDelayIfRefused() {
        guard record.container.state == .exited, !record.failed, record.delay > 0, record.restartAt != nil,
            waitsForRestart, !record.startPending
        else { return }
        let failed = record.container.exitCode != 0 || !record.container.reason.isEmpty
        guard !assignment.pod.restart.allows(failed) else { return }
        record.restartAt = nil
        record.delay = 0
    }

    private mutating func wait(_ now: Timestamp) {
        record.streak += 1
        record.delay = Pace.delay(failures: record.streak)
        record.restartAt = now + record.delay
    }

    mutating func exited(_ exit: ContainerExit, now: Timestamp) {
        guard exit.start == record.start else { return }
        if operation == .starting {
            earlyExit = exit
            return
        }
        guard record.isLive || record.startPending else { return }
        let stop = record.stop
        record.startPending = false
        record.restartAt = nil
        record.stop = nil
        record.container.state = .exited
        record.container.pid = 0
        record.container.start = exit.start
        record.container.startedAt = exit.startedAt ?? record.container.startedAt
        record.container.finishedAt = exit.finishedAt
        record.container.exitCode = exit.exitCode
        record.container.outOfMemory = exit.outOfMemory
        record.container.reason =
            switch stop?.cause {
            case .unhealthy: "unhealthy"
            case .lease: ContainerExit.lease
            case .user, .restart, .removal, nil: exit.reason.isEmpty ? stop?.order?.reason ?? "" : exit.reason
            }
        probeAt = nil
        killAt = nil
        retryAt = nil
        if exit.outOfMemory { note("oom", now: now) }
        var attributes = ["exitCode": "\(exit.exitCode)"]
        if !record.container.reason.isEmpty { attributes["reason"] = record.container.reason }
        if let began = record.container.startedAt {
            attributes["execDuration"] = "\(max(0, exit.finishedAt - began) / Pace.second)"
        }
        note("die", attributes, now: now)
        let isKill = stop?.order?.isKill ?? false
        if stop?.cause == .restart || stop?.cause == .user && !isKill { note("stop", now: now) }
        restarts = stop?.cause == .restart
        decideAfterEnd(stop, exit, now)
    }

    private mutating func decideAfterEnd(_ stop: TaskRecord.Stop?, _ exit: ContainerExit, _ now: Timestamp) {
        guard wantsLife, !hasNewGeneration else { return }
        if exit.reason == ContainerExit.lease {
            // No case for the restart policy: it goes on as soon as there is contact again.
            record.delay = 0
            record.restartAt = now
            return
        }
        if let stop, stop.cause != .unhealthy {
            // It was stopped on purpose, and meanwhile it is wanted again: no case for the restart policy.
            record.delay = 0
            record.restartAt = now
            return
        }
        if let began = record.container.startedAt, exit.finishedAt - began >= Pace.steady { record.streak = 0 }
        let failed = exit.exitCode != 0 || stop?.cause == .unhealthy || !exit.reason.isEmpty
        scheduleRestart(failed: failed, isTransient: false, now: now)
    }

    mutating func signalled(start: Int, _ failure: ExecutorFailure?, now: Timestamp) {
        guard start == record.start, record.stop != nil, failure != nil else { return }
        signalled = false
        retryAt = now + Pace.retry
    }

    mutating func killed(start: Int, _ failure: ExecutorFailure?, now: Timestamp) {
        guard start == record.start, let failure else { return }
        record.message = failure.message
        killAt = now + Pace.retry
    }

    mutating func frozen(start: Int, _ failure: ExecutorFailure?, now: Timestamp) {
        guard operation == .pausing else { return }
        operation = nil
        guard start == record.start, record.container.state == .running else { return }
        if let failure { return retry(failure, now) }
        record.container.state = .paused
        note("pause", now: now)
    }

    mutating func thawed(start: Int, _ failure: ExecutorFailure?, now: Timestamp) {
        guard operation == .resuming else { return }
        operation = nil
        guard start == record.start, record.container.state == .paused else { return }
        if let failure { return retry(failure, now) }
        record.container.state = .running
        if let check = container?.healthCheck { probeAt = now + probeInterval(check, now) }
        note("unpause", now: now)
    }

    private mutating func retry(_ failure: ExecutorFailure, _ now: Timestamp) {
        record.message = failure.message
        retryAt = now + Pace.retry
    }

    mutating func removed(_ failure: ExecutorFailure?, now: Timestamp) {
        guard operation == .removing else { return }
        operation = nil
        if let failure {
            removeDelay = min(Pace.longestDelay, max(Pace.firstDelay, removeDelay * 2))
            removeAt = now + removeDelay
            record.message = failure.message
            return
        }
        record.removed = true
        record.prepared = false
        record.startPending = false
        record.restartAt = nil
        rewired(PreparedPod())
        record.message = ""
        note("destroy", now: now)
    }

    mutating func probed(start: Int, _ outcome: ProbeOutcome, now: Timestamp) {
        guard probing else { return }
        probing = false
        guard let check = container?.healthCheck else { return }
        defer { probeAt = now + probeInterval(check, now) }
        guard start == record.start, record.container.state == .running else { return }
        switch outcome {
        case .success:
            record.container.failingStreak = 0
            setHealth(.healthy, now)
            if record.stop == nil { record.message = "" }
        case .failure(let why):
            let age = now - (record.container.startedAt ?? now)
            if record.container.health == .starting && age < Pace.seconds(check.startPeriod ?? 0) { return }
            record.container.failingStreak += 1
            guard record.container.failingStreak >= check.retries ?? HealthCheck.standardRetries else { return }
            record.message = "health check failed: \(why)"
            setHealth(.unhealthy, now)
            if record.stop == nil, check.onUnhealthy == .stop { beginStop(.unhealthy, now) }
        }
    }

    /// Nanoseconds to the next check: within the start period, until the first success, there is another one.
    func probeInterval(_ check: HealthCheck, _ now: Timestamp) -> Int64 {
        let isStarting =
            record.container.health == .starting
            && now - (record.container.startedAt ?? now) < Pace.seconds(check.startPeriod ?? 0)
        return Pace.seconds(check.pause(isStarting: isStarting))
    }

    private mutating func setHealth(_ health: ContainerStatus.Health, _ now: Timestamp) {
        guard record.container.health != health else { return }
        record.container.health = health
        note("health_status", ["health": health.rawValue], now: now)
    }

    /// Takes over what the executor found after a restart of the agent.
    mutating func recover(_ found: RecoveredTask, bootID: String, now: Timestamp) {
        written = record
        if record.removed { return }
        if record.bootID != bootID {
            record.bootID = bootID
            record.prepared = false
            rewired(PreparedPod())
            // An end that was made durable before the machine went down is known as it was.
            if case .exited(let exit) = found.container { exited(exit, now: now) }
            if record.isLive || record.startPending { lose("node rebooted", now) }
            return
        }
        record.prepared = found.prepared != nil
        rewired(found.prepared ?? PreparedPod())
        switch found.container {
        case .none:
            if record.isLive || record.container.state == .created { lose("shim lost", now) }
        case .created(let start):
            if start == record.start, record.startPending { record.container.state = .created }
        case .running(let start, let container, let paused):
            guard start == record.start else { return }
            let wasPending = record.startPending
            run(container, paused: paused, now: now)
            if wasPending { note("start", now: now) }
        case .exited(let exit):
            exited(exit, now: now)
        }
    }

    private mutating func lose(_ reason: String, _ now: Timestamp) {
        exited(ContainerExit(start: record.start, exitCode: 137, finishedAt: now, reason: reason), now: now)
    }
}

extension RestartPolicy {
    /// Whether it restarts what has ended, before its retries are counted.
    fileprivate func allows(_ failed: Bool) -> Bool {
        switch condition {
        case .no: false
        case .onFailure: failed
        case .always, .unlessStopped: true
        }
    }
}
