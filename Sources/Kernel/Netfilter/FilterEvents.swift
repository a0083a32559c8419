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

    /// The table of the family `inet` that a message is about; nil: it is about none.
    package static func table(_ reply: NetlinkReply) -> String? {
        guard Int(reply.type) >> 8 == NetfilterPart.tables.rawValue,
            reply.payload.number(at: 0, as: UInt8.self) == FilterTransaction.family,
            Int(reply.type) & 0xff != Int(NFT_MSG_NEWGEN.rawValue)
        else { return nil }
        // The first attribute of tables, chains, rules, sets and elements alike.
        return NetlinkAttributes(reply.payload.dropFirst(MemoryLayout<nfgenmsg>.size)).text(NFTA_TABLE_NAME)
    }
}
