import CNIPlugin
import CNISpec
import Glibc
import Kernel
import Netfilter

/// What the kernel has of the table at one generation of its rules.
struct PortTableState {
    let generation: UInt32
    /// The table is there.
    let exists: Bool
    /// All of its rules are there.
    let isWhole: Bool
    let elements: PortTable.Elements

    /// - Throws: EEXIST when a table of the name is not ours.
    init(_ socket: inout NetfilterSocket) throws(KernelError) {
        generation = try socket.generation()
        guard let comment = try socket.comment(ofTable: PortTable.name) else {
            (exists, isWhole, elements) = (false, false, [:])
            return
        }
        guard comment.hasPrefix(PortTable.ours) else {
            throw KernelError(
                "publish ports", "table inet \(PortTable.name)", errno: EEXIST,
                hint: "somebody else made a table of this name: remove it (nft delete table inet \(PortTable.name))")
        }
        exists = true
        let rules = try socket.rules(ofTable: PortTable.name)
        isWhole = comment == PortTable.comment && rules == PortTable.table.outline
        var elements: PortTable.Elements = [:]
        for part in PortTable.Part.allCases {
            do throws(KernelError) {
                elements[part] = try socket.elements(of: part.rawValue, table: PortTable.name)
            } catch {
                // Another layout has no such set; or the table has just gone, of which the generation tells.
                guard error.errno == ENOENT else { throw error }
            }
        }
        self.elements = elements
    }

    /// Who has what, to say so; ports of elements that are not ours have no owner.
    var published: [(port: PublishedPort, owner: PortOwner?)] {
        elements.flatMap { part, elements in
            elements.compactMap { element in
                PublishedPort(element, in: part).map { ($0, PortOwner(element.comment)) }
            }
        }
    }

    /// The devices that were given route_localnet by us.
    var localnet: [String] { Self.localnet(elements) }

    static func localnet(_ elements: PortTable.Elements) -> [String] {
        (elements[.localnet] ?? []).map { PortTable.interfaceName($0.key) }
    }

    /// Whether an ADD has something to delete before it can add.
    func replaces(_ owner: PortOwner) -> Bool {
        exists && (!isWhole || elements.values.contains { $0.contains { PortOwner($0.comment) == owner } })
    }

    /// The elements without those that belong to somebody.
    func elements(without leaves: (PortOwner) -> Bool) -> PortTable.Elements {
        elements.mapValues { list in list.filter { PortOwner($0.comment).map { !leaves($0) } ?? true } }
    }

    /// The changes that make the table hold exactly `wanted`; with nothing that is anybody's in it, it goes. Nil: it
    /// does already.
    func change(to wanted: PortTable.Elements) throws(KernelError) -> FilterTransaction? {
        var transaction = try FilterTransaction(generation: generation)
        if wanted.allSatisfy({ part, list in part == .localnet || list.isEmpty }) {
            guard exists else { return nil }
            try transaction.delete(tableNamed: PortTable.name)
            return consume transaction
        }
        // What is deleted has to be waited for in the end: nothing is where there was nothing.
        if !exists {
            try transaction.make(PortTable.table)
        } else if !isWhole {
            try transaction.replace(PortTable.table)
        }
        for part in PortTable.Part.allCases {
            let old = isWhole ? Set(elements[part] ?? []) : []
            let new = Set(wanted[part] ?? [])
            let (gone, come) = (old.subtracting(new), new.subtracting(old))
            // What only changed its target is deleted and added again.
            if !gone.isEmpty { try transaction.delete(Array(gone), from: part.rawValue, of: PortTable.name) }
            if !come.isEmpty { try transaction.add(Array(come), to: part.rawValue, of: PortTable.name) }
        }
        if transaction.isEmpty { return nil }
        return consume transaction
    }
}

/// Changes of the table by several programs at once: each looks, decides and changes, and the kernel refuses a change of
/// what somebody else has changed since it was looked at.
enum PortTableUpdate {
    /// How often a change is tried anew. Each time somebody else's was made.
    private static let tries = 500

    /// Makes the table hold what `decide` makes of it. Route_localnet is taken from devices before the table lets go of
    /// them, which guards them.
    ///
    /// - Returns: what was there before.
    @discardableResult
    static func run(
        _ socket: inout NetfilterSocket,
        _ decide: (PortTableState) throws(CNIError) -> PortTable.Elements
    ) throws(CNIError) -> PortTableState {
        var lowered: Set<String> = []
        for attempt in 1...tries {
            let state = try CNIError.from(CNIError.refusedByKernel) { () throws(KernelError) in
                try PortTableState(&socket)
            }
            let wanted = try decide(state)
            let ends = wanted.allSatisfy { part, list in part == .localnet || list.isEmpty }
            let kept = ends ? [] : Set(PortTableState.localnet(wanted))
            do throws(KernelError) {
                for device in state.localnet where !kept.contains(device) {
                    if try LoopbackRouting.set(device, false) { lowered.insert(device) }
                }
                // Somebody came before the change was made.
                for device in kept.intersection(lowered) { try LoopbackRouting.set(device, true) }
                lowered.subtract(kept)
                failpoint("plugin.before_rules")
                if let transaction = try state.change(to: wanted) { try socket.commit(transaction) }
                return state
            } catch {
                guard error.errno == ERESTART else { throw CNIError(error, code: CNIError.refusedByKernel) }
            }
            // Not in step with the others.
            usleep(UInt32.random(in: 0...UInt32(min(attempt, 10) * 500)))
        }
        throw CNIError(
            code: CNIError.tryAgainLater,
            message: "the host's packet filter was changed by others during each of \(tries) tries: try again")
    }
}

/// Whether a device may forward what comes from and goes to 127.0.0.0/8 (route_localnet, kernel documentation ip-sysctl).
enum LoopbackRouting {
    private static func path(_ device: String) -> String { "/proc/sys/net/ipv4/conf/\(device)/route_localnet" }

    static func isOn(_ device: String) throws(KernelError) -> Bool {
        try File.read(path(device), limit: 16).first == UInt8(ascii: "1")
    }

    /// - Returns: whether it was another way before; a device that is gone needs nothing.
    @discardableResult
    static func set(_ device: String, _ on: Bool) throws(KernelError) -> Bool {
        do throws(KernelError) {
            guard try isOn(device) != on else { return false }
            let file = try File.open(path(device), O_WRONLY)
            try file.writeAll([UInt8(ascii: on ? "1" : "0"), UInt8(ascii: "\n")], subject: path(device))
            return true
        } catch {
            if !on, error.errno == ENOENT { return false }
            throw KernelError(
                error.operation, error.subject, errno: error.errno,
                hint: on ? "without it 127.0.0.1 does not lead to containers: \"snat\": false does without" : "")
        }
    }
}
