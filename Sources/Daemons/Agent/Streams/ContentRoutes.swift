import AgentCore
import Cgroups
import HTTPService
import HTTPTypes
import Hummingbird
import Images
import JSON
import Kernel
import Model
import Reactor
import Volumes
import Wire

extension StreamPort {
    /// What containers have written: what it is, how much, as an archive, and as an image.
    func addContent(to group: RouterGroup<ServiceContext>) {
        group.get("tasks/{task}/changes") { _, context in
            let (layer, _) = try layer(try await withFiles(context))
            let images = executor.images
            let changes = try await explainingImages { try await transfers.pool.run { try images.changes(of: layer) } }
            return try Response.json(changes.map(FileChange.init).sorted { $0.path < $1.path })
        }
        group.get("tasks/{task}/export") { _, context in
            let record = try await withFiles(context)
            let root = executor.paths.task(record.assignment.task).rootfs
            let files = try await explainingImages { try await transfers.pool.run { try ContainerFiles(root: root) } }
            return Response(
                status: .ok, headers: [.contentType: "application/x-tar"],
                body: transfers.download { try files.export(to: $0) })
        }
        group.post("tasks/{task}/commit") { request, context in
            let wish = try await request.json(CommitContainer.self, context)
            let image = try await commit(try await withFiles(context), wish)
            inventoryChanged()
            return try Response.json(image.view, status: .created)
        }
        group.post("sizes") { request, context in
            let wish = try await request.json(MeasureSizes.self, context)
            guard wish.tasks.count <= 100_000 else {
                throw APIError.badRequest("$.tasks: \(wish.tasks.count) tasks are more than 100000")
            }
            return try Response.json(try await context.untilPeerCloses { try await measure(wish) })
        }
    }

    private func measure(_ wish: MeasureSizes) async throws -> MeasuredSizes {
        var sizes = MeasuredSizes()
        for task in wish.tasks where table[task].map({ !$0.removed && $0.prepared }) ?? false {
            let upper = "\(executor.paths.task(task).directory)/upper"
            sizes.tasks[task.text] = Int64(
                clamping: try await transfers.pool.run { try Tree.size(upper) })
            try Task.checkCancellation()
        }
        guard wish.volumes else { return sizes }
        let volumes = executor.volumes
        for volume in volumes.list() {
            guard let path = try? volumes.path(volume.name) else { continue }
            sizes.volumes[volume.name] = Int64(clamping: try await transfers.pool.run { try Tree.size(path) })
            try Task.checkCancellation()
        }
        return sizes
    }

    private func layer(_ record: TaskRecord) throws(APIError) -> (ContainerLayer, Model.ContainerSpec) {
        let assignment = record.assignment
        guard let spec = assignment.pod.containers.first, let digest = Digest(spec.imageDigest) else {
            throw APIError.conflict("container \(assignment.instanceName) has no image")
        }
        let layer = ContainerLayer(
            image: digest, taskDirectory: executor.paths.task(assignment.task).directory,
            mountPoints: spec.mounts.map(\.target))
        return (layer, spec)
    }

    private func commit(_ record: TaskRecord, _ wish: CommitContainer) async throws -> ImageRecord {
        let (layer, spec) = try layer(record)
        let images = executor.images
        let image = try await explainingImages {
            try await executor.pool.run { try images.inspect("\(layer.image)") }
        }
        var config = image.config.overlaid(with: spec)
        let createdBy = ((config.entrypoint ?? []) + (config.command ?? [])).joined(separator: " ")
        config = config.overlaid(with: wish.config ?? ImageImportConfig())
        let committed = CommittedImage(
            name: wish.name, config: config, author: wish.author, comment: wish.comment,
            createdBy: String(createdBy.prefix(4096)))
        let isFrozen = try await freeze(record, wish.pause ?? true)
        failpoint("agent.during_commit")
        let made: Result<ImageRecord, any Error>
        do {
            made = .success(
                try await explainingImages { try await transfers.pool.run { try images.commit(layer, as: committed) } })
        } catch {
            made = .failure(error)
        }
        // In a task of its own: its processes go on also when nobody waits for the image any more.
        if isFrozen { try await Task { try await thaw(record) }.value }
        return try made.get()
    }

    /// Has its processes stand still, where they run and are wanted to.
    private func freeze(_ record: TaskRecord, _ isWanted: Bool) async throws -> Bool {
        guard isWanted, record.isLive, record.assignment.desired == .running else { return false }
        let executor = executor
        return try await executor.pool.run { try executor.holdStill(record.assignment.task) }
    }

    private func thaw(_ record: TaskRecord) async throws {
        let executor = executor
        try await executor.pool.run { try executor.letGo(record.assignment.task) }
    }
}

extension FileChange {
    fileprivate init(_ change: LayerChange) {
        let kind: Kind =
            switch change.kind {
            case .modified: .modified
            case .added: .added
            case .deleted: .deleted
            }
        self.init(path: change.name, kind: kind)
    }
}

extension ImageConfig {
    /// As a container made from the image with this specification runs.
    fileprivate func overlaid(with spec: Model.ContainerSpec) -> ImageConfig {
        var given = ImageImportConfig(
            entrypoint: spec.entrypoint, command: spec.command,
            environment: spec.environment, workingDirectory: spec.workingDirectory, user: spec.user,
            labels: spec.labels, exposedPorts: spec.exposedPorts, stopSignal: spec.stopSignal)
        given.volumes = spec.mounts.filter(\.isAnonymous).map(\.target)
        if let check = spec.healthCheck, case .command(let command) = check.probe {
            var probe = ImageHealthCheck(test: ["CMD"] + command)
            func nanoseconds(_ seconds: Int?) -> Int64? { seconds.map { Int64($0) * 1_000_000_000 } }
            probe.interval = nanoseconds(check.interval)
            probe.timeout = nanoseconds(check.timeout)
            probe.startPeriod = nanoseconds(check.startPeriod)
            probe.startInterval = nanoseconds(check.startInterval)
            probe.retries = check.retries.map { Int64($0) }
            given.healthCheck = probe
        }
        var base = self
        if spec.environmentIsWhole { base.environment = [] }
        return base.overlaid(with: given)
    }

    /// With what is given in place of its own: variables and labels are added one by one, an entrypoint forgets the
    /// command that was meant for another.
    fileprivate func overlaid(with given: ImageImportConfig) -> ImageConfig {
        var config = self
        if let entrypoint = given.entrypoint {
            config.entrypoint = entrypoint
            config.command = nil
        }
        config.command = given.command ?? config.command
        for variable in given.environment ?? [] {
            let key = variable.prefix { $0 != "=" }
            if let at = config.environment.firstIndex(where: { $0.prefix { $0 != "=" } == key }) {
                config.environment[at] = variable
            } else {
                config.environment.append(variable)
            }
        }
        if let directory = given.workingDirectory, !directory.isEmpty { config.workingDirectory = directory }
        if let user = given.user, !user.isEmpty { config.user = user }
        config.labels.merge(given.labels ?? [:]) { $1 }
        config.exposedPorts = Set(config.exposedPorts).union(given.exposedPorts ?? []).sorted()
        if let signal = given.stopSignal, !signal.isEmpty { config.stopSignal = signal }
        config.volumes = Set(config.volumes).union(given.volumes ?? []).sorted()
        if let check = given.healthCheck { config.healthCheck = HealthCheck(check) }
        config.shell = given.shell ?? config.shell
        config.onBuild = given.onBuild ?? config.onBuild
        return config
    }
}

extension ImageConfig.HealthCheck {
    init(_ given: ImageHealthCheck) {
        self.init(test: given.test)
        interval = given.interval
        timeout = given.timeout
        startPeriod = given.startPeriod
        startInterval = given.startInterval
        retries = given.retries
    }
}
