import JSON
import Model
import Wire

extension TaskMachine {
    /// Gives out what is to be done next, the record before everything that relies on it.
    ///
    /// - Parameters:
    ///   - blocker: another task of the same instance that is still on this node; this one must not start while there is
    ///     one.
    ///   - contact: with the master.
    mutating func advance(now: Timestamp, blocker: TaskID?, contact: Contact = Contact()) -> [AgentEffect] {
        limitDeadlines(now)
        var effects: [AgentEffect] = []
        if !record.removed {
            if record.isLive {
                advanceLive(now, contact, &effects)
            } else {
                let obstacle = blocker.map { "waiting until task \($0) is removed, which has what this one needs" }
                let isAlone = lacksContact(contact, now)
                advanceResting(now, obstacle ?? (isAlone ? Self.noContact : nil), &effects)
            }
        }
        updateServing(now)
        if record != written {
            let sync = written == nil || written?.start != record.start
            effects.insert(.persist(record, sync: sync), at: 0)
            written = record
        }
        return effects
    }

    /// When the clock was set back, nothing waits for longer than it was meant to from now on.
    private mutating func limitDeadlines(_ now: Timestamp) {
        func limited(_ deadline: Timestamp?, _ length: Int64) -> Timestamp? {
            deadline.map { $0 - now > length ? now + length : $0 }
        }
        if let stop = record.stop, stop.deadline - now > stop.grace { record.stop?.deadline = now + stop.grace }
        record.restartAt = limited(record.restartAt, record.delay)
        retryAt = limited(retryAt, Pace.retry)
        killAt = limited(killAt, Pace.rekill)
        removeAt = limited(removeAt, removeDelay)
        updateAt = limited(updateAt, updateDelay)
        probeAt = limited(probeAt, container?.healthCheck.map { probeInterval($0, now) } ?? 0)
    }

    // MARK: A container runs or is frozen

    private static let noContact = "waiting for contact with the master, without which it must not run"

    private mutating func advanceLive(_ now: Timestamp, _ contact: Contact, _ effects: inout [AgentEffect]) {
        if let cause = stopCause { beginStop(cause, now) }
        if let end = leaseEnd(contact), end <= now { beginStop(.lease, now) }
        if record.stop != nil { return advanceStop(now, &effects) }
        guard operation == nil, retryAt.map({ $0 <= now }) ?? true else { return }
        retryAt = nil
        if beginUpdate(now, &effects) { return }
        switch (assignment.desired, record.container.state) {
        case (.paused, .running):
            operation = .pausing
            effects.append(.pause(assignment, start: record.start))
        case (.running, .paused):
            operation = .resuming
            effects.append(.resume(assignment, start: record.start))
        case (_, .running):
            advanceProbe(now, &effects)
        default: break
        }
    }

    private var stopCause: TaskRecord.Stop.Cause? {
        switch assignment.desired {
        case .stopped: .user
        case .removed: .removal
        case .running, .paused: hasNewGeneration ? .restart : nil
        case .prepared: nil
        }
    }

    /// Begins a stop, or makes one that is under way as strict as what is wanted now; it never grows more lenient.
    mutating func beginStop(_ cause: TaskRecord.Stop.Cause, _ now: Timestamp) {
        let isOwn = cause == .unhealthy || cause == .lease
        let order = isOwn ? nil : assignment.stop
        let signal = order?.signal ?? ""
        let grace = Self.isKill(signal) ? 0 : Pace.seconds(max(0, order?.grace ?? container?.stopGrace ?? 10))
        guard let stop = record.stop else {
            record.stop = TaskRecord.Stop(
                cause: cause, signal: signal, grace: grace, deadline: now + grace, order: order)
            signalled = false
            retryAt = nil
            killAt = nil
            return
        }
        if !isOwn { record.stop?.cause = cause }
        guard !isOwn, order != stop.order else { return }
        record.stop?.order = order
        if now + grace < stop.deadline {
            record.stop?.grace = grace
            record.stop?.deadline = now + grace
        }
        if !signal.isEmpty, signal != stop.signal {
            record.stop?.signal = signal
            signalled = false
        }
    }

    static func isKill(_ signal: String) -> Bool {
        switch signal.uppercased() {
        case "KILL", "SIGKILL", "9": true
        default: false
        }
    }

    private mutating func advanceStop(_ now: Timestamp, _ effects: inout [AgentEffect]) {
        guard let stop = record.stop else { return }
        if !signalled && !Self.isKill(stop.signal) && retryAt.map({ $0 <= now }) ?? true && operation == nil {
            let isRepeated = retryAt != nil
            retryAt = nil
            if record.container.state == .paused {
                // A frozen process takes no signal.
                operation = .resuming
                effects.append(.resume(assignment, start: record.start))
            } else {
                signalled = true
                if !isRepeated { noteKill(stop.signal, now) }
                effects.append(.signal(assignment, start: record.start, signal: stop.signal))
            }
        }
        if (killAt ?? stop.deadline) <= now {
            if killAt == nil { noteKill("KILL", now) }
            killAt = now + Pace.rekill
            effects.append(.kill(assignment, start: record.start))
        }
    }

    /// - Parameter signal: name or number; empty: its own stop signal.
    private mutating func noteKill(_ signal: String, _ now: Timestamp) {
        let name = SignalName(signal) ?? SignalName(container?.stopSignal ?? "") ?? .terminate
        note("kill", ["signal": name.description], now: now)
    }

    private mutating func advanceProbe(_ now: Timestamp, _ effects: inout [AgentEffect]) {
        guard let check = container?.healthCheck, !probing else { return }
        guard let due = probeAt else {
            probeAt = now + probeInterval(check, now)
            return
        }
        guard due <= now else { return }
        probing = true
        effects.append(.probe(assignment, start: record.start, check))
    }

    private mutating func updateServing(_ now: Timestamp) {
        let healthy = record.container.health == .none || record.container.health == .healthy
        if record.container.state == .running && record.stop == nil && healthy {
            record.servingSince = record.servingSince ?? now
        } else {
            record.servingSince = nil
        }
    }

    // MARK: No container runs

    private mutating func advanceResting(
        _ now: Timestamp, _ obstacle: String?, _ effects: inout [AgentEffect]
    ) {
        guard operation == nil else { return }
        if assignment.desired != .removed, beginUpdate(now, &effects) { return }
        switch assignment.desired {
        case .removed:
            guard removeAt.map({ $0 <= now }) ?? true else { return }
            operation = .removing
            effects.append(.remove(assignment))
        case .stopped:
            endAttempts()
            // A start that the stop has overtaken will not be made up for.
            record.generation = max(record.generation, assignment.generation)
            record.userStopped = true
            killCreated(now, &effects)
        case .prepared:
            killCreated(now, &effects)
            guard !record.prepared, record.restartAt.map({ $0 <= now }) ?? !record.failed else { return }
            attempt(now, obstacle, &effects)
        case .running, .paused:
            if hasNewGeneration || record.userStopped { wantStart(now) }
            // What is there while an update waits is not what is to be started.
            guard record.applied == nil, let due = record.restartAt, due <= now else { return }
            attempt(now, obstacle, &effects)
        }
    }

    /// A container that was made but not started when its agent died, and is not wanted any more.
    private mutating func killCreated(_ now: Timestamp, _ effects: inout [AgentEffect]) {
        guard record.container.state == .created, killAt.map({ $0 <= now }) ?? true else { return }
        killAt = now + Pace.rekill
        effects.append(.kill(assignment, start: record.start))
    }

    private mutating func endAttempts() {
        record.restartAt = nil
        record.delay = 0
        if record.container.state != .created { record.startPending = false }
    }

    /// A user wants it to run: at once, and with a clean record.
    private mutating func wantStart(_ now: Timestamp) {
        record.generation = max(record.generation, assignment.generation)
        record.userStopped = false
        record.streak = 0
        record.container.restarts = 0
        record.failed = false
        record.message = ""
        record.delay = 0
        record.restartAt = now
    }

    /// - Parameter obstacle: why it must not start now, as a sentence.
    private mutating func attempt(_ now: Timestamp, _ obstacle: String?, _ effects: inout [AgentEffect]) {
        if let obstacle {
            record.message = obstacle
            return
        }
        guard record.prepared else {
            operation = .preparing
            effects.append(.prepare(assignment))
            return
        }
        if !record.startPending {
            record.start += 1
            record.startPending = true
        }
        record.restartAt = record.restartAt ?? now
        var fresh = ContainerStatus(name: record.container.name, id: record.container.id)
        fresh.start = record.start
        fresh.restarts = record.container.restarts
        record.container = fresh
        operation = .starting
        effects.append(.start(assignment, start: record.start))
    }
}
