import AgentCore
import HTTPService
import HTTPTypes
import Hummingbird
import Images
import JSON
import Model
import Reactor
import Wire

extension StreamPort {
    private var images: ImageStore { executor.images }

    /// This node's images.
    func addImages(to group: RouterGroup<ServiceContext>) {
        group.get("images") { _, _ in try Response.json(images.list().map(\.view)) }
        group.get("images/save") { request, context in try await save(request) }
        group.get("images/{image}") { _, context in
            let name = try context.pathParameter("image")
            return try Response.json(try await working { Wire.ImageDetails(try images.inspect(name)) })
        }
        group.post("images/import") { request, _ in try await importImage(request) }
        group.post("images/load") { request, _ in
            _ = try Query(request, known: [])
            let loaded = try await explainingImages {
                try await transfers.upload(request.body) { try images.load($0) }
            }
            inventoryChanged()
            return try Response.json(loaded.map(\.view), status: .created)
        }
        group.post("images/{image}/tag") { request, context in
            let name = try context.pathParameter("image")
            guard let new = try Query(request, known: ["name"])["name"] else {
                throw APIError.badRequest("the query parameter 'name' is missing")
            }
            let image = try await working {
                try images.tag(name, as: new)
                return try images.resolve(new)
            }
            inventoryChanged()
            return try Response.json(image.view, status: .created)
        }
        group.post("images/{image}/untag") { request, context in
            let image = try context.pathParameter("image")
            guard let name = try Query(request, known: ["name"])["name"], let digest = Digest(image) else {
                throw APIError.badRequest("the path has to name a digest, and the query parameter 'name' a name")
            }
            try await working { try images.untag(name, from: digest) }
            inventoryChanged()
            return Response.empty
        }
        group.delete("images/{image}") { request, context in
            let name = try context.pathParameter("image")
            let force = try Query(request, known: ["force"]).flag("force")
            let table = table
            let done = try await working {
                try images.remove(name, force: force, inUse: PodExecutor.imagesInUse(table.all))
            }
            inventoryChanged()
            var removal = Wire.ImageRemoval(done.steps)
            removal.freed = Int64(clamping: done.bytes)
            return try Response.json(removal)
        }
        group.post("collect") { request, context in
            let table = table
            let wish = try await request.json(CollectImages.self, context)
            guard wish.keep.count <= 100_000 else {
                throw APIError.badRequest("$.keep: \(wish.keep.count) digests are more than 100000")
            }
            let kept = Set(wish.keep.compactMap { Digest($0) })
            let garbage = try await working {
                try images.collectGarbage(
                    inUse: PodExecutor.imagesInUse(table.all).union(kept), untagged: true)
            }
            inventoryChanged()
            return try Response.json(
                Wire.ImageRemoval(
                    deleted: garbage.images.map(\.description), freed: Int64(clamping: garbage.bytes)))
        }
    }

    private func importImage(_ request: Request) async throws -> Response {
        let query = try Query(request, known: ["name", "os", "architecture", "config"])
        let name = query["name"]
        var platform = Images.Platform.host
        if let os = query["os"] { platform.os = os }
        if let architecture = query["architecture"], architecture != platform.architecture {
            platform = Images.Platform(os: platform.os, architecture: architecture)
        }
        let given = try query["config"].map {
            try JSONCoding.decode(ImageImportConfig.self, from: Array($0.utf8), strict: true)
        }
        let (chosen, config) = (platform, ImageConfig(given ?? ImageImportConfig()))
        let comment = given?.comment ?? "imported from a tar archive"
        let image = try await explainingImages {
            try await transfers.upload(request.body) {
                try images.importTar($0, name: name, platform: chosen, config: config, comment: comment)
            }
        }
        inventoryChanged()
        return try Response.json(image.view, status: .created)
    }

    private func save(_ request: Request) async throws -> Response {
        var names: [String] = []
        var format = ImageArchiveFormat.docker
        // Names are repeated, which `Query` takes for a mistake.
        for element in (request.uri.query ?? "").split(separator: "&") {
            let pair = element.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard pair.count == 2, let value = PercentEncoding.decode(pair[1]) else {
                throw APIError.badRequest("'\(element)' in the query is not understood")
            }
            switch pair[0] {
            case "name": names.append(value)
            case "format":
                guard let known = ImageArchiveFormat(rawValue: value) else {
                    throw APIError.badRequest("format=\(value) in the query is neither docker nor oci")
                }
                format = known
            default:
                throw APIError.badRequest("the query parameter '\(pair[0])' is not known here", code: "unknown-field")
            }
        }
        guard !names.isEmpty, names.count <= 1000 else { throw APIError.badRequest("name one image or more to save") }
        let (wanted, chosen) = (names, format)
        // What is not there is said before the answer begins.
        try await working { for name in wanted { _ = try images.resolve(name) } }
        return Response(
            status: .ok, headers: [.contentType: "application/x-tar"],
            body: transfers.download { try images.save(wanted, format: chosen, to: $0) })
    }

    /// Does something with the store that waits for nobody; not on the transfers' pool, where clients who send slowly may
    /// have all threads.
    private func working<Result: Sendable>(
        _ body: @escaping @Sendable () throws -> Result
    ) async throws -> Result {
        try await explainingImages { try await executor.pool.run(body) }
    }

    /// Gives the store's errors the API's shape.
    func explainingImages<Result>(_ body: () async throws -> Result) async throws -> Result {
        do {
            return try await body()
        } catch let error as ImageError {
            switch error.kind {
            case .invalidArgument, .invalidArchive, .unsupported: throw APIError.badRequest(error.message)
            case .limitExceeded: throw APIError.tooLarge(error.message)
            case .notFound: throw APIError.notFound(error.message)
            case .ambiguous, .inUse: throw APIError.conflict(error.message)
            case .noSpace: throw APIError(status: 507, code: "storage-full", message: error.message)
            case .system where error.message.contains("Read-only file system"): throw APIError.conflict(error.message)
            // The API's own login is another matter than the one at a registry.
            case .unauthorized: throw APIError(status: 502, code: "registry-login", message: error.message)
            case .unavailable: throw APIError.unavailable(error.message, code: "registry-unavailable")
            case .corrupted, .system: throw APIError.internalError(error.message)
            }
        }
    }
}

extension ImageConfig {
    init(_ given: ImageImportConfig) {
        self.init()
        entrypoint = given.entrypoint
        command = given.command
        environment = given.environment ?? []
        workingDirectory = given.workingDirectory ?? ""
        user = given.user ?? ""
        labels = given.labels ?? [:]
        exposedPorts = (given.exposedPorts ?? []).sorted()
        stopSignal = given.stopSignal ?? ""
        volumes = Set(given.volumes ?? []).sorted()
        healthCheck = given.healthCheck.map { HealthCheck($0) }
        shell = given.shell
        onBuild = given.onBuild
    }
}

extension Wire.ImageDetails {
    init(_ details: Images.ImageDetails) {
        let config = details.config
        self.init(
            image: details.record.view, entrypoint: config.entrypoint ?? [], command: config.command ?? [],
            environment: config.environment, workingDirectory: config.workingDirectory, user: config.user,
            labels: config.labels, exposedPorts: config.exposedPorts, volumes: config.volumes,
            stopSignal: config.stopSignal, layers: details.record.layers.map(\.diffID.description))
        healthCheck = config.healthCheck.map { check in
            var wire = ImageHealthCheck(test: check.test ?? [])
            wire.interval = check.interval
            wire.timeout = check.timeout
            wire.startPeriod = check.startPeriod
            wire.startInterval = check.startInterval
            wire.retries = check.retries
            return wire
        }
        shell = config.shell
        onBuild = config.onBuild
        author = details.author.isEmpty ? nil : details.author
        variant = details.record.platform.variant
        comment = details.history.last.flatMap { $0.comment.isEmpty ? nil : $0.comment }
        history = details.history.map { step in
            Step(
                createdAt: step.created, createdBy: step.createdBy, comment: step.comment,
                size: Int64(clamping: step.layer?.unpackedSize ?? 0))
        }
    }
}

extension Wire.ImageRemoval {
    init(_ done: [Images.ImageRemoval]) {
        self.init()
        for step in done {
            switch step {
            case .untagged(let name): untagged.append(name.familiar)
            case .deleted(let digest): deleted.append(digest.description)
            }
        }
    }
}
