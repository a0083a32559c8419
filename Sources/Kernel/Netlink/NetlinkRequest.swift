import CNetlink
import Glibc
import Kernel

/// One request to rtnetlink(7) or nfnetlink, built by libnl, until it is added to a batch or asked.
package struct NetlinkRequest: ~Copyable {
    /// libnl's `struct nl_msg`.
    let message: OpaquePointer
    /// What it does, as the manual page calls it: `RTM_NEWLINK`.
    let operation: String
    /// The object, for errors.
    let subject: String
    /// Error numbers that are as good as success, such as ENOENT for what is to be deleted.
    var tolerated: [Int32] = []
    /// What an error number means here and what to do about it, beside the kernel's own words.
    var advice: NetlinkAdvice?

    /// Takes over a message that libnl built.
    init(adopting message: OpaquePointer, _ operation: String, _ subject: String) {
        self.message = message
        self.operation = operation
        self.subject = subject
    }

    /// An empty message: type and flags, then the family's fixed header.
    ///
    /// - Parameters:
    ///   - type: `RTM_…`; for nfnetlink with the part of it in the high byte.
    ///   - flags: `NLM_F_…`; REQUEST and ACK are added when it is sent.
    package init<Header: BitwiseCopyable>(
        _ type: Int, flags: Int32 = 0, header: Header, _ operation: String, _ subject: String
    ) throws(KernelError) {
        guard let message = nlmsg_alloc_simple(Int32(type), flags) else {
            throw KernelError(operation, subject, errno: ENOMEM)
        }
        let code = withUnsafePointer(to: header) {
            // SAFETY: nlmsg_append copies from the pointer, which it declares as mutable without need.
            nlmsg_append(message, UnsafeMutableRawPointer(mutating: $0), MemoryLayout<Header>.size, 4)
        }
        guard code == 0 else {
            nlmsg_free(message)
            throw KernelError(libnl: code, operation, subject)
        }
        self.init(adopting: message, operation, subject)
    }

    /// The same with a header whose bytes are given: Swift takes no structure with a union in it for one that can be copied.
    init(
        _ type: Int, flags: Int32 = 0, header: [UInt8], _ operation: String, _ subject: String
    ) throws(KernelError) {
        guard let message = nlmsg_alloc_simple(Int32(type), flags) else {
            throw KernelError(operation, subject, errno: ENOMEM)
        }
        let code = header.withUnsafeBytes {
            // SAFETY: nlmsg_append copies from the pointer, which it declares as mutable without need.
            nlmsg_append(message, UnsafeMutableRawPointer(mutating: $0.baseAddress), $0.count, 4)
        }
        guard code == 0 else {
            nlmsg_free(message)
            throw KernelError(libnl: code, operation, subject)
        }
        self.init(adopting: message, operation, subject)
    }

    deinit { nlmsg_free(message) }

    /// Says so of error numbers that are as good as success.
    package consuming func tolerating(_ numbers: Int32...) -> NetlinkRequest {
        tolerated += numbers
        return self
    }

    /// Says what it means when the kernel refuses with one error number.
    consuming func advising(_ number: Int32, _ text: String) -> NetlinkRequest {
        advice = NetlinkAdvice(errno: number, text: text)
        return self
    }

    /// Turns libnl's negative codes into an error about this request.
    borrowing func check(_ code: Int32) throws(KernelError) {
        if code < 0 { throw KernelError(libnl: code, operation, subject) }
    }

    // MARK: Attributes

    package borrowing func put(_ type: Int, _ value: UInt8) throws(KernelError) {
        try check(nla_put_u8(message, Int32(type), value))
    }

    package borrowing func put(_ type: Int, _ value: UInt32) throws(KernelError) {
        try check(nla_put_u32(message, Int32(type), value))
    }

    /// A structure as the kernel's headers declare it, or a number of another size.
    borrowing func put<Value: BitwiseCopyable>(_ type: Int, raw value: Value) throws(KernelError) {
        try check(withUnsafeBytes(of: value) { nla_put(message, Int32(type), Int32($0.count), $0.baseAddress) })
    }

    package borrowing func put(_ type: Int, _ text: String) throws(KernelError) {
        try check(nla_put_string(message, Int32(type), text))
    }

    package borrowing func put(_ type: Int, _ bytes: [UInt8]) throws(KernelError) {
        try check(bytes.withUnsafeBytes { nla_put(message, Int32(type), Int32($0.count), $0.baseAddress) })
    }

    /// An attribute whose content is the attributes that `body` puts.
    package borrowing func nest(
        _ type: Int, _ body: (borrowing NetlinkRequest) throws(KernelError) -> Void
    ) throws(KernelError) {
        guard let start = nla_nest_start(message, Int32(type)) else {
            throw KernelError(operation, subject, errno: EMSGSIZE)
        }
        try body(self)
        try check(nla_nest_end(message, start))
    }

    /// The message as it is sent, with REQUEST, ACK and a sequence number still to be set.
    borrowing func bytes() -> [UInt8] {
        guard let header = nlmsg_hdr(message) else { return [] }
        // SAFETY: libnl keeps nlmsg_len bytes behind the header for as long as the message lives.
        return Array(UnsafeRawBufferPointer(start: header, count: Int(header.pointee.nlmsg_len)))
    }
}

/// What an error number means where a request was refused with it.
struct NetlinkAdvice: Sendable, Equatable {
    let errno: Int32
    let text: String

    /// The kernel's words, and ours where they belong to the error.
    static func hint(_ advice: NetlinkAdvice?, errno: Int32, kernel words: String) -> String {
        guard let advice, advice.errno == errno else { return words }
        return words.isEmpty ? advice.text : "\(words): \(advice.text)"
    }
}

extension KernelError {
    /// What libnl says of a negative code of its own (`NLE_…`): it was not the kernel that refused.
    init(libnl code: Int32, _ operation: String, _ subject: String) {
        let text = nl_geterror(code).map { String(cString: $0) } ?? "code \(code)"
        self.init(operation, subject, errno: code == -NLE_NOMEM ? ENOMEM : EINVAL, hint: "libnl: \(text)")
    }
}

/// An address in libnl's form, for the length of `body`.
///
/// - Parameters:
///   - bytes: in network order: 4 (IPv4), 16 (IPv6) or 6 (MAC, with family AF_LLC).
///   - prefixLength: in bits; nil: all of them.
func withAddress<Result: ~Copyable>(
    _ bytes: [UInt8], family: Int32? = nil, prefixLength: Int? = nil,
    _ body: (OpaquePointer) throws(KernelError) -> Result
) throws(KernelError) -> Result {
    let family = family ?? (bytes.count == 4 ? AF_INET : AF_INET6)
    var bytes = bytes
    guard let address = nl_addr_build(family, &bytes, bytes.count) else {
        throw KernelError("nl_addr_build", errno: ENOMEM)
    }
    defer { nl_addr_put(address) }
    if let prefixLength { nl_addr_set_prefixlen(address, Int32(prefixLength)) }
    return try body(address)
}
