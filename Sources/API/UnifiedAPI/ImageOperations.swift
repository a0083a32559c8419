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
                _ = try Self.newName(call)
                if let config = call.query["config"] {
                    _ = try JSONCoding.decode(ImageImportConfig.self, from: Array(config.utf8), strict: true)
                }
                return try await upload(call, "/images/import", as: ImageView.self) { view, node in
                    var view = view
                    view.nodes = [node]
                    return view
                }
            },
            Operation(
                .post, access: .work, "\(Self.path)/load", "Load an archive of images (docker or OCI).",
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
                let nodes = try await nodes(having: name)
                var view: ImageView?
                for node in nodes {
                    view = try await master.streams(node).json(
                        ImageView.self, .POST, "\(Self.agentPath(name))/tag",
                        query: "name=\(PercentEncoding.encode(new))")
                    try await refreshImages(of: node)
                }
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
                let force = try call.query.flag("force")
                var sum = ImageRemoval()
                for node in try await nodes(having: name) {
                    let removal = try await master.streams(node).json(
                        ImageRemoval.self, .DELETE, Self.agentPath(name), query: "force=\(force)")
                    sum.untagged += removal.untagged.filter { !sum.untagged.contains($0) }
                    sum.deleted += removal.deleted.filter { !sum.deleted.contains($0) }
                    sum.freed += removal.freed
                    try await refreshImages(of: node)
                }
                try await note("image", "remove", name)
                return try .json(sum)
            },
        ]
    }

    private static func newName(_ call: Call) throws -> String {
        guard let name = call.query["name"] else { throw APIError.badRequest("name is missing in the query") }
        guard ImageName(name) != nil else {
            throw APIError.badRequest("'\(name)' is no image name: write name[:tag], in small letters")
        }
        return name
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
    func note(_ kind: String, _ action: String, _ name: String) async throws {
        _ = try await master.perform(.note(Event(time: .now(), kind: kind, action: action, id: name, name: name)))
    }
}
