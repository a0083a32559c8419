import Glibc
import Kernel
import OCISpec
import Testing

extension KernelSuite {
    /// Links that move from the host into a container; the host is a network namespace of the test's own.
    @Suite(.serialized) struct RuntimeNetDevices {
        /// A runtime in a network namespace with a pair of links, `v0` and `v1`.
        private final class Host {
            let fixture: RuntimeFixture
            private let path: String

            init() throws {
                fixture = try RuntimeFixture()
                path = "\(fixture.directory)/host"
                try NetworkNamespace.create(at: path)
                fixture.network = SharedFD(try File.open(path, O_RDONLY))
                try ip("link add v0 type veth peer name v1")
                try ip("link set v1 up")
            }

            deinit {
                fixture.network = nil
                try? NetworkNamespace.remove(at: path)
            }

            @discardableResult
            func ip(_ words: String) throws -> String {
                var program = Program("/usr/sbin/ip", words.split(separator: " ").map { String($0) })
                program.networkNamespace = fixture.network?.raw ?? -1
                let result = try program.run()
                try #require(result.status == .exited(0), "ip \(words): \(result.errorText)")
                return String(decoding: result.output, as: UTF8.self)
            }

            func hasLink(_ name: String) throws -> Bool { try ip("-o link show").contains(": \(name)") }
        }

        @Test func `a link comes with its new name, its attributes and its lasting addresses`() throws {
            let host = try Host()
            try host.ip("link set v0 mtu 1400 address 02:00:00:00:00:07 up")
            try host.ip("addr add 192.0.2.5/24 brd + dev v0")
            try host.ip("addr add 192.0.2.6/24 dev v0")
            try host.ip("addr add 198.51.100.1 peer 198.51.100.2/32 dev v0")
            try host.ip("addr add fd00::5/64 dev v0 nodad")
            // These are a lease, and the host's own.
            try host.ip("addr add 192.0.2.77/24 dev v0 valid_lft 1000 preferred_lft 1000")
            try host.ip("addr add 169.254.9.9/16 scope link dev v0")
            let output = try host.fixture.run(
                "ip addr show dev net0; cat /proc/sys/net/ipv4/conf/net0/forwarding"
            ) { spec in
                spec.linux?.netDevices = ["v0": NetDeviceSpec(name: "net0")]
                // The link is there when sysctls are written.
                spec.linux?.sysctl = ["net.ipv4.conf.net0.forwarding": "1"]
            }
            #expect(output.code == 0, "\(output)")
            for part in [
                ",UP", "mtu 1400", "02:00:00:00:00:07", "inet 192.0.2.5/24 brd 192.0.2.255 scope global",
                "inet 192.0.2.6/24 scope global secondary", "inet 198.51.100.1 peer 198.51.100.2/32",
                "inet6 fd00::5/64 scope global",
            ] {
                #expect(output.stdout.contains(part), "\(part) in \(output.stdout)")
            }
            #expect(!output.stdout.contains("192.0.2.77") && !output.stdout.contains("169.254.9.9"))
            #expect(output.lines.last == "1")
            #expect(try !host.hasLink("v0"))
        }

        @Test func `several links, names by the kernel, and create with hooks`() throws {
            let host = try Host()
            try host.ip("link add w0 type veth peer name w1")
            let listing = "\(host.fixture.directory)/links"
            try host.fixture.start("c1", "sleep 1000") { spec in
                spec.linux?.netDevices = [
                    "v0": NetDeviceSpec(name: "net%d"), "w0": NetDeviceSpec(name: "net%d"), "w1": NetDeviceSpec(),
                ]
                var hooks = HooksSpec()
                hooks.createContainer = [
                    HookSpec(path: "/bin/sh", args: ["sh", "-c", "cat /proc/thread-self/net/dev > \(listing)"])
                ]
                spec.hooks = hooks
            }
            let names = try host.fixture.must("exec", "c1", "ls", "/sys/class/net").lines
            #expect(Set(names) == ["lo", "net0", "net1", "w1"])
            let seen = try File.text(listing)
            #expect(seen.contains("net0:") && seen.contains("net1:") && seen.contains("w1:"), "\(seen)")
        }

        @Test func `a namespace joined by path, and one of a new user namespace`() throws {
            let host = try Host()
            let path = "\(host.fixture.directory)/joined"
            try NetworkNamespace.create(at: path)
            defer { try? NetworkNamespace.remove(at: path) }
            let joined = try host.fixture.run("ls /sys/class/net") { spec in
                spec.linux?.namespaces[1].path = path
                spec.linux?.netDevices = ["v0": NetDeviceSpec()]
            }
            #expect(joined.lines == ["lo", "v0"], "\(joined)")
            let apart = try host.fixture.run("ls /sys/class/net") { spec in
                spec.linux?.namespaces.append(NamespaceSpec(.user))
                spec.linux?.uidMappings = [IDMapping(containerID: 0, hostID: 0, size: 1000)]
                spec.linux?.gidMappings = [IDMapping(containerID: 0, hostID: 0, size: 1000)]
                spec.linux?.netDevices = ["v1": NetDeviceSpec(name: "eth0")]
            }
            #expect(apart.lines == ["eth0", "lo"], "\(apart)")
        }

        @Test func `what cannot move is named, and nothing has moved`() throws {
            let host = try Host()
            let cases: [([String: NetDeviceSpec], String)] = [
                (["v0": NetDeviceSpec(), "v9": NetDeviceSpec()], "link v9: No such device"),
                (["v0": NetDeviceSpec(), "v1": NetDeviceSpec(name: "lo")], "link v1: File exists"),
            ]
            for (devices, reason) in cases {
                let output = try host.fixture.run("true") { $0.linux?.netDevices = devices }
                #expect(output.code == 1)
                #expect(output.stderr.contains("linux.netDevices") && output.stderr.contains(reason), "\(output)")
                #expect(try host.hasLink("v0") && host.hasLink("v1"))
                #expect(try host.fixture.traces().filter { !$0.hasSuffix("/host") } == [])
            }
            let output = try host.fixture.run("true") { spec in
                spec.linux?.namespaces[1].path = "/proc/self/ns/net"
                spec.mounts.removeAll { $0.type == "sysfs" }
                spec.linux?.netDevices = ["v0": NetDeviceSpec()]
            }
            #expect(output.code == 1 && output.stderr.contains("linux.netDevices"), "\(output)")
        }
    }
}
