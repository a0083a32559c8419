import CNISpec
import Glibc
import JSON
import Kernel
import Netfilter
import Reactor
import Testing

extension KernelSuite {
    @Suite(.serialized) struct PublishedPorts {
        private typealias Port = PortmapProgram

        @Test(arguments: ["tcp", "udp"])
        func `a published port is reached from everywhere, and outside clients keep their address`(
            transport: String
        ) async throws {
            try await PrivateMachine.run { machine in
                let plugin = try PortmapProgram(machine)
                let (one, two) = (try plugin.container("one", 2), try plugin.container("two", 3))
                let server = try plugin.serve(transport, 80, in: one.namespace)
                let added = try plugin.call("ADD", one, [Port.port(8080, 80, transport)])
                #expect(added.isGood, "\(added.message)")
                #expect(added.json["ips"]?.arrayValue?.count == 2, "the result before is handed on")
                func seen(_ address: String, _ namespace: String? = nil, bound: String? = nil) throws -> String? {
                    try plugin.talk(
                        transport, to: address, 8080, from: namespace, server: server, bound: bound)
                }
                #expect(try seen("198.51.100.2", machine.outside) == "198.51.100.1")
                #expect(try seen("2001:db8::2", machine.outside) == "2001:db8::1")
                // The host, at its own addresses and at its loopback.
                #expect(try seen("198.51.100.2") == "198.51.100.2")
                #expect(try seen("2001:db8::2") == "2001:db8::2")
                #expect(try seen("127.0.0.1") == "10.9.0.1")
                #expect(try seen("127.3.2.1") == "10.9.0.1")
                // A neighbour on the bridge, and the container itself: answers would not find back by themselves.
                for client in [two, one] {
                    #expect(try seen("198.51.100.2", client.namespace) == "10.9.0.1")
                    #expect(try seen("10.9.0.1", client.namespace) == "10.9.0.1")
                    #expect(try seen("2001:db8::2", client.namespace) == "fd09::1")
                }
                // Not by way of the published port nothing is translated.
                let direct = try plugin.talk(transport, to: "10.9.0.2", 80, from: two.namespace, server: server)
                #expect(direct == "10.9.0.3")
                #expect(try plugin.call("CHECK", one, [Port.port(8080, 80, transport)]).isGood)
                #expect(try plugin.call("DEL", one, [Port.port(8080, 80, transport)]).isGood)
                try plugin.expectNothing()
                #expect(
                    try plugin.talk(
                        transport, to: "198.51.100.2", 8080, from: machine.outside, server: server, patience: 200)
                        == nil)
            }
        }

        @Test(arguments: OverlayProgram.versions)
        func `each version of CNI is answered in its own form, whatever came before is handed on in it`(
            version: String
        ) async throws {
            try await PrivateMachine.run { machine in
                let plugin = try PortmapProgram(machine)
                let one = try plugin.container("one", 2)
                let addresses: [JSONObject] = one.addresses.map { ["address": .string($0), "interface": 1] }
                var inside: JSONObject = ["name": "eth0", "sandbox": .string(one.namespace)]
                if version == "1.1.0" { inside["mtu"] = 1500 }
                let previous: JSONValue = [
                    "cniVersion": .string(version), "interfaces": [["name": "br0"], .object(inside)],
                    "ips": OverlayProgram.written(addresses, in: version),
                ]
                try OverlayProgram.expectForms(of: version, addresses) { verb, change in
                    // What ADD publishes is there until DEL.
                    #expect(try plugin.rules().contains("\"net one eth0\"") == (verb != "ADD"))
                    return try plugin.call(verb, one, [Port.port(8080, 80)]) { configuration in
                        configuration["prevResult"] = previous
                        change(&configuration)
                    }
                }
                try plugin.expectNothing()
            }
        }

        @Test(.enabled(if: PortmapProgram.hasSCTP, "needs a kernel with SCTP"))
        func `a published port of SCTP carries data both ways, and clients keep their address`() async throws {
            try await PrivateMachine.run { machine in
                let plugin = try PortmapProgram(machine)
                let (one, two) = (try plugin.container("one", 2), try plugin.container("two", 3))
                let server = try plugin.serve("sctp", 80, in: one.namespace)
                // The same number of another transport is another port.
                let other = try plugin.serve("tcp", 80, in: two.namespace)
                #expect(try plugin.call("ADD", one, [Port.port(8080, 80, "sctp")]).isGood)
                #expect(try plugin.call("ADD", two, [Port.port(8080, 80, "tcp")]).isGood)
                func seen(_ address: String, _ namespace: String? = nil) throws -> String? {
                    try plugin.talk("sctp", to: address, 8080, from: namespace, server: server)
                }
                #expect(try seen("198.51.100.2", machine.outside) == "198.51.100.1")
                #expect(try seen("2001:db8::2", machine.outside) == "2001:db8::1")
                #expect(try seen("198.51.100.2") == "198.51.100.2")
                #expect(
                    try plugin.talk("tcp", to: "198.51.100.2", 8080, from: machine.outside, server: other)
                        == "198.51.100.1")
                #expect(try plugin.call("CHECK", one, [Port.port(8080, 80, "sctp")]).isGood)
                #expect(try plugin.call("DEL", one).isGood)
                #expect(
                    try plugin.talk(
                        "sctp", to: "198.51.100.2", 8080, from: machine.outside, server: server, patience: 200) == nil)
                #expect(try plugin.call("DEL", two).isGood)
                try plugin.expectNothing()
            }
        }

        @Test func `only the host's own addresses are taken, or exactly the one that was given`() async throws {
            try await PrivateMachine.run { machine in
                let plugin = try PortmapProgram(machine)
                let (one, two) = (try plugin.container("one", 2), try plugin.container("two", 3))
                try machine.ip("addr add 198.51.100.3/24 dev up0")
                let server = try plugin.serve("tcp", 80, in: one.namespace)
                let other = try plugin.serve("tcp", 80, in: two.namespace)
                let far = try plugin.serve("tcp", 8080, in: machine.outside)
                let ports = [Port.port(8080, 80, at: "198.51.100.2"), Port.port(8081, 80, at: "127.0.0.1")]
                #expect(try plugin.call("ADD", one, ports).isGood)
                #expect(try plugin.call("ADD", two, [Port.port(8080, 80, at: "198.51.100.3")]).isGood)
                #expect(
                    try plugin.talk("tcp", to: "198.51.100.2", 8080, from: machine.outside, server: server)
                        == "198.51.100.1")
                #expect(
                    try plugin.talk("tcp", to: "198.51.100.3", 8080, from: machine.outside, server: other)
                        == "198.51.100.1")
                #expect(try plugin.talk("tcp", to: "127.0.0.1", 8081, server: server) == "10.9.0.1")
                #expect(try plugin.talk("tcp", to: "127.0.0.1", 8080, server: server) == nil)
                #expect(try plugin.talk("tcp", to: "198.51.100.2", 8081, server: server) == nil)
                // Somebody else's address with the same port, from the host and through it.
                #expect(try plugin.call("ADD", two, [Port.port(8080, 80, at: "10.9.0.1")]).isGood)
                #expect(try plugin.talk("tcp", to: "198.51.100.1", 8080, server: far) == "198.51.100.2")
                try machine.ip("route add 10.9.0.0/24 via 198.51.100.2", in: machine.outside)
                #expect(
                    try plugin.talk("tcp", to: "198.51.100.1", 8080, from: one.namespace, server: far) == "10.9.0.2")
                #expect(try plugin.call("DEL", one).isGood)
                #expect(try plugin.call("DEL", two).isGood)
                try plugin.expectNothing()
            }
        }

        @Test func `loopback is closed to the bridge and the outside while a port of it leads to a container`()
            async throws
        {
            try await PrivateMachine.run { machine in
                let plugin = try PortmapProgram(machine)
                let one = try plugin.container("one", 2)
                let published = try plugin.serve("tcp", 80, in: one.namespace)
                let secret = try plugin.serve("tcp", 9999, on: "127.0.0.1")
                #expect(try plugin.call("ADD", one, [Port.port(8080, 80)]).isGood)
                #expect(try plugin.routesLoopback())
                // Both send what is for 127.0.0.1 to the machine, as nobody does who means well.
                for (place, device, router) in [
                    (one.namespace, "eth0", "10.9.0.1"), (machine.outside, "down0", "198.51.100.2"),
                ] {
                    try machine.command(
                        """
                        ip addr flush dev lo; echo 1 >/proc/sys/net/ipv4/conf/\(device)/route_localnet
                        ip route add 127.0.0.0/8 via \(router)
                        """, in: place)
                }
                func reaches(_ port: UInt16, from namespace: String, _ server: SharedFD) throws -> Bool {
                    try plugin.talk("tcp", to: "127.0.0.1", port, from: namespace, server: server, patience: 300) != nil
                }
                #expect(try !reaches(9999, from: one.namespace, secret))
                #expect(try !reaches(9999, from: machine.outside, secret))
                #expect(try !reaches(8080, from: machine.outside, published))
                // It is the table that closes it.
                try machine.command("nft flush chain inet martlet_portmap guard")
                #expect(try reaches(9999, from: one.namespace, secret))
                #expect(try !reaches(8080, from: machine.outside, published), "and not the guard alone")
                #expect(try plugin.call("CHECK", one, [Port.port(8080, 80)]).message.contains("has not the rules"))
                #expect(try plugin.call("DEL", plugin.container("never", 9)).isGood, "mends it")
                #expect(try !reaches(9999, from: one.namespace, secret))
                #expect(try plugin.call("CHECK", one, [Port.port(8080, 80)]).isGood)
                #expect(try plugin.call("DEL", one).isGood)
                try plugin.expectNothing()
            }
        }

        @Test func `without snat nothing is masqueraded and 127_0_0_1 stays the host's`() async throws {
            try await PrivateMachine.run { machine in
                let plugin = try PortmapProgram(machine)
                let one = try plugin.container("one", 2)
                let server = try plugin.serve("tcp", 80, in: one.namespace)
                let own = try plugin.serve("tcp", 8080, on: "127.0.0.1")
                #expect(try plugin.call("ADD", one, [Port.port(8080, 80)]) { $0["snat"] = false }.isGood)
                #expect(try !plugin.routesLoopback())
                #expect(try plugin.talk("tcp", to: "127.0.0.1", 8080, server: own) == "127.0.0.1")
                #expect(
                    try plugin.talk("tcp", to: "198.51.100.2", 8080, from: machine.outside, server: server)
                        == "198.51.100.1")
                #expect(
                    try plugin.talk(
                        "tcp", to: "198.51.100.2", 8080, from: one.namespace, server: server, patience: 200) == nil)
                #expect(try plugin.call("CHECK", one, [Port.port(8080, 80)]) { $0["snat"] = false }.isGood)
                #expect(try plugin.call("DEL", one).isGood)
                try plugin.expectNothing()
            }
        }

        @Test func `what UDP clients spoke with before is forgotten when a port moves`() async throws {
            try await PrivateMachine.run { machine in
                let plugin = try PortmapProgram(machine)
                let one = try plugin.container("one", 2)
                for host in ["198.51.100.2", "2001:db8::2"] {
                    let name = SocketName(try #require(IPAddress(host)), 5353)
                    let here = try plugin.serve("udp", 5353)
                    let there = try plugin.serve("udp", 53, in: one.namespace)
                    // One client that keeps its port: for the kernel all of it is one conversation.
                    let client = try plugin.inside(machine.outside) { () throws(KernelError) in
                        try PortmapProgram.open("udp", name)
                    }
                    #expect(try plugin.talk("udp", client, to: name, here) != nil)
                    #expect(try plugin.call("ADD", one, [Port.port(5353, 53, "udp")]).isGood)
                    #expect(try plugin.talk("udp", client, to: name, there) != nil)
                    let killed = try plugin.call(
                        "DEL", one, [Port.port(5353, 53, "udp")], more: ["MARTLET_FAILPOINT=plugin.after_rules"])
                    #expect(killed.status == .signaled(SIGKILL))
                    #expect(try plugin.call("DEL", one, [Port.port(5353, 53, "udp")]).isGood)
                    #expect(try plugin.talk("udp", client, to: name, here) != nil)
                    #expect(try plugin.call("ADD", one, [Port.port(5353, 53, "udp")]).isGood)
                    #expect(try plugin.talk("udp", client, to: name, there) != nil)
                    #expect(try plugin.call("DEL", one).isGood)
                    #expect(try plugin.talk("udp", client, to: name, here) != nil)
                }
                try plugin.expectNothing()
            }
        }

        @Test func `a port that somebody has is refused with who has it`() async throws {
            try await PrivateMachine.run { machine in
                let plugin = try PortmapProgram(machine)
                let (one, two) = (try plugin.container("one", 2), try plugin.container("two", 3))
                #expect(
                    try plugin.call("ADD", one, [Port.port(80, 1), Port.port(81, 1, at: "198.51.100.2")]).isGood)
                let before = try plugin.rules()
                for port in [
                    Port.port(80, 1), Port.port(80, 1, at: "198.51.100.2"), Port.port(81, 1),
                    Port.port(80, 1, at: "2001:db8::2"), Port.port(80, 1, at: "127.0.0.1"),
                ] {
                    let answer = try plugin.call("ADD", two, [Port.port(99, 1), port])
                    #expect(answer.status == .exited(1) && answer.code == 104)
                    #expect(answer.message.contains("container one of the network net already"), "\(answer.message)")
                    #expect(try plugin.rules() == before, "and the other port is not published either")
                }
                let twice = try plugin.call("ADD", two, [Port.port(70, 1), Port.port(70, 2, at: "198.51.100.2")])
                #expect(twice.code == 7 && twice.message.contains("for the same packets"))
                #expect(
                    try plugin.call(
                        "ADD", two, [Port.port(80, 1, "udp"), Port.port(81, 1, at: "198.51.100.9"), Port.port(82, 1)]
                    ).isGood)
                // Once more for the same container is what replaces an ADD that was killed.
                #expect(try plugin.call("ADD", one, [Port.port(80, 2)]).isGood)
                #expect(try plugin.call("CHECK", one, [Port.port(80, 2)]).isGood)
                #expect(try plugin.call("ADD", two, [Port.port(81, 1)]).isGood, "which the first let go of")
                #expect(try plugin.call("DEL", one).isGood)
                #expect(try plugin.call("DEL", two).isGood)
                try plugin.expectNothing()
            }
        }

        @Test func `CHECK sees what is missing, DEL and GC take away what they are asked for`() async throws {
            try await PrivateMachine.run { machine in
                let plugin = try PortmapProgram(machine)
                let (one, two) = (try plugin.container("one", 2), try plugin.container("two", 3))
                let ports = [Port.port(80, 1), Port.port(53, 53, "udp", at: "198.51.100.2")]
                #expect(try plugin.call("STATUS", nil).isGood)
                try plugin.expectNothing()
                #expect(try plugin.call("ADD", one, ports).isGood)
                func check() throws -> String { try plugin.call("CHECK", one, ports).message }
                #expect(try check() == "")
                #expect(try plugin.call("STATUS", nil).isGood)
                try machine.command("nft delete element inet martlet_portmap any6 '{ tcp . 80 }'")
                #expect(try check().hasPrefix("the published port [::]:80/tcp is gone"))
                #expect(try plugin.call("ADD", one, ports).isGood)
                try machine.command("nft delete element inet martlet_portmap loopback4 '{ tcp . 80 }'")
                #expect(try check().hasPrefix("the elements of the set loopback4"))
                #expect(try plugin.call("ADD", one, ports).isGood)
                try machine.command("echo 0 >/proc/sys/net/ipv4/conf/br0/route_localnet")
                #expect(try check().hasPrefix("route_localnet of br0 is off"))
                #expect(try plugin.call("ADD", one, ports).isGood)
                #expect(try check() == "")

                // Another network's entries of the same container and device.
                #expect(
                    try plugin.call("ADD", two, [Port.port(90, 1)]) { $0["name"] = "other" }.isGood)
                #expect(try plugin.call("ADD", two, [Port.port(91, 1)]).code == 102, "its address is another's already")
                #expect(try plugin.call("DEL", two).isGood)
                let valid: (inout JSONObject) -> Void = {
                    $0["cni.dev/valid-attachments"] = [["containerID": "one", "ifname": "eth0"]]
                }
                #expect(try plugin.call("GC", nil, [], valid).isGood)
                #expect(try check() == "")
                #expect(try plugin.rules().contains("\"other two eth0\""))
                #expect(try plugin.call("GC", nil) { $0["cni.dev/valid-attachments"] = [] }.isGood)
                #expect(try check().hasPrefix("the published port"))
                #expect(try !plugin.rules().contains("\"net one eth0\""))
                #expect(try plugin.rules().contains("\"other two eth0\""))
                for _ in 0..<2 { #expect(try plugin.call("DEL", two) { $0["name"] = "other" }.isGood) }
                try plugin.expectNothing()
                #expect(try check().hasPrefix("the table inet martlet_portmap is gone"))

                // Without namespace, result or ports.
                #expect(try plugin.call("ADD", one, ports).isGood)
                try NetworkNamespace.remove(at: one.namespace)
                let gone = PortmapProgram.Container(id: "one", namespace: "", addresses: [])
                #expect(
                    try plugin.call("DEL", gone) {
                        $0["prevResult"] = nil
                        $0["runtimeConfig"] = nil
                    }.isGood)
                try plugin.expectNothing()
                // Whatever became of the configuration.
                #expect(try plugin.call("ADD", two, ports).isGood)
                let blind = try plugin.call("DEL", two, more: ["CNI_ARGS=LATER=1"]) {
                    $0["prevResult"] = 3
                    $0["runtimeConfig"] = ["portMappings": "gone"]
                    $0["snat"] = "maybe"
                    $0["backend"] = "iptables"
                    $0["later"] = ["a": 1]
                }
                #expect(blind.isGood, "\(blind.message)")
                try plugin.expectNothing()
                let alone = try plugin.call("ADD", two, ports) { $0["prevResult"] = nil }
                #expect(alone.code == 7 && alone.message.contains("prevResult"))
            }
        }

        @Test(arguments: ["before_rules", "after_rules", "before_result"])
        func `what a portmap leaves that is killed is found by DEL, GC or the next ADD`(point: String) async throws {
            try await PrivateMachine.run { machine in
                let plugin = try PortmapProgram(machine)
                let one = try plugin.container("one", 2)
                let kill = ["MARTLET_FAILPOINT=plugin.\(point)"]
                for verb in ["DEL", "GC", "ADD"] {
                    #expect(try plugin.call("ADD", one, [Port.port(80, 1)], more: kill).status == .signaled(SIGKILL))
                    let next = try plugin.call(verb, verb == "GC" ? nil : one, verb == "ADD" ? [Port.port(81, 1)] : [])
                    {
                        if verb == "GC" { $0["cni.dev/valid-attachments"] = [] }
                    }
                    #expect(next.isGood, "\(next.message)")
                    if verb != "ADD" { try plugin.expectNothing() }
                }
                #expect(try !plugin.rules().contains("tcp . 80"))
                guard point != "before_result" else { return }
                #expect(try plugin.call("DEL", one, [Port.port(81, 1)], more: kill).status == .signaled(SIGKILL))
                for _ in 0..<2 { #expect(try plugin.call("DEL", one).isGood) }
                try plugin.expectNothing()
            }
        }

        @Test func `40 containers from 8 sides at once get their port, of those who want the same one one`()
            async throws
        {
            try await PrivateMachine.run { machine in
                let plugin = try PortmapProgram(machine)
                let pool = try BlockingPool(threads: 8)
                func each(_ body: @escaping @Sendable (Int) throws -> Bool) async throws -> Int {
                    try await withThrowingTaskGroup(of: Bool.self) { group in
                        for number in 2..<42 { group.addTask { try await pool.run { try body(number) } } }
                        return try await group.reduce(0) { $0 + ($1 ? 1 : 0) }
                    }
                }
                // One container on the bridge is enough for the rules to have a way.
                let one = try plugin.container("c2", 2)
                @Sendable func place(_ number: Int) -> PortmapProgram.Container {
                    PortmapProgram.Container(
                        id: "c\(number)", namespace: one.namespace,
                        addresses: ["10.9.0.\(number)/24", "fd09::\(number)/64"])
                }
                let own = try await each { number in
                    try plugin.call("ADD", place(number), [Port.port(Int64(1000 + number), 80)]).isGood
                }
                #expect(own == 40)
                let ends = try await each { number in try plugin.call("DEL", place(number)).isGood }
                #expect(ends == 40)
                try plugin.expectNothing()
                let same = try await each { number in
                    let port = number % 2 == 0 ? Port.port(80, 80) : Port.port(80, 80, at: "198.51.100.2")
                    return try plugin.call("ADD", place(number), [port]).isGood
                }
                // Either one has all addresses or one has the one address.
                #expect(same == 1)
                _ = try await each { number in try plugin.call("DEL", place(number)).isGood }
                try plugin.expectNothing()
            }
        }

        @Test func `a table of that name that is not ours stays as it is`() async throws {
            try await PrivateMachine.run { machine in
                let plugin = try PortmapProgram(machine)
                let one = try plugin.container("one", 2)
                try machine.command("nft add table inet martlet_portmap")
                let before = try plugin.rules()
                let answer = try plugin.call("ADD", one, [Port.port(80, 1)])
                #expect(answer.code == 102 && answer.message.contains("nft delete table inet martlet_portmap"))
                #expect(try plugin.call("STATUS", nil).code == 50)
                #expect(try plugin.rules() == before)
            }
        }

        @Test func `a refusal of nf_tables names the object, and nothing of the transaction is made`() async throws {
            try await PrivateMachine.run { machine in
                var socket = try NetfilterSocket()
                let key = FilterElement.padded([6], [0, 80])
                let element = FilterElement(key: key, value: [10, 0, 0, 1, 0, 80, 0, 0], comment: "who")
                let table = FilterTable(
                    "mine", comment: "a test",
                    sets: [FilterSet("ports", key: [.transport, .port], value: [.ipv4, .port])],
                    chains: [FilterChain("plain", rules: [FilterRule("all", [.counter, .verdict(.accept)])])])
                for _ in 0..<2 {
                    var whole = try FilterTransaction(generation: nil)
                    try whole.replace(table)
                    try whole.add([element], to: "ports", of: "mine")
                    try socket.commit(whole)
                }
                #expect(try socket.comment(ofTable: "mine") == "a test")
                #expect(try socket.comment(ofTable: "yours") == nil)
                #expect(try socket.rules(ofTable: "mine") == table.outline)
                #expect(try socket.elements(of: "ports", table: "mine") == [element])
                let old = try socket.generation()
                var second = try FilterTransaction(generation: old)
                try second.add(
                    [FilterElement(key: FilterElement.padded([6], [0, 81]), value: element.value, comment: nil)],
                    to: "ports", of: "mine")
                try second.add([element], to: "ports", of: "mine")
                var refused: KernelError?
                do throws(KernelError) { try socket.commit(second) } catch { refused = error }
                #expect(refused?.errno == EEXIST && refused?.subject == "element 'who' of set ports of table mine")
                #expect(try socket.elements(of: "ports", table: "mine").count == 1)
                var rehearsal = try FilterTransaction(generation: old)
                try rehearsal.delete([element], from: "ports", of: "mine")
                try socket.rehearse(rehearsal)
                #expect(try socket.elements(of: "ports", table: "mine").count == 1)
                try machine.command("nft add table inet other")
                var late = try FilterTransaction(generation: old)
                try late.delete(tableNamed: "mine")
                refused = nil
                do throws(KernelError) { try socket.commit(late) } catch { refused = error }
                #expect(refused?.errno == ERESTART)
                var last = try FilterTransaction(generation: nil)
                try last.delete(tableNamed: "mine")
                try last.delete(tableNamed: "other")
                try socket.commit(last)
                #expect(try machine.command("nft list ruleset") == "")
            }
        }
    }
}
