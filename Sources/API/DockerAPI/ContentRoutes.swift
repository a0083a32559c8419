import HTTPService
import HTTPTypes
import Hummingbird
import JSON
import Master
import Model
import NIOHTTP1
import Wire

/// What containers have written.
extension DockerAPI {
    var contentRoutes: [DockerRoute] {
        [
            DockerRoute(.get, "/containers/{id}/changes", access: .read) { try await containerChanges($0) },
            DockerRoute(.get, "/containers/{id}/export", access: .work) { call in
                let view = try await container(call.id)
                let (streams, task) = try await streams(of: view)
                let response = try await streams.relay(call.request, .GET, NodeStreams.path(task, "export"))
                guard response.status == .ok else { return response }
                await note(view, "export", ["image": view.spec.image])
                return response
            },
            DockerRoute(.post, "/commit", access: .work) { try await commitContainer($0) },
        ]
    }

    private func containerChanges(_ call: DockerCall) async throws -> Response {
        let (streams, task) = try await streams(of: try await container(call.id))
        let changes = try await call.context.untilPeerCloses {
            try await streams.json([FileChange].self, .GET, NodeStreams.path(task, "changes"))
        }
        let list = changes.map { change -> JSONValue in
            let kind: Int64 =
                switch change.kind {
                case .modified: 0
                case .added: 1
                case .deleted: 2
                }
            return ["Path": .string(change.path), "Kind": .integer(kind)]
        }
        return .json(bytes: list.isEmpty ? JSONValue.null.serialized() : JSONValue.array(list).serialized())
    }

    /// The members of a container's configuration that an image has; what else Docker's clients send says nothing here.
    private struct Config: Decodable, Sendable {
        var user: String?
        var exposedPorts: [String: JSONValue]?
        var environment: [String]?
        var command: CreateRequest.Words?
        var healthCheck: CreateRequest.Healthcheck?
        var volumes: [String: JSONValue]?
        var workingDirectory: String?
        var entrypoint: CreateRequest.Words?
        var onBuild: [String]?
        var labels: [String: String]?
        var stopSignal: String?
        var shell: [String]?

        enum CodingKeys: String, CodingKey {
            case user = "User"
            case exposedPorts = "ExposedPorts"
            case environment = "Env"
            case command = "Cmd"
            case healthCheck = "Healthcheck"
            case volumes = "Volumes"
            case workingDirectory = "WorkingDir"
            case entrypoint = "Entrypoint"
            case onBuild = "OnBuild"
            case labels = "Labels"
            case stopSignal = "StopSignal"
            case shell = "Shell"
        }

        var image: ImageImportConfig {
            func some<Element>(_ list: [Element]?) -> [Element]? { list?.isEmpty ?? true ? nil : list }
            var config = ImageImportConfig(
                entrypoint: some(entrypoint?.list), command: some(command?.list), environment: environment,
                workingDirectory: workingDirectory, user: user, labels: labels,
                exposedPorts: exposedPorts.map { $0.keys.sorted() }, stopSignal: stopSignal)
            config.volumes = volumes.map { $0.keys.sorted() }
            config.onBuild = some(onBuild)
            config.shell = some(shell)
            if let healthCheck, let test = healthCheck.test, !test.isEmpty {
                var check = ImageHealthCheck(test: test)
                check.interval = healthCheck.interval
                check.timeout = healthCheck.timeout
                check.startPeriod = healthCheck.startPeriod
                check.startInterval = healthCheck.startInterval
                check.retries = healthCheck.retries
                config.healthCheck = check
            }
            return config
        }
    }

    private func commitContainer(_ call: DockerCall) async throws -> Response {
        guard let ref = call.query.text("container") else {
            throw DockerError.badRequest("container is missing in the query")
        }
        let view = try await container(ref)
        var config = try await call.optionalBody(Config?.self).flatMap(\.self)?.image ?? ImageImportConfig()
        try ImageChanges.apply(call.query.list("changes"), to: &config)
        let wish = CommitContainer(
            name: try Self.newName(call), author: call.query.text("author"), comment: call.query.text("comment"),
            pause: call.query.flag("pause", or: true), config: config)
        let image = try await master.commitContainer(view.id.text, wish)
        await note(
            view, "commit",
            ["image": view.spec.image, "imageID": image.id, "imageRef": wish.name ?? "", "comment": wish.comment ?? ""])
        return .json(bytes: JSONValue.object(["Id": .string(image.id)]).serialized(), status: .created)
    }
}
