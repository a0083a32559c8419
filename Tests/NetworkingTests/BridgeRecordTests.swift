import CNISpec
import JSON
import Netfilter
import Testing

@testable import Networking

@Suite struct BridgeRecordTests {
    private var plain: BridgeNetworkConfiguration {
        BridgeNetworkConfiguration(dataDirectory: "/data", runDirectory: "/run")
    }

    @Test func `what is written down of a network is what the next process reads`() throws {
        var whole = plain
        (whole.bridge, whole.subnet, whole.gateway, whole.range) = ("own0", "10.1.0.0/24", "10.1.0.9", "10.1.0.0/28")
        (whole.subnet6, whole.gateway6) = ("fd00:1::/64", "fd00:1::9")
        (whole.reserved, whole.isInternal, whole.masquerade, whole.mtu) = (["10.1.0.3"], true, false, 1400)
        for configuration in [whole, plain] {
            let text = configuration.json.serialized()
            var other = plain
            // What is in the record counts, and nothing else.
            (other.bridge, other.subnet, other.mtu, other.gateway) = ("none", "10.9.0.0/24", 99, "10.9.0.7")
            (other.subnet6, other.gateway6) = ("fd00:9::/64", "fd00:9::7")
            #expect(try other.filled(JSONReader(JSONValue.parse(text))) == configuration)
        }
    }

    @Test func `an IPv6 network is refused that no host can be in`() throws {
        for (subnet, gateway) in [
            ("fd00:1::/47", nil), ("fd00:1::/113", nil), ("fd00:1::1/64", nil), ("ff05::/64", nil), ("fe80::/64", nil),
            ("::/64", nil), ("10.1.0.0/24", nil), ("x", nil), ("fd00:1::/64", "fd00:2::1"), ("fd00:1::/64", "fd00:1::"),
            ("fd00:1::/64", "x"), (nil, "fd00:1::1"),
        ] as [(String?, String?)] {
            var configuration = plain
            (configuration.subnet6, configuration.gateway6) = (subnet, gateway)
            #expect(throws: NetworkError.self, "\(subnet ?? "") \(gateway ?? "")") { try BridgeNetwork(configuration) }
        }
        var small = plain
        (small.subnet6, small.mtu) = ("fd00:1::/64", 1279)
        let error = #expect(throws: NetworkError.self) { try BridgeNetwork(small) }
        #expect(error?.description.contains("not between 1280 and 65535") == true)
        small.mtu = 1280
        let pools = try BridgeNetwork(small).list.plugins.first?.fields["addresses"]?.arrayValue ?? []
        #expect(pools.last?["subnet"] == "fd00:1::/64" && pools.last?["gateway"] == "fd00:1::1")
    }

    @Test(arguments: [#"{}"#, #"{"bridge":"b","subnet":"s","reserved":[1],"internal":false,"masquerade":true}"#])
    func `a record that is damaged is none`(text: String) throws {
        let reader = JSONReader(try JSONValue.parse(Array(text.utf8)))
        #expect(throws: JSONError.self) { _ = try plain.filled(reader) }
    }

    @Test func `of a pod its own device counts, and the host's end of it`() throws {
        var result = CNIResult()
        let mac = try #require(MACAddress("02:42:0a:01:00:02"))
        result.interfaces = [
            .init(name: "bridge0", mac: MACAddress("02:6d:0a:01:00:01")), .init(name: "mv0123456789abc", mac: nil),
            .init(name: "eth1", mac: mac, sandbox: "/run/netns/one"),
        ]
        let address = try #require(CIDR("10.1.0.2/24"))
        result.addresses = [.init(address, gateway: IPAddress("10.1.0.1"), interface: 2)]
        let attachment = NetworkAttachment(containerID: "one", namespacePath: "/run/netns/one", interface: "eth1")
        let pod = try #require(BridgedPod(attachment, on: "net", bridge: "bridge0", result))
        #expect(pod.device == "mv0123456789abc" && pod.mac == mac && pod.addresses == [address.address])
        #expect(pod.comment == "bridge0 one eth1" && BridgedPod.bridge(ofComment: pod.comment) == "bridge0")
        #expect(BridgedPod.bridge(ofComment: "somebody's") == nil && BridgedPod.bridge(ofComment: nil) == nil)
        let elements = BridgeFilter.elements(of: pod)
        let key = Array("mv0123456789abc\0".utf8) + mac.bytes + [0, 0]
        #expect(elements["senders"]?.map(\.key) == [key])
        #expect(elements["addresses4"]?.map(\.key) == [key + [10, 1, 0, 2]])
        #expect(elements["addresses6"] == [])
        // IPv6 goes to the bridge's own hardware address only.
        let six = try #require(CIDR("fd00:1::2/128"))
        result.addresses.append(.init(six, gateway: IPAddress("fd00:1::1"), interface: 2))
        let dual = try #require(BridgedPod(attachment, on: "net", bridge: "bridge0", result))
        #expect(
            BridgeFilter.elements(of: dual)["addresses6"]?.map(\.key)
                == [key + six.address.bytes + [2, 0x6d, 10, 1, 0, 1, 0, 0]])
        #expect(BridgedPod(attachment, on: "net", bridge: "other0", result) == nil)
        // Debian's bridge plugin says no hardware address of what it did not make.
        result.interfaces[2] = .init(name: "eth1", mac: nil, sandbox: "/run/netns/one")
        #expect(BridgedPod(attachment, on: "net", bridge: "bridge0", result) == nil)
    }
}
