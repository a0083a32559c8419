import Glibc
import Kernel

/// The machine's packet filter, through the same iptables program that the plugins use, so that both see one rule set
/// whichever kernel interface is behind it.
struct PacketFilter: Sendable {
    /// One line of `iptables -S`, taken apart.
    struct Rule: Equatable, Sendable {
        let table: String
        let chain: String
        /// All words after the chain.
        let words: [String]

        var comment: String? { value(after: "--comment") }
        var target: String? { value(after: "-j") }

        private func value(after word: String) -> String? {
            guard let index = words.firstIndex(of: word), index + 1 < words.count else { return nil }
            return words[index + 1]
        }
    }

    private let path: String

    /// - Throws: `NetworkError` when iptables is not installed.
    init(isV6: Bool = false) throws(NetworkError) {
        let program = isV6 ? "ip6tables" : "iptables"
        let candidates = CNIHost.searchPath.split(separator: ":").map { "\($0)/\(program)" }
        guard let path = candidates.first(where: { access($0, X_OK) == 0 }) else {
            throw NetworkError(.missingProgram, "\(program) is not installed; install Debian's package iptables")
        }
        self.path = path
    }

    /// Inserts a rule in front of its chain unless it is there.
    func ensure(_ rule: Rule) throws(NetworkError) {
        if try run(["-t", rule.table, "-C", rule.chain] + rule.words).status == .exited(0) { return }
        try insert(rule)
    }

    /// Inserts a rule in front of its chain.
    func insert(_ rule: Rule) throws(NetworkError) {
        try require(["-t", rule.table, "-I", rule.chain] + rule.words)
    }

    /// Removes a rule as often as it is there.
    func remove(_ rule: Rule) throws(NetworkError) {
        // Bounded, in case that something keeps adding it.
        for _ in 0..<100 {
            guard try run(["-t", rule.table, "-D", rule.chain] + rule.words).status == .exited(0) else { return }
        }
    }

    /// Empties and deletes a chain; one that is not there, or is still used, stays without error.
    func removeChain(_ chain: String, table: String) throws(NetworkError) {
        guard try run(["-t", table, "-F", chain]).status == .exited(0) else { return }
        _ = try run(["-t", table, "-X", chain])
    }

    /// All rules of a table; none when the kernel has no such table.
    func rules(table: String) throws(NetworkError) -> [Rule] {
        let result = try run(["-t", table, "-S"])
        guard result.status == .exited(0) else { return [] }
        return Self.parse(String(decoding: result.output, as: UTF8.self), table: table)
    }

    static func parse(_ text: String, table: String) -> [Rule] {
        text.split(separator: "\n").compactMap { line in
            let words = words(String(line))
            guard words.count > 2, words[0] == "-A" else { return nil }
            return Rule(table: table, chain: words[1], words: Array(words[2...]))
        }
    }

    /// Splits at blanks; between quotation marks a backslash takes the next character as it is.
    static func words(_ line: String) -> [String] {
        var words: [String] = []
        var word = ""
        var (started, quoted, escaped) = (false, false, false)
        for character in line {
            if escaped {
                word.append(character)
                escaped = false
            } else if character == "\\" {
                escaped = true
            } else if character == "\"" {
                quoted.toggle()
                started = true
            } else if character == " " && !quoted {
                if started || !word.isEmpty { words.append(word) }
                (word, started) = ("", false)
            } else {
                word.append(character)
            }
        }
        if started || !word.isEmpty { words.append(word) }
        return words
    }

    private func run(_ arguments: [String]) throws(NetworkError) -> ProgramResult {
        do throws(ProgramError) {
            return try Program(
                path, ["-w", "10"] + arguments, environment: ["PATH=\(CNIHost.searchPath)"], outputLimit: 64 << 20
            ).run()
        } catch {
            throw NetworkError(.failed, error.description)
        }
    }

    private func require(_ arguments: [String]) throws(NetworkError) {
        let result = try run(arguments)
        guard result.status == .exited(0) else {
            throw NetworkError(
                .failed, "\(path) \(arguments.joined(separator: " ")) was refused: \(result.errorText)")
        }
    }
}

// MARK: - What the plugins leave

extension PacketFilter {
    /// The container that a plugin made a rule for, if it was in `network`: plugins say it in a comment.
    static func container(of rule: Rule, network: String) -> String? {
        let mark = "name: \"\(network)\" id: \""
        guard let comment = rule.comment, let start = comment.range(of: mark) else { return nil }
        return String(comment[start...].prefix { $0 != "\"" })
    }

    /// Removes the address translation that plugins made for containers of `network` whose id `isLeft` accepts: needed
    /// where a plugin's DEL no longer knows what its ADD did.
    func removePluginRules(network: String, isLeft: (String) -> Bool) throws(NetworkError) {
        for rule in try rules(table: "nat") {
            guard let container = Self.container(of: rule, network: network), isLeft(container),
                let target = rule.target, target.hasPrefix("CNI-"), !target.hasPrefix("CNI-HOSTPORT")
            else { continue }
            try remove(rule)
            try removeChain(target, table: "nat")
        }
    }

    /// Removes the chains that the portmap plugin shares among all containers, when no container of any network has
    /// entries in them any more.
    func removeUnusedPortmapChains() throws(NetworkError) {
        let rules = try rules(table: "nat")
        if rules.contains(where: { $0.chain == "CNI-HOSTPORT-DNAT" }) { return }
        let shared = ["CNI-HOSTPORT-DNAT", "CNI-HOSTPORT-MASQ", "CNI-HOSTPORT-SETMARK"]
        for rule in rules where rule.target.map({ shared.contains($0) }) == true { try remove(rule) }
        for chain in shared { try removeChain(chain, table: "nat") }
    }
}

extension StringProtocol {
    /// The end of the first occurrence of `text`, without Foundation.
    fileprivate func range(of text: String) -> Index? {
        var index = startIndex
        while index < endIndex {
            if self[index...].hasPrefix(text) { return self.index(index, offsetBy: text.count) }
            formIndex(after: &index)
        }
        return nil
    }
}
