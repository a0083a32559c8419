import CNISpec
import Glibc
import JSON
import Kernel
import Networking
import Testing

/// The node's CNI networks with real plugins: the reference plugins of Debian's containernetworking-plugins, and ours.
private struct CNIMachine: Sendable {
    let machine: PrivateMachine
    let networks: CNINetworks
    /// What there was before any pod.
    let devices: [String]

    init(_ machine: PrivateMachine) throws {
        self.machine = machine
        networks = try Self.networks(machine)
        devices = try machine.devices()
    }

    /// Another process of the same node.
    static func networks(_ machine: PrivateMachine) throws -> CNINetworks {
        var own: [String: String] = [:]
        for name in ["martlet-overlay", "bandwidth", "loopback", "portmap"] {
            own["own-\(name)"] = try ShimFixture.program(name)
        }
        return CNINetworks(
            machine.configuration(), directory: CNIDirectory("\(machine.directory)/lists"), own: own,
            reservedPrefixes: ["mt-"])
    }

    var leaseDirectory: String { "\(machine.run)/leases" }

    /// host-local on 10.88.0.0/24.
    var addresses: String {
        #""ipam": {"type": "host-local", "dataDir": "\#(leaseDirectory)", "ranges": [[{"subnet": "10.88.0.0/24"}]], "#
            + #""routes": [{"dst": "0.0.0.0/0"}]}"#
    }

    func network(
        _ plugins: String..., name: String = "net", version: String = "1.0.0", more: String = ""
    ) -> CNINetworkConfiguration {
        let list = plugins.map { "{\($0)}" }.joined(separator: ",")
        return CNINetworkConfiguration(
            name: name,
            source: .text(#"{"cniVersion": "\#(version)", "name": "\#(name)"\#(more), "plugins": [\#(list)]}"#))
    }

    func leases() throws -> [String] {
        guard File.exists("\(leaseDirectory)/net") else { return [] }
        return try File.list("\(leaseDirectory)/net").filter { IPAddress($0) != nil }.sorted()
    }

    /// Nothing of any pod is on the machine any more: a bridge and empty chains are the network's.
    func expectNothing(but more: [String] = []) throws {
        // A namespace's devices go some time after it.
        for _ in 0..<500 where try machine.devices().filter({ !more.contains($0) }) != devices { usleep(10_000) }
        #expect(try machine.devices().filter { !more.contains($0) } == devices)
        #expect(try leases() == [])
        let rules = try machine.rules().filter { $0.contains("10.88.0.") || $0.contains("CNI-DN-") }
        #expect(rules == [])
        #expect(networks.removeLeftovers() == [])
        #expect(!File.exists("\(networks.recordDirectory)/net"))
    }

    /// Attaches, checks and detaches the pod `one`; `body` looks at it meanwhile.
    func live(
        on network: CNINetworkConfiguration, asked: CapabilityArguments = CapabilityArguments(),
        _ body: (_ namespace: String, EndpointAddresses) throws -> Void
    ) throws {
        let namespace = try machine.pin("one")
        let made = try networks.attach(
            "one", to: network, namespacePath: namespace, interface: "eth0", asked: asked)
        #expect(try networks.addresses(of: "one", on: network.name) == made)
        try networks.check("one", on: network.name)
        try body(namespace, made)
        for _ in 0..<2 { try networks.detach("one", from: network.name) }
        #expect(try !machine.ip("link", in: namespace).contains("eth0"))
    }

    /// Whether the kernel can make such a device.
    func hasDevices(_ words: String) -> Bool {
        guard (try? machine.ip("link add probe \(words)")) != nil else { return false }
        _ = try? machine.ip("link del probe")
        return true
    }
}

extension KernelSuite {
    @Suite(.serialized) struct ReferencePlugins {
        private func run(_ body: @escaping @Sendable (CNIMachine) throws -> Void) async throws {
            try await PrivateMachine.run { machine in try body(CNIMachine(machine)) }
        }

        @Test(arguments: [#""type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true"#, #""type": "ptp""#])
        func `bridge and ptp with host-local connect a pod to the machine`(plugin: String) async throws {
            try await run { node in
                try node.live(on: node.network("\(plugin), \(node.addresses)")) { namespace, made in
                    #expect(made.address.description == "10.88.0.2/24" && made.gateway?.description == "10.88.0.1")
                    #expect(made.mac != nil && made.interface == "eth0")
                    #expect(try node.leases() == ["10.88.0.2"])
                    let pod = try node.machine.listen(80, in: namespace)
                    #expect(try node.machine.talk(to: "10.88.0.2", 80, listener: pod) != nil)
                }
                try node.expectNothing(but: ["cni0"])
            }
        }

        @Test func `the whole chain behind bridge: firewall, tuning, sbr, portmap, bandwidth`() async throws {
            try await run { node in
                // portmap 1.1 asks at CHECK for IPv6 rules that it never made, so that such lists say disableCheck.
                let network = node.network(
                    #""type": "bridge", "bridge": "cni0", "isGateway": true, \#(node.addresses)"#,
                    #""type": "firewall", "backend": "iptables""#,
                    #""type": "tuning", "sysctl": {"net.ipv4.conf.all.arp_ignore": "1"}, "capabilities": {"mac": true}"#,
                    #""type": "sbr""#, #""type": "portmap", "capabilities": {"portMappings": true}"#,
                    #""type": "bandwidth", "capabilities": {"bandwidth": true}"#, more: #", "disableCheck": true"#)
                var asked = CapabilityArguments(portMappings: [PortMapping(hostPort: 8080, containerPort: 80)])
                asked.mac = MACAddress("c2:11:22:33:44:55")
                var limits = Bandwidth()
                (limits.ingressRate, limits.ingressBurst) = (80_000_000, 8_000_000)
                (limits.egressRate, limits.egressBurst) = (80_000_000, 8_000_000)
                let canShape = node.hasDevices("type ifb")
                if canShape { asked.bandwidth = limits }
                try node.live(on: network, asked: asked) { namespace, made in
                    #expect(made.mac == asked.mac && made.ports == asked.portMappings)
                    #expect(try node.machine.ip("link show eth0", in: namespace).contains("c2:11:22:33:44:55"))
                    let ignore = try node.machine.command("cat /proc/sys/net/ipv4/conf/all/arp_ignore", in: namespace)
                    #expect(ignore == "1\n")
                    #expect(try node.machine.ip("rule", in: namespace).contains("10.88.0.2"), "sbr")
                    #expect(try node.machine.rules().contains { $0.contains("10.88.0.2") })
                    let pod = try node.machine.listen(80, in: namespace)
                    #expect(try node.machine.talk(to: "198.51.100.2", 8080, listener: pod) != nil)
                    if canShape { #expect(try node.machine.command("tc qdisc").contains("tbf")) }
                }
                try node.expectNothing(but: ["cni0"])
            }
        }

        @Test(arguments: [
            #""type": "firewall", "backend": "iptables""#, #""type": "tuning", "mtu": 1300, "promisc": true"#,
            #""type": "sbr""#,
        ])
        func `a plugin behind bridge passes CHECK and is undone`(plugin: String) async throws {
            try await run { node in
                let bridge = #""type": "bridge", "bridge": "cni0", "isGateway": true, \#(node.addresses)"#
                // sbr moves routes to a table where bridge's CHECK does not look for them.
                let more = plugin.contains("sbr") ? #", "disableCheck": true"# : ""
                try node.live(on: node.network(bridge, plugin, more: more)) { _, made in
                    #expect(made.address.description == "10.88.0.2/24")
                }
                try node.expectNothing(but: ["cni0"])
            }
        }

        /// Debian's kernel has all of these; one that lacks a kind of device refuses it, and nothing is left of that either.
        @Test(arguments: [
            ("link up0 type macvlan", #""type": "macvlan", "master": "up0""#, "macvlan"),
            ("link up0 type ipvlan", #""type": "ipvlan", "master": "up0""#, "ipvlan"),
            ("link up0 type vlan id 5", #""type": "vlan", "master": "up0", "vlanId": 5"#, "vlan"),
        ])
        func `macvlan, ipvlan and vlan make a device on the uplink`(probe: String, plugin: String, name: String)
            async throws
        {
            try await run { node in
                let isThere = node.hasDevices(probe)
                let network = node.network("\(plugin), \(node.addresses)")
                if isThere {
                    try node.live(on: network) { namespace, made in
                        #expect(made.address.description == "10.88.0.2/24")
                        let link = try node.machine.ip("-d link show eth0", in: namespace)
                        #expect(link.contains(name))
                    }
                } else {
                    let error = #expect(throws: NetworkError.self) { try node.live(on: network) { _, _ in } }
                    #expect(error?.description.contains("plugin \(name): failed to create \(name)") == true)
                }
                try node.expectNothing()
            }
        }

        @Test func `vrf puts the pod's device into one, or says that the kernel has none`() async throws {
            try await run { node in
                let isThere = node.hasDevices("type vrf table 77")
                let network = node.network(
                    #""type": "bridge", "bridge": "cni0", \#(node.addresses)"#, #""type": "vrf", "vrfname": "blue""#)
                if isThere {
                    try node.live(on: network) { namespace, _ in
                        let link = try node.machine.ip("link show eth0", in: namespace)
                        #expect(link.contains("master blue"))
                    }
                } else {
                    let error = #expect(throws: NetworkError.self) { try node.live(on: network) { _, _ in } }
                    #expect(error?.description.contains("plugin vrf: cmdAdd failed: could not add VRF blue") == true)
                }
                try node.expectNothing(but: ["cni0"])
            }
        }

        @Test func `host-device with static lends a device of the host and gives it back`() async throws {
            try await PrivateMachine.run { machine in
                try machine.ip("link add lent type veth peer name far")
                let node = try CNIMachine(machine)
                let network = node.network(
                    #""type": "host-device", "device": "lent", "#
                        + #""ipam": {"type": "static", "capabilities": {"ips": true}}, "capabilities": {"ips": true}"#)
                var asked = CapabilityArguments()
                asked.addresses = [try #require(CIDR("10.9.9.2/24"))]
                try node.live(on: network, asked: asked) { _, made in
                    #expect(made.address.description == "10.9.9.2/24")
                    let devices = try machine.devices()
                    #expect(!devices.contains("lent"))
                }
                try node.expectNothing()
            }
        }

        @Test func `loopback alone is a network of its own`() async throws {
            try await run { node in
                let namespace = try node.machine.pin("one")
                let made = try node.networks.attach(
                    "one", to: node.network(#""type": "loopback""#), namespacePath: namespace, interface: "lo")
                #expect(made.address.description == "127.0.0.1/8")
                try node.networks.check("one", on: "net")
                try node.networks.detach("one")
                try node.expectNothing()
            }
        }

        @Test func `dhcp takes an address from a server, by its daemon`() async throws {
            try await run { node in
                let machine = node.machine
                let network = node.network(#""type": "bridge", "bridge": "br0", "ipam": {"type": "dhcp"}"#)
                let error = #expect(throws: NetworkError.self) { try node.live(on: network) { _, _ in } }
                #expect(error?.description.contains("error dialing DHCP daemon") == true)
                try File.makeDirectories("\(machine.directory)/dhcp")
                try File.replace(
                    "\(machine.directory)/dhcp/conf",
                    with: Array(
                        """
                        start 10.77.0.100
                        end 10.77.0.120
                        interface br0
                        max_leases 5
                        lease_file \(machine.directory)/dhcp/leases
                        pidfile \(machine.directory)/dhcp/pid
                        option subnet 255.255.255.0
                        option lease 600

                        """.utf8))
                try File.replace("\(machine.directory)/dhcp/leases", with: [])
                let busybox = try ShimFixture.busybox()
                try machine.command(
                    """
                    mkdir -p /run/cni; ip addr add 10.77.0.1/24 dev br0; ip link set br0 up
                    setsid \(busybox) udhcpd -f \(machine.directory)/dhcp/conf >/dev/null 2>&1 &
                    setsid /usr/lib/cni/dhcp daemon >/dev/null 2>&1 & echo $! >\(machine.directory)/dhcp/daemon
                    for i in $(seq 200); do
                        test -S /run/cni/dhcp.sock && test -s \(machine.directory)/dhcp/pid && exit 0; sleep 0.05
                    done
                    exit 1
                    """)
                defer {
                    _ = try? machine.command(
                        "kill $(cat \(machine.directory)/dhcp/pid) $(cat \(machine.directory)/dhcp/daemon)")
                }
                // DEL needs the daemon too: what the try before has left was on record until now.
                #expect(try node.machine.devices().contains("br0"))
                try NetworkNamespace.remove(at: "\(machine.run)/netns/one")
                try node.live(on: network) { _, made in
                    #expect(made.address.description.hasPrefix("10.77.0.1"))
                }
                try node.expectNothing(but: ["br0"])
            }
        }

        @Test func `after a restart, with namespace and list gone and a record damaged, nothing is left`() async throws
        {
            try await PrivateMachine.run { machine in
                let node = try CNIMachine(machine)
                try File.makeDirectories("\(machine.directory)/lists")
                let text = """
                    {"cniVersion": "1.0.0", "name": "net", "plugins": [
                      {"type": "bridge", "bridge": "cni0", "isGateway": true, \(node.addresses)}]}
                    """
                try File.replace("\(machine.directory)/lists/10-net.conflist", with: Array(text.utf8))
                let network = CNINetworkConfiguration(name: "net", source: .named("net"))
                for id in ["one", "two", "three"] {
                    _ = try node.networks.attach(
                        id, to: network, namespacePath: machine.pin(id), interface: "eth0")
                }
                #expect(try node.leases().count == 3)
                try Tree.remove("\(machine.directory)/lists")
                try NetworkNamespace.remove(at: "\(machine.run)/netns/one")
                try File.replace("\(node.networks.recordDirectory)/net/net-two-eth0.json", with: [])
                let later = try CNIMachine.networks(machine)
                #expect(later.collectGarbage(living: ["three"]) == [])
                #expect(try node.leases().count == 1 && later.addresses(of: "three", on: "net") != nil)
                try later.check("three", on: "net")
                try later.detach("three", isEnd: true)
                for id in ["two", "three"] { try NetworkNamespace.remove(at: "\(machine.run)/netns/\(id)") }
                try node.expectNothing(but: ["cni0"])
            }
        }

        @Test func `devices and addresses that a plugin only claims to have made are found out`() async throws {
            try await PrivateMachine.run { machine in
                let directory = "\(machine.directory)/plugins"
                try File.makeDirectories(directory)
                func liar(_ members: String) throws -> String {
                    try machine.command(
                        """
                        cat >\(directory)/liar <<'END'
                        #!/bin/sh
                        [ $CNI_COMMAND = ADD ] && cat <<JSON
                        {"cniVersion": "1.0.0", \(members)}
                        JSON
                        exit 0
                        END
                        chmod 755 \(directory)/liar
                        """)
                    var configuration = machine.configuration()
                    configuration.pluginDirectories = [directory]
                    let networks = CNINetworks(configuration, directory: nil)
                    let network = CNINetworkConfiguration(
                        name: "net",
                        source: .text(#"{"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "liar"}]}"#))
                    let namespace = "\(machine.run)/netns/one"
                    let error = #expect(throws: NetworkError.self) {
                        try networks.attach("one", to: network, namespacePath: namespace, interface: "eth0")
                    }
                    #expect(networks.removeLeftovers() == [])
                    return error?.description ?? ""
                }
                _ = try machine.pin("one")
                func inside(_ name: String) -> String {
                    #""interfaces": [{"name": "\#(name)", "sandbox": "$CNI_NETNS"}], "#
                        + #""ips": [{"address": "10.1.2.3/24", "interface": 0}]"#
                }
                let device = try liar(inside("eth0"))
                #expect(device.contains("they made the device eth0, but it is not there"), "\(device)")
                let host = try liar(inside("up0"))
                #expect(host.contains("they made the device up0, but it is not there"), "\(host)")
                let other = try liar(inside("lo"))
                #expect(other.contains("the pod has the address 10.1.2.3, but no device has it"), "\(other)")
                let bare = try liar(#""ips": [{"address": "10.1.2.3/24"}]"#)
                #expect(bare.contains("they made the device eth0, but it is not there"), "\(bare)")
            }
        }

        @Test func `our own plugins chained, in version 1-1 with STATUS and GC`() async throws {
            try await PrivateMachine.run { machine in
                try machine.command(
                    "ip link add br0 type bridge && ip addr add 10.9.0.1/24 dev br0 && ip link set br0 up && "
                        + "echo 1 >/proc/sys/net/ipv4/ip_forward")
                let node = try CNIMachine(machine)
                let leases = "\(machine.run)/leases"
                let canShape = node.hasDevices("type ifb")
                var plugins = [
                    """
                    "type": "own-martlet-overlay", "mode": "shared", "bridge": "br0", "hairpin": true, "defaultRoute": true,
                    "addresses": [{"subnet": "10.9.0.0/24", "gateway": "10.9.0.1"}], "dataDir": "\(leases)",
                    "capabilities": {"ips": true, "mac": true}
                    """,
                    #""type": "own-portmap", "capabilities": {"portMappings": true}"#,
                    #""type": "own-loopback""#,
                ]
                if canShape { plugins.append(#""type": "own-bandwidth", "capabilities": {"bandwidth": true}"#) }
                let list = plugins.map { "{\($0)}" }.joined(separator: ",")
                let versions = #""cniVersion": "0.4.0", "cniVersions": ["1.0.0", "1.1.0"]"#
                let network = CNINetworkConfiguration(
                    name: "net", source: .text("{\(versions), \"name\": \"net\", \"plugins\": [\(list)]}"),
                    asksStatus: true)
                #expect(node.networks.problems(of: network) == [])
                var asked = CapabilityArguments(portMappings: [PortMapping(hostPort: 8080, containerPort: 80)])
                asked.addresses = [try #require(CIDR("10.9.0.77/24"))]
                asked.mac = MACAddress("02:11:22:33:44:55")
                var limits = Bandwidth()
                (limits.egressRate, limits.egressBurst) = (80_000_000, 8_000_000)
                if canShape { asked.bandwidth = limits }
                let namespace = try machine.pin("one")
                let made = try node.networks.attach(
                    "one", to: network, namespacePath: namespace, interface: "eth0", asked: asked)
                #expect(made.address.description == "10.9.0.77/24" && made.mac == asked.mac)
                try node.networks.check("one", on: "net")
                let pod = try machine.listen(80, in: namespace)
                #expect(try machine.talk(to: "198.51.100.2", 8080, from: machine.outside, listener: pod) != nil)
                // Somebody's lease and port without any record: only GC can know that they are nobody's.
                try File.replace("\(leases)/net/10.9.0.99", with: Array("ghost\r\neth0".utf8))
                let later = try CNIMachine.networks(machine)
                #expect(later.collectGarbage(living: ["one"]) == [])
                #expect(try node.leases() == ["10.9.0.77"])
                try later.check("one", on: "net")
                try later.detach("one")
                #expect(try !machine.command("nft list tables").contains("martlet_portmap"))
                try node.expectNothing()
            }
        }
    }
}
