/// Why a property of a process is not acceptable: which part of it, and what is wrong.
package struct ProcessAttributeError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The part's name in the OCI runtime specification: `priority`, `flags[1]`.
    package let field: String
    /// The sentence's end.
    package let reason: String

    package init(_ field: String, _ reason: String) {
        self.field = field
        self.reason = reason
    }

    package var description: String { "\(field): \(reason)" }
}

/// Names of flags and their bits.
struct FlagTable {
    let bits: [(name: String, bit: Int)]

    /// The bits of all names.
    ///
    /// - Throws: `ProcessAttributeError` for the first name that is not in the table.
    func value(of names: [String]) throws(ProcessAttributeError) -> Int {
        var result = 0
        for (index, name) in names.enumerated() {
            guard let entry = bits.first(where: { $0.name == name }) else {
                let known = bits.map(\.name).joined(separator: ", ")
                throw ProcessAttributeError("flags[\(index)]", "'\(name)' is none of \(known)")
            }
            result |= entry.bit
        }
        return result
    }
}
