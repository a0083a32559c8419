import JSON
import Model

/// A login at a registry, as it goes along with a request; never stored, logged or shown.
package struct RegistryLogin: Sendable, Codable, CustomStringConvertible {
    package var username: String?
    package var password: String?
    /// What a token server gave for a password once.
    package var identityToken: String?

    package init(username: String? = nil, password: String? = nil, identityToken: String? = nil) {
        self.username = username
        self.password = password
        self.identityToken = identityToken
    }

    package var description: String { "a registry login" }
}

/// `POST /images/pull`.
package struct PullImage: Sendable, Codable {
    /// As users write it: `nginx:1.27`, `registry.lan:5000/team/web@sha256:…`.
    package var image: String
    /// `linux/arm64`; nil: the node's own.
    package var platform: String?
    /// nil: the logins that the node has stored.
    package var login: RegistryLogin?
    /// The secret that holds the login, `{"username": …, "password": …}` in JSON; instead of `login`.
    package var loginSecret: String?
    /// Where to; nil: a ready node, from which others fetch it.
    package var node: String?

    package init(
        image: String, platform: String? = nil, login: RegistryLogin? = nil, loginSecret: String? = nil,
        node: String? = nil
    ) {
        self.image = image
        self.platform = platform
        self.login = login
        self.loginSecret = loginSecret
        self.node = node
    }
}

/// `POST /images/{image}/push`.
package struct PushImage: Sendable, Codable {
    package var login: RegistryLogin?
    package var loginSecret: String?
    /// The name under which it is pushed; nil: its own.
    package var target: String?

    package init(login: RegistryLogin? = nil, loginSecret: String? = nil, target: String? = nil) {
        self.login = login
        self.loginSecret = loginSecret
        self.target = target
    }
}

/// `POST /registries/login`.
package struct CheckLogin: Sendable, Codable {
    /// `host[:port]`, `docker.io`.
    package var registry: String
    package var login: RegistryLogin

    package init(registry: String, login: RegistryLogin) {
        self.registry = registry
        self.login = login
    }
}

/// A line of the answer to a pull or push: how far one layer is, or in the last line the image.
package struct TransferLine: Sendable, Codable {
    package struct Layer: Sendable, Codable {
        package var digest: String
        /// downloading, downloaded, unpacking, uploading, present or done.
        package var phase: String
        /// Bytes.
        package var done: Int64
        package var total: Int64

        package init(digest: String, phase: String, done: Int64, total: Int64) {
            self.digest = digest
            self.phase = phase
            self.done = done
            self.total = total
        }
    }

    package var layer: Layer?
    package var image: ImageView?

    package init(layer: Layer? = nil, image: ImageView? = nil) {
        self.layer = layer
        self.image = image
    }
}

/// When a registry is asked at the making of a workload.
package enum PullPolicy: String, Sendable, Codable, CaseIterable {
    /// When no node has the image.
    case missing
    /// Each time, so that a tag that moved is noticed.
    case always
    case never
}

/// A node that has content of an image: `GET /images/{digest}/sources`, for agents.
package struct ContentSourceView: Sendable, Codable {
    package var node: NodeID
    package var name: String
    /// `https://address:port`, or `unix:/path` on the same machine.
    package var endpoint: String

    package init(node: NodeID, name: String, endpoint: String) {
        self.node = node
        self.name = name
        self.endpoint = endpoint
    }
}

/// `POST /node/v1/images/fetch`: the master wants another copy of an image here.
package struct FetchImage: Sendable, Codable {
    /// `sha256:…` of the manifest.
    package var digest: String
    package var names: [String]
    /// When it was given them.
    package var namedAt: [String: Timestamp]?
    package var sources: [ContentSourceView]

    package init(
        digest: String, names: [String], namedAt: [String: Timestamp]? = nil, sources: [ContentSourceView]
    ) {
        self.digest = digest
        self.names = names
        self.namedAt = namedAt
        self.sources = sources
    }
}

/// `POST /node/v1/registries/resolve`: what an image's name stands for at its registry now.
package struct ResolveImage: Sendable, Codable {
    package var image: String
    package var login: RegistryLogin?

    package init(image: String, login: RegistryLogin? = nil) {
        self.image = image
        self.login = login
    }
}

/// What a registry has under a name.
package struct RegistryImage: Sendable, Codable {
    package struct Target: Sendable, Codable {
        package var os: String
        package var architecture: String
        package var variant: String?

        package init(os: String, architecture: String, variant: String? = nil) {
            self.os = os
            self.architecture = architecture
            self.variant = variant
        }
    }

    package var mediaType: String
    /// `sha256:…` of the manifest or index.
    package var digest: String
    /// Its bytes.
    package var size: Int64
    package var platforms: [Target]

    package init(mediaType: String, digest: String, size: Int64, platforms: [Target]) {
        self.mediaType = mediaType
        self.digest = digest
        self.size = size
        self.platforms = platforms
    }
}

/// `POST /node/v1/registries/search`.
package struct SearchRegistry: Sendable, Codable {
    /// `host[:port]`, `docker.io`.
    package var registry: String
    package var term: String
    /// 1 to 100.
    package var limit: Int
    package var login: RegistryLogin?

    package init(registry: String, term: String, limit: Int, login: RegistryLogin? = nil) {
        self.registry = registry
        self.term = term
        self.limit = limit
        self.login = login
    }
}

/// A repository that a registry's search has found.
package struct FoundRepository: Sendable, Codable {
    package var name: String
    package var description: String
    package var stars: Int
    package var isOfficial: Bool
    package var isAutomated: Bool

    package init(name: String, description: String, stars: Int, isOfficial: Bool, isAutomated: Bool) {
        self.name = name
        self.description = description
        self.stars = stars
        self.isOfficial = isOfficial
        self.isAutomated = isAutomated
    }
}
