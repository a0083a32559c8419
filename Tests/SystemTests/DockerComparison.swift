import JSON

/// What a command of a session left behind.
struct DockerOutcome: Sendable {
    let code: Int32
    let output: String
    let errors: String
}

/// What is the same in two runs of the same command, and what is not.
struct DockerComparison {
    let kind: DockerSession.Kind
    let ignored: [DockerSession.Ignored]

    /// One line each; empty: they are the same.
    func differences(_ reference: DockerOutcome, _ ours: DockerOutcome) -> [String] {
        var found: [String] = []
        if reference.code != ours.code { found.append("exit code \(reference.code) there, \(ours.code) here") }
        if kind == .setup { return found }
        let errors = (Self.errorClass(reference.errors), Self.errorClass(ours.errors))
        if errors.0 != errors.1 { found.append("error '\(errors.0)' there, '\(errors.1)' here") }
        switch kind {
        case .code, .setup: break
        case .text:
            found += Self.lineDifferences(Self.normal(reference.output), Self.normal(ours.output))
        case .sorted:
            found += Self.lineDifferences(Self.normal(reference.output).sorted(), Self.normal(ours.output).sorted())
        case .table:
            let (there, here) = (Self.normal(reference.output), Self.normal(ours.output))
            if there.first != here.first {
                found.append("head '\(there.first ?? "")' there, '\(here.first ?? "")' here")
            }
            if there.count != here.count { found.append("\(there.count) lines there, \(here.count) here") }
        case .json:
            do {
                let (there, here) = (try Self.values(reference.output), try Self.values(ours.output))
                if there.count != here.count { found.append("\(there.count) values there, \(here.count) here") }
                for (there, here) in zip(there, here) { found += shapeDifferences(there, here, []) }
            } catch {
                found.append("no JSON: \(error)")
            }
        }
        return found
    }

    // MARK: Text

    /// What differs from run to run is replaced by what it is.
    static func normal(_ text: String) -> [String] {
        text.split(whereSeparator: \.isNewline).map { line in
            var line = line.replacing("\t", with: "  ")
                .replacing(/sha256:[0-9a-f]{12,64}/, with: "sha256:ID")
                .replacing(/\b[0-9a-f]{64}\b/, with: "ID")
                .replacing(/\b[0-9a-f]{12}\b/, with: "ID")
                .replacing(
                    /\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( ?(Z|[+-]\d\d:?\d\d))?( UTC)?/, with: "TIME"
                )
                .replacing(/(About an?|Less than a|\d+) (second|minute|hour|day|week|month|year)s?/, with: "SPAN")
                .replacing(/\b\d+(\.\d+)?(e-?\d+)?(B|kB|MB|GB|KiB|MiB|GiB)\b/, with: "SIZE")
                .replacing(/\b\d+\.\d+%/, with: "N%")
                .replacing(/\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b/, with: "MAC")
                .replacing(/\b(?!0\.0\.0\.0|127\.0\.0\.1)\d{1,3}(\.\d{1,3}){3}\b/, with: "IP")
                .replacing(/:(3\d{4}|[45]\d{4}|6[0-5]\d{3})\b/, with: ":PORT")
                .replacing(/\ {2,}/, with: "  ")
            while line.last == " " { line.removeLast() }
            return String(line)
        }
    }

    /// The first lines that differ.
    private static func lineDifferences(_ there: [String], _ here: [String]) -> [String] {
        var found: [String] = []
        for index in 0..<max(there.count, here.count) {
            let (left, right) = (
                index < there.count ? there[index] : "(none)", index < here.count ? here[index] : "(none)"
            )
            if left != right { found.append("'\(left)' there, '\(right)' here") }
        }
        return Array(found.prefix(6))
    }

    /// Who refused and, where that is the client, in which words. Warnings are not of interest.
    static func errorClass(_ errors: String) -> String {
        let lines = errors.split(whereSeparator: \.isNewline).filter {
            !["WARNING", "DEPRECATED", "time="].contains(where: $0.hasPrefix)
        }
        guard let first = lines.first(where: { !$0.allSatisfy(\.isWhitespace) }) else { return "" }
        if first.contains("Error response from daemon: ") { return "from the daemon" }
        // The client's own words, or what it copies of an answer with 404.
        return normal(String(first)).first ?? ""
    }

    // MARK: JSON

    /// The values of a text that has one after another, on lines of their own or over several lines.
    private static func values(_ text: String) throws -> [JSONValue] {
        if let whole = try? JSONValue.parse(Array(text.utf8)) { return [whole] }
        return try text.split(separator: "\n").map { try JSONValue.parse(String($0)) }
    }

    private func shapeDifferences(_ there: JSONValue, _ here: JSONValue, _ path: [String]) -> [String] {
        if ignored.contains(where: { $0.covers(path) }) { return [] }
        let place = path.isEmpty ? "the value" : path.joined(separator: ".")
        switch (there, here) {
        // What is empty is null or an empty list or map, as it happens.
        case (.null, _), (_, .null): return []
        case (.object(let left), .object(let right)):
            var found: [String] = []
            for key in left.keys where right[key] == nil && !isIgnored(path + [key]) {
                found.append("\((path + [key]).joined(separator: ".")) is missing here")
            }
            for key in right.keys where left[key] == nil && !isIgnored(path + [key]) {
                found.append("\((path + [key]).joined(separator: ".")) is only here")
            }
            for key in left.keys {
                if let one = left[key], let other = right[key] {
                    found += shapeDifferences(one, other, path + [key])
                }
            }
            return found
        case (.array(let left), .array(let right)):
            if left.isEmpty != right.isEmpty { return ["\(place) has \(left.count) there, \(right.count) here"] }
            // Elements are alike: the first stand for all.
            guard let one = left.first, let other = right.first else { return [] }
            return shapeDifferences(one, other, path + ["*"])
        case (.integer, .integer), (.unsigned, .integer), (.integer, .unsigned), (.unsigned, .unsigned),
            (.double, .integer), (.integer, .double), (.double, .double):
            return []
        default:
            return there.typeName == here.typeName
                ? [] : ["\(place) is \(there.typeName) there, \(here.typeName) here"]
        }
    }

    private func isIgnored(_ path: [String]) -> Bool { ignored.contains { $0.covers(path) } }
}

extension DockerSession.Ignored {
    /// Whether it is the named part or lies in it; elements of the outermost array are meant without saying so.
    func covers(_ place: [String]) -> Bool {
        let place = place.first == "*" ? place.dropFirst() : place[...]
        guard place.count >= path.count else { return false }
        return zip(path, place).allSatisfy { $0 == "*" || $0 == $1 }
    }
}
