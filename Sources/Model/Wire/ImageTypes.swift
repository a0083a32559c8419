import JSON
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
    package var healthCheck: ImageHealthCheck?
    /// What a command given as one text is run with; nil: `/bin/sh -c`.
    package var shell: [String]?
    package var author: String?
    /// Of the last step of its making.
    package var comment: String?
    /// Of the architecture: `v7`.
    package var variant: String?
    /// Instructions for builds that begin with this image.
    package var onBuild: [String]?
    /// The steps of its making, the first one first.
    package var history: [Step]?

    /// One step of an image's making.
    package struct Step: Sendable, Codable, Hashable {
        package var createdAt: Timestamp?
        /// The command, as the builder wrote it.
        package var createdBy: String
        package var comment: String
        /// Bytes of the layer that it made, unpacked; 0 for one that changed no file.
        package var size: Int64

        package init(createdAt: Timestamp?, createdBy: String, comment: String, size: Int64) {
            self.createdAt = createdAt
            self.createdBy = createdBy
            self.comment = comment
            self.size = size
        }
    }

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

/// A health check as an image's configuration has it; times in nanoseconds, nil or 0 for the default.
package struct ImageHealthCheck: Sendable, Codable, Hashable {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", command]`; empty to inherit.
    package var test: [String]
    package var interval: Int64?
    package var timeout: Int64?
    package var startPeriod: Int64?
    package var startInterval: Int64?
    package var retries: Int64?

    package init(test: [String]) { self.test = test }
}

/// `POST /images/import`, the query `config`: what the new image's configuration says; of a commit, what it says
/// differently from the container.
package struct ImageImportConfig: Sendable, Codable, Hashable {
    package var entrypoint: [String]?
    package var command: [String]?
    package var environment: [String]?
    package var workingDirectory: String?
    package var user: String?
    package var labels: [String: String]?
    package var exposedPorts: [String]?
    package var stopSignal: String?
    package var volumes: [String]?
    package var healthCheck: ImageHealthCheck?
    package var shell: [String]?
    package var onBuild: [String]?
    /// For its history.
    package var comment: String?

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
