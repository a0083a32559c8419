import Client
import Glibc
import JSON
import Kernel
import Model
import NIOHTTP1
import Testing
import Wire

@testable import UnifiedAPI

@Suite struct SecretsOverTheAPI {
    private static let value = "correct horse battery staple"
    private static let coded = Base64.encode(Array(value.utf8))

    private static func container(_ name: String, with secret: String) -> CreateContainer {
        var pod = pod()
        pod.containers[0].mounts = [Mount(.secret(name: secret), target: "/run/secrets/\(secret)")]
        return CreateContainer(name: name, pod: pod)
    }

    @Test func aValueComesInAndIsNotShownAgain() async throws {
        try await withMaster { client, _ in
            let created = try await client.request(
                .POST, APIPaths.secrets, body: .json(CreateFile(name: "password", data: Self.coded)))
            #expect(created.status == 201)
            var shown = String(decoding: try await created.bytes(), as: UTF8.self)
            for path in [APIPaths.secrets, "\(APIPaths.secrets)/password", APIPaths.events] {
                shown += String(decoding: try await client.request(.GET, path).checked().bytes(), as: UTF8.self)
            }
            #expect(shown.contains("\"password\""))
            #expect(!shown.contains(Self.value) && !shown.contains(Self.coded))
            #expect(try await client.request(.DELETE, "\(APIPaths.secrets)/password").status == 204)
            #expect(try await client.refusal(.GET, "\(APIPaths.secrets)/password").status == 404)
        }
    }

    @Test func aConfigIsShownToWhomeverInspectsIt() async throws {
        try await withMaster { client, _ in
            try await client.send(.POST, APIPaths.configs, body: .json(CreateFile(name: "motd", data: Self.coded)))
            let view: ConfigView = try await client.json(.GET, "\(APIPaths.configs)/motd")
            #expect(view.data == Self.coded && view.size == Self.value.utf8.count)
        }
    }

    @Test func refusalsNeverRepeatTheValue() async throws {
        try await withMaster { client, _ in
            let broken = "c2VjcmV0!c2VjcmV0"
            for body in [
                #"{"name": "a", "data": "\#(broken)"}"#, #"{"name": "a", "data": ["\#(broken)"]}"#,
                #"{"name": "a", "data": "\#(broken)", "more": 1}"#, #"{"name": "a", "data": "\#(broken)"#,
                #"{"name": "a/b", "data": "\#(Self.coded)"}"#,
            ] {
                let refusal = try await client.refusal(.POST, APIPaths.secrets, body: body)
                #expect(refusal.status == 400, "\(body)")
                #expect(!refusal.message.contains("c2VjcmV0") && !refusal.message.contains(Self.coded), "\(refusal)")
            }
            let large = Base64.encode([UInt8](repeating: 1, count: Secret.maximumSize + 1))
            let refusal = try await client.refusal(
                .POST, APIPaths.secrets, body: #"{"name": "a", "data": "\#(large)"}"#)
            #expect(refusal.status == 413)
            try await client.send(
                .POST, APIPaths.secrets, body: .json(CreateFile(name: "a", data: String(large.dropLast(4)))))
        }
    }

    @Test func theNodeOfATaskIsGivenItsValuesAndNobodyKeepsThem() async throws {
        try await withMaster { client, place in
            let node = TestNode(client, place)
            try await node.join()
            try await client.send(.POST, APIPaths.secrets, body: .json(CreateFile(name: "password", data: Self.coded)))
            try await client.send(.POST, APIPaths.secrets, body: .json(CreateFile(name: "other", data: Self.coded)))
            try await client.send(.POST, APIPaths.containers, body: .json(Self.container("c", with: "password")))
            let task = try #require(try await node.tasks().first)
            let path = "\(APIPaths.nodes)/\(node.id)/tasks/\(task.task)/secrets"
            let answer = try await client.request(.GET, path)
            #expect(answer.status == 200 && answer.headers.first(name: "Cache-Control") == "no-store")
            let given = try JSONCoding.decode(TaskSecrets.self, from: try await answer.bytes())
            #expect(given.secrets == ["password": Self.coded] && given.configs.isEmpty)

            let stranger = "\(APIPaths.nodes)/node2/tasks/\(task.task)/secrets"
            #expect(try await client.refusal(.GET, stranger).status == 403)
            #expect(try await client.refusal(.GET, "\(APIPaths.nodes)/\(node.id)/tasks/x/secrets").status == 403)
            #expect(try await client.refusal(.DELETE, "\(APIPaths.secrets)/password").message.contains("c"))
            for name in try File.list("\(place)/data/store") {
                let text = String(
                    decoding: try File.read("\(place)/data/store/\(name)", limit: 64 << 20), as: UTF8.self)
                #expect(!text.contains(Self.value) && !text.contains(Self.coded), "\(name)")
            }
        }
    }

    @Test func aStoreWithoutItsKeyIsServedAndSaysWhatIsLost() async throws {
        let place = "/tmp/martlet-api-\(UInt64.random(in: 0...UInt64.max))"
        defer { _ = try? Tree.remove(place) }
        let key = "\(place)/data/store/secrets.key"
        try await withMaster(in: place) { client, place in
            try await TestNode(client, place).join()
            #expect(!File.exists(key), "made when it is needed")
            try await client.send(.POST, APIPaths.secrets, body: .json(CreateFile(name: "password", data: Self.coded)))
            try await client.send(.POST, APIPaths.containers, body: .json(Self.container("c", with: "password")))
        }
        let bytes = try File.read(key)
        try File.removeFile(key)
        try await withMaster(in: place) { client, place in
            let node = TestNode(client, place)
            try await node.join()
            let task = try #require(try await node.tasks().first)
            let path = "\(APIPaths.nodes)/\(node.id)/tasks/\(task.task)/secrets"
            let lost = try await client.refusal(.GET, path)
            #expect(lost.status == 503 && lost.message.contains("password") && lost.message.contains(key))
            let another = try await client.refusal(
                .POST, APIPaths.secrets, body: #"{"name": "new", "data": "\#(Self.coded)"}"#)
            #expect(another.status == 503 && another.message.contains("restore"))
            #expect(!File.exists(key), "a new key would make the old secrets worthless for good")

            try File.replace(key, with: bytes)
            let given: TaskSecrets = try await client.json(.GET, path)
            #expect(given.secrets["password"] == Self.coded)
        }
        chmod(key, 0o644)
        await #expect(throws: (any Error).self) { try await withMaster(in: place) { _, _ in } }
    }
}
