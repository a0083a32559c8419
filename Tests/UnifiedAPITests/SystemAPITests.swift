import Client
import HTTPService
import JSON
import Kernel
import Logging
import Master
import Model
import NIOHTTP1
import Testing
import Wire

@testable import UnifiedAPI

@Suite struct TheMasterAsAWhole {
    @Test func saysHowItIs() async throws {
        try await withMaster { client, place in
            try await TestNode(client, place).join()
            let health = try await client.request(.GET, "/healthz")
            #expect(health.status == 200)
            #expect(String(decoding: try await health.bytes(), as: UTF8.self) == "ok\n")
            let cluster: ClusterView = try await client.json(.GET, APIPaths.cluster)
            #expect(cluster.readyNodes == 1)
            let version: VersionInfo = try await client.json(.GET, APIPaths.version)
            #expect(version.clusterID == cluster.id)
            let metrics = String(decoding: try await client.request(.GET, "/metrics").checked().bytes(), as: UTF8.self)
            #expect(metrics.contains("martlet_nodes{ready=\"true\"} 1\n"))
            for line in metrics.split(separator: "\n") where !line.hasPrefix("#") {
                let parts = line.split(separator: " ")
                #expect(parts.count == 2 && Double(parts[1]) != nil, "\(line)")
            }
        }
    }

    @Test func remembersOverARestart() async throws {
        let place = "/tmp/martlet-api-\(UInt64.random(in: 0...UInt64.max))"
        try await withMaster(in: place) { client, place in
            try await TestNode(client, place).join()
            try await client.send(.POST, APIPaths.containers, body: .json(CreateContainer(name: "web", pod: pod())))
        }
        try await withMaster { client, _ in
            let gone = try await client.refusal(.GET, "\(APIPaths.containers)/web")
            #expect(gone.status == 404)
        }
        try await withMaster(in: place) { client, place in
            #expect(try await client.container("web").name == "web")
            // The node's images are unheard of yet: the master waits for the report rather than refuse.
            let node = TestNode(client, place)
            async let second: ContainerView = client.json(
                .POST, APIPaths.containers, body: .json(CreateContainer(name: "two", pod: pod())))
            try await Task.sleep(for: .milliseconds(100))
            try await node.join()
            let made = try await second
            #expect(made.name == "two")
        }
        _ = try? Tree.remove(place)
    }

    @Test func aSecondMasterOnTheStoreIsRefused() async throws {
        try await withMaster { _, place in
            var configuration = MasterConfiguration()
            configuration.dataDirectory = "\(place)/data"
            configuration.runDirectory = "\(place)/other"
            await #expect {
                _ = try await MasterDaemon(configuration, faces: [], logger: Logger(label: "second"))
            } throws: {
                "\($0)".contains("another master")
            }
        }
    }

    @Test func eventsAreKeptAndFollowed() async throws {
        try await withMaster { client, place in
            let node = TestNode(client, place)
            try await node.join()
            var following = try await client.lines(
                .GET, APIPaths.events, query: ["follow": "true", "kind": "container"]
            ).decoded(as: Event.self).makeAsyncIterator()
            try await client.send(.POST, APIPaths.containers, body: .json(CreateContainer(name: "web", pod: pod())))
            let event = try await following.next()
            #expect(event?.action == "create")
            #expect(event?.name == "web")
            var actions: [String] = []
            for try await event in try await client.lines(.GET, APIPaths.events).decoded(as: Event.self) {
                actions.append("\(event.kind) \(event.action)")
            }
            #expect(actions == ["node register", "node ready", "container create"])
            #expect(try await client.refusal(.GET, "\(APIPaths.events)?since=yesterday").status == 400)
        }
    }

    @Test func aNodesWatchCarriesItsTasks() async throws {
        try await withMaster { client, place in
            let node = TestNode(client, place)
            try await node.join()
            var lines = try await client.lines(.GET, "\(APIPaths.nodes)/node1/tasks", query: ["watch": "true"])
                .decoded(as: WatchLine<TaskAssignment>.self).makeAsyncIterator()
            #expect(try await lines.next()?.change == .synced)
            try await client.send(.POST, APIPaths.containers, body: .json(CreateContainer(name: "web", pod: pod())))
            let put = try await lines.next()
            #expect(put?.object?.instanceName == "web")
            #expect(put?.object?.pod.containers.first?.imageDigest == TestNode.digest)
            // One alone can be asked for, without a watch.
            let path = "\(APIPaths.nodes)/node1/tasks"
            let task = try #require(put?.object?.task)
            let one: [TaskAssignment] = try await client.json(.GET, path, query: ["task": task.text])
            let none: [TaskAssignment] = try await client.json(.GET, path, query: ["task": "x"])
            #expect(one.map(\.task) == [task] && none.isEmpty)
            #expect(try await client.refusal(.GET, "\(path)?watch=true&task=x").status == 400)
            // A newer watch ends the older.
            let newer = try await client.lines(.GET, "\(APIPaths.nodes)/node1/tasks", query: ["watch": "true"])
            var last = try await lines.next()
            while last?.change == .heartbeat { last = try await lines.next() }
            #expect(last == nil)
            _ = newer
            #expect(try await client.refusal(.POST, "\(APIPaths.nodes)/nobody/status", body: "{}").status != 204)
        }
    }

    @Test func servicesScaleAndRoll() async throws {
        try await withMaster { client, place in
            let node = TestNode(client, place)
            try await node.join()
            let wish = CreateService(name: "web", pod: pod(), scale: .replicated(2))
            let made: ServiceView = try await client.json(.POST, APIPaths.services, body: .json(wish))
            #expect(made.wanted == 2)
            let scaled: ServiceView = try await client.json(
                .PATCH, "\(APIPaths.services)/web", body: .json(UpdateService(scale: .replicated(3))))
            #expect(scaled.wanted == 3)
            #expect(try await node.tasks().map(\.instanceName).sorted() == ["web.1", "web.2", "web.3"])
            let revisions: [Revision] = try await client.json(.GET, "\(APIPaths.services)/web/revisions")
            #expect(revisions.map(\.number) == [1])
            let stale = try await client.refusal(
                .PATCH, "\(APIPaths.services)/web", body: #"{"ifRevision":9,"labels":{}}"#)
            #expect(stale.status == 409)
        }
    }
}

@Suite struct PrefixedLines {
    @Test func eachWholeLineHasTheName() {
        var prefix = LinePrefix("web.1")
        #expect(prefix.apply(Array("a\nb".utf8)) == Array("web.1 | a\n".utf8))
        #expect(prefix.apply(Array("c\n".utf8)) == Array("web.1 | bc\n".utf8))
        #expect(prefix.apply(Array("d".utf8), end: true) == Array("web.1 | d".utf8))
    }
}
