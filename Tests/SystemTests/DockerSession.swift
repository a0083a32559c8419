import Kernel
import Testing

/// A session of docker commands, from `docker/NAME.session`: each runs against dockerd and against Martlet, and what comes
/// back is compared.
///
/// Lines are `KIND [CONDITIONS] $ COMMAND`, where the kind says what is compared beside the exit code and the kind of the
/// error; a `\` at the end goes on in the next line. `ignore REASON PATH` names a part of JSON answers that differs.
struct DockerSession: Sendable {
    /// What of standard output is compared.
    enum Kind: String, Sendable {
        /// Its text, without what differs from run to run.
        case text
        /// The same, whatever the order of its lines.
        case sorted
        /// Its first line, and how many there are.
        case table
        /// Members and types of its JSON values.
        case json
        /// Nothing.
        case code
        /// Nothing, and it has to succeed.
        case setup
    }

    struct Step: Sendable {
        let kind: Kind
        let command: String
        /// The known difference, by its name in docs/docker-api.md.
        let difference: String?
        /// Major versions of the command line that it is for.
        let versions: ClosedRange<Int>
        /// What the reference ends with, where a session says so.
        let exit: Int32
        /// What has to be there for the step to be tried.
        let needs: [String]
        let line: Int
    }

    struct Ignored: Sendable {
        let difference: String
        /// Names with dots between them; `*` is any, an element of an array included.
        let path: [String]
    }

    let name: String
    let steps: [Step]
    let ignored: [Ignored]

    static let folder =
        #filePath.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/") + "/docker"

    init(_ name: String, in folder: String = DockerSession.folder) throws {
        self.name = name
        var steps: [Step] = []
        var ignored: [Ignored] = []
        var pending = ""
        let text = String(decoding: try File.read("\(folder)/\(name).session"), as: UTF8.self)
        for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            if pending.isEmpty, line.isEmpty || line.hasPrefix("#") { continue }
            if line.hasSuffix("\\") {
                pending += line.dropLast()
                continue
            }
            let whole = pending + line
            pending = ""
            if whole.hasPrefix("ignore ") {
                let words = whole.split(separator: " ").map(String.init)
                try #require(words.count == 3, "\(name).session:\(index + 1): ignore REASON PATH")
                ignored.append(Ignored(difference: words[1], path: words[2].split(separator: ".").map(String.init)))
            } else {
                steps.append(try Self.step(whole, line: index + 1, of: name))
            }
        }
        self.steps = steps
        self.ignored = ignored
    }

    private static func step(_ line: String, line number: Int, of name: String) throws -> Step {
        let parts = line.split(separator: "$", maxSplits: 1).map(String.init)
        try #require(parts.count == 2, "\(name).session:\(number): KIND [CONDITION] $ COMMAND")
        var words = parts[0].split(whereSeparator: { " []".contains($0) }).map(String.init)
        let kind = try #require(
            Kind(rawValue: words.isEmpty ? "text" : words.removeFirst()), "\(name).session:\(number): no such kind")
        var difference: String?
        var versions = 0...Int.max
        var exit: Int32 = 0
        var needs: [String] = []
        for word in words {
            if word.hasPrefix("exit:"), let code = Int32(word.dropFirst("exit:".count)) {
                exit = code
            } else if word.hasPrefix("needs:") {
                needs.append(String(word.dropFirst("needs:".count)))
            } else if word.hasPrefix("differs:") {
                difference = String(word.dropFirst("differs:".count))
            } else if word.hasPrefix("cli>="), let version = Int(word.dropFirst(5)) {
                versions = version...Int.max
            } else if word.hasPrefix("cli<"), let version = Int(word.dropFirst(4)) {
                versions = 0...(version - 1)
            } else {
                Issue.record("\(name).session:\(number): what is '\(word)'?")
            }
        }
        return Step(
            kind: kind, command: parts[1].trimmingSpaces, difference: difference, versions: versions, exit: exit,
            needs: needs, line: number)
    }
}

extension String {
    var trimmingSpaces: String {
        let front = drop { $0 == " " }
        guard let last = front.lastIndex(where: { $0 != " " }) else { return "" }
        return String(front[...last])
    }
}
