import JSON
import MasterCore
import Model
import Testing
import Wire

@Suite struct Networks {
    func make(
        _ cluster: inout Cluster, _ name: String, by subject: Subject = .master,
        _ change: (inout CreateNetwork) -> Void = { _ in }
    ) throws -> NetworkView {
        var body = CreateNetwork(name: name)
        change(&body)
        guard case .network(let view) = try cluster.perform(.createNetwork(body), by: subject) else {
            throw APIProblem(.internal, "no view")
        }
        return view
    }

    func refusal(_ cluster: inout Cluster, _ name: String, _ change: (inout CreateNetwork) -> Void) -> APIProblem? {
        var body = CreateNetwork(name: name)
        change(&body)
        return cluster.problem(.createNetwork(body))
    }

    func view(_ cluster: inout Cluster, _ ref: String) throws -> NetworkView? {
        guard case .network(let view) = try cluster.query(.network(ref)) else { return nil }
        return view
    }

    func pod(_ cluster: Cluster, on networks: [NetworkAttachment]) -> PodSpec {
        cluster.pod {
            $0.network = .attached
            $0.attachments = networks
        }
    }

    func run(
        _ cluster: inout Cluster, _ name: String, on networks: [NetworkAttachment], start: Bool = true
    ) throws {
        try cluster.perform(
            .createContainer(CreateContainer(name: name, pod: pod(cluster, on: networks), start: start)))
        cluster.obey()
    }

    // MARK: Making

    @Test func aNetworkHasASubnetThatNoOtherHasAndOutlivesTheMaster() throws {
        var cluster = try Cluster()
        let first = try make(&cluster, "web") { $0.labels = ["a": "b"] }
        let second = try make(&cluster, "db")
        #expect(first.network.subnet == "172.18.0.0/16" && first.network.gateway == "172.18.0.1")
        #expect(second.network.subnet == "172.19.0.0/16")
        #expect(first.network.id.text.utf8.count == 64 && first.nodeName.isEmpty && first.members.isEmpty)
        #expect(cluster.keys("networks/").count == 2)
        try cluster.restart()
        #expect(try view(&cluster, "web") == first)
        #expect(try view(&cluster, first.network.id.text) == first)
        #expect(try view(&cluster, String(second.network.id.text.prefix(6))) == second)
        #expect(cluster.events.contains { $0.kind == "network" && $0.action == "create" && $0.name == "web" })
        for _ in 2..<30 { _ = try make(&cluster, "n\(cluster.keys("networks/").count)") }
        #expect(cluster.keys("networks/").count == 30)
        #expect(
            refusal(&cluster, "more") { _ in }?.message.contains(
                "are all taken, by other networks or nodes: name a free one") == true)
    }

    @Test func whatCannotBeIsRefusedByName() throws {
        var cluster = try Cluster()
        _ = try make(&cluster, "web") { $0.subnet = "10.5.0.0/16" }
        func says(_ name: String, _ words: String, _ change: (inout CreateNetwork) -> Void) {
            let problem = refusal(&cluster, name, change)
            #expect(problem?.message.contains(words) == true, "\(problem?.message ?? "it was made")")
        }
        says("web", "network with name web already exists") { _ in }
        says("bridge", "predefined") { _ in }
        says("x/y", "is no name") { _ in }
        says("a", "Pool overlaps with other one on this address space: 10.5.128.0/24") { $0.subnet = "10.5.128.0/24" }
        says("a", "name it as subnet6") { $0.subnet = "fd00::/64" }
        _ = try make(&cluster, "six") { $0.subnet6 = "fd00:5::/64" }
        says("a", "fd00:5::/64 of the network six") { $0.subnet6 = "fd00:5::/56" }
        says("a", "$.subnet6") { $0.subnet6 = "fd00:6::1/64" }
        says("a", "at most /104") { ($0.subnet, $0.subnet6) = ("11.0.0.0/8", "fd00:6::/112") }
        says("a", "$.gateway6") { ($0.subnet6, $0.gateway6) = ("fd00:6::/64", "fd00:7::1") }
        says("a", "between 1280 and 65535 with IPv6") {
            ($0.isIPv6, $0.options) = (true, ["com.docker.network.driver.mtu": "1279"])
        }
        says("a", "no IPv4 network") { $0.subnet = "10.6.0.1/16" }
        says("a", "no IPv4 network") { $0.subnet = "10.6.0.0/30" }
        says("a", "cannot be routed") { $0.subnet = "127.0.0.0/16" }
        says("a", "$.gateway") { ($0.subnet, $0.gateway) = ("10.6.0.0/16", "10.7.0.1") }
        says("a", "$.gateway") { ($0.subnet, $0.gateway) = ("10.6.0.0/16", "10.6.255.255") }
        says("a", "$.range") { ($0.subnet, $0.range) = ("10.6.0.0/16", "10.0.0.0/8") }
        for end in ["10.6.0.0/32", "10.6.255.255/32"] {
            says("a", "$.range: no host") { ($0.subnet, $0.range) = ("10.6.0.0/16", end) }
        }
        says("a", "$.subnet") { $0.gateway = "10.6.0.1" }
        says("a", "macvlan") { $0.driver = "macvlan" }
        says("a", "com.docker.network.bridge.name") { $0.options = ["com.docker.network.bridge.name": "br 0"] }
        says("a", "enable_icc") { $0.options = ["com.docker.network.bridge.enable_icc": "false"] }
        says("a", "mtu") { $0.options = ["com.docker.network.driver.mtu": "12"] }
        says("a", "color") { $0.options = ["color": "red"] }
        let right = try make(&cluster, "a") {
            ($0.subnet, $0.gateway, $0.range) = ("10.6.0.0/16", "10.6.0.254", "10.6.1.0/24")
            $0.reserved = ["router": "10.6.1.7"]
            $0.options = ["com.docker.network.driver.mtu": "1400", "com.docker.network.bridge.enable_icc": "true"]
        }
        #expect(right.network.range == "10.6.1.0/24" && right.network.gateway == "10.6.0.254")
    }

    @Test func aBridgeMayHaveIPv6AndThenOnlyNodesThatKnowItGetIt() throws {
        var cluster = try Cluster()
        try cluster.addNode("old")
        let given = try make(&cluster, "given") { ($0.subnet6, $0.gateway6) = ("fd00:1::/64", "fd00:1::fe") }
        #expect(given.network.subnet6 == "fd00:1::/64" && given.network.gateway6 == "fd00:1::fe")
        let chosen = try make(&cluster, "chosen") { $0.isIPv6 = true }.network
        #expect(chosen.subnet6.hasPrefix("fd") && chosen.subnet6.hasSuffix("::/64"))
        #expect(chosen.gateway6 == chosen.subnet6.replacing("::/64", with: "::1"))
        #expect(chosen.features == ["bridge-ipv6"])
        let plain = try make(&cluster, "plain").network
        #expect(plain.subnet6.isEmpty && plain.gateway6.isEmpty && plain.features == [])
        try run(&cluster, "one", on: [NetworkAttachment(network: "given")])
        #expect(try cluster.container("one").node == nil)
        try cluster.addNode("new", features: [Network.bridgeIPv6])
        cluster.obey()
        #expect(try cluster.container("one").nodeName == "new")
        func attach(_ address6: String, _ network: String = "given") -> APIProblem? {
            let wish = CreateContainer(
                name: "x", pod: pod(cluster, on: [NetworkAttachment(network: network, address6: address6)]))
            return cluster.problem(.createContainer(wish))
        }
        for address in ["fd00:2::5", "fd00:1::", "x"] {
            #expect(attach(address)?.message.contains("is no address of a host in fd00:1::/64") == true, "\(address)")
        }
        #expect(attach("fd00:1::fe")?.message.contains("gateway") == true)
        #expect(attach("fd00:9::5", "plain")?.message.contains("has no IPv6: leave it out") == true)
        try run(&cluster, "two", on: [NetworkAttachment(network: "given", address6: "fd00:1::0:77")])
        #expect(try cluster.container("two").pod.attachments.first?.address6 == "fd00:1::77")
        #expect(attach("fd00:1::77")?.message.contains("Address already in use") == true)
    }

    @Test func aPortIsPublishedAtIPv6WhereThereIsIPv6() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1", features: ["overlay", "cni", Network.bridgeIPv6])
        _ = try make(&cluster, "plain")
        _ = try make(&cluster, "six") { $0.isIPv6 = true }
        _ = try make(&cluster, "inner") { ($0.isInternal, $0.isIPv6) = (true, true) }
        func wish(_ name: String, on networks: [String], _ ports: [PortMapping]) -> CreateContainer {
            var pod =
                networks.isEmpty
                ? cluster.pod() : pod(cluster, on: networks.map { NetworkAttachment(network: $0) })
            pod.ports = ports
            return CreateContainer(name: name, pod: pod, start: true)
        }
        func port(_ address: String, _ number: Int = 8080) -> PortMapping {
            PortMapping(hostAddress: address, hostPort: number, containerPort: 80)
        }
        for (networks, name) in [
            ([], "a node's own network"), (["plain"], "the network plain"), (["inner", "plain"], "the network plain"),
        ] as [([String], String)] {
            let problem = cluster.problem(.createContainer(wish("x", on: networks, [port("2001:db8::5")])))
            #expect(problem?.message.contains("is IPv6, and \(name), by which") == true, "\(problem?.message ?? "")")
            #expect(problem?.message.contains("martlet network create --ipv6") == true)
        }
        // Both families at once, and who is next waits.
        try cluster.perform(.createContainer(wish("a", on: ["six"], [port("0.0.0.0")])))
        try cluster.perform(.createContainer(wish("b", on: ["inner", "six"], [port("::")])))
        try cluster.perform(.createContainer(wish("c", on: ["six"], [port("2001:db8::5")])))
        try cluster.perform(.createContainer(wish("d", on: ["six"], [port("")])))
        cluster.obey()
        for (name, runs) in [("a", true), ("b", true), ("c", false), ("d", false)] {
            #expect(try (cluster.container(name).node != nil) == runs, "\(name)")
        }
        guard
            case .containerPage(let page) = try cluster.query(
                .containerPage(ContainerSelection(), after: nil, limit: 10))
        else { throw APIProblem(.internal, "no page") }
        #expect(
            Dictionary(uniqueKeysWithValues: page.containers.map { ($0.name, $0.publishesIPv6) })
                == ["a": true, "b": true, "c": true, "d": true])
        // Nor can it lose the way by which its ports are published.
        _ = try make(&cluster, "local") {
            $0.isIPv6 = true
            $0.options = ["com.docker.network.bridge.host_binding_ipv4": "127.0.0.1"]
        }
        try cluster.perform(.connect("plain", ConnectNetwork(container: "c")))
        let lost = cluster.problem(.disconnect("six", DisconnectNetwork(container: "c")))
        #expect(lost?.message.contains("is IPv6, and the network plain, by which") == true, "\(lost?.message ?? "")")
        // Where an address of IPv4 is preferred a port without one is not open to the world by IPv6.
        #expect(try make(&cluster, "any") { $0.isIPv6 = true }.network.publishesIPv6)
        guard case .network(let local) = try cluster.query(.network("local")) else {
            throw APIProblem(.internal, "no view")
        }
        #expect(local.network.hasIPv6 && !local.network.publishesIPv6)
    }

    @Test func linksNameContainersThatAreThere() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        _ = try make(&cluster, "web")
        try run(&cluster, "db", on: [NetworkAttachment(network: "web")])
        var attachment = NetworkAttachment(network: "web")
        attachment.links = ["store": "db"]
        try run(&cluster, "app", on: [attachment])
        guard case .container(let db) = try cluster.query(.container("db")),
            case .container(let app) = try cluster.query(.container("app"))
        else { throw APIProblem(.internal, "no view") }
        #expect(app.pod.attachments[0].links == ["store": db.id.text])
        for (name, other) in [("store", "nobody"), ("no name", "db")] {
            attachment.links = [name: other]
            let wish = CreateContainer(name: "x", pod: pod(cluster, on: [attachment]))
            #expect(cluster.problem(.createContainer(wish)) != nil, "\(name): \(other)")
        }
    }

    @Test func whoIsConfinedSeesAndUsesTheirOwn() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        _ = try make(&cluster, "common")
        let web = Subject.user(TokenID("w"), name: "web", role: .developer, group: "/web")
        _ = try make(&cluster, "own", by: web)
        guard case .networks(let seen) = try cluster.query(.networks, by: web) else { return }
        #expect(seen.map(\.network.name) == ["own"] && seen.first?.network.group == "/web")
        #expect(cluster.problem(.removeNetwork("common"), by: web)?.code == .notFound)
        let pod = pod(cluster, on: [NetworkAttachment(network: "common")])
        #expect(
            cluster.problem(.createContainer(CreateContainer(name: "c", pod: pod)), by: web)?.message
                == "network common not found; see `martlet network ls`")
    }

    // MARK: Attaching

    @Test func allOfANetworkRunOnOneNode() throws {
        var cluster = try Cluster()
        for node in ["n1", "n2", "n3"] { try cluster.addNode(node) }
        let network = try make(&cluster, "web")
        let id = network.network.id.text
        for name in ["a", "b", "c", "d"] { try run(&cluster, name, on: [NetworkAttachment(network: "web")]) }
        let nodes = Set(try cluster.containers().map(\.nodeName))
        #expect(nodes.count == 1)
        let shown = try #require(try view(&cluster, "web"))
        #expect(shown.nodeName == nodes.first && shown.members.map(\.name) == ["a", "b", "c", "d"])
        let assignment = try #require(cluster.assigned.values.flatMap(\.values).first)
        #expect(assignment.networks.map(\.id.text) == [id] && assignment.pod.attachments.map(\.network) == [id])
        // Once nobody is there any more, it is where the next goes.
        for name in ["a", "b", "c", "d"] { try cluster.perform(.removeContainer(name, force: true)) }
        cluster.obey()
        #expect(try view(&cluster, "web")?.nodeName == "")
    }

    @Test func aNetworkOnANodeThatTakesNothingIsSaidToBeThere() throws {
        var cluster = try Cluster()
        for node in ["n1", "n2"] { try cluster.addNode(node) }
        _ = try make(&cluster, "web")
        try run(&cluster, "a", on: [NetworkAttachment(network: "web")])
        let home = try cluster.container("a").nodeName
        var update = UpdateNode()
        update.availability = .drained
        try cluster.perform(.updateNode(home, update))
        try run(&cluster, "b", on: [NetworkAttachment(network: "web")])
        let waiting = try cluster.container("b").unschedulable?.message ?? ""
        #expect(waiting.contains("network web (it is on \(home)) on 1") && waiting.contains("cordoned or drained on 1"))
    }

    @Test func aServiceOfAllNodesIsOnNoNetworkOfOneNode() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        _ = try make(&cluster, "web")
        let pod = pod(cluster, on: [NetworkAttachment(network: "web")])
        let problem = cluster.problem(.createService(CreateService(name: "all", pod: pod, scale: .global)))
        #expect(problem?.code == .badRequest && problem?.message.contains("network web") == true)
        try cluster.perform(.createService(CreateService(name: "all", pod: cluster.pod(), scale: .global)))
        #expect(cluster.problem(.updateService("all", UpdateService(pod: pod)))?.code == .badRequest)
        try cluster.perform(.createService(CreateService(name: "some", pod: pod)))
    }

    @Test func attachmentsAreCheckedBeforeAnythingIsMade() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        _ = try make(&cluster, "web") { $0.subnet = "10.5.0.0/24" }
        func says(_ words: String, _ pod: PodSpec) {
            let problem = cluster.problem(.createContainer(CreateContainer(name: "x", pod: pod)))
            #expect(problem?.message.contains(words) == true, "\(problem?.message ?? "it was made")")
        }
        func on(_ change: (inout NetworkAttachment) -> Void) -> PodSpec {
            var attachment = NetworkAttachment(network: "web")
            change(&attachment)
            return pod(cluster, on: [attachment])
        }
        says("network nowhere not found", pod(cluster, on: [NetworkAttachment(network: "nowhere")]))
        says("named twice", pod(cluster, on: [NetworkAttachment(network: "web"), NetworkAttachment(network: "web")]))
        says("names a network", pod(cluster, on: []))
        says("10.6.0.1", on { $0.address = "10.6.0.1" })
        says("gateway", on { $0.address = "10.5.0.1" })
        says("no hardware address", on { $0.mac = "03:00:00:00:00:01" })
        says("no host name", on { $0.aliases = ["a b"] })
        try run(&cluster, "a", on: [NetworkAttachment(network: "web", aliases: ["x", "x"], address: "10.5.0.9")])
        #expect(try cluster.container("a").pod.attachments.first?.aliases == ["x"])
        says("Address already in use: 10.5.0.9 on the network web is a's", on { $0.address = "10.5.0.9" })
        let service = CreateService(name: "s", pod: on { $0.address = "10.5.0.10" }, scale: .replicated(1))
        #expect(cluster.problem(.createService(service))?.message.contains("fixed address") == true)
    }

    @Test func aNetworkInUseStays() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        _ = try make(&cluster, "web")
        _ = try make(&cluster, "idle") { $0.labels = ["keep": "no"] }
        _ = try make(&cluster, "kept") { $0.labels = ["keep": "yes"] }
        try run(&cluster, "a", on: [NetworkAttachment(network: "web")], start: false)
        #expect(cluster.problem(.removeNetwork("web"))?.message.contains("has active endpoints: a is attached") == true)
        #expect(cluster.problem(.removeNetwork("bridge"))?.code == .forbidden)
        guard case .removed(let names) = try cluster.perform(.pruneNetworks(PruneNetworks(withoutLabels: ["keep=yes"])))
        else { return }
        #expect(names == [])
        cluster.pass(seconds: 1)
        guard case .removed(let later) = try cluster.perform(.pruneNetworks(PruneNetworks(withoutLabels: ["keep=yes"])))
        else { return }
        #expect(later == ["idle"])
        try cluster.perform(.removeContainer("a", force: true))
        cluster.obey()
        try cluster.perform(.removeNetwork("web"))
        #expect(cluster.events.last?.action == "destroy" && cluster.events.last?.attributes["type"] == "bridge")
        #expect(cluster.keys("networks/").count == 1)
    }

    // MARK: Coming and going

    @Test func aContainerComesAndGoesWithoutAnotherTask() throws {
        var cluster = try Cluster()
        for node in ["n1", "n2"] { try cluster.addNode(node) }
        let web = try make(&cluster, "web").network
        try cluster.perform(.createContainer(CreateContainer(name: "a", pod: cluster.pod())))
        cluster.obey()
        let before = try cluster.container("a")
        try cluster.perform(.connect("web", ConnectNetwork(container: "a", aliases: ["alias"])))
        var after = try cluster.container("a")
        #expect(after.task == before.task && after.revision == before.revision + 1)
        #expect(after.pod.attachments == [NetworkAttachment(network: web.id.text, aliases: ["alias"])])
        let task = try #require(before.task)
        #expect(cluster.assigned[try #require(before.node)]?[task]?.networks.map(\.id) == [web.id])
        #expect(try view(&cluster, "web")?.nodeName == before.nodeName)
        #expect(
            cluster.problem(.connect("web", ConnectNetwork(container: "a")))?.message
                == "endpoint with name a already exists in network web")
        try cluster.perform(.disconnect("bridge", DisconnectNetwork(container: "a")))
        #expect(try cluster.container("a").network == .attached)
        try cluster.perform(.disconnect("web", DisconnectNetwork(container: "a")))
        after = try cluster.container("a")
        #expect(after.pod.attachments.isEmpty && after.task == before.task)
        #expect(
            cluster.problem(.disconnect("web", DisconnectNetwork(container: "a")))?.message
                == "container a is not connected to network web")
        try cluster.perform(.connect("bridge", ConnectNetwork(container: "a")))
        #expect(try cluster.container("a").network == .bridge)
        let told = cluster.events.filter { $0.kind == "network" }.map { "\($0.action) \($0.name)" }
        #expect(
            told == ["create web", "connect web", "disconnect bridge", "disconnect web", "connect bridge"])
        #expect(cluster.events.last { $0.kind == "network" }?.attributes["container"] == before.id.text)
        try cluster.restart()
        #expect(try cluster.container("a").task == before.task)
    }

    @Test func aContainerOfAnotherNodeDoesNotCome() throws {
        var cluster = try Cluster()
        for node in ["n1", "n2"] { try cluster.addNode(node) }
        _ = try make(&cluster, "web")
        try run(&cluster, "a", on: [NetworkAttachment(network: "web")])
        let home = try cluster.container("a").nodeName
        let elsewhere = home == "n1" ? "n2" : "n1"
        var pod = cluster.pod()
        pod.constraints = [Constraint(label: "node.name", relation: .equal, value: elsewhere)]
        try cluster.perform(.createContainer(CreateContainer(name: "b", pod: pod)))
        cluster.obey()
        let problem = cluster.problem(.connect("web", ConnectNetwork(container: "b")))
        #expect(problem?.code == .conflict && problem?.message.contains("the network web is on \(home)") == true)
        #expect(try cluster.container("b").pod.attachments.isEmpty)
        let host = cluster.pod { $0.network = .host }
        try cluster.perform(.createContainer(CreateContainer(name: "h", pod: host)))
        #expect(cluster.problem(.connect("web", ConnectNetwork(container: "h")))?.code == .forbidden)
    }

    @Test func theNetworkOfALostNodeGoesWithItsContainers() throws {
        var cluster = try Cluster()
        try cluster.addNode("n1")
        _ = try make(&cluster, "web")
        for name in ["a", "b"] {
            var pod = pod(cluster, on: [NetworkAttachment(network: "web")])
            pod.loss = LossPolicy(replaceAfter: 30)
            try cluster.perform(.createContainer(CreateContainer(name: name, pod: pod)))
        }
        cluster.obey()
        try cluster.addNode("n2")
        cluster.away = ["n1"]
        cluster.pass(seconds: 90, heard: ["n2"])
        #expect(try cluster.containers().map(\.nodeName) == ["n2", "n2"])
        #expect(try view(&cluster, "web")?.nodeName == "n2")
    }
}
