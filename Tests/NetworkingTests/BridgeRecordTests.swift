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
        (whole.reserved, whole.isInternal, whole.masquerade, whole.mtu) = (["10.1.0.3"], true, false, 1400)
        for configuration in [whole, plain] {
            let text = configuration.json.serialized()
            var other = plain
            // What is in the record counts, and nothing else.
            (other.bridge, other.subnet, other.mtu, other.gateway) = ("none", "10.9.0.0/24", 99, "10.9.0.7")
            #expect(try other.filled(JSONReader(JSONValue.parse(text))) == configuration)
        }
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
        // Debian's bridge plugin says no hardware address of what it did not make.
        result.interfaces[2] = .init(name: "eth1", mac: nil, sandbox: "/run/netns/one")
        #expect(BridgedPod(attachment, on: "net", bridge: "bridge0", result) == nil)
    }
}
