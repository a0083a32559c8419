import JSON
import Kernel

/// The wall clock without its jumps, for decisions that rest on how much time has passed.
///
/// It goes with CLOCK_BOOTTIME (which counts while the machine is suspended) and is drawn towards the wall clock by at most
/// a hundredth of the time that passes: when the wall clock is set, nobody becomes unreachable and no deadline is missed.
struct SteadyClock {
    private var last: Int64
    private var boot: Int64

    init() { self.init(wall: Timestamp.now().nanoseconds, boot: Proc.uptimeNanoseconds()) }

    init(wall: Int64, boot: Int64) {
        last = wall
        self.boot = boot
    }

    mutating func now() -> Timestamp { advance(wall: Timestamp.now().nanoseconds, boot: Proc.uptimeNanoseconds()) }

    /// The time after the clocks were read.
    mutating func advance(wall: Int64, boot now: Int64) -> Timestamp {
        let passed = max(0, now - boot)
        boot = now
        let straight = last + passed
        let reach = passed / 100
        last = straight + min(max(wall - straight, -reach), reach)
        return Timestamp(nanoseconds: last)
    }
}
