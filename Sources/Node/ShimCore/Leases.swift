import CKernel
import Glibc
import Kernel
import ShimProtocol

/// What the shim does for leases, see `ShimLease`. None of it waits for a client, nor for the operations that clients
/// have asked for.
extension Shim {
    /// Gives a container a lease in place of the one that it has.
    func lease(_ lease: ShimLease, _ connection: Connection) {
        let id = lease.container
        if let refusal = lease.refusal(now: LeaseTimer.now()) { return connection.fail(refusal) }
        guard let slot = slot(id), let container = slot.container else { return failUnknown(id, connection) }
        // What has passed has passed, also when the timer's turn is still to come.
        enforceLeases()
        guard !container.leaseRanOut || !container.isAlive else {
            return connection.fail("cannot lease container \(id): its lease ran out, and it is being ended")
        }
        do throws(KernelError) {
            try prepareLeaseTimer()
        } catch {
            return connection.fail("cannot lease container \(id): \(error)")
        }
        slot.lease = lease
        enforceLeases()
        answer(container, connection)
    }

    /// Ends a container's lease, so that it may run for ever.
    func release(_ id: String, _ connection: Connection) {
        guard let slot = slot(id), let container = slot.container else { return failUnknown(id, connection) }
        enforceLeases()
        slot.lease = nil
        answer(container, connection)
    }

    /// Why the container must not be started now, or nil.
    func leaseRefusal(_ id: String) -> String? {
        guard let lease = slot(id)?.lease, lease.until <= LeaseTimer.now() else { return nil }
        return "its lease ran out; give it a new one first"
    }

    /// Ends what has outlived its lease, and sets the timer for the next moment.
    func enforceLeases() {
        guard let leaseTimer else { return }
        let now = LeaseTimer.now()
        leaseTimer.set(slotsInOrder.compactMap { enforceLease(of: $0, now) }.min())
    }

    /// - Returns: when to look again; nil: when something is asked of the container.
    private func enforceLease(of slot: ContainerSlot, _ now: Int64) -> Int64? {
        guard let container = slot.container, container.mayRun else { return nil }
        if container.killAt == nil, let lease = slot.lease {
            if now < lease.until { return lease.until }
            container.leaseEnds(killAt: lease.end)
            if now < lease.end { ask(container, lease.signal) }
        }
        guard let killAt = container.killAt else { return nil }
        if now < killAt { return killAt }
        killEverything(of: container)
        // A process that sleeps in the kernel dies later; one that was forked just now may have been missed.
        container.leaseEnds(killAt: now + ShimLimits.rekillMilliseconds)
        return container.killAt
    }

    private func ask(_ container: Container, _ signal: Int32) {
        let id = container.spec.container
        let send = { [unowned self] in
            runtime.run("kill", [id, String(signal)]) { [unowned self] failure in
                if failure != nil, reaper.isWatched(container.pid) { kill(container.pid, signal) }
            }
        }
        guard container.isPaused else { return send() }
        // A frozen process takes no signal.
        runtime.run("resume", [id]) { failure in
            if failure == nil { container.resumeEnds() }
            send()
        }
    }

    /// Sends SIGKILL to everything in the container's cgroup, frozen or not: by hand, should the runtime be missing or
    /// hang, and by the runtime, which finds what we may not know.
    private func killEverything(of container: Container) {
        let isFirstAlive = reaper.isWatched(container.pid)
        if isFirstAlive { kill(container.pid, SIGKILL) }
        for directory in container.spec.cgroups {
            // Each hierarchy has one of the files at most; v1's frozen processes die when they are thawed.
            try? File.writeControl("\(directory)/cgroup.kill", "1")
            try? File.writeControl("\(directory)/freezer.state", "THAWED")
        }
        guard !container.isBeingKilled else { return }
        container.isBeingKilled = true
        let id = container.spec.container
        runtime.run("kill", isFirstAlive ? [id, String(SIGKILL)] : ["--all", id, String(SIGKILL)]) { _ in
            container.isBeingKilled = false
        }
    }

    /// The container's first process was reaped: what it leaves behind goes as well, unless it has its lease.
    func endStragglers(of container: Container) {
        if container.leaseRanOut { killEverything(of: container) }
    }
}

/// Wakes the loop at a moment of CLOCK_BOOTTIME, see timerfd_create(2). One that passes while the machine is suspended
/// comes as soon as it is awake.
final class LeaseTimer {
    private let timer: SharedFD

    /// - Parameter fire: called for each moment that was set and has come.
    init(_ loop: EventLoop, _ fire: @escaping () -> Void) throws(KernelError) {
        let flags = Int32(TFD_CLOEXEC) | Int32(TFD_NONBLOCK)
        let made = SharedFD(
            OwnedFD(adopting: try systemCall("timerfd_create") { timerfd_create(CLOCK_BOOTTIME, flags) }))
        timer = made
        try loop.watch(made.raw, EventLoop.readable) { _ in
            var count: UInt64 = 0
            // Nothing to read: it was set anew in the same round.
            if read(made.raw, &count, 8) == 8 { fire() }
        }
    }

    /// Replaces the moment, in milliseconds; one that has passed comes at once, nil never.
    func set(_ moment: Int64?) {
        var time = itimerspec()
        // All zero switches it off.
        if let moment {
            let milliseconds = max(1, moment)
            time.it_value = timespec(tv_sec: Int(milliseconds / 1000), tv_nsec: Int(milliseconds % 1000) * 1_000_000)
        }
        // It fails only for what is no timer, or no time.
        _ = timerfd_settime(timer.raw, Int32(TFD_TIMER_ABSTIME), &time, nil)
    }

    /// Milliseconds of CLOCK_BOOTTIME.
    static func now() -> Int64 { Proc.uptimeNanoseconds() / 1_000_000 }
}
