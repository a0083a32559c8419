import Client
import HTTPService
import HTTPTypes
import Hummingbird
import JSON
import Master
import MasterCore
import Model
import NIOHTTP1
import Wire

extension UnifiedAPI {
    private static let path = APIPaths.images

    var imageOperations: [Operation] {
        [
            Operation(
                .get, access: .read, Self.path, "List images, with the nodes that have them.",
                answer: .json([ImageView].self),
                statuses: [200]
            ) { _ in
                try .json(try await images())
            },
            Operation(
                .post, access: .work, "\(Self.path)/import",
                "Make an image from a root file system's tar (plain, gzip or zstd).",
                query: [
                    .text("name", "Its name."), .text("os", "linux by default."),
                    .text("architecture", "The node's by default."),
                    .text("config", "An ImageImportConfig as JSON."),
                    .text("node", "Where; the first ready node by default."),
                ], body: .bytes(Self.tar), answer: .json(ImageView.self), statuses: [201, 404, 413, 507]
            ) { call in
                try await requireFreeName(try Self.newName(call))
                if let config = call.query["config"] {
                    _ = try JSONCoding.decode(ImageImportConfig.self, from: Array(config.utf8), strict: true)
                }
                return try await upload(call, "/images/import", as: ImageView.self) { view, node in
                    var view = view
                    view.nodes = [node]
                    return view
                }
            },
            // The names in an archive, which may be other groups', are known only when it has been loaded.
            Operation(
                .post, access: .operate, "\(Self.path)/load", "Load an archive of images (docker or OCI).",
                query: [.text("node", "Where; the first ready node by default.")], body: .bytes(Self.tar),
                answer: .json([ImageView].self), statuses: [201, 404, 413, 507]
            ) { call in
                try await upload(call, "/images/load", as: [ImageView].self) { views, node in
                    views.map { view in
                        var view = view
                        view.nodes = [node]
                        return view
                    }
                }
            },
            Operation(
                .get, access: .work, "\(Self.path)/save", "Images as an archive.",
                query: [
                    .list("name", "Which; at least one."), .text("format", "docker (the default) or oci."),
                    .text("node", "From where."),
                ],
                answer: .bytes(Self.tar), statuses: [200, 404]
            ) { call in
                try await save(call)
            },
            Operation(
                .post, access: .operate, "\(Self.path)/prune",
                "Remove images without a name that no container and no service's revision of now uses, from all nodes.",
                answer: .json(ImageRemoval.self), statuses: [200]
            ) { _ in
                try .json(try await prune())
            },
        ] + imageByName + transferOperations
    }

    private var imageByName: [Operation] {
        [
            Operation(
                .get, access: .read, "\(Self.path)/{image}", "Inspect an image.", answer: .json(ImageDetails.self),
                statuses: [200, 404, 409]
            ) { call in
                let name = try call.name("image")
                let nodes = try await nodes(having: name)
                var details = try await master.streams(nodes[0]).json(ImageDetails.self, .GET, Self.agentPath(name))
                details.image.nodes = nodes.map(\.id)
                return try .json(details)
            },
            Operation(
                .post, access: .work, "\(Self.path)/{image}/tag",
                "Give an image another name, on all nodes that have it.",
                query: [.text("name", "The new name.")], answer: .json(ImageView.self), statuses: [201, 404, 507]
            ) { call in
                let name = try call.name("image")
                let new = try Self.newName(call)
                try await requireFreeName(new)
                let nodes = try await nodes(having: name)
                var view: ImageView?
                for node in nodes {
                    view = try await master.streams(node).json(
                        ImageView.self, .POST, "\(Self.agentPath(name))/tag",
                        query: "name=\(PercentEncoding.encode(new))")
                    try await refreshImages(of: node)
                }
                if let view { try await settleNames(of: view) }
                view?.nodes = nodes.map(\.id)
                return try .json(view, status: .created)
            },
            Operation(
                .delete, access: .operate, "\(Self.path)/{image}",
                "Remove a name, and the image with its last name, from all nodes.",
                query: [.flag("force", "Also an image with several names, or that stopped containers use.")],
                answer: .json(ImageRemoval.self), statuses: [200, 404, 409]
            ) { call in
                let name = try call.name("image")
                let removal = try await remove(name, force: call.query.flag("force"))
                try await note("image", "remove", name)
                return try .json(removal)
            },
        ]
    }

    /// Nodes that are away keep what they have.
    private func prune() async throws -> ImageRemoval {
        guard case .containers(let containers) = try await master.query(.containers(ContainerFilter(all: true))),
            case .services(let services) = try await master.query(.services)
        else { throw APIProblem.unexpected }
        let kept = Set(containers.map(\.spec.imageDigest) + services.flatMap { $0.pod.containers.map(\.imageDigest) })
        var sum = ImageRemoval()
        for node in try await nodeViews().filter(Self.isReady).map(\.node) {
            let removal = try await master.streams(node).json(
                ImageRemoval.self, .POST, "/collect", body: .json(CollectImages(keep: kept.sorted())))
            sum.deleted += removal.deleted.filter { !sum.deleted.contains($0) }
            sum.freed += removal.freed
            try await refreshImages(of: node)
        }
        for digest in sum.deleted { try await note("image", "remove", digest) }
        return sum
    }

    private func remove(_ name: String, force: Bool) async throws -> ImageRemoval {
        let nodes = try await nodes(having: name)
        let image = try await master.streams(nodes[0]).json(ImageDetails.self, .GET, Self.agentPath(name)).image
        if !force, image.names.count <= 1 || !image.names.contains(where: { $0 == ImageName(name)?.tagged }) {
            try await refuseUsed(image, name)
        }
        return try await master.withoutCopying(image.digest) {
            var sum = ImageRemoval()
            for node in nodes { try await remove(name, on: node, force: force, &sum) }
            // Copies that nodes have made for tasks have no names.
            for left in try await images() where sum.deleted.contains(left.digest) && left.names.isEmpty {
                for node in try await self.nodes(having: left.digest) {
                    do {
                        try await remove(left.digest, on: node, force: false, &sum)
                    } catch let error as APIError where error.status == 409 {
                        // A task has begun to use it; the node keeps it as long as that.
                    }
                }
            }
            return sum
        }
    }

    private func remove(_ name: String, on node: Node, force: Bool, _ sum: inout ImageRemoval) async throws {
        let removal = try await master.streams(node).json(
            ImageRemoval.self, .DELETE, Self.agentPath(name), query: "force=\(force)")
        sum.untagged += removal.untagged.filter { !sum.untagged.contains($0) }
        sum.deleted += removal.deleted.filter { !sum.deleted.contains($0) }
        sum.freed += removal.freed
        try await refreshImages(of: node)
    }

    /// Before anything is removed anywhere: a node only knows of its own tasks.
    private func refuseUsed(_ image: ImageView, _ name: String) async throws {
        guard case .containers(let views) = try await master.query(.containers(ContainerFilter())) else {
            throw APIProblem.unexpected
        }
        if let user = views.first(where: { $0.spec.imageDigest == image.digest }) {
            throw APIError.conflict(
                "the image \(name) is used by container \(user.name)"
                    + (user.nodeName.isEmpty ? "" : " on node \(user.nodeName)") + "; remove that first, or force")
        }
    }

    static func isReady(_ view: NodeView) -> Bool { view.conditions.contains { $0.kind == .ready && $0.holds } }

    /// Has an image's names mean it on all nodes that can be reached: they are taken from other content that had them,
    /// which stays, as it does on the node where the name was given.
    func settleNames(of image: ImageView) async throws {
        for other in try await images() where other.digest != image.digest {
            let names = other.names.filter { image.names.contains($0) }
            guard !names.isEmpty else { continue }
            // A copy that is under way would bring the name back.
            try await master.withoutCopying(other.digest) {
                guard case .nodes(let views) = try await master.query(.imageNodes(other.digest)) else { return }
                // A node that is away keeps the name; others are asked before it what that means.
                for node in views.filter(Self.isReady).map(\.node) {
                    for name in names {
                        let path = "\(Self.agentPath(other.digest))/untag"
                        try? await master.streams(node).perform(
                            .POST, path, query: "name=\(PercentEncoding.encode(name))")
                    }
                    try? await refreshImages(of: node)
                }
            }
        }
    }

    private static func newName(_ call: Call) throws -> String {
        guard let name = call.query["name"] else { throw APIError.badRequest("name is missing in the query") }
        guard ImageName(name) != nil else {
            throw APIError.badRequest("'\(name)' is no image name: write name[:tag], in small letters")
        }
        return name
    }

    /// A name means one image to all groups: who is confined to one gives others' names to nothing else.
    private func requireFreeName(_ name: String) async throws {
        let subject = Subject.current
        guard subject.confinement != nil, let tagged = ImageName(name)?.tagged else { return }
        guard try await images().contains(where: { $0.names.contains(tagged) }) else { return }
        throw APIError.forbidden(
            "the image \(tagged) exists, and \(subject.title) may not give its name to another: choose another name")
    }

    private static func agentPath(_ name: String) -> String { "/images/\(PercentEncoding.encode(name))" }

    private func images() async throws -> [ImageView] {
        guard case .images(let views) = try await master.query(.images) else { throw APIProblem.unexpected }
        return views
    }

    private func nodes(having image: String) async throws -> [Node] {
        guard case .nodes(let views) = try await master.query(.imageNodes(image)) else { throw APIProblem.unexpected }
        return views.map(\.node)
    }

    /// Sends the body on to a node as it comes, and makes what the node has now known before it answers.
    private func upload<Value: Codable & Sendable>(
        _ call: Call, _ path: String, as type: Value.Type, finish: (Value, NodeID) -> Value
    ) async throws -> Response {
        let node = try await node(call.query["node"])
        let value = try await master.streams(node).json(
            type, .POST, path, query: call.rawQuery(without: ["node"]),
            body: .stream(call.request.body, contentType: Self.tar))
        try await refreshImages(of: node)
        for image in (value as? [ImageView]) ?? [value as? ImageView].compactMap({ $0 }) {
            try await settleNames(of: image)
        }
        try await note("image", path == "/images/import" ? "import" : "load", call.query["name"] ?? "")
        return try .json(finish(value, node.id), status: .created)
    }

    private func save(_ call: Call) async throws -> Response {
        let names = call.query.list("name")
        guard !names.isEmpty else { throw APIError.badRequest("name is missing in the query: which images") }
        var candidates: [Node]?
        for name in names {
            let having = try await nodes(having: name)
            candidates = candidates?.filter { node in having.contains { $0.id == node.id } } ?? having
        }
        if let wanted = call.query["node"] {
            let id = try await node(wanted).id
            candidates = candidates?.filter { $0.id == id }
        }
        guard let node = candidates?.first else {
            throw APIProblem(.notFound, "no node has all of \(names.joined(separator: ", ")): save them one by one")
        }
        return try await master.streams(node).relay(
            call.request, .GET, "/images/save", query: call.rawQuery(without: ["node"]))
    }

    func refreshImages(of node: Node) async throws {
        let images = try await master.streams(node).json([ImageView].self, .GET, "/images")
        _ = try await master.perform(.inventory(node.id, images: images, volumes: nil))
    }

    /// Notes for users that something was done to an image or a volume.
    func note(_ kind: String, _ action: String, _ name: String, _ attributes: [String: String] = [:]) async throws {
        _ = try await master.perform(
            .note(Event(time: .now(), kind: kind, action: action, id: name, name: name, attributes: attributes)))
    }
}
