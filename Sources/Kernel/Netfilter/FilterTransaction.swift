import CNetfilter
import CNetlink
import Glibc
import Kernel
import Netlink

/// Changes of nf_tables that the kernel makes all at once or not at all, in this order.
package struct FilterTransaction: ~Copyable {
    private(set) var batch = NetlinkBatch(transaction: ())
    private var sets: UInt32 = 0
    /// A message of libnl's is one page; an element takes up to 330 bytes.
    private static let elementsPerMessage = 10
    private let family: FilterFamily

    /// - Parameters:
    ///   - generation: of the rules that the changes follow from: where it is another meanwhile, the whole is refused with
    ///     ERESTART. Nil: they follow from nothing.
    ///   - family: of the tables that are changed.
    package init(generation: UInt32?, family: FilterFamily = .inet) throws(KernelError) {
        self.family = family
        let begin = try Self.edge(NFNL_MSG_BATCH_BEGIN, "NFNL_MSG_BATCH_BEGIN")
        if let generation { try begin.put(NFNL_BATCH_GENID, number: generation) }
        try batch.add(begin)
    }

    /// What a transaction begins or ends with; without the end the kernel only tries.
    static func edge(_ type: Int32, _ operation: String) throws(KernelError) -> NetlinkRequest {
        var header = nfgenmsg()
        header.res_id = UInt16(NetfilterPart.tables.rawValue).bigEndian
        return try NetlinkRequest(Int(type), header: header, operation, "nf_tables")
    }

    package var isEmpty: Bool { batch.count == 1 }

    /// Takes over what has been put together.
    consuming func finished(commits: Bool) throws(KernelError) -> NetlinkBatch {
        if commits { try batch.add(Self.edge(NFNL_MSG_BATCH_END, "NFNL_MSG_BATCH_END")) }
        return batch
    }

    private func message(
        _ type: nf_tables_msg_types, flags: Int32 = 0, _ operation: String, _ subject: String
    ) throws(KernelError) -> NetlinkRequest {
        try NetlinkRequest(.tables, type, flags: flags, family: family.number, operation, subject)
    }

    // MARK: Tables

    /// Makes the table with its sets, chains and rules. It must not be there; `replace` has no such wish.
    package mutating func make(_ table: FilterTable) throws(KernelError) {
        try make(named: table.name, comment: table.comment, flags: NLM_F_CREATE | NLM_F_EXCL)
        for set in table.sets { try make(set, table.name) }
        for chain in table.chains { try make(chain, table.name) }
        for chain in table.chains {
            for rule in chain.rules { try make(rule, chain.name, table.name) }
        }
    }

    /// Makes the table anew, whether one of its name is there or not. Elements are to be added again.
    package mutating func replace(_ table: FilterTable) throws(KernelError) {
        // What is deleted must be there.
        try make(named: table.name, comment: table.comment, flags: NLM_F_CREATE)
        try delete(tableNamed: table.name)
        try make(table)
    }

    /// Deletes the table with all that is in it. ENOENT: there is none.
    package mutating func delete(tableNamed name: String) throws(KernelError) {
        let request = try message(NFT_MSG_DELTABLE, "NFT_MSG_DELTABLE", "table \(name)")
        try request.put(NFTA_TABLE_NAME, text: name)
        try batch.add(request)
    }

    private mutating func make(named name: String, comment: String, flags: Int32) throws(KernelError) {
        let request = try message(NFT_MSG_NEWTABLE, flags: flags, "NFT_MSG_NEWTABLE", "table \(name)")
        try request.put(NFTA_TABLE_NAME, text: name)
        try request.put(NFTA_TABLE_USERDATA, bytes: FilterComment.encoded(comment))
        try batch.add(request)
    }

    private mutating func make(_ set: FilterSet, _ table: String) throws(KernelError) {
        sets += 1
        let request = try message(
            NFT_MSG_NEWSET, flags: NLM_F_CREATE | NLM_F_EXCL, "NFT_MSG_NEWSET", "set \(set.name) of table \(table)")
        var flags: UInt32 = 0
        if !set.value.isEmpty { flags |= NFT_SET_MAP.rawValue }
        if set.isInterval { flags |= NFT_SET_INTERVAL.rawValue }
        // A range of keys that are put together is looked for part by part.
        let isConcatenated = set.isInterval && set.key.count > 1
        if isConcatenated { flags |= NFT_SET_CONCAT.rawValue }
        try request.put(NFTA_SET_TABLE, text: table)
        try request.put(NFTA_SET_NAME, text: set.name)
        try request.put(NFTA_SET_FLAGS, number: flags)
        try request.put(NFTA_SET_KEY_TYPE, number: FilterSet.type(set.key))
        try request.put(NFTA_SET_KEY_LEN, number: UInt32(FilterSet.bytes(set.key)))
        if !set.value.isEmpty {
            try request.put(NFTA_SET_DATA_TYPE, number: FilterSet.type(set.value))
            try request.put(NFTA_SET_DATA_LEN, number: UInt32(FilterSet.bytes(set.value)))
        }
        try request.put(NFTA_SET_ID, number: sets)
        try request.put(NFTA_SET_USERDATA, bytes: set.byteOrder)
        if isConcatenated {
            try request.nest(NFTA_SET_DESC) { request throws(KernelError) in
                try request.nest(NFTA_SET_DESC_CONCAT) { request throws(KernelError) in
                    for field in set.key {
                        try request.nest(NFTA_LIST_ELEM) { request throws(KernelError) in
                            try request.put(NFTA_SET_FIELD_LEN, number: UInt32(field.bytes))
                        }
                    }
                }
            }
        }
        try batch.add(request)
    }

    private mutating func make(_ chain: FilterChain, _ table: String) throws(KernelError) {
        let request = try message(
            NFT_MSG_NEWCHAIN, flags: NLM_F_CREATE | NLM_F_EXCL, "NFT_MSG_NEWCHAIN",
            "chain \(chain.name) of table \(table)")
        try request.put(NFTA_CHAIN_TABLE, text: table)
        try request.put(NFTA_CHAIN_NAME, text: chain.name)
        if let base = chain.base {
            try request.nest(NFTA_CHAIN_HOOK) { request throws(KernelError) in
                try request.put(NFTA_HOOK_HOOKNUM, number: base.hook.rawValue)
                try request.put(NFTA_HOOK_PRIORITY, number: UInt32(bitPattern: base.priority))
            }
            try request.put(NFTA_CHAIN_POLICY, number: UInt32(base.drops ? NF_DROP : NF_ACCEPT))
            try request.put(NFTA_CHAIN_TYPE, text: base.kind.rawValue)
        }
        try batch.add(request)
    }

    private mutating func make(_ rule: FilterRule, _ chain: String, _ table: String) throws(KernelError) {
        let request = try message(
            NFT_MSG_NEWRULE, flags: NLM_F_CREATE | NLM_F_APPEND, "NFT_MSG_NEWRULE",
            "rule '\(rule.comment)' of chain \(chain) of table \(table)")
        try request.put(NFTA_RULE_TABLE, text: table)
        try request.put(NFTA_RULE_CHAIN, text: chain)
        try request.nest(NFTA_RULE_EXPRESSIONS) { request throws(KernelError) in
            for expression in rule.expressions { try expression.put(request) }
        }
        try request.put(NFTA_RULE_USERDATA, bytes: FilterComment.encoded(rule.comment))
        try batch.add(request)
    }

    // MARK: Elements

    /// Adds elements. EEXIST: a key is there already; ENOTEMPTY: a range shares keys with one that is there.
    package mutating func add(_ elements: [FilterElement], to set: String, of table: String) throws(KernelError) {
        try put(
            elements, set, table, NFT_MSG_NEWSETELEM, flags: NLM_F_CREATE | NLM_F_EXCL, "NFT_MSG_NEWSETELEM",
            isWhole: true)
    }

    /// Deletes elements by their keys. ENOENT: one is not there.
    package mutating func delete(
        _ elements: [FilterElement], from set: String, of table: String
    ) throws(KernelError) {
        try put(elements, set, table, NFT_MSG_DELSETELEM, "NFT_MSG_DELSETELEM", isWhole: false)
    }

    private mutating func put(
        _ elements: [FilterElement], _ set: String, _ table: String, _ type: nf_tables_msg_types, flags: Int32 = 0,
        _ operation: String, isWhole: Bool
    ) throws(KernelError) {
        var rest = elements[...]
        while let first = rest.first {
            let subject = "element '\(first.comment ?? "")' of set \(set) of table \(table)"
            let request = try message(type, flags: flags, operation, subject)
            try request.put(NFTA_SET_ELEM_LIST_TABLE, text: table)
            try request.put(NFTA_SET_ELEM_LIST_SET, text: set)
            let part = rest.prefix(Self.elementsPerMessage)
            try request.nest(NFTA_SET_ELEM_LIST_ELEMENTS) { request throws(KernelError) in
                for element in part { try element.put(request, isWhole: isWhole) }
            }
            try batch.add(request)
            rest = rest.dropFirst(part.count)
        }
    }
}

extension FilterElement {
    fileprivate func put(_ request: borrowing NetlinkRequest, isWhole: Bool) throws(KernelError) {
        try request.nest(NFTA_LIST_ELEM) { request throws(KernelError) in
            try Self.put(NFTA_SET_ELEM_KEY, key, request)
            if let keyEnd { try Self.put(NFTA_SET_ELEM_KEY_END, keyEnd, request) }
            guard isWhole else { return }
            if !value.isEmpty { try Self.put(NFTA_SET_ELEM_DATA, value, request) }
            if let comment { try request.put(NFTA_SET_ELEM_USERDATA, bytes: FilterComment.encoded(comment)) }
        }
    }

    private static func put(
        _ type: nft_set_elem_attributes, _ bytes: [UInt8], _ request: borrowing NetlinkRequest
    ) throws(KernelError) {
        try request.nest(type) { request throws(KernelError) in try request.put(NFTA_DATA_VALUE, bytes: bytes) }
    }

    /// From an element of a list of the kernel's; nil when it has no key.
    init?(_ attributes: NetlinkAttributes) {
        guard let key = attributes.nested(NFTA_SET_ELEM_KEY)[NFTA_DATA_VALUE] else { return nil }
        self.init(
            key: Array(key), keyEnd: attributes.nested(NFTA_SET_ELEM_KEY_END)[NFTA_DATA_VALUE].map { Array($0) },
            value: Array(attributes.nested(NFTA_SET_ELEM_DATA)[NFTA_DATA_VALUE] ?? []),
            comment: FilterComment.decoded(attributes[NFTA_SET_ELEM_USERDATA]))
    }
}
