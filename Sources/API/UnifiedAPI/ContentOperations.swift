import HTTPService
import HTTPTypes
import Hummingbird
import Master
import Model
import NIOHTTP1
import Wire

/// What containers have written, and images made of it.
extension UnifiedAPI {
    private static let path = "\(APIPaths.containers)/{container}"

    var contentOperations: [Operation] {
        [
            Operation(
                .get, access: .read, "\(Self.path)/changes", "Paths that are other than in its image.",
                answer: .json([FileChange].self), statuses: [200, 404, 409, 413]
            ) { call in
                try await relay(call, .GET, "changes")
            },
            Operation(
                .get, access: .work, "\(Self.path)/export",
                "Its whole root file system as tar, without what is in its volumes.",
                answer: .bytes(Self.tar), statuses: [200, 404, 409]
            ) { call in
                try await relay(call, .GET, "export")
            },
            Operation(
                .post, access: .work, "\(Self.path)/commit", "Make an image from its files.",
                body: .json(CommitContainer.self), answer: .json(ImageView.self),
                statuses: [201, 403, 404, 409, 413, 507]
            ) { call in
                let wish = try await call.body(CommitContainer.self)
                if let name = wish.name, ImageName(name) == nil {
                    throw APIError.badRequest("'\(name)' is no image name: write name[:tag], in small letters")
                }
                let view = try await master.commitContainer(try call.name("container"), wish)
                return try .json(view, status: .created)
            },
        ]
    }
}
