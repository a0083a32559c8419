import CNISpec
import Glibc
import JSON
import Kernel
import Testing

@testable import Networking

/// The node's side of networks with the driver `cni`, with plugins that are shell scripts.
@Suite struct CNINetworksTests {
    let plugins: ScriptedPlugins
    private var lists: String { "\(plugins.directory)/lists" }
    private let namespace = "/proc/self/ns/net"

    init() throws {
        plugins = try ScriptedPlugins()
        mkdir("\(plugins.directory)/lists", 0o755)
    }

    /// Another process on the same node.
    private func networks(timeout: Int = 30_000) -> CNINetworks {
        var node = BridgeNetworkConfiguration(
            dataDirectory: "\(plugins.directory)/data", runDirectory: "\(plugins.directory)/run")
        node.pluginDirectories = [plugins.directory]
        node.timeoutMilliseconds = timeout
        return CNINetworks(node, directory: CNIDirectory(lists), reservedPrefixes: ["mt-"])
    }

    private func text(_ name: String, _ types: String..., version: String = "1.0.0", more: String = "") -> String {
        let plugins = types.map { #"{"type": "\#($0)"}"# }.joined(separator: ",")
        return #"{"cniVersion": "\#(version)", "name": "\#(name)"\#(more), "plugins": [\#(plugins)]}"#
    }

    private func network(_ text: String, as name: String = "object") -> CNINetworkConfiguration {
        CNINetworkConfiguration(name: name, source: .text(text))
    }

    private var records: [String] {
        let base = "\(plugins.directory)/data/networks/cni"
        return ((try? File.list(base)) ?? []).flatMap { place in
            ((try? File.list("\(base)/\(place)")) ?? []).filter { $0 != "list" }.map { "\(place)/\($0)" }
        }.sorted()
    }

    private func damage(_ record: String, _ text: String = "{") throws {
        try File.replace("\(plugins.directory)/data/networks/cni/\(record)", with: Array(text.utf8))
    }

    @Test func `a list of the network object itself attaches, tells addresses and detaches`() throws {
        try plugins.plugin("a", address: "10.0.0.2/24")
        let networks = networks()
        let object = network(text("net", "a"))
        let made = try networks.attach("c1", to: object, namespacePath: namespace, interface: "eth0")
        #expect(made.address.description == "10.0.0.2/24" && made.interface == "eth0")
        #expect(try networks.addresses(of: "c1", on: "object") == made)
        #expect(try networks.result(of: "c1", on: "object")?.addresses.count == 1)
        #expect(try networks.addresses(of: "c1", on: "other") == nil)
        try networks.check("c1", on: "object")
        try networks.detach("c1", from: "other")
        #expect(records == ["net/net-c1-eth0.json"])
        for _ in 0..<2 { try networks.detach("c1", from: "object") }
        #expect(plugins.calls == ["ADD a", "CHECK a", "DEL a"] && records == [])
    }

    @Test func `a list of the directory that is gone is still the one that DEL gets, with the result, after a restart`()
        throws
    {
        try plugins.plugin("a", address: "10.0.0.2/24")
        let file = "\(lists)/net.conflist"
        try File.replace(file, with: Array(text("net", "a").utf8))
        let object = CNINetworkConfiguration(name: "object", source: .named("net"))
        _ = try networks().attach("c1", to: object, namespacePath: namespace, interface: "eth0")
        try File.removeFile(file)
        let later = networks()
        let error = #expect(throws: NetworkError.self) {
            try later.attach("c2", to: object, namespacePath: namespace, interface: "eth0")
        }
        #expect(error?.description == #"no CNI list in \#(lists) is called "net", there are: none"#)
        #expect(later.problems(of: object).count == 1)
        #expect(try later.addresses(of: "c1", on: "object") != nil)
        try later.detach("c1")
        #expect(plugins.calls == ["ADD a", "DEL a"])
        #expect(try plugins.input("a", "DEL")["prevResult"]?["ips"]?.arrayValue?.first?["address"] == "10.0.0.2/24")
    }

    @Test func `an ADD that was cut off is undone later, with what there was of a result`() throws {
        try plugins.plugin("a", address: "10.0.0.2/24")
        try plugins.plugin("b", "test -e \(plugins.directory)/works")
        #expect(throws: NetworkError.self) {
            try networks().attach(
                "c1", to: network(text("net", "a", "b")), namespacePath: namespace, interface: "eth0")
        }
        #expect(records == ["net/net-c1-eth0.json"])
        #expect(networks().collectGarbage(living: ["c1"]) == [] && records.count == 1, "its pod may try again")
        #expect(networks().collectGarbage(living: []).count == 1 && records.count == 1)
        try File.replace("\(plugins.directory)/works", with: [])
        #expect(networks().collectGarbage(living: []) == [] && records == [])
        #expect(plugins.calls.suffix(2) == ["DEL b", "DEL a"])
        #expect(try plugins.input("b", "DEL")["prevResult"]?["ips"]?.arrayValue?.count == 1)
        #expect(!File.exists("\(plugins.directory)/data/networks/cni/net"))
    }

    @Test(arguments: ["", "{", "null", #"{"kind": "martlet-cni-1"}"#, String(repeating: "x", count: 100_000)])
    func `a damaged record keeps nobody else's, and is detached by the list that its network had`(text: String) throws {
        try plugins.plugin("a", address: "10.0.0.2/24")
        let file = "\(lists)/net.conflist"
        try File.replace(file, with: Array(self.text("net", "a").utf8))
        let object = CNINetworkConfiguration(name: "object", source: .named("net"))
        for id in ["c1", "c2", "c3"] {
            _ = try networks().attach(id, to: object, namespacePath: namespace, interface: "eth0")
        }
        try File.removeFile(file)
        try damage("net/net-c1-eth0.json", text)
        try damage("net/net-c2-eth0.json", text)
        try plugins.forgetCalls()
        try networks().detach("c2")
        #expect(plugins.calls == ["DEL a"])
        #expect(try plugins.environment("a", "DEL").contains("CNI_CONTAINERID=c2"))
        #expect(networks().collectGarbage(living: []) == [])
        #expect(plugins.calls == ["DEL a", "DEL a", "DEL a"] && records == [])
    }

    @Test func `a pod that leaves one network keeps the others, whatever became of the records`() throws {
        try plugins.plugin("a", address: "10.0.0.2/24")
        for (index, name) in ["first", "last"].enumerated() {
            _ = try networks().attach(
                "c1", to: network(text("net", "a"), as: name), namespacePath: namespace, interface: "eth\(index)")
        }
        try damage("net/net-c1-eth0.json")
        try networks().detach("c1", from: "first")
        #expect(records == ["net/net-c1-eth0.json.corrupt", "net/net-c1-eth1.json"], "perhaps it was another's")
        try networks().detach("c1", from: "last")
        #expect(records == ["net/net-c1-eth0.json.corrupt"])
        try damage("net/net-c1-eth1.json")
        try networks().detach("c1")
        #expect(records == [])
    }

    @Test func `without any list a damaged record is told, and the others go`() throws {
        try plugins.plugin("a", address: "10.0.0.2/24")
        for id in ["c1", "c2"] {
            _ = try networks().attach(id, to: network(text("net", "a")), namespacePath: namespace, interface: "eth0")
        }
        try damage("net/net-c1-eth0.json")
        try damage("net/list", "")
        let problems = networks().collectGarbage(living: [])
        #expect(problems.count == 1)
        #expect(problems.first?.hasPrefix("the record of c1 in the CNI network net is damaged") == true)
        #expect(records == ["net/net-c1-eth0.json.corrupt"])
        #expect(networks().collectGarbage(living: []) == problems, "until somebody does something about it")
        try File.replace("\(lists)/net.conflist", with: Array(text("net", "a").utf8))
        #expect(networks().removeLeftovers() == [] && records == [])
    }

    @Test func `a record that is a directory or a FIFO, or speaks of another container, is damaged too`() throws {
        try plugins.plugin("a", address: "10.0.0.2/24")
        for id in ["c1", "c2", "c3"] {
            _ = try networks().attach(id, to: network(text("net", "a")), namespacePath: namespace, interface: "eth0")
        }
        let base = "\(plugins.directory)/data/networks/cni/net"
        rename("\(base)/net-c1-eth0.json", "\(base)/net-c4-eth0.json")
        mkfifo("\(base)/net-c1-eth0.json", 0o600)
        try File.removeFile("\(base)/net-c2-eth0.json")
        mkdir("\(base)/net-c2-eth0.json", 0o700)
        #expect(networks().collectGarbage(living: []) == [] && records == [])
        #expect(plugins.calls.filter { $0 == "DEL a" }.count == 4)
    }

    @Test func `what no plugin can do is refused by name when it was asked for, and left out when it was offered`()
        throws
    {
        try plugins.plugin("a", address: "10.0.0.2/24")
        try plugins.plugin("b", address: "10.0.0.2/24")
        let text = """
            {"cniVersion": "1.0.0", "name": "net", "plugins": [
              {"type": "a", "capabilities": {"aliases": true, "ips": true, "bandwidth": false}},
              {"type": "b", "capabilities": {"dns": true, "ipRanges": true}}]}
            """
        var bandwidth = CapabilityArguments()
        bandwidth.bandwidth = Bandwidth()
        var mac = CapabilityArguments()
        mac.mac = MACAddress("02:00:00:00:00:01")
        let ports = CapabilityArguments(portMappings: [PortMapping(hostPort: 18080, containerPort: 80)])
        for (asked, name) in [(bandwidth, "bandwidth"), (mac, "mac"), (ports, "portMappings")] {
            let error = #expect(throws: NetworkError.self) {
                try networks().attach(
                    "c1", to: network(text), namespacePath: namespace, interface: "eth0", asked: asked)
            }
            #expect(
                error?.description.hasPrefix("no plugin of the CNI list net declares the capability \(name),") == true)
        }
        #expect(plugins.calls == [])
        var asked = CapabilityArguments()
        asked.plainAddresses = [try #require(IPAddress("10.0.0.2"))]
        asked.aliases = ["web"]
        var offered = mac
        offered.aliases = ["other"]
        var dns = NameService()
        dns.servers = [try #require(IPAddress("10.0.0.1"))]
        dns.searches = ["example.org"]
        offered.dns = dns
        offered.ranges = [[SubnetRange(try #require(CIDR("10.0.0.0/24")), first: IPAddress("10.0.0.9"))]]
        _ = try networks().attach(
            "c1", to: network(text), namespacePath: namespace, interface: "eth0", asked: asked, offered: offered)
        #expect(try plugins.input("a", "ADD")["runtimeConfig"] == ["ips": ["10.0.0.2"], "aliases": ["web"]])
        #expect(
            try plugins.input("b", "ADD")["runtimeConfig"] == [
                "dns": ["servers": ["10.0.0.1"], "searches": ["example.org"]],
                "ipRanges": [[["subnet": "10.0.0.0/24", "rangeStart": "10.0.0.9"]]],
            ])
        try networks().detach("c1")
        #expect(try plugins.input("a", "DEL")["runtimeConfig"]?["aliases"] == ["web"])
    }

    @Test(arguments: [
        (#""ips": []"#, "the plugins gave the pod no address"),
        (#""ips": [{"address": "224.0.0.1/24"}]"#, "the address 224.0.0.1/24, which is a multicast address"),
        (#""ips": [{"address": "127.0.0.1/8"}]"#, "which never leaves a machine"),
        (#""ips": [{"address": "0.0.0.0/0"}]"#, "which is none"),
        (#""ips": [{"address": "10.0.0.0/24"}]"#, "which stands for its subnet, not for a host"),
        (#""ips": [{"address": "10.0.0.9/24"}]"#, "the address 10.0.0.2 was asked for, and the plugins gave 10.0.0.9"),
        (#""ips": [{"address": "10.0.0.2/33"}]"#, "its result is not understood: $.ips[0].address"),
        (#""ips": [{"address": "10.0.0.2/24", "interface": 7}]"#, "there is no interface 7"),
        (#""ips": "all of them""#, "expected an array"),
    ])
    func `nonsense in a result is one sentence, and DEL cleans up`(members: String, reason: String) throws {
        try plugins.plugin("a", #"[ $CNI_COMMAND = ADD ] && echo '{"cniVersion": "1.0.0", \#(members)}'; exit 0"#)
        var asked = CapabilityArguments()
        asked.addresses = [try #require(CIDR("10.0.0.2/24"))]
        let text = """
            {"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "a", "capabilities": {"ips": true}}]}
            """
        let error = #expect(throws: NetworkError.self) {
            try networks().attach("c1", to: network(text), namespacePath: namespace, interface: "eth0", asked: asked)
        }
        #expect(try #require(error).description.contains(reason), "\(error?.description ?? "")")
        #expect(plugins.calls == ["ADD a", "DEL a"] && records == [])
    }

    @Test func `a pod may be on several networks, and leaves one or all`() throws {
        try plugins.plugin("a", address: "10.0.0.2/24")
        try plugins.plugin("b", address: "10.1.0.2/24")
        let networks = networks()
        let (one, two) = (network(text("one", "a"), as: "1"), network(text("two", "b"), as: "2"))
        // The third uses the list of the first.
        let three = network(text("one", "a"), as: "3")
        for (index, object) in [one, two, three].enumerated() {
            _ = try networks.attach("c1", to: object, namespacePath: namespace, interface: "eth\(index)")
        }
        #expect(records == ["one/one-c1-eth0.json", "one/one-c1-eth2.json", "two/two-c1-eth1.json"])
        #expect(try networks.addresses(of: "c1", on: "2")?.address.description == "10.1.0.2/24")
        try networks.detach("c1", from: "1")
        #expect(records == ["one/one-c1-eth2.json", "two/two-c1-eth1.json"])
        try networks.detach("c1", isEnd: true)
        #expect(records == [])
        // Another try, under another device, takes the place of the one that was cut off.
        _ = try networks.attach("c1", to: one, namespacePath: namespace, interface: "eth0")
        _ = try networks.attach("c1", to: one, namespacePath: namespace, interface: "eth3")
        #expect(records == ["one/one-c1-eth3.json"])
    }

    @Test func `plugins of 1-1 hear which attachments are valid, and are asked for their status where that is wanted`()
        throws
    {
        try plugins.plugin(
            "a",
            """
            case $CNI_COMMAND in
            ADD) echo '{"cniVersion": "1.1.0", "ips": [{"address": "10.0.0.2/24"}]}';;
            VERSION) echo '{"cniVersion": "1.1.0", "supportedVersions": ["1.1.0"]}';;
            STATUS) test ! -e \(plugins.directory)/full || { echo '{"code": 51, "msg": "full"}'; exit 1; };;
            esac
            """)
        var object = network(text("net", "a", version: "1.1.0"))
        object.asksStatus = true
        for id in ["c1", "c2"] {
            _ = try networks().attach(id, to: object, namespacePath: namespace, interface: "eth0")
        }
        #expect(networks().collectGarbage(living: ["c2"]) == [])
        #expect(plugins.calls.suffix(2) == ["DEL a", "GC a"])
        #expect(
            try plugins.input("a", "GC")["cni.dev/valid-attachments"] == [["containerID": "c2", "ifname": "eth0"]])
        #expect(networks().problems(of: object) == [])
        try File.replace("\(plugins.directory)/full", with: [])
        #expect(networks().problems(of: object).first?.contains("full (code 51: it cannot attach anybody now") == true)
        try plugins.forgetCalls()
        let error = #expect(throws: NetworkError.self) {
            try networks().attach("c3", to: object, namespacePath: namespace, interface: "eth0")
        }
        #expect(error?.description.contains("STATUS in network net: plugin a: full") == true)
        #expect(plugins.calls == ["STATUS a"] && records == ["net/net-c2-eth0.json"])
        #expect(networks().removeLeftovers() == [] && plugins.calls.suffix(2) == ["DEL a", "GC a"])
        #expect(try plugins.input("a", "GC")["cni.dev/valid-attachments"] == [])
    }

    @Test func `what this process has attached is never garbage`() throws {
        try plugins.plugin("a", address: "10.0.0.2/24")
        let networks = networks()
        _ = try networks.attach("c1", to: network(text("net", "a")), namespacePath: namespace, interface: "eth0")
        #expect(networks.collectGarbage(living: []) == [] && records.count == 1)
        #expect(networks.removeLeftovers() == [] && records == [])
    }

    @Test func `a published port is one pod's`() throws {
        try plugins.plugin("a", address: "10.0.0.2/24")
        let text = """
            {"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "a", "capabilities": {"portMappings": true}}]}
            """
        let asked = CapabilityArguments(portMappings: [PortMapping(hostPort: 47123, containerPort: 80)])
        let first = networks()
        _ = try first.attach("c1", to: network(text), namespacePath: namespace, interface: "eth0", asked: asked)
        for networks in [first, self.networks()] {
            let error = #expect(throws: NetworkError.self) {
                try networks.attach("c2", to: network(text), namespacePath: namespace, interface: "eth0", asked: asked)
            }
            #expect(error?.description == "port 47123/tcp is published by task c1 already; publish another port")
        }
        try first.detach("c1")
        _ = try first.attach("c2", to: network(text), namespacePath: namespace, interface: "eth0", asked: asked)
    }

    @Test func `names of Martlet's own networks and lists that are none are refused`() throws {
        for (text, reason) in [
            (text("martlet", "a"), "is called martlet, as networks of Martlet's own are"),
            (text("mt-0123456789ab", "a"), "as networks of Martlet's own are"),
            ("{", "the CNI list of the network object is not valid: $"),
            (text("../x", "a"), "is not valid: $.name"), (text("net", "../a"), "is not valid: $.plugins[0].type"),
        ] {
            let error = #expect(throws: NetworkError.self) {
                try networks().attach("c1", to: network(text), namespacePath: namespace, interface: "eth0")
            }
            #expect(try #require(error).description.contains(reason), "\(error?.description ?? "")")
        }
        #expect(records == [])
    }
}
