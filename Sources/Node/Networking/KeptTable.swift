import Glibc
import Kernel
import Netfilter

/// A table of nf_tables of ours: its rules are always the same, and what changes is in its sets.
struct KeptTable: Sendable {
    /// By the names of the sets.
    typealias Elements = [String: Set<FilterElement>]

    let table: FilterTable
    /// How the comments of all layouts begin: a table of this name without it is somebody else's.
    let ours: String

    /// As it is said to people.
    var name: String { "\(table.family.rawValue) \(table.name)" }

    /// Elements of one transaction: of the largest kind they take 4 MiB.
    private static let elementsPerTransaction = 30_000

    /// Makes the changes of elements, all or none as far as they fit into one transaction.
    func change(add: Elements, remove: Elements = [:], _ socket: inout NetfilterSocket) throws(KernelError) {
        var rest: [(part: String, element: FilterElement, isNew: Bool)] = []
        for part in table.sets.map(\.name) {
            rest += (remove[part] ?? []).map { (part, $0, false) }
            rest += (add[part] ?? []).map { (part, $0, true) }
        }
        while !rest.isEmpty {
            var transaction = try FilterTransaction(generation: nil, family: table.family)
            let some = rest.prefix(Self.elementsPerTransaction)
            for part in table.sets.map(\.name) {
                let gone = some.filter { $0.part == part && !$0.isNew }.map(\.element)
                let new = some.filter { $0.part == part && $0.isNew }.map(\.element)
                if !gone.isEmpty { try transaction.delete(gone, from: part, of: table.name) }
                if !new.isEmpty { try transaction.add(new, to: part, of: table.name) }
            }
            try socket.commit(transaction)
            rest.removeFirst(some.count)
        }
    }

    /// Compares the table with what it should hold; with `repairs` it is that afterwards.
    ///
    /// - Parameter isOurs: which elements are too much where they are not wanted; others are nobody's business here.
    /// - Returns: what differed.
    /// - Throws: EEXIST for a table of somebody else's.
    func look(
        _ wanted: Elements, repairs: Bool, isOurs: (FilterElement) -> Bool = { _ in true },
        _ socket: inout NetfilterSocket
    ) throws(KernelError) -> [String] {
        let found = try socket.comment(ofTable: table.name, family: table.family)
        if let found, !found.hasPrefix(ours) {
            throw KernelError(
                "make the table", name, errno: EEXIST,
                hint: "there is one of somebody else's of this name; remove it")
        }
        let isCurrent = found == table.comment
        let rules = isCurrent ? try socket.rules(ofTable: table.name, family: table.family) : []
        guard isCurrent, rules == table.outline else {
            if repairs {
                var transaction = try FilterTransaction(generation: nil, family: table.family)
                try transaction.replace(table)
                try socket.commit(transaction)
                try change(add: wanted, &socket)
            }
            return ["the nf_tables table \(name) \(found == nil ? "is missing" : "is not as it was made")"]
        }
        var differences: [String] = []
        var (missing, extra): (Elements, Elements) = ([:], [:])
        for part in table.sets.map(\.name) {
            let present = Set(try socket.elements(of: part, table: table.name, family: table.family))
            let wanted = wanted[part] ?? []
            missing[part] = wanted.subtracting(present)
            // One that only says otherwise whose it is stands in the way of the one that is wanted.
            let keys = Set((missing[part] ?? []).map(\.key))
            extra[part] = present.subtracting(wanted).filter { isOurs($0) || keys.contains($0.key) }
            for (number, what) in [(missing[part]?.count ?? 0, "missing"), (extra[part]?.count ?? 0, "too much")]
            where number > 0 {
                differences.append("\(number) elements of the set \(part) of the table \(name) are \(what)")
            }
        }
        if repairs, !differences.isEmpty { try change(add: missing, remove: extra, &socket) }
        return differences
    }

    /// Takes the table away; one of somebody else's stays.
    func remove(_ socket: inout NetfilterSocket) throws(KernelError) {
        guard try socket.comment(ofTable: table.name, family: table.family)?.hasPrefix(ours) == true else { return }
        var transaction = try FilterTransaction(generation: nil, family: table.family)
        try transaction.delete(tableNamed: table.name)
        try socket.commit(transaction)
    }
}
