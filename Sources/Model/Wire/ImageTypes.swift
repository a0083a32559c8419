import Model

/// `POST /node/v1/collect`: removes content that nothing on the node needs, images without a name with it.
package struct CollectImages: Sendable, Codable {
    /// Digests of manifests that stay, because workloads name them; at most 100,000.
    package var keep: [String]

    package init(keep: [String]) { self.keep = keep }
}

/// `GET /images/{image}`: an image with what its configuration says.
package struct ImageDetails: Sendable, Codable, Hashable {
    package var image: ImageView
    package var entrypoint: [String]
    package var command: [String]
    /// `KEY=value`.
    package var environment: [String]
    package var workingDirectory: String
    package var user: String
    package var labels: [String: String]
    /// `80/tcp`.
    package var exposedPorts: [String]
    package var volumes: [String]
    package var stopSignal: String
    /// `sha256:…` of the unpacked layers, the lowest first.
    package var layers: [String]

    package init(
        image: ImageView, entrypoint: [String] = [], command: [String] = [], environment: [String] = [],
        workingDirectory: String = "", user: String = "", labels: [String: String] = [:], exposedPorts: [String] = [],
        volumes: [String] = [], stopSignal: String = "", layers: [String] = []
    ) {
        self.image = image
        self.entrypoint = entrypoint
        self.command = command
        self.environment = environment
        self.workingDirectory = workingDirectory
        self.user = user
        self.labels = labels
        self.exposedPorts = exposedPorts
        self.volumes = volumes
        self.stopSignal = stopSignal
        self.layers = layers
    }
}

/// `POST /images/import`, the query `config`: what the new image's configuration says.
package struct ImageImportConfig: Sendable, Codable, Hashable {
    package var entrypoint: [String]?
    package var command: [String]?
    package var environment: [String]?
    package var workingDirectory: String?
    package var user: String?
    package var labels: [String: String]?
    package var exposedPorts: [String]?
    package var stopSignal: String?

    package init(
        entrypoint: [String]? = nil, command: [String]? = nil, environment: [String]? = nil,
        workingDirectory: String? = nil, user: String? = nil, labels: [String: String]? = nil,
        exposedPorts: [String]? = nil, stopSignal: String? = nil
    ) {
        self.entrypoint = entrypoint
        self.command = command
        self.environment = environment
        self.workingDirectory = workingDirectory
        self.user = user
        self.labels = labels
        self.exposedPorts = exposedPorts
        self.stopSignal = stopSignal
    }
}

/// What the removal of an image, or a garbage collection, took away.
package struct ImageRemoval: Sendable, Codable, Hashable {
    /// Names that are gone.
    package var untagged: [String]
    /// Digests of manifests whose content is gone.
    package var deleted: [String]
    /// Bytes freed.
    package var freed: Int64

    package init(untagged: [String] = [], deleted: [String] = [], freed: Int64 = 0) {
        self.untagged = untagged
        self.deleted = deleted
        self.freed = freed
    }
}
