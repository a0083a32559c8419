import CNISpec
import Glibc
import JSON
import Kernel
import Testing

@testable import Networking

@Suite struct HostTablesTests {
    @Test func `the kernel's interface counters are read`() {
        let text = """
            Inter-|   Receive                                                |  Transmit
             face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
                lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
              eth0:18446744073709551615 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0
            """
        let counters = InterfaceCounters.parse(text)
        #expect(counters?.count == 2)
        #expect(
            counters?.last
                == InterfaceCounters(
                    name: "eth0", receivedBytes: .max, receivedPackets: 2, receiveErrors: 3, receiveDrops: 4,
                    sentBytes: 5, sentPackets: 6, sendErrors: 7, sendDrops: 8))
        for garbage in ["", "x", "a|b\nc\neth0 1 2", "a|b\nc\neth0: 1 2 3"] {
            #expect(InterfaceCounters.parse(garbage) == nil, "\(garbage)")
        }
    }

    @Test func `counters of a process that is gone are none`() throws {
        #expect(try InterfaceCounters.of(process: 0x3fff_ffff) == [])
        #expect(try !InterfaceCounters.of(process: getpid()).contains { $0.name == "lo" })
    }

    @Test func `the kernel's routes are read`() {
        let text = """
            Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
            eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
            eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
            garbage
            """
        let routes = HostNetwork.parse(routes: text)
        #expect(routes.map(\.destination.description) == ["0.0.0.0/0", "192.0.2.0/24"])
        #expect(routes.map(\.metric) == [100, 0])
    }

    @Test func `the machine's own addresses are seen as conflicts, by the device's name`() throws {
        let loopback = try #require(CIDR("127.0.0.0/8"))
        #expect(try HostNetwork.conflict(with: loopback, except: "")?.interface == "lo")
        #expect(try HostNetwork.conflict(with: loopback, except: "lo") == nil)
        #expect(try HostNetwork.defaultMTU() >= 576)
    }

    @Test func `a port that somebody listens on is refused with his name`() throws {
        let listener = SharedFD(
            OwnedFD(adopting: try systemCall("socket") { socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0) }))
        var name = sockaddr_in()
        name.sin_family = sa_family_t(AF_INET)
        name.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        try withUnsafeMutablePointer(to: &name) { pointer in
            try pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                try systemCall("bind") { bind(listener.raw, address, length) }
                try systemCall("listen") { listen(listener.raw, 1) }
                try systemCall("getsockname") { getsockname(listener.raw, address, &length) }
            }
        }
        let port = UInt16(bigEndian: name.sin_port)
        let mapping = PortMapping(hostPort: port, containerPort: 80)
        let error = #expect(throws: NetworkError.self) { try PortCheck.requireFree(mapping) }
        #expect(error?.kind == .portTaken)
        let me = try File.text("/proc/self/comm")
        #expect(
            error?.description
                == "port \(port)/tcp is in use by \(me) (process \(getpid())); stop that or publish another port")
        try PortCheck.requireFree(
            PortMapping(hostPort: port, containerPort: 80, hostAddress: IPAddress("127.0.0.2")))
        try PortCheck.requireFree(PortMapping(hostPort: port, containerPort: 80, transport: .udp))
        try PortCheck.requireFree(PortMapping(hostPort: port, containerPort: 80, transport: .sctp))
        let foreign = #expect(throws: NetworkError.self) {
            try PortCheck.requireFree(
                PortMapping(hostPort: port, containerPort: 80, hostAddress: IPAddress("203.0.113.77")))
        }
        #expect(foreign?.description.contains("203.0.113.77 is no address of this machine") == true)
    }

    @Test func `sockets are found by port`() {
        let text = """
              sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
               0: 0100007F:1F90 0100007F:0050 01 00000000:00000000 00:00000000 00000000     0        0 111 1 0
               1: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 222 1 0
            """
        #expect(PortCheck.parse(sockets: text, port: 8080, stream: true) == 222)
        #expect(PortCheck.parse(sockets: text, port: 8080, stream: false) == 111)
        #expect(PortCheck.parse(sockets: text, port: 80, stream: true) == nil)
        #expect(PortCheck.parse(sockets: "", port: 80, stream: true) == nil)
    }
}

@Suite struct PacketFilterTests {
    @Test func `rules are taken apart as iptables quotes them`() {
        let text = #"""
            -P FORWARD ACCEPT
            -N CNI-DN-1
            -A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"martlet\" id: \"abc\"" -j CNI-DN-1
            -A FORWARD -i martlet0 -m comment --comment martlet:martlet0 -j ACCEPT
            -A FORWARD -m comment --comment "" -j ACCEPT
            """#
        let rules = PacketFilter.parse(text, table: "nat")
        #expect(rules.map(\.chain) == ["CNI-HOSTPORT-DNAT", "FORWARD", "FORWARD"])
        #expect(rules.map(\.target) == ["CNI-DN-1", "ACCEPT", "ACCEPT"])
        #expect(rules.map(\.comment) == [#"dnat name: "martlet" id: "abc""#, "martlet:martlet0", ""])
        #expect(PacketFilter.container(of: rules[0], network: "martlet") == "abc")
        #expect(PacketFilter.container(of: rules[0], network: "martle") == nil)
        #expect(PacketFilter.container(of: rules[1], network: "martlet") == nil)
    }
}

@Suite struct BridgeConfigurationTests {
    private func configuration(
        _ change: (inout BridgeNetworkConfiguration) -> Void
    ) -> BridgeNetworkConfiguration {
        var configuration = BridgeNetworkConfiguration(dataDirectory: "/nowhere/data", runDirectory: "/nowhere/run")
        change(&configuration)
        return configuration
    }

    @Test func `the default makes a list of our plugin, ports and all, in version 1-0-0`() throws {
        let network = try BridgeNetwork(configuration { _ in })
        #expect(network.list.version == .v1_0_0)
        #expect(network.list.plugins.map(\.type) == ["martlet-overlay"])
        let overlay = network.list.plugins[0]
        #expect(overlay.capabilities == ["mac", "ips", "portMappings"])
        #expect(overlay.fields["snat"] == true)
        #expect(overlay.fields["dataDir"] == "/nowhere/run/cni/ipam")
        #expect(overlay.fields["addresses"] == [["subnet": "10.213.0.0/16", "gateway": "10.213.0.1"]])
    }

    @Test(arguments: [
        "10.213.0.1/16", "10.213.0.0", "10.0.0.0/7", "10.0.0.0/30", "fd00::/64", "127.0.0.0/8", "224.0.0.0/8", "x",
    ])
    func `subnets that cannot serve are refused`(subnet: String) {
        let error = #expect(throws: NetworkError.self) { try BridgeNetwork(configuration { $0.subnet = subnet }) }
        #expect(error?.kind == .configuration)
    }

    @Test func `names and sizes that cannot be are refused`() {
        for bridge in ["", "a/b", "a234567890123456", ".."] {
            #expect(throws: NetworkError.self) { try BridgeNetwork(configuration { $0.bridge = bridge }) }
        }
        #expect(throws: NetworkError.self) { try BridgeNetwork(configuration { $0.name = "a b" }) }
        #expect(throws: NetworkError.self) { try BridgeNetwork(configuration { $0.mtu = 100 }) }
    }

    @Test func `missing plugins are named with what to do about them`() throws {
        let network = try BridgeNetwork(configuration { $0.pluginDirectories = ["/nowhere"] })
        let problems = network.conflicts().filter { $0.kind == .missingProgram }
        try #require(problems.count == 2)
        #expect(problems[0].description.hasPrefix("no program martlet-overlay in /nowhere; "))
        #expect(problems[1].description.hasPrefix("no program portmap in /nowhere; "))
        #expect(throws: problems[0]) { try network.prepare() }
    }
}
