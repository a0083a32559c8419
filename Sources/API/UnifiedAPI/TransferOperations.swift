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
                let node = try await node(wish.node)
                let complete = try await withLogin(wish)
                return try await transfer(call, node, "/images/pull", .json(complete), "pull", wish.image)
            },
            Operation(
                .post, access: .work, "\(Self.path)/{image}/push",
                "Push an image to a registry; the answer tells how far it is, and in its last line the image.",
                body: .json(PushImage.self), answer: .lines(TransferLine.self), statuses: [200, 404, 409, 413, 502]
            ) { call in
                let name = try call.name("image")
                var wish = try await call.body(PushImage.self)
                wish.login = try await login(wish.login, wish.loginSecret)
                wish.loginSecret = nil
                guard case .nodes(let views) = try await master.query(.imageNodes(name)), let node = views.first?.node
                else { throw APIProblem.unexpected }
                return try await transfer(
                    call, node, "/images/\(PercentEncoding.encode(name))/push", .json(wish), "push",
                    wish.target ?? name)
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
                try await master.streams(node(nil)).perform(.POST, "/registries/login", body: .json(wish))
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
                guard view.node.id != asking, Self.isReady(view) else {
                    return nil
                }
                let endpoint = view.node.contentEndpoint ?? view.node.streamEndpoint
                return ContentSourceView(node: view.node.id, name: view.node.name, endpoint: endpoint)
            }
        } catch let problem as APIProblem where problem.code == .notFound {
            return []
        }
    }

    /// Relays a transfer's lines; what the node has in the end is known before the last of them is told.
    private func transfer(
        _ call: Call, _ node: Node, _ path: String, _ body: APIClient.Body, _ action: String, _ name: String
    ) async throws -> Response {
        let lines = try await master.streams(node).lines(.POST, path, body: body)
        return .lines(call.context) { writer in
            var tally = TransferTally()
            for try await line in lines.decoded(as: TransferLine.self) {
                if var image = line.image {
                    try await APIError.translating {
                        try await refreshImages(of: node)
                        if action == "pull" { try await settleNames(of: image) }
                        try await note("image", action, name)
                    }
                    image.nodes = [node.id]
                    try await writer.write(TransferLine(image: image))
                } else {
                    if let far = tally.take(line) { try await note("image", "\(action)_progress", name, far) }
                    try await writer.write(line)
                }
            }
        }
    }

    /// Does what names images, after having them pulled as the policy says.
    func pulling<Value>(
        _ policy: PullPolicy?, _ pod: PodSpec?, _ secret: String?, _ login: RegistryLogin?,
        _ make: () async throws -> Value
    ) async throws -> Value {
        let images = Set((pod?.containers ?? []).map(\.image))
        func pullAll() async throws {
            for image in images.sorted() {
                try await pull(PullImage(image: image, login: login, loginSecret: secret), policy ?? .missing)
            }
        }
        if policy == .always { try await pullAll() }
        do {
            return try await make()
        } catch let problem as APIProblem where problem.code == .noSuchImage && policy ?? .missing == .missing {
            try await pullAll()
            return try await make()
        }
    }

    /// Pulls an image to a ready node.
    private func pull(_ wish: PullImage, _ policy: PullPolicy) async throws {
        let node = try await node(wish.node)
        let complete = try await withLogin(wish)
        let lines = try await master.streams(node).lines(.POST, "/images/pull", body: .json(complete))
        var image: ImageView?
        var tally = TransferTally()
        do {
            for try await line in lines.decoded(as: TransferLine.self) {
                image = line.image ?? image
                if let far = tally.take(line) { try await note("image", "pull_progress", wish.image, far) }
            }
        } catch let error as ClientError {
            throw APIError(
                status: error.status ?? 502, code: error.code ?? "pull-failed",
                message: "the image \(wish.image) cannot be pulled (policy \(policy.rawValue)): \(error.message)")
        }
        guard let image else {
            throw APIProblem(.unavailable, "the pull of \(wish.image) ended without an image; try again")
        }
        try await refreshImages(of: node)
        try await settleNames(of: image)
        try await note("image", "pull", wish.image)
    }

    private func withLogin(_ wish: PullImage) async throws -> PullImage {
        var wish = wish
        wish.login = try await login(wish.login, wish.loginSecret)
        (wish.loginSecret, wish.node) = (nil, nil)
        return wish
    }

    /// The login that is given, or the one in a secret.
    private func login(_ given: RegistryLogin?, _ secret: String?) async throws -> RegistryLogin? {
        guard let secret else { return given }
        guard given == nil else { throw APIError.badRequest("$.login and $.loginSecret exclude each other") }
        let value = try await master.openSecret(secret)
        do {
            return try JSONCoding.decode(RegistryLogin.self, from: value, strict: true)
        } catch {
            // Without the error's own words, which may hold a part of the value.
            throw APIError.badRequest(
                "the secret \(secret) is no login: it has to be JSON as {\"username\": \"…\", \"password\": \"…\"}")
        }
    }
}
