import CKernel
import Glibc

/// One request of rtnetlink(7), in the machine's byte order.
struct RouteRequest {
    /// With room for the header's length and number.
    private var bytes: [UInt8]

    /// - Parameter header: the family's own header, `struct ifinfomsg` or `struct ifaddrmsg`.
    init(_ type: Int, flags: Int, header: [UInt8]) {
        bytes = [UInt8](of: UInt32(0)) + [UInt8](of: UInt16(type))
        bytes += [UInt8](of: UInt16(flags | CK_NLM_F_REQUEST)) + [UInt8](repeating: 0, count: 8) + header
    }

    /// `struct ifinfomsg`.
    static func link(index: Int32, flags: UInt32 = 0, change: UInt32 = 0) -> [UInt8] {
        [UInt8](of: UInt32(0)) + [UInt8](of: index) + [UInt8](of: flags) + [UInt8](of: change)
    }

    /// Appends an attribute.
    mutating func put(_ attribute: Int, _ value: [UInt8]) {
        bytes += [UInt8](of: UInt16(4 + value.count)) + [UInt8](of: UInt16(attribute)) + value
        while bytes.count % 4 != 0 { bytes.append(0) }
    }

    /// The message with its length and number.
    func encoded(_ sequence: UInt32) -> [UInt8] {
        var result = bytes
        result.replaceSubrange(0..<4, with: [UInt8](of: UInt32(bytes.count)))
        result.replaceSubrange(8..<12, with: [UInt8](of: sequence))
        return result
    }
}

extension [UInt8] {
    /// The bytes of a number in the machine's order.
    init(of number: some FixedWidthInteger) { self = Swift.withUnsafeBytes(of: number) { Array($0) } }
}

extension ArraySlice<UInt8> {
    /// The number at an offset from the start; nil when it does not fit.
    func number<Number: FixedWidthInteger>(_ offset: Int, _: Number.Type = Number.self) -> Number? {
        guard offset >= 0, offset + MemoryLayout<Number>.size <= count else { return nil }
        // Within bounds, as just checked.
        return withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: Number.self) }
    }
}

/// An answer of the kernel: the family's own header, and attributes.
struct RouteAnswer {
    let payload: ArraySlice<UInt8>
    /// By type, without the two flag bits of a type.
    let attributes: [Int: ArraySlice<UInt8>]

    init(payload: ArraySlice<UInt8>, headerLength: Int) {
        self.payload = payload
        attributes = Self.attributes(payload.dropFirst(headerLength))
    }

    /// A length that cannot be ends the list.
    static func attributes(_ bytes: ArraySlice<UInt8>) -> [Int: ArraySlice<UInt8>] {
        var result: [Int: ArraySlice<UInt8>] = [:]
        var rest = bytes
        while let length = rest.number(0, UInt16.self), length >= 4, length <= rest.count,
            let type = rest.number(2, UInt16.self)
        {
            result[Int(type & 0x3fff)] = rest.dropFirst(4).prefix(Int(length) - 4)
            rest = rest.dropFirst((Int(length) + 3) & ~3)
        }
        return result
    }

    /// A string attribute without its NUL.
    func text(_ attribute: Int) -> String? {
        attributes[attribute].map { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }
}

/// A socket of rtnetlink(7) in one network namespace, for programs that must do without libnl. One request at a time.
struct RouteSocket: ~Copyable {
    private let socket: SharedFD
    private var sequence: UInt32 = 0

    /// In the calling thread's namespace.
    init() throws(KernelError) { socket = try Self.open() }

    /// In another namespace, by its descriptor. The calling thread goes there and comes back.
    init(in namespace: Int32) throws(KernelError) {
        let own = try File.open("/proc/thread-self/ns/net", O_RDONLY)
        try systemCall("setns", "network namespace") { setns(namespace, Int32(CK_CLONE_NEWNET)) }
        var made: SharedFD?
        var failure = KernelError("socket", "rtnetlink", errno: EIO)
        do throws(KernelError) {
            made = try Self.open()
        } catch {
            failure = error
        }
        let raw = own.raw
        try systemCall("setns", "the runtime's network namespace") { setns(raw, Int32(CK_CLONE_NEWNET)) }
        guard let made else { throw failure }
        socket = made
    }

    private static func open() throws(KernelError) -> SharedFD {
        let socket = SharedFD(
            OwnedFD(
                adopting: try systemCall("socket", "rtnetlink") {
                    Glibc.socket(Int32(CK_AF_NETLINK), Int32(SOCK_RAW.rawValue | SOCK_CLOEXEC.rawValue), 0)
                }))
        // Errors come with the kernel's words; an old kernel that does not know the options sends numbers only.
        var on: Int32 = 1
        for option in [CK_NETLINK_CAP_ACK, CK_NETLINK_EXT_ACK] {
            setsockopt(socket.raw, Int32(CK_SOL_NETLINK), Int32(option), &on, socklen_t(MemoryLayout<Int32>.size))
        }
        // struct sockaddr_nl of the kernel: connected, so that nobody else's messages are received.
        let kernel = [UInt8](of: UInt16(CK_AF_NETLINK)) + [UInt8](repeating: 0, count: 10)
        try systemCall("connect", "rtnetlink") {
            kernel.withUnsafeBytes { bytes -> Int32 in
                guard let address = bytes.baseAddress else { return -1 }
                return connect(socket.raw, address.assumingMemoryBound(to: sockaddr.self), socklen_t(bytes.count))
            }
        }
        return socket
    }

    /// Sends a request and waits for its acknowledgement.
    ///
    /// - Throws: `KernelError` with the kernel's own words as the hint.
    mutating func send(_ request: RouteRequest, _ operation: String, _ subject: String) throws(KernelError) {
        try transmit(request, subject)
        var done = false
        while !done {
            try receive(subject) { (type, flags, payload) throws(KernelError) in
                guard type == CK_NLMSG_ERROR else { return }
                done = true
                try Self.check(payload, flags, operation, subject)
            }
        }
    }

    /// Sends a request that is answered by a list; one that changes meanwhile is asked for again.
    ///
    /// - Parameter headerLength: of the family's own header in each answer.
    mutating func list(
        _ request: RouteRequest, _ subject: String, headerLength: Int
    ) throws(KernelError) -> [RouteAnswer] {
        for _ in 0..<32 {
            try transmit(request, subject)
            var answers: [RouteAnswer] = []
            var done = false
            var interrupted = false
            while !done {
                try receive(subject) { (type, flags, payload) throws(KernelError) in
                    if flags & UInt16(CK_NLM_F_DUMP_INTR) != 0 { interrupted = true }
                    switch Int(type) {
                    case CK_NLMSG_DONE:
                        done = true
                        // A list that was broken off ends with an error's number.
                        if payload.count >= 4 { try Self.check(payload, 0, "list", subject) }
                    case CK_NLMSG_ERROR:
                        done = true
                        try Self.check(payload, flags, "list", subject)
                    default: answers.append(RouteAnswer(payload: payload, headerLength: headerLength))
                    }
                }
            }
            if !interrupted { return answers }
        }
        throw KernelError("list", subject, errno: EAGAIN, hint: "they change all the time")
    }

    private mutating func transmit(_ request: RouteRequest, _ subject: String) throws(KernelError) {
        sequence += 1
        let bytes = request.encoded(sequence)
        let raw = socket.raw
        try systemCall("send", subject) {
            bytes.withUnsafeBytes { Glibc.send(raw, $0.baseAddress, $0.count, 0) }
        }
    }

    /// Hands every message of one datagram that answers the last request to `body`.
    private func receive(
        _ subject: String, _ body: (UInt16, UInt16, ArraySlice<UInt8>) throws(KernelError) -> Void
    ) throws(KernelError) {
        // The kernel puts at most 32 KiB into one datagram of a list.
        var buffer = [UInt8](repeating: 0, count: 65536)
        let raw = socket.raw
        let count = try systemCall("recv", subject) {
            buffer.withUnsafeMutableBytes { recv(raw, $0.baseAddress, $0.count, 0) }
        }
        try Self.messages(in: buffer[..<count], answering: sequence, subject, body)
    }

    /// Takes a datagram apart.
    ///
    /// - Parameter sequence: of the request; messages that answer another one are passed over.
    /// - Throws: `KernelError` with EBADMSG for an empty datagram, and for lengths that cannot be.
    static func messages(
        in datagram: ArraySlice<UInt8>, answering sequence: UInt32, _ subject: String,
        _ body: (UInt16, UInt16, ArraySlice<UInt8>) throws(KernelError) -> Void
    ) throws(KernelError) {
        var rest = datagram
        guard !rest.isEmpty else { throw KernelError("recv", subject, errno: EBADMSG) }
        while !rest.isEmpty {
            guard let length = rest.number(0, UInt32.self), length >= 16, length <= rest.count,
                let type = rest.number(4, UInt16.self), let flags = rest.number(6, UInt16.self),
                let number = rest.number(8, UInt32.self)
            else { throw KernelError("recv", subject, errno: EBADMSG) }
            if number == sequence { try body(type, flags, rest.dropFirst(16).prefix(Int(length) - 16)) }
            rest = rest.dropFirst((Int(length) + 3) & ~3)
        }
    }

    /// An acknowledgement: an error number, 0 for success, the request's header, and perhaps words.
    private static func check(
        _ payload: ArraySlice<UInt8>, _ flags: UInt16, _ operation: String, _ subject: String
    ) throws(KernelError) {
        guard let number = payload.number(0, Int32.self) else { throw KernelError("recv", subject, errno: EBADMSG) }
        if number == 0 { return }
        var hint = ""
        if flags & UInt16(CK_NLM_F_ACK_TLVS) != 0, flags & UInt16(CK_NLM_F_CAPPED) != 0 {
            let words = RouteAnswer(payload: payload, headerLength: 20)
            hint = words.text(CK_NLMSGERR_ATTR_MSG) ?? ""
        }
        throw KernelError(operation, subject, errno: -number, hint: hint)
    }
}
