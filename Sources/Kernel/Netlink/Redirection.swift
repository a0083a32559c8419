import CNetlink
import Glibc
import Kernel

/// All that arrives at a device leaves by another one first, as if it were sent there, and then arrives as before
/// (tc-mirred(8) with an ifb): so what arrives can be made to wait.
package struct Redirection: Sendable {
    /// Where it arrives.
    package var source: Link
    /// Where it goes: an ifb.
    package var target: Link

    package init(from source: Link, to target: Link) {
        self.source = source
        self.target = target
    }

    /// The number of the discipline `ingress`, which is always this one.
    private static let ingress: UInt32 = 0xffff_0000
    private static let priority: UInt32 = 1
    /// ETH_P_ALL in network order.
    private static let allProtocols = UInt32(UInt16(ETH_P_ALL).bigEndian)

    /// Two requests, in this order: the place where filters of what arrives are, and the filter. The kernel puts the
    /// filter also into a place that was there before: ask `hasPlace` first.
    package func add(to batch: inout NetlinkBatch) throws(KernelError) {
        try batch.add(place())
        try batch.add(filter())
    }

    private func place() throws(KernelError) -> NetlinkRequest {
        let request = try NetlinkRequest(
            RTM_NEWQDISC, flags: Int32(NLM_F_CREATE | NLM_F_EXCL), at: source, parent: TC_H_INGRESS,
            handle: Self.ingress, "RTM_NEWQDISC", "ingress on \(source.name)")
        try request.put(TCA_KIND, "ingress")
        return request.advising(
            ENOENT, "the kernel lacks filters of what arrives: load its module sch_ingress (CONFIG_NET_SCH_INGRESS)")
    }

    private func filter() throws(KernelError) -> NetlinkRequest {
        let request = try NetlinkRequest(
            RTM_NEWTFILTER, flags: Int32(NLM_F_CREATE | NLM_F_EXCL), at: source, parent: Self.ingress,
            info: Self.priority << 16 | Self.allProtocols, "RTM_NEWTFILTER",
            "u32 on \(source.name) with mirred to \(target.name)")
        try request.put(TCA_KIND, "u32")
        // struct tc_u32_sel and one struct tc_u32_key: no bit of the first word is looked at, so that all packets match.
        var everything = [UInt8](repeating: 0, count: 32)
        everything[0] = UInt8(TC_U32_TERMINAL)
        everything[2] = 1
        var action = tc_mirred()
        action.action = TC_ACT_STOLEN
        action.eaction = TCA_EGRESS_REDIR
        action.ifindex = UInt32(bitPattern: target.index)
        try request.nest(TCA_OPTIONS) { request throws(KernelError) in
            try request.put(TCA_U32_SEL, everything)
            try request.nest(TCA_U32_ACT) { request throws(KernelError) in
                // The first of its actions.
                try request.nest(1) { request throws(KernelError) in
                    try request.put(TCA_ACT_KIND, "mirred")
                    try request.nest(TCA_ACT_OPTIONS) { request throws(KernelError) in
                        try request.put(TCA_MIRRED_PARMS, raw: action)
                    }
                }
            }
        }
        return request.advising(
            ENOENT,
            "the kernel lacks the filter or its action: load its modules cls_u32 and act_mirred (CONFIG_NET_CLS_U32, "
                + "CONFIG_NET_ACT_MIRRED)")
    }

    /// Whether there is a place for filters of what arrives at a device, whoever made it.
    package static func hasPlace(at source: Link, _ socket: inout NetlinkSocket) throws(KernelError) -> Bool {
        // As for the root of a device: QueueingDiscipline.
        let request = try NetlinkRequest(
            RTM_GETQDISC, flags: Int32(NLM_F_ECHO), at: source, parent: TC_H_INGRESS, "RTM_GETQDISC",
            "ingress on \(source.name)"
        ).tolerating(ENOENT, EINVAL)
        return try socket.ask(request, isDump: false).contains { $0.type == UInt16(RTM_NEWQDISC) }
    }

    /// Takes the place away with all filters in it; that there is none, or no such device, is no error.
    package static func deletion(from source: Link) throws(KernelError) -> NetlinkRequest {
        let request = try NetlinkRequest(
            RTM_DELQDISC, at: source, parent: TC_H_INGRESS, handle: ingress, "RTM_DELQDISC",
            "ingress on \(source.name)"
        ).tolerating(ENOENT, EINVAL, ENODEV)
        try request.put(TCA_KIND, "ingress")
        return request
    }

    /// Where the filters of what arrives at a device send it: the index of a device each, 0 for one that is gone or for
    /// a filter that does something else.
    package static func targets(of source: Link, _ socket: inout NetlinkSocket) throws(KernelError) -> [Int32] {
        let request = try NetlinkRequest(
            RTM_GETTFILTER, at: source, parent: ingress, "RTM_GETTFILTER", source.name)
        return try socket.ask(request, isDump: true).compactMap { target($0) }
    }

    /// Nil for what is no filter but the table that filters are in.
    static func target(_ reply: NetlinkReply) -> Int32? {
        guard reply.type == UInt16(RTM_NEWTFILTER) else { return nil }
        let attributes = NetlinkAttributes(reply.payload.dropFirst(MemoryLayout<tcmsg>.size))
        let options = attributes.nested(TCA_OPTIONS)
        guard attributes.text(TCA_KIND) == "u32" else { return 0 }
        guard options[TCA_U32_SEL] != nil else { return nil }
        let action = options.nested(TCA_U32_ACT).nested(1)
        // struct tc_mirred: five numbers that all actions have, what it does, the device.
        guard action.text(TCA_ACT_KIND) == "mirred",
            let parameters = action.nested(TCA_ACT_OPTIONS)[TCA_MIRRED_PARMS],
            parameters.number(at: 20, as: Int32.self) == TCA_EGRESS_REDIR
        else { return 0 }
        return parameters.number(at: 24)
    }
}
