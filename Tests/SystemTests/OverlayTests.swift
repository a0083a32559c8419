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

        /// What arrives at a pod's device, of whatever kind, is counted there: all of it, and by kinds.
        private func count(at pod: Pod) throws {
            let table = """
                table netdev seen {
                chain c {
                type filter hook ingress device eth0 priority 0
                counter comment "all"
                meta protocol ip meta l4proto tcp counter comment "tcp4"
                meta protocol ip meta l4proto udp counter comment "udp4"
                meta protocol ip meta l4proto icmp counter comment "echo4"
                meta protocol ip6 meta l4proto tcp counter comment "tcp6"
                meta protocol ip6 meta l4proto udp counter comment "udp6"
                meta protocol ip6 meta l4proto ipv6-icmp counter comment "echo6"
                }
                }

                """
            try expectSuccess(pod.run(["nft", "-f", "-"], input: table))
        }

        /// Packets by kind.
        private func seen(by pod: Pod) throws -> [String: Int] {
            let outcome = try pod.run(["nft", "list", "table", "netdev", "seen"])
            try expectSuccess(outcome)
            return try packets(outcome.output)
        }

        /// How many packets a machine did not let into a network, because they come from another one.
        private func dropped(by machine: Machine) throws -> Int {
            let outcome = try machine.run(["nft", "list", "table", "inet", "martlet"])
            try expectSuccess(outcome)
            return try #require(try packets(outcome.output)["into a network"])
        }

        /// What rules have counted, by their comments.
        private func packets(_ listing: String) throws -> [String: Int] {
            var found: [String: Int] = [:]
            for line in listing.split(separator: "\n") where line.hasSuffix("\"") {
                let words = line.split(separator: " ")
                guard let index = words.firstIndex(of: "packets") else { continue }
                let comment = try #require(line.split(separator: "\"").last)
                let number = try #require(Int(words[index + 1]))
                found[String(comment)] = number
            }
            return found
        }

        /// Sends to TCP and UDP ports of addresses, echo requests, and asks who has them on the link. It fails where
        /// more than half of a kind cannot be sent: of that nobody could say that it does not arrive.
        ///
        /// - Parameter step: 1 for every port, 2 for every second one. What arrives is remembered by the nodes as
        ///   connections, of which there would be too many with all ports.
        /// - Returns: how many ports of each transport and address it was.
        private func knock(_ from: Pod, at addresses: [String], every step: Int) throws -> Int {
            let script = """
                import socket, struct, sys
                ports = range(1, 65536, int(sys.argv[1]))
                for host in sys.argv[2:]:
                    six = ":" in host
                    family = socket.AF_INET6 if six else socket.AF_INET
                    def expect(what, tried, lost):
                        if 2 * len(lost) > tried: sys.exit(f"{len(lost)} {what} to {host} were not sent: {lost[-1]}")
                    lost = []
                    for port in ports:
                        s = socket.socket(family, socket.SOCK_STREAM); s.setblocking(False)
                        try: s.connect((host, port))
                        except (BlockingIOError, ConnectionRefusedError): pass
                        except OSError as error: lost.append(error)
                        s.close()
                    expect("connections", len(ports), lost)
                    lost = []
                    # It waits where the kernel is slower than this.
                    s = socket.socket(family, socket.SOCK_DGRAM)
                    for port in ports:
                        try: s.sendto(b"x", (host, port))
                        except OSError as error: lost.append(error)
                    expect("datagrams", len(ports), lost)
                    lost = []
                    # The sum of IPv6's is the kernel's to write.
                    echo = struct.pack("!BBHHH", 128 if six else 8, 0, 0 if six else 0xf7fd, 1, 1)
                    s = socket.socket(family, socket.SOCK_RAW, 58 if six else 1)
                    for _ in range(10):
                        try: s.sendto(echo, (host, 0))
                        except OSError as error: lost.append(error)
                    expect("echo requests", 10, lost)
                    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806)); link.bind(("eth0", 0))
                    mac = link.getsockname()[4]
                    if not six:
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
            try expectSuccess(from.run(["python3", "-c", script, "\(step)"] + addresses))
            return (65535 + step - 1) / step
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

                for pod in [red[3], red[4], blue[0], blue[3], blue[4]] { try count(at: pod) }
                // Of one node and of another, the one way and, with fewer ports, the other. The friend is of the
                // stranger's network and on the victim's node, the ally is of the victim's network.
                for (stranger, victim, friend, ally, step) in [
                    (red[0], blue[0], red[4], blue[1], 1), (red[0], blue[3], red[3], blue[1], 1),
                    (blue[0], red[4], blue[4], red[1], 7), (blue[0], red[3], blue[3], red[1], 7),
                ] as [(Pod, Pod, Pod, Pod, Int)] {
                    let before = try seen(by: victim)
                    let wasDropped = try dropped(by: stranger.machine)
                    let ports = try knock(stranger, at: [victim.address, victim.address6], every: step)
                    // Half of TCP's and UDP's in both families came as far as the node's table: what went astray before
                    // would not arrive either.
                    try eventually("\(stranger.machine.name) drops what \(stranger.name) sends to \(victim.name)") {
                        try dropped(by: stranger.machine) >= wasDropped + 2 * ports
                    }
                    // What passed all the same may be under way yet.
                    usleep(300_000)
                    #expect(try seen(by: victim) == before, "\(victim.name) got something from \(stranger.name)")
                    if step == 1 { #expect(try stranger.get(victim.hosts) == ["-", "-"]) }

                    // The same knock arrives at who may be knocked at, each kind of it in both families.
                    let calm = try seen(by: friend)
                    let few = try knock(stranger, at: [friend.address, friend.address6], every: 61)
                    try eventually("\(friend.name) gets what \(stranger.name) sends") {
                        let now = try seen(by: friend)
                        func got(_ kind: String) -> Int { (now[kind] ?? 0) - (calm[kind] ?? 0) }
                        return ["4", "6"].allSatisfy { family in
                            got("tcp" + family) >= few / 2 && got("udp" + family) >= few / 2
                                && got("echo" + family) >= 5
                        }
                    }
                    // And what counts at the victim does count.
                    #expect(try ally.get([victim.address]) == [victim.name])
                    let after = try seen(by: victim)
                    #expect((after["all"] ?? 0) > (before["all"] ?? 0))
                }

                let refusal = try fabric.martlet("network", "rm", "red")
                #expect(refusal.code != 0 && refusal.errors.contains("red0, red1, red2, red3, red4"), "\(refusal)")
                for pod in red + blue { try expectSuccess(fabric.martlet("rm", "-f", pod.name)) }
                try expectSuccess(fabric.martlet("network", "rm", "red", "blue"))
                for machine in fabric.nodes { try expectNothing(on: machine) }
            }
        }

        /// No device, route, rule or table of an overlay, nor a table of published ports.
        private func expectNothing(on machine: Machine, sourceLocation: SourceLocation = #_sourceLocation) throws {
            let script =
                "ip -br link | grep -E '^m[vx]'; ip route show table 28020 2>/dev/null; "
                + "ip -6 route show table 28020 2>/dev/null; ip neigh show nud permanent; "
                + "{ ip rule; ip -6 rule; } | grep -vE '^(0|32766|32767):'; "
                + "ip xfrm policy 2>/dev/null; nft list table inet martlet 2>/dev/null; "
                + "nft list table inet martlet_portmap 2>/dev/null; ls \(machine.runDirectory)/netns"
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

                let node = fabric.nodes[1]
                func check() throws -> Outcome { try fabric.martlet("net", "check", "n2") }
                func expectRight(after what: String) throws {
                    let outcome = try check()
                    #expect(outcome.code == 0 && outcome.output == "", "n2 after \(what): \(outcome)")
                }
                try expectRight(after: "its return")
                let device = try #require(
                    try node.run(["sh", "-c", "ip -br link | grep -o '^mx-[0-9a-f]*'"]).output
                        .split(separator: "\n").first)
                let (peer, own) = (fabric.nodes[0].address, pods[1])
                // Of these the kernel tells the agent, which may have mended them before anybody could ask. Its log
                // says what they did: nothing else tells apart what was mended and what was never damaged.
                for (damage, words) in [
                    ("ip route flush table 28020", "the route to \(own.address)/32 is missing on mv"),
                    ("ip -6 route flush table 28020", "the route to \(own.address6)/128 is missing on mv"),
                    ("nft flush ruleset", "the nf_tables table inet martlet is missing"),
                    ("ip neigh flush nud permanent dev \(device)", "the neighbour \(peer) is missing on \(device)"),
                    ("ip link delete \(device)", "the device \(device) is missing"),
                    ("ip rule delete pref 28020", "the rule by which IPv4 looks into the table 28020 is missing"),
                    (
                        "bridge fdb show dev \(device) | while read mac rest; do "
                            + "bridge fdb del $mac dev \(device) self || exit 1; done",
                        "the forwarding entry to \(peer) is missing on \(device)"
                    ),
                ] as [(String, String)] {
                    let before = node.log("agent").count
                    try expectSuccess(node.run(["sh", "-c", damage]))
                    try eventually("the agent of n2 has found what \(damage) does") {
                        node.log("agent").dropFirst(before).contains(words)
                    }
                    try eventually("n2 is right again after \(damage)") { try check().code == 0 }
                    try expectMesh(pods)
                }
                // Of these nobody tells it: it finds them when it looks by itself, every 30 seconds, and the command at
                // once. Where the agent came first, the damage is done again.
                for (damage, words) in [
                    ("echo 0 >/proc/sys/net/ipv4/ip_forward", "net.ipv4.ip_forward is off"),
                    (
                        "ip neigh replace \(peer) lladdr 02:00:00:00:00:01 dev \(device) nud permanent",
                        "the neighbour \(peer) is too much on \(device)"
                    ),
                    (
                        "echo 1 >/proc/sys/net/ipv6/conf/\(device)/accept_ra",
                        "net.ipv6.conf.\(device).accept_ra is not 0"
                    ),
                    ("iptables -F FORWARD", "the rule '-i mv+' of iptables' chain FORWARD is missing"),
                ] as [(String, String)] {
                    try eventually("the check of n2 tells what \(damage) does") {
                        try expectSuccess(node.run(["sh", "-c", damage]))
                        let found = try check()
                        return found.code == 1 && found.output.contains(words)
                    }
                    try expectSuccess(fabric.martlet("net", "check", "--repair", "n2"))
                    try expectRight(after: damage)
                    try expectMesh(pods)
                }
                let last = try fabric.martlet("net", "check", "--repair", "n2")
                #expect(last.code == 0 && last.output == "", "\(last)")
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
                // A page that tells who asks for it.
                let page = """
                    mkdir /www/cgi-bin && cd /www/cgi-bin && chmod 755 . &&
                    printf '%s\\n' '#!/bin/sh' 'echo Content-Type: text/plain' echo 'echo $REMOTE_ADDR' >who &&
                    chmod 755 who
                    """
                try expectSuccess(fabric.martlet("exec", "server", "sh", "-c", page))
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
                // Published on the node, and the caller keeps its address, which a server of IPv6 sees as `::ffff:…`.
                func get(_ path: String) throws -> String {
                    try fabric.master.run([
                        TestCluster.busybox, "wget", "-q", "-O", "-",
                        "http://\(server.machine.address):18080/\(path)",
                    ]).text
                }
                #expect(try get("") == "server")
                let caller = try get("cgi-bin/who")
                let address = caller.split { "[]:".contains($0) }.last.map(String.init)
                #expect(address == fabric.master.address, "the server saw \(caller)")
            }
        }

        @Test("pods come and go while agents and plugins are killed, and nothing is left of them")
        func kills() throws {
            try withFabric(nodes: 2) { fabric in
                var random = SplitMix(seed: 20_261_122)
                try expectSuccess(fabric.martlet("network", "create", "-d", "overlay", "--ipv6", "red"))
                let each = 10
                let rounds = loops(1000, otherwise: 40) / each
                // Twice as many ports as are needed: one that is replaced may have its own for a while yet.
                try expectSuccess(
                    fabric.martlet(
                        "service", "create", "--name", "many", "--replicas", "0", "--network", "red", "--stop-timeout",
                        "0", "-p", "18080-18099:80", "busybox", "sleep", "100000"))
                var hits = 0
                for round in 0..<rounds {
                    for count in [each, 0] {
                        try expectSuccess(fabric.martlet("service", "scale", "many=\(count)"))
                        let node = fabric.nodes[Int.random(in: 0..<2, using: &random)]
                        usleep(UInt32.random(in: 0...300_000, using: &random))
                        let (before, killsPlugins) = (hits, round % 2 == 1)
                        if !killsPlugins {
                            try node.kill("agent")
                            try fabric.startAgent(node)
                        } else {
                            // Plugins are there for some milliseconds: until one was hit, or there are no more.
                            for turn in 0..<100 where turn < 20 || hits == before {
                                hits += Self.killPlugins(of: node)
                                usleep(5_000)
                            }
                        }
                        try eventually("round \(round): \(count) run", within: 120) {
                            if killsPlugins, hits == before { hits += Self.killPlugins(of: node) }
                            let all = try fabric.containers(service: "many")
                            return all.filter { $0.status.phase == .running }.count == count
                                && (count > 0 || all.isEmpty)
                        }
                        try eventually("round \(round): \(count) have their ports", within: 120) {
                            try fabric.nodes.reduce(0) { sum, node in try sum + publishedPorts(of: node) } == count
                        }
                    }
                }
                #expect(hits > 0, "no plugin was killed: this was a test of agents alone")
                try expectSuccess(fabric.martlet("service", "rm", "--force", "many"))
                try expectSuccess(fabric.martlet("network", "rm", "red"))
                for machine in fabric.nodes {
                    try expectNothing(on: machine)
                    let files = try machine.run([
                        "find", "\(machine.runDirectory)/cni/overlay", "\(machine.dataDirectory)/cni/cache", "-type",
                        "f",
                    ])
                    #expect(files.output == "", "no lease and no record")
                }
            }
        }

        /// Kills the plugins that run on a machine just now.
        ///
        /// - Returns: how many were hit.
        private static func killPlugins(of machine: Machine) -> Int {
            machine.processes.filter { isPlugin($0) && Glibc.kill($0, SIGKILL) == 0 }.count
        }

        /// One that has ended is none: a signal to it succeeds until somebody has waited for it.
        private static func isPlugin(_ pid: pid_t) -> Bool {
            guard let name = try? File.text("/proc/\(pid)/comm", limit: 64),
                ["martlet-overlay", "portmap"].contains(name), let stat = try? Proc.stat(pid)
            else { return false }
            return !stat.hasEnded
        }

        /// How many ports lead to pods of a machine over IPv4; without any there is no such map.
        private func publishedPorts(of machine: Machine) throws -> Int {
            let map = try machine.run(["nft", "list", "map", "inet", "martlet_portmap", "any4"]).output
            return map.split(separator: "\"").filter { $0.hasSuffix(" eth0") }.count
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
