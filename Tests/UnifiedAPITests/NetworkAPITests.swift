import Client
import HTTPService
import Hummingbird
import JSON
import Model
import NIOHTTP1
import Testing
import Wire

@testable import UnifiedAPI

@Suite struct NetworksByTheAPI {
    @Test func aNodeFollowsItsPeers() async throws {
        try await withMaster { client, place in
            let node = TestNode(client, place)
            try await node.join()
            try await Self.join("node2", client, place)
            let path = "\(APIPaths.nodes)/node1/peers"
            var lines = try await client.lines(.GET, path, query: ["watch": "true"])
                .decoded(as: WatchLine<NetworkPeer>.self).makeAsyncIterator()
            #expect(try await lines.next()?.change == .synced)
            let made: NetworkView = try await client.json(
                .POST, APIPaths.networks, body: .json(CreateNetwork(name: "net", driver: "overlay", isIPv6: true)))
            let network = made.network
            #expect(network.isOverlay && network.vni == 4096 && !network.subnet6.isEmpty)
            var pod = pod()
            pod.network = .attached
            pod.attachments = [NetworkAttachment(network: "net")]
            try await client.send(
                .POST, APIPaths.services, body: .json(CreateService(name: "s", pod: pod, scale: .replicated(2))))
            let put = try await lines.next()
            #expect(put?.change == .put && put?.id == "\(network.id)/node2")
            #expect(put?.object?.underlay == "127.0.0.2" && put?.object?.blocks.count == 2)
            let tasks = try await node.tasks()
            #expect(tasks.count == 1 && tasks.first?.addresses.map(\.network) == [network.id])
            let list: [NetworkPeer] = try await client.json(.GET, path)
            #expect(list == [try #require(put?.object)])
            let view: NetworkView = try await client.json(.GET, "\(APIPaths.networks)/net")
            #expect(view.nodes.map(\.node.text).sorted() == ["node1", "node2"])
            // A newer watch ends the older, and begins with all.
            var newer = try await client.lines(.GET, path, query: ["watch": "true"])
                .decoded(as: WatchLine<NetworkPeer>.self).makeAsyncIterator()
            #expect(try await lines.next() == nil)
            #expect(try await newer.next()?.object == list.first)
            #expect(try await newer.next()?.change == .synced)
            #expect(try await client.refusal(.GET, "\(APIPaths.nodes)/nobody/peers").status == 404)
            try await client.send(.DELETE, "\(APIPaths.services)/s", query: ["force": "true"])
        }
    }

    private static func join(_ id: String, _ client: APIClient, _ place: String) async throws {
        let node = Node(
            id: NodeID(id), name: id, platform: Platform(os: "linux", architecture: "amd64"),
            features: ["overlay"], capacity: Resources(cpu: 2_000_000_000, memory: 4 << 30), address: "127.0.0.2",
            streamEndpoint: "unix:\(place)/run/\(id).sock", agentVersion: "1", kernelVersion: "6", bootID: "b",
            createdAt: .now())
        try await client.send(.POST, APIPaths.nodes, body: .json(NodeRegistration(node: node)))
        let report = NodeReport(full: true, images: [TestNode.image], volumes: [])
        try await client.send(.POST, "\(APIPaths.nodes)/\(id)/status", body: .json(report))
    }

    @Test func anAgentComparesItsNetworks() async throws {
        try await withMaster { client, place in
            let node = TestNode(client, place)
            try await node.join()
            let path = "\(APIPaths.nodes)/one/network-check"
            #expect(try await client.refusal(.POST, path, body: "{}").status == 503)
            try await node.serve {
                let seen: NetworkCheck = try await client.json(.POST, path)
                #expect(seen == NetworkCheck(differences: ["the route to 10.64.0.0/26 is missing"], repaired: false))
                let mended: NetworkCheck = try await client.json(
                    .POST, path, body: .json(NetworkCheckRequest(repair: true)))
                #expect(mended.repaired && mended.differences == seen.differences)
            }
            #expect(try await client.refusal(.POST, path, body: #"{"mend": true}"#).status == 400)
            #expect(try await client.refusal(.POST, "\(APIPaths.nodes)/none/network-check").status == 404)
        }
    }
}
