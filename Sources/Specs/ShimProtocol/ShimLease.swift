/// How long a container may run without a further word from its agent.
///
/// The shim holds the lease, so that the container ends in time also when the agent is dead, stopped or cut off. When
/// the lease runs out the shim sends `signal` and, once `grace` has passed as well, SIGKILL to everything in the
/// container's cgroup; a frozen container is thawed for the signal. The grace counts from `until`: a shim that wakes
/// up late, after the machine was suspended say, grants no more than what is left of it. What has begun to end is ended:
/// no later lease revokes that. The exit record's reason is `ExitRecord.leaseRanOut`.
///
/// A lease belongs to the container through all its starts, until it is released or the container is deleted. Once it
/// has run out, `start` is refused until there is a new one; a container that was only created is not touched, since
/// nothing of its program runs.
///
/// The last lease counts, also when it ends sooner than the one before: who gives it, knows best. It names a moment
/// instead of a duration, so that a request that is late is worth no more than it was when it was written.
package struct ShimLease: Codable, Sendable, Equatable {
    /// The container's id.
    package var container: String
    /// When it runs out, in milliseconds of CLOCK_BOOTTIME, which also counts while the machine is suspended; at most
    /// `ShimLease.longest` from now. A moment that has passed ends the container at once.
    package var until: Int64
    /// The signal that asks the container to end: 1 to 64.
    package var signal: Int32
    /// Milliseconds from `until` to SIGKILL: 0 to `ShimLease.longest`.
    package var grace: Int64

    /// The longest lease and the longest grace: 366 days, in milliseconds.
    package static let longest: Int64 = 366 * 86_400_000

    package init(container: String, until: Int64, signal: Int32, grace: Int64) {
        self.container = container
        self.until = until
        self.signal = signal
        self.grace = grace
    }

    /// Why this request makes no sense, or nil.
    ///
    /// - Parameter now: milliseconds of CLOCK_BOOTTIME.
    package func refusal(now: Int64) -> String? {
        guard (0...Self.longest).contains(grace) else {
            return "the grace of container \(container), \(grace) ms, is out of range: 0 to 366 days"
        }
        guard (1...64).contains(signal) else { return "\(signal) is no signal; 1 to 64 are" }
        guard until >= 0, until <= now + Self.longest else {
            return "the lease of container \(container) until \(until) is out of range: 366 days from now at most"
        }
        return nil
    }

    /// When everything of the container is killed.
    package var end: Int64 { until + grace }
}
