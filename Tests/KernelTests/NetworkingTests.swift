import CNISpec
import Glibc
import Kernel
import Networking
import Reactor
import Testing

extension KernelSuite {
    @Suite(.serialized) struct PodNetwork {
        private func port(_ host: UInt16, _ container: UInt16, on address: String? = nil) -> PortMapping {
            PortMapping(
                hostPort: host, containerPort: container, hostAddress: address.flatMap { IPAddress($0) })
        }

        @Test func `pods reach the machine, each other and the world, and are reached`() async throws {
            try await PrivateMachine.run { machine in
                let network = try machine.network()
                #expect(network.conflicts() == [])
                try network.prepare()
                let one = try machine.pin("one")
                let two = try machine.pin("two")
                let addresses = try network.attach("one", namespacePath: one)
                let other = try network.attach("two", namespacePath: two).address.address.description
                #expect(addresses.address.prefixLength == 16)
                #expect(addresses.gateway?.description == "10.213.0.1")
                #expect(addresses.interface == "eth0" && addresses.mac != nil)
                #expect(try network.addresses(of: "one") == addresses)
                let mine = addresses.address.address.description
                #expect(try machine.ip("link show eth0", in: one).contains("mtu 1400"), "as the default route's device")

                let pod = try machine.listen(80, in: one)
                #expect(try machine.talk(to: mine, 80, listener: pod) == "10.213.0.1")
                #expect(try machine.talk(to: mine, 80, from: two, listener: pod) == other)
                let world = try machine.listen(80, in: machine.outside)
                #expect(
                    try machine.talk(to: "198.51.100.1", 80, from: one, listener: world) == "198.51.100.2",
                    "outside sees the machine's address")
                try network.check("one")
            }
        }

        @Test func `a published port is reached from everywhere under every address of the machine`() async throws {
            try await PrivateMachine.run { machine in
                let network = try machine.network()
                try network.prepare()
                let (one, two) = (try machine.pin("one"), try machine.pin("two"))
                let published = try network.attach("one", namespacePath: one, ports: [self.port(8080, 80)])
                #expect(published.ports == [self.port(8080, 80)])
                _ = try network.attach("two", namespacePath: two)
                let pod = try machine.listen(80, in: one)
                #expect(try machine.talk(to: "127.0.0.1", 8080, listener: pod) != nil)
                #expect(try machine.talk(to: "198.51.100.2", 8080, listener: pod) != nil)
                #expect(
                    try machine.talk(to: "198.51.100.2", 8080, from: machine.outside, listener: pod) == "198.51.100.1",
                    "the pod sees who calls")
                #expect(try machine.talk(to: "198.51.100.2", 8080, from: two, listener: pod) != nil)
                #expect(try machine.talk(to: "198.51.100.2", 8080, from: one, listener: pod) != nil, "its own port")
                try network.check("one")
                try machine.command("nft delete table inet martlet_portmap")
                #expect(throws: NetworkError.self) { try network.check("one") }
            }
        }

        @Test func `where the policy is to drop, pods work all the same`() async throws {
            try await PrivateMachine.run { machine in
                try machine.command("iptables -P FORWARD DROP")
                let network = try machine.network()
                try network.prepare()
                let (one, two) = (try machine.pin("one"), try machine.pin("two"))
                let address = try network.attach("one", namespacePath: one, ports: [self.port(8080, 80)]).address
                _ = try network.attach("two", namespacePath: two)
                let pod = try machine.listen(80, in: one)
                let world = try machine.listen(80, in: machine.outside)
                #expect(try machine.talk(to: "198.51.100.1", 80, from: one, listener: world) != nil)
                #expect(try machine.talk(to: "198.51.100.2", 8080, from: machine.outside, listener: pod) != nil)
                #expect(try machine.talk(to: address.address.description, 80, from: two, listener: pod) != nil)
            }
        }

        @Test func `a port published on one address takes nothing that is meant for another`() async throws {
            try await PrivateMachine.run { machine in
                try machine.ip("addr add 198.51.100.3/24 dev up0")
                let network = try machine.network()
                try network.prepare()
                let (one, two) = (try machine.pin("one"), try machine.pin("two"))
                _ = try network.attach("one", namespacePath: one, ports: [self.port(8080, 80, on: "198.51.100.2")])
                let second = try network.attach("two", namespacePath: two, ports: [self.port(9090, 90)])
                let pod = try machine.listen(80, in: one)
                #expect(try machine.talk(to: "198.51.100.2", 8080, from: machine.outside, listener: pod) != nil)
                // The machine's own service on the other address keeps its traffic, and so does another pod.
                let service = try machine.listen(8080, on: "198.51.100.3")
                #expect(try machine.talk(to: "198.51.100.3", 8080, from: machine.outside, listener: service) != nil)
                let other = try machine.listen(8080, in: two)
                let address = second.address.address.description
                #expect(try machine.talk(to: address, 8080, from: one, listener: other) != nil)
                #expect(try machine.talk(to: address, 8080, listener: other) != nil)
                let world = try machine.listen(8080, in: machine.outside)
                #expect(try machine.talk(to: "198.51.100.1", 8080, from: two, listener: world) != nil)
            }
        }

        @Test func `pods reach neither the machine's loopback nor give it routes`() async throws {
            try await PrivateMachine.run { machine in
                let network = try machine.network()
                try network.prepare()
                let one = try machine.pin("one")
                _ = try network.attach("one", namespacePath: one, ports: [self.port(8080, 80)])
                #expect(try File.text("/proc/sys/net/ipv6/conf/martlet0/accept_ra") == "0")
                #expect(try File.text("/proc/sys/net/ipv4/conf/martlet0/route_localnet") == "1", "as portmap needs it")
                let service = try machine.listen(9999, on: "127.0.0.1")
                // What a pod with CAP_NET_ADMIN can do to send there.
                try machine.command(
                    """
                    ip addr del 127.0.0.1/8 dev lo; ip route flush table local dev lo
                    echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet
                    ip route add 127.0.0.0/8 via 10.213.0.1 dev eth0 src \
                    $(ip -4 -o addr show eth0 | sed 's|.*inet \\([0-9.]*\\)/.*|\\1|')
                    """, in: one)
                #expect(try machine.talk(to: "127.0.0.1", 9999, from: one, listener: service) == nil)
                try machine.command("nft delete table inet martlet_portmap")
                #expect(
                    try machine.talk(to: "127.0.0.1", 9999, from: one, listener: service) != nil,
                    "it is the rule of portmap that keeps them out")
            }
        }

        @Test func `a pod's traffic is counted by the process that is in it`() async throws {
            try await PrivateMachine.run { machine in
                let network = try machine.network()
                try network.prepare()
                let one = try machine.pin("one")
                let address = try network.attach("one", namespacePath: one).address.address.description
                let namespace = try File.open(one, O_RDONLY)
                var spawn = Spawn("/bin/sleep", ["sleep", "1000"])
                spawn.networkNamespace = namespace.raw
                let process = try spawn.start()
                defer { try? process.signal(SIGKILL) }
                let before = try #require(try InterfaceCounters.of(process: process.pid).first)
                let pod = try machine.listen(80, in: one)
                #expect(try machine.talk(to: address, 80, listener: pod) != nil)
                let after = try InterfaceCounters.of(process: process.pid)
                #expect(after.map(\.name) == ["eth0"])
                // At least the three segments of the handshake, of 40 bytes each.
                #expect(after[0].receivedPackets >= before.receivedPackets + 2)
                #expect(after[0].receivedBytes >= before.receivedBytes + 80)
                #expect(after[0].sentPackets > before.sentPackets)
                try process.signal(SIGKILL)
                _ = try process.wait()
                #expect(try InterfaceCounters.of(process: process.pid) == [])
            }
        }

        @Test func `detaching leaves nothing of the pod, and may be repeated`() async throws {
            try await PrivateMachine.run { machine in
                let network = try machine.network()
                try network.prepare()
                let before = try machine.rules()
                let devices = try machine.devices()
                let one = try machine.pin("one")
                _ = try network.attach("one", namespacePath: one, ports: [self.port(8080, 80), self.port(8081, 81)])
                #expect(machine.leases().count == 1)
                for _ in 0..<2 { try network.detach("one") }
                #expect(machine.leases() == [])
                #expect(try machine.devices() == devices)
                #expect(try machine.rules().filter { $0.contains("one") } == [])
                #expect(try network.addresses(of: "one") == nil)
                #expect(throws: NetworkError.self) { try network.check("one") }
                // The port is free again.
                _ = try network.attach("one", namespacePath: one, ports: [self.port(8080, 80)])
                try NetworkNamespace.remove(at: one)
                try network.detach("one")
                #expect(machine.leases() == [])
                #expect(try machine.rules() == before)
            }
        }

        @Test func `ports in use are refused with who has them, and nothing is made`() async throws {
            try await PrivateMachine.run { machine in
                let network = try machine.network()
                try network.prepare()
                let (one, two) = (try machine.pin("one"), try machine.pin("two"))
                let service = try machine.listen(8080)
                let taken = #expect(throws: NetworkError.self) {
                    try network.attach("one", namespacePath: one, ports: [self.port(8080, 80)])
                }
                #expect(taken?.kind == .portTaken)
                #expect(taken?.description.contains("port 8080/tcp is in use by ") == true)
                #expect(taken?.description.contains("(process \(getpid()))") == true)
                _ = try network.attach("one", namespacePath: one, ports: [self.port(8081, 80)])
                // Also after a restart of the agent.
                for network in [network, try machine.network()] {
                    for address in [nil, "127.0.0.1", "0.0.0.0"] {
                        let error = #expect(throws: NetworkError.self) {
                            try network.attach("two", namespacePath: two, ports: [self.port(8081, 80, on: address)])
                        }
                        #expect(error?.description.hasPrefix("port 8081/tcp is published by task one already") == true)
                    }
                }
                #expect(machine.leases().count == 1)
                withExtendedLifetime(service) {}
            }
        }
    }

    @Suite(.serialized) struct PodNetworkOnMachine {
        @Test func `preparing twice changes nothing, and the bridge is marked as ours`() async throws {
            try await PrivateMachine.run { machine in
                try machine.network().prepare()
                let rules = try machine.rules()
                let link = try machine.ip("-d addr show martlet0")
                #expect(link.contains("alias martlet \(machine.data)"))
                #expect(link.contains("inet 10.213.0.1/16") && link.contains("mtu 1400"))
                #expect(rules.filter { $0.contains("martlet:martlet0") }.count == 3)
                let address = try machine.ip("-o -4 addr show martlet0")
                try machine.network().prepare()
                #expect(try machine.rules() == rules)
                #expect(try machine.ip("-o -4 addr show martlet0") == address)
            }
        }

        @Test func `the bridge keeps its hardware address when pods come and go`() async throws {
            try await PrivateMachine.run { machine in
                let network = try machine.network()
                try network.prepare()
                let before = try File.text("/sys/class/net/martlet0/address")
                for id in ["a", "b", "c"] { _ = try network.attach(id, namespacePath: machine.pin(id)) }
                try network.detach("a")
                #expect(try File.text("/sys/class/net/martlet0/address") == before)
            }
        }

        @Test func `a bridge, a device or a subnet of somebody else is left alone and named`() async throws {
            try await PrivateMachine.run { machine in
                try machine.ip("link add martlet0 type bridge")
                try machine.ip("addr add 192.0.2.1/24 dev martlet0")
                let bridge = #expect(throws: NetworkError.self) { try machine.network().prepare() }
                #expect(bridge?.kind == .bridgeTaken)
                #expect(bridge?.description.hasPrefix("martlet0 is a bridge that somebody else made already") == true)
                #expect(try machine.network().removeLeftovers() == [])
                #expect(try machine.devices().contains("martlet0"))
                let device = #expect(throws: NetworkError.self) {
                    try machine.network { $0.bridge = "up0" }.prepare()
                }
                #expect(device?.description.contains("up0 is a device that is no bridge") == true)
                try machine.ip("link del martlet0")

                let subnet = #expect(throws: NetworkError.self) {
                    try machine.network { $0.subnet = "198.51.0.0/16" }.prepare()
                }
                #expect(subnet?.kind == .subnetTaken)
                #expect(
                    subnet?.description
                        == "the subnet 198.51.0.0/16 overlaps 198.51.100.2/24 on up0; choose another subnet")
                try machine.ip("route add 10.0.0.0/8 via 198.51.100.1")
                let route = #expect(throws: NetworkError.self) { try machine.network().prepare() }
                #expect(route?.description.contains("overlaps 10.0.0.0/8 on up0") == true)
                #expect(try !machine.devices().contains("martlet0"))
            }
        }

        @Test func `another installation's bridge is named, a half-made one of ours is finished`() async throws {
            try await PrivateMachine.run { machine in
                try machine.network().prepare()
                let other = #expect(throws: NetworkError.self) {
                    try machine.network { $0.dataDirectory = "/elsewhere" }.prepare()
                }
                #expect(other?.description.contains("a bridge marked 'martlet \(machine.data)'") == true)
                #expect(try machine.network().removeLeftovers() == [])
                try machine.ip("link add martlet0 type bridge")
                try machine.network().prepare()
                #expect(try machine.ip("addr show martlet0").contains("inet 10.213.0.1/16"))
            }
        }

        @Test func `another subnet is taken when no pod is attached, and refused while one is`() async throws {
            try await PrivateMachine.run { machine in
                let network = try machine.network()
                try network.prepare()
                _ = try network.attach("a", namespacePath: machine.pin("a"))
                let changed = try machine.network { $0.subnet = "10.99.0.0/24" }
                let error = #expect(throws: NetworkError.self) { try changed.prepare() }
                #expect(error?.description.contains("pods are attached") == true)
                try network.detach("a")
                try changed.prepare()
                #expect(try machine.ip("addr show martlet0").contains("inet 10.99.0.1/24"))
            }
        }

        @Test func `taking the network away leaves nothing, and switches forwarding back`() async throws {
            try await PrivateMachine.run { machine in
                try File.writeControl("/proc/sys/net/ipv4/ip_forward", "0")
                let network = try machine.network()
                try network.prepare()
                #expect(try File.text("/proc/sys/net/ipv4/ip_forward") == "1")
                // As an overlay leaves IPv6's while there is a bridge.
                let six = "/proc/sys/net/ipv6/conf/all/forwarding"
                try File.replace("\(machine.run)/cni/ip6_forward.before", with: Array("0".utf8))
                try File.writeControl(six, "1")
                for (index, id) in ["a", "b", "c"].enumerated() {
                    let mapping = PortMapping(hostPort: 8080 + UInt16(index), containerPort: 80)
                    _ = try network.attach(id, namespacePath: machine.pin(id), ports: [mapping])
                }
                #expect(try machine.network().removeLeftovers() == [])
                #expect(try machine.devices() == ["lo", "up0"])
                #expect(try machine.rules() == [])
                #expect(try File.text("/proc/sys/net/ipv4/ip_forward") == "0")
                #expect(try File.text(six) == "0")
                #expect(try File.list(machine.run) == [])
                #expect(try File.list(machine.data) == [])
                #expect(try machine.network().removeLeftovers() == [], "twice is no error")
                try machine.network().prepare()
            }
        }

        @Test func `what other programs have in the plugins' chains stays`() async throws {
            try await PrivateMachine.run { machine in
                let network = try machine.network()
                try network.prepare()
                let mapping = PortMapping(hostPort: 8080, containerPort: 80)
                _ = try network.attach("a", namespacePath: machine.pin("a"), ports: [mapping])
                try machine.command(
                    """
                    iptables -t nat -N CNI-HOSTPORT-DNAT
                    iptables -t nat -A PREROUTING -j CNI-HOSTPORT-DNAT
                    iptables -t nat -N CNI-DN-other
                    iptables -t nat -A CNI-HOSTPORT-DNAT -p tcp -m comment \
                    --comment 'dnat name: "podman" id: "a"' -m multiport --dports 7070 -j CNI-DN-other
                    iptables -A FORWARD -m comment --comment martlet:martlet01 -j ACCEPT
                    """)
                #expect(network.removeLeftovers() == [])
                let rules = try machine.rules()
                #expect(rules.contains { $0.contains("podman") && $0.contains("CNI-DN-other") })
                #expect(rules.contains { $0.contains("-A PREROUTING") && $0.contains("CNI-HOSTPORT-DNAT") })
                #expect(rules.contains { $0.contains("martlet:martlet01") })
                #expect(!rules.contains { $0.contains("8080") })
            }
        }
    }

    @Suite(.serialized) struct PodNetworkAfterCrashes {
        /// A directory with a script in the place of a plugin.
        private func plugins(_ machine: PrivateMachine, replacing name: String, by script: String) throws -> String {
            let directory = "\(machine.directory)/plugins"
            try Tree.remove(directory)
            try File.makeDirectories(directory, mode: 0o755)
            // By another process: see ETXTBSY in execve(2).
            let path = "\(directory)/\(name)"
            let write = Program(
                "/bin/sh", ["-c", "cat > \"$0\" && chmod 755 \"$0\"", path],
                environment: ["PATH=/usr/bin:/bin"], input: Array("#!/bin/sh\n\(script)\n".utf8))
            try #require(try write.run().status == .exited(0))
            return directory
        }

        /// - Parameter script: what the plugin does at ADD when all is made; at any other verb it is itself.
        @Test(arguments: [
            "sleep 1000", "kill -KILL $$", "echo garbage", "echo '{\"code\": 100, \"msg\": \"no\"}'; exit 1",
            "head -c 3000000 /dev/zero",
        ])
        func `when a plugin fails with all made, address, device and port are given back`(script: String) async throws {
            try await PrivateMachine.run { machine in
                let program = try machine.network().configuration.overlayProgram
                let text = """
                    [ "$CNI_COMMAND" = ADD ] || exec \(program)
                    \(program) >/dev/null
                    \(script)
                    """
                let directory = try self.plugins(machine, replacing: "martlet-overlay", by: text)
                let network = try machine.network {
                    $0.overlayProgram = "\(directory)/martlet-overlay"
                    $0.timeoutMilliseconds = 2000
                }
                try network.prepare()
                let devices = try machine.devices()
                let pin = try machine.pin("a")
                let mapping = PortMapping(hostPort: 8080, containerPort: 80)
                let error = #expect(throws: NetworkError.self) {
                    try network.attach("a", namespacePath: pin, ports: [mapping])
                }
                let words = "CNI ADD in network martlet for a: plugin martlet-overlay: "
                #expect(error?.description.hasPrefix(words) == true)
                #expect(machine.leases() == [])
                #expect(try machine.devices() == devices)
                #expect(try network.addresses(of: "a") == nil)
                // The port was given back as well.
                let fine = try machine.network()
                _ = try fine.attach("a", namespacePath: pin, ports: [mapping])
            }
        }

        @Test func `a plugin that dies after it made the device leaves no address`() async throws {
            try await PrivateMachine.run { machine in
                let whole = try machine.network()
                let program = whole.configuration.overlayProgram
                let text = #"\#(program) && [ "$CNI_COMMAND" = ADD ] && kill -KILL $$; exit 0"#
                let directory = try self.plugins(machine, replacing: "martlet-overlay", by: text)
                let network = try machine.network { $0.overlayProgram = "\(directory)/martlet-overlay" }
                try network.prepare()
                let devices = try machine.devices()
                let pin = try machine.pin("a")
                #expect(throws: NetworkError.self) { try network.attach("a", namespacePath: pin) }
                #expect(machine.leases() == [])
                #expect(try machine.devices() == devices)
            }
        }

        @Test func `an agent that starts again deletes what belongs to no living pod, and only that`() async throws {
            try await PrivateMachine.run { machine in
                let network = try machine.network()
                try network.prepare()
                let before = try machine.devices()
                for (index, id) in ["alive", "dead", "gone", "lost"].enumerated() {
                    let mapping = PortMapping(hostPort: 8080 + UInt16(index), containerPort: 80)
                    _ = try network.attach(id, namespacePath: machine.pin(id), ports: [mapping])
                }
                // Its namespace went away, as at a reboot; its record went away, as with a damaged disk.
                try NetworkNamespace.remove(at: "\(machine.run)/netns/gone")
                try File.removeFile("\(machine.data)/cni/cache/martlet-lost-eth0.json")
                try NetworkNamespace.remove(at: "\(machine.run)/netns/lost")
                let (none, _) = network.collectGarbage(living: [])
                #expect(none == [], "what this process attached is no garbage")

                let restarted = try machine.network()
                try restarted.prepare()
                let (removed, problems) = restarted.collectGarbage(living: ["alive"])
                #expect(removed == ["dead", "gone", "lost"])
                #expect(problems == [])
                #expect(machine.leases().count == 1)
                #expect(try machine.devices().count == before.count + 1)
                #expect(try File.list("\(machine.run)/netns") == ["alive"])
                let rules = try machine.rules().joined(separator: "\n")
                #expect(rules.contains("martlet alive eth0"))
                for id in ["dead", "gone", "lost"] { #expect(!rules.contains(id)) }
                let pod = try machine.listen(80, in: "\(machine.run)/netns/alive")
                #expect(try machine.talk(to: "127.0.0.1", 8080, listener: pod) != nil)
                #expect(restarted.collectGarbage(living: ["alive"]) == ([], []))
            }
        }

        @Test func `an ADD that was cut off is done over, with one address in the end`() async throws {
            try await PrivateMachine.run { machine in
                let network = try machine.network()
                try network.prepare()
                let pin = try machine.pin("a")
                let mapping = PortMapping(hostPort: 8080, containerPort: 80)
                _ = try network.attach("a", namespacePath: pin, ports: [mapping])
                // As if the agent had been killed before the record was complete.
                let path = "\(machine.data)/cni/cache/martlet-a-eth0.json"
                let text = try File.text(path)
                let cut = text.split(separator: #""complete":true"#, omittingEmptySubsequences: false)
                try File.replace(path, with: Array(cut.joined(separator: #""complete":false"#).utf8))
                let restarted = try machine.network()
                #expect(try restarted.addresses(of: "a") == nil)
                let again = try restarted.attach("a", namespacePath: pin, ports: [mapping])
                #expect(machine.leases() == [again.address.address.description])
                #expect(try Set(machine.published()) == ["martlet a eth0"])
            }
        }

        @Test func `a plugin that is missing at DEL keeps the record until it is back`() async throws {
            try await PrivateMachine.run { machine in
                let program = try machine.network().configuration.overlayProgram
                let directory = try self.plugins(machine, replacing: "martlet-overlay", by: "exec \(program)")
                let network = try machine.network { $0.overlayProgram = "\(directory)/martlet-overlay" }
                try network.prepare()
                let mapping = PortMapping(hostPort: 8080, containerPort: 80)
                _ = try network.attach("a", namespacePath: machine.pin("a"), ports: [mapping])
                rename("\(directory)/martlet-overlay", "\(directory)/away")
                let error = #expect(throws: NetworkError.self) { try network.detach("a") }
                #expect(error?.description.contains("plugin martlet-overlay: there is no program") == true)
                #expect(machine.leases().count == 1)
                rename("\(directory)/away", "\(directory)/martlet-overlay")
                try network.detach("a")
                #expect(machine.leases() == [])
                #expect(try machine.published() == [])
            }
        }

        @Test func `many pods at once get an address each and their ports, and all go again`() async throws {
            try await PrivateMachine.run { machine in
                let network = try machine.network()
                try network.prepare()
                let before = try machine.devices()
                // The pool's threads are made by this one, so they are on the same machine.
                let pool = try BlockingPool(threads: 8)
                let addresses = try await withThrowingTaskGroup(of: String.self) { group in
                    for index in 0..<30 {
                        let mapping = PortMapping(hostPort: 8000 + UInt16(index), containerPort: 80)
                        group.addTask {
                            try await pool.run {
                                let pin = try machine.pin("pod\(index)")
                                return try network.attach("pod\(index)", namespacePath: pin, ports: [mapping])
                                    .address.description
                            }
                        }
                    }
                    return try await group.reduce(into: Set<String>()) { $0.insert($1) }
                }
                #expect(addresses.count == 30)
                for index in [0, 29] {
                    let pod = try machine.listen(80, in: "\(machine.run)/netns/pod\(index)")
                    #expect(try machine.talk(to: "127.0.0.1", 8000 + UInt16(index), listener: pod) != nil)
                }
                try await withThrowingTaskGroup(of: Void.self) { group in
                    for index in 0..<30 { group.addTask { try await pool.run { try network.detach("pod\(index)") } } }
                    try await group.waitForAll()
                }
                #expect(machine.leases() == [])
                #expect(try machine.devices() == before)
                #expect(try machine.rules().filter { $0.contains("pod") } == [])
            }
        }
    }
}
