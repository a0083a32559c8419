import JSON
import MasterCore
import Model
import Testing
import Wire

@Suite struct EventsOfContainers {
    private func run(_ cluster: inout Cluster, labels: [String: String] = [:]) throws -> ContainerView {
        try cluster.addNode("n1")
        var spec = ContainerSpec(image: "web:latest")
        spec.labels = ["tier": "front", "both": "of the image"]
        let labels = labels.merging(["both": "of the user"]) { given, _ in given }
        try cluster.perform(
            .createContainer(
                CreateContainer(name: "web", pod: PodSpec(containers: [spec]), labels: labels)))
        cluster.obey()
        return try cluster.container("web")
    }

    private func report(_ cluster: inout Cluster, _ action: String, _ attributes: [String: String], of id: ContainerID)
    {
        let event = Event(
            time: cluster.now, kind: "container", action: action, id: id.text, name: "x", attributes: attributes)
        cluster.send(.report("n1", NodeReport(events: [event])))
    }

    @Test func eachCarriesNameImageLabelsAndNode() throws {
        var cluster = try Cluster()
        let view = try run(&cluster)
        report(&cluster, "die", ["exitCode": "3", "image": "a lie", "tier": "a lie too"], of: view.id)
        cluster.send(.removeContainer("web", force: true))
        cluster.obey()
        let events = cluster.events.filter { $0.kind == "container" }
        #expect(events.map(\.action) == ["create", "die", "destroy"])
        for event in events {
            #expect(event.id == view.id.text)
            #expect(event.name == "web")
            #expect(event.group == "/")
            #expect(event.attributes["name"] == "web")
            #expect(event.attributes["image"] == "web:latest")
            #expect(event.attributes["both"] == "of the user")
        }
        #expect(events[1].attributes["node.name"] == "n1")
        #expect(events[1].attributes["exitCode"] == "3")
    }

    @Test func aServicesContainersAreCreatedToo() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        try cluster.perform(.createService(CreateService(name: "app", pod: cluster.pod())))
        let event = try #require(cluster.events.first { $0.kind == "container" && $0.action == "create" })
        #expect(event.id == (try cluster.container("app.1").id.text))
        #expect(event.name == "app.1")
    }

    @Test func signalsThatEndNothingAreToldWithTheirName() throws {
        var cluster = try Cluster()
        _ = try run(&cluster)
        try cluster.perform(.act("web", .kill, ContainerAction(signal: "1")))
        #expect(cluster.events.last?.action == "kill")
        #expect(cluster.events.last?.attributes["signal"] == "SIGHUP")
    }

    @Test func hugeLabelsStayOutOfTheHistory() throws {
        var cluster = try Cluster()
        let view = try run(&cluster, labels: ["huge": String(repeating: "x", count: 10_000), "able": "small"])
        report(&cluster, "oom", [:], of: view.id)
        let event = try #require(cluster.events.last)
        #expect(event.action == "oom")
        #expect(event.attributes["huge"] == nil)
        #expect(event.attributes["able"] == "small")
        #expect(event.attributes["image"] == "web:latest")
    }
}
