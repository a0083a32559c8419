import JSON

/// Media types of image content: OCI's (image-spec, media-types.md) and Docker's of schema 2.
enum MediaType {
    static let index = "application/vnd.oci.image.index.v1+json"
    static let manifest = "application/vnd.oci.image.manifest.v1+json"
    static let config = "application/vnd.oci.image.config.v1+json"
    static let layer = "application/vnd.oci.image.layer.v1.tar"

    static let indexes: Set = [index, "application/vnd.docker.distribution.manifest.list.v2+json"]
    static let manifests: Set = [manifest, "application/vnd.docker.distribution.manifest.v2+json"]
    static let configs: Set = [config, "application/vnd.docker.container.image.v1+json"]

    /// What a layer's media type says about its compression; nil for one that is not read here.
    static func compression(ofLayer type: String) -> Compression? {
        switch type {
        case layer, "application/vnd.docker.image.rootfs.diff.tar": Compression.none
        case "\(layer)+gzip", "application/vnd.docker.image.rootfs.diff.tar.gzip": .gzip
        case "\(layer)+zstd", "application/vnd.docker.image.rootfs.diff.tar.zstd": .zstd
        default: nil
        }
    }

    /// The type of a layer that is kept as it came.
    static func layer(_ compression: Compression) -> String {
        switch compression {
        case .none: layer
        case .gzip, .zstd: "\(layer)+\(compression)"
        // Not among OCI's types: such layers are stored unpacked.
        case .xz, .bzip2: layer
        }
    }
}

/// Refers to content by digest (OCI image-spec, descriptor.md).
struct Descriptor: Codable, Sendable, Equatable {
    struct TargetPlatform: Codable, Sendable, Equatable {
        var architecture: String
        var os: String
        var variant: String?
    }

    var mediaType: String
    var digest: Digest
    /// In bytes.
    var size: UInt64
    var platform: TargetPlatform?
    var annotations: [String: String]?

    init(mediaType: String, digest: Digest, size: UInt64, annotations: [String: String]? = nil) {
        self.mediaType = mediaType
        self.digest = digest
        self.size = size
        self.annotations = annotations
    }

    /// The platform it is for; nil when it does not say.
    var target: Platform? {
        platform.map { Platform(os: $0.os, architecture: $0.architecture, variant: $0.variant) }
    }
}

/// An image's manifest: its configuration and layers, the lowest first (OCI image-spec, manifest.md).
struct ImageManifest: Codable, Sendable, Equatable {
    var schemaVersion = 2
    var mediaType: String? = MediaType.manifest
    var config: Descriptor
    var layers: [Descriptor]

    init(config: Descriptor, layers: [Descriptor]) {
        self.config = config
        self.layers = layers
    }

    /// Reads a manifest.
    ///
    /// - Throws: `ImageError` when it is ambiguous, says another media type than it was announced with, or has content
    ///   of a kind that is no image; `JSONError` when it is no manifest.
    init(_ bytes: [UInt8], announced: String?, digest: Digest, limits: ImageLimits) throws {
        let value = try Document.parse(bytes, name: "manifest \(digest)", limits: limits)
        try Document.check(value, types: MediaType.manifests, announced: announced, name: "manifest \(digest)")
        self = try JSONCoding.decode(ImageManifest.self, from: value)
        guard MediaType.configs.contains(config.mediaType) else {
            throw ImageError(
                .unsupported, "manifest \(digest) is no image: its configuration is '\(printable(config.mediaType))'")
        }
        guard layers.count <= limits.layers else {
            throw ImageError(
                .limitExceeded, "manifest \(digest) has \(layers.count) layers, over the \(limits.layers) allowed")
        }
        for layer in layers where MediaType.compression(ofLayer: layer.mediaType) == nil {
            throw ImageError(
                .unsupported,
                "manifest \(digest) has a layer of type '\(printable(layer.mediaType))', which is not read here")
        }
    }
}

/// Manifests for several platforms, or the images of an OCI layout (OCI image-spec, image-index.md).
struct ImageIndexDocument: Codable, Sendable, Equatable {
    var schemaVersion = 2
    var mediaType: String? = MediaType.index
    var manifests: [Descriptor]

    init(manifests: [Descriptor]) { self.manifests = manifests }

    /// Reads an index; see `ImageManifest` for what is refused.
    init(_ bytes: [UInt8], announced: String?, name: String, limits: ImageLimits) throws {
        let value = try Document.parse(bytes, name: name, limits: limits)
        try Document.check(value, types: MediaType.indexes, announced: announced, name: name)
        self = try JSONCoding.decode(ImageIndexDocument.self, from: value)
        guard manifests.count <= limits.images else {
            throw ImageError(
                .limitExceeded, "\(name) has \(manifests.count) manifests, over the \(limits.images) allowed")
        }
    }
}

/// What manifests and indexes have in common.
enum Document {
    static func parse(_ bytes: [UInt8], name: String, limits: ImageLimits) throws -> JSONValue {
        do {
            return try JSONValue.parse(bytes, limits: JSONLimits(bytes: limits.documentBytes))
        } catch {
            throw ImageError(.invalidArchive, "\(name) is no valid JSON: \(error)")
        }
    }

    /// One document can be read as one thing only: schema 2, one of manifest and index, and of the type that it was
    /// announced with.
    static func check(_ value: JSONValue, types: Set<String>, announced: String?, name: String) throws {
        guard let object = value.objectValue else { throw ImageError(.invalidArchive, "\(name) is no JSON object") }
        guard object["schemaVersion"]?.intValue == 2 else {
            throw ImageError(.unsupported, "\(name) is not of schema version 2")
        }
        let isIndex = object["manifests"] != nil
        let isManifest = object["layers"] != nil || object["config"] != nil || object["fsLayers"] != nil
        guard isIndex != isManifest, isIndex == types.contains(MediaType.index) else {
            throw ImageError(
                .invalidArchive,
                "\(name) is ambiguous: it must have either manifests, or config and layers, as its type says")
        }
        if let announced, !types.contains(announced) {
            throw ImageError(
                .unsupported, "\(name) has the media type '\(printable(announced))', which is not read here")
        }
        guard let own = object["mediaType"], own != .null else { return }
        guard let type = own.stringValue, types.contains(type), announced == nil || announced == type else {
            throw ImageError(
                .invalidArchive, "\(name) has another media type than it was announced with: \(printable("\(own)"))")
        }
    }
}
