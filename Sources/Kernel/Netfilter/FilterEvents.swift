import CNetfilter
import CNetlink
import Glibc
import Kernel
import Netlink

/// What the kernel tells of changes of nf_tables.
package enum FilterEvents {
    /// Begins to listen, in the network namespace of the calling thread.
    package static func listen() throws(KernelError) -> NetlinkEvents {
        try NetlinkEvents(.netfilter, groups: [NFNLGRP_NFTABLES.rawValue])
    }
}

/// One change of a table.
package struct FilterEvent: Sendable, Equatable {
    package let family: FilterFamily
    package let table: String
    /// Something was deleted, and nothing added.
    package let isDeletion: Bool
    /// It is about an element of a set, and not about rules, chains, sets or the table.
    package let isOfElement: Bool

    package init(family: FilterFamily, table: String, isDeletion: Bool, isOfElement: Bool) {
        self.family = family
        self.table = table
        self.isDeletion = isDeletion
        self.isOfElement = isOfElement
    }

    /// Nil: the message is about no table of a family that is known here.
    package init?(_ reply: NetlinkReply) {
        let type = UInt32(reply.type) & 0xff
        guard Int(reply.type) >> 8 == NetfilterPart.tables.rawValue, type != NFT_MSG_NEWGEN.rawValue,
            let family = reply.payload.number(at: 0, as: UInt8.self).flatMap({ FilterFamily(number: $0) }),
            // The first attribute of tables, chains, rules, sets and elements alike.
            let table = NetlinkAttributes(reply.payload.dropFirst(MemoryLayout<nfgenmsg>.size)).text(NFTA_TABLE_NAME)
        else { return nil }
        let deletions = [
            NFT_MSG_DELTABLE, NFT_MSG_DELCHAIN, NFT_MSG_DELRULE, NFT_MSG_DELSET, NFT_MSG_DELSETELEM,
        ]
        self.init(
            family: family, table: table, isDeletion: deletions.contains { $0.rawValue == type },
            isOfElement: [NFT_MSG_NEWSETELEM, NFT_MSG_DELSETELEM].contains { $0.rawValue == type })
    }
}
