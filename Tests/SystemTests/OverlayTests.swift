import Glibc
import JSON
import Kernel
import Model
import Testing
import Wire

extension SystemSuite {
    /// Overlay networks over four nodes, each in namespaces of its own, by the real programs.
    @Suite("overlays", .serialized)
    struct Overlays {
        /// A pod that serves its name on port 80, over both families.
        private struct Pod {
            let name: String
            let machine: Machine
            let task: String
            let address: String
            let address6: String

            var hosts: [String] { [address] + (address6.isEmpty ? [] : ["[\(address6)]"]) }
            var namespace: String { "\(machine.runDirectory)/netns/\(task)" }

            /// Runs a program of the machine in the pod's network.
            func run(_ arguments: [String], input: String = "") throws -> Outcome {
                try machine.run(["nsenter", "--net=\(namespace)"] + arguments, input: Array(input.utf8))
            }

            /// What it gets from each of the hosts, in order; `-` where there is no answer.
            func get(_ hosts: [String]) throws -> [String] {
                let script =
                    "for h in \(hosts.map { "'\($0)'" }.joined(separator: " ")); do "
                    + "timeout 2 wget -q -O - http://$h/ 2>/dev/null || echo -; done"
                let outcome = try machine.run([
                    "nsenter", "--net=\(namespace)", TestCluster.busybox, "sh", "-c",
                    script.replacing("wget", with: "\(TestCluster.busybox) wget")
                        .replacing("timeout", with: "\(TestCluster.busybox) timeout"),
                ])
                return outcome.output.split(separator: "\n").map(String.init)
            }
        }

        private func start(
            _ fabric: ClusterFabric, _ name: String, on node: Int, network: String, _ options: [String] = []
        ) throws -> Pod {
            let serve =
                "echo \(name) >/www/index.html; httpd -p '[::]:80' -h /www 2>/dev/null || httpd -p 80 -h /www; exec sleep 100000"
            try expectSuccess(
                fabric.run(
                    ["run", "-d", "--name", name, "--network", network, "--constraint", "node.name==n\(node)"] + options
                        + ["busybox", "sh", "-c", serve]))
            try eventually("\(name) runs") { try fabric.inspect(name).status.phase == .running }
            return try pod(fabric, name)
        }

        private func pod(_ fabric: ClusterFabric, _ name: String) throws -> Pod {
            let view = try fabric.inspect(name)
            let endpoint = try #require(view.status.endpoints.first)
            func host(_ text: String) -> String { String(text.prefix { $0 != "/" }) }
            return Pod(
                name: name, machine: try fabric.machine(of: name), task: try #require(view.task?.text),
                address: host(endpoint.address), address6: host(endpoint.address6))
        }

        /// All reach all: each gets the name of every one at all of its addresses.
        private func expectMesh(_ pods: [Pod], sourceLocation: SourceLocation = #_sourceLocation) throws {
            let hosts = pods.flatMap(\.hosts)
            let names = pods.flatMap { pod in pod.hosts.map { _ in pod.name } }
            for pod in pods {
                try eventually("\(pod.name) reaches all", sourceLocation: sourceLocation) {
                    try pod.get(hosts) == names
                }
            }
        }

        /// What arrives at a pod's device, of whatever kind, is counted there.
        private func count(at pod: Pod) throws {
            let table = """
                table netdev seen {
                chain c {
                type filter hook ingress device eth0 priority 0
                counter
                }
                }

                """
            try expectSuccess(pod.run(["nft", "-f", "-"], input: table))
        }

        private func seen(by pod: Pod) throws -> Int {
            let outcome = try pod.run(["nft", "list", "table", "netdev", "seen"])
            try expectSuccess(outcome)
            let words = outcome.output.split(separator: " ")
            let index = try #require(words.firstIndex(of: "packets"))
            return try #require(Int(words[index + 1]))
        }

        /// Sends to every TCP and UDP port of an address, echo requests, and asks who has it on the link.
        private func knock(_ from: Pod, at addresses: [String]) throws {
            let script = """
                import socket, struct, sys
                for host in sys.argv[1:]:
                    family = socket.AF_INET6 if ":" in host else socket.AF_INET
                    for port in range(1, 65536):
                        s = socket.socket(family, socket.SOCK_STREAM); s.setblocking(False)
                        try: s.connect((host, port))
                        except OSError: pass
                        s.close()
                    s = socket.socket(family, socket.SOCK_DGRAM); s.setblocking(False)
                    for port in range(1, 65536):
                        try: s.sendto(b"x", (host, port))
                        except OSError: pass
                    echo = struct.pack("!BBHHH", 128 if ":" in host else 8, 0, 0, 1, 1)
                    s = socket.socket(family, socket.SOCK_RAW, 58 if ":" in host else 1)
                    for _ in range(10):
                        try: s.sendto(echo, (host, 0))
                        except OSError: pass
                    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806)); link.bind(("eth0", 0))
                    mac = link.getsockname()[4]
                    if family == socket.AF_INET:
                        who = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, mac, socket.inet_aton(host), b"\\0" * 6,
                                          socket.inet_aton(host))
                        for _ in range(10): link.send(b"\\xff" * 6 + mac + b"\\x08\\x06" + who)
                    else:
                        target = socket.inet_pton(family, host)
                        body = struct.pack("!BBHI", 135, 0, 0, 0) + target
                        head = struct.pack("!IHBB", 0x60000000, len(body), 58, 255) + target + b"\\xff\\x02" + b"\\0" * 9 \\
                            + b"\\x01\\xff" + target[13:]
                        for _ in range(10):
                            link.send(b"\\x33\\x33\\xff" + target[13:] + mac + b"\\x86\\xdd" + head + body)

                """
            try expectSuccess(from.run(["python3", "-c", script] + addresses))
        }

        @Test("every pod reaches every pod of its network, and nothing at all reaches one of another")
        func isolation() throws {
            try withFabric(nodes: 4) { fabric in
                try expectSuccess(fabric.martlet("network", "create", "-d", "overlay", "--ipv6", "red"))
                try expectSuccess(fabric.martlet("network", "create", "-d", "overlay", "--ipv6", "blue"))
                var red: [Pod] = []
                var blue: [Pod] = []
                for node in [1, 2, 3, 4, 1] {
                    red.append(try start(fabric, "red\(red.count)", on: node, network: "red"))
                    blue.append(try start(fabric, "blue\(blue.count)", on: node, network: "blue"))
                }
                #expect(Set((red + blue).flatMap(\.hosts)).count == 20)
                try expectMesh(red)
                try expectMesh(blue)

                // Of one node and of another.
                for victim in [blue[0], blue[3]] {
                    try count(at: victim)
                    let before = try seen(by: victim)
                    try knock(red[0], at: [victim.address, victim.address6])
                    #expect(try seen(by: victim) == before, "\(victim.name) got something from red0")
                    #expect(try red[0].get(victim.hosts) == ["-", "-"])
                    // What counts does count.
                    #expect(try blue[1].get([victim.address]) == [victim.name])
                    #expect(try seen(by: victim) > before)
                }

                let refusal = try fabric.martlet("network", "rm", "red")
                #expect(refusal.code != 0 && refusal.errors.contains("red0, red1, red2, red3, red4"), "\(refusal)")
                for pod in red + blue { try expectSuccess(fabric.martlet("rm", "-f", pod.name)) }
                try expectSuccess(fabric.martlet("network", "rm", "red", "blue"))
                for machine in fabric.nodes { try expectNothing(on: machine) }
            }
        }

        /// No device, route, rule or table of an overlay.
        private func expectNothing(on machine: Machine, sourceLocation: SourceLocation = #_sourceLocation) throws {
            let script =
                "ip -br link | grep -E '^m[vx]'; ip route show table 28020 2>/dev/null; "
                + "ip -6 route show table 28020 2>/dev/null; ip neigh show nud permanent; "
                + "ip xfrm policy 2>/dev/null; nft list table inet martlet 2>/dev/null; ls \(machine.runDirectory)/netns"
            try eventually("nothing is left on \(machine.name)", sourceLocation: sourceLocation) {
                try machine.run(["sh", "-c", script]).output == ""
            }
        }

        @Test("a node that is cut off comes back; what somebody deletes on a node is made anew by itself")
        func repair() throws {
            try withFabric(nodes: 4) { fabric in
                try expectSuccess(
                    fabric.martlet("network", "create", "-d", "overlay", "--ipv6", "--subnet", "10.70.0.0/24", "red"))
                var pods: [Pod] = []
                for node in 1...4 { pods.append(try start(fabric, "p\(node)", on: node, network: "red")) }
                try expectMesh(pods)

                try fabric.partition(fabric.nodes[2])
                try eventually("p3 is out of reach") { try pods[0].get([pods[2].address]) == ["-"] }
                // The network changes meanwhile.
                try expectSuccess(fabric.martlet("rm", "-f", "p4"))
                pods[3] = try start(fabric, "q4", on: 4, network: "red")
                try fabric.heal()
                try expectMesh(pods)

                let check = { (node: String) in try fabric.martlet("net", "check", node) }
                #expect(try check("n2").code == 0)
                let device = try #require(
                    try fabric.nodes[1].run(["sh", "-c", "ip -br link | grep -o '^mx-[0-9a-f]*'"]).output
                        .split(separator: "\n").first)
                for damage in [
                    "ip route flush table 28020", "ip -6 route flush table 28020", "nft flush ruleset",
                    "ip neigh flush nud permanent dev \(device)", "ip link delete \(device)",
                    "ip rule delete pref 28020",
                    "bridge fdb show dev \(device) | while read mac rest; do "
                        + "bridge fdb del $mac dev \(device) self; done",
                ] {
                    _ = try fabric.nodes[1].run(["sh", "-c", damage])
                    try eventually("n2 is right again after \(damage)") { try check("n2").code == 0 }
                    try expectMesh(pods)
                }
                #expect(try fabric.martlet("net", "check", "--repair", "n2").code == 0)
            }
        }

        @Test("an encrypted network is where it can be encrypted, and else the reason is told")
        func encryption() throws {
            try withFabric(nodes: 2) { fabric in
                try expectSuccess(fabric.martlet("network", "create", "-d", "overlay", "--opt", "encrypted", "safe"))
                func key() throws -> String? { try fabric.nodeViews().first { $0.node.name == "n1" }?.node.overlayKey }
                guard let first = try key() else {
                    try expectSuccess(
                        fabric.martlet(
                            "service", "create", "--name", "one", "--replicas", "1", "--network", "safe", "busybox",
                            "sleep", "1000"))
                    try eventually("the reason is told") {
                        try fabric.containers(service: "one").first?.unschedulable?.message
                            .contains("feature overlay-encryption missing") == true
                    }
                    return
                }
                let pods = try [1, 2].map { try start(fabric, "p\($0)", on: $0, network: "safe") }
                let wire = """
                    table netdev wire {
                    chain c {
                    type filter hook ingress device eth0 priority 0
                    meta l4proto esp counter comment "esp"
                    udp dport { 4788, 4789 } counter comment "clear"
                    }
                    }

                    """
                try expectSuccess(pods[1].machine.run(["nft", "-f", "-"], input: Array(wire.utf8)))
                func seen(_ what: String) throws -> Int {
                    let lines = try pods[1].machine.run(["nft", "list", "table", "netdev", "wire"]).output
                    let line = try #require(lines.split(separator: "\n").first { $0.contains("\"\(what)\"") })
                    let words = line.split(separator: " ")
                    let index = try #require(words.firstIndex(of: "packets"))
                    return try #require(Int(words[index + 1]))
                }
                try expectMesh(pods)
                #expect(try seen("esp") > 0 && seen("clear") == 0)
                // What was lost is made again by another key, of which the other node hears from the master.
                try expectSuccess(pods[0].machine.run(["ip", "xfrm", "state", "flush"]))
                try eventually("n1 has another key", within: 120) { try key() != first }
                try expectMesh(pods)
                #expect(try seen("clear") == 0)
                for node in ["n1", "n2"] {
                    try eventually("\(node) is right") { try fabric.martlet("net", "check", node).code == 0 }
                }
                for pod in pods { try expectSuccess(fabric.martlet("rm", "-f", pod.name)) }
                for machine in fabric.nodes { try expectNothing(on: machine) }
            }
        }

        @Test("the death of agents and of the master cuts no connection")
        func agentRestart() throws {
            try withFabric(nodes: 2) { fabric in
                try expectSuccess(fabric.martlet("network", "create", "-d", "overlay", "red"))
                let server = try start(fabric, "server", on: 1, network: "red", ["--publish", "18080:80"])
                let client = try start(fabric, "client", on: 2, network: "red")
                // One connection for all of the time, with a line every 50 ms.
                let script = "while sleep 0.05; do echo x; done"
                let source = try server.machine.begin([
                    "nsenter", "--net=\(server.namespace)", TestCluster.busybox, "nc", "-ll", "-p", "9000", "-e", "sh",
                    "-c",
                    script,
                ])
                let file = "\(fabric.folder)/lines"
                defer {
                    _ = try? source.signal(9)
                    _ = try? source.wait()
                }
                usleep(300_000)
                let sink = try client.machine.begin(
                    ["nsenter", "--net=\(client.namespace)", TestCluster.busybox, "nc", server.address, "9000"],
                    output: file)
                defer {
                    _ = try? sink.signal(9)
                    _ = try? sink.wait()
                }
                func lines() throws -> Int { try File.read(file, limit: 1 << 20).count / 2 }
                try eventually("lines come") { try lines() > 3 }
                for node in fabric.nodes {
                    try node.kill("agent")
                    let before = try lines()
                    try eventually("lines come while the agent is dead") { try lines() > before + 5 }
                    try fabric.startAgent(node)
                    let after = try lines()
                    try eventually("lines come after its return") { try lines() > after + 5 }
                }
                try fabric.master.kill("master")
                try fabric.nodes[0].kill("agent")
                // Not --detach, which waits for the master.
                _ = try fabric.nodes[0].begin(
                    [TestCluster.martlet, "agent", "--master", fabric.url, "--node-name", "n1"]
                        + fabric.nodes[0].placeFlags + fabric.nodes[0].nodeFlags)
                let alone = try lines()
                try eventually("lines come without a master") { try lines() > alone + 20 }
                try fabric.startMaster()
                try eventually("the nodes are back") {
                    try fabric.nodeViews().allSatisfy { $0.conditions.contains { $0.kind == .ready && $0.holds } }
                }
                let last = try lines()
                try eventually("lines come to the end") { try lines() > last + 5 }
                #expect(try sink.poll() == nil)
                // Published on the node, with the caller's own address.
                #expect(
                    try fabric.master.run([
                        TestCluster.busybox, "wget", "-q", "-O", "-", "http://\(server.machine.address):18080/",
                    ]).text == "server")
            }
        }

        @Test("pods come and go while agents and plugins are killed, and nothing is left of them")
        func kills() throws {
            try withFabric(nodes: 2) { fabric in
                var random = SplitMix(seed: 20_261_122)
                try expectSuccess(fabric.martlet("network", "create", "-d", "overlay", "--ipv6", "red"))
                let each = 10
                let rounds = loops(1000, otherwise: 40) / each
                try expectSuccess(
                    fabric.martlet(
                        "service", "create", "--name", "many", "--replicas", "0", "--network", "red", "--stop-timeout",
                        "0",
                        "busybox", "sleep", "100000"))
                for round in 0..<rounds {
                    for count in [each, 0] {
                        try expectSuccess(fabric.martlet("service", "scale", "many=\(count)"))
                        let node = fabric.nodes[Int.random(in: 0..<2, using: &random)]
                        usleep(UInt32.random(in: 0...300_000, using: &random))
                        if round % 2 == 0 {
                            try node.kill("agent")
                            try fabric.startAgent(node)
                        } else {
                            for _ in 0..<20 {
                                for pid in node.processes where Self.isPlugin(pid) { Glibc.kill(pid, SIGKILL) }
                                usleep(5_000)
                            }
                        }
                        try eventually("round \(round): \(count) run", within: 120) {
                            try fabric.containers(service: "many").filter { $0.status.phase == .running }.count == count
                                && (count > 0 || fabric.containers(service: "many").isEmpty)
                        }
                    }
                }
                try expectSuccess(fabric.martlet("service", "rm", "--force", "many"))
                try expectSuccess(fabric.martlet("network", "rm", "red"))
                for machine in fabric.nodes {
                    try expectNothing(on: machine)
                    let files = try machine.run(["find", "\(machine.runDirectory)/cni/overlay", "-type", "f"])
                    #expect(files.output == "", "no lease and no record")
                }
            }
        }

        private static func isPlugin(_ pid: pid_t) -> Bool {
            guard let name = try? File.text("/proc/\(pid)/comm", limit: 64) else { return false }
            return ["martlet-overlay", "portmap"].contains(name)
        }
    }
}

/// The same numbers in every run.
private struct SplitMix: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return mixed ^ (mixed >> 31)
    }
}
