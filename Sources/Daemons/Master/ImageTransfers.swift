import Client
import HTTPService
import Hummingbird
import JSON
import MasterCore
import Model
import NIOHTTP1
import Wire

/// A pull or push that a node's agent has begun.
package struct ImageTransfer: Sendable {
    fileprivate let master: ClusterMaster
    /// Where it goes on.
    package let node: Node
    fileprivate let lines: LineSequence
    fileprivate let action: String
    fileprivate let name: String

    /// Follows it to its end; what the node has then is known before it returns.
    ///
    /// - Parameter progress: is told how far each layer is.
    /// - Throws: `ClientError` with the agent's refusal; what `progress` throws.
    package func follow(
        _ progress: (TransferLine.Layer) async throws -> Void = { _ in }
    ) async throws -> ImageView {
        var tally = TransferTally()
        var image: ImageView?
        for try await line in lines.decoded(as: TransferLine.self) {
            if let layer = line.layer {
                if let far = tally.take(layer) {
                    await master.note("image", "\(action)_progress", name, name, far)
                }
                try await progress(layer)
            }
            image = line.image ?? image
        }
        guard var image else {
            throw APIProblem(.unavailable, "the \(action) of \(name) ended without an image; try again")
        }
        try await master.refreshImages(of: node)
        if action == "pull" { try await master.settleNames(of: image) }
        await master.note("image", action, name, name)
        image.nodes = [node.id]
        return image
    }
}

/// Images from and to registries, archives and clients.
extension ClusterMaster {
    /// Begins to pull an image to a node, from which others fetch it.
    ///
    /// - Throws: `APIProblem`; `APIError` when the node cannot be reached.
    package nonisolated func pullImage(_ wish: PullImage) async throws -> ImageTransfer {
        let node = try await node(wish.node)
        var complete = wish
        complete.login = try await login(wish.login, wish.loginSecret)
        (complete.loginSecret, complete.node) = (nil, nil)
        let lines = try await streams(node).lines(.POST, "/images/pull", body: .json(complete))
        return ImageTransfer(master: self, node: node, lines: lines, action: "pull", name: wish.image)
    }

    /// Begins to push an image from a node that has it.
    package nonisolated func pushImage(_ name: String, _ wish: PushImage) async throws -> ImageTransfer {
        var wish = wish
        wish.login = try await login(wish.login, wish.loginSecret)
        wish.loginSecret = nil
        let (_, nodes) = try await image(name)
        let lines = try await streams(nodes[0]).lines(.POST, "\(Self.agentPath(name))/push", body: .json(wish))
        return ImageTransfer(
            master: self, node: nodes[0], lines: lines, action: "push", name: wish.target ?? name)
    }

    /// The login that is given, or the one in a secret.
    package nonisolated func login(
        _ given: RegistryLogin?, _ secret: String?
    ) async throws -> RegistryLogin? {
        guard let secret else { return given }
        guard given == nil else {
            throw APIProblem(.badRequest, "$.login and $.loginSecret exclude each other")
        }
        let value = try await openSecret(secret)
        do {
            return try JSONCoding.decode(RegistryLogin.self, from: value, strict: true)
        } catch {
            // Without the error's own words, which may hold a part of the value.
            throw APIProblem(
                .badRequest,
                "the secret \(secret) is no login: it has to be JSON as {\"username\": \"…\", \"password\": \"…\"}")
        }
    }

    /// Does what names images, after having them pulled as the policy says.
    package nonisolated func pulling<Value>(
        _ policy: PullPolicy?, _ pod: PodSpec?, _ secret: String?, _ login: RegistryLogin?,
        _ make: () async throws -> Value
    ) async throws -> Value {
        let images = Set((pod?.containers ?? []).map(\.image))
        func pullAll() async throws {
            for image in images.sorted() {
                do {
                    _ = try await pullImage(PullImage(image: image, login: login, loginSecret: secret)).follow()
                } catch let error as ClientError {
                    throw APIError(
                        status: error.status ?? 502, code: error.code ?? "pull-failed",
                        message: "the image \(image) cannot be pulled (policy \((policy ?? .missing).rawValue)): "
                            + error.message)
                }
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

    // MARK: Archives

    /// Makes an image from the tar of a root file system.
    ///
    /// - Parameters:
    ///   - name: nil: it has only a digest.
    ///   - query: the agent's further parameters: `os`, `architecture`, `config`.
    ///   - ref: the node; nil: one that is ready.
    package nonisolated func importImage(
        _ body: RequestBody, name: String?, query: [(key: String, value: String)], on ref: String?
    ) async throws -> ImageView {
        if let name { try await requireFreeName(name) }
        let all = (query + (name.map { [("name", $0)] } ?? [])).map { "\($0.key)=\(PercentEncoding.encode($0.value))" }
        let (view, node) = try await upload(body, "/images/import", all, as: ImageView.self, on: ref)
        try await take([view], from: node)
        await note("image", "import", view.id, name ?? view.id)
        var shown = view
        shown.nodes = [node.id]
        return shown
    }

    /// Loads an archive of images.
    package nonisolated func loadImages(_ body: RequestBody, on ref: String?) async throws -> [ImageView] {
        let (views, node) = try await upload(body, "/images/load", [], as: [ImageView].self, on: ref)
        try await take(views, from: node)
        for view in views { await note("image", "load", view.id, view.names.first ?? view.id) }
        return views.map { view in
            var view = view
            view.nodes = [node.id]
            return view
        }
    }

    /// Makes an image from what a container has written, on the container's node.
    package nonisolated func commitContainer(_ ref: String, _ wish: CommitContainer) async throws -> ImageView {
        if let name = wish.name { try await requireFreeName(name) }
        let location = try await locate(ref)
        guard let task = location.task, let id = location.node else {
            throw APIProblem(.conflict, "the container \(ref) is on no node: it has no files")
        }
        var view = try await streams(location).json(
            ImageView.self, .POST, NodeStreams.path(task, "commit"), body: .json(wish))
        let node = try await node(id.text)
        try await take([view], from: node)
        await note("image", "commit", view.id, wish.name ?? view.id)
        view.nodes = [id]
        return view
    }

    /// Sends a body on to a node as it comes.
    private nonisolated func upload<Value: Decodable & Sendable>(
        _ body: RequestBody, _ path: String, _ query: [String], as type: Value.Type, on ref: String?
    ) async throws -> (Value, Node) {
        let node = try await node(ref)
        let value = try await streams(node).json(
            type, .POST, path, query: query.joined(separator: "&"),
            body: .stream(body, contentType: "application/x-tar"))
        return (value, node)
    }

    /// Makes what a node has now known, and its names mean it everywhere.
    private nonisolated func take(_ views: [ImageView], from node: Node) async throws {
        try await refreshImages(of: node)
        for view in views { try await settleNames(of: view) }
    }

    /// Images as one archive, from a node that has them all.
    ///
    /// - Parameters:
    ///   - format: docker or oci.
    ///   - ref: the node; nil: any.
    /// - Throws: `APIProblem` notFound.
    package nonisolated func saveImages(
        _ request: Request, _ names: [String], format: String? = nil, on ref: String? = nil
    ) async throws -> Hummingbird.Response {
        guard !names.isEmpty else { throw APIProblem(.badRequest, "no image is named: which shall be saved") }
        var candidates: [Node]?
        var references: [String] = []
        for name in names {
            let (view, having) = try await image(name)
            // Under its name as it was given; otherwise by what it is.
            let isNamed = ImageName(name)?.tagged.map { view.names.contains($0) } ?? false
            references.append(isNamed ? name : view.digest)
            candidates = candidates?.filter { node in having.contains { $0.id == node.id } } ?? having
        }
        if let ref {
            let id = try await node(ref).id
            candidates = candidates?.filter { $0.id == id }
        }
        guard let node = candidates?.first else {
            throw APIProblem(.notFound, "no node has all of \(names.joined(separator: ", ")): save them one by one")
        }
        var query = references.map { "name=\(PercentEncoding.encode($0))" }
        if let format { query.append("format=\(PercentEncoding.encode(format))") }
        let response = try await streams(node).relay(
            request, .GET, "/images/save", query: query.joined(separator: "&"))
        for name in names { await note("image", "save", name, name) }
        return response
    }
}

/// How far a pull or push is, for the events: its client sees each line, everybody else now and then a sum.
private struct TransferTally {
    /// Transfers that take less time tell their end only.
    static let period = Duration.seconds(5)

    private var layers: [String: (done: Int64, total: Int64)] = [:]
    private var next = ContinuousClock.now + Self.period

    /// Takes a line in.
    ///
    /// - Returns: attributes of an event that is due: the bytes `done` of the `total` of the layers known by now.
    mutating func take(_ layer: TransferLine.Layer) -> [String: String]? {
        layers[layer.digest] = (layer.done, layer.total)
        guard ContinuousClock.now >= next else { return nil }
        next = .now + Self.period
        let (done, total) = layers.values.reduce((0, 0) as (Int64, Int64)) { sum, layer in
            (sum.0 + layer.done, sum.1 + layer.total)
        }
        return ["done": "\(done)", "total": "\(total)"]
    }
}
