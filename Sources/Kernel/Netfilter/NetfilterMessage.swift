import CNetfilter
import CNetlink
import Glibc
import Kernel
import Netlink

/// The two parts of nfnetlink that are spoken to here.
enum NetfilterPart: Int {
    /// NFNL_SUBSYS_CTNETLINK
    case conntrack = 1
    /// NFNL_SUBSYS_NFTABLES
    case tables = 10
}

extension NetlinkRequest {
    /// A message of nfnetlink.
    ///
    /// - Parameters:
    ///   - type: `NFT_MSG_…` or `IPCTNL_MSG_…`.
    ///   - family: `NFPROTO_…`.
    init(
        _ part: NetfilterPart, _ type: some RawRepresentable<UInt32>, flags: Int32 = 0, family: UInt8,
        _ operation: String,
        _ subject: String
    ) throws(KernelError) {
        var header = nfgenmsg()
        header.nfgen_family = family
        header.version = UInt8(NFNETLINK_V0)
        try self.init(part.rawValue << 8 | Int(type.rawValue), flags: flags, header: header, operation, subject)
    }

    /// A number in network order, as nfnetlink wants all of them.
    borrowing func put(_ type: some RawRepresentable<UInt32>, number: UInt32) throws(KernelError) {
        try put(Int(type.rawValue), withUnsafeBytes(of: number.bigEndian) { Array($0) })
    }

    borrowing func put(_ type: some RawRepresentable<UInt32>, text: String) throws(KernelError) {
        try put(Int(type.rawValue), text)
    }

    borrowing func put(_ type: some RawRepresentable<UInt32>, bytes: [UInt8]) throws(KernelError) {
        try put(Int(type.rawValue), bytes)
    }

    borrowing func nest(
        _ type: some RawRepresentable<UInt32>, _ body: (borrowing NetlinkRequest) throws(KernelError) -> Void
    ) throws(KernelError) {
        try nest(Int(type.rawValue), body)
    }
}

extension NetlinkAttributes {
    subscript(_ type: some RawRepresentable<UInt32>) -> ArraySlice<UInt8>? { self[Int(type.rawValue)] }

    func text(_ type: some RawRepresentable<UInt32>) -> String? { text(Int(type.rawValue)) }

    func nested(_ type: some RawRepresentable<UInt32>) -> NetlinkAttributes { nested(Int(type.rawValue)) }

    /// A number in network order.
    func number(_ type: some RawRepresentable<UInt32>) -> UInt32? {
        number(Int(type.rawValue), as: UInt32.self).map { UInt32(bigEndian: $0) }
    }

    /// A short number in network order.
    func short(_ type: some RawRepresentable<UInt32>) -> UInt16? {
        number(Int(type.rawValue), as: UInt16.self).map { UInt16(bigEndian: $0) }
    }
}

/// What nft(8) shows as `comment`: a byte 0, a length, and text that ends with NUL. The kernel keeps it with the object and
/// does not look into it.
enum FilterComment {
    /// Most bytes of a comment's text.
    static let longest = 250

    static func encoded(_ text: String) -> [UInt8] {
        let bytes = Array(text.utf8.prefix(longest)) + [0]
        return [0, UInt8(bytes.count)] + bytes
    }

    /// Nil where there is no comment.
    static func decoded(_ userdata: ArraySlice<UInt8>?) -> String? {
        var rest = userdata ?? []
        while rest.count >= 2 {
            let (type, length) = (rest[rest.startIndex], Int(rest[rest.startIndex + 1]))
            guard rest.count >= 2 + length else { return nil }
            let content = rest.dropFirst(2).prefix(length)
            if type == 0 { return String(decoding: content.prefix { $0 != 0 }, as: UTF8.self) }
            rest = rest.dropFirst(2 + length)
        }
        return nil
    }
}
