import AgentCore
import Images
import JSON
import Kernel
import Model
import Reactor
import Volumes
import Wire

extension PodExecutor {
    /// Mounts the container's root over its image. Blocks.
    func mountRoot(_ container: Model.ContainerSpec, _ task: TaskPaths) throws -> PodFile.Image {
        guard let digest = Digest(container.imageDigest) else {
            throw ExecutorFailure("image \(container.image) has no digest: '\(container.imageDigest)'")
        }
        let config = try images.prepareSnapshot(image: digest, taskDirectory: task.directory)
        return PodFile.Image(
            digest: container.imageDigest, entrypoint: config.entrypoint, command: config.command,
            environment: config.environment, workingDirectory: config.workingDirectory, user: config.user,
            stopSignal: config.stopSignal)
    }

    /// What the node tells the master of what it has; empty lists when they cannot be read now.
    func inventory(_ records: [TaskRecord]) async -> NodeInventory {
        let images = images.list().map { $0.view }
        let volumes = (try? await pool.run { try self.volumeViews(records) }) ?? []
        return NodeInventory(images: images, volumes: volumes, devices: deviceReport(records))
    }

    /// Digests of the images that tasks have, running or not.
    static func imagesInUse(_ records: [TaskRecord]) -> Set<Digest> {
        Set(
            records.filter { !$0.removed }.flatMap { $0.assignment.pod.containers }.compactMap {
                Digest($0.imageDigest)
            })
    }
}

extension ImageRecord {
    /// The image as the API shows it; the master says on which nodes it is.
    var view: ImageView {
        var view = ImageView(
            names: names.map(\.familiar), digest: digest.description, id: configDigest.description,
            size: Int64(clamping: unpackedSize),
            platform: Model.Platform(os: platform.os, architecture: platform.architecture), createdAt: created,
            namedAt: namedAt)
        view.labels = labels
        view.layers = layers.map(\.diffID.description)
        view.repositoryDigests = (origins ?? []).map(\.familiar)
        return view
    }
}
