import CNetlink
import Glibc
import Kernel

/// Several requests for one datagram. The kernel carries them out in order and answers each; one that fails does not
/// stop those behind it.
package struct NetlinkBatch: ~Copyable {
    /// Most requests of one datagram: their answers must fit into the socket's buffer.
    package static let limit = 100
    /// Most bytes of one datagram.
    package static let byteLimit = 32 << 10
    /// Most bytes of a transaction, which is answered once: 4096 published ports in both families are 4 MiB.
    package static let transactionByteLimit = 8 << 20

    /// What an answer is matched with.
    struct Entry {
        let operation: String
        let subject: String
        let tolerated: [Int32]
        let advice: NetlinkAdvice?
        /// Where its header begins in `bytes`.
        let offset: Int
    }

    private(set) var bytes: [UInt8] = []
    private(set) var entries: [Entry] = []

    private let limit: Int
    private let byteLimit: Int

    package init() { (limit, byteLimit) = (Self.limit, Self.byteLimit) }

    /// One that the kernel carries out as a whole, see `NetlinkSocket.commit`.
    package init(transaction: Void) { (limit, byteLimit) = (.max, Self.transactionByteLimit) }

    package var count: Int { entries.count }

    /// - Throws: `KernelError` with E2BIG when the datagram is full.
    package mutating func add(_ request: consuming NetlinkRequest) throws(KernelError) {
        let message = request.bytes()
        guard entries.count < limit, bytes.count + message.count + 3 <= byteLimit else {
            throw KernelError(request.operation, request.subject, errno: E2BIG, hint: "the batch is full")
        }
        entries.append(
            Entry(
                operation: request.operation, subject: request.subject, tolerated: request.tolerated,
                advice: request.advice, offset: bytes.count))
        bytes += message
        bytes += [UInt8](repeating: 0, count: -message.count & 3)
    }

    /// The datagram, with consecutive sequence numbers from `first` on.
    ///
    /// - Parameter acknowledged: whether the message of a number is to be acknowledged.
    func datagram(first: UInt32, acknowledged: (Int) -> Bool = { _ in true }) -> [UInt8] {
        var datagram = bytes
        for (index, entry) in entries.enumerated() {
            datagram.setHeader(
                at: entry.offset, flags: acknowledged(index) ? Int32(NLM_F_ACK) : 0, sequence: first &+ UInt32(index))
        }
        return datagram
    }
}

extension [UInt8] {
    /// Adds flags to a netlink message's header and gives it a sequence number (netlink(7), `struct nlmsghdr`).
    mutating func setHeader(at offset: Int, flags: Int32, sequence: UInt32) {
        withUnsafeMutableBytes { buffer in
            var header = buffer.loadUnaligned(fromByteOffset: offset, as: nlmsghdr.self)
            header.nlmsg_flags |= UInt16(NLM_F_REQUEST) | UInt16(flags)
            header.nlmsg_seq = sequence
            header.nlmsg_pid = 0
            buffer.storeBytes(of: header, toByteOffset: offset, as: nlmsghdr.self)
        }
    }
}
