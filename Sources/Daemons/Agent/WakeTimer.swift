import CKernel
import Glibc
import JSON
import Kernel
import Reactor

/// Calls back at the moment that was asked for last; also when somebody sets the machine's clock.
final class WakeTimer: Sendable {
    private let timer: SharedFD
    private let reactor: Reactor

    init(_ reactor: Reactor) throws {
        self.reactor = reactor
        timer = SharedFD(
            OwnedFD(
                adopting: try systemCall("timerfd_create") {
                    timerfd_create(CLOCK_REALTIME, Int32(TFD_CLOEXEC) | Int32(TFD_NONBLOCK))
                }))
    }

    /// Replaces the moment; one that has passed comes at once.
    func set(_ moment: Timestamp) {
        var time = itimerspec()
        // All zero would switch it off.
        let nanoseconds = max(1, moment.nanoseconds)
        time.it_value = timespec(tv_sec: Int(nanoseconds / 1_000_000_000), tv_nsec: Int(nanoseconds % 1_000_000_000))
        // TFD_TIMER_CANCEL_ON_SET, see timerfd_create(2): a clock that jumps ends the wait.
        let flags = Int32(TFD_TIMER_ABSTIME) | 2
        _ = timerfd_settime(timer.raw, flags, &time, nil)
    }

    /// Runs until it is cancelled.
    func run(_ tick: @Sendable () -> Void) async throws {
        while true {
            try await reactor.waitReadable(timer.raw)
            var count: UInt64 = 0
            let raw = timer.raw
            _ = withUnsafeMutableBytes(of: &count) { read(raw, $0.baseAddress, 8) }
            tick()
        }
    }
}
