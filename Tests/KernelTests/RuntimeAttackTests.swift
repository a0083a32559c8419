import CKernel
import Glibc
import JSON
import Kernel
import OCISpec
import Testing

extension KernelSuite {
    /// Images and containers that try to get out; each test names the hole that other runtimes had.
    @Suite(.serialized) struct RuntimeAttacks {
        private func canary(_ fixture: RuntimeFixture) throws -> String {
            let path = "\(fixture.directory)/canary"
            try File.makeDirectories(path, mode: 0o777)
            return path
        }

        private func checksum(_ path: String) throws -> UInt64 {
            var hash: UInt64 = 14_695_981_039_346_656_037
            for byte in try File.read(path, limit: 512 << 20) { hash = (hash ^ UInt64(byte)) &* 1_099_511_628_211 }
            return hash
        }

        /// The file that a path leads to.
        private func identity(_ path: String) throws -> [UInt64] {
            var info = stat()
            try systemCall("stat", path) { stat(path, &info) }
            return [UInt64(info.st_dev), UInt64(info.st_ino)]
        }

        /// Its late half, in Swift, would hide that the early one is lost.
        @Test func `the program begins with its protection`() throws {
            let program = try File.read(try RuntimeFixture.program("martlet-runtime"), limit: 512 << 20)
            func number(_ offset: UInt64, _ size: Int = 8) -> UInt64 {
                program[Int(offset)..<Int(offset) + size].reversed().reduce(0) { $0 << 8 | UInt64($1) }
            }
            // elf(5): e_entry, e_shoff and e_shnum; sh_type, sh_offset, sh_size and sh_link; st_name and st_value.
            let sections = (0..<number(60, 2)).map { number(40) + $0 * 64 }
            let symbols = try #require(sections.first { number($0 + 4, 4) == 2 }, "it is stripped")
            let names = number(sections[Int(number(symbols + 40, 4))] + 24)
            let entries = (0..<number(symbols + 32) / 24).map { number(symbols + 24) + $0 * 24 }
                .filter { number($0 + 8) == number(24) }
            let beginning = entries.map { entry in
                String(decoding: program[Int(names + number(entry, 4))...].prefix { $0 != 0 }, as: UTF8.self)
            }
            #expect(beginning.contains("martlet_runtime_start"), "\(beginning)")
        }

        @Test func `nothing that the runtime runs from can be written, and the rest of it is as it was started`() throws
        {
            let fixture = try RuntimeFixture()
            let arguments = ["run", "--bundle", try fixture.bundle("sleep 60"), "c1"]
            let runtime = try fixture.spawn(arguments)
            #expect(try fixture.eventually { try fixture.call(["state", "c1"]).stdout.contains("\"running\"") })
            let place = "/proc/\(runtime.pid)"
            let program = try identity("\(place)/exe")
            let mappings = try File.list("\(place)/map_files").map { "\(place)/map_files/\($0)" }
            let files = try mappings.filter { try identity($0) == program } + ["\(place)/exe"]
            #expect(files.count > 3)
            let kept = try files.map { SharedFD(try File.open($0, O_RDONLY)) }
            // proc_pid_stat(5): the kernel still knows where the arguments and the environment are.
            let command = try File.read("\(place)/cmdline", limit: 1 << 16).split(separator: 0)
            #expect(command.suffix(4).map { String(decoding: $0, as: UTF8.self) } == arguments)
            let environment = try File.read("\(place)/environ", limit: 1 << 20).split(separator: 0)
            #expect(environment.contains { $0.starts(with: Array("PATH=".utf8)) })
            // While a program is executed nobody may write to it anyway.
            try runtime.signal(SIGKILL)
            _ = try runtime.wait()
            for file in kept { expectReadOnly(file.raw) }
        }

        @Test func `what a shim starts the runtime from cannot be written, nor made writable`() throws {
            let file = try Mounts.cloneReadOnly(try RuntimeFixture.program("martlet-runtime"))
            expectReadOnly(file.raw)
        }

        /// A file can neither be written nor made writable, by whoever may mount.
        private func expectReadOnly(_ file: Int32) {
            let refusal = #expect(throws: KernelError.self) {
                try Mounts.change(file, clear: .readOnly, subject: "the program")
            }
            #expect(refusal?.errno == EINVAL)
            let opened = open("/proc/self/fd/\(file)", O_WRONLY)
            let number = errno
            #expect(opened < 0 && number == EROFS)
        }

        @Test func `the runtime's own program cannot be written (CVE-2019-5736)`() throws {
            let fixture = try RuntimeFixture()
            let program = try RuntimeFixture.program("martlet-runtime")
            let before = try checksum(program)
            // The entry point is the runtime itself: /proc/self/exe is what the container's process runs from.
            let itself = try fixture.bundle { $0.process?.args = ["/proc/self/exe", "--version"] }
            #expect(try fixture.call(["run", "--bundle", itself, "c0"]).stdout.contains("martlet-runtime version"))
            // The same through an interpreter line, and while exec enters the container.
            let script = """
                #!/proc/self/exe
                """
            try fixture.start("c1") { spec in
                spec.process?.capabilities?.bounding.append("CAP_SYS_PTRACE")
                spec.process?.capabilities?.effective.append("CAP_SYS_PTRACE")
                spec.process?.capabilities?.permitted.append("CAP_SYS_PTRACE")
            }
            let bundle = try fixture.state("c1").bundle
            try File.replace("\(bundle)/rootfs/bin/evil", with: Array(script.utf8), mode: 0o755)
            let loop = """
                while :; do for p in /proc/[0-9]*; do
                    case $(readlink $p/exe) in
                    */busybox|"") ;;
                    *) echo owned 2>/dev/null > $p/exe && echo wrote > /tmp/won;;
                    esac
                done; done
                """
            try fixture.must("exec", "--detach", "c1", "sh", "-c", loop)
            for _ in 0..<RuntimeFixture.rounds(250) {
                _ = try fixture.call(["exec", "c1", "/bin/evil"])
                _ = try fixture.call(["exec", "c1", "true"])
            }
            #expect(!File.exists("\(bundle)/rootfs/tmp/won"))
            #expect(try checksum(program) == before)
        }

        @Test func `procfs and sysfs go on real directories only (CVE-2019-19921, CVE-2023-27561)`() throws {
            let fixture = try RuntimeFixture()
            for name in ["proc", "sys"] {
                let bundle = try fixture.bundle()
                rmdir("\(bundle)/rootfs/\(name)")
                try File.makeDirectories("\(bundle)/rootfs/elsewhere", mode: 0o755)
                symlink("/elsewhere", "\(bundle)/rootfs/\(name)")
                let output = try fixture.call(["run", "--bundle", bundle, "c1"])
                #expect(output.code == 1)
                #expect(output.stderr.contains("must be mounted on ordinary directory"), "\(output.stderr)")
            }
            #expect(try fixture.traces() == [])
        }

        @Test func `a working directory outside the container is refused (CVE-2024-21626)`() throws {
            let fixture = try RuntimeFixture()
            try fixture.start("c1")
            for number in 3..<40 {
                let directory = "/proc/self/fd/\(number)"
                let run = try fixture.run("pwd; ls") { $0.process?.cwd = directory }
                #expect(run.code == 1 && run.stdout.isEmpty, "\(directory): \(run)")
                let exec = try fixture.call(["exec", "--cwd", directory, "c1", "pwd"])
                #expect(exec.code == 255 && exec.stdout.isEmpty, "\(directory): \(exec)")
            }
            let program = try fixture.run("pwd") { $0.process?.args = ["/proc/self/fd/7/bin/sh"] }
            #expect(program.code == 1)
        }

        @Test func `dev in the image may be a link, nothing appears on the host (CVE-2026-41579)`() throws {
            let fixture = try RuntimeFixture()
            let canary = try canary(fixture)
            for target in [canary, "../../canary"] {
                let bundle = try fixture.bundle { spec in
                    // Without a tmpfs the nodes go where dev leads.
                    spec.mounts.removeAll { $0.destination.hasPrefix("/dev") }
                }
                rmdir("\(bundle)/rootfs/dev")
                symlink(target, "\(bundle)/rootfs/dev")
                _ = try fixture.call(["run", "--bundle", bundle, "c1"])
                #expect(try File.list(canary) == [])
            }
        }

        @Test func `what masks a file is the null device (CVE-2025-31133)`() throws {
            let fixture = try RuntimeFixture()
            let bundle = try fixture.bundle("echo x > /proc/keys") { spec in
                spec.mounts.removeAll { $0.destination.hasPrefix("/dev") }
                spec.mounts.append(
                    MountSpec(destination: "/dev", type: "bind", source: "image-dev", options: ["bind"]))
            }
            try File.makeDirectories("\(bundle)/image-dev", mode: 0o755)
            symlink("/proc/sys/kernel/core_pattern", "\(bundle)/image-dev/null")
            let output = try fixture.call(["run", "--bundle", bundle, "c1"])
            #expect(output.code == 1)
            #expect(output.stderr.contains("/dev/null"), "\(output.stderr)")
            #expect(try fixture.traces() == [])
        }

        @Test func `a terminal is not opened through what the image has at /dev/pts (CVE-2025-52565)`() throws {
            let fixture = try RuntimeFixture()
            let socket = try UnixSocket.listen("\(fixture.directory)/console.sock")
            defer { _ = socket.raw }
            let bundle = try fixture.bundle("tty") { spec in
                spec.process?.terminal = true
                spec.mounts.removeAll { $0.destination == "/dev/pts" }
            }
            let output = try fixture.call([
                "create", "--bundle", bundle, "--console-socket", "\(fixture.directory)/console.sock", "c1",
            ])
            #expect(output.code == 1)
            #expect(output.stderr.contains("/dev/pts"), "\(output.stderr)")
        }

        @Test func `a mount destination that is swapped for a link stays inside (CVE-2021-30465, CVE-2024-45310)`()
            throws
        {
            let fixture = try RuntimeFixture()
            let canary = try canary(fixture)
            let volume = "\(fixture.directory)/volume"
            try File.makeDirectories("\(volume)/dir", mode: 0o777)
            symlink("/", "\(volume)/link")
            // Another container that shares the volume swaps a directory for a link to / as fast as it can.
            let swapper = try Spawn(
                RuntimeFixture.busybox(),
                [
                    "sh", "-c",
                    "cd \(volume); while :; do mv dir t 2>/dev/null; mv link dir; mv dir link; mv t dir; done",
                ], environment: ["PATH=/usr/bin:/bin"]
            ).start()
            defer {
                try? swapper.signal(SIGKILL)
                _ = try? swapper.wait()
            }
            let mountsBefore = try MountInfo.read().count
            for round in 0..<RuntimeFixture.rounds(2000) {
                _ = try fixture.run("true") { spec in
                    spec.mounts += [
                        MountSpec(destination: "/vol", type: "bind", source: volume, options: ["bind"]),
                        MountSpec(
                            destination: "/vol/dir\(canary)/made\(round)", type: "tmpfs", source: "tmpfs"),
                    ]
                }
            }
            #expect(try File.list(canary) == [], "nothing was made on the host")
            #expect(try MountInfo.read().count == mountsBefore)
            #expect(try fixture.traces() == [])
        }

        @Test func `a root filesystem is never the host's`() throws {
            let fixture = try RuntimeFixture()
            for path in ["/", "//", "/tmp/.."] {
                let output = try fixture.run("true") { $0.root?.path = path }
                #expect(output.code == 1)
                #expect(output.stderr.contains("root.path"), "\(output.stderr)")
            }
        }

        @Test func `state is for root only`() throws {
            let fixture = try RuntimeFixture()
            try fixture.must("create", "--bundle", try fixture.bundle(), "c1")
            var info = stat()
            for (path, mode) in [
                ("", mode_t(0o700)), ("/c1", 0o700), ("/c1/state.json", 0o600), ("/c1/start.sock", 0o600),
            ] {
                #expect(stat(fixture.root + path, &info) == 0)
                #expect(info.st_mode & 0o777 == mode, "\(path)")
            }
        }

        @Test func `the files of the entering process are not to be read (CVE-2016-9962)`() throws {
            let fixture = try RuntimeFixture()
            try fixture.start("c1") { spec in
                for capability in ["CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_DAC_OVERRIDE"] {
                    spec.process?.capabilities?.bounding.append(capability)
                    spec.process?.capabilities?.effective.append(capability)
                    spec.process?.capabilities?.permitted.append(capability)
                }
            }
            let bundle = try fixture.state("c1").bundle
            // Whatever the spy can open through a newcomer's descriptors must be the container's own.
            let spy = """
                while :; do for p in /proc/[0-9]*; do [ $p = /proc/$$ ] && continue
                    for f in $p/fd/*; do [ -e $f/etc/debian_version ] && readlink $f >> /tmp/leak; done
                    for d in cwd root; do [ -e $p/$d/etc/debian_version ] && echo $p/$d >> /tmp/leak; done
                done; done 2>/dev/null
                """
            try fixture.must("exec", "--detach", "c1", "sh", "-c", spy)
            for _ in 0..<RuntimeFixture.rounds(500) { _ = try fixture.call(["exec", "c1", "true"]) }
            #expect(!File.exists("\(bundle)/rootfs/tmp/leak"), "\((try? File.text("\(bundle)/rootfs/tmp/leak")) ?? "")")
        }
    }
}
