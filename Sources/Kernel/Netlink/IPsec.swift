import CNetlink
import Glibc
import Kernel

/// Which packets something of IPsec is about: UDP to one port, from an address or any to an address or any.
package struct IPsecSelector: Sendable, Hashable {
    /// In network order, 4 or 16 bytes; nil: any.
    package var source: [UInt8]?
    package var destination: [UInt8]?
    package var isV6: Bool
    /// Of UDP.
    package var port: UInt16

    /// - Parameters:
    ///   - source: 4 bytes, or 16 with `isV6`.
    ///   - destination: the same.
    package init(from source: [UInt8]?, to destination: [UInt8]?, isV6: Bool, port: UInt16) {
        (self.source, self.destination, self.isV6, self.port) = (source, destination, isV6, port)
    }

    /// Between two addresses of one family.
    package init(from source: [UInt8], to destination: [UInt8], port: UInt16) {
        self.init(from: source, to: destination, isV6: source.count == 16, port: port)
    }

    fileprivate var family: Int32 { isV6 ? AF_INET6 : AF_INET }

    fileprivate var raw: xfrm_selector {
        var selector = xfrm_selector()
        selector.saddr = xfrm_address_t(bytes: source ?? [])
        selector.daddr = xfrm_address_t(bytes: destination ?? [])
        selector.dport = port.bigEndian
        selector.dport_mask = 0xffff
        selector.family = UInt16(family)
        selector.prefixlen_s = UInt8(8 * (source?.count ?? 0))
        selector.prefixlen_d = UInt8(8 * (destination?.count ?? 0))
        selector.proto = UInt8(IPPROTO_UDP)
        return selector
    }

    /// Reads `struct xfrm_selector`; nil when it is about other packets.
    fileprivate init?(_ bytes: ArraySlice<UInt8>) {
        guard bytes.count >= MemoryLayout<xfrm_selector>.size, let family = bytes.number(at: 40, as: UInt16.self),
            let port = bytes.number(at: 32, as: UInt16.self), bytes.number(at: 34, as: UInt16.self) == 0xffff,
            bytes.number(at: 38, as: UInt16.self) == 0,
            let toLength = bytes.number(at: 42, as: UInt8.self), let fromLength = bytes.number(at: 43, as: UInt8.self),
            bytes.number(at: 44, as: UInt8.self) == UInt8(IPPROTO_UDP), bytes.number(at: 48, as: Int32.self) == 0,
            let to = bytes.address(at: 0, family: family), let from = bytes.address(at: 16, family: family),
            [0, 8 * to.count].contains(Int(toLength)), [0, 8 * from.count].contains(Int(fromLength))
        else { return nil }
        self.init(
            from: fromLength == 0 ? nil : from, to: toLength == 0 ? nil : to, isV6: family == UInt16(AF_INET6),
            port: UInt16(bigEndian: port))
    }
}

/// One direction of encrypted traffic between two machines: ESP in transport mode (RFC 4303) with AES-GCM (RFC 4106), 128
/// bits of integrity and numbers of 64 bits, see `ip xfrm state`. What is there is never given another key: its numbers
/// would begin anew.
package struct SecurityAssociation: Sendable, Hashable {
    /// In network order: 4 or 16 bytes, both of the same length.
    package var source: [UInt8]
    package var destination: [UInt8]
    /// By which the receiver knows it; 256 and more (RFC 4303, section 2.1).
    package var number: UInt32
    /// Whose it is, see `OverlayNumbers.request`.
    package var request: UInt32
    /// To which port of UDP it carries packets.
    package var port: UInt16

    package init(from source: [UInt8], to destination: [UInt8], number: UInt32, request: UInt32, port: UInt16) {
        self.source = source
        self.destination = destination
        self.number = number
        self.request = request
        self.port = port
    }

    /// Bytes of a key: those of AES-128, and four that are part of each nonce (RFC 4106, section 8.1).
    package static let keyBytes = 20
    /// Most bytes that ESP adds to a packet are this, and up to five that fill it up: header, nonce and the sum.
    package static let overhead = 32
    /// How far packets may come out of their order, in packets.
    private static let window: UInt32 = 1024

    private var family: Int32 { source.count == 4 ? AF_INET : AF_INET6 }
    private var subject: String {
        func words(_ bytes: [UInt8]) -> String {
            bytes.count == 4
                ? bytes.map { "\($0)" }.joined(separator: ".")
                : stride(from: 0, to: bytes.count - 1, by: 2)
                    .map { String(UInt16(bytes[$0]) << 8 | UInt16(bytes[$0 + 1]), radix: 16) }.joined(separator: ":")
        }
        return "association \(String(number, radix: 16)) from \(words(source)) to \(words(destination))"
    }

    /// Makes it. EEXIST: the receiver has one of the number.
    ///
    /// - Parameter key: of `keyBytes`.
    package func request(key: [UInt8]) throws(KernelError) -> NetlinkRequest {
        var header = xfrm_usersa_info()
        header.sel = IPsecSelector(from: source, to: destination, port: port).raw
        header.id = xfrm_id(
            daddr: xfrm_address_t(bytes: destination), spi: number.bigEndian, proto: UInt8(IPPROTO_ESP))
        header.saddr = xfrm_address_t(bytes: source)
        header.lft = .unlimited
        header.reqid = request
        header.family = UInt16(family)
        header.mode = UInt8(XFRM_MODE_TRANSPORT)
        header.flags = UInt8(XFRM_STATE_ESN)
        let message = try NetlinkRequest(
            Int(XFRM_MSG_NEWSA), flags: Int32(NLM_F_CREATE | NLM_F_EXCL), header: bytes(of: header), "XFRM_MSG_NEWSA",
            subject)
        // struct xfrm_algo_aead: name, bits of the key, bits of the sum, key.
        var cipher = Array("rfc4106(gcm(aes))".utf8)
        cipher += [UInt8](repeating: 0, count: 64 - cipher.count)
        for number in [UInt32(8 * key.count), 128] { withUnsafeBytes(of: number) { cipher += $0 } }
        try message.put(Int(XFRMA_ALG_AEAD.rawValue), cipher + key)
        // struct xfrm_replay_state_esn: all counters are zero.
        var counters: [UInt8] = []
        for number in [Self.window / 32, 0, 0, 0, 0, Self.window] { withUnsafeBytes(of: number) { counters += $0 } }
        counters += [UInt8](repeating: 0, count: Int(Self.window / 8))
        try message.put(Int(XFRMA_REPLAY_ESN_VAL.rawValue), counters)
        return message.advising(
            EPROTONOSUPPORT, "the kernel lacks ESP: load its modules esp4 and esp6 (CONFIG_INET_ESP, CONFIG_INET6_ESP)")
    }

    /// Takes it away; that there is none is no error.
    package func deletion() throws(KernelError) -> NetlinkRequest {
        var header = xfrm_usersa_id()
        header.daddr = xfrm_address_t(bytes: destination)
        header.spi = number.bigEndian
        header.family = UInt16(family)
        header.proto = UInt8(IPPROTO_ESP)
        return try NetlinkRequest(Int(XFRM_MSG_DELSA), header: bytes(of: header), "XFRM_MSG_DELSA", subject)
            .tolerating(ESRCH, ENOENT)
    }

    /// All of the machine that are of this form.
    ///
    /// - Parameter socket: of `NetlinkSocket.Service.transform`.
    package static func all(_ socket: inout NetlinkSocket) throws(KernelError) -> [SecurityAssociation] {
        // Dumps have attributes at once.
        let request = try NetlinkRequest(
            Int(XFRM_MSG_GETSA), header: [], "XFRM_MSG_GETSA", "all security associations")
        return try socket.ask(request, isDump: true).compactMap { SecurityAssociation($0) }
    }

    /// From an XFRM_MSG_NEWSA; nil when it is none, or says something of another form. The key is not read.
    package init?(_ reply: NetlinkReply) {
        let bytes = reply.payload
        guard reply.type == UInt16(XFRM_MSG_NEWSA), bytes.count >= MemoryLayout<xfrm_usersa_info>.size,
            let selector = IPsecSelector(bytes), let family = bytes.number(at: 212, as: UInt16.self),
            let destination = bytes.address(at: 56, family: family),
            let source = bytes.address(at: 80, family: family),
            let number = bytes.number(at: 72, as: UInt32.self), number != 0,
            bytes.number(at: 76, as: UInt8.self) == UInt8(IPPROTO_ESP),
            bytes.number(at: 214, as: UInt8.self) == UInt8(XFRM_MODE_TRANSPORT),
            let request = bytes.number(at: 208, as: UInt32.self),
            selector == IPsecSelector(from: source, to: destination, port: selector.port),
            isUnmarked(bytes.dropFirst(MemoryLayout<xfrm_usersa_info>.size))
        else { return nil }
        self.init(
            from: source, to: destination, number: UInt32(bigEndian: number), request: request, port: selector.port)
    }
}

/// What becomes of packets: they need a security association, or are dropped. See `ip xfrm policy`.
package struct SecurityPolicy: Sendable, Hashable {
    package enum Direction: UInt8, Sendable, CaseIterable {
        case `in` = 0
        case out = 1
    }

    package enum Action: Sendable, Hashable {
        /// They pass under ESP in transport mode, with an association that bears the number (`reqid`), and not otherwise.
        case encrypt(request: UInt32)
        case drop
    }

    package var selector: IPsecSelector
    package var direction: Direction
    package var action: Action
    /// Lower ones come first.
    package var priority: UInt32

    package init(_ selector: IPsecSelector, _ direction: Direction, _ action: Action, priority: UInt32) {
        self.selector = selector
        self.direction = direction
        self.action = action
        self.priority = priority
    }

    private var subject: String { "policy for UDP port \(selector.port), direction \(direction)" }

    /// Makes it, in the place of one that has the same selector and direction.
    package func request() throws(KernelError) -> NetlinkRequest {
        var header = xfrm_userpolicy_info()
        header.sel = selector.raw
        header.lft = .unlimited
        header.priority = priority
        header.dir = direction.rawValue
        header.action = UInt8(action == .drop ? XFRM_POLICY_BLOCK : XFRM_POLICY_ALLOW)
        let message = try NetlinkRequest(
            Int(XFRM_MSG_UPDPOLICY), header: bytes(of: header), "XFRM_MSG_UPDPOLICY", subject)
        if case .encrypt(let request) = action {
            var template = xfrm_user_tmpl()
            template.id.daddr = xfrm_address_t(bytes: selector.destination ?? [])
            template.id.proto = UInt8(IPPROTO_ESP)
            template.family = UInt16(selector.family)
            template.saddr = xfrm_address_t(bytes: selector.source ?? [])
            template.reqid = request
            template.mode = UInt8(XFRM_MODE_TRANSPORT)
            (template.aalgos, template.ealgos, template.calgos) = (.max, .max, .max)
            try message.put(Int(XFRMA_TMPL.rawValue), bytes(of: template))
        }
        return message
    }

    /// Takes it away; that there is none is no error.
    package func deletion() throws(KernelError) -> NetlinkRequest {
        var header = xfrm_userpolicy_id()
        header.sel = selector.raw
        header.dir = direction.rawValue
        return try NetlinkRequest(Int(XFRM_MSG_DELPOLICY), header: bytes(of: header), "XFRM_MSG_DELPOLICY", subject)
            .tolerating(ENOENT)
    }

    /// All of the machine that are of this form.
    ///
    /// - Parameter socket: of `NetlinkSocket.Service.transform`.
    package static func all(_ socket: inout NetlinkSocket) throws(KernelError) -> [SecurityPolicy] {
        let request = try NetlinkRequest(
            Int(XFRM_MSG_GETPOLICY), header: [], "XFRM_MSG_GETPOLICY", "all policies")
        return try socket.ask(request, isDump: true).compactMap { SecurityPolicy($0) }
    }

    /// From an XFRM_MSG_NEWPOLICY or XFRM_MSG_UPDPOLICY; nil when it is none, or says something of another form.
    package init?(_ reply: NetlinkReply) {
        let bytes = reply.payload
        guard [UInt16(XFRM_MSG_NEWPOLICY), UInt16(XFRM_MSG_UPDPOLICY)].contains(reply.type),
            bytes.count >= MemoryLayout<xfrm_userpolicy_info>.size, let selector = IPsecSelector(bytes),
            let priority = bytes.number(at: 152, as: UInt32.self),
            let direction = bytes.number(at: 160, as: UInt8.self).flatMap({ Direction(rawValue: $0) }),
            let code = bytes.number(at: 161, as: UInt8.self)
        else { return nil }
        guard isUnmarked(bytes.dropFirst(MemoryLayout<xfrm_userpolicy_info>.size)) else { return nil }
        let attributes = NetlinkAttributes(bytes.dropFirst(MemoryLayout<xfrm_userpolicy_info>.size))
        if code == UInt8(XFRM_POLICY_BLOCK) {
            self.init(selector, direction, .drop, priority: priority)
            return
        }
        // One template, and one that is no option.
        guard code == UInt8(XFRM_POLICY_ALLOW), let template = attributes[Int(XFRMA_TMPL.rawValue)],
            template.count == MemoryLayout<xfrm_user_tmpl>.size,
            template.number(at: 20, as: UInt8.self) == UInt8(IPPROTO_ESP),
            template.number(at: 48, as: UInt8.self) == UInt8(XFRM_MODE_TRANSPORT),
            template.number(at: 50, as: UInt8.self) == 0, let request = template.number(at: 44, as: UInt32.self)
        else { return nil }
        self.init(selector, direction, .encrypt(request: request), priority: priority)
    }
}

/// Whether attributes say that something is about packets of all marks and interfaces.
private func isUnmarked(_ bytes: ArraySlice<UInt8>) -> Bool {
    let attributes = NetlinkAttributes(bytes)
    return attributes[Int(XFRMA_MARK.rawValue)] == nil && attributes[Int(XFRMA_IF_ID.rawValue)] == nil
}

/// As the kernel's headers lay it out, with zeros where nothing is.
private func bytes<Value>(of value: Value) -> [UInt8] { withUnsafeBytes(of: value) { Array($0) } }

extension xfrm_address_t {
    /// - Parameter bytes: 4 or 16, in network order.
    fileprivate init(bytes: [UInt8]) {
        self.init()
        withUnsafeMutableBytes(of: &self) { $0.copyBytes(from: bytes.prefix(16)) }
    }
}

extension xfrm_lifetime_cfg {
    /// Neither bytes, packets nor time end it.
    fileprivate static var unlimited: xfrm_lifetime_cfg {
        var limits = xfrm_lifetime_cfg()
        (limits.soft_byte_limit, limits.hard_byte_limit) = (.max, .max)
        (limits.soft_packet_limit, limits.hard_packet_limit) = (.max, .max)
        return limits
    }
}

extension ArraySlice<UInt8> {
    /// The address in a `xfrm_address_t`; nil when it is not all there, or the family none of IP.
    fileprivate func address(at offset: Int, family: UInt16) -> [UInt8]? {
        guard count >= offset + 16, [UInt16(AF_INET), UInt16(AF_INET6)].contains(family) else { return nil }
        return Array(dropFirst(offset).prefix(family == UInt16(AF_INET) ? 4 : 16))
    }
}
