import Glibc

/// Bounds of what a listener takes from its clients.
package struct ServiceLimits: Sendable {
    /// Largest JSON body in bytes, whether its length is declared or it comes in chunks.
    package var jsonBody = 4 << 20
    /// Longest time until a JSON body is complete.
    package var jsonBodyTimeout: Duration = .seconds(30)
    /// Request line and all header fields together, in bytes.
    package var head = 64 << 10
    /// Number of header fields.
    package var headerFields = 100
    /// Longest time from a request's first byte (or the connection's start) to the end of its header.
    package var headTimeout: Duration = .seconds(10)
    /// Longest time that a connection stays open between requests.
    package var idleTimeout: Duration = .seconds(120)
    /// Connections at one time, all listeners of a server together; one more is answered 503. As many as this process
    /// has descriptors for: a follower of a log takes six where master and agent are one process.
    package var connections = ServiceLimits.descriptors / 8
    /// Connections from one address of the network that have shown no credential; one more is closed at once.
    package var strangers = 128
    /// Longest time that the reader of a line stream takes nothing before it is cut off.
    package var slowReaderTimeout: Duration = .seconds(30)
    /// Longest time that the end of a connection waits for the peer to read the rest and close.
    package var lingerTimeout: Duration = .seconds(3)
    /// Longest time that a shutdown waits for requests and taken-over connections.
    package var shutdownTimeout: Duration = .seconds(5)

    package init() {}

    /// How many this process may open, of which no more than 65,536 count: each connection takes memory too, some 40 KiB
    /// when it is idle.
    private static var descriptors: Int {
        var limit = rlimit()
        // 7: RLIMIT_NOFILE, which the module shows in another type on each platform.
        guard getrlimit(__rlimit_resource_t(7), &limit) == 0 else { return 4096 }
        return Int(min(65_536, max(4096, limit.rlim_cur)))
    }
}
