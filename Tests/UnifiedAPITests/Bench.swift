import Client
import HTTPService
import HTTPTypes
import Hummingbird
import JSON
import Kernel
import Logging
import Master
import Model
import NIOCore
import NIOHTTP1
import StreamFrames
import Testing
import Wire

@testable import UnifiedAPI

/// A real master on a socket of its own, for as long as `work` takes.
func withMaster(
    in directory: String? = nil, _ work: @escaping @Sendable (APIClient, String) async throws -> Void
) async throws {
    let place = directory ?? "/tmp/martlet-api-\(UInt64.random(in: 0...UInt64.max))"
    defer { if directory == nil { _ = try? Tree.remove(place) } }
    var configuration = MasterConfiguration()
    configuration.dataDirectory = "\(place)/data"
    configuration.runDirectory = "\(place)/run"
    configuration.group = nil
    var logger = Logger(label: "test")
    logger.logLevel = .critical
    let daemon = try await MasterDaemon(configuration, faces: [UnifiedAPI.face], logger: logger)
    try await withThrowingTaskGroup(of: Void.self) { group in
        defer { group.cancelAll() }
        group.addTask { try await daemon.run() }
        group.addTask { try await work(APIClient(.unix(path: "\(place)/run/martlet.sock")), place) }
        try await group.next()
    }
}

/// A node without containers: it says what it is told to say, and serves a stream port.
struct TestNode: Sendable {
    static let digest = "sha256:" + String(repeating: "1", count: 64)
    static let image = ImageView(
        names: ["web:latest"], digest: digest, id: digest, size: 1,
        platform: Platform(os: "linux", architecture: "amd64"), createdAt: nil)

    let master: APIClient
    let socket: String
    let id = "node1"

    init(_ master: APIClient, _ place: String) {
        self.master = master
        socket = "\(place)/run/agent.sock"
    }

    func join() async throws {
        let node = Node(
            id: NodeID(id), name: "one", platform: Platform(os: "linux", architecture: "amd64"),
            features: ["overlay", "cni"], capacity: Resources(cpu: 2_000_000_000, memory: 4 << 30),
            address: "127.0.0.1", streamEndpoint: "unix:\(socket)", agentVersion: "1", kernelVersion: "6", bootID: "b",
            createdAt: .now())
        try await master.send(.POST, APIPaths.nodes, body: .json(NodeRegistration(node: node)))
        try await report(NodeReport(full: true, images: [Self.image], volumes: []))
    }

    func report(_ report: NodeReport) async throws {
        try await master.send(.POST, "\(APIPaths.nodes)/\(id)/status", body: .json(report))
    }

    func tasks() async throws -> [TaskAssignment] {
        try await master.json(.GET, "\(APIPaths.nodes)/\(id)/tasks")
    }

    func report(_ task: TaskAssignment, _ phase: TaskStatus.Phase, exitCode: Int? = nil) async throws {
        let container = ContainerStatus(
            name: "main", id: task.containers[0], state: phase == .running ? .running : .exited, start: 1,
            exitCode: exitCode)
        let status = TaskStatus(
            phase: phase, generation: task.generation, containers: [container], serving: phase == .running,
            servingSince: phase == .running ? .now() : nil)
        try await report(
            NodeReport(tasks: [.init(task: task.task, instance: task.instance, epoch: task.epoch, status: status)]))
    }

    /// Serves a stream port that echoes sessions, and has one line of log.
    func serve(_ work: @escaping @Sendable () async throws -> Void) async throws {
        let router = makeRouter()
        router.get("/node/v1/tasks/{task}/logs") { _, _ in
            Response(
                status: .ok, headers: [.contentType: "application/vnd.martlet.frames"],
                body: ResponseBody(byteBuffer: ByteBuffer(bytes: Frame.stdout(Array("hello\n".utf8)).encoded())))
        }
        router.post("/node/v1/tasks/{task}/attach") { request, context in
            try context.takeOver(request, as: "martlet-frames") { stream in
                for try await bytes in stream.inbound { try await stream.write(bytes) }
                try await stream.write(Frame.exit(7).encoded())
                stream.finish()
            }
        }
        router.post("/node/v1/tasks/{task}/exec") { _, _ -> Response in
            throw APIError.conflict("the container is paused")
        }
        router.head("/node/v1/tasks/{task}/archive") { _, _ in
            Response(status: .ok, headers: [PathStat.field: "%7B%7D"])
        }
        router.post("/node/v1/images/import") { request, _ in
            var size: Int64 = 0
            for try await piece in request.body { size += Int64(piece.readableBytes) }
            var view = Self.image
            view.size = size
            return try Response.json(view, status: .created)
        }
        router.post("/node/v1/network-check") { request, context in
            let wish = try await request.json(NetworkCheckRequest.self, context)
            return try Response.json(
                NetworkCheck(differences: ["the route to 10.64.0.0/26 is missing"], repaired: wish.repair))
        }
        router.post("/node/v1/devices/{device}/clear") { _, context in
            let id = try context.pathParameter("device")
            guard id != "GPU-b" else { throw APIError.conflict("its driver has told of no error of it") }
            return try Response.json(ClearedDevice(id: id, forgotten: ["XID 79"], health: NodeDevice.Health()))
        }
        router.get("/node/v1/images") { _, _ in try Response.json([Self.image]) }
        var logger = Logger(label: "node")
        logger.logLevel = .critical
        let server = try await HTTPServer.listen(
            on: [.unix(path: socket, group: nil)], router: router, role: "agent", logger: logger)
        try await withThrowingTaskGroup(of: Void.self) { group in
            defer { group.cancelAll() }
            group.addTask { try await server.run() }
            group.addTask { try await work() }
            try await group.next()
        }
    }
}

extension PathStat {
    /// A token by its spelling, so it is a valid name.
    static let field = HTTPField.Name(header) ?? .contentType
}

func pod() -> PodSpec { PodSpec(containers: [ContainerSpec(image: "web")]) }

extension APIClient {
    func container(_ name: String) async throws -> ContainerView {
        try await json(.GET, "\(APIPaths.containers)/\(name)")
    }

    /// Status and the error's code.
    func refusal(
        _ method: HTTPMethod, _ path: String, body: String? = nil
    ) async throws -> (status: Int, code: String, message: String) {
        let content = body.map { APIClient.Body.bytes(Array($0.utf8), contentType: "application/json") } ?? .none
        let response = try await request(method, path, body: content)
        let error = try JSONValue.parse(try await response.bytes())["error"]
        return (response.status, error?["code"]?.stringValue ?? "", error?["message"]?.stringValue ?? "")
    }
}
