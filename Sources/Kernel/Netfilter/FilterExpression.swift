import CNetfilter
import Glibc
import Kernel
import Netlink

/// One of the 16 registers of 4 bytes that a rule computes with. A value takes as many as it needs from one on.
package struct FilterRegister: Sendable, Equatable {
    let number: UInt32

    /// - Precondition: `word` is 0 to 15.
    package static func word(_ word: Int) -> FilterRegister {
        FilterRegister(number: UInt32(NFT_REG32_00.rawValue) + UInt32(word))
    }

    static let verdict = FilterRegister(number: UInt32(NFT_REG_VERDICT.rawValue))
}

/// One step of a rule (nft(8), "EXPRESSIONS" and "STATEMENTS"). A comparison or a look-up that fails ends the rule.
package enum FilterExpression: Sendable, Equatable {
    /// Where bytes of a packet are counted from.
    package enum Base: Sendable {
        /// Ethernet's header as it was sent, a VLAN's tag with it.
        case link
        case network
        case transport

        fileprivate var number: UInt32 {
            switch self {
            case .link: NFT_PAYLOAD_LL_HEADER.rawValue
            case .network: NFT_PAYLOAD_NETWORK_HEADER.rawValue
            case .transport: NFT_PAYLOAD_TRANSPORT_HEADER.rawValue
            }
        }
    }

    /// What is known of a packet beside its bytes.
    package enum Meta: Sendable {
        /// One byte: `NFPROTO_IPV4` (2) or `NFPROTO_IPV6` (10).
        case family
        /// One byte: IPPROTO_TCP …, behind IPv6's extension headers.
        case transport
        /// 16 bytes: the name of the device that it came by, filled with NUL.
        case inputName
        /// The same of the device that it leaves by.
        case outputName
        /// Four bytes in the machine's order: the group (see `ip link`) of the device that it came by.
        case inputGroup
        /// The same of the device that it leaves by.
        case outputGroup
        /// Four bytes in the machine's order: the user whose socket sent it; packets of the kernel's own end the rule.
        case sender
        /// One byte: 1 for what has come under IPsec and was decrypted, else 0. Not in kernels without CONFIG_XFRM.
        case isDecrypted
    }

    /// Bits of the state of a packet's connection (`ct state` of nft(8)).
    package enum State {
        package static let established: UInt32 = 2
        package static let related: UInt32 = 4
    }

    package enum Verdict: Sendable, Equatable {
        case accept
        case drop
        case `return`
        case jump(String)
    }

    package enum Translation: Sendable {
        case source
        case destination
    }

    case payload(Base, offset: Int, count: Int, FilterRegister)
    case meta(Meta, FilterRegister)
    /// Four bytes in the machine's order: the bits `IPS_…` of the packet's connection.
    case connectionStatus(FilterRegister)
    /// Four bytes in the machine's order: bits of `State`.
    case connectionState(FilterRegister)
    /// Four bytes in the machine's order: the index of the device that the packet came by, where an answer to its source
    /// would leave by it; else 0. Before the routing decision only.
    case wayBack(FilterRegister)
    /// One byte: 1 for what leaves under IPsec, else 0; behind the routing decision. Not in kernels without CONFIG_XFRM.
    case isEncrypting(FilterRegister)
    /// Four bytes in the machine's order: what the packet's destination is to this host, `RTN_…` (rtnetlink(7)).
    case destinationType(FilterRegister)
    case equal(FilterRegister, [UInt8])
    case notEqual(FilterRegister, [UInt8])
    /// Keeps the bits of the mask.
    case mask(FilterRegister, [UInt8])
    /// - set: of the same table. With `value`: a map, whose value goes there.
    case lookup(String, key: FilterRegister, value: FilterRegister?)
    case immediate(FilterRegister, [UInt8])
    case verdict(Verdict)
    /// For IPv4 or IPv6; without `port` the port stays.
    case translate(Translation, isV6: Bool, address: FilterRegister, port: FilterRegister?)
    /// The source becomes the address of the device by which the packet leaves.
    case masquerade
    case counter
}

extension FilterExpression {
    private var name: String {
        switch self {
        case .payload: "payload"
        case .meta: "meta"
        case .connectionStatus, .connectionState: "ct"
        case .isEncrypting: "rt"
        case .destinationType, .wayBack: "fib"
        case .equal, .notEqual: "cmp"
        case .mask: "bitwise"
        case .lookup: "lookup"
        case .immediate, .verdict: "immediate"
        case .translate: "nat"
        case .masquerade: "masq"
        case .counter: "counter"
        }
    }

    /// As an element of a rule's list of expressions.
    func put(_ request: borrowing NetlinkRequest) throws(KernelError) {
        try request.nest(NFTA_LIST_ELEM) { request throws(KernelError) in
            try request.put(NFTA_EXPR_NAME, text: name)
            try request.nest(NFTA_EXPR_DATA) { request throws(KernelError) in try putData(request) }
        }
    }

    private func putData(_ request: borrowing NetlinkRequest) throws(KernelError) {
        switch self {
        case .payload(let base, let offset, let count, let register):
            try request.put(NFTA_PAYLOAD_DREG, number: register.number)
            try request.put(NFTA_PAYLOAD_BASE, number: base.number)
            try request.put(NFTA_PAYLOAD_OFFSET, number: UInt32(offset))
            try request.put(NFTA_PAYLOAD_LEN, number: UInt32(count))
        case .meta(let key, let register):
            try request.put(NFTA_META_DREG, number: register.number)
            try request.put(NFTA_META_KEY, number: key.number)
        case .connectionStatus(let register):
            try request.put(NFTA_CT_DREG, number: register.number)
            try request.put(NFTA_CT_KEY, number: NFT_CT_STATUS.rawValue)
        case .connectionState(let register):
            try request.put(NFTA_CT_DREG, number: register.number)
            try request.put(NFTA_CT_KEY, number: NFT_CT_STATE.rawValue)
        case .wayBack(let register):
            try request.put(NFTA_FIB_DREG, number: register.number)
            try request.put(NFTA_FIB_RESULT, number: NFT_FIB_RESULT_OIF.rawValue)
            try request.put(NFTA_FIB_FLAGS, number: NFTA_FIB_F_SADDR.rawValue | NFTA_FIB_F_IIF.rawValue)
        case .isEncrypting(let register):
            try request.put(NFTA_RT_DREG, number: register.number)
            try request.put(NFTA_RT_KEY, number: NFT_RT_XFRM.rawValue)
        case .destinationType(let register):
            try request.put(NFTA_FIB_DREG, number: register.number)
            try request.put(NFTA_FIB_RESULT, number: NFT_FIB_RESULT_ADDRTYPE.rawValue)
            try request.put(NFTA_FIB_FLAGS, number: NFTA_FIB_F_DADDR.rawValue)
        case .equal(let register, let bytes): try putComparison(request, NFT_CMP_EQ, register, bytes)
        case .notEqual(let register, let bytes): try putComparison(request, NFT_CMP_NEQ, register, bytes)
        case .mask(let register, let mask):
            try request.put(NFTA_BITWISE_SREG, number: register.number)
            try request.put(NFTA_BITWISE_DREG, number: register.number)
            try request.put(NFTA_BITWISE_LEN, number: UInt32(mask.count))
            try request.nest(NFTA_BITWISE_MASK) { request throws(KernelError) in
                try request.put(NFTA_DATA_VALUE, bytes: mask)
            }
            try request.nest(NFTA_BITWISE_XOR) { request throws(KernelError) in
                try request.put(NFTA_DATA_VALUE, bytes: [UInt8](repeating: 0, count: mask.count))
            }
        case .lookup(let set, let key, let value):
            try request.put(NFTA_LOOKUP_SET, text: set)
            try request.put(NFTA_LOOKUP_SREG, number: key.number)
            if let value { try request.put(NFTA_LOOKUP_DREG, number: value.number) }
        case .immediate(let register, let bytes):
            try request.put(NFTA_IMMEDIATE_DREG, number: register.number)
            try request.nest(NFTA_IMMEDIATE_DATA) { request throws(KernelError) in
                try request.put(NFTA_DATA_VALUE, bytes: bytes)
            }
        case .verdict(let verdict):
            try request.put(NFTA_IMMEDIATE_DREG, number: FilterRegister.verdict.number)
            try request.nest(NFTA_IMMEDIATE_DATA) { request throws(KernelError) in
                try request.nest(NFTA_DATA_VERDICT) { request throws(KernelError) in try verdict.put(request) }
            }
        case .translate(let translation, let isV6, let address, let port):
            try request.put(
                NFTA_NAT_TYPE, number: translation == .source ? NFT_NAT_SNAT.rawValue : NFT_NAT_DNAT.rawValue)
            try request.put(NFTA_NAT_FAMILY, number: UInt32(isV6 ? NFPROTO_IPV6 : NFPROTO_IPV4))
            try request.put(NFTA_NAT_REG_ADDR_MIN, number: address.number)
            if let port { try request.put(NFTA_NAT_REG_PROTO_MIN, number: port.number) }
        case .masquerade, .counter: break
        }
    }

    private func putComparison(
        _ request: borrowing NetlinkRequest, _ operation: nft_cmp_ops, _ register: FilterRegister, _ bytes: [UInt8]
    ) throws(KernelError) {
        try request.put(NFTA_CMP_SREG, number: register.number)
        try request.put(NFTA_CMP_OP, number: operation.rawValue)
        try request.nest(NFTA_CMP_DATA) { request throws(KernelError) in
            try request.put(NFTA_DATA_VALUE, bytes: bytes)
        }
    }
}

extension FilterExpression.Meta {
    fileprivate var number: UInt32 {
        switch self {
        case .family: NFT_META_NFPROTO.rawValue
        case .transport: NFT_META_L4PROTO.rawValue
        case .inputName: NFT_META_IIFNAME.rawValue
        case .outputName: NFT_META_OIFNAME.rawValue
        case .inputGroup: NFT_META_IIFGROUP.rawValue
        case .outputGroup: NFT_META_OIFGROUP.rawValue
        case .sender: NFT_META_SKUID.rawValue
        case .isDecrypted: NFT_META_SECPATH.rawValue
        }
    }
}

extension FilterExpression.Verdict {
    fileprivate func put(_ request: borrowing NetlinkRequest) throws(KernelError) {
        let code: Int32 =
            switch self {
            case .accept: NF_ACCEPT
            case .drop: NF_DROP
            case .return: NFT_RETURN.rawValue
            case .jump: NFT_JUMP.rawValue
            }
        try request.put(NFTA_VERDICT_CODE, number: UInt32(bitPattern: code))
        if case .jump(let chain) = self { try request.put(NFTA_VERDICT_CHAIN, text: chain) }
    }
}
