import CKernel
import Glibc
import JSON
import Kernel
import OCISpec
import Testing

extension KernelSuite {
    /// Namespaces, names, sysctls.
    @Suite(.serialized) struct RuntimeIsolation {
        private static let kinds: [(NamespaceSpec.Kind, String)] = [
            (.pid, "pid"), (.network, "net"), (.ipc, "ipc"), (.uts, "uts"), (.mount, "mnt"), (.cgroup, "cgroup"),
            (.time, "time"),
        ]

        private func namespace(_ process: String, _ name: String) -> String {
            var buffer = [CChar](repeating: 0, count: 64)
            let length = readlink("/proc/\(process)/ns/\(name)", &buffer, 63)
            return String(decoding: buffer.prefix(max(0, length)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        }

        @Test func `each namespace is new when asked for and the host's when not`() throws {
            let fixture = try RuntimeFixture()
            for (kind, name) in Self.kinds {
                try fixture.start("with-\(name)") { spec in
                    spec.hostname = nil
                    spec.linux?.namespaces = [NamespaceSpec(.mount)] + (kind == .mount ? [] : [NamespaceSpec(kind)])
                    spec.mounts.removeAll { $0.type == "sysfs" || $0.type == "mqueue" }
                }
                let process = "\(try fixture.state("with-\(name)").pid)"
                for (_, other) in Self.kinds {
                    let isNew = other == name || other == "mnt"
                    #expect((namespace(process, other) != namespace("self", other)) == isNew, "\(name): \(other)")
                }
            }
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `namespaces of another container are joined by path`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            try fixture.start("one")
            let first = try fixture.state("one").pid
            let names: [(NamespaceSpec.Kind, String)] = [
                (.pid, "pid"), (.network, "net"), (.ipc, "ipc"), (.uts, "uts"),
            ]
            try fixture.start("two") { spec in
                spec.hostname = nil
                spec.linux?.namespaces =
                    [NamespaceSpec(.mount)] + names.map { NamespaceSpec($0.0, path: "/proc/\(first)/ns/\($0.1)") }
            }
            let second = try fixture.state("two").pid
            for (_, name) in names { #expect(namespace("\(first)", name) == namespace("\(second)", name)) }
            #expect(namespace("\(first)", "mnt") != namespace("\(second)", "mnt"))
            #expect(try fixture.must("exec", "two", "hostname").text == "box")
            #expect(try fixture.must("exec", "two", "ps").lines.filter { $0.contains("sleep 1000") }.count == 2)
            try fixture.must("kill", "two", "KILL")
            #expect(fixture.wait(second) == 137)
            #expect(try fixture.state("one").status == .running, "the neighbour lives on")
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `the loopback interface of a new network namespace is up`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            #expect(try fixture.run("ip addr show lo").stdout.contains("LOOPBACK,UP"))
        }

        /// A bundle that root of the user namespace can reach and write.
        private func userBundle(_ fixture: RuntimeFixture, _ script: String) throws -> String {
            let bundle = try fixture.bundle(script) { spec in
                spec.linux?.namespaces.append(NamespaceSpec(.user))
                spec.linux?.uidMappings = [IDMapping(containerID: 0, hostID: 100_000, size: 1000)]
                spec.linux?.gidMappings = [IDMapping(containerID: 0, hostID: 200_000, size: 1000)]
                spec.mounts.append(
                    MountSpec(destination: "/mnt", type: "bind", source: "secret", options: ["bind", "ro"]))
            }
            try File.makeDirectories("\(bundle)/secret", mode: 0o700)
            try File.makeDirectories("\(bundle)/secret/shown", mode: 0o755)
            chmod(fixture.directory, 0o711)
            chmod(bundle, 0o711)
            for path in ["", "/tmp", "/dev", "/bin", "/proc", "/sys", "/etc", "/root"] {
                chown("\(bundle)/rootfs\(path)", 100_000, 200_000)
            }
            chown("\(bundle)/secret/shown", 100_000, 200_000)
            return bundle
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `root of a user namespace is somebody else on the host`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            let script = """
                id -u; id -g; cat /proc/self/uid_map | tr -s ' '; echo > /tmp/mine; hostname
                head -c 2 /dev/zero | wc -c; touch /mnt/x 2>/dev/null; echo $?; sleep 1000
                """
            let bundle = try userBundle(fixture, script)
            chmod("\(bundle)/secret", 0o755)
            try fixture.must("create", "--bundle", bundle, "c1")
            try fixture.must("start", "c1")
            let pid = try fixture.state("c1").pid
            fixture.eventually { File.exists("\(bundle)/rootfs/tmp/mine") }
            var info = stat()
            #expect(stat("\(bundle)/rootfs/tmp/mine", &info) == 0)
            #expect(info.st_uid == 100_000 && info.st_gid == 200_000)
            #expect(try Proc.status(pid)?["Uid"]?.hasPrefix("100000\t") == true)
            let inside = try fixture.must(
                "exec", "c1", "sh", "-c", "id -u; readlink /proc/self/ns/user; stat -c %u /tmp")
            #expect(inside.lines == ["0", namespace("\(pid)", "user"), "0"])
            #expect(namespace("\(pid)", "user") != namespace("self", "user"))
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `files and devices keep their owners and modes in a user namespace`(
            _ runtime: RuntimeFixture.Runtime
        ) throws {
            let fixture = try RuntimeFixture(runtime)
            let bundle = try userBundle(fixture, "stat -c '%u %a' /bin/busybox /dev/full")
            chmod("\(bundle)/secret", 0o755)
            var spec = try ContainerSpec(parsing: try File.read("\(bundle)/config.json"))
            spec.linux?.devices = [
                DeviceSpec(path: "/dev/full", type: .character, major: 1, minor: 7, fileMode: 0o600, uid: 7, gid: 8)
            ]
            try File.replace("\(bundle)/config.json", with: spec.encoded())
            let output = try fixture.call(["run", "--bundle", bundle, "c1"])
            // The node is the host's, bound; nobody of the container owns it.
            #expect(output.lines == ["65534 755", "65534 666"], "\(output)")
            var info = stat()
            #expect(stat("\(bundle)/rootfs/bin/busybox", &info) == 0 && info.st_uid == 0 && info.st_gid == 0)
            #expect(stat("/dev/full", &info) == 0 && info.st_uid == 0 && info.st_mode & 0o777 == 0o666)
        }

        @Test func `a bind source that root of the user namespace cannot reach is bound all the same`() throws {
            let fixture = try RuntimeFixture()
            let bundle = try userBundle(fixture, "stat -c %u /mnt/shown /mnt")
            chmod("\(bundle)", 0o711)
            let hidden = "\(fixture.directory)/hidden"
            try File.makeDirectories("\(hidden)/inner/shown", mode: 0o755)
            chown("\(hidden)/inner/shown", 100_000, 200_000)
            chmod(hidden, 0o700)
            var spec = try ContainerSpec(parsing: try File.read("\(bundle)/config.json"))
            spec.mounts[spec.mounts.count - 1].source = "\(hidden)/inner"
            try File.replace("\(bundle)/config.json", with: spec.encoded())
            let output = try fixture.call(["run", "--bundle", bundle, "c1"])
            #expect(output.lines == ["0", "65534"], "\(output)")
        }

        @Test func `a user namespace is joined by path, alone and with its own kind`() throws {
            let fixture = try RuntimeFixture()
            let bundle = try userBundle(fixture, "sleep 1000")
            try fixture.must("create", "--bundle", bundle, "one")
            try fixture.must("start", "one")
            let first = try fixture.state("one").pid
            let other = try userBundle(fixture, "id -u; sleep 1000")
            var spec = try ContainerSpec(parsing: try File.read("\(other)/config.json"))
            spec.linux?.uidMappings = []
            spec.linux?.gidMappings = []
            spec.linux?.namespaces = [
                NamespaceSpec(.mount), NamespaceSpec(.pid), NamespaceSpec(.ipc), NamespaceSpec(.uts),
                NamespaceSpec(.user, path: "/proc/\(first)/ns/user"),
                NamespaceSpec(.network, path: "/proc/\(first)/ns/net"),
            ]
            try File.replace("\(other)/config.json", with: spec.encoded())
            try fixture.must("create", "--bundle", other, "two")
            try fixture.must("start", "two")
            let second = try fixture.state("two").pid
            #expect(namespace("\(first)", "user") == namespace("\(second)", "user"))
            #expect(namespace("\(first)", "net") == namespace("\(second)", "net"))
            #expect(namespace("\(first)", "pid") != namespace("\(second)", "pid"))
            #expect(try fixture.must("exec", "two", "id", "-u").text == "0")
        }

        @Test func `clocks are moved in a time namespace`() throws {
            let fixture = try RuntimeFixture()
            let output = try fixture.run("cat /proc/uptime; cat /proc/self/timens_offsets | tr -s ' '") { spec in
                spec.linux?.namespaces.append(NamespaceSpec(.time))
                spec.linux?.timeOffsets = [
                    "boottime": TimeOffset(seconds: 1_000_000, nanoseconds: 0),
                    "monotonic": TimeOffset(seconds: 5, nanoseconds: 7),
                ]
            }
            #expect(output.code == 0, "\(output.stderr)")
            let uptime = output.lines.first.flatMap { Double($0.split(separator: " ")[0]) } ?? 0
            let host = Double(Proc.uptimeNanoseconds()) / 1e9
            #expect(uptime > host + 999_000 && uptime < host + 1_000_001)
            #expect(output.stdout.contains("monotonic 5 7") && output.stdout.contains("boottime 1000000 0"))
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `names and sysctls of the container's own namespaces are set`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            let before = try File.text("/proc/sys/kernel/shmmax")
            let output = try fixture.run(
                "hostname; cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax"
            ) { spec in
                spec.hostname = "other"
                spec.linux?.sysctl = ["net.ipv4.ip_forward": "1", "kernel.shmmax": "12345"]
            }
            #expect(output.lines == ["other", "1", "12345"], "\(output)")
            #expect(try File.text("/proc/sys/kernel/shmmax") == before)
        }

        @Test func `the domain name is set`() throws {
            let fixture = try RuntimeFixture()
            let output = try fixture.run("cat /proc/sys/kernel/domainname") { $0.domainname = "example.org" }
            #expect(output.text == "example.org")
        }
    }
}
