import CNetlink
import Glibc
import Kernel

/// That all packets of a family look into a routing table, at a certain place in the order of tables (`ip rule`).
package struct PolicyRule: Sendable, Hashable {
    package var table: UInt32
    /// Lower ones come first; the main table has 32766.
    package var priority: UInt32
    /// AF_INET or AF_INET6.
    package var family: Int32

    package init(table: UInt32, priority: UInt32, family: Int32) {
        self.table = table
        self.priority = priority
        self.family = family
    }

    /// Makes it. EEXIST: it is there.
    package func request() throws(KernelError) -> NetlinkRequest {
        try message(RTM_NEWRULE, "RTM_NEWRULE", flags: Int32(NLM_F_CREATE | NLM_F_EXCL))
    }

    /// Takes it away; that there is none is no error.
    package func deletion() throws(KernelError) -> NetlinkRequest {
        try message(RTM_DELRULE, "RTM_DELRULE", flags: 0).tolerating(ENOENT)
    }

    private func message(_ type: Int, _ operation: String, flags: Int32) throws(KernelError) -> NetlinkRequest {
        var header = fib_rule_hdr()
        header.family = UInt8(family)
        header.action = UInt8(FR_ACT_TO_TBL)
        let request = try NetlinkRequest(type, flags: flags, header: header, operation, "table \(table)")
        try request.put(Int(FRA_PRIORITY), priority)
        try request.put(Int(FRA_TABLE), table)
        return request
    }

    /// All rules of a family that are of this form.
    package static func all(family: Int32, _ socket: inout NetlinkSocket) throws(KernelError) -> [PolicyRule] {
        var header = fib_rule_hdr()
        header.family = UInt8(family)
        let request = try NetlinkRequest(RTM_GETRULE, header: header, "RTM_GETRULE", "all rules")
        return try socket.ask(request, isDump: true).compactMap { PolicyRule($0) }
    }

    /// From an RTM_NEWRULE or RTM_DELRULE; nil when it is neither or asks for more than a look into a table.
    package init?(_ reply: NetlinkReply) {
        guard [UInt16(RTM_NEWRULE), UInt16(RTM_DELRULE)].contains(reply.type),
            let family = reply.payload.number(at: 0, as: UInt8.self),
            reply.payload.number(at: 7, as: UInt8.self) == UInt8(FR_ACT_TO_TBL)
        else { return nil }
        let attributes = NetlinkAttributes(reply.payload.dropFirst(MemoryLayout<fib_rule_hdr>.size))
        guard let table = attributes.number(Int(FRA_TABLE), as: UInt32.self) else { return nil }
        self.init(
            table: table, priority: attributes.number(Int(FRA_PRIORITY)) ?? 0, family: Int32(family))
    }
}
