import CNISpec
import Glibc
import JSON
import Kernel
import Networking
import Testing

/// One of our plugins as any CNI host calls it.
private struct LoopbackProgram: Sendable {
    let path: String

    init() throws { path = try ShimFixture.program("loopback") }

    func call(
        _ verb: String, in namespace: String, interface: String = "lo", more: [String] = [],
        _ change: (inout JSONObject) -> Void = { _ in }
    ) throws -> OverlayProgram.Answer {
        var configuration: JSONObject = ["cniVersion": "1.1.0", "name": "net", "type": "loopback"]
        change(&configuration)
        return try OverlayProgram.call(
            path, verb, "one", in: namespace, interface: interface, more: more,
            input: JSONValue.object(configuration).serialized())
    }
}

extension KernelSuite {
    @Suite(.serialized) struct LoopbackPluginByHand {
        @Test(arguments: ["0.3.1", "0.4.0", "1.0.0", "1.1.0"])
        func `ADD switches lo on and says what is on it, whatever the device's name`(version: String) async throws {
            try await PrivateMachine.run { machine in
                let plugin = try LoopbackProgram()
                let one = try machine.pin("one")
                try machine.ip("link set lo down", in: one)
                let added = try plugin.call("ADD", in: one, interface: "eth0") { $0["cniVersion"] = .string(version) }
                #expect(added.isGood, "\(added.message)")
                #expect(added.json["cniVersion"] == .string(version))
                #expect(
                    added.json["interfaces"] == [["name": "lo", "mac": "00:00:00:00:00:00", "sandbox": .string(one)]])
                let result = try CNIResult(JSONReader(added.json), version: CNIVersion(rawValue: version))
                let hasIPv6 = File.exists("/proc/self/net/if_inet6")
                #expect(
                    result.addresses.map(\.address.description)
                        == (hasIPv6 ? ["127.0.0.1/8", "::1/128"] : ["127.0.0.1/8"]))
                #expect(result.addresses.allSatisfy { $0.interface == 0 })
                #expect(try machine.ip("link show lo", in: one).contains("LOOPBACK,UP"))
            }
        }

        @Test func `CHECK says what is wrong, DEL switches off, twice and where nothing is left`() async throws {
            try await PrivateMachine.run { machine in
                let plugin = try LoopbackProgram()
                let one = try machine.pin("one")
                try machine.ip("link set lo down", in: one)
                #expect(try plugin.call("CHECK", in: one).message.hasPrefix("the container's device lo is down"))
                let added = try plugin.call("ADD", in: one)
                func check() throws -> String {
                    try plugin.call("CHECK", in: one) { $0["prevResult"] = added.json }.message
                }
                #expect(try check() == "")
                try machine.ip("addr del 127.0.0.1/8 dev lo", in: one)
                let lost = try plugin.call("CHECK", in: one) { $0["prevResult"] = added.json }
                #expect(lost.code == 103 && lost.message.hasPrefix("the address 127.0.0.1/8 is not on lo"))
                try machine.ip("link set lo down", in: one)
                #expect(try check().hasPrefix("the container's device lo is down"))

                #expect(try plugin.call("ADD", in: one).isGood)
                for _ in 0..<2 { #expect(try plugin.call("DEL", in: one).isGood) }
                #expect(try !machine.ip("link show lo", in: one).contains("LOOPBACK,UP"))
                try NetworkNamespace.remove(at: one)
                for gone in [one, "", "/nowhere/at/all", "/etc/passwd"] {
                    #expect(try plugin.call("DEL", in: gone).isGood, "\(gone)")
                }
                #expect(try plugin.call("CHECK", in: one).code == 102)
                #expect(try machine.ip("link show lo").contains("LOOPBACK,UP"), "the host's own is left alone")
            }
        }

        @Test func `the result of plugins before goes through untouched`() async throws {
            try await PrivateMachine.run { machine in
                let plugin = try LoopbackProgram()
                let one = try machine.pin("one")
                try machine.ip("link set lo down", in: one)
                let previous: JSONValue = [
                    "cniVersion": "1.1.0", "interfaces": [["name": "eth0", "sandbox": .string(one), "mtu": 1400]],
                    "ips": [["interface": 0, "address": "10.9.0.2/24", "gateway": "10.9.0.1"]],
                    "routes": [["dst": "0.0.0.0/0", "gw": "10.9.0.1"]], "dns": ["nameservers": ["10.9.0.1"]],
                ]
                let added = try plugin.call("ADD", in: one) { $0["prevResult"] = previous }
                #expect(added.isGood && added.json == previous)
                #expect(try machine.ip("link show lo", in: one).contains("LOOPBACK,UP"))
                #expect(try plugin.call("CHECK", in: one) { $0["prevResult"] = previous }.isGood)
            }
        }

        @Test func `what it does not know is refused by name, and nothing is done`() async throws {
            try await PrivateMachine.run { machine in
                let plugin = try LoopbackProgram()
                let one = try machine.pin("one")
                try machine.ip("link set lo down", in: one)
                func refused(
                    _ code: Int64, _ words: String, more: [String] = [], _ change: (inout JSONObject) -> Void = { _ in }
                ) throws {
                    let answer = try plugin.call("ADD", in: one, more: more, change)
                    #expect(answer.status == .exited(1) && answer.code == .integer(code))
                    #expect(answer.message.contains(words), "\(answer.message)")
                }
                try refused(2, "$.ipam, which is {},") { $0["ipam"] = [:] }
                try refused(2, "$.runtimeConfig.mac,") { $0["runtimeConfig"] = ["mac": "02:00:00:00:00:01"] }
                try refused(7, "prevResult") { $0["prevResult"] = ["cniVersion": "9.9.9"] }
                try refused(1, "2.0.0") { $0["cniVersion"] = "2.0.0" }
                try refused(4, "CNI_ARGS", more: ["CNI_ARGS=A=1"])
                #expect(try !machine.ip("link show lo", in: one).contains("LOOPBACK,UP"))
                let allowed = try plugin.call("ADD", in: one, more: ["CNI_ARGS=IgnoreUnknown=1;A=1"]) {
                    $0["capabilities"] = ["mac": false]
                    $0["args"] = ["cni": [:]]
                    $0["dns"] = [:]
                    $0["runtimeConfig"] = [:]
                }
                #expect(allowed.isGood, "\(allowed.message)")
                #expect(try plugin.call("STATUS", in: "").isGood)
                #expect(try plugin.call("GC", in: "") { $0["cni.dev/valid-attachments"] = [] }.isGood)
                let version = try plugin.call("VERSION", in: "")
                #expect(version.json["supportedVersions"] == ["0.3.1", "0.4.0", "1.0.0", "1.1.0"])
            }
        }
    }
}
