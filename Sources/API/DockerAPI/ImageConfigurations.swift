import Client
import Master
import MasterCore
import Model
import NIOHTTP1
import Synchronization
import Wire

/// What images' configurations say, by the manifest's digest, which never changes its meaning.
final class ImageConfigurations: Sendable {
    private struct Known {
        var details: [String: ImageDetails] = [:]
        /// Oldest first.
        var order: [String] = []
    }

    private static let most = 256
    private let known = Mutex(Known())

    subscript(digest: String) -> ImageDetails? { known.withLock { $0.details[digest] } }

    func remember(_ details: ImageDetails) {
        let digest = details.image.digest
        known.withLock { known in
            guard known.details.updateValue(details, forKey: digest) == nil else { return }
            known.order.append(digest)
            if known.order.count > Self.most { known.details[known.order.removeFirst()] = nil }
        }
    }
}

extension DockerAPI {
    /// What an image's name, digest or the beginning of its id means now.
    ///
    /// - Throws: `DockerError` 404 with Docker's words.
    func image(_ name: String) async throws -> ImageView {
        let reply: MasterReply
        do {
            reply = try await master.queryKnowingImages(.image(name))
        } catch {
            throw error.code == .noSuchImage ? Self.noImage(name) : DockerError(error)
        }
        guard case .image(let view) = reply else { throw APIProblem.unexpected }
        return view
    }

    static func noImage(_ name: String) -> DockerError {
        let shown = ImageName.isDigest(name) ? name : ImageName(name)?.description ?? name
        return .notFound("No such image: \(shown)")
    }

    /// An image with what its configuration says, asked of a node that has it.
    func details(of view: ImageView) async throws -> ImageDetails {
        if var details = configurations[view.digest] {
            details.image = view
            return details
        }
        var details = try await master.imageDetails(view.digest)
        configurations.remember(details)
        details.image = view
        return details
    }
}
