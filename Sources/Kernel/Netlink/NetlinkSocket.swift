import CNetlink
import Glibc
import Kernel

/// A netlink socket (netlink(7)) for the network namespace of the thread that made it, wherever it is used later. One
/// thread at a time.
package struct NetlinkSocket: ~Copyable {
    /// libnl's `struct nl_sock`.
    private let socket: OpaquePointer
    /// The sequence number of the next request.
    private var next: UInt32 = 1

    private static let options = [
        (NETLINK_EXT_ACK, "NETLINK_EXT_ACK"), (NETLINK_CAP_ACK, "NETLINK_CAP_ACK"),
        (NETLINK_GET_STRICT_CHK, "NETLINK_GET_STRICT_CHK"),
    ]
    /// Room for the answers of a full batch, and for the pieces of a dump.
    private static let bufferBytes: Int32 = 1 << 20
    /// Longest wait for an answer, in seconds. The kernel works while the request is sent, so that there is hardly one.
    private static let patience = 10
    /// How often a dump is begun anew because what it lists changed meanwhile.
    private static let dumpTries = 16

    /// The part of the kernel that is spoken to.
    package enum Service: Sendable {
        /// rtnetlink(7): devices, addresses, routes.
        case routing
        /// nfnetlink: packet filter and connection tracking.
        case netfilter
        /// XFRM: IPsec's security associations and policies.
        case transform

        var name: String {
            switch self {
            case .routing: "rtnetlink"
            case .netfilter: "nfnetlink"
            case .transform: "xfrm netlink"
            }
        }

        fileprivate var number: Int32 {
            switch self {
            case .routing: NETLINK_ROUTE
            case .netfilter: NETLINK_NETFILTER
            case .transform: NETLINK_XFRM
            }
        }
    }

    /// Opens one to a part of the kernel.
    package init(_ service: Service = .routing) throws(KernelError) {
        guard let socket = nl_socket_alloc() else { throw KernelError("nl_socket_alloc", errno: ENOMEM) }
        do throws(KernelError) {
            try Self.connect(socket, service)
        } catch {
            nl_socket_free(socket)
            throw error
        }
        self.socket = socket
    }

    static func connect(_ socket: OpaquePointer, _ service: Service) throws(KernelError) {
        // libnl's own choice is the process's id, which a second socket of the process would be refused.
        nl_socket_set_local_port(socket, 0)
        let code = nl_connect(socket, service.number)
        guard code == 0 else { throw KernelError(libnl: code, "nl_connect", service.name) }
        let descriptor = nl_socket_get_fd(socket)
        var on: Int32 = 1
        for (number, name) in options {
            try systemCall("setsockopt(\(name))") { setsockopt(descriptor, SOL_NETLINK, Int32(number), &on, 4) }
        }
        var bytes = bufferBytes
        // Without CAP_NET_ADMIN in the first user namespace: as much as there is for all.
        if setsockopt(descriptor, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, 4) != 0 {
            try systemCall("setsockopt(SO_RCVBUF)") { setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &bytes, 4) }
        }
        if service == .netfilter {
            // A transaction is one datagram; where this is refused, large ones are with EMSGSIZE.
            var room = Int32(NetlinkBatch.transactionByteLimit)
            setsockopt(descriptor, SOL_SOCKET, SO_SNDBUFFORCE, &room, 4)
        }
        var wait = timeval(tv_sec: patience, tv_usec: 0)
        try systemCall("setsockopt(SO_RCVTIMEO)") {
            setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &wait, socklen_t(MemoryLayout<timeval>.size))
        }
    }

    deinit { nl_socket_free(socket) }

    /// For as long as the socket lives.
    var descriptor: Int32 { nl_socket_get_fd(socket) }

    /// Sends a batch and waits for all of its answers.
    ///
    /// - Returns: for each request in order what the kernel refused, nil for success and for what is tolerated.
    /// - Throws: when sending or receiving fails: then nothing is known of what was carried out.
    package mutating func perform(_ batch: borrowing NetlinkBatch) throws(KernelError) -> [KernelError?] {
        let entries = batch.entries
        guard !entries.isEmpty else { return [] }
        let first = take(UInt32(entries.count))
        try send(batch.datagram(first: first), entries[0].operation, entries[0].subject)
        var outcomes = [KernelError?](repeating: nil, count: entries.count)
        var open = Set(entries.indices)
        while !open.isEmpty {
            for reply in try receive(entries[0].subject) where reply.type == UInt16(NLMSG_ERROR) {
                let index = Int(reply.sequence &- first)
                guard open.remove(index) != nil else { continue }
                let (number, text) = try reply.verdict()
                let entry = entries[index]
                if number == 0 || entry.tolerated.contains(number) { continue }
                let hint = NetlinkAdvice.hint(entry.advice, errno: number, kernel: text)
                outcomes[index] = KernelError(entry.operation, entry.subject, errno: number, hint: hint)
            }
        }
        return outcomes
    }

    /// The same, where the first refusal is an error. Those behind it may have been carried out.
    package mutating func send(_ batch: borrowing NetlinkBatch) throws(KernelError) {
        for case let error? in try perform(batch) { throw error }
    }

    /// One request on its own.
    package mutating func send(_ request: consuming NetlinkRequest) throws(KernelError) {
        var batch = NetlinkBatch()
        try batch.add(request)
        try send(batch)
    }

    /// Sends a batch that the kernel carries out as a whole or not at all (nfnetlink): the first message begins it, the
    /// last one ends it.
    ///
    /// - Parameter acknowledged: the number of the message whose acknowledgement says that all of them were taken.
    /// - Throws: what the kernel said of the first message that it refused.
    package mutating func commit(_ batch: borrowing NetlinkBatch, acknowledged: Int) throws(KernelError) {
        let entries = batch.entries
        let first = take(UInt32(entries.count))
        try send(
            batch.datagram(first: first) { $0 == acknowledged }, entries[acknowledged].operation,
            entries[acknowledged].subject)
        var refused: (index: Int, error: KernelError)?
        var isAcknowledged = false
        // The kernel works while the batch is sent: all that it has to say is there now.
        while true {
            let replies = try receive(entries[0].subject, waits: false)
            if replies.isEmpty { break }
            for reply in replies where reply.type == UInt16(NLMSG_ERROR) {
                let index = Int(reply.sequence &- first)
                guard entries.indices.contains(index) else { continue }
                let (number, text) = try reply.verdict()
                if number == 0 {
                    isAcknowledged = true
                } else if index < refused?.index ?? .max {
                    let entry = entries[index]
                    refused = (index, KernelError(entry.operation, entry.subject, errno: number, hint: text))
                }
            }
        }
        if let refused { throw refused.error }
        guard isAcknowledged else {
            throw KernelError(
                "netlink", entries[acknowledged].subject, errno: EBADMSG, hint: "the kernel did not answer the batch")
        }
    }

    /// Asks, and returns the messages of the answer.
    ///
    /// - Parameter isDump: for all objects; begun anew as long as they change meanwhile.
    package mutating func ask(_ request: consuming NetlinkRequest, isDump: Bool) throws(KernelError) -> [NetlinkReply] {
        let (operation, subject, tolerated) = (request.operation, request.subject, request.tolerated)
        var datagram = request.bytes()
        for _ in 0..<Self.dumpTries {
            let sequence = take(1)
            datagram.setHeader(at: 0, flags: Int32(isDump ? NLM_F_DUMP : NLM_F_ACK), sequence: sequence)
            try send(datagram, operation, subject)
            var found: [NetlinkReply] = []
            var isDone = false
            var isCut = false
            while !isDone {
                for reply in try receive(subject) where reply.sequence == sequence {
                    if reply.flags & UInt16(NLM_F_DUMP_INTR) != 0 { isCut = true }
                    switch Int32(reply.type) {
                    case NLMSG_DONE:
                        if let code = reply.payload.number(at: 0, as: Int32.self), code < 0 {
                            throw KernelError(operation, subject, errno: -code)
                        }
                        isDone = true
                    case NLMSG_ERROR:
                        let (number, text) = try reply.verdict()
                        guard number == 0 || tolerated.contains(number) else {
                            throw KernelError(operation, subject, errno: number, hint: text)
                        }
                        isDone = true
                    default: found.append(reply)
                    }
                }
            }
            if !isCut { return found }
        }
        throw KernelError(operation, subject, errno: EAGAIN, hint: "it changed during each of \(Self.dumpTries) tries")
    }

    private mutating func take(_ count: UInt32) -> UInt32 {
        defer { next &+= count }
        return next
    }

    private borrowing func send(_ datagram: [UInt8], _ operation: String, _ subject: String) throws(KernelError) {
        let code = datagram.withUnsafeBytes {
            // SAFETY: nl_sendto reads the bytes, which it declares as mutable without need.
            nl_sendto(socket, UnsafeMutableRawPointer(mutating: $0.baseAddress), $0.count)
        }
        if code < 0 { throw KernelError(libnl: code, operation, subject) }
    }

    /// The next datagram of the kernel's; those of other processes are dropped.
    ///
    /// - Parameter waits: else no message at all says that there is no datagram now.
    private borrowing func receive(_ subject: String, waits: Bool = true) throws(KernelError) -> [NetlinkReply] {
        let room = 64 << 10
        let descriptor = nl_socket_get_fd(socket)
        let flags = Int32(MSG_TRUNC) | (waits ? 0 : Int32(MSG_DONTWAIT))
        while true {
            var sender = sockaddr_nl()
            var length = socklen_t(MemoryLayout<sockaddr_nl>.size)
            var (count, number) = (0, Int32(0))
            // Most answers are short: what the kernel does not fill is not touched, and costs no page.
            // SAFETY: recvfrom has written that many bytes from the start on, and never more than there is room.
            let datagram = [UInt8](unsafeUninitializedCapacity: room) { memory, filled in
                count = withUnsafeMutablePointer(to: &sender) {
                    $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                        recvfrom(descriptor, memory.baseAddress, room, flags, $0, &length)
                    }
                }
                number = errno
                filled = max(0, min(count, room))
            }
            if count < 0 {
                switch number {
                case EINTR: continue
                case EAGAIN where !waits: return []
                case EAGAIN:
                    throw KernelError(
                        "recv(netlink)", subject, errno: ETIMEDOUT, hint: "no answer within \(Self.patience) s")
                default: throw KernelError("recv(netlink)", subject, errno: number)
                }
            }
            guard sender.nl_pid == 0 else { continue }
            guard count <= room else {
                throw KernelError("recv(netlink)", subject, errno: EMSGSIZE, hint: "an answer of \(count) bytes")
            }
            return try NetlinkReply.parse(datagram)
        }
    }
}
