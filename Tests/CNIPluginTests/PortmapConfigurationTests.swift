import CNISpec
import JSON
import Netfilter
import Testing

@testable import CNIPlugin
@testable import PortmapPlugin

/// A call of portmap behind a plugin that gave the container an address of each family.
private func portmapCall(
    _ verb: String = "ADD", _ ports: JSONValue = [["hostPort": 8080, "containerPort": 80, "protocol": "tcp"]],
    _ change: (inout JSONObject) -> Void = { _ in }
) throws(CNIError) -> PluginCall {
    var configuration: JSONObject = [
        "cniVersion": "1.1.0", "name": "net", "type": "portmap", "capabilities": ["portMappings": true],
        "runtimeConfig": ["portMappings": ports],
        "prevResult": [
            "cniVersion": "1.1.0",
            "interfaces": [["name": "br0"], ["name": "eth0", "sandbox": "/run/netns/c1"]],
            "ips": [
                ["address": "192.0.2.1/24", "interface": 0], ["address": "10.9.0.2/24", "interface": 1],
                ["address": "10.9.0.3/24", "interface": 1], ["address": "fd09::2/64", "interface": 1],
            ],
        ],
    ]
    change(&configuration)
    let words = ["CNI_COMMAND": verb, "CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/c1", "CNI_IFNAME": "eth0"]
    return try PluginCall(environment: { words[$0] }, input: JSONValue.object(configuration).serialized())
}

@Suite struct PortmapConfigurationTests {
    private let owner = PortOwner(
        network: "net", attachment: PluginAttachment(containerID: "c1", interface: "eth0"))

    @Test func `a port is published in each family of which the container has an address, at its first one`() throws {
        let configuration = try PortmapConfiguration(portmapCall())
        #expect(configuration.masquerades && configuration.servesLoopback)
        #expect(configuration.ports.map(\.place) == ["0.0.0.0:8080/tcp", "[::]:8080/tcp"])
        #expect(configuration.ports.map(\.container.description) == ["10.9.0.2", "fd09::2"])
        #expect(configuration.ports.allSatisfy { $0.containerPort == 80 })
    }

    /// hostIP and where it is published then.
    @Test(arguments: [
        ("", ["0.0.0.0:53/udp", "[::]:53/udp"]), ("0.0.0.0", ["0.0.0.0:53/udp"]), ("::", ["[::]:53/udp"]),
        ("192.0.2.1", ["192.0.2.1:53/udp"]), ("2001:db8::1", ["[2001:db8::1]:53/udp"]),
        ("127.0.0.1", ["127.0.0.1:53/udp"]),
    ])
    func `the host's address chooses the family`(host: String, places: [String]) throws {
        let port: JSONValue = ["hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": .string(host)]
        #expect(try PortmapConfiguration(portmapCall("ADD", [port])).ports.map(\.place) == places)
    }

    @Test func `neighbours in a range of ports and other transports are each their own`() throws {
        let ports: JSONValue = [
            ["hostPort": 1, "containerPort": 1, "protocol": "sctp"],
            ["hostPort": 65535, "containerPort": 65535, "protocol": "udp"], ["hostPort": 2, "containerPort": 3],
        ]
        let found = try PortmapConfiguration(portmapCall("ADD", ports)).ports.filter { $0.container.family == .v4 }
        #expect(found.map(\.place) == ["0.0.0.0:1/sctp", "0.0.0.0:65535/udp", "0.0.0.0:2/tcp"])
    }

    /// One mapping as JSON, and what the refusal names.
    @Test(arguments: [
        (#"{"hostPort":0,"containerPort":80}"#, "hostPort: 0"),
        (#"{"hostPort":80,"containerPort":0}"#, "containerPort: 0"),
        (#"{"hostPort":65536,"containerPort":80}"#, "hostPort"), (#"{"hostPort":-1,"containerPort":80}"#, "hostPort"),
        (#"{"containerPort":80}"#, "hostPort"), (#"{"hostPort":80}"#, "containerPort"),
        (#"{"hostPort":80,"containerPort":80,"protocol":"icmp"}"#, "icmp"),
        (#"{"hostPort":80,"containerPort":80,"hostIP":"localhost"}"#, "localhost"),
        (#"{"hostPort":80,"containerPort":80,"hostIP":"::1"}"#, "::1"),
        (#"{"hostPort":80,"containerPort":80,"hostIP":"::ffff:10.0.0.1"}"#, "::ffff:10.0.0.1"),
        (#"{"hostPort":80,"containerPort":80,"hostIP":"224.0.0.1"}"#, "224.0.0.1"),
        (#"{"hostPort":80,"containerPort":80,"hostIP":"255.255.255.255"}"#, "255.255.255.255"),
        (#"{"hostPort":"80","containerPort":80}"#, "hostPort"), ("7", "portMappings[0]"),
    ])
    func `what is no mapping is refused by its place`(mapping: String, words: String) throws {
        let value = try JSONValue.parse(Array(mapping.utf8))
        let error = #expect(throws: CNIError.self) { _ = try PortmapConfiguration(portmapCall("ADD", [value])) }
        #expect(error?.code == CNIError.invalidConfiguration)
        #expect(error?.message.contains(words) == true, "\(error?.message ?? "")")
    }

    /// Member and value as JSON.
    @Test(arguments: [
        ("conditionsV4", #"["-s","10.0.0.0/8"]"#), ("conditionsV6", "[]"), ("markMasqBit", "13"),
        ("externalSetMarkChain", #""KUBE-MARK-MASQ""#), ("masqAll", "true"), ("ipam", "{}"),
    ])
    func `members of the reference plugin that are not served are refused by name, by each verb`(
        member: String, value: String
    ) throws {
        let value = try JSONValue.parse(Array(value.utf8))
        for verb in ["ADD", "CHECK"] {
            let error = #expect(throws: CNIError.self) {
                _ = try PortmapConfiguration(portmapCall(verb) { $0[member] = value })
            }
            #expect(error?.code == CNIError.unsupportedField && error?.message.contains("$.\(member),") == true)
        }
        let error = #expect(throws: CNIError.self) {
            try PortmapConfiguration.check(portmapCall("STATUS") { $0[member] = value })
        }
        #expect(error?.code == CNIError.unsupportedField)
    }

    @Test func `what is not asked of this plugin is refused by name`() throws {
        let changes: [(UInt32, String, (inout JSONObject) -> Void)] = [
            (CNIError.unsupportedField, "bandwidth", { $0["runtimeConfig"] = ["bandwidth": [:]] }),
            (
                CNIError.unsupportedField, "portMappings[0].hostName",
                { $0["runtimeConfig"] = ["portMappings": [["hostPort": 1, "containerPort": 1, "hostName": "a"]]] }
            ),
            (CNIError.invalidConfiguration, "iptables", { $0["backend"] = "iptables" }),
            (CNIError.invalidConfiguration, "snat", { $0["snat"] = "yes" }),
            (CNIError.invalidConfiguration, "prevResult", { $0["prevResult"] = ["cniVersion": "9.0.0"] }),
        ]
        for (code, words, change) in changes {
            let error = #expect(throws: CNIError.self) { _ = try PortmapConfiguration(portmapCall("ADD", [], change)) }
            #expect(error?.code == code && error?.message.contains(words) == true, "\(error?.message ?? "")")
        }
        #expect(try PortmapConfiguration(portmapCall("ADD", []) { $0["backend"] = "nftables" }).ports.isEmpty)
    }

    @Test func `without snat 127.0.0.1 is refused by name, and of all addresses it is left out`() throws {
        let error = #expect(throws: CNIError.self) {
            _ = try PortmapConfiguration(
                portmapCall("ADD", [["hostPort": 80, "containerPort": 80, "hostIP": "127.0.0.1"]]) {
                    $0["snat"] = false
                })
        }
        #expect(error?.message.contains("127.0.0.1") == true && error?.message.contains("snat") == true)
        let configuration = try PortmapConfiguration(portmapCall { $0["snat"] = false })
        #expect(!configuration.servesLoopback)
        #expect(Set(configuration.elements(owner).keys) == [.any4, .any6])
    }

    @Test func `a host's address of a family that the container has not is refused`() throws {
        let error = #expect(throws: CNIError.self) {
            _ = try PortmapConfiguration(
                portmapCall("ADD", [["hostPort": 80, "containerPort": 80, "hostIP": "2001:db8::1"]]) {
                    $0["prevResult"] = ["cniVersion": "1.1.0", "ips": [["address": "10.9.0.2/24"]]]
                })
        }
        #expect(error?.message.contains("2001:db8::1 is of a family") == true)
        let none = #expect(throws: CNIError.self) {
            _ = try PortmapConfiguration(portmapCall { $0["prevResult"] = ["cniVersion": "1.1.0"] })
        }
        #expect(none?.message.contains("no address of the container's device eth0") == true)
    }

    @Test func `a published port is read back from its elements, and its owner from their comment`() throws {
        let ports: JSONValue = [
            ["hostPort": 8080, "containerPort": 80],
            ["hostPort": 53, "containerPort": 5353, "protocol": "udp", "hostIP": "192.0.2.1"],
            ["hostPort": 9, "containerPort": 10, "protocol": "sctp", "hostIP": "2001:db8::1"],
        ]
        let configuration = try PortmapConfiguration(portmapCall("ADD", ports))
        let elements = configuration.elements(owner)
        let read = elements.flatMap { part, list in list.compactMap { PublishedPort($0, in: part) } }
        #expect(Set(read) == Set(configuration.ports) && read.count == 4)
        #expect(elements.values.joined().allSatisfy { PortOwner($0.comment) == owner })
        #expect(elements[.masquerade4]?.map(\.key) == [[10, 9, 0, 0, 10, 9, 0, 2], [127, 0, 0, 0, 10, 9, 0, 2]])
        #expect(elements[.masquerade4]?.first?.keyEnd == [10, 9, 0, 255, 10, 9, 0, 2])
        for text in ["", "net c1", "net c1 eth0 x", "../net c1 eth0", "net c1 eth/0"] {
            #expect(PortOwner(text) == nil)
        }
    }

    /// Two places of one transport, and whether a packet could be for both.
    @Test(arguments: [
        ("", "", true), ("192.0.2.1", "", true), ("", "192.0.2.1", true), ("192.0.2.1", "192.0.2.1", true),
        ("192.0.2.1", "192.0.2.2", false), ("127.0.0.1", "", true), ("192.0.2.1", "2001:db8::1", false),
    ])
    func `addresses overlap when one is all of them`(one: String, other: String, overlap: Bool) throws {
        func ports(_ host: String, _ transport: String) throws -> [PublishedPort] {
            try PortmapConfiguration(
                portmapCall(
                    "ADD",
                    [["hostPort": 80, "containerPort": 1, "protocol": .string(transport), "hostIP": .string(host)]])
            ).ports
        }
        let others = try ports(other, "tcp")
        #expect(try ports(one, "tcp").contains { port in others.contains { $0.overlaps(port) } } == overlap)
        #expect(try !ports(one, "udp").contains { port in others.contains { $0.overlaps(port) } })
    }
}
