import CNISpec
import Glibc
import JSON
import Kernel
import Testing

extension KernelSuite {
    /// Ports that martlet-overlay publishes by itself, in the same call as it makes the device.
    @Suite(.serialized) struct OverlayPluginPorts {
        private typealias Port = PortmapProgram

        private struct Site {
            let ports: PortmapProgram
            let plugin: OverlayProgram
            let pin: String

            /// On the bridge that the fixture of ports makes.
            init(_ machine: PrivateMachine) throws {
                ports = try PortmapProgram(machine)
                plugin = OverlayProgram(machine, path: try ShimFixture.program("martlet-overlay"))
                pin = try machine.pin("one")
            }

            func call(
                _ verb: String, _ published: [JSONValue], _ previous: JSONValue? = nil, id: String = "one",
                more: [String] = [], _ change: (inout JSONObject) -> Void = { _ in }
            ) throws -> OverlayProgram.Answer {
                let input = plugin.configuration { configuration in
                    configuration["snat"] = true
                    configuration["runtimeConfig"] = ["portMappings": .array(published)]
                    if let previous { configuration["prevResult"] = previous }
                    change(&configuration)
                }
                return try plugin.call(verb, id, in: pin, more: more, input: input)
            }

            func expectNothing() throws {
                try ports.expectNothing()
                #expect(try plugin.machine.ip("-o link show type veth").components("mv").isEmpty)
                #expect(try File.list(plugin.directory + "/net").filter { $0.hasPrefix("10.") }.isEmpty)
            }
        }

        @Test func `a port is there with the device, and goes with it`() async throws {
            try await PrivateMachine.run { machine in
                let site = try Site(machine)
                let published = [Port.port(8080, 80)]
                let added = try site.call("ADD", published)
                #expect(added.isGood, "\(added.message)")
                let server = try site.ports.serve("tcp", 80, in: site.pin)
                func seen(_ address: String, _ namespace: String? = nil) throws -> String? {
                    try site.ports.talk("tcp", to: address, 8080, from: namespace, server: server)
                }
                #expect(try seen("198.51.100.2", machine.outside) == "198.51.100.1")
                #expect(try seen("127.0.0.1") == "10.9.0.1")
                #expect(try site.call("CHECK", published, added.json).isGood)
                let check = try site.call("CHECK", [Port.port(8081, 80)], added.json)
                #expect(check.code == 103 && check.message.contains("8081"), "\(check.message)")
                #expect(try site.call("STATUS", []).isGood)
                #expect(try site.call("DEL", published, added.json).isGood)
                try site.expectNothing()
            }
        }

        @Test func `what cannot be published leaves nothing behind`() async throws {
            try await PrivateMachine.run { machine in
                let site = try Site(machine)
                let other = try site.ports.container("other", 2)
                #expect(try site.ports.call("ADD", other, [Port.port(8080, 80)]).isGood)
                let rules = try site.ports.rules()
                let taken = try site.call("ADD", [Port.port(8080, 80)])
                #expect(taken.code == 104 && taken.message.contains("container other"), "\(taken.message)")
                let wrong = try site.call("ADD", [Port.port(0, 80)])
                #expect(wrong.code == 7 && wrong.message.contains("hostPort"), "\(wrong.message)")
                let unasked = try site.call("ADD", [Port.port(8081, 80)]) { $0["snat"] = nil }
                #expect(unasked.code == 2 && unasked.message.contains("portMappings"), "\(unasked.message)")
                #expect(try site.ports.rules() == rules)
                #expect(try site.ports.call("DEL", other, [Port.port(8080, 80)]).isGood)
                try site.expectNothing()
            }
        }

        @Test(arguments: ["before_ports", "after_rules", "before_result"])
        func `what it leaves that is killed is found by DEL or GC`(point: String) async throws {
            try await PrivateMachine.run { machine in
                let site = try Site(machine)
                let published = [Port.port(8080, 80), Port.port(5353, 53, "udp")]
                for verb in ["DEL", "GC"] {
                    let killed = try site.call("ADD", published, more: ["MARTLET_FAILPOINT=plugin.\(point)"])
                    #expect(killed.status == .signaled(SIGKILL))
                    let answer = try site.call(verb, published) { configuration in
                        if verb == "GC" {
                            configuration["cni.dev/valid-attachments"] = []
                            configuration["runtimeConfig"] = nil
                        }
                    }
                    #expect(answer.isGood, "\(answer.message)")
                    try site.expectNothing()
                }
            }
        }
    }
}

extension String {
    fileprivate func components(_ prefix: String) -> [Substring] {
        split(whereSeparator: { " @:".contains($0) }).filter { $0.hasPrefix(prefix) }
    }
}
