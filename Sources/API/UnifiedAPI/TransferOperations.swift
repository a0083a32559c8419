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

/// Images from and to registries, and from node to node.
extension UnifiedAPI {
    private static let path = APIPaths.images

    var transferOperations: [Operation] {
        [
            Operation(
                .post, access: .work, "\(Self.path)/pull",
                "Pull an image from its registry; the answer tells how far it is, and in its last line the image.",
                body: .json(PullImage.self), answer: .lines(TransferLine.self),
                statuses: [200, 404, 409, 413, 502, 507]
            ) { call in
                let wish = try await call.body(PullImage.self)
                return Self.lines(call, try await master.pullImage(wish))
            },
            Operation(
                .post, access: .work, "\(Self.path)/{image}/push",
                "Push an image to a registry; the answer tells how far it is, and in its last line the image.",
                body: .json(PushImage.self), answer: .lines(TransferLine.self), statuses: [200, 404, 409, 413, 502]
            ) { call in
                let wish = try await call.body(PushImage.self)
                return Self.lines(call, try await master.pushImage(try call.name("image"), wish))
            },
            Operation(
                .get, access: .contents, "\(Self.path)/{image}/sources",
                "Nodes that have an image's content, for agents.",
                answer: .json([ContentSourceView].self), statuses: [200]
            ) { call in
                try .json(try await sources(of: call.name("image")))
            },
            Operation(
                .post, access: .work, "\(APIPaths.root)/registries/login",
                "Check a login at a registry; nothing is kept.",
                body: .json(CheckLogin.self), statuses: [204, 413, 502]
            ) { call in
                let wish = try await call.body(CheckLogin.self)
                try await master.streams(try await master.node(nil)).perform(
                    .POST, "/registries/login", body: .json(wish))
                return Response.empty
            },
        ]
    }

    /// The nodes that can be asked for an image now.
    private func sources(of image: String) async throws -> [ContentSourceView] {
        let asking: NodeID? = if case .node(let id) = Subject.current { id } else { nil }
        do {
            guard case .nodes(let views) = try await master.query(.imageNodes(image)) else {
                throw APIProblem.unexpected
            }
            return views.compactMap { view in
                guard view.node.id != asking, view.isReady else {
                    return nil
                }
                let endpoint = view.node.contentEndpoint ?? view.node.streamEndpoint
                return ContentSourceView(node: view.node.id, name: view.node.name, endpoint: endpoint)
            }
        } catch let problem as APIProblem where problem.code == .notFound {
            return []
        }
    }

    /// Passes a transfer's lines on.
    private static func lines(_ call: Call, _ transfer: ImageTransfer) -> Response {
        .lines(call.context) { writer in
            let image = try await APIError.translating {
                try await transfer.follow { try await writer.write(TransferLine(layer: $0)) }
            }
            try await writer.write(TransferLine(image: image))
        }
    }
}
