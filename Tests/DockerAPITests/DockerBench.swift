import Client
import HTTPService
import JSON
import Kernel
import Logging
import Master
import Model
import NIOHTTP1
import UnifiedAPI
import Wire

@testable import DockerAPI

/// A real master with Docker's face on a socket of its own, and nodes that this test plays.
struct DockerBench: Sendable {
    let client: APIClient
    let place: String

    /// Runs it for as long as `work` takes.
    static func run(_ work: @escaping @Sendable (DockerBench) async throws -> Void) async throws {
        let place = "/tmp/martlet-docker-\(UInt64.random(in: 0...UInt64.max))"
        defer { _ = try? Tree.remove(place) }
        var configuration = MasterConfiguration()
        configuration.dataDirectory = "\(place)/data"
        configuration.runDirectory = "\(place)/run"
        configuration.group = nil
        var logger = Logger(label: "test")
        logger.logLevel = .critical
        let daemon = try await MasterDaemon(configuration, faces: [UnifiedAPI.face, DockerAPI.face], logger: logger)
        let bench = DockerBench(client: APIClient(.unix(path: "\(place)/run/martlet.sock")), place: place)
        try await withThrowingTaskGroup(of: Void.self) { group in
            defer { group.cancelAll() }
            group.addTask { try await daemon.run() }
            group.addTask { try await work(bench) }
            try await group.next()
        }
    }

    // MARK: The client

    struct Answer {
        let status: Int
        let json: JSONValue?

        var message: String { json?["message"]?.stringValue ?? "" }
    }

    func ask(_ method: HTTPMethod, _ path: String, body: String? = nil) async throws -> Answer {
        let content = body.map { APIClient.Body.bytes(Array($0.utf8), contentType: "application/json") } ?? .none
        let response = try await client.request(method, path, body: content)
        let bytes = try await response.bytes()
        return Answer(status: response.status, json: bytes.isEmpty ? nil : try JSONValue.parse(bytes))
    }

    /// The members of a list.
    func list(_ query: String = "all=1", version: String = "") async throws -> [JSONValue] {
        let answer = try await ask(.GET, "\(version)/containers/json?\(query)")
        guard answer.status == 200, case .array(let list)? = answer.json else {
            throw Unexpected(what: "\(answer.status) \(answer.message)")
        }
        return list
    }

    /// Names in a list, without the slash before them.
    func names(filters: String, _ query: String = "all=1&") async throws -> [String] {
        try await list("\(query)filters=\(PercentEncoding.encode(filters))").map { container in
            guard case .array(let names)? = container["Names"], let name = names.first?.stringValue else {
                throw Unexpected(what: "a container without a name")
            }
            return String(name.dropFirst())
        }
    }

    struct Unexpected: Error { let what: String }

    // MARK: Containers

    static let digest = "sha256:" + String(repeating: "1", count: 64)
    static let imageID = "sha256:" + String(repeating: "2", count: 64)

    func create(
        _ name: String, removeOnExit: Bool = false, _ change: (inout PodSpec) -> Void = { _ in }
    ) async throws {
        var pod = PodSpec(containers: [ContainerSpec(image: "web")])
        change(&pod)
        try await client.send(
            .POST, APIPaths.containers,
            body: .json(CreateContainer(name: name, pod: pod, removeOnExit: removeOnExit, start: false)))
    }

    func view(_ name: String) async throws -> ContainerView {
        try await client.json(.GET, "\(APIPaths.containers)/\(name)")
    }
}

/// A node that does what it is told as soon as it looks, see `obey`.
struct PlayedNode: Sendable {
    let bench: DockerBench
    let name: String

    init(_ bench: DockerBench, _ name: String = "one") async throws {
        self.bench = bench
        self.name = name
        let node = Node(
            id: NodeID(name), name: name, platform: Platform(os: "linux", architecture: "amd64"),
            capacity: Resources(cpu: 2_000_000_000, memory: 4 << 30), address: "10.9.8.7",
            streamEndpoint: "unix:\(bench.place)/run/\(name).sock", agentVersion: "1", kernelVersion: "6", bootID: "b",
            createdAt: .now())
        try await bench.client.send(.POST, APIPaths.nodes, body: .json(NodeRegistration(node: node)))
        let image = ImageView(
            names: ["web:latest"], digest: DockerBench.digest, id: DockerBench.imageID, size: 1000,
            platform: node.platform, createdAt: nil)
        try await report(NodeReport(full: true, images: [image], volumes: []))
    }

    func report(_ report: NodeReport) async throws {
        try await bench.client.send(.POST, "\(APIPaths.nodes)/\(name)/status", body: .json(report))
    }

    func tasks() async throws -> [TaskAssignment] {
        try await bench.client.json(.GET, "\(APIPaths.nodes)/\(name)/tasks")
    }

    /// Does what all tasks are wanted to be, once.
    func obey() async throws {
        for task in try await tasks() { try await report(task, Self.obedient(task)) }
    }

    /// Does so until it is cancelled.
    func serve() async throws {
        while !Task.isCancelled {
            try await obey()
            try await Task.sleep(for: .milliseconds(10))
        }
    }

    static func obedient(_ task: TaskAssignment) -> TaskStatus {
        switch task.desired {
        case .prepared: TaskStatus(phase: .prepared, generation: task.generation)
        case .running: status(task, .running)
        case .paused: status(task, .paused)
        case .stopped: status(task, .exited, exitCode: 137)
        case .removed: status(task, .removed, exitCode: 137)
        }
    }

    static func status(
        _ task: TaskAssignment, _ phase: TaskStatus.Phase, exitCode: Int? = nil, start: Int = 1,
        endedAt: Int64? = nil, restartAt: Timestamp? = nil, message: String = ""
    ) -> TaskStatus {
        let state: ContainerStatus.State =
            switch phase {
            case .running: .running
            case .paused: .paused
            default: .exited
            }
        let finished = exitCode.map { _ in Timestamp(nanoseconds: endedAt ?? 1_700_000_000_000_000_000) }
        return TaskStatus(
            phase: phase, generation: task.generation,
            containers: [
                ContainerStatus(
                    name: "main", id: task.containers[0], state: state, start: start,
                    startedAt: .now(), finishedAt: finished, exitCode: exitCode)
            ], restartAt: restartAt, message: message, serving: phase == .running)
    }

    func report(_ task: TaskAssignment, _ status: TaskStatus) async throws {
        try await report(
            NodeReport(tasks: [.init(task: task.task, instance: task.instance, epoch: task.epoch, status: status)]))
    }

    /// The task of a container.
    func task(_ container: String) async throws -> TaskAssignment {
        for _ in 0..<500 {
            if let task = try await tasks().first(where: { $0.instanceName == container }) { return task }
            try await Task.sleep(for: .milliseconds(10))
        }
        throw DockerBench.Unexpected(what: "\(container) has no task")
    }
}
