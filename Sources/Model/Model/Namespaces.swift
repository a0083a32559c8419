import JSON

/// Which namespaces a pod shares, see namespaces(7).
package struct Namespaces: Sendable, Hashable, Codable {
    /// In JSON `"own"`, `"node"`, or `{"container": "<id or name>"}`.
    package enum Source: Sendable, Hashable {
        case own
        case node
        /// That of another container, which has to run; it is looked for on the same node. Admission puts its id here.
        case container(String)
    }

    package var pid: Source
    package var ipc: Source
    package var uts: Source
    package var cgroup: Source
    /// `container` when the pod's network is that of another container; `own` otherwise.
    package var network: Source

    package init(
        pid: Source = .own, ipc: Source = .own, uts: Source = .own, cgroup: Source = .own, network: Source = .own
    ) {
        self.pid = pid
        self.ipc = ipc
        self.uts = uts
        self.cgroup = cgroup
        self.network = network
    }

    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        pid = try values.decode(.pid, or: .own)
        ipc = try values.decode(.ipc, or: .own)
        uts = try values.decode(.uts, or: .own)
        cgroup = try values.decode(.cgroup, or: .own)
        network = try values.decode(.network, or: .own)
    }

    /// Containers, by id or name, whose namespaces are shared.
    package var containers: [String] {
        [pid, ipc, uts, cgroup, network].compactMap { if case .container(let ref) = $0 { ref } else { nil } }
    }
}

extension Namespaces.Source: Codable {
    private enum Alternative: String, CodingKey { case container }

    package init(from decoder: any Decoder) throws {
        guard let word = try? decoder.singleValueContainer().decode(String.self) else {
            let values = try decoder.container(keyedBy: Alternative.self)
            self = .container(try values.decode(String.self, forKey: .container))
            return
        }
        switch word {
        case "own": self = .own
        case "node": self = .node
        default:
            throw DecodingError.dataCorrupted(
                .init(
                    codingPath: decoder.codingPath,
                    debugDescription: "'own', 'node' or {\"container\": \"name\"} is wanted"))
        }
    }

    package func encode(to encoder: any Encoder) throws {
        switch self {
        case .own, .node:
            var value = encoder.singleValueContainer()
            try value.encode(self == .own ? "own" : "node")
        case .container(let ref):
            var values = encoder.container(keyedBy: Alternative.self)
            try values.encode(ref, forKey: .container)
        }
    }
}

/// What becomes of what a container writes.
package struct LogPolicy: Sendable, Hashable, Codable {
    /// Nothing is kept when this is false: there is nothing for `logs` to show.
    package var isKept: Bool
    /// Bytes of one file; nil: the node's own.
    package var maximumBytes: Int64?
    package var maximumFiles: Int?

    package init(isKept: Bool = true, maximumBytes: Int64? = nil, maximumFiles: Int? = nil) {
        self.isKept = isKept
        self.maximumBytes = maximumBytes
        self.maximumFiles = maximumFiles
    }

    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        isKept = try values.decode(.isKept, or: true)
        maximumBytes = try values.decodeIfPresent(Int64.self, forKey: .maximumBytes)
        maximumFiles = try values.decodeIfPresent(Int.self, forKey: .maximumFiles)
    }
}
