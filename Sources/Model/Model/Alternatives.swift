/// How enums with payloads are written in JSON where the compiler's own form would show `_0`: an object with one
/// member, whose name is the alternative.
extension Workload.Scale {
    private enum Alternative: String, CodingKey { case replicated, global }
    private enum Nothing: CodingKey {}

    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: Alternative.self)
        switch try values.onlyKey() {
        case .replicated: self = .replicated(try values.decode(Int.self, forKey: .replicated))
        case .global:
            _ = try values.nestedContainer(keyedBy: Nothing.self, forKey: .global)
            self = .global
        }
    }

    package func encode(to encoder: any Encoder) throws {
        var values = encoder.container(keyedBy: Alternative.self)
        switch self {
        case .replicated(let number): try values.encode(number, forKey: .replicated)
        case .global: _ = values.nestedContainer(keyedBy: Nothing.self, forKey: .global)
        }
    }
}

extension HealthCheck.Probe {
    private enum Alternative: String, CodingKey { case command, tcp, http }
    private enum Network: String, CodingKey { case port, path }
    private enum PortOnly: String, CodingKey { case port }

    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: Alternative.self)
        switch try values.onlyKey() {
        case .command: self = .command(try values.decode([String].self, forKey: .command))
        case .tcp:
            let inner = try values.nestedContainer(keyedBy: PortOnly.self, forKey: .tcp)
            self = .tcp(port: try inner.decode(Int.self, forKey: .port))
        case .http:
            let inner = try values.nestedContainer(keyedBy: Network.self, forKey: .http)
            self = .http(port: try inner.decode(Int.self, forKey: .port), path: try inner.decode(.path, or: "/"))
        }
    }

    package func encode(to encoder: any Encoder) throws {
        var values = encoder.container(keyedBy: Alternative.self)
        switch self {
        case .command(let words): try values.encode(words, forKey: .command)
        case .tcp(let port):
            var inner = values.nestedContainer(keyedBy: PortOnly.self, forKey: .tcp)
            try inner.encode(port, forKey: .port)
        case .http(let port, let path):
            var inner = values.nestedContainer(keyedBy: Network.self, forKey: .http)
            try inner.encode(port, forKey: .port)
            try inner.encode(path, forKey: .path)
        }
    }
}

extension KeyedDecodingContainer {
    /// The one key that an object of alternatives has.
    fileprivate func onlyKey() throws -> Key {
        guard let key = allKeys.first, allKeys.count == 1 else {
            throw DecodingError.dataCorrupted(
                .init(codingPath: codingPath, debugDescription: "exactly one alternative is wanted"))
        }
        return key
    }
}
