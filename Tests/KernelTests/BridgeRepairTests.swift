import CNISpec
import Glibc
import Kernel
import Networking
import Synchronization
import Testing

extension KernelSuite {
    /// What becomes of bridge networks and published ports when somebody else meddles, or the agent ends.
    @Suite(.serialized) struct BridgeRepair {
        private static let port = PortMapping(hostPort: 8080, containerPort: 80)

        /// Waits until it is so.
        private func eventually(_ condition: () throws -> Bool) throws -> Bool {
            for _ in 0..<400 {
                if try condition() { return true }
                usleep(50_000)
            }
            return false
        }

        /// One that is published reaches the other, and is reached from outside.
        private func expectWhole(
            _ site: BridgeSite, _ one: BridgeSite.Pod, _ two: BridgeSite.Pod, _ service: SharedFD
        ) throws {
            let machine = site.machine
            #expect(try machine.talk(to: one.address, 80, from: two.namespace, listener: service) == two.address)
            #expect(
                try machine.talk(to: "198.51.100.2", 8080, from: machine.outside, listener: service) == "198.51.100.1")
            #expect(try machine.talk(to: "127.0.0.1", 8080, listener: service) != nil)
        }

        @Test func `whatever somebody takes away is told in words, and mended`() async throws {
            try await PrivateMachine.run { machine in
                let site = try BridgeSite(machine)
                let one = try site.pod("one", ports: [Self.port])
                let two = try site.pod("two")
                let plain = try machine.pin("plain")
                _ = try site.own.attach(
                    "plain", namespacePath: plain, ports: [.init(hostPort: 9090, containerPort: 80)])
                let service = try machine.listen(80, in: one.namespace)
                try self.expectWhole(site, one, two, service)
                #expect(site.users.check() == [])
                let red = BridgeSite.red.name
                let end = try #require(
                    try machine.command(
                        "bridge fdb show br \(red) | grep '^\(one.found.mac?.description ?? "") .*static'"
                    )
                    .split(separator: " ").dropFirst(2).first)
                let name = "the device \(end) of the pod one"
                let damages: [(command: String, words: String)] = [
                    ("nft flush ruleset", "the nf_tables table inet martlet_portmap is missing"),
                    ("nft flush ruleset", "the nf_tables table bridge martlet_bridges is missing"),
                    ("nft delete table inet martlet_bridges", "the nf_tables table inet martlet_bridges is missing"),
                    (
                        "nft flush chain bridge martlet_bridges prerouting",
                        "the nf_tables table bridge martlet_bridges is not as it was made"
                    ),
                    (
                        "nft flush set bridge martlet_bridges senders",
                        "3 elements of the set senders of the table bridge martlet_bridges are missing"
                    ),
                    (
                        "nft add element bridge martlet_bridges senders '{ \"\(end)\" . 02:00:00:00:00:01 }'",
                        "1 elements of the set senders of the table bridge martlet_bridges are too much"
                    ),
                    (
                        "nft flush map inet martlet_portmap any4",
                        "of the published ports 0.0.0.0:8080/tcp of one something is missing"
                    ),
                    (
                        "nft flush chain inet martlet_portmap published",
                        "the nf_tables table inet martlet_portmap is not as it was made"
                    ),
                    ("sysctl -qw net.ipv4.conf.\(red).route_localnet=0", "net.ipv4.conf.\(red).route_localnet is off"),
                    ("iptables -F", "the rule 'FORWARD -i \(red) -j ACCEPT' of iptables' table filter is missing"),
                    (
                        "iptables -t mangle -F",
                        "the rule 'FORWARD -i \(red) -o martlet0 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP'"
                            + " of iptables' table mangle is missing"
                    ),
                    (
                        "iptables -t nat -F",
                        "the rule 'POSTROUTING -s 172.18.0.0/16 ! -o \(red) -j MASQUERADE' of iptables' table nat is missing"
                    ),
                    (
                        "iptables -I FORWARD -i mt-gone -m comment --comment martlet:mt-gone -j ACCEPT",
                        "the rule 'FORWARD -i mt-gone -j ACCEPT' of iptables' table filter is too much"
                    ),
                    ("sysctl -qw net.ipv4.ip_forward=0", "net.ipv4.ip_forward is off"),
                    ("sysctl -qw net.ipv6.conf.\(red).disable_ipv6=0", "net.ipv6.conf.\(red).disable_ipv6 is not 1"),
                    ("ip link set \(red) down", "the bridge \(red) is down"),
                    ("ip addr del 172.18.0.1/16 dev \(red)", "the address 172.18.0.1/16 is missing on \(red)"),
                    ("ip link del \(red)", "the bridge \(red) is missing"),
                    ("ip link set \(end) nomaster", "\(name) hangs off \(red) no more"),
                    ("ip link set \(end) group 0", "\(name) is in the group 0"),
                    ("ip link set \(end) down", "\(name) is down"),
                    ("ip link set \(end) type bridge_slave learning on", "\(name) is no port as it was made"),
                    (
                        "bridge fdb del \(one.found.mac?.description ?? "") dev \(end) master",
                        "the bridge knows \(one.found.mac?.description ?? "") of \(name) no more"
                    ),
                ]
                for (command, words) in damages {
                    try machine.command(command)
                    let found = site.users.check()
                    #expect(found.contains(words), "\(command): \(found)")
                    #expect(site.users.repair().contains(words))
                    #expect(site.users.check() == [], "\(command)")
                }
                try self.expectWhole(site, one, two, service)
            }
        }

        @Test func `nobody has to be asked for it: changes are noticed, and our own are none`() async throws {
            try await PrivateMachine.run { machine in
                let site = try BridgeSite(machine)
                let one = try site.pod("one", ports: [Self.port])
                let two = try site.pod("two")
                let service = try machine.listen(80, in: one.namespace)
                let reports = Reports()
                try site.users.start { reports.add($0) }
                defer { site.users.stop() }
                for command in [
                    "nft flush ruleset", "iptables -F; iptables -t mangle -F; iptables -t nat -F",
                    "nft delete table inet martlet_portmap", "ip link del \(BridgeSite.red.name)",
                ] {
                    try machine.command(command)
                    #expect(try self.eventually { site.users.check() == [] }, "\(command)")
                }
                try self.expectWhole(site, one, two, service)
                #expect(reports.all.contains("the bridge \(BridgeSite.red.name) is missing"))
                usleep(300_000)
                let before = reports.all.count
                // Networks and pods that come and go are no reason.
                _ = try site.pod("three", on: BridgeSite.blue, ports: [.init(hostPort: 9090, containerPort: 80)])
                _ = try site.pod("four")
                for id in ["three", "four"] { try site.users.detach(id) }
                usleep(300_000)
                #expect(reports.all.count == before, "\(reports.all.dropFirst(before))")
            }
        }

        @Test func `after the agent's end all goes on, and the next one knows it`() async throws {
            try await PrivateMachine.run { machine in
                let site = try BridgeSite(machine)
                let one = try site.pod("one", ports: [Self.port])
                let two = try site.pod("two")
                _ = try site.pod("two", on: BridgeSite.blue, interface: "eth1")
                let service = try machine.listen(80, in: one.namespace)
                let next = try site.restarted()
                #expect(next.users.check() == [])
                try machine.command("nft flush ruleset; ip link del \(BridgeSite.red.name)")
                #expect(next.users.repair() != [] && next.users.check() == [])
                try self.expectWhole(next, one, two, service)
                // Who has gone meanwhile leaves nothing.
                #expect(next.users.collectGarbage(living: ["one"]) == [] && next.users.check() == [])
                let left = try machine.command("nft list table bridge martlet_bridges")
                #expect(left.contains("one eth0") && !left.contains("two"), "\(left)")
                // Nor what the next process finds of a pod of whose record nothing is left.
                let name = "\(BridgeSite.red.name)-one-eth0.json"
                try File.removeFile("\(machine.data)/cni/cache/\(name)")
                let last = try site.restarted()
                #expect(last.users.removeLeftovers() == [])
                #expect(last.own.removeLeftovers() == [])
                #expect(try !machine.command("nft list ruleset").contains("martlet_"))
            }
        }

        @Test func `pods whom an earlier version attached are held to their addresses too`() async throws {
            try await PrivateMachine.run { machine in
                let site = try BridgeSite(machine)
                let (one, two) = (try site.pod("one"), try site.pod("two"))
                let devices = try machine.devices().filter { $0.hasPrefix("mv") }
                for device in devices {
                    try machine.command(
                        "ip link set \(device) group 0; ip link set \(device) type bridge_slave learning on")
                }
                try machine.command("nft flush ruleset; bridge fdb flush dev \(BridgeSite.red.name) || true")
                let next = try site.restarted()
                #expect(next.users.repair().contains { $0.hasSuffix("is in the group 0") })
                #expect(next.users.check() == [])
                let service = try machine.listen(80, in: two.namespace)
                #expect(try machine.talk(to: two.address, 80, from: one.namespace, listener: service) == one.address)
                try machine.ip("addr add 172.18.9.9/16 dev eth0", in: one.namespace)
                try machine.ip("addr del \(one.found.address) dev eth0", in: one.namespace)
                #expect(
                    try machine.talk(to: two.address, 80, from: one.namespace, listener: service, within: 1) == nil)
            }
        }
    }
}

/// What the watch has told.
private final class Reports: Sendable {
    private let words = Mutex<[String]>([])
    var all: [String] { words.withLock { $0 } }

    func add(_ more: [String]) { words.withLock { $0 += more } }
}
