import JSON

/// What a plugin prints when it fails (CNI specification, "Error").
package struct CNIError: Error, Sendable, Equatable, CustomStringConvertible {
    /// Codes up to 99 are the specification's, higher ones the plugin's.
    package let code: UInt32
    package let message: String
    package let details: String

    /// 1: the version of the configuration is not spoken, or has no such verb.
    package static let incompatibleVersion: UInt32 = 1
    /// 2: a field of the network configuration is not supported; the message has its name and value.
    package static let unsupportedField: UInt32 = 2
    /// 3: the container is not known, so that nothing of it needs to be taken away.
    package static let unknownContainer: UInt32 = 3
    /// 4: necessary environment variables are invalid.
    package static let invalidEnvironment: UInt32 = 4
    /// 5: reading or writing failed.
    package static let failedIO: UInt32 = 5
    /// 6: what was to be read is not JSON.
    package static let failedDecoding: UInt32 = 6
    /// 7: the network configuration is invalid.
    package static let invalidConfiguration: UInt32 = 7
    /// 11: try again later.
    package static let tryAgainLater: UInt32 = 11
    /// 50 (STATUS): no ADD can be served now.
    package static let notAvailable: UInt32 = 50

    /// 51 (STATUS): the same, and containers that are attached may have lost connections.
    package static let notAvailableAndLimited: UInt32 = 51

    package init(code: UInt32, message: String, details: String = "") {
        self.code = code
        self.message = message
        self.details = details
    }

    /// Reads an error; message and details are cut to 1000 characters, and control characters become spaces.
    package init(_ reader: JSONReader) throws(JSONError) {
        code = try reader.integer("code")
        message = Self.line(try reader.optionalString("msg") ?? "")
        details = Self.line(try reader.optionalString("details") ?? "")
    }

    private static func line(_ text: String) -> String {
        CNIText.line(text)
    }

    /// What the specification says that the code means; nil for the plugins' own and those that are not assigned.
    package var meaning: String? {
        switch code {
        case Self.incompatibleVersion: "it does not speak the list's version of CNI"
        case Self.unsupportedField: "it does not know a field of its configuration"
        case Self.unknownContainer: "it does not know the container"
        case Self.invalidEnvironment: "it was called with words that it does not take"
        case Self.failedIO: "it could not read or write"
        case Self.failedDecoding: "it could not read its configuration as JSON"
        case Self.invalidConfiguration: "its configuration is invalid"
        case Self.tryAgainLater: "it may work later"
        case Self.notAvailable: "it cannot attach anybody now"
        case Self.notAvailableAndLimited: "it cannot attach anybody now, and who is attached may have lost connections"
        default: nil
        }
    }

    /// Message, details and the code with its meaning.
    package var sentence: String {
        let text = [message, details].filter { !$0.isEmpty }.joined(separator: ": ")
        let code = "code \(code)\(meaning.map { ": \($0)" } ?? "")"
        return "\(text.isEmpty ? "no message" : text) (\(code))"
    }

    package func json(version: CNIVersion) -> JSONValue {
        var object: JSONObject = [
            "cniVersion": .string(version.rawValue), "code": JSONValue(UInt64(code)), "msg": .string(message),
        ]
        if !details.isEmpty { object["details"] = .string(details) }
        return .object(object)
    }

    package var description: String {
        "\(message.isEmpty ? "no message" : message)\(details.isEmpty ? "" : ": \(details)") (code \(code))"
    }
}

/// What a plugin answers to VERSION.
package struct VersionReply: Sendable, Equatable {
    /// All versions it names, also those that are not known here.
    package let supported: [String]

    package init(supported: [String]) { self.supported = supported }

    /// Reads an answer of at most 64 versions.
    package init(_ reader: JSONReader) throws(JSONError) {
        supported = try reader.elements("supportedVersions", atMost: 64).map { element throws(JSONError) in
            try element.string()
        }
    }

    package func json(version: CNIVersion) -> JSONValue {
        [
            "cniVersion": .string(version.rawValue),
            "supportedVersions": .array(supported.map { .string($0) }),
        ]
    }

    package func supports(_ version: CNIVersion) -> Bool { supported.contains(version.rawValue) }
}

/// Reading what a plugin printed.
package enum PluginAnswer {
    /// The JSON object in a plugin's output, of at most `CNILimits.bytes`.
    package static func object(_ bytes: [UInt8]) throws(JSONError) -> JSONReader {
        let reader = JSONReader(try JSONValue.parse(bytes, limits: CNILimits.json))
        _ = try reader.members()
        return reader
    }
}

/// Words of plugins in our messages.
package enum CNIText {
    /// One line of at most 1000 characters; control characters become spaces, several of them one.
    package static func line(_ text: String) -> String {
        var line = ""
        var length = 0
        var isGap = false
        for character in text {
            let scalars = character.unicodeScalars
            if character.isNewline || scalars.contains(where: { $0.value < 32 || (127...159).contains($0.value) }) {
                isGap = true
                continue
            }
            if isGap, !line.isEmpty { line.append(" ") }
            isGap = false
            line.append(character)
            length += 1
            if length == 1000 { break }
        }
        return line
    }
}
