import Glibc
import JSON
import Kernel

/// How registries are reached: a JSON file that the administrator of a node writes (docs/registries.md).
package struct RegistryConfiguration: Codable, Sendable, Equatable {
    /// What is particular about one host.
    package struct Host: Codable, Sendable, Equatable {
        /// Asked in this order before the host itself: `host[:port][/prefix]`. Their own settings are under their own
        /// names.
        package var mirrors: [String]?
        /// Plain HTTP is used where the host does not speak TLS.
        package var plainHTTP: Bool?
        /// A PEM file with certificate authorities, trusted for this host beside those of the system.
        package var ca: String?

        package init(mirrors: [String]? = nil, plainHTTP: Bool? = nil, ca: String? = nil) {
            self.mirrors = mirrors
            self.plainHTTP = plainHTTP
            self.ca = ca
        }
    }

    /// Docker's configuration file with stored logins; it is only read.
    package var dockerConfig: String?
    /// By name: `host[:port]` as image names have it, `docker.io` for Docker Hub.
    package var hosts: [String: Host]?
    /// Layers of one image that are transferred at once, 1 to 16; 3 where nothing is said.
    package var parallel: Int?
    /// Seconds without a byte after which a server counts as hung, 1 to 600; 30 where nothing is said.
    package var idleTimeout: Int?

    package init(
        dockerConfig: String? = nil, hosts: [String: Host]? = nil, parallel: Int? = nil, idleTimeout: Int? = nil
    ) {
        self.dockerConfig = dockerConfig
        self.hosts = hosts
        self.parallel = parallel
        self.idleTimeout = idleTimeout
    }

    /// Reads and checks a configuration file of at most 1 MiB; unknown members are refused.
    ///
    /// - Throws: `ImageError` of kind `invalidArgument` that names the file and the fault, or `system`.
    package init(reading path: String) throws {
        try ImageError.explaining("reading the registry configuration") {
            let bytes = try File.read(path, limit: 1 << 20)
            do {
                self = try JSONCoding.decode(RegistryConfiguration.self, from: bytes, strict: true)
                try validate()
            } catch {
                throw ImageError(.invalidArgument, "the registry configuration \(path) is refused: \(error)")
            }
        }
    }

    /// Checks names and ranges.
    ///
    /// - Throws: `ImageError` of kind `invalidArgument`.
    package func validate() throws {
        let refuse = { (reason: String) in ImageError(.invalidArgument, reason) }
        if let parallel, !(1...16).contains(parallel) { throw refuse("parallel must be 1 to 16, not \(parallel)") }
        if let idleTimeout, !(1...600).contains(idleTimeout) {
            throw refuse("idleTimeout must be 1 to 600 seconds, not \(idleTimeout)")
        }
        if let dockerConfig, !dockerConfig.hasPrefix("/") {
            throw refuse("dockerConfig must be an absolute path, not '\(printable(dockerConfig))'")
        }
        for (name, host) in hosts ?? [:] {
            guard RegistryURL.authority(name) != nil else {
                throw refuse("'\(printable(name))' under hosts is no host[:port]")
            }
            if let ca = host.ca, !ca.hasPrefix("/") {
                throw refuse("the ca of \(name) must be an absolute path, not '\(printable(ca))'")
            }
            guard host.ca == nil || host.plainHTTP != true else {
                throw refuse("\(name) has both ca and plainHTTP; a host with its own authority is never asked in plain")
            }
            let mirrors = host.mirrors ?? []
            guard mirrors.count <= 16 else { throw refuse("\(name) has more than 16 mirrors") }
            for mirror in mirrors { _ = try endpoint(mirror: mirror) }
        }
    }
}

/// A registry's API as it is asked: itself, or a mirror of it.
struct RegistryEndpoint: Sendable, Equatable {
    /// As image names and logins have it: `docker.io`.
    let name: String
    /// Where it answers: `registry-1.docker.io`.
    let host: String
    /// nil for the scheme's own.
    let port: UInt16?
    /// Put before repository names; empty, or ends with a slash.
    let prefix: String
    let isMirror: Bool
}

extension RegistryConfiguration {
    /// Docker Hub's names: in image names, and where its API is.
    private static let hub = (name: "docker.io", api: "registry-1.docker.io")

    /// What is asked for content of a registry, in this order.
    func endpoints(of name: String) throws -> [RegistryEndpoint] {
        let mirrors = hosts?[name]?.mirrors ?? hosts?[name.lowercased()]?.mirrors ?? []
        return try mirrors.map { try endpoint(mirror: $0) } + [endpoint(name)]
    }

    /// A registry itself.
    func endpoint(_ name: String) throws -> RegistryEndpoint {
        guard let authority = RegistryURL.authority(name == Self.hub.name ? Self.hub.api : name) else {
            throw ImageError(.invalidArgument, "'\(printable(name))' is no registry; write host[:port]")
        }
        return RegistryEndpoint(
            name: name, host: authority.host, port: authority.port, prefix: "", isMirror: false)
    }

    private func endpoint(mirror text: String) throws -> RegistryEndpoint {
        let name = String(text.prefix { $0 != "/" })
        let prefix = String(text.dropFirst(name.count + 1))
        let isPath =
            prefix.isEmpty || prefix.split(separator: "/", omittingEmptySubsequences: false).allSatisfy(Self.isPathPart)
        guard let authority = RegistryURL.authority(name), isPath, prefix.utf8.count <= 255 else {
            throw ImageError(.invalidArgument, "'\(printable(text))' is no mirror; write host[:port][/prefix]")
        }
        return RegistryEndpoint(
            name: name, host: authority.host, port: authority.port, prefix: prefix.isEmpty ? "" : prefix + "/",
            isMirror: true)
    }

    private static func isPathPart(_ part: Substring) -> Bool {
        !part.isEmpty && part != "." && part != ".."
            && part.utf8.allSatisfy {
                (0x61...0x7a).contains($0) || (0x30...0x39).contains($0) || "-._".utf8.contains($0)
            }
    }

    /// What is said about a host; a name without a port stands for the ports of https and http.
    private func settings(_ host: String, _ port: UInt16?) -> Host? {
        let name = host == Self.hub.api ? Self.hub.name : host
        let all = hosts ?? [:]
        if let port, let found = all.first(where: { $0.key.lowercased() == "\(name):\(port)" }) { return found.value }
        guard port == nil || port == 443 || port == 80 else { return nil }
        return all.first { $0.key.lowercased() == name }?.value
    }

    /// Whether plain HTTP may be used with a host: where the file says so, and with this machine, as dockerd has it.
    func allowsPlain(_ host: String, _ port: UInt16?) -> Bool {
        let own = settings(host, port)
        return own?.plainHTTP ?? (own?.ca == nil && RegistryURL.isLoopback(host))
    }

    /// The file with the authorities of a host; nil for those of the system alone.
    func authorities(_ host: String, _ port: UInt16?) -> String? { settings(host, port)?.ca }
}
