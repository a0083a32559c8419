import HTTPService
import HTTPTypes
import Hummingbird
import JSON
import Master
import MasterCore
import Model
import Wire

/// `GET /images/json`: from the master's state alone.
extension DockerAPI {
    private static let filters: Set<String> = [
        "dangling", "label", "before", "since", "reference", "until", "node",
    ]

    func listImages(_ call: DockerCall) async throws -> Response {
        if call.version >= .v1_54, call.query.flag("identity"), !call.query.flag("manifests") {
            throw DockerError.badRequest("identity in the query needs manifests=true beside it")
        }
        let filters = try call.filters(Self.filters)
        let images = try await mergedImages()
        let shown = try await ImageSelection(filters, images, call, self).apply(images)
        var names: [NodeID: String] = [:]
        guard case .nodes(let nodes) = try await master.query(.nodes) else { throw APIProblem.unexpected }
        for view in nodes { names[view.node.id] = view.node.name }
        let wanted = Set(filters["node"])
        var style = ImageStyle(version: call.version, nodes: names)
        if call.query.flag("shared-size") { style.sharedSizes = Self.sharedSizes(images) }
        if call.version >= .v1_51 {
            var users: [String: Int64] = [:]
            try await master.forEachContainer { users[$0.imageID, default: 0] += 1 }
            style.users = users
        }
        let list = shown.filter { image in
            wanted.isEmpty || image.nodes.contains { wanted.contains($0.text) || wanted.contains(names[$0] ?? "") }
        }
        return .json(bytes: JSONValue.array(list.map(style.summary)).serialized())
    }

    /// All images by their ids: several manifests may have one configuration, which is what Docker calls an image.
    func mergedImages() async throws -> [ImageView] {
        var order: [String] = []
        var merged: [String: ImageView] = [:]
        for view in try await master.images() {
            guard var known = merged[view.id] else {
                order.append(view.id)
                merged[view.id] = view
                continue
            }
            known.names += view.names.filter { !known.names.contains($0) }
            known.nodes += view.nodes.filter { !known.nodes.contains($0) }
            let digests = known.repositoryDigests ?? []
            known.repositoryDigests = digests + (view.repositoryDigests ?? []).filter { !digests.contains($0) }
            merged[view.id] = known
        }
        return order.compactMap { merged[$0] }.sorted {
            ($1.createdAt ?? Timestamp(nanoseconds: 0), $0.id) < ($0.createdAt ?? Timestamp(nanoseconds: 0), $1.id)
        }
    }

    /// Bytes of an image that others have too: an estimate by the number of layers, as sizes of single layers are known
    /// to nodes only.
    private static func sharedSizes(_ images: [ImageView]) -> [String: Int64] {
        var users: [String: Int] = [:]
        for image in images { for layer in Set(image.layers ?? []) { users[layer, default: 0] += 1 } }
        var sizes: [String: Int64] = [:]
        for image in images {
            let layers = image.layers ?? []
            let shared = layers.count { users[$0] ?? 0 > 1 }
            sizes[image.id] = layers.isEmpty ? 0 : image.size * Int64(shared) / Int64(layers.count)
        }
        return sizes
    }
}

/// Which images a list shows.
private struct ImageSelection {
    let filters: DockerFilters
    let dangling: Bool?
    let before: Timestamp?
    let since: Timestamp?

    init(_ filters: DockerFilters, _ images: [ImageView], _ call: DockerCall, _ api: DockerAPI) async throws {
        self.filters = filters
        dangling = try filters.flag("dangling")
        var before: Timestamp?
        for name in filters["before"] {
            let time = try await api.image(name).createdAt ?? Timestamp(nanoseconds: 0)
            before = min(before ?? time, time)
        }
        for time in try filters.moments("until") {
            before = min(before ?? time, time)
        }
        self.before = before
        var since: Timestamp?
        for name in filters["since"] {
            let time = try await api.image(name).createdAt ?? Timestamp(nanoseconds: 0)
            since = max(since ?? time, time)
        }
        self.since = since
    }

    func apply(_ images: [ImageView]) -> [ImageView] {
        images.compactMap { image in
            let created = image.createdAt ?? Timestamp(nanoseconds: 0)
            guard dangling.map({ $0 == image.names.isEmpty }) ?? true, before.map({ created < $0 }) ?? true,
                since.map({ created > $0 }) ?? true, filters.allow(labels: image.labels ?? [:])
            else { return nil }
            let patterns = filters["reference"]
            guard !patterns.isEmpty else { return image }
            var shown = image
            shown.names = image.names.filter { name in patterns.contains { Self.matches(name, $0) } }
            shown.repositoryDigests = image.repositoryDigests?.filter { name in
                patterns.contains { Self.matches(name, $0) }
            }
            return shown.names.isEmpty && (shown.repositoryDigests ?? []).isEmpty ? nil : shown
        }
    }

    /// With its tag or without.
    private static func matches(_ name: String, _ pattern: String) -> Bool {
        let repository = ImageName(name)?.repository ?? name
        let pattern = PathPattern(pattern)
        return pattern.matches(name) || pattern.matches(repository)
    }
}

/// A pattern for paths: `*`, `?` and `[a-z]` stand for what is between slashes.
struct PathPattern {
    private let parts: [[Character]]

    init(_ text: String) {
        parts = text.split(separator: "/", omittingEmptySubsequences: false).map(Array.init)
    }

    func matches(_ text: String) -> Bool {
        let texts = text.split(separator: "/", omittingEmptySubsequences: false)
        return texts.count == parts.count && zip(parts, texts).allSatisfy { Self.matches(Array($1), $0) }
    }

    /// Goes back to the last `*` only, which is enough within one part.
    private static func matches(_ text: [Character], _ pattern: [Character]) -> Bool {
        var (at, place) = (0, 0)
        var star: (pattern: Int, text: Int)?
        while at < text.count {
            if place < pattern.count, pattern[place] == "*" {
                star = (place, at)
                place += 1
            } else if let next = step(pattern, place, text[at]) {
                (at, place) = (at + 1, next)
            } else if let last = star {
                star = (last.pattern, last.text + 1)
                (at, place) = (last.text + 1, last.pattern + 1)
            } else {
                return false
            }
        }
        return pattern[place...].allSatisfy { $0 == "*" }
    }

    /// The place in the pattern after what matches one character; nil when it does not.
    private static func step(_ pattern: [Character], _ place: Int, _ character: Character) -> Int? {
        guard place < pattern.count else { return nil }
        switch pattern[place] {
        case "?": return place + 1
        case "\\" where place + 1 < pattern.count: return pattern[place + 1] == character ? place + 2 : nil
        case "[":
            guard let end = pattern[(place + 1)...].firstIndex(of: "]"), end > place + 1 else { return nil }
            var set = pattern[(place + 1)..<end]
            let isNegated = set.first == "^"
            if isNegated { set = set.dropFirst() }
            var found = false
            while let first = set.popFirst() {
                if set.count >= 2, set.first == "-" {
                    set = set.dropFirst()
                    guard let last = set.popFirst() else { break }
                    found = found || (first <= character && character <= last)
                } else {
                    found = found || first == character
                }
            }
            return found != isNegated ? end + 1 : nil
        default: return pattern[place] == character ? place + 1 : nil
        }
    }
}

/// How images are shown in lists, see ImageSummary in Moby's swagger.
struct ImageStyle: Sendable {
    let version: APIVersion
    /// Names of nodes.
    let nodes: [NodeID: String]
    /// nil: not asked for.
    var sharedSizes: [String: Int64]?
    /// Containers of each image; nil: not asked for.
    var users: [String: Int64]?

    func summary(_ image: ImageView) -> JSONValue {
        var tags = image.names
        var digests = image.repositoryDigests ?? []
        if version < .v1_43, tags.isEmpty {
            tags = ["<none>:<none>"]
            if digests.isEmpty { digests = ["<none>@<none>"] }
        }
        var object: JSONObject = [
            "Id": .string(image.id), "ParentId": "", "RepoTags": .list(tags), "RepoDigests": .list(digests),
            "Created": .integer((image.createdAt?.nanoseconds ?? 0) / 1_000_000_000), "Size": .integer(image.size),
            "SharedSize": .integer(sharedSizes.map { $0[image.id] ?? 0 } ?? -1),
            "Labels": image.labels?.isEmpty ?? true ? .null : .texts(image.labels ?? [:]),
            "Containers": .integer(users.map { $0[image.id] ?? 0 } ?? -1),
        ]
        if version < .v1_44 { object["VirtualSize"] = .integer(image.size) }
        object["Nodes"] = .list(names(image))
        return .object(object)
    }

    /// The nodes that have it, which is Martlet's own addition.
    func names(_ image: ImageView) -> [String] { image.nodes.map { nodes[$0] ?? $0.text }.sorted() }
}
