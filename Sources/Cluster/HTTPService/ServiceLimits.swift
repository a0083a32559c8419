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
    /// Connections at one time, all listeners of a server together; one more is answered 503.
    package var connections = 1024
    /// Connections from one address of the network that have shown no credential; one more is closed at once.
    package var strangers = 128
    /// Longest time that the reader of a line stream takes nothing before it is cut off.
    package var slowReaderTimeout: Duration = .seconds(30)
    /// Longest time that the end of a connection waits for the peer to read the rest and close.
    package var lingerTimeout: Duration = .seconds(3)
    /// Longest time that a shutdown waits for requests and taken-over connections.
    package var shutdownTimeout: Duration = .seconds(5)

    package init() {}
}
