import JSON

/// What an image says about containers made from it (OCI image-spec, config.md; Docker's health check with it).
///
/// All of it is data from outside. Lists are nil where the image says nothing, which is something else than an empty
/// list where a container's own settings are laid over it.
package struct ImageConfig: Sendable, Equatable {
    /// A health check as Docker stores it; times in nanoseconds, 0 for the default.
    package struct HealthCheck: Codable, Sendable, Equatable {
        /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", command]`; empty to inherit.
        package var test: [String]?
        package var interval: Int64?
        package var timeout: Int64?
        package var startPeriod: Int64?
        package var startInterval: Int64?
        package var retries: Int64?

        package init(test: [String]? = nil) { self.test = test }

        private enum CodingKeys: String, CodingKey {
            case test = "Test"
            case interval = "Interval"
            case timeout = "Timeout"
            case startPeriod = "StartPeriod"
            case startInterval = "StartInterval"
            case retries = "Retries"
        }
    }

    /// As in USER; see `resolveUser`.
    package var user = ""
    /// `80/tcp`, sorted.
    package var exposedPorts: [String] = []
    /// `KEY=value`.
    package var environment: [String] = []
    package var entrypoint: [String]?
    package var command: [String]?
    /// Paths in the container, sorted.
    package var volumes: [String] = []
    package var workingDirectory = ""
    package var labels: [String: String] = [:]
    /// A name or a number; empty for SIGTERM.
    package var stopSignal = ""
    package var healthCheck: HealthCheck?
    package var shell: [String]?
    /// Instructions for builds that begin with the image.
    package var onBuild: [String]?

    package init() {}
}

/// An image's whole configuration document.
struct ImageConfigDocument: Sendable, Equatable {
    struct History: Codable, Sendable, Equatable {
        var created: String?
        var createdBy: String?
        var author: String?
        var comment: String?
        var emptyLayer: Bool?

        enum CodingKeys: String, CodingKey {
            case created, author, comment
            case createdBy = "created_by"
            case emptyLayer = "empty_layer"
        }
    }

    var created: String?
    var author: String?
    var platform: Platform
    var config: ImageConfig
    /// Digests of the uncompressed layers, the lowest first.
    var diffIDs: [Digest]
    var history: [History]

}

extension ImageConfigDocument: Codable {
    private struct Empty: Codable {}

    private struct RootFS: Codable {
        var type: String
        var diffIDs: [Digest]?
        enum CodingKeys: String, CodingKey {
            case type
            case diffIDs = "diff_ids"
        }
    }

    private struct Inner: Codable {
        var user: String?
        var exposedPorts: [String: Empty?]?
        var environment: [String]?
        var entrypoint: [String]?
        var command: [String]?
        var volumes: [String: Empty?]?
        var workingDirectory: String?
        var labels: [String: String]?
        var stopSignal: String?
        var healthCheck: ImageConfig.HealthCheck?
        var shell: [String]?
        var onBuild: [String]?

        enum CodingKeys: String, CodingKey {
            case user = "User"
            case exposedPorts = "ExposedPorts"
            case environment = "Env"
            case entrypoint = "Entrypoint"
            case command = "Cmd"
            case volumes = "Volumes"
            case workingDirectory = "WorkingDir"
            case labels = "Labels"
            case stopSignal = "StopSignal"
            case healthCheck = "Healthcheck"
            case shell = "Shell"
            case onBuild = "OnBuild"
        }
    }

    private enum CodingKeys: String, CodingKey {
        case created, author, architecture, os, variant, config, rootfs, history
    }

    init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        created = try container.decodeIfPresent(String.self, forKey: .created)
        author = try container.decodeIfPresent(String.self, forKey: .author)
        platform = Platform(
            os: try container.decode(String.self, forKey: .os),
            architecture: try container.decode(String.self, forKey: .architecture),
            variant: try container.decodeIfPresent(String.self, forKey: .variant).flatMap { $0.isEmpty ? nil : $0 })
        let rootfs = try container.decode(RootFS.self, forKey: .rootfs)
        guard rootfs.type == "layers" else {
            throw DecodingError.dataCorruptedError(
                forKey: .rootfs, in: container, debugDescription: "the type must be 'layers'")
        }
        diffIDs = rootfs.diffIDs ?? []
        history = try container.decodeIfPresent([History].self, forKey: .history) ?? []
        config = ImageConfig()
        guard let inner = try container.decodeIfPresent(Inner.self, forKey: .config) else { return }
        config.user = inner.user ?? ""
        config.exposedPorts = (inner.exposedPorts ?? [:]).keys.sorted()
        config.environment = inner.environment ?? []
        config.entrypoint = inner.entrypoint
        config.command = inner.command
        config.volumes = (inner.volumes ?? [:]).keys.sorted()
        config.workingDirectory = inner.workingDirectory ?? ""
        config.labels = inner.labels ?? [:]
        config.stopSignal = inner.stopSignal ?? ""
        config.healthCheck = inner.healthCheck
        config.shell = inner.shell
        config.onBuild = inner.onBuild
    }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encodeIfPresent(created, forKey: .created)
        try container.encodeIfPresent(author, forKey: .author)
        try container.encode(platform.architecture, forKey: .architecture)
        try container.encode(platform.os, forKey: .os)
        try container.encodeIfPresent(platform.variant, forKey: .variant)
        let set = { (keys: [String]) -> [String: Empty?]? in
            keys.isEmpty ? nil : Dictionary(keys.map { ($0, Empty()) }) { first, _ in first }
        }
        let inner = Inner(
            user: config.user.isEmpty ? nil : config.user, exposedPorts: set(config.exposedPorts),
            environment: config.environment.isEmpty ? nil : config.environment, entrypoint: config.entrypoint,
            command: config.command, volumes: set(config.volumes),
            workingDirectory: config.workingDirectory.isEmpty ? nil : config.workingDirectory,
            labels: config.labels.isEmpty ? nil : config.labels,
            stopSignal: config.stopSignal.isEmpty ? nil : config.stopSignal, healthCheck: config.healthCheck,
            shell: config.shell, onBuild: config.onBuild)
        try container.encode(inner, forKey: .config)
        try container.encode(RootFS(type: "layers", diffIDs: diffIDs), forKey: .rootfs)
        try container.encode(history, forKey: .history)
    }
}

extension ImageConfigDocument {
    /// Reads a configuration and checks what everybody relies on later.
    ///
    /// - Parameter layers: how many layers the manifest has.
    /// - Throws: `ImageError` naming the document and the fault.
    init(_ bytes: [UInt8], layers: Int, name: String, limits: ImageLimits) throws {
        let value = try Document.parse(bytes, name: name, limits: limits)
        do {
            self = try JSONCoding.decode(ImageConfigDocument.self, from: value)
        } catch {
            throw ImageError(.invalidArchive, "\(name) is no image configuration: \(error)")
        }
        guard diffIDs.count == layers else {
            throw ImageError(
                .invalidArchive, "\(name) names \(diffIDs.count) layers where the manifest has \(layers)")
        }
        do {
            try config.validate()
        } catch {
            throw ImageError(.invalidArchive, "\(name) is refused: \(error)")
        }
    }
}

extension ImageConfig {
    /// Bounds and forms of what ends up in a container's specification.
    ///
    /// - Throws: `ImageError` of kind `invalidArgument` that names the field.
    package func validate() throws {
        let lists: [(String, [String])] = [
            ("the environment", environment), ("the entrypoint", entrypoint ?? []), ("the command", command ?? []),
            ("the volumes", volumes), ("the shell", shell ?? []), ("the exposed ports", exposedPorts),
            ("the labels", labels.flatMap { [$0.key, $0.value] }),
            ("the settings", [user, workingDirectory, stopSignal]), ("the health check", healthCheck?.test ?? []),
            ("the instructions for builds", onBuild ?? []),
        ]
        for (name, list) in lists {
            guard list.count <= 8192 else { throw refused(name, "has more than 8,192 elements") }
            guard list.allSatisfy({ !$0.utf8.contains(0) }) else { throw refused(name, "contains a NUL") }
        }
        guard environment.allSatisfy({ $0.utf8.first != UInt8(ascii: "=") && $0.utf8.contains(UInt8(ascii: "=")) })
        else {
            throw refused("the environment", "has an entry that is not KEY=value")
        }
        guard volumes.allSatisfy({ $0.utf8.count <= 4095 && $0.utf8.first == UInt8(ascii: "/") }) else {
            throw refused("the volumes", "have one that is no absolute path")
        }
        guard workingDirectory.utf8.count <= 4095 else { throw refused("the working directory", "is too long") }
        guard exposedPorts.allSatisfy(Self.isPort) else {
            throw refused("the exposed ports", "have one that is not 1 to 65535, with /tcp, /udp or /sctp or without")
        }
    }

    private func refused(_ name: String, _ fault: String) -> ImageError {
        ImageError(.invalidArgument, "\(name) \(fault)")
    }

    /// `80`, `80/tcp` or `8000-8010/udp`.
    private static func isPort(_ text: String) -> Bool {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard (1...2).contains(parts.count), parts.count == 1 || ["tcp", "udp", "sctp"].contains(parts[1]) else {
            return false
        }
        let ends = parts[0].split(separator: "-", omittingEmptySubsequences: false)
        let numbers = ends.compactMap { end in
            end.utf8.allSatisfy { (0x30...0x39).contains($0) } ? UInt16(end) : nil
        }
        guard (1...2).contains(ends.count), numbers.count == ends.count else { return false }
        return numbers.allSatisfy { $0 > 0 } && numbers == numbers.sorted()
    }
}
