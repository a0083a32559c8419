import Client
import HTTPService
import Hummingbird
import JSON
import Logging
import MasterCore
import Model
import NIOHTTP1
import Wire

/// Images of all nodes as one store: what every face does with them.
extension ClusterMaster {
    package nonisolated func images() async throws(APIProblem) -> [ImageView] {
        guard case .images(let views) = try await query(.images) else { throw APIProblem.unexpected }
        return views
    }

    /// What a name, a digest or the beginning of an id means, and the nodes that have it, ready ones first.
    package nonisolated func image(_ name: String) async throws(APIProblem) -> (view: ImageView, nodes: [Node]) {
        guard case .image(let view) = try await queryKnowingImages(.image(name)),
            case .nodes(let nodes) = try await query(.imageNodes(name))
        else { throw APIProblem.unexpected }
        return (view, nodes.map(\.node))
    }

    /// The node that is asked for, or the first one that is ready.
    package nonisolated func node(_ ref: String?) async throws(APIProblem) -> Node {
        if let ref {
            guard case .node(let view) = try await query(.node(ref)) else { throw APIProblem.unexpected }
            return view.node
        }
        guard let ready = try await readyNodes().first else {
            throw APIProblem(.unavailable, "no node is ready; start an agent, see `martlet node ls`")
        }
        return ready
    }

    /// In the order of their names.
    package nonisolated func readyNodes() async throws(APIProblem) -> [Node] {
        guard case .nodes(let views) = try await query(.nodes) else { throw APIProblem.unexpected }
        return views.filter(\.isReady).map(\.node)
    }

    /// An image with what its configuration says.
    package nonisolated func imageDetails(_ name: String) async throws -> ImageDetails {
        let (view, nodes) = try await image(name)
        var details = try await streams(nodes[0]).json(ImageDetails.self, .GET, Self.agentPath(view.digest))
        details.image = view
        details.image.nodes = nodes.map(\.id)
        return details
    }

    nonisolated static func agentPath(_ image: String) -> String { "/images/\(PercentEncoding.encode(image))" }

    // MARK: Names

    /// Gives an image another name, on all nodes that have it and answer.
    package nonisolated func tagImage(_ name: String, as new: String) async throws -> ImageView {
        try await requireFreeName(new)
        let (image, nodes) = try await image(name)
        var view = image
        try await onThoseThatAnswer(nodes, "tag") { node in
            view = try await streams(node).json(
                ImageView.self, .POST, "\(Self.agentPath(image.digest))/tag",
                query: "name=\(PercentEncoding.encode(new))")
            try await refreshImages(of: node)
        }
        try await settleNames(of: view)
        view.nodes = nodes.map(\.id)
        await note("image", "tag", view.id, ImageName(new)?.tagged ?? new)
        return view
    }

    /// A name means one image to all groups: who is confined to one gives others' names to nothing else.
    ///
    /// - Throws: `APIProblem` forbidden.
    package nonisolated func requireFreeName(_ name: String) async throws(APIProblem) {
        let subject = Subject.current
        guard subject.confinement != nil, let tagged = ImageName(name)?.tagged else { return }
        guard try await images().contains(where: { $0.names.contains(tagged) }) else { return }
        throw APIProblem(
            .forbidden,
            "the image \(tagged) exists, and \(subject.title) may not give its name to another: choose another name")
    }

    /// Has an image's names mean it on all nodes that can be reached: they are taken from other content that had them,
    /// which stays, as it does on the node where the name was given.
    ///
    /// The core does the same when it hears of two meanings of a name, which one is the later by the nodes' clocks; here
    /// it is known, and done before anybody can ask.
    nonisolated func settleNames(of image: ImageView) async throws {
        for other in try await images() where other.digest != image.digest {
            let names = other.names.filter { image.names.contains($0) }
            guard !names.isEmpty else { continue }
            // A copy that is under way would bring the name back.
            try await withoutCopying(other.digest) {
                guard case .nodes(let views) = try await query(.imageNodes(other.digest)) else { return }
                // A node that is away keeps the name; others are asked before it what that means.
                for node in views.filter(\.isReady).map(\.node) {
                    await takeNames(names, from: other.digest, on: node)
                }
            }
        }
    }

    // MARK: Removal

    /// Removes a name, and the image with its last name, from all nodes.
    ///
    /// - Parameter force: also an image with several names, or one that containers use, whose content then stays as long
    ///   as they do.
    /// - Throws: `APIProblem` notFound, conflict.
    package nonisolated func removeImage(_ name: String, force: Bool) async throws -> ImageRemoval {
        let (view, nodes) = try await image(name)
        let tagged = ImageName(name)?.tagged.flatMap { view.names.contains($0) ? $0 : nil }
        if !force, view.names.count <= 1 || tagged == nil { try await refuseUsed(view, name) }
        let removal = try await withoutCopying(view.digest) {
            var sum = ImageRemoval()
            try await onThoseThatAnswer(nodes, "rm") { node in
                try await remove(tagged ?? view.digest, on: node, force: force, &sum)
            }
            // Copies that nodes have made for tasks have no names.
            for left in try await images() where sum.deleted.contains(left.digest) && left.names.isEmpty {
                guard case .nodes(let holders) = try await query(.imageNodes(left.digest)) else { continue }
                try await onThoseThatAnswer(holders.filter(\.isReady).map(\.node), "rm") { node in
                    do {
                        try await remove(left.digest, on: node, force: false, &sum)
                    } catch let error as APIError where error.status == 409 {
                        // A task has begun to use it; the node keeps it as long as that.
                    }
                }
            }
            return sum
        }
        for gone in removal.untagged { await note("image", "untag", view.id, gone) }
        if !removal.deleted.isEmpty { await note("image", "delete", view.id, view.id) }
        return removal
    }

    private nonisolated func remove(
        _ name: String, on node: Node, force: Bool, _ sum: inout ImageRemoval
    ) async throws {
        let removal = try await streams(node).json(
            ImageRemoval.self, .DELETE, Self.agentPath(name), query: "force=\(force)")
        sum.add(removal)
        try await refreshImages(of: node)
    }

    /// Before anything is removed anywhere: a node only knows of its own tasks.
    private nonisolated func refuseUsed(_ image: ImageView, _ name: String) async throws(APIProblem) {
        var users = ContainerSelection()
        users.images = [image.digest]
        if let user = try await anyContainer(users) {
            throw APIProblem(
                .conflict,
                "the image \(name) is used by container \(user.name)"
                    + (user.nodeName.isEmpty ? "" : " on node \(user.nodeName)") + "; remove that first, or force")
        }
    }

    /// Removes images that no container and no service's revision of now uses, from all nodes that are ready: nodes that
    /// are away keep what they have.
    ///
    /// - Parameters:
    ///   - named: those with names too.
    ///   - goes: whether an image may go.
    package nonisolated func pruneImages(
        named: Bool = false, where goes: @Sendable (ImageView) -> Bool = { _ in true }
    ) async throws -> ImageRemoval {
        var kept = try await imagesInUse()
        var sum = ImageRemoval()
        for view in try await images() where !kept.contains(view.digest) {
            guard goes(view) else {
                kept.insert(view.digest)
                continue
            }
            guard named else { continue }
            for name in view.names {
                do {
                    sum.add(try await removeImage(name, force: false))
                } catch let problem as APIProblem where problem.code == .conflict || problem.code == .noSuchImage {
                    // It is used since it was looked for, or somebody else has removed it.
                } catch let error as APIError where error.status == 409 {
                    // A node's task has it.
                }
            }
        }
        let known = Dictionary(try await images().map { ($0.digest, $0.id) }) { first, _ in first }
        try await onThoseThatAnswer(try await readyNodes(), "prune") { node in
            let removal = try await streams(node).json(
                ImageRemoval.self, .POST, "/collect", body: .json(CollectImages(keep: kept.sorted())))
            for digest in removal.deleted where !sum.deleted.contains(digest) {
                let id = known[digest] ?? digest
                await note("image", "delete", id, id)
            }
            sum.add(removal)
            try await refreshImages(of: node)
        }
        return sum
    }

    /// Digests of what containers and services have.
    private nonisolated func imagesInUse() async throws(APIProblem) -> Set<String> {
        var digests: Set<String> = []
        try await forEachContainer { digests.insert($0.spec.imageDigest) }
        guard case .services(let services) = try await query(.services) else { throw APIProblem.unexpected }
        return digests.union(services.flatMap { $0.pod.containers.map(\.imageDigest) })
    }

    /// Does something on every node that answers: one that is away keeps what it has, and the core settles what its
    /// names mean when it is back.
    ///
    /// - Parameters:
    ///   - nodes: ready ones first.
    ///   - what: for the log.
    /// - Throws: What `work` throws; that a node does not answer only where none does.
    private nonisolated func onThoseThatAnswer(
        _ nodes: [Node], _ what: String, _ work: (Node) async throws -> Void
    ) async throws {
        var answered = false
        var silence: APIError?
        for node in nodes {
            do {
                try await work(node)
                answered = true
            } catch let error as APIError where error.code == NodeStreams.unreachable {
                logger.warning(
                    "a node that is away was left out",
                    metadata: ["node": "\(node.name)", "operation": "\(what)", "error": "\(error.message)"])
                silence = silence ?? error
            }
        }
        if let silence, !answered { throw silence }
    }

    // MARK: What is told

    /// Asks a node what images it has, so that the core knows before the answer to who has changed them.
    package nonisolated func refreshImages(of node: Node) async throws {
        let images = try await streams(node).json([ImageView].self, .GET, "/images")
        _ = try await perform(.inventory(node.id, images: images, volumes: nil))
    }

    /// Notes for users that something was done to an image, a volume or a container. What it tells of has been done: that
    /// it cannot be told is logged, and fails nothing.
    package nonisolated func note(
        _ kind: String, _ action: String, _ id: String, _ name: String, _ attributes: [String: String] = [:]
    ) async {
        let event = Event(time: .now(), kind: kind, action: action, id: id, name: name, attributes: attributes)
        do {
            _ = try await perform(.note(event))
        } catch {
            logger.warning(
                "an event was not told",
                metadata: ["kind": "\(kind)", "action": "\(action)", "id": "\(id)", "error": "\(error)"])
        }
    }
}

extension NodeView {
    /// It answers and takes work.
    package var isReady: Bool { conditions.contains { $0.kind == .ready && $0.holds } }
}

extension ImageRemoval {
    /// What another removal took away besides.
    fileprivate mutating func add(_ other: ImageRemoval) {
        untagged += other.untagged.filter { !untagged.contains($0) }
        deleted += other.deleted.filter { !deleted.contains($0) }
        freed += other.freed
    }
}
