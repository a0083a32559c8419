import CKernel
import Glibc
import Kernel

/// From which memory nodes a process gets its memory, see set_mempolicy(2).
package struct MemoryPolicy: Sendable, Equatable {
    /// The modes by their names in set_mempolicy(2).
    package enum Mode: String, Sendable, CaseIterable {
        case standard = "MPOL_DEFAULT"
        case bind = "MPOL_BIND"
        case interleave = "MPOL_INTERLEAVE"
        case weightedInterleave = "MPOL_WEIGHTED_INTERLEAVE"
        case preferred = "MPOL_PREFERRED"
        case preferredMany = "MPOL_PREFERRED_MANY"
        case local = "MPOL_LOCAL"

        var number: Int {
            switch self {
            case .standard: CK_MPOL_DEFAULT
            case .bind: CK_MPOL_BIND
            case .interleave: CK_MPOL_INTERLEAVE
            case .weightedInterleave: CK_MPOL_WEIGHTED_INTERLEAVE
            case .preferred: CK_MPOL_PREFERRED
            case .preferredMany: CK_MPOL_PREFERRED_MANY
            case .local: CK_MPOL_LOCAL
            }
        }
    }

    private static let flagTable = FlagTable(bits: [
        ("MPOL_F_NUMA_BALANCING", CK_MPOL_F_NUMA_BALANCING), ("MPOL_F_RELATIVE_NODES", CK_MPOL_F_RELATIVE_NODES),
        ("MPOL_F_STATIC_NODES", CK_MPOL_F_STATIC_NODES),
    ])
    /// All flags that `init` takes.
    package static var flagNames: [String] { flagTable.bits.map(\.name) }

    /// The first number that no kernel gives to a node.
    package static let bound = 1024

    private let mode: Mode
    private let flags: Int
    private let nodes: NumberSet

    /// - Parameters:
    ///   - mode: one of `Mode`.
    ///   - nodes: a list such as `0-3,7`; empty for none.
    ///   - flags: names with `MPOL_F_`.
    /// - Throws: `ProcessAttributeError` for unknown names, and for nodes where the mode wants none or the other way
    ///   round.
    package init(mode: String, nodes: String = "", flags: [String] = []) throws(ProcessAttributeError) {
        guard let known = Mode(rawValue: mode) else {
            let names = Mode.allCases.map(\.rawValue).joined(separator: ", ")
            throw ProcessAttributeError("mode", "'\(mode)' is none of \(names)")
        }
        self.mode = known
        self.flags = try Self.flagTable.value(of: flags)
        let both = CK_MPOL_F_RELATIVE_NODES | CK_MPOL_F_STATIC_NODES
        guard self.flags & both != both else {
            throw ProcessAttributeError("flags", "nodes are either relative or static")
        }
        if nodes.isEmpty {
            self.nodes = NumberSet()
        } else {
            do throws(NumberSetError) {
                self.nodes = try NumberSet(list: nodes, below: Self.bound)
            } catch {
                throw ProcessAttributeError("nodes", error.description)
            }
        }
        switch known {
        case .standard, .local:
            guard self.nodes.words.isEmpty else { throw ProcessAttributeError("nodes", "\(mode) takes none") }
        case .bind, .interleave, .weightedInterleave, .preferredMany:
            guard !self.nodes.words.isEmpty else { throw ProcessAttributeError("nodes", "\(mode) needs at least one") }
        case .preferred: break
        }
    }

    /// Applies it to the calling thread, whose children and programs inherit it.
    ///
    /// - Throws: `KernelError`: EINVAL for a mode or flag that the kernel does not have, and when none of the nodes has
    ///   memory and is in the process's cpuset.
    package func apply() throws(KernelError) {
        let words = nodes.words
        let bits = words.isEmpty ? 0 : words.count * 64 + 1
        do throws(KernelError) {
            try systemCall("set_mempolicy", mode.rawValue) {
                words.withUnsafeBufferPointer {
                    ck_set_mempolicy(Int32(mode.number | flags), $0.baseAddress, UInt(bits))
                }
            }
        } catch {
            let hint =
                error.errno == EINVAL
                ? "the nodes must have memory and be in the process's cpuset, and the kernel must know mode and flags"
                : ""
            throw KernelError(error.operation, error.subject, errno: error.errno, hint: hint)
        }
    }
}
