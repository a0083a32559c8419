import CKernel
import Glibc
import JSON
import Kernel
import OCISpec
import Testing

extension KernelSuite {
    /// User namespaces and the id maps of mounts; time and cgroup namespaces.
    @Suite(.serialized) struct RuntimeUserNamespaces {
        private func namespace(_ process: pid_t, _ name: String) -> String {
            var buffer = [CChar](repeating: 0, count: 64)
            let length = readlink("/proc/\(process)/ns/\(name)", &buffer, 63)
            return String(decoding: buffer.prefix(max(0, length)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        }

        /// A bundle in a user namespace whose root can reach and write it.
        private func bundle(
            _ fixture: RuntimeFixture, _ script: String,
            uids: [IDMapping] = [IDMapping(containerID: 0, hostID: 100_000, size: 1000)],
            gids: [IDMapping] = [IDMapping(containerID: 0, hostID: 200_000, size: 1000)],
            _ shape: (inout ContainerSpec) throws -> Void = { _ in }
        ) throws -> String {
            let bundle = try fixture.bundle(script) { spec in
                spec.linux?.namespaces.append(NamespaceSpec(.user))
                spec.linux?.uidMappings = uids
                spec.linux?.gidMappings = gids
                try shape(&spec)
            }
            chmod(fixture.directory, 0o711)
            chmod(bundle, 0o711)
            for path in ["", "/tmp", "/dev", "/bin", "/proc", "/sys", "/etc", "/root"] {
                chown("\(bundle)/rootfs\(path)", uids.first?.hostID ?? 0, gids.first?.hostID ?? 0)
            }
            return bundle
        }

        /// Files owned by 5:6 and 0:0, in a directory and in another filesystem that is mounted there.
        private func withFiles(_ fixture: RuntimeFixture, _ body: (String) throws -> Void) throws {
            let source = "\(fixture.directory)/files"
            try File.makeDirectories("\(source)/sub", mode: 0o755)
            try #require(mount("tmpfs", "\(source)/sub", "tmpfs", 0, "mode=755") == 0)
            defer { umount2("\(source)/sub", Int32(MNT_DETACH)) }
            for path in ["\(source)/file", "\(source)/sub/file"] {
                try File.replace(path, with: [], mode: 0o644)
                chown(path, 5, 6)
            }
            try body(source)
        }

        private func map(_ inside: UInt32, _ outside: UInt32, _ size: UInt32) -> IDMapping {
            IDMapping(containerID: inside, hostID: outside, size: size)
        }

        private static let owners = "for f in file sub sub/file; do stat -c %u:%g /mnt/$f; done"

        // MARK: Ranges

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `a user namespace has several ranges of ids`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            let uids = [map(0, 100_000, 10), map(10, 300_000, 10), map(1000, 5, 1)]
            let bundle = try bundle(
                fixture, "cat /proc/self/uid_map | tr -s ' '; stat -c %u /etc/*", uids: uids)
            for (name, owner) in [("a", 100_009), ("b", 300_000), ("c", 5), ("d", 6)] {
                try File.replace("\(bundle)/rootfs/etc/\(name)", with: [], mode: 0o644)
                chown("\(bundle)/rootfs/etc/\(name)", uid_t(owner), 0)
            }
            let output = try fixture.call(["run", "--bundle", bundle, "c1"])
            #expect(
                output.lines.map { $0.drop { $0 == " " } } == [
                    "0 100000 10", "10 300000 10", "1000 5 1", "9", "10", "1000", "65534",
                ], "\(output)")
        }

        @Test func `as many ranges as the kernel takes`() throws {
            let fixture = try RuntimeFixture()
            let ranges = (0..<340).map { map($0, 1000 + 2 * $0, 1) }
            let bundle = try bundle(fixture, "wc -l < /proc/self/uid_map", uids: ranges)
            #expect(try fixture.call(["run", "--bundle", bundle, "c1"]).text == "340")
        }

        struct Wrong: CustomTestStringConvertible, Sendable {
            let place: String
            let ranges: [IDMapping]
            var testDescription: String { place }
        }

        @Test(arguments: [
            Wrong(
                place: "uidMappings: has 341 ranges",
                ranges: (0..<341).map { .init(containerID: $0, hostID: $0, size: 1) }),
            Wrong(
                place: "uidMappings: takes",
                ranges: (0..<300).map { .init(containerID: 10 * $0, hostID: 1_000_000_000 + 10 * $0, size: 9) }),
            Wrong(place: "uidMappings[0].size: is 0", ranges: [.init(containerID: 0, hostID: 0, size: 0)]),
            Wrong(
                place: "uidMappings[1].containerID: overlaps with",
                ranges: [.init(containerID: 0, hostID: 0, size: 10), .init(containerID: 9, hostID: 100, size: 1)]),
            Wrong(
                place: "uidMappings[1].hostID: overlaps with",
                ranges: [.init(containerID: 100, hostID: 50, size: 10), .init(containerID: 0, hostID: 0, size: 51)]),
            Wrong(
                place: "uidMappings[0].hostID: 4294967295 with 1 ids goes beyond",
                ranges: [.init(containerID: 0, hostID: .max, size: 1)]),
            Wrong(
                place: "uidMappings[0].containerID: 10 with 4294967295 ids goes beyond",
                ranges: [.init(containerID: 10, hostID: 0, size: .max)]),
        ])
        func `ranges that the kernel does not take are refused by their place`(_ wrong: Wrong) throws {
            let fixture = try RuntimeFixture()
            for ofMount in [false, true] {
                let output = try fixture.run("true") { spec in
                    if ofMount {
                        spec.mounts.append(
                            MountSpec(destination: "/mnt", type: "bind", source: "/tmp", options: ["bind", "idmap"]))
                        spec.mounts[6].uidMappings = wrong.ranges
                        spec.mounts[6].gidMappings = [map(0, 0, 1)]
                    } else {
                        spec.linux?.namespaces.append(NamespaceSpec(.user))
                        spec.linux?.uidMappings = wrong.ranges
                        spec.linux?.gidMappings = [map(0, 0, 1)]
                    }
                }
                #expect(output.code == 1)
                let place = "config.json: \(ofMount ? "mounts[6]" : "linux").\(wrong.place)"
                #expect(output.stderr.contains(place), "\(output.stderr)")
                #expect(try fixture.traces() == [])
            }
        }

        // MARK: Id-mapped mounts

        @Test func `the ids of a mount are mapped, those below it only when asked`() throws {
            let fixture = try RuntimeFixture()
            try withFiles(fixture) { source in
                for (options, expected) in [
                    (["rbind", "idmap"], ["10005:20006", "0:0", "5:6"]),
                    (["rbind", "ridmap"], ["10005:20006", "10000:20000", "10005:20006"]),
                    // Without either option the map counts all the same.
                    (["rbind"], ["10005:20006", "0:0", "5:6"]),
                ] {
                    let output = try fixture.run(Self.owners) { spec in
                        spec.mounts.append(
                            MountSpec(destination: "/mnt", type: "bind", source: source, options: options))
                        spec.mounts[6].uidMappings = [map(0, 10000, 1000)]
                        spec.mounts[6].gidMappings = [map(0, 20000, 1000)]
                    }
                    #expect(output.lines == expected, "\(options): \(output)")
                }
            }
        }

        @Test func `mounts with maps of several ranges, and a mount without, do not mix`() throws {
            let fixture = try RuntimeFixture()
            let source = "\(fixture.directory)/files"
            try File.makeDirectories(source, mode: 0o755)
            for (name, owner) in [("a", 100), ("b", 101), ("c", 102)] {
                try File.replace("\(source)/\(name)", with: [], mode: 0o644)
                chown("\(source)/\(name)", uid_t(owner), 0)
            }
            let output = try fixture.run("for m in 1 2 3 4; do stat -c %u /mnt/$m/*; done") { spec in
                for number in 1...4 {
                    var mount = MountSpec(
                        destination: "/mnt/\(number)", type: "bind", source: source, options: ["bind"])
                    if number != 3 {
                        mount.uidMappings =
                            number == 2 ? [map(101, 7, 1), map(100, 2000, 1)] : [map(100, 3000, 2)]
                        mount.gidMappings = [map(0, 0, 1)]
                        mount.options.append("idmap")
                    }
                    spec.mounts.append(mount)
                }
            }
            let first = ["3000", "3001", "65534"]
            #expect(output.lines == first + ["2000", "7", "65534"] + ["100", "101", "102"] + first, "\(output)")
        }

        @Test func `a mount takes the map of the container's user namespace, made or joined`() throws {
            let fixture = try RuntimeFixture()
            try withFiles(fixture) { source in
                let mount = MountSpec(destination: "/mnt", type: "bind", source: source, options: ["rbind", "ridmap"])
                let script = "\(Self.owners); touch /mnt/sub/mine; echo $?; sleep 1000"
                let made = try bundle(fixture, "\(Self.owners); touch /mnt/sub/mine; echo $?") {
                    $0.mounts.append(mount)
                }
                let output = try fixture.call(["run", "--bundle", made, "c1"])
                #expect(output.lines == ["5:6", "0:0", "5:6", "0"], "\(output)")
                var info = stat()
                #expect(stat("\(source)/sub/mine", &info) == 0)
                #expect(info.st_uid == 0 && info.st_gid == 0, "root of the container wrote as root")

                let other = try bundle(fixture, script)
                try fixture.must("create", "--bundle", other, "other")
                let path = "/proc/\(try fixture.state("other").pid)/ns/user"
                let joined = try bundle(fixture, Self.owners) { spec in
                    spec.linux?.namespaces.removeAll { $0.type == .user }
                    spec.linux?.namespaces.append(NamespaceSpec(.user, path: path))
                    spec.linux?.uidMappings = []
                    spec.linux?.gidMappings = []
                    spec.mounts.append(mount)
                }
                for file in ["", "/tmp", "/dev", "/bin", "/proc", "/sys", "/etc", "/root"] {
                    chown("\(joined)/rootfs\(file)", 100_000, 200_000)
                }
                let second = try fixture.call(["run", "--bundle", joined, "c2"])
                #expect(second.lines == ["5:6", "0:0", "5:6"], "\(second)")
            }
        }

        @Test func `many id-mapped mounts fit into few descriptors`() throws {
            let fixture = try RuntimeFixture()
            let source = "\(fixture.directory)/files"
            try File.makeDirectories(source, mode: 0o755)
            let output = try fixture.run("stat -c %u /mnt/9; ls /proc/self/fd | wc -l") { spec in
                spec.process?.rlimits = [RlimitSpec(type: "RLIMIT_NOFILE", hard: 20, soft: 20)]
                for number in 0..<10 {
                    var mount = MountSpec(
                        destination: "/mnt/\(number)", type: "bind", source: source, options: ["bind", "idmap"])
                    mount.uidMappings = [map(0, 77, 1)]
                    mount.gidMappings = [map(0, 77, 1)]
                    spec.mounts.append(mount)
                }
            }
            #expect(output.lines == ["77", "4"], "\(output)")
        }

        @Test func `what cannot be id-mapped says which mount it is`() throws {
            let fixture = try RuntimeFixture()
            func refusal(
                _ options: [String], type: String = "bind", source: String = "/tmp", uids: [IDMapping]? = nil,
                gids: [IDMapping]? = nil
            ) throws -> String {
                let output = try fixture.run("true") { spec in
                    spec.mounts.append(MountSpec(destination: "/mnt", type: type, source: source, options: options))
                    spec.mounts[6].uidMappings = uids ?? [map(0, 1000, 1)]
                    spec.mounts[6].gidMappings = gids ?? [map(0, 1000, 1)]
                }
                #expect(output.code == 1)
                #expect(output.stderr.split(separator: "\n").count == 1, "\(output.stderr)")
                return output.stderr
            }
            #expect(try refusal(["bind"], gids: []).contains("mounts[6].gidMappings: is missing"))
            #expect(try refusal(["bind"], uids: []).contains("mounts[6].uidMappings: is missing"))
            #expect(try refusal(["idmap"], type: "tmpfs").contains("mounts[6].uidMappings: only bind mounts"))
            let unmapped = try refusal(["bind", "idmap"], uids: [], gids: [])
            #expect(unmapped.contains("mounts[6].options: without uidMappings"), "\(unmapped)")
            let unable = try refusal(["bind", "idmap"], source: "/sys/kernel")
            #expect(unable.contains("mounts[6] (/mnt): the filesystem of /sys/kernel takes no id map"), "\(unable)")
            #expect(try fixture.traces() == [])
        }

        // MARK: Time and cgroup namespaces

        @Test func `clocks are moved in a user namespace too, and not before their beginning`() throws {
            let fixture = try RuntimeFixture()
            let bundle = try bundle(fixture, "cat /proc/self/timens_offsets | tr -s ' '") { spec in
                spec.linux?.namespaces.append(NamespaceSpec(.time))
                spec.linux?.timeOffsets = ["boottime": TimeOffset(seconds: 1_000_000, nanoseconds: 5)]
            }
            let output = try fixture.call(["run", "--bundle", bundle, "c1"])
            #expect(output.stdout.contains("boottime 1000000 5"), "\(output)")
            for (clock, seconds) in [("boottime", Int64(-1_000_000_000)), ("monotonic", .max / 2)] {
                let output = try fixture.run("true") { spec in
                    spec.linux?.namespaces.append(NamespaceSpec(.time))
                    spec.linux?.timeOffsets = [clock: TimeOffset(seconds: seconds, nanoseconds: 0)]
                }
                #expect(output.code == 1)
                #expect(output.stderr.contains("linux.timeOffsets"), "\(output.stderr)")
            }
            #expect(try fixture.traces() == [])
        }

        @Test func `time and cgroup namespaces are joined by path, also with a new user namespace`() throws {
            let fixture = try RuntimeFixture()
            try fixture.start("one") { spec in
                spec.linux?.namespaces += [NamespaceSpec(.time), NamespaceSpec(.cgroup)]
                spec.linux?.timeOffsets = ["boottime": TimeOffset(seconds: 1_000_000, nanoseconds: 0)]
            }
            let first = try fixture.state("one").pid
            func join(_ spec: inout ContainerSpec) {
                spec.linux?.namespaces += [
                    NamespaceSpec(.time, path: "/proc/\(first)/ns/time"),
                    NamespaceSpec(.cgroup, path: "/proc/\(first)/ns/cgroup"),
                ]
                spec.mounts.append(
                    MountSpec(
                        destination: "/sys/fs/cgroup", type: "cgroup", source: "cgroup", options: ["ro", "nosuid"]))
            }
            let plain = try fixture.bundle("sleep 1000") { join(&$0) }
            let mapped = try bundle(fixture, "sleep 1000") { join(&$0) }
            for (id, bundle) in [("two", plain), ("three", mapped)] {
                try fixture.must("create", "--bundle", bundle, id)
                try fixture.must("start", id)
                let pid = try fixture.state(id).pid
                for name in ["time", "cgroup"] { #expect(namespace(first, name) == namespace(pid, name), "\(name)") }
                let seen = try fixture.must("exec", id, "cat", "/proc/uptime").text
                #expect((Double(seen.prefix { $0 != " " }) ?? 0) > 1_000_000)
                let mounts = mountEntries(try fixture.must("exec", id, "cat", "/proc/self/mountinfo"))
                let cgroup = mounts["/sys/fs/cgroup/pids"]
                #expect(cgroup?.options.contains("ro") == true)
                // What is mounted anew begins where the joined namespace does, at the first container's group; a new
                // user namespace does not own that, and has the container's own group.
                #expect(cgroup?.root == (id == "two" ? "/" : "/../b3"))
            }
            let path = try fixture.must("exec", "two", "grep", "pids", "/proc/self/cgroup").text
            #expect(path.hasSuffix("/../b2"), "beside the namespace's root: \(path)")
        }
    }
}
