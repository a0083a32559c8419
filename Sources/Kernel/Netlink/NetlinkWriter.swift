import Kernel

/// Any number of requests, sent in batches as they come. One that is refused does not stop those behind it.
package struct NetlinkWriter: ~Copyable {
    private var socket: NetlinkSocket
    private var batch = NetlinkBatch()
    /// What the kernel refused so far.
    package private(set) var refusals: [KernelError] = []

    /// In the network namespace of the calling thread.
    package init(_ service: NetlinkSocket.Service = .routing) throws(KernelError) {
        socket = try NetlinkSocket(service)
    }

    /// - Throws: when sending fails.
    package mutating func add(_ request: consuming NetlinkRequest) throws(KernelError) {
        if batch.count == NetlinkBatch.limit { try flush() }
        try batch.add(request)
    }

    /// Sends what has not been sent.
    package mutating func flush() throws(KernelError) {
        refusals += try socket.perform(batch).compactMap { $0 }
        batch = NetlinkBatch()
    }
}
