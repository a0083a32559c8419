import CKernel
import Glibc
import JSON
import Kernel
import OCISpec
import Testing

extension KernelSuite {
    /// The root filesystem, its mounts and devices.
    @Suite(.serialized) struct RuntimeFilesystem {
        /// Mount point to options as the container sees them.
        private func mounts(_ output: RuntimeOutput) -> [String: [Substring]] {
            var result: [String: [Substring]] = [:]
            for line in output.lines {
                let fields = line.split(separator: " ")
                guard fields.count == 6, fields[1] == "on" else { continue }
                result[String(fields[2])] = fields[5].dropFirst().dropLast().split(separator: ",") + [fields[4]]
            }
            return result
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `mounts have the options that were asked for`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            let source = "\(fixture.directory)/source"
            try File.makeDirectories(source, mode: 0o755)
            try File.replace("\(source)/file", with: Array("content".utf8), mode: 0o644)
            let output = try fixture.run("mount; cat /mnt/ro/file /mnt/one; stat -c %a /mnt/tmpfs /run/new/place") {
                spec in
                spec.mounts += [
                    MountSpec(
                        destination: "/mnt/ro", type: "bind", source: source,
                        options: ["rbind", "ro", "nosuid", "nodev", "noexec"]),
                    MountSpec(destination: "/mnt/rw", type: "bind", source: source, options: ["bind", "noatime"]),
                    MountSpec(destination: "/mnt/one", type: "bind", source: "\(source)/file", options: ["bind"]),
                    MountSpec(
                        destination: "/mnt/tmpfs", type: "tmpfs", source: "tmpfs",
                        options: ["size=1m", "mode=711", "noexec", "ro"]),
                    MountSpec(destination: "/run/new/place", type: "tmpfs", source: "tmpfs"),
                ]
            }
            #expect(output.code == 0, "\(output.stderr)")
            let mounts = mounts(output)
            #expect(mounts["/mnt/ro"]?.starts(with: ["ro", "nosuid", "nodev", "noexec"]) == true)
            #expect(mounts["/mnt/rw"]?.contains("rw") == true && mounts["/mnt/rw"]?.contains("noatime") == true)
            #expect(mounts["/mnt/tmpfs"]?.contains("ro") == true)
            #expect(mounts["/mnt/tmpfs"]?.contains("size=1024k") == true)
            #expect(mounts["/mnt/tmpfs"]?.contains("noexec") == true)
            #expect(mounts["/dev/mqueue"]?.last == "mqueue")
            #expect(mounts["/sys"]?.contains("ro") == true)
            #expect(output.stdout.contains("contentcontent711\n1777"), "\(output.stdout)")
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `a read-only bind mount leaves its submounts alone unless asked`(_ runtime: RuntimeFixture.Runtime) throws
        {
            // Recursive options are younger than the runc at hand.
            let recursive = runtime == .ours
            let fixture = try RuntimeFixture(runtime)
            let source = "\(fixture.directory)/source"
            try File.makeDirectories("\(source)/sub", mode: 0o755)
            try #require(mount("tmpfs", "\(source)/sub", "tmpfs", 0, nil) == 0)
            defer { umount("\(source)/sub") }
            let script = "touch /a/x; echo $?; touch /a/sub/x; echo $?; touch /b/sub/y; echo $?; rm -f /a/sub/x"
            let output = try fixture.run(script) { spec in
                spec.mounts += [
                    MountSpec(destination: "/a", type: "bind", source: source, options: ["rbind", "ro"]),
                    MountSpec(
                        destination: "/b", type: "bind", source: source, options: ["rbind", recursive ? "rro" : "ro"]),
                ]
            }
            #expect(output.lines == ["1", "0", recursive ? "1" : "0"], "\(output)")
            #expect(!recursive || !File.exists("\(source)/sub/y"))
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `the device nodes of a container`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            let script = """
                for d in null zero full random urandom tty extra; do stat -c '%n %a %F %t:%T %u:%g' /dev/$d; done
                for l in fd stdin stdout stderr ptmx; do readlink /dev/$l; done
                head -c 4 /dev/zero | wc -c; echo x > /dev/null && echo written; stat -c %F /dev/pipe
                mknod /dev/sda b 8 0 2>/dev/null; dd if=/dev/kmsg of=/dev/null count=1 2>&1 | head -1
                """
            let output = try fixture.run(script) { spec in
                spec.linux?.devices = [
                    DeviceSpec(
                        path: "/dev/extra", type: .character, major: 1, minor: 11, fileMode: 0o600, uid: 7, gid: 8),
                    DeviceSpec(path: "/dev/pipe", type: .fifo, major: 0, minor: 0),
                    DeviceSpec(path: "/dev/kmsg", type: .character, major: 1, minor: 11, fileMode: 0o666),
                ]
                var resources = ResourcesSpec()
                resources.devices = [DeviceRuleSpec(allow: false, access: "rwm")]
                spec.linux?.resources = resources
            }
            #expect(
                output.lines == [
                    "/dev/null 666 character special file 1:3 0:0", "/dev/zero 666 character special file 1:5 0:0",
                    "/dev/full 666 character special file 1:7 0:0", "/dev/random 666 character special file 1:8 0:0",
                    "/dev/urandom 666 character special file 1:9 0:0", "/dev/tty 666 character special file 5:0 0:0",
                    "/dev/extra 600 character special file 1:b 7:8", "/proc/self/fd", "/proc/self/fd/0",
                    "/proc/self/fd/1", "/proc/self/fd/2", "pts/ptmx", "4", "written", "fifo",
                    "dd: can't open '/dev/kmsg': Operation not permitted",
                ], "\(output)")
        }

        /// What is in a /dev that is bound is somebody else's too: nothing is made there.
        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `a bind mount at dev stays as it is`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            let source = "\(fixture.directory)/dev"
            try File.makeDirectories(source, mode: 0o755)
            for (name, minor) in [("null", UInt32(3)), ("wrong", 5)] {
                try systemCall("mknod", name) {
                    mknod("\(source)/\(name)", S_IFCHR | 0o666, dev_t(ck_makedev(1, minor)))
                }
            }
            let output = try fixture.run("echo /dev/*; stat -c %F /opt/zero 2>/dev/null; true") { spec in
                spec.mounts.removeAll { $0.destination.hasPrefix("/dev") }
                spec.mounts.append(MountSpec(destination: "/dev", type: "bind", source: source, options: ["bind"]))
                spec.linux?.devices = [
                    DeviceSpec(path: "/dev/null", type: .character, major: 1, minor: 3),
                    DeviceSpec(path: "/dev/wrong", type: .character, major: 1, minor: 7),
                    DeviceSpec(path: "/dev/missing", type: .character, major: 1, minor: 9),
                    DeviceSpec(path: "/opt/zero", type: .character, major: 1, minor: 5),
                ]
            }
            #expect(output.code == 0, "\(output)")
            // Devices elsewhere are not made either: a link of the image may lead from there into /dev.
            #expect(output.lines == ["/dev/null /dev/wrong"], "\(output)")
            #expect(try Set(File.list(source)) == ["null", "wrong"])
            guard runtime == .ours else { return }
            #expect(output.stderr.contains("linux.devices"), "\(output.stderr)")
            #expect(output.stderr.contains(": /dev/wrong, /dev/missing, /opt/zero\n"), "\(output.stderr)")
        }

        @Test func `a remount of dev is no bind mount of somebody else's`() throws {
            let fixture = try RuntimeFixture()
            let output = try fixture.run("stat -c %t:%T /dev/null; touch /dev/x 2>/dev/null; echo $?") { spec in
                spec.mounts.append(
                    MountSpec(destination: "/dev", type: "bind", source: "/dev", options: ["bind", "remount", "ro"]))
            }
            #expect(output.lines == ["1:3", "1"], "\(output)")
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `an unbuffered device is a character device`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            let output = try fixture.run("stat -c '%F %t:%T' /dev/extra") { spec in
                spec.linux?.devices = [DeviceSpec(path: "/dev/extra", type: .unbuffered, major: 1, minor: 11)]
            }
            #expect(output.text == "character special file 1:b", "\(output)")
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `masked paths are empty and read-only paths cannot be written`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            let script = """
                wc -c < /proc/keys; wc -c < /etc/secret; ls /etc/hidden | wc -l; touch /etc/hidden/x; echo $?
                echo 1 > /proc/sys/kernel/domainname; echo $?; echo h > /proc/sysrq-trigger; echo $?
                touch /etc/still; echo $?; cat /etc/open/file
                """
            let bundle = try fixture.bundle(script) { spec in
                spec.linux?.maskedPaths += ["/etc/secret", "/etc/hidden"]
                spec.linux?.readonlyPaths += ["/etc/open"]
            }
            for name in ["hidden", "open"] {
                try File.makeDirectories("\(bundle)/rootfs/etc/\(name)", mode: 0o755)
                try File.replace("\(bundle)/rootfs/etc/\(name)/file", with: Array("seen".utf8), mode: 0o644)
            }
            try File.replace("\(bundle)/rootfs/etc/secret", with: Array("secret".utf8), mode: 0o644)
            let output = try fixture.call(["run", "--bundle", bundle, "c1"])
            #expect(output.lines == ["0", "0", "0", "1", "1", "1", "0", "seen"], "\(output)")
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `a read-only root still has its writable mounts`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            let output = try fixture.run("touch /x; echo $?; touch /dev/shm/x; echo $?; touch /dev/x; echo $?") {
                spec in
                spec.root?.readonly = true
                spec.mounts[1].options.append("ro")
            }
            #expect(output.lines == ["1", "0", "1"], "\(output)")
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `links in an image are followed inside the root`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            let source = "\(fixture.directory)/source"
            try File.makeDirectories(source, mode: 0o755)
            try File.replace("\(source)/file", with: Array("content".utf8), mode: 0o644)
            let bundle = try fixture.bundle("cat /run/data/file /srv/deep/er/file; readlink /var-run") { spec in
                spec.mounts += [
                    MountSpec(destination: "/var-run/data", type: "bind", source: source, options: ["bind"]),
                    MountSpec(destination: "/up/deep/er", type: "bind", source: source, options: ["bind"]),
                ]
            }
            symlink("/run", "\(bundle)/rootfs/var-run")
            symlink("../../../../srv", "\(bundle)/rootfs/up")
            let output = try fixture.call(["run", "--bundle", bundle, "c1"])
            #expect(output.text == "contentcontent/run", "\(output)")
            #expect(!File.exists("/run/data") && !File.exists("/srv/deep"), "nothing is made on the host")
        }

        @Test(arguments: [("shared", true), ("slave", true), ("private", false)])
        func `what is mounted on the host later arrives as the propagation says`(
            propagation: String, arrives: Bool
        ) throws {
            let fixture = try RuntimeFixture()
            let source = "\(fixture.directory)/source"
            try File.makeDirectories("\(source)/sub", mode: 0o755)
            try #require(mount(source, source, nil, UInt(MS_BIND), nil) == 0)
            try #require(mount(nil, source, nil, UInt(MS_SHARED), nil) == 0)
            defer { umount2(source, Int32(MNT_DETACH)) }
            try fixture.start("c1") { spec in
                spec.linux?.rootfsPropagation = propagation == "shared" ? "shared" : nil
                spec.mounts.append(
                    MountSpec(destination: "/mnt", type: "bind", source: source, options: ["bind", propagation]))
            }
            try #require(mount("tmpfs", "\(source)/sub", "tmpfs", 0, nil) == 0)
            try File.replace("\(source)/sub/late", with: [], mode: 0o644)
            #expect((try fixture.call(["exec", "c1", "ls", "/mnt/sub/late"]).code == 0) == arrives)
        }

        @Test func `a bind of what another process holds open is of that, whatever its path leads to by now`() throws {
            let fixture = try RuntimeFixture()
            let source = "\(fixture.directory)/source"
            for name in [source, "\(fixture.directory)/other"] {
                try File.makeDirectories("\(name)/sub", mode: 0o755)
            }
            try File.replace("\(source)/mine", with: [], mode: 0o644)
            try #require(mount(source, source, nil, UInt(MS_BIND), nil) == 0)
            try #require(mount(nil, source, nil, UInt(MS_SHARED), nil) == 0)
            let opened = try File.open(source, O_RDONLY | O_DIRECTORY)
            try Mounts.attach(try Mounts.clone("\(fixture.directory)/other", recursive: false), at: source)
            defer { try? Mounts.detachAll(below: [source]) }
            let path = "/proc/\(getpid())/fd/\(opened.raw)"
            try fixture.start("c1") { spec in
                spec.linux?.rootfsPropagation = "rslave"
                spec.mounts.append(
                    MountSpec(destination: "/mnt", type: "bind", source: path, options: ["bind", "rslave"]))
            }
            #expect(try fixture.call(["exec", "c1", "ls", "/mnt"]).text == "mine\nsub")
        }

        @Test func `a missing working directory is made`() throws {
            let fixture = try RuntimeFixture()
            #expect(try fixture.run("pwd") { $0.process?.cwd = "/new/place" }.text == "/new/place")
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `the container sees its own part of the cgroups`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            let cgroup = MountSpec(
                destination: "/sys/fs/cgroup", type: "cgroup", source: "cgroup",
                options: ["nosuid", "noexec", "nodev", "ro"])
            let directory = HostCgroups.isUnified ? "/sys/fs/cgroup" : "/sys/fs/cgroup/pids"
            let script = "cat \(directory)/pids.max; touch \(directory)/x 2>/dev/null; echo $?"
            for namespaced in [false, true] {
                // Without the namespace it mounts the host's whole cgroup2.
                if runtime == .runc && HostCgroups.isUnified && !namespaced { continue }
                let output = try fixture.run(script) { spec in
                    spec.mounts.append(cgroup)
                    if namespaced { spec.linux?.namespaces.append(NamespaceSpec(.cgroup)) }
                    var resources = ResourcesSpec()
                    resources.pidsLimit = 77
                    spec.linux?.resources = resources
                }
                #expect(output.lines == ["77", "1"], "\(namespaced): \(output)")
            }
        }

        @Test func `mounts that would hide procfs are refused`() throws {
            let fixture = try RuntimeFixture()
            let source = "\(fixture.directory)/source"
            try File.makeDirectories(source, mode: 0o755)
            try File.replace("\(source)/file", with: [], mode: 0o644)
            for (destination, type) in [
                ("/proc", "bind"), ("/proc/self", "bind"), ("/proc/self/attr", "bind"), ("/proc/sys", "bind"),
                ("/proc", "tmpfs"), ("/proc/acpi", "tmpfs"), ("/tmp/../proc/self", "bind"), ("/link/self", "bind"),
                ("/link/acpi", "tmpfs"), ("/link", "bind"),
            ] {
                let bundle = try fixture.bundle { spec in
                    spec.mounts.append(
                        MountSpec(
                            destination: destination, type: type, source: source,
                            options: type == "bind" ? ["bind"] : []))
                }
                symlink("/proc", "\(bundle)/rootfs/link")
                let output = try fixture.call(["run", "--bundle", bundle, "c1"])
                #expect(output.code == 1)
                #expect(output.stderr.contains("cannot be mounted"), "\(destination): \(output.stderr)")
            }
            let allowed = try fixture.run("wc -c < /proc/cpuinfo") { spec in
                spec.mounts.append(
                    MountSpec(destination: "/proc/cpuinfo", type: "bind", source: "\(source)/file", options: ["bind"]))
            }
            #expect(allowed.text == "0", "\(allowed)")
            #expect(try fixture.traces() == [])
        }
    }
}
