import NIOHTTP1

/// What a registry wants before it answers: one challenge of a `WWW-Authenticate` header (RFC 9110, section 11.6.1).
struct AuthChallenge: Sendable, Equatable {
    /// Lower case: `basic`, `bearer`.
    var scheme: String
    /// Names in lower case.
    var parameters: [String: String]

    /// The longest header that is read, and the most challenges in it.
    private static let limits = (bytes: 16 << 10, challenges: 8)

    /// All challenges of an answer, in order; what cannot be read ends its header.
    static func all(_ headers: HTTPHeaders) -> [AuthChallenge] {
        Array(headers["www-authenticate"].prefix(4).flatMap { parse($0) }.prefix(limits.challenges))
    }

    static func parse(_ header: String) -> [AuthChallenge] {
        guard header.utf8.count <= limits.bytes else { return [] }
        var scanner = Scanner(rest: Array(header.utf8)[...])
        var result: [AuthChallenge] = []
        while true {
            scanner.skip { $0 == 0x20 || $0 == 0x09 || $0 == 0x2c }
            guard let word = scanner.token() else { return result }
            let mark = scanner
            scanner.skip { $0 == 0x20 || $0 == 0x09 }
            // A word with = after it is a parameter of the challenge before; one without begins a new challenge.
            guard scanner.take(0x3d), !result.isEmpty else {
                scanner = mark
                result.append(AuthChallenge(scheme: word.lowercased(), parameters: [:]))
                continue
            }
            scanner.skip { $0 == 0x20 || $0 == 0x09 }
            guard let value = scanner.quoted() ?? scanner.token() else { return result }
            result[result.count - 1].parameters[word.lowercased()] = value
        }
    }

    private struct Scanner {
        var rest: ArraySlice<UInt8>

        mutating func skip(_ isSkipped: (UInt8) -> Bool) { rest = rest.drop(while: isSkipped) }

        mutating func take(_ byte: UInt8) -> Bool {
            guard rest.first == byte else { return false }
            rest = rest.dropFirst()
            return true
        }

        mutating func token() -> String? {
            let word = rest.prefix { $0 > 0x20 && $0 < 0x7f && !"()<>@,;\\\"[]?={}".utf8.contains($0) }
            guard !word.isEmpty else { return nil }
            rest = rest[word.endIndex...]
            return String(decoding: word, as: UTF8.self)
        }

        mutating func quoted() -> String? {
            guard take(0x22) else { return nil }
            var text: [UInt8] = []
            while let byte = rest.first {
                rest = rest.dropFirst()
                if byte == 0x22 { return String(decoding: text, as: UTF8.self) }
                guard byte == 0x5c else {
                    text.append(byte)
                    continue
                }
                guard let escaped = rest.first else { return nil }
                text.append(escaped)
                rest = rest.dropFirst()
            }
            return nil
        }
    }
}
