import Glibc
import JSON
import Kernel
import Networking
import Testing

extension KernelSuite {
    /// portmap behind martlet-overlay's mode "routed".
    @Suite(.serialized) struct RoutedPublishedPorts {
        private typealias Port = PortmapProgram

        private func container(_ pod: RoutedProgram.Pod) -> PortmapProgram.Container {
            PortmapProgram.Container(id: pod.id, namespace: pod.namespace, addresses: pod.addresses)
        }

        @Test(arguments: ["tcp", "udp"])
        func `without a bridge a published port is reached from everywhere, the pod itself included`(
            transport: String
        ) async throws {
            try await PrivateMachine.run { machine in
                let plugin = try RoutedProgram(machine)
                let portmap = plugin.portmap
                let (one, two) = (try plugin.pod("one"), try plugin.pod("two"))
                let server = try portmap.serve(transport, 80, in: one.namespace)
                let ports = [Port.port(8080, 80, transport)]
                let added = try portmap.call("ADD", container(one), ports)
                #expect(added.isGood, "\(added.message)")
                func seen(_ address: String, _ namespace: String? = nil) throws -> String? {
                    try portmap.talk(transport, to: address, 8080, from: namespace, server: server)
                }
                // Those outside keep their address, and so do neighbours: answers come by the host anyway.
                #expect(try seen("198.51.100.2", machine.outside) == "198.51.100.1")
                #expect(try seen("2001:db8::2", machine.outside) == "2001:db8::1")
                #expect(try seen("198.51.100.2", two.namespace) == "10.64.0.3")
                #expect(try seen("10.64.0.1", two.namespace) == "10.64.0.3")
                #expect(try seen("2001:db8::2", two.namespace) == "fd64::3")
                #expect(try seen("198.51.100.2") == "198.51.100.2")
                #expect(try seen("2001:db8::2") == "2001:db8::2")
                // 127.0.0.1, and the pod itself, by the device it came from, as one of the host's addresses.
                #expect(try plugin.setting("ipv4/conf/\(one.hostEnd)/route_localnet") == "1")
                #expect(try seen("127.0.0.1") == "10.64.0.1")
                #expect(try seen("198.51.100.2", one.namespace) == "10.64.0.1")
                #expect(try seen("2001:db8::2", one.namespace) == "fd64::1")
                #expect(try portmap.call("CHECK", container(one), ports).isGood)
                #expect(try portmap.call("DEL", container(one), ports).isGood)
                #expect(try plugin.setting("ipv4/conf/\(one.hostEnd)/route_localnet") == "0")
                try portmap.expectNothing()
            }
        }

        @Test func `without snat 127_0_0_1 stays the host's, and a pod does not reach itself`() async throws {
            try await PrivateMachine.run { machine in
                let plugin = try RoutedProgram(machine)
                let portmap = plugin.portmap
                let (one, two) = (try plugin.pod("one"), try plugin.pod("two"))
                let server = try portmap.serve("tcp", 80, in: one.namespace)
                #expect(try portmap.call("ADD", container(one), [Port.port(8080, 80)]) { $0["snat"] = false }.isGood)
                func seen(_ address: String, _ namespace: String?) throws -> String? {
                    try portmap.talk("tcp", to: address, 8080, from: namespace, server: server, patience: 300)
                }
                #expect(try seen("198.51.100.2", two.namespace) == "10.64.0.3")
                #expect(try seen("127.0.0.1", nil) == nil)
                #expect(try seen("198.51.100.2", one.namespace) == nil)
                #expect(try plugin.setting("ipv4/conf/\(one.hostEnd)/route_localnet") == "0")
            }
        }

        @Test func `route_localnet of a pod's device goes with its ports, and the others keep theirs`() async throws {
            try await PrivateMachine.run { machine in
                let plugin = try RoutedProgram(machine)
                let portmap = plugin.portmap
                let pods = [try plugin.pod("one"), try plugin.pod("two"), try plugin.pod("three")]
                func localnet() throws -> [Bool] {
                    let set = try machine.command("nft list set inet martlet_portmap localnet")
                    return try pods.map { pod in
                        let isOn = try plugin.setting("ipv4/conf/\(pod.hostEnd)/route_localnet") == "1"
                        #expect(set.contains(pod.hostEnd) == isOn)
                        return isOn
                    }
                }
                for (number, pod) in pods.enumerated() {
                    #expect(try portmap.call("ADD", container(pod), [Port.port(8080 + Int64(number), 80)]).isGood)
                }
                #expect(try portmap.call("ADD", container(pods[0]), [Port.port(8090, 80)]).isGood, "in place of 8080")
                #expect(try localnet() == [true, true, true])
                // An ADD that was killed between the rules and the setting.
                #expect(try portmap.call("DEL", container(pods[0])).isGood)
                #expect(try localnet() == [false, true, true])
                let killed = try portmap.call(
                    "ADD", container(pods[0]), [Port.port(8080, 80)], more: ["MARTLET_FAILPOINT=plugin.after_rules"])
                #expect(killed.status == .signaled(SIGKILL))
                let valid: (inout JSONObject) -> Void = {
                    $0["cni.dev/valid-attachments"] = [["containerID": "two", "ifname": "eth0"]]
                }
                #expect(try portmap.call("GC", nil, [], valid).isGood)
                #expect(try localnet() == [false, true, false])
                // The device is gone before its ports are.
                #expect(try plugin.call("DEL", "two", in: pods[1].namespace).isGood)
                #expect(try portmap.call("DEL", container(pods[1])).isGood)
                #expect(try portmap.rules() == "")
            }
        }
    }
}
