import CKernel
import Glibc
import JSON
import Kernel
import OCISpec
import Testing

/// What a container says of its mounts in `cat /proc/self/mountinfo`, by mount point; of several the last.
func mountEntries(_ output: RuntimeOutput) -> [String: MountEntry] {
    var result: [String: MountEntry] = [:]
    for line in output.lines {
        if let entry = MountInfo.parse(Array(line.utf8)) { result[entry.mountPoint] = entry }
    }
    return result
}

extension KernelSuite {
    /// Options of mounts: remounts, copies, propagation, what holds for submounts, and which of two options counts.
    @Suite(.serialized) struct RuntimeMounts {
        private static let show = "cat /proc/self/mountinfo"

        /// A directory with something mounted in it, which is taken away again.
        private func withSubmount(_ fixture: RuntimeFixture, _ body: (String) throws -> Void) throws {
            let source = "\(fixture.directory)/source"
            try File.makeDirectories("\(source)/sub", mode: 0o755)
            try #require(mount("tmpfs", "\(source)/sub", "tmpfs", 0, nil) == 0)
            defer { umount2("\(source)/sub", Int32(MNT_DETACH)) }
            try body(source)
        }

        // MARK: Remounts

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `a remount of a bind mount has the options of the remount and no others`(
            _ runtime: RuntimeFixture.Runtime
        ) throws {
            let fixture = try RuntimeFixture(runtime)
            let source = "\(fixture.directory)/source"
            try File.makeDirectories(source, mode: 0o755)
            let output = try fixture.run(Self.show) { spec in
                spec.mounts += [
                    MountSpec(destination: "/mnt", type: "bind", source: source, options: ["bind", "nosuid", "nodev"]),
                    MountSpec(
                        destination: "/mnt", type: "bind", source: source, options: ["bind", "remount", "ro", "noexec"]),
                ]
            }
            #expect(output.code == 0, "\(output.stderr)")
            #expect(mountEntries(output)["/mnt"]?.options == ["ro", "noexec", "relatime"])
            #expect(output.lines.filter { $0.contains(" /mnt ") }.count == 1, "nothing is mounted a second time")
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `a remount of a filesystem changes the filesystem's own options too`(
            _ runtime: RuntimeFixture.Runtime
        ) throws {
            let fixture = try RuntimeFixture(runtime)
            let output = try fixture.run(Self.show) { spec in
                spec.mounts += [
                    MountSpec(destination: "/mnt", type: "tmpfs", source: "tmpfs", options: ["size=1m", "noexec"]),
                    MountSpec(
                        destination: "/mnt", type: "tmpfs", source: "tmpfs",
                        options: ["remount", "size=2m", "nosuid", "ro"]),
                    MountSpec(destination: "/proc", type: "proc", source: "proc", options: ["remount", "hidepid=2"]),
                ]
            }
            #expect(output.code == 0, "\(output.stderr)")
            let mounts = mountEntries(output)
            #expect(mounts["/mnt"]?.options == ["ro", "nosuid", "relatime"])
            #expect(mounts["/mnt"]?.superOptions.contains("size=2048k") == true)
            #expect(mounts["/proc"]?.superOptions.contains("hidepid=invisible") == true)
        }

        @Test(arguments: [
            (["ro"], ["remount", "rw"], "0"), (["ro"], ["remount", "nosuid"], "0"), (["ro"], ["remount", "ro"], "1"),
            (["rw"], ["remount", "ro"], "1"), (["ro"], ["bind", "remount", "rw"], "0"),
        ])
        func `whether a tmpfs can be written is what its last entry says`(
            _ first: [String], _ second: [String], _ status: String
        ) throws {
            let fixture = try RuntimeFixture()
            let output = try fixture.run("touch /mnt/x 2>/dev/null; echo $?; touch /other/x 2>/dev/null; echo $?") {
                $0.mounts += [
                    MountSpec(destination: "/mnt", type: "tmpfs", source: "tmpfs", options: first),
                    MountSpec(destination: "/other", type: "tmpfs", source: "tmpfs", options: ["ro"]),
                    MountSpec(destination: "/mnt", type: "tmpfs", source: "tmpfs", options: second),
                ]
            }
            #expect(output.lines == [status, "1"], "\(output)")
        }

        @Test func `a remount does not reach the host's filesystems`() throws {
            let fixture = try RuntimeFixture()
            let output = try fixture.run(Self.show) { spec in
                spec.linux?.namespaces.removeAll { $0.type == .network }
                spec.mounts.removeAll { $0.type == "sysfs" }
                spec.mounts += [
                    MountSpec(destination: "/sys", type: "bind", source: "/sys", options: ["rbind"]),
                    MountSpec(destination: "/sys", type: "sysfs", source: "x", options: ["remount", "ro", "noexec"]),
                ]
            }
            #expect(output.code == 0, "\(output.stderr)")
            let seen = mountEntries(output)["/sys"]
            #expect(seen?.options.contains("ro") == true && seen?.superOptions.contains("rw") == true)
            for entry in try MountInfo.read() where entry.type == "sysfs" {
                #expect(entry.superOptions.contains("rw"))
            }
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `a remount where nothing is mounted is refused`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            for (type, options) in [("tmpfs", ["remount", "size=1m"]), ("bind", ["bind", "remount", "ro"])] {
                let output = try fixture.run("true") { spec in
                    spec.mounts.append(
                        MountSpec(destination: "/tmp", type: type, source: "/tmp", options: options))
                }
                #expect(output.code == 1, "\(output)")
                if runtime == .ours {
                    #expect(output.stderr.contains("mounts[6] (/tmp)"), "\(output.stderr)")
                    #expect(output.stderr.contains("is something mounted there"), "\(output.stderr)")
                    #expect(try fixture.traces() == [])
                }
            }
        }

        // MARK: Copies

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `tmpcopyup begins with what the image has there`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            let script = """
                cd /data; for f in . file link sub sub/inner; do stat -c '%n %F %a %u:%g' $f; done
                cat file; readlink link; touch new 2>/dev/null; echo $?; touch /more/new; echo $?; ls /more
                """
            let bundle = try fixture.bundle(script) { spec in
                spec.process?.capabilities?.effective.append("CAP_DAC_OVERRIDE")
                spec.process?.capabilities?.permitted.append("CAP_DAC_OVERRIDE")
                spec.process?.capabilities?.bounding.append("CAP_DAC_OVERRIDE")
                spec.mounts += [
                    MountSpec(
                        destination: "/data", type: "tmpfs", source: "tmpfs", options: ["tmpcopyup", "nosuid", "ro"]),
                    MountSpec(destination: "/more", type: "tmpfs", source: "x", options: ["tmpcopyup", "mode=700"]),
                ]
            }
            let data = "\(bundle)/rootfs/data"
            try File.makeDirectories("\(data)/sub", mode: 0o755)
            try File.makeDirectories("\(bundle)/rootfs/more/old", mode: 0o755)
            try File.replace("\(data)/file", with: Array("content\n".utf8), mode: 0o644)
            try File.replace("\(data)/sub/inner", with: [], mode: 0o600)
            symlink("/etc/shadow", "\(data)/link")
            for (path, owner, group, mode) in [
                ("\(data)/file", 5, 6, mode_t(0o4755)), ("\(data)/sub", 7, 8, 0o2750), (data, 0, 0, 0o711),
            ] {
                chown(path, uid_t(owner), gid_t(group))
                chmod(path, mode)
            }
            lchown("\(data)/link", 9, 9)
            let output = try fixture.call(["run", "--bundle", bundle, "c1"])
            #expect(
                output.lines == [
                    ". directory 711 0:0", "file regular file 4755 5:6", "link symbolic link 777 9:9",
                    // The setgid bit of a directory is lost by the runc at hand.
                    "sub directory \(runtime == .ours ? "2750" : "750") 7:8", "sub/inner regular empty file 600 0:0",
                    "content", "/etc/shadow", "1", "0", "new", "old",
                ], "\(output)")
            #expect(!File.exists("\(bundle)/rootfs/more/new"), "the image is as it was")
        }

        @Test func `tmpcopyup keeps special files and extended attributes`() throws {
            let fixture = try RuntimeFixture()
            let bundle = try fixture.bundle("sleep 1000") { spec in
                spec.mounts.append(
                    MountSpec(destination: "/data", type: "tmpfs", source: "tmpfs", options: ["tmpcopyup"]))
            }
            let data = "\(bundle)/rootfs/data"
            try File.makeDirectories(data, mode: 0o755)
            mkfifo("\(data)/pipe", 0o620)
            chmod("\(data)/pipe", 0o620)
            try #require(mknod("\(data)/null", S_IFCHR | 0o666, dev_t(ck_makedev(1, 3))) == 0)
            try File.replace("\(data)/ping", with: [1], mode: 0o755)
            // Version 2, CAP_NET_RAW, effective; see capabilities(7).
            let capability: [UInt8] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
            try #require(setxattr("\(data)/ping", "security.capability", capability, capability.count, 0) == 0)
            try fixture.must("create", "--bundle", bundle, "c1")
            try fixture.must("start", "c1")
            let seen = "/proc/\(try fixture.state("c1").pid)/root/data"
            var info = stat()
            #expect(stat("\(seen)/pipe", &info) == 0 && info.st_mode == S_IFIFO | 0o620)
            #expect(stat("\(seen)/null", &info) == 0 && info.st_mode & S_IFMT == S_IFCHR)
            #expect(ck_major(UInt64(info.st_rdev)) == 1 && ck_minor(UInt64(info.st_rdev)) == 3)
            var value = [UInt8](repeating: 0, count: 64)
            let length = getxattr("\(seen)/ping", "security.capability", &value, value.count)
            #expect(Array(value.prefix(max(0, length))) == capability)
        }

        @Test func `tmpcopyup that does not fit, or goes too deep, is refused and leaves nothing`() throws {
            let fixture = try RuntimeFixture()
            for deep in [false, true] {
                let bundle = try fixture.bundle("true") { spec in
                    spec.mounts.append(
                        MountSpec(
                            destination: "/data", type: "tmpfs", source: "tmpfs", options: ["tmpcopyup", "size=64k"]))
                }
                let data = "\(bundle)/rootfs/data"
                let place = deep ? data + String(repeating: "/d", count: 200) : data
                try File.makeDirectories(place, mode: 0o755)
                try File.replace("\(place)/file", with: [UInt8](repeating: 1, count: 1 << 17), mode: 0o644)
                let output = try fixture.call(["run", "--bundle", bundle, "c1"])
                #expect(output.code == 1)
                #expect(output.stderr.contains("mounts[6] (/data): tmpcopyup"), "\(output.stderr)")
                #expect(output.stderr.contains(deep ? "deeper than 128" : "option size"), "\(output.stderr)")
                #expect(try fixture.traces() == [])
            }
        }

        // MARK: Recursive attributes

        @Test(arguments: [
            ("rro", "ro"), ("rnosuid", "nosuid"), ("rnodev", "nodev"), ("rnoexec", "noexec"), ("rnoatime", "noatime"),
            ("rnodiratime", "nodiratime"), ("rnosymfollow", "nosymfollow"),
        ])
        func `recursive attributes hold for submounts, and are taken back`(_ option: String, _ attribute: String) throws
        {
            let fixture = try RuntimeFixture()
            let opposite = option == "rro" ? "rrw" : "r" + option.dropFirst(3)
            try withSubmount(fixture) { source in
                let output = try fixture.run(Self.show) { spec in
                    for (destination, options) in [
                        ("/on", ["rbind", option]), ("/off", ["rbind", option, opposite]), ("/top", ["bind", option]),
                    ] {
                        spec.mounts.append(
                            MountSpec(destination: destination, type: "bind", source: source, options: options))
                    }
                }
                #expect(output.code == 0, "\(output.stderr)")
                let mounts = mountEntries(output)
                for path in ["/on", "/on/sub", "/top"] {
                    #expect(mounts[path]?.options.contains(attribute) == true, "\(path)")
                }
                for path in ["/off", "/off/sub"] {
                    #expect(mounts[path]?.options.contains(attribute) == false, "\(path)")
                }
                #expect(mounts["/top/sub"] == nil, "bind leaves submounts behind")
            }
        }

        // MARK: Propagation

        @Test(arguments: [
            ("shared", "shared", ""), ("rshared", "shared", "shared"), ("slave", "master", "master"),
            ("rslave", "master", "master"), ("private", "", "master"), ("rprivate", "", ""),
            ("unbindable", "unbindable", "master"), ("runbindable", "unbindable", "unbindable"),
        ])
        func `the root has the propagation that was asked for`(
            _ asked: String, _ ofRoot: String, _ ofBind: String
        ) throws {
            let fixture = try RuntimeFixture()
            try #require(mount(fixture.directory, fixture.directory, nil, UInt(MS_BIND), nil) == 0)
            try #require(mount(nil, fixture.directory, nil, UInt(MS_SHARED), nil) == 0)
            defer { umount2(fixture.directory, Int32(MNT_DETACH)) }
            let source = "\(fixture.directory)/source"
            try File.makeDirectories(source, mode: 0o755)
            let output = try fixture.run(Self.show) { spec in
                spec.linux?.rootfsPropagation = asked
                // What a mount asks for itself counts for the mount.
                spec.mounts += [
                    MountSpec(destination: "/mnt", type: "bind", source: source, options: ["bind"]),
                    MountSpec(destination: "/own", type: "bind", source: source, options: ["bind", "private"]),
                ]
            }
            #expect(output.code == 0, "\(output.stderr)")
            let mounts = mountEntries(output)
            func kinds(_ path: String) -> [String] {
                mounts[path]?.propagation.map { String($0.prefix { $0 != ":" }) } ?? ["absent"]
            }
            #expect(kinds("/").joined() == ofRoot)
            if asked != "shared" { #expect(kinds("/mnt").joined() == ofBind) }
            if !["rshared", "runbindable"].contains(asked) { #expect(kinds("/own") == []) }
        }

        // MARK: Which option counts

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `of options that contradict each other the same one counts`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            let source = "\(fixture.directory)/source"
            try File.makeDirectories(source, mode: 0o755)
            let cases: [([String], [String])] = [
                (["ro", "rw"], ["rw", "relatime"]), (["rw", "ro"], ["ro", "relatime"]),
                (["nosuid", "suid", "noexec"], ["rw", "noexec", "relatime"]),
                (["noatime", "relatime"], ["rw", "noatime"]), (["noatime", "atime"], ["rw", "relatime"]),
                (["strictatime", "noatime"], ["rw"]), (["norelatime", "nodev"], ["rw", "nodev", "relatime"]),
                (["sync", "nodev"], ["rw", "nodev", "relatime"]),
            ]
            let output = try fixture.run(Self.show) { spec in
                for (index, (options, _)) in cases.enumerated() {
                    spec.mounts.append(
                        MountSpec(
                            destination: "/mnt/\(index)", type: "tmpfs", source: "x", options: options))
                    spec.mounts.append(
                        MountSpec(
                            destination: "/bind/\(index)", type: "bind", source: source, options: ["bind"] + options))
                }
            }
            #expect(output.code == 0, "\(output.stderr)")
            let mounts = mountEntries(output)
            for (index, (options, expected)) in cases.enumerated() {
                #expect(mounts["/mnt/\(index)"]?.options == expected, "tmpfs \(options)")
                #expect(mounts["/bind/\(index)"]?.options == expected, "bind \(options)")
            }
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `options that only the old interface takes, and destinations without a slash`(
            _ runtime: RuntimeFixture.Runtime
        ) throws {
            let fixture = try RuntimeFixture(runtime)
            let output = try fixture.run(Self.show) { spec in
                spec.mounts += [
                    MountSpec(
                        destination: "/mnt", type: "tmpfs", source: "x",
                        options: ["iversion", "sync", "noexec", "size=1m", "ro", "silent"]),
                    MountSpec(destination: "relative/place", type: "tmpfs", source: "x", options: ["noiversion"]),
                ]
            }
            #expect(output.code == 0, "\(output.stderr)")
            let mounts = mountEntries(output)
            #expect(mounts["/mnt"]?.options == ["ro", "noexec", "relatime"])
            #expect(mounts["/mnt"]?.superOptions.contains("size=1024k") == true)
            #expect(mounts["/mnt"]?.superOptions.contains("sync") == true)
            #expect(mounts["/relative/place"]?.type == "tmpfs")
        }

        // MARK: Bind mounts

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `rbind brings submounts along, bind does not`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            try withSubmount(fixture) { source in
                try File.replace("\(source)/sub/below", with: Array("seen".utf8), mode: 0o644)
                try File.replace("\(source)/one", with: Array("file".utf8), mode: 0o644)
                let script = "cat /all/sub/below /one/file /one/link; ls /top/sub | wc -l"
                let bundle = try fixture.bundle(script) { spec in
                    spec.mounts += [
                        MountSpec(destination: "/all", type: "bind", source: source, options: ["rbind"]),
                        MountSpec(destination: "/top", type: "none", source: source, options: ["bind"]),
                        MountSpec(destination: "/one/file", type: "bind", source: "\(source)/one", options: ["bind"]),
                        MountSpec(destination: "/one/link", source: "\(source)/../link", options: ["bind"]),
                    ]
                }
                symlink("source/sub/below", "\(fixture.directory)/link")
                let output = try fixture.call(["run", "--bundle", bundle, "c1"])
                #expect(output.lines == ["seenfileseen0"], "\(output)")
            }
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `a source in the container's own root is what earlier mounts have put there`(
            _ runtime: RuntimeFixture.Runtime
        ) throws {
            // The runc at hand opens all sources first where there is a user namespace; later ones do not.
            for mapped in runtime == .ours ? [false, true] : [false] {
                let fixture = try RuntimeFixture(runtime)
                let source = "\(fixture.directory)/source"
                try File.makeDirectories(source, mode: 0o755)
                try File.replace("\(source)/file", with: Array("mounted".utf8), mode: 0o644)
                let bundle = try fixture.bundle("cat /again/file") { spec in
                    spec.mounts += [
                        MountSpec(destination: "/first", type: "bind", source: source, options: ["bind"]),
                        MountSpec(destination: "/again", type: "bind", source: "rootfs/first", options: ["bind"]),
                    ]
                    if mapped {
                        spec.linux?.namespaces.append(NamespaceSpec(.user))
                        spec.linux?.uidMappings = [IDMapping(containerID: 0, hostID: 0, size: 1000)]
                        spec.linux?.gidMappings = [IDMapping(containerID: 0, hostID: 0, size: 1000)]
                    }
                }
                let output = try fixture.call(["run", "--bundle", bundle, "c1"])
                #expect(output.text == "mounted", "\(mapped): \(output)")
            }
        }

        @Test func `a link in the image does not lead a source out of the container's root`() throws {
            let fixture = try RuntimeFixture()
            let bundle = try fixture.bundle("cat /again/file") { spec in
                spec.mounts.append(
                    MountSpec(destination: "/again", type: "bind", source: "rootfs/link/place", options: ["bind"]))
            }
            try File.makeDirectories("\(bundle)/rootfs\(fixture.directory)/place", mode: 0o755)
            try File.replace("\(bundle)/rootfs\(fixture.directory)/place/file", with: Array("inside".utf8), mode: 0o644)
            try File.makeDirectories("\(fixture.directory)/place", mode: 0o755)
            try File.replace("\(fixture.directory)/place/file", with: Array("outside".utf8), mode: 0o644)
            symlink(fixture.directory, "\(bundle)/rootfs/link")
            #expect(try fixture.call(["run", "--bundle", bundle, "c1"]).text == "inside")
        }

        @Test func `a bind of an open descriptor is of what it refers to, and of what lies below it`() throws {
            let fixture = try RuntimeFixture()
            let source = "\(fixture.directory)/source"
            try File.makeDirectories("\(source)/sub", mode: 0o755)
            try File.replace("\(source)/sub/file", with: Array("below".utf8), mode: 0o644)
            let opened = try File.open(source, O_RDONLY | O_DIRECTORY)
            let output = try fixture.run("cat /mnt/file") { spec in
                spec.mounts.append(
                    MountSpec(
                        destination: "/mnt", type: "bind", source: "/proc/\(getpid())/fd/\(opened.raw)/sub",
                        options: ["bind"]))
            }
            #expect(output.text == "below", "\(output)")
        }

        // MARK: Cgroups

        @Test(arguments: [false, true])
        func `the cgroup mount has what runc puts there`(namespaced: Bool) throws {
            var seen: [[String: [String]]] = []
            for runtime in RuntimeFixture.Runtime.allCases {
                // There it shows all groups of the host.
                if runtime == .runc && HostCgroups.isUnified && !namespaced { continue }
                let fixture = try RuntimeFixture(runtime)
                let output = try fixture.run(Self.show) { spec in
                    spec.mounts.append(
                        MountSpec(
                            destination: "/sys/fs/cgroup", type: "cgroup", source: "cgroup",
                            options: ["nosuid", "noexec", "nodev", "relatime", "ro"]))
                    if namespaced { spec.linux?.namespaces.append(NamespaceSpec(.cgroup)) }
                }
                #expect(output.code == 0, "\(output.stderr)")
                var mounts: [String: [String]] = [:]
                for (path, entry) in mountEntries(output) where entry.type.hasPrefix("cgroup") {
                    // The fixture's groups have names of their own.
                    let isOwnGroup = entry.root.hasSuffix("/b1")
                    mounts[path] = [entry.type, isOwnGroup ? "own" : entry.root] + entry.options
                    #expect(isOwnGroup != namespaced, "\(path): \(entry.root)")
                }
                // The v2 hierarchy beside those of v1 is what we have and the runc at hand has not.
                mounts["/sys/fs/cgroup/unified"] = nil
                seen.append(mounts)
            }
            #expect(seen.first?.isEmpty == false)
            #expect(seen.first == seen.last)
        }
    }
}
