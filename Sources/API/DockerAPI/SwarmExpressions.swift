import JSON
import Model

/// Swarm classic's way to say where a container is to run: variables such as `constraint:zone==b`, which are cut out of
/// the environment and kept as JSON lists in labels, and the same labels given directly.
struct SwarmExpressions: Sendable, Equatable {
    var constraints: [Constraint] = []
    var affinities: [Constraint] = []
    /// Whether it is replaced when its node is lost; nil: nothing was said.
    var reschedules: Bool?

    /// The variables' prefixes, each with the label in which its expressions are kept.
    private enum Kind: String, CaseIterable {
        case constraint
        case affinity
        case reschedule
        case whitelist

        var label: String {
            switch self {
            case .constraint: "com.docker.swarm.constraints"
            case .affinity: "com.docker.swarm.affinities"
            case .reschedule: "com.docker.swarm.reschedule-policies"
            case .whitelist: "com.docker.swarm.whitelists"
            }
        }
    }

    private static let mostExpressions = 64

    /// Takes the expressions out of an environment and notes them in the labels.
    ///
    /// - Throws: `DockerError` 400 for what is no expression.
    static func take(
        from environment: inout [String], labels: inout [String: String]
    ) throws -> SwarmExpressions {
        var expressions = SwarmExpressions()
        for kind in Kind.allCases {
            let prefix = kind.rawValue + ":"
            var texts = try labels[kind.label].map { try list($0, label: kind.label) } ?? []
            for variable in environment where variable.hasPrefix(prefix) {
                let text = String(variable.dropFirst(prefix.count))
                if !texts.contains(text) { texts.append(text) }
            }
            environment.removeAll { $0.hasPrefix(prefix) }
            guard !texts.isEmpty else { continue }
            guard texts.count <= mostExpressions else {
                throw DockerError.badRequest(
                    "\(texts.count) \(kind.rawValue) expressions are more than the \(mostExpressions) allowed")
            }
            try expressions.add(texts, kind)
            labels[kind.label] = String(
                decoding: JSONValue.array(texts.map { .string($0) }).serialized(), as: UTF8.self)
        }
        return expressions
    }

    private static func list(_ text: String, label: String) throws -> [String] {
        do {
            return try JSONReader(try JSONValue.parse(text, limits: JSONLimits(bytes: 64 << 10, depth: 2))).strings()
        } catch {
            throw DockerError.badRequest("the label \(label) is no JSON list of texts: \(error)")
        }
    }

    private mutating func add(_ texts: [String], _ kind: Kind) throws {
        switch kind {
        case .constraint: constraints += try texts.map { try Self.expression($0, kind) }
        case .affinity: affinities += try texts.map { try Self.expression($0, kind) }
        case .whitelist: constraints += try texts.map { try Self.whitelist($0) }
        case .reschedule:
            guard texts.count == 1 else {
                throw DockerError.badRequest(
                    "too many reschedule policies: \(texts.joined(separator: ", ")) exclude each other")
            }
            switch texts[0] {
            case "on-node-failure": reschedules = true
            case "off": reschedules = false
            default:
                throw DockerError.badRequest(
                    "there is no reschedule policy \(Admission.quoted(texts[0])): write off or on-node-failure")
            }
        }
    }

    private static func expression(_ text: String, _ kind: Kind) throws -> Constraint {
        let title = "the \(kind.rawValue) expression \(Admission.quoted(text))"
        guard let constraint = Constraint(text), !constraint.value.isEmpty else {
            throw DockerError.badRequest("\(title) is none: write key==value or key!=value, with ~ before a soft value")
        }
        let isKey = constraint.label.utf8.allSatisfy { Admission.isAlphanumeric($0) || "_-./".utf8.contains($0) }
        guard isKey else {
            throw DockerError.badRequest("\(title) has a key that is none: write letters, digits, '_', '-', '.' or '/'")
        }
        do {
            _ = try Pattern(constraint.value)
        } catch {
            throw DockerError.badRequest("\(title) has a value that is no regular expression: \(error)")
        }
        return constraint
    }

    /// `node==a|b`: the nodes that are allowed, by name or id.
    private static func whitelist(_ text: String) throws -> Constraint {
        var constraint = try expression(text, .whitelist)
        guard constraint.label == "node" else {
            throw DockerError.badRequest(
                "the whitelist expression \(Admission.quoted(text)) is none: write node==one|other")
        }
        let names = constraint.value.split(separator: "|").map { name in
            name.map { character in
                let isPlain = character.utf8.allSatisfy { Admission.isAlphanumeric($0) || "_-".utf8.contains($0) }
                return isPlain ? String(character) : character == "*" ? ".*" : "\\\(character)"
            }.joined()
        }
        constraint.value = "/^(\(names.joined(separator: "|")))$/"
        return constraint
    }
}
