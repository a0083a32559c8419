/// One flag of a verb.
struct Flag: Sendable {
    /// The long name first.
    let names: [String]
    /// What the value is called in the help text; nil for a flag without one.
    let value: String?
    let help: String

    init(_ names: String..., value: String? = nil, help: String) {
        self.names = names
        self.value = value
        self.help = help
    }

    var helpLine: String {
        let spelled = names.map { $0.utf8.count == 1 ? "-\($0)" : "--\($0)" }.joined(separator: ", ")
        let left = "   " + spelled + (value.map { " \($0)" } ?? "")
        return left + String(repeating: " ", count: max(2, 36 - left.count)) + help
    }
}

/// A parsed command line of one verb: flags first, up to the first word that is none, as runc reads it.
///
/// `--flag value`, `--flag=value`, `-f value`; one dash or two; `--flag=false`; one-letter flags without a value may be
/// written together (`-it`).
struct Arguments {
    // Searched from the front: a set's or a dictionary's first use makes its type at run time, which takes longer than
    // the few comparisons.
    private var switches: [String] = []
    private var values: [(name: String, value: String)] = []
    /// What follows the flags.
    private(set) var positional: [String] = []

    init(_ arguments: ArraySlice<String>, flags: [Flag]) throws {
        var rest = arguments
        while let word = rest.first {
            guard word.hasPrefix("-"), word != "-" else { break }
            rest.removeFirst()
            if word == "--" { break }
            var name = word.drop { $0 == "-" }
            var attached: String?
            if let equals = name.firstIndex(of: "=") {
                attached = String(name[name.index(after: equals)...])
                name = name[..<equals]
            }
            if attached == nil, !word.hasPrefix("--"), name.count > 1, takeLetters(name, flags) { continue }
            guard let flag = flags.first(where: { $0.names.contains(String(name)) }) else {
                throw UsageError("flag provided but not defined: \(word)")
            }
            if flag.value == nil {
                try setSwitch(flag, attached, word)
            } else if let value = attached ?? rest.popFirst() {
                values.append((flag.names[0], value))
            } else {
                throw UsageError("flag needs an argument: \(word)")
            }
        }
        positional = Array(rest)
    }

    private mutating func setSwitch(_ flag: Flag, _ attached: String?, _ word: String) throws {
        switch attached {
        case nil, "true", "1": switches.append(flag.names[0])
        case "false", "0": switches.removeAll { $0 == flag.names[0] }
        default: throw UsageError("invalid boolean value in \(word)")
        }
    }

    /// `-it`: every letter is a flag without a value.
    private mutating func takeLetters(_ letters: Substring, _ flags: [Flag]) -> Bool {
        if flags.contains(where: { $0.names.contains(String(letters)) }) { return false }
        var found: [String] = []
        for letter in letters {
            guard let flag = flags.first(where: { $0.value == nil && $0.names.contains(String(letter)) }) else {
                return false
            }
            found.append(flag.names[0])
        }
        switches += found
        return true
    }

    /// Whether a flag without value was given.
    func has(_ name: String) -> Bool { switches.contains(name) }

    /// The last value of a flag.
    func value(_ name: String) -> String? { values.last { $0.name == name }?.value }

    /// All values of a flag, in order.
    func all(_ name: String) -> [String] { values.filter { $0.name == name }.map(\.value) }

    /// Throws unless there are as many positional arguments as said.
    func require(_ verb: String, atLeast minimum: Int, atMost maximum: Int) throws {
        if positional.count < minimum {
            throw UsageError(
                "\(verb): needs a container id" + (minimum > 1 ? " and more" : "")
                    + "; see 'martlet-runtime \(verb) --help'")
        }
        if positional.count > maximum {
            throw UsageError("\(verb): unexpected argument '\(positional[maximum])'; flags come before the id")
        }
    }
}
