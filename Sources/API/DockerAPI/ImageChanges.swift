import JSON
import Model
import Wire

/// The instructions of a Dockerfile that change an image's configuration: `--change` of import and commit.
enum ImageChanges {
    /// Lines of all instructions, and bytes of one.
    private static let most = 1000
    private static let longest = 64 << 10

    /// - Throws: `DockerError` 400 that names the instruction.
    static func apply(_ changes: [String], to config: inout ImageImportConfig) throws {
        let lines = changes.flatMap { $0.split(whereSeparator: \.isNewline) }.map { trimmed($0) }
            .filter { !$0.isEmpty && !$0.hasPrefix("#") }
        guard lines.count <= most, lines.allSatisfy({ $0.utf8.count <= longest }) else {
            throw DockerError.badRequest("changes are more than \(most) lines, or one is longer than \(longest) bytes")
        }
        for line in lines { try apply(line, to: &config) }
    }

    private static func apply(_ line: String, to config: inout ImageImportConfig) throws {
        let word = String(line.prefix { !$0.isWhitespace })
        let rest = trimmed(line.dropFirst(word.count))
        let name = word.uppercased()
        guard !rest.isEmpty else { throw DockerError.badRequest("\(name) in changes says nothing") }
        switch name {
        case "CMD": config.command = try command(rest, name, config)
        case "ENTRYPOINT": config.entrypoint = try command(rest, name, config)
        case "SHELL":
            guard let list = try list(rest), !list.isEmpty else {
                throw DockerError.badRequest("SHELL in changes takes a list in JSON")
            }
            config.shell = list
        case "ENV":
            var environment = config.environment ?? []
            for (key, value) in try pairs(rest, name) {
                environment.removeAll { $0.hasPrefix("\(key)=") }
                environment.append("\(key)=\(value)")
            }
            config.environment = environment
        case "LABEL":
            var labels = config.labels ?? [:]
            for (key, value) in try pairs(rest, name) { labels[key] = value }
            config.labels = labels
        case "EXPOSE":
            let ports = try words(rest).map { $0.contains("/") ? $0 : "\($0)/tcp" }
            config.exposedPorts = (config.exposedPorts ?? []) + ports
        case "USER": config.user = try only(rest, name)
        case "WORKDIR":
            let path = try only(rest, name)
            let base = config.workingDirectory ?? "/"
            config.workingDirectory =
                path.hasPrefix("/") ? path : (base.hasSuffix("/") ? base : base + "/") + path
        case "STOPSIGNAL": config.stopSignal = try only(rest, name)
        case "VOLUME": config.volumes = (config.volumes ?? []) + (try list(rest) ?? words(rest))
        case "ONBUILD": config.onBuild = (config.onBuild ?? []) + [rest]
        case "HEALTHCHECK": config.healthCheck = try healthCheck(rest, config)
        default:
            throw DockerError.badRequest("'\(word.prefix(40))' is not an instruction that changes an image here")
        }
    }

    /// A list in JSON, or a text for the shell.
    private static func command(_ text: String, _ name: String, _ config: ImageImportConfig) throws -> [String] {
        try list(text) ?? (config.shell ?? ["/bin/sh", "-c"]) + [text]
    }

    private static func list(_ text: String) throws -> [String]? {
        guard text.hasPrefix("["), let value = try? JSONValue.parse(text), let elements = value.arrayValue else {
            return nil
        }
        let words = elements.compactMap(\.stringValue)
        guard words.count == elements.count else {
            throw DockerError.badRequest("the list '\(text.prefix(80))' in changes has something else than texts in it")
        }
        return words
    }

    private static func only(_ text: String, _ name: String) throws -> String {
        let words = try words(text)
        guard words.count == 1 else { throw DockerError.badRequest("\(name) in changes takes one word") }
        return words[0]
    }

    /// `key=value …`, or `key value` with all of the rest.
    private static func pairs(_ text: String, _ name: String) throws -> [(String, String)] {
        let words = try words(text)
        if let first = words.first, !first.contains("=") {
            let key = String(text.prefix { !$0.isWhitespace })
            guard words.count > 1 else { throw DockerError.badRequest("\(name) in changes needs a value for \(key)") }
            return [(key, trimmed(text.dropFirst(key.count)))]
        }
        return try words.map { word in
            guard let equals = word.firstIndex(of: "="), equals != word.startIndex else {
                throw DockerError.badRequest("'\(word.prefix(80))' of \(name) in changes is not key=value")
            }
            return (String(word[..<equals]), String(word[word.index(after: equals)...]))
        }
    }

    /// Words between blanks; quotes hold blanks together, a backslash takes the next character as it is.
    private static func words(_ text: String) throws -> [String] {
        var words: [String] = []
        var word: String?
        var quote: Character?
        var characters = text[...]
        while let character = characters.popFirst() {
            if character == "\\", quote != "'", let next = characters.popFirst() {
                word = (word ?? "") + String(next)
            } else if character == quote {
                quote = nil
            } else if quote == nil, character == "\"" || character == "'" {
                quote = character
                word = word ?? ""
            } else if quote == nil, character.isWhitespace {
                if let word { words.append(word) }
                word = nil
            } else {
                word = (word ?? "") + String(character)
            }
        }
        guard quote == nil else {
            throw DockerError.badRequest("a quote in '\(text.prefix(80))' of changes stays open")
        }
        return words + (word.map { [$0] } ?? [])
    }

    private static func healthCheck(_ text: String, _ config: ImageImportConfig) throws -> ImageHealthCheck {
        if text.uppercased() == "NONE" { return ImageHealthCheck(test: ["NONE"]) }
        var check = ImageHealthCheck(test: [])
        var rest = text
        while rest.hasPrefix("--") {
            let option = String(rest.prefix { !$0.isWhitespace })
            rest = trimmed(rest.dropFirst(option.count))
            let pair = option.dropFirst(2).split(separator: "=", maxSplits: 1).map(String.init)
            guard pair.count == 2 else { throw DockerError.badRequest("'\(option)' of HEALTHCHECK has no value") }
            switch pair[0] {
            case "interval": check.interval = try duration(pair[1])
            case "timeout": check.timeout = try duration(pair[1])
            case "start-period": check.startPeriod = try duration(pair[1])
            case "start-interval": check.startInterval = try duration(pair[1])
            case "retries":
                guard let count = Int64(pair[1]), count >= 0 else {
                    throw DockerError.badRequest("'\(option)' of HEALTHCHECK is no number")
                }
                check.retries = count
            default: throw DockerError.badRequest("'--\(pair[0].prefix(40))' is no option of HEALTHCHECK")
            }
        }
        guard rest.uppercased().hasPrefix("CMD") else {
            throw DockerError.badRequest("HEALTHCHECK in changes is NONE, or CMD and a command")
        }
        let command = trimmed(rest.dropFirst(3))
        guard !command.isEmpty else { throw DockerError.badRequest("CMD of HEALTHCHECK in changes says nothing") }
        check.test = try list(command).map { ["CMD"] + $0 } ?? ["CMD-SHELL", command]
        return check
    }

    private static func duration(_ text: String) throws -> Int64 {
        guard let span = DockerTime.span(text) else {
            throw DockerError.badRequest(
                "'\(text.prefix(40))' of HEALTHCHECK in changes is no span of time: write one as 30s or 1m30s")
        }
        return span
    }

    private static func trimmed(_ text: some StringProtocol) -> String {
        var text = String(text)[...]
        while text.first?.isWhitespace ?? false { text.removeFirst() }
        while text.last?.isWhitespace ?? false { text.removeLast() }
        return String(text)
    }
}
