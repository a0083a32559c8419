import Glibc
import JSON
import Kernel
import OCISpec
import Testing

extension KernelSuite {
    /// A container that shares a directory with the one that is started exchanges what is in it as fast as it can. Nothing
    /// may come to lie outside the container, nor may the runtime be led to another file than it means.
    ///
    /// Debian's runc 1.1.5 is the control: how often each race was won there is in docs/security.md. What of it does not
    /// depend on chance is tested here too, so that it is known that these tests can fail.
    @Suite(.serialized, .enabled(if: access("/usr/bin/python3", X_OK) == 0, "needs python3, for renameat2"))
    struct RuntimeRaces {
        // MARK: Where mounts go

        @Test func `a mount point that does not exist is made inside only (CVE-2021-30465, CVE-2024-45310)`() throws {
            let fixture = try RuntimeFixture()
            let canary = "\(fixture.directory)/canary"
            try File.makeDirectories(canary)
            let volume = try Self.volume(fixture, directory: "dir", link: "/")
            let before = try HostTraces(fixture)
            try Self.whileExchanging("\(volume)/dir", "\(volume)/link") {
                for round in 0..<RuntimeFixture.rounds(2000) {
                    let output = try fixture.run("true") { spec in
                        spec.mounts += [
                            MountSpec(destination: "/vol", type: "bind", source: volume, options: ["bind"]),
                            MountSpec(
                                destination: "/vol/dir\(canary)/made\(round)", type: "tmpfs", source: "tmpfs"),
                        ]
                    }
                    #expect(output.code == 0 || output.stderr.contains("mounts[7]"), "\(output)")
                }
            }
            #expect(try File.list(canary) == [], "nothing was made on the host")
            let changes = try HostTraces.changes(fixture, since: before)
            #expect(changes == [])
        }

        @Test func `a file that is bound at a moving place lands inside, or not at all (CVE-2021-30465)`() throws {
            let fixture = try RuntimeFixture()
            let canary = "\(fixture.directory)/canary"
            try File.makeDirectories(canary)
            try File.replace("\(canary)/file", with: Array("host".utf8))
            let volume = try Self.volume(fixture, directory: "dir", link: canary)
            try File.replace("\(volume)/dir/file", with: Array("inside".utf8))
            try File.replace("\(fixture.directory)/source", with: Array("bound".utf8))
            let before = try HostTraces(fixture)
            try Self.whileExchanging("\(volume)/dir", "\(volume)/link") {
                for _ in 0..<RuntimeFixture.rounds(1000) {
                    _ = try fixture.run("echo owned > /vol/dir/file; true") { spec in
                        spec.mounts += [
                            MountSpec(destination: "/vol", type: "bind", source: volume, options: ["bind"]),
                            MountSpec(
                                destination: "/vol/dir/file", type: "bind", source: "\(fixture.directory)/source",
                                options: ["bind"]),
                        ]
                    }
                }
            }
            #expect(try File.text("\(canary)/file") == "host")
            let changes = try HostTraces.changes(fixture, since: before)
            #expect(changes == [])
        }

        // MARK: What hides files

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `what hides a file is no file of the image (CVE-2025-31133)`(_ runtime: RuntimeFixture.Runtime) throws {
            if runtime == .runc, try !Self.runcIsOld() { return }
            let fixture = try RuntimeFixture(runtime)
            let bundle = try fixture.bundle("cat /proc/keys") { spec in
                spec.mounts.removeAll { $0.destination.hasPrefix("/dev") }
                spec.mounts.append(
                    MountSpec(destination: "/dev", type: "bind", source: "image-dev", options: ["bind"]))
            }
            try File.makeDirectories("\(bundle)/image-dev", mode: 0o755)
            try File.replace("\(bundle)/rootfs/shown", with: Array("shown".utf8), mode: 0o644)
            try systemCall("symlink") { symlink("/shown", "\(bundle)/image-dev/null") }
            let output = try fixture.call(["run", "--bundle", bundle, "c1"])
            if runtime == .ours {
                #expect(output.code == 1 && output.stdout.isEmpty, "\(output)")
                #expect(output.stderr.contains("is not the null device"), "\(output.stderr)")
            } else {
                #expect(output.text == "shown", "a runtime without the mend shows it: \(output)")
            }
        }

        @Test func `a null device that comes and goes hides files or fails (CVE-2025-31133)`() throws {
            let fixture = try RuntimeFixture()
            let devices = "\(fixture.directory)/image-dev"
            try File.makeDirectories(devices, mode: 0o755)
            try systemCall("mknod") { mknod("\(devices)/null", S_IFCHR | 0o666, 1 << 8 | 3) }
            try systemCall("symlink") { symlink("/shown", "\(devices)/other") }
            var hidden = 0
            try Self.whileExchanging("\(devices)/null", "\(devices)/other") {
                for _ in 0..<RuntimeFixture.rounds(1000) {
                    let bundle = try fixture.bundle("cat /proc/keys") { spec in
                        spec.mounts.removeAll { $0.destination.hasPrefix("/dev") }
                        spec.mounts.append(
                            MountSpec(destination: "/dev", type: "bind", source: devices, options: ["bind"]))
                    }
                    try File.replace("\(bundle)/rootfs/shown", with: Array("shown".utf8), mode: 0o644)
                    let output = try fixture.call(["run", "--bundle", bundle, "c1"])
                    #expect(output.stdout.isEmpty, "\(output)")
                    if output.code == 0 { hidden += 1 }
                    #expect(output.code == 0 || output.stderr.contains("/dev/null"), "\(output)")
                    _ = try Tree.remove(bundle)
                }
            }
            #expect(hidden > 0, "the device is there half of the time")
        }

        // MARK: What the runtime writes to

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `a mount cannot stand in for what is written in /proc (CVE-2025-52881)`(
            _ runtime: RuntimeFixture.Runtime
        ) throws {
            if runtime == .runc, try !Self.runcIsOld() { return }
            let fixture = try RuntimeFixture(runtime)
            let volume = try Self.volume(fixture, directory: "dir", link: "/proc/sys/net/ipv4")
            let script =
                "cat /proc/sys/net/ipv4/ip_default_ttl; echo; grep -q 'tmpfs /proc/sys/net' /proc/mounts && echo covered"
            let output = try fixture.run(script) { spec in
                spec.mounts += [
                    MountSpec(destination: "/vol", type: "bind", source: volume, options: ["bind"]),
                    MountSpec(destination: "/vol/link", type: "tmpfs", source: "tmpfs"),
                ]
                spec.linux?.sysctl = ["net.ipv4.ip_default_ttl": "33"]
            }
            if runtime == .ours {
                #expect(output.code == 1 && output.stdout.isEmpty, "\(output)")
                #expect(output.stderr.contains("inside /proc"), "\(output.stderr)")
            } else {
                #expect(
                    output.lines == ["33", "covered"], "a runtime without the mend writes into the tmpfs: \(output)")
            }
        }

        @Test func `a mount that is raced into /proc does not catch a sysctl (CVE-2025-52881)`() throws {
            let fixture = try RuntimeFixture()
            let volume = try Self.volume(fixture, directory: "dir", link: "/proc/sys/net/ipv4")
            let fake = try Self.fakeSysctl(fixture)
            let before = try HostTraces(fixture)
            var ran = 0
            try Self.whileExchanging("\(volume)/dir", "\(volume)/link") {
                for _ in 0..<RuntimeFixture.rounds(1000) {
                    let output = try fixture.run(
                        "cat /proc/sys/net/ipv4/ip_default_ttl; grep -c /proc/sys/net /proc/mounts"
                    ) { Self.shareSysctls(&$0, volume: volume, at: "/vol/dir", fake: fake) }
                    if output.lines.isEmpty {
                        #expect(output.code == 1 && output.stderr.contains("mounts[7]"), "\(output)")
                    } else {
                        ran += 1
                        #expect(output.lines == ["33", "0"], "\(output)")
                    }
                    #expect(try File.text("\(fake)/ip_default_ttl").isEmpty)
                }
            }
            #expect(ran > 0, "the directory is there half of the time")
            let changes = try HostTraces.changes(fixture, since: before)
            #expect(changes == [])
        }

        // MARK: The terminal

        @Test func `a terminal is no file that /dev/pts or /dev/console lead to (CVE-2025-52565)`() throws {
            let fixture = try RuntimeFixture()
            let canary = "\(fixture.directory)/canary"
            try File.replace(canary, with: Array("host".utf8))
            let devices = "\(fixture.directory)/image-dev"
            try File.makeDirectories("\(devices)/pts", mode: 0o755)
            try systemCall("symlink") { symlink("/shown", "\(devices)/console") }
            try File.replace("\(devices)/other", with: [])
            let socket = try UnixSocket.listen("\(fixture.directory)/console.sock")
            defer { _ = socket.raw }
            try Self.whileExchanging("\(devices)/console", "\(devices)/other") {
                for round in 0..<RuntimeFixture.rounds(400) {
                    let bundle = try fixture.bundle("echo owned > /dev/console; true") { spec in
                        spec.process?.terminal = true
                        spec.mounts.removeAll { $0.destination == "/dev" || $0.destination == "/dev/shm" }
                        spec.mounts.removeAll { $0.destination == "/dev/mqueue" }
                        spec.mounts.insert(
                            MountSpec(destination: "/dev", type: "bind", source: devices, options: ["bind"]), at: 1)
                        spec.mounts.append(
                            MountSpec(destination: "/shown", type: "bind", source: canary, options: ["bind", "ro"]))
                    }
                    let id = "t\(round)"
                    let output = try fixture.call([
                        "create", "--bundle", bundle, "--console-socket", "\(fixture.directory)/console.sock", id,
                    ])
                    if output.code == 0 { try fixture.must("delete", "--force", id) }
                    fixture.reap()
                }
            }
            #expect(try File.text(canary) == "host")
            #expect(try fixture.traces() == [])
        }

        // MARK: The pieces

        /// A directory that both containers have, with a directory and a link in it.
        private static func volume(_ fixture: RuntimeFixture, directory: String, link: String) throws -> String {
            let volume = "\(fixture.directory)/volume"
            try File.makeDirectories("\(volume)/\(directory)", mode: 0o777)
            try systemCall("symlink", volume) { symlink(link, "\(volume)/link") }
            return volume
        }

        /// What the attacker would like to have the runtime write to.
        private static func fakeSysctl(_ fixture: RuntimeFixture) throws -> String {
            let fake = "\(fixture.directory)/fake"
            try File.makeDirectories(fake, mode: 0o755)
            try File.replace("\(fake)/ip_default_ttl", with: [], mode: 0o666)
            return fake
        }

        private static func shareSysctls(_ spec: inout ContainerSpec, volume: String, at place: String, fake: String) {
            spec.mounts += [
                MountSpec(destination: "/vol", type: "bind", source: volume, options: ["bind"]),
                MountSpec(destination: place, type: "bind", source: fake, options: ["bind"]),
            ]
            spec.linux?.sysctl = ["net.ipv4.ip_default_ttl": "33"]
        }

        /// Whether runc is of the line without the mends of 2025.
        private static func runcIsOld() throws -> Bool {
            let result = try Program(RuntimeFixture.Runtime.runc.path(), ["--version"]).run()
            return String(decoding: result.output, as: UTF8.self).contains("runc version 1.1.")
        }

        /// Exchanges two names, some hundred thousand times a second, for as long as `body` takes.
        private static func whileExchanging(_ one: String, _ other: String, _ body: () throws -> Void) throws {
            let program = """
                import ctypes, sys
                libc = ctypes.CDLL(None)
                one, other = (name.encode() for name in sys.argv[1:])
                while True: libc.renameat2(-100, one, -100, other, 2)
                """
            let attacker = try Spawn(
                "/usr/bin/python3", ["python3", "-c", program, one, other], environment: ["PATH=/usr/bin:/bin"]
            ).start()
            defer {
                try? attacker.signal(SIGKILL)
                _ = try? attacker.wait()
            }
            // It has begun when a name is what it was not.
            var first = stat()
            lstat(one, &first)
            for _ in 0..<1000 {
                var now = stat()
                if lstat(one, &now) == 0, now.st_ino != first.st_ino { break }
                usleep(10_000)
            }
            try body()
        }
    }
}
