import CNetlink
import Glibc
import Kernel

/// One message of the kernel, taken apart with every length checked (netlink(7)).
package struct NetlinkReply: Equatable {
    /// `RTM_…`, `NLMSG_…`; for nfnetlink with the part of it in the high byte.
    package let type: UInt16
    let flags: UInt16
    let sequence: UInt32
    /// What follows the header.
    package let payload: ArraySlice<UInt8>

    private static let headerLength = 16

    /// All messages of a datagram.
    ///
    /// - Throws: `KernelError` with EBADMSG when one is cut off or its length cannot be.
    static func parse(_ datagram: [UInt8]) throws(KernelError) -> [NetlinkReply] {
        var replies: [NetlinkReply] = []
        var rest = datagram[...]
        while !rest.isEmpty {
            guard let length = rest.number(at: 0, as: UInt32.self), length >= headerLength, length <= rest.count,
                let type = rest.number(at: 4, as: UInt16.self), let flags = rest.number(at: 6, as: UInt16.self),
                let sequence = rest.number(at: 8, as: UInt32.self)
            else { throw KernelError("netlink", "an answer of the kernel", errno: EBADMSG) }
            let payload = rest.dropFirst(headerLength).prefix(Int(length) - headerLength)
            replies.append(NetlinkReply(type: type, flags: flags, sequence: sequence, payload: payload))
            rest = rest.dropFirst((Int(length) + 3) & ~3)
        }
        return replies
    }

    /// What an acknowledgement or an error says: the error number, 0 for success, and the kernel's words for it, empty
    /// where it has none.
    func verdict() throws(KernelError) -> (errno: Int32, text: String) {
        guard let number = payload.number(at: 0, as: Int32.self), number <= 0, number > -4096,
            let length = payload.number(at: 4, as: UInt32.self)
        else { throw KernelError("netlink", "an acknowledgement of the kernel", errno: EBADMSG) }
        guard flags & UInt16(NLM_F_ACK_TLVS) != 0 else { return (-number, "") }
        // Behind the error number comes the request's header, alone or with all of the request.
        let echo = flags & UInt16(NLM_F_CAPPED) != 0 ? Self.headerLength : Int(length)
        let attributes = NetlinkAttributes(payload.dropFirst(4 + ((echo + 3) & ~3)))
        return (-number, attributes.text(Int(NLMSGERR_ATTR_MSG.rawValue)) ?? "")
    }
}

/// The attributes of a message, or of one attribute that holds others. A length that cannot be ends the list.
package struct NetlinkAttributes {
    private var contents: [Int: ArraySlice<UInt8>] = [:]

    /// The two high bits of a type are flags.
    private static let typeMask: UInt16 = 0x3fff

    /// Of several attributes of one type the last.
    package init(_ bytes: ArraySlice<UInt8>) {
        for (type, content) in Self.list(bytes) { contents[type] = content }
    }

    /// All of them in order.
    package static func list(_ bytes: ArraySlice<UInt8>) -> [(type: Int, content: ArraySlice<UInt8>)] {
        var list: [(type: Int, content: ArraySlice<UInt8>)] = []
        var rest = bytes
        while let length = rest.number(at: 0, as: UInt16.self), length >= 4, length <= rest.count,
            let type = rest.number(at: 2, as: UInt16.self)
        {
            list.append((Int(type & typeMask), rest.dropFirst(4).prefix(Int(length) - 4)))
            rest = rest.dropFirst((Int(length) + 3) & ~3)
        }
        return list
    }

    /// What is in the attribute of a type; nil: there is none.
    package subscript(_ type: Int) -> ArraySlice<UInt8>? { contents[type] }

    /// A number in the machine's byte order.
    package func number<T: FixedWidthInteger & BitwiseCopyable>(_ type: Int, as _: T.Type = T.self) -> T? {
        contents[type]?.number(at: 0)
    }

    /// Text up to its NUL byte.
    package func text(_ type: Int) -> String? {
        contents[type].map { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }

    /// The attributes in an attribute; none when it is not there.
    package func nested(_ type: Int) -> NetlinkAttributes { NetlinkAttributes(contents[type] ?? []) }
}

extension ArraySlice<UInt8> {
    /// A number in the machine's byte order, so many bytes behind the start; nil when it is not all there.
    package func number<T: FixedWidthInteger & BitwiseCopyable>(at offset: Int, as _: T.Type = T.self) -> T? {
        guard offset >= 0, count >= offset + MemoryLayout<T>.size else { return nil }
        return withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: T.self) }
    }
}
