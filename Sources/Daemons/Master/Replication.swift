import Client
import JSON
import Kernel
import Logging
import MasterCore
import Model
import NIOHTTP1
import Wire

/// Copies of images, which the core wants and nodes make.
extension ClusterMaster {
    func replicate(_ digest: String, _ names: [String: Timestamp], from: NodeID, to: NodeID) {
        let nodes = core.node(from).flatMap { from in core.node(to).map { (from, $0) } }
        copies[digest] = Task {
            var failure: String?
            do {
                guard let (source, target) = nodes else { throw APIProblem(.notFound, "one of the nodes is gone") }
                let view = ContentSourceView(
                    node: source.id, name: source.name, endpoint: source.contentEndpoint ?? source.streamEndpoint)
                let _: ImageView = try await streams(target).json(
                    ImageView.self, .POST, "/images/fetch",
                    body: .json(FetchImage(digest: digest, names: names.keys.sorted(), namedAt: names, sources: [view]))
                )
                logger.info("image copied", metadata: ["image": "\(digest)", "to": "\(target.name)"])
            } catch {
                failure = "\(error)"
                logger.warning(
                    "an image is not copied", metadata: ["image": "\(digest)", "to": "\(to)", "error": "\(error)"])
            }
            copies[digest] = nil
            step(.replicated(digest: digest, to: to, failure: failure))
        }
    }

    /// Takes names that have gone to other content from a node's image.
    func untag(_ digest: String, _ names: [String], on id: NodeID) {
        guard let node = core.node(id) else { return }
        Task { await takeNames(names, from: digest, on: node) }
    }

    /// The same, done and known to the core when it returns. That it fails is logged: it is looked at again with the
    /// node's next word about its images.
    nonisolated func takeNames(_ names: [String], from digest: String, on node: Node) async {
        do {
            for name in names {
                try await streams(node).perform(
                    .POST, "\(Self.agentPath(digest))/untag", query: "name=\(PercentEncoding.encode(name))")
            }
            try await refreshImages(of: node)
        } catch {
            logger.warning(
                "a node keeps a stale name of an image",
                metadata: ["node": "\(node.name)", "image": "\(digest)", "error": "\(error)"])
        }
    }

    /// Does `body` while no copy of an image is made, which would bring back what `body` removes.
    ///
    /// - Parameter digest: of the manifest.
    package func withoutCopying<Value: Sendable>(
        _ digest: String, _ body: @Sendable () async throws -> Value
    ) async throws -> Value {
        step(.removingImage(digest: digest, isUnderway: true))
        defer { step(.removingImage(digest: digest, isUnderway: false)) }
        if let copy = copies[digest] {
            copy.cancel()
            await copy.value
        }
        return try await body()
    }
}
