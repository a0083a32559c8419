import AgentCore
import Model
import Networking
import Testing
import Wire

@testable import Agent

@Suite("Names of containers on networks that users made")
struct NetworkMembersTests {
    private static func record(
        _ name: String, _ places: [(network: String, address: String)], links: [String: String] = [:], runs: Bool = true
    ) -> TaskRecord {
        var pod = PodSpec(containers: [Model.ContainerSpec(image: "busybox")], network: .attached)
        pod.attachments = places.map { place in
            var attachment = Model.NetworkAttachment(network: place.network)
            attachment.aliases = ["\(name)-\(place.network)"]
            attachment.links = links
            return attachment
        }
        var record = TaskRecord(
            TaskAssignment(
                task: TaskID("t-\(name)"), instance: InstanceID(name), instanceName: name,
                containers: [ContainerID("c-\(name)")], workload: WorkloadID(name), workloadName: name,
                kind: .container, labels: [:], revision: 1, epoch: 1, desired: .running, generation: 1, stop: nil,
                pod: pod, ports: []), bootID: "b")
        record.endpoints = places.map {
            NetworkEndpoint(network: $0.network, address: "\($0.address)/16", gateway: "", mac: "")
        }
        record.container.state = runs ? .running : .exited
        return record
    }

    @Test("A pod finds itself, and who runs on its networks, under all names and its own links, and nobody else")
    func peers() {
        let web = Self.record("web", [("red", "10.1.0.2"), ("blue", "10.2.0.2")], links: ["db": "c-data"])
        let all = [
            web, Self.record("data", [("red", "10.1.0.3")]), Self.record("far", [("green", "10.3.0.2")]),
            Self.record("off", [("red", "10.1.0.4")], runs: false), Self.record("both", [("blue", "10.2.0.9")]),
        ]
        let peers = NetworkMembers.peers(
            of: web.assignment, "host1", web.endpoints ?? [], among: NetworkMembers(all))
        #expect(
            peers == [
                TaskFiles.Peer(address: "10.2.0.2", names: ["host1"]),
                TaskFiles.Peer(address: "10.1.0.2", names: ["web", "web-red", "c-web"]),
                TaskFiles.Peer(address: "10.2.0.2", names: ["web", "web-blue", "c-web"]),
                TaskFiles.Peer(address: "10.1.0.3", names: ["data", "data-red", "c-data", "db"]),
                TaskFiles.Peer(address: "10.2.0.9", names: ["both", "both-blue", "c-both"]),
            ])
    }

    @Test("A hosts file has an end, however many there are")
    func bounded() {
        let all = (0..<3000).map { Self.record("n\($0)", [("red", "10.1.\($0 / 250).\($0 % 250)")]) }
        let peers = NetworkMembers.peers(
            of: all[0].assignment, "host1", all[0].endpoints ?? [], among: NetworkMembers(all))
        #expect(peers.count == NetworkMembers.most)
    }
}
