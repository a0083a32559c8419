import HTTPService
import HTTPTypes
import Hummingbird
import JSON
import Master
import MasterCore
import Model
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
                try .json(try await master.images())
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
                let name = try Self.newName(call)
                if let config = call.query["config"] {
                    _ = try JSONCoding.decode(ImageImportConfig.self, from: Array(config.utf8), strict: true)
                }
                let query = ["os", "architecture", "config"].compactMap { key in
                    call.query[key].map { (key, $0) }
                }
                let view = try await master.importImage(
                    call.request.body, name: name, query: query, on: call.query["node"])
                return try .json(view, status: .created)
            },
            // The names in an archive, which may be other groups', are known only when it has been loaded.
            Operation(
                .post, access: .operate, "\(Self.path)/load", "Load an archive of images (docker or OCI).",
                query: [.text("node", "Where; the first ready node by default.")], body: .bytes(Self.tar),
                answer: .json([ImageView].self), statuses: [201, 404, 413, 507]
            ) { call in
                try .json(
                    try await master.loadImages(call.request.body, on: call.query["node"]), status: .created)
            },
            Operation(
                .get, access: .work, "\(Self.path)/save", "Images as an archive.",
                query: [
                    .list("name", "Which; at least one."), .text("format", "docker (the default) or oci."),
                    .text("node", "From where."),
                ],
                answer: .bytes(Self.tar), statuses: [200, 404]
            ) { call in
                try await master.saveImages(
                    call.request, call.query.list("name"), format: call.query["format"], on: call.query["node"])
            },
            Operation(
                .post, access: .operate, "\(Self.path)/prune",
                "Remove images without a name that no container and no service's revision of now uses, from all nodes.",
                query: [.flag("all", "Those with names too.")], answer: .json(ImageRemoval.self), statuses: [200]
            ) { call in
                let all = try call.query.flag("all")
                return try .json(try await master.pruneImages(named: all))
            },
        ] + imageByName + transferOperations
    }

    private var imageByName: [Operation] {
        [
            Operation(
                .get, access: .read, "\(Self.path)/{image}", "Inspect an image.", answer: .json(ImageDetails.self),
                statuses: [200, 404, 409]
            ) { call in
                try .json(try await master.imageDetails(try call.name("image")))
            },
            Operation(
                .post, access: .work, "\(Self.path)/{image}/tag",
                "Give an image another name, on all nodes that have it.",
                query: [.text("name", "The new name.")], answer: .json(ImageView.self), statuses: [201, 404, 507]
            ) { call in
                let view = try await master.tagImage(try call.name("image"), as: try Self.newName(call))
                return try .json(view, status: .created)
            },
            Operation(
                .delete, access: .operate, "\(Self.path)/{image}",
                "Remove a name, and the image with its last name, from all nodes.",
                query: [.flag("force", "Also an image with several names, or that stopped containers use.")],
                answer: .json(ImageRemoval.self), statuses: [200, 404, 409]
            ) { call in
                let removal = try await master.removeImage(
                    try call.name("image"), force: call.query.flag("force"))
                return try .json(removal)
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
}
