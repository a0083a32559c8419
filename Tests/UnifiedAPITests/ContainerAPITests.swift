import Client
import JSON
import Model
import NIOCore
import NIOHTTP1
import StreamFrames
import Testing
import Wire

@testable import UnifiedAPI

@Suite struct ContainersOverTheAPI {
    @Test func fromCreationToRemoval() async throws {
        try await withMaster { client, place in
            let node = TestNode(client, place)
            try await node.join()
            let response = try await client.request(
                .POST, APIPaths.containers, body: .json(CreateContainer(name: "web", pod: pod())))
            #expect(response.status == 201)
            let view = try JSONCoding.decode(ContainerView.self, from: try await response.bytes())
            #expect(response.headers.first(name: "Location") == "\(APIPaths.containers)/\(view.id)")
            let task = try #require(try await node.tasks().first)
            try await node.report(task, .running)
            let started: WaitResult = try await client.json(
                .POST, "\(APIPaths.containers)/web/wait", query: ["condition": "started"])
            #expect(started.exitCode == 0)
            #expect(try await client.refusal(.DELETE, "\(APIPaths.containers)/web").status == 409)
            #expect(try await client.request(.POST, "\(APIPaths.containers)/web/start").status == 304)

            // The head of a wait comes at once, its body when the container ends.
            let wait = try await client.request(.POST, "\(APIPaths.containers)/web/wait")
            #expect(wait.status == 200)
            try await node.report(task, .exited, exitCode: 42)
            let result = try JSONCoding.decode(WaitResult.self, from: try await wait.bytes())
            #expect(result.exitCode == 42)

            async let removal = client.request(.DELETE, "\(APIPaths.containers)/web")
            var going: TaskAssignment?
            while going == nil { going = try await node.tasks().first { $0.desired == .removed } }
            try await node.report(try #require(going), .removed)
            #expect(try await removal.status == 204)
            #expect(try await client.refusal(.GET, "\(APIPaths.containers)/web").code == "not-found")
        }
    }

    @Test func listsAreFilteredAndFollowed() async throws {
        try await withMaster { client, place in
            let node = TestNode(client, place)
            try await node.join()
            for name in ["a", "b"] {
                let wish = CreateContainer(name: name, pod: pod(), labels: ["is": name])
                try await client.send(.POST, APIPaths.containers, body: .json(wish))
            }
            let filtered: [ContainerView] = try await client.json(
                .GET, APIPaths.containers, query: ["all": "true", "label": "is=b"])
            #expect(filtered.map(\.name) == ["b"])
            #expect(try await client.refusal(.GET, "\(APIPaths.containers)?status=well").code == "bad-request")
            #expect(try await client.refusal(.GET, "\(APIPaths.containers)?colour=red").code == "unknown-field")

            var lines = try await client.lines(
                .GET, APIPaths.containers, query: ["watch": "true", "status": "running"]
            ).decoded(as: WatchLine<ContainerView>.self).makeAsyncIterator()
            #expect(try await lines.next()?.change == .synced)
            let task = try #require(try await node.tasks().first { $0.instanceName == "a" })
            try await node.report(task, .running)
            let put = try await lines.next()
            #expect(put?.object?.name == "a")
            // It does not fit the filter any more.
            try await node.report(task, .exited, exitCode: 0)
            let delete = try await lines.next()
            #expect(delete?.change == .delete)
            #expect(delete?.id == put?.id)
        }
    }

    @Test func streamsArePassedThrough() async throws {
        try await withMaster { client, place in
            let node = TestNode(client, place)
            try await node.join()
            try await client.send(.POST, APIPaths.containers, body: .json(CreateContainer(name: "web", pod: pod())))
            try await node.serve {
                let logs = try await client.request(.GET, "\(APIPaths.containers)/web/logs").checked()
                var decoder = FrameDecoder()
                decoder.append(try await logs.bytes())
                #expect(try decoder.next() == .stdout(Array("hello\n".utf8)))

                let session = try await client.upgrade(
                    .POST, "\(APIPaths.containers)/web/attach", query: ["stdin": "true"])
                let frames = session.frames
                let large = [UInt8](repeating: 9, count: 60_000)
                try await frames.send(.stdin(large))
                // The half-close goes through: the agent sees the end and answers with the exit code.
                frames.finish()
                var received: [Frame] = []
                for try await frame in frames { received.append(frame) }
                #expect(received == [.stdin(large), .exit(7)])

                let spec = #"{"command":["true"]}"#
                let refusal = try await client.refusal(
                    .POST, "\(APIPaths.containers)/web/exec?spec=\(PercentEncoding.encode(spec))")
                #expect(refusal.status == 409)
                #expect(refusal.message == "the container is paused")

                let stat = try await client.request(
                    .HEAD, "\(APIPaths.containers)/web/archive", query: ["path": "/etc"])
                #expect(stat.status == 200)
                #expect(stat.headers.first(name: PathStat.header) == "%7B%7D")
            }
            let gone = try await client.refusal(.GET, "\(APIPaths.containers)/web/logs")
            #expect(gone.status == 503)
            #expect(gone.code == "node-unreachable")
        }
    }

    @Test func uploadsAreStreamedBeyondTheBoundOfBodies() async throws {
        try await withMaster { client, place in
            let node = TestNode(client, place)
            try await node.join()
            try await node.serve {
                let pieces = AsyncStream<ByteBuffer> { continuation in
                    for _ in 0..<128 { continuation.yield(ByteBuffer(repeating: 1, count: 64 << 10)) }
                    continuation.finish()
                }
                let view: ImageView = try await client.json(
                    .POST, "\(APIPaths.images)/import", query: ["name": "big"], body: .stream(pieces))
                #expect(view.size == 8 << 20)
                #expect(view.nodes == [NodeID("node1")])
            }
        }
    }

    @Test func badBodiesAreRefusedWithOneSentence() async throws {
        try await withMaster { client, place in
            try await TestNode(client, place).join()
            let path = APIPaths.containers
            func refusal(_ body: String) async throws -> (status: Int, code: String, message: String) {
                try await client.refusal(.POST, path, body: body)
            }
            #expect(try await refusal("").status == 400)
            #expect(try await refusal("{").code == "invalid-json")
            #expect(try await refusal(#"{"pod":3}"#).code == "wrong-type")
            let unknown = try await refusal(#"{"pod":{"containers":[{"image":"web","colour":"red"}]}}"#)
            #expect(unknown.code == "unknown-field")
            #expect(unknown.message.contains("$.pod.containers[0]"))
            let missing = try await refusal(#"{"pod":{"containers":[{"image":"nope"}]},"pull":"never"}"#)
            #expect(missing.status == 404)
            let deep = String(repeating: "[", count: 65) + String(repeating: "]", count: 65)
            #expect(try await refusal(deep).code == "too-deep")
            let large = #"{"name":""# + String(repeating: "a", count: 5 << 20) + #""}"#
            #expect(try await refusal(large).status == 413)
            let invalid = try await client.request(
                .POST, path, body: .bytes([0x22, 0xFF, 0x22], contentType: "application/json"))
            #expect(invalid.status == 400)
            #expect(try await client.refusal(.PUT, path).status == 405)
            let none: [ContainerView] = try await client.json(.GET, path, query: ["all": "true"])
            #expect(none.isEmpty)
        }
    }
}
