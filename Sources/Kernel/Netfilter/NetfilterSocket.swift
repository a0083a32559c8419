import CNetfilter
import CNetlink
import Glibc
import Kernel
import Netlink

/// A conversation with the packet filter and the connection tracking of the network namespace of the thread that began it.
/// One thread at a time.
package struct NetfilterSocket: ~Copyable {
    private var socket: NetlinkSocket

    package init() throws(KernelError) { socket = try NetlinkSocket(.netfilter) }

    /// After changes that deleted something, see `NetlinkSocket.closeUnawaited`.
    package consuming func closeUnawaited() { socket.closeUnawaited() }

    // MARK: nf_tables

    /// A number that is another one after each change of the namespace's rules.
    package mutating func generation() throws(KernelError) -> UInt32 {
        let request = try NetlinkRequest(
            .tables, NFT_MSG_GETGEN, family: UInt8(NFPROTO_UNSPEC), "NFT_MSG_GETGEN", "nf_tables")
        for reply in try socket.ask(request, isDump: false) {
            if let number = Self.attributes(reply).number(NFTA_GEN_ID) { return number }
        }
        throw KernelError("NFT_MSG_GETGEN", "nf_tables", errno: EBADMSG)
    }

    /// The comment of a table, empty where it has none; nil: there is no such table.
    package mutating func comment(
        ofTable name: String, family: FilterFamily = .inet
    ) throws(KernelError) -> String? {
        let request = try table(NFT_MSG_GETTABLE, "NFT_MSG_GETTABLE", name, family).tolerating(ENOENT)
        try request.put(NFTA_TABLE_NAME, text: name)
        let found = try socket.ask(request, isDump: false)
            .filter { $0.type == UInt16(NetfilterPart.tables.rawValue << 8) | UInt16(NFT_MSG_NEWTABLE.rawValue) }
        return found.first.map { FilterComment.decoded(Self.attributes($0)[NFTA_TABLE_USERDATA]) ?? "" }
    }

    /// All rules of a table, chain by chain in their order.
    package mutating func rules(
        ofTable name: String, family: FilterFamily = .inet
    ) throws(KernelError) -> [FilterRuleRecord] {
        let request = try table(NFT_MSG_GETRULE, "NFT_MSG_GETRULE", name, family)
        try request.put(NFTA_RULE_TABLE, text: name)
        return try socket.ask(request, isDump: true).compactMap { reply in
            let attributes = Self.attributes(reply)
            // Kernels that do not know the filter list all tables.
            guard attributes.text(NFTA_RULE_TABLE) == name, let chain = attributes.text(NFTA_RULE_CHAIN) else {
                return nil
            }
            return FilterRuleRecord(chain: chain, comment: FilterComment.decoded(attributes[NFTA_RULE_USERDATA]))
        }
    }

    /// All elements of a set. ENOENT: there is no such set.
    package mutating func elements(
        of set: String, table name: String, family: FilterFamily = .inet
    ) throws(KernelError) -> [FilterElement] {
        let request = try NetlinkRequest(
            .tables, NFT_MSG_GETSETELEM, family: family.number, "NFT_MSG_GETSETELEM",
            "set \(set) of table \(name)")
        try request.put(NFTA_SET_ELEM_LIST_TABLE, text: name)
        try request.put(NFTA_SET_ELEM_LIST_SET, text: set)
        return try socket.ask(request, isDump: true).flatMap { reply in
            NetlinkAttributes.list(Self.attributes(reply)[NFTA_SET_ELEM_LIST_ELEMENTS] ?? [])
                .compactMap { FilterElement(NetlinkAttributes($0.content)) }
        }
    }

    /// Makes the changes. ERESTART: the rules are of another generation.
    package mutating func commit(_ transaction: consuming FilterTransaction) throws(KernelError) {
        let batch = try transaction.finished(commits: true)
        try socket.commit(batch, acknowledged: batch.count - 2)
    }

    /// Has the kernel look through the changes, and makes none of them.
    package mutating func rehearse(_ transaction: consuming FilterTransaction) throws(KernelError) {
        let batch = try transaction.finished(commits: false)
        try socket.commit(batch, acknowledged: batch.count - 1)
    }

    private func table(
        _ type: nf_tables_msg_types, _ operation: String, _ name: String, _ family: FilterFamily
    ) throws(KernelError) -> NetlinkRequest {
        try NetlinkRequest(.tables, type, family: family.number, operation, "table \(family.rawValue) \(name)")
    }

    private static func attributes(_ reply: NetlinkReply) -> NetlinkAttributes {
        NetlinkAttributes(reply.payload.dropFirst(MemoryLayout<nfgenmsg>.size))
    }

    // MARK: Connection tracking

    /// Forgets connections, so that their next packet is looked at anew.
    ///
    /// - Parameters:
    ///   - transport: IPPROTO_UDP …: only these are looked at.
    ///   - isStale: which of them.
    /// - Returns: how many there were.
    @discardableResult
    package mutating func forgetConnections(
        isV6: Bool, transport: UInt8, _ isStale: (TrackedConnection) -> Bool
    ) throws(KernelError) -> Int {
        let family = UInt8(isV6 ? NFPROTO_IPV6 : NFPROTO_IPV4)
        let request = try NetlinkRequest(
            .conntrack, IPCTNL_MSG_CT_GET, family: family, "IPCTNL_MSG_CT_GET", "tracked connections")
        var stale = try socket.ask(request, isDump: true).compactMap { reply -> TrackedConnection? in
            guard let connection = TrackedConnection(Self.attributes(reply)),
                connection.original.transport == transport,
                isStale(connection)
            else { return nil }
            return connection
        }[...]
        let count = stale.count
        while !stale.isEmpty {
            var batch = NetlinkBatch()
            for connection in stale.prefix(NetlinkBatch.limit) {
                try batch.add(connection.deletion(family: family))
            }
            stale = stale.dropFirst(NetlinkBatch.limit)
            try socket.send(batch)
        }
        return count
    }
}
