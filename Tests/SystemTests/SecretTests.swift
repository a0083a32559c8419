import Glibc
import JSON
import Kernel
import Model
import Testing
import Wire

extension SystemSuite {
    @Suite("Secrets: on no disk, in no answer, only where they are needed", .serialized)
    struct Secrets {
        /// Long enough to be nowhere by chance. In base64 it is looked for in all three alignments.
        static let marker = "plaintext-marker-7c1f0ab2e9d84c55"

        static let spellings: [[UInt8]] =
            [Array(marker.utf8)]
            + (0..<3).map { shift in
                let text = Array(Base64.encode([UInt8](repeating: 0x78, count: shift) + Array(marker.utf8)).utf8)
                // The groups at both ends depend on what is beside the marker.
                return Array(text.dropFirst(4).dropLast(4))
            }

        static func contains(_ bytes: [UInt8]) -> Bool {
            spellings.contains { spelling in
                guard let first = spelling.first else { return false }
                var from = 0
                while let at = bytes[from...].firstIndex(of: first) {
                    if bytes[at...].starts(with: spelling) { return true }
                    from = at + 1
                }
                return false
            }
        }

        /// The files below a folder that hold the marker; what is mounted there is not gone into.
        static func findings(below folder: String) throws -> [String] {
            var device = stat()
            guard lstat(folder, &device) == 0 else { return [] }
            var found: [String] = []
            for name in try File.list(folder) {
                let path = "\(folder)/\(name)"
                var info = stat()
                guard lstat(path, &info) == 0, info.st_dev == device.st_dev else { continue }
                if info.st_mode & S_IFMT == S_IFDIR { found += try findings(below: path) }
                guard info.st_mode & S_IFMT == S_IFREG, info.st_size < 256 << 20 else { continue }
                // One that goes away meanwhile is nowhere.
                if let bytes = try? File.read(path, limit: 256 << 20), contains(bytes) { found.append(path) }
            }
            return found
        }

        private static func createSecret(_ cluster: TestCluster) throws {
            try expectSuccess(
                cluster.martlet("secret", "create", "password", "-", input: "x\(marker)y"))
        }

        private static func secretMounts(_ cluster: TestCluster) throws -> [MountEntry] {
            try MountInfo.read().filter { $0.mountPoint.hasPrefix("\(cluster.runDirectory)/secrets/") }
        }

        @Test("a container reads it from memory, with the mode and the owner that were asked for")
        func delivery() throws {
            try withCluster { cluster in
                try Self.createSecret(cluster)
                try expectSuccess(cluster.martlet("config", "create", "motd", "-", input: "be kind\n"))
                let outcome = try cluster.martlet(
                    "run", "--rm", "--secret", "password", "--secret", "password:/etc/key,mode=0440,uid=7,gid=8",
                    "--config", "motd:/etc/motd", "--read-only", "busybox", "sh", "-c",
                    "cat /run/secrets/password; echo; stat -c '%a %u %g' /run/secrets/password /etc/key /etc/motd; "
                        + "cat /etc/motd; grep -e ' /run/secrets/password ' /proc/mounts; id -u; "
                        + "(echo no >/run/secrets/password) 2>/dev/null || echo kept")
                try expectSuccess(outcome)
                let lines = outcome.text.split(separator: "\n").map(String.init)
                try #require(lines.count == 8, "\(outcome)")
                #expect(lines[0] == "x\(Self.marker)y")
                #expect(lines[1...3] == ["400 0 0", "440 7 8", "444 0 0"])
                #expect(lines[4] == "be kind")
                for word in ["tmpfs", "ro,", "nosuid", "nodev", "noexec"] {
                    #expect(lines[5].contains(word), "\(lines[5])")
                }
                #expect(lines[7] == "kept")
                try eventually("the memory is given back") { try Self.secretMounts(cluster).isEmpty }
            }
        }

        @Test("a user without rights cannot read a secret of root's")
        func permissions() throws {
            try withCluster { cluster in
                try Self.createSecret(cluster)
                let outcome = try cluster.martlet(
                    "run", "--rm", "--user", "1000", "--secret", "password", "--secret", "password:mine,uid=1000",
                    "busybox", "sh", "-c", "cat /run/secrets/password 2>/dev/null || cat /run/secrets/mine")
                #expect(outcome.output == "x\(Self.marker)y")
            }
        }

        @Test("it is in no file, no answer, no log and no environment")
        func nowhere() throws {
            let cluster = try TestCluster()
            defer { cluster.tearDown() }
            try expectSuccess(
                cluster.run(["up", "--detach", "--log-level", "trace"] + cluster.placeFlags + cluster.nodeFlags))
            try cluster.importImage()
            try Self.createSecret(cluster)
            try expectSuccess(
                cluster.martlet(
                    "run", "-d", "--name", "c", "--secret", "password", "busybox", "sh", "-c",
                    "wc -c </run/secrets/password; exec sleep 1000"))
            try eventually("it has read it") {
                try cluster.martlet("logs", "c").text == "\(Self.marker.utf8.count + 2)"
            }
            // Refusals are words about requests too.
            _ = try cluster.martlet("secret", "create", "password", "-", input: "x\(Self.marker)y")
            _ = try cluster.martlet("secret", "create", "no/name", "-", input: "x\(Self.marker)y")

            #expect(try Self.findings(below: cluster.dataDirectory) == [])
            #expect(try Self.findings(below: cluster.runDirectory) == [])
            #expect(try File.text("\(cluster.runDirectory)/up.log", limit: 64 << 20).contains("debug"))
            for arguments in [
                ["inspect", "c"], ["secret", "inspect", "password"], ["secret", "ls", "--format", "json"],
                ["events", "--since", "10m", "--until", "0s"], ["exec", "c", "env"], ["ps", "--format", "json"],
            ] {
                let outcome = try cluster.run(arguments)
                try expectSuccess(outcome)
                #expect(!Self.contains(Array((outcome.output + outcome.errors).utf8)), "\(arguments)")
            }
            // Every process of the cluster: the daemon, the shim, the container.
            var seen = 0
            for pid in try File.list("/proc").compactMap({ pid_t($0) }) where pid != getpid() {
                for file in ["environ", "cmdline"] {
                    guard let bytes = try? File.read("/proc/\(pid)/\(file)", limit: 16 << 20) else { continue }
                    seen += 1
                    #expect(!Self.contains(bytes), "/proc/\(pid)/\(file)")
                }
            }
            #expect(seen > 0)
            // What is looked for can be found.
            #expect(
                Self.contains(try File.read("/proc/\(cluster.inspect("c").container.pid)/root/run/secrets/password")))
        }

        @Test(
            "a daemon that crashes leaves no core file, and its containers go on with what they have",
            .enabled(if: writesCoreFilesWhereItRuns, "core files of this machine go elsewhere"))
        func crash() throws {
            let cluster = try TestCluster()
            defer { cluster.tearDown() }
            let daemon = try Self.start(["martlet", "up"] + cluster.placeFlags + cluster.nodeFlags, cluster)
            // Its API is there before its node is.
            try eventually("the daemon's node is ready") {
                let nodes = try cluster.martlet("node", "ls")
                return nodes.code == 0 && nodes.output.contains(" ready ")
            }
            try cluster.importImage()
            try Self.createSecret(cluster)
            try expectSuccess(
                cluster.martlet("run", "-d", "--name", "c", "--secret", "password", "busybox", "sleep", "1000"))
            try daemon.signal(SIGSEGV)
            #expect(try daemon.wait() == .signaled(SIGSEGV))
            #expect(try Self.coreFiles(cluster) == [])

            // Any other program does leave one there: the trap works.
            let other = try Self.start(["sh", "-c", "kill -SEGV $$"], cluster)
            #expect(try other.wait() == .signaled(SIGSEGV))
            #expect(try Self.coreFiles(cluster).count == 1)

            let before = try Self.secretMounts(cluster).map(\.mountPoint)
            try #require(before.count == 1)
            try cluster.up()
            #expect(try cluster.inspect("c").container.start == 1)
            #expect(try cluster.martlet("exec", "c", "cat", "/run/secrets/password").output == "x\(Self.marker)y")
            #expect(try Self.secretMounts(cluster).map(\.mountPoint) == before)
        }

        static let writesCoreFilesWhereItRuns: Bool = {
            let pattern = (try? File.text("/proc/sys/kernel/core_pattern")) ?? ""
            return pattern.hasPrefix("core")
        }()

        /// Starts a program in the cluster's folder whose limit on core files is as high as may be.
        private static func start(_ arguments: [String], _ cluster: TestCluster) throws -> ChildProcess {
            let null = try File.open("/dev/null", O_RDWR)
            let shell = "ulimit -Sc $(ulimit -Hc); exec \"$@\""
            var spawn = Spawn("/bin/sh", ["sh", "-c", shell, "sh"] + arguments)
            spawn.environment = ["PATH=\(TestCluster.programs):/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"]
            spawn.descriptors = [null.raw, null.raw, null.raw]
            spawn.workingDirectory = cluster.folder
            return try spawn.start()
        }

        private static func coreFiles(_ cluster: TestCluster) throws -> [String] {
            try File.list(cluster.folder).filter { $0.hasPrefix("core") }
        }

        @Test("containers keep the limit on core files that they had")
        func coreLimit() throws {
            try withCluster { cluster in
                let inside = try cluster.martlet("run", "--rm", "busybox", "sh", "-c", "ulimit -c; ulimit -Hc").output
                let program = try Program("/bin/sh", ["-c", "ulimit -c; ulimit -Hc"]).run()
                #expect(inside == String(decoding: program.output, as: UTF8.self))
            }
        }

        @Test("it is there again for the next start: after kill -9, after down, without the master")
        func redelivery() throws {
            let cluster = try TestCluster()
            defer { cluster.tearDown() }
            try cluster.upAsTwo()
            try cluster.importImage()
            try Self.createSecret(cluster)
            try expectSuccess(
                cluster.martlet(
                    "run", "-d", "--name", "c", "--restart", "always", "--secret", "password", "busybox",
                    "sh", "-c", "cat /run/secrets/password; echo; exec sleep 1000"))
            var starts = 0
            func expectAnotherStart(_ what: String) throws {
                starts += 1
                try eventually("it reads its secret \(what)") {
                    let lines = try cluster.martlet("logs", "c").text.split(separator: "\n")
                    return lines.count >= starts && lines.allSatisfy { $0 == "x\(Self.marker)y" }
                }
            }
            try expectAnotherStart("at first")

            try cluster.kill("agent")
            try cluster.startAgent()
            try expectSuccess(cluster.martlet("restart", "-t", "0", "c"))
            try expectAnotherStart("after the agent's death")

            let pid = try cluster.inspect("c").container.pid
            // What is there already is not asked for again.
            try cluster.kill("master")
            Glibc.kill(pid_t(pid), SIGKILL)
            try eventually("it is started by the agent alone") {
                try Self.log(cluster).split(separator: "\n").count == starts + 1
            }
            try cluster.startMaster()
            try expectAnotherStart("without a master")

            try expectSuccess(cluster.run(["down"] + cluster.placeFlags))
            #expect(try Self.secretMounts(cluster).isEmpty, "down takes it away")
            try cluster.upAsTwo()
            try expectAnotherStart("after down and up")
        }

        /// The log files of all containers, as they are on the disk.
        private static func log(_ cluster: TestCluster) throws -> String {
            let tasks = "\(cluster.dataDirectory)/tasks"
            return try File.list(tasks).flatMap { task in
                try File.list("\(tasks)/\(task)/logs").map { try File.text("\(tasks)/\(task)/logs/\($0)") }
            }.joined(separator: "\n")
        }

        @Test("while something uses it, it stays; when it goes, its memory goes")
        func removal() throws {
            try withCluster { cluster in
                try Self.createSecret(cluster)
                try expectSuccess(
                    cluster.martlet("run", "-d", "--name", "c", "--secret", "password", "busybox", "sleep", "1000"))
                #expect(try Self.secretMounts(cluster).count == 1)
                let refusal = try cluster.martlet("secret", "rm", "password")
                #expect(refusal.code == 1 && refusal.errors.contains("used by c"))
                try expectSuccess(cluster.martlet("stop", "-t", "0", "c"))
                #expect(try cluster.martlet("secret", "rm", "password").code == 1)
                try expectSuccess(cluster.martlet("rm", "c"))
                #expect(try Self.secretMounts(cluster).isEmpty)
                #expect(try File.list("\(cluster.runDirectory)/secrets").isEmpty)
                try expectSuccess(cluster.martlet("secret", "rm", "password"))

                let unknown = try cluster.martlet("run", "--rm", "--secret", "password", "busybox", "true")
                #expect(unknown.code == 125 && unknown.errors.contains("there is no secret 'password'"))
            }
        }
    }
}
