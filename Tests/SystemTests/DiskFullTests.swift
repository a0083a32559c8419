import Glibc
import JSON
import Kernel
import Model
import Testing
import Wire

extension SystemSuite {
    @Suite("A full disk: survived while importing, logging and committing, and over when space returns", .serialized)
    struct DiskFull {
        /// A cluster with the image, its data folder on a small disk of its own.
        private func withSmallDisk(_ body: (TestCluster, SmallDisk) throws -> Void) throws {
            let cluster = try TestCluster()
            defer { cluster.tearDown() }
            let disk = try SmallDisk(at: cluster.dataDirectory, megabytes: 64)
            // What is on the disk is mounted by the cluster: that ends first.
            defer {
                cluster.tearDown()
                disk.unmount()
            }
            try cluster.up()
            try cluster.importImage()
            try body(cluster, disk)
        }

        /// One sentence, on the disk that is full.
        private func expectRefusal(
            _ outcome: Outcome, _ cluster: TestCluster, _ words: String,
            sourceLocation: SourceLocation = #_sourceLocation
        ) {
            #expect(outcome.code != 0, "\(outcome)", sourceLocation: sourceLocation)
            #expect(outcome.errors.hasPrefix("martlet: "), "\(outcome)", sourceLocation: sourceLocation)
            #expect(outcome.errors.split(separator: "\n").count == 1, "\(outcome)", sourceLocation: sourceLocation)
            for word in [words, cluster.dataDirectory, "free "] {
                #expect(outcome.errors.contains(word), "\(outcome)", sourceLocation: sourceLocation)
            }
        }

        @Test("import and load: refused wherever the space runs out, nothing left behind")
        func importing() throws {
            try withSmallDisk { cluster, disk in
                let archive = try makeArchive(cluster)
                let saved = cluster.folder + "/saved.tar"
                try expectSuccess(cluster.martlet("image", "import", "--name", "other", archive))
                try expectSuccess(cluster.martlet("image", "save", "-o", saved, "other"))
                try expectSuccess(cluster.martlet("image", "rm", "other"))
                let before = try content(of: cluster)
                for free in [0, 64, 1024, 4000, 6000] {
                    for arguments in [["import", "--name", "other", archive], ["load", "--input", saved]] {
                        try disk.fill(leaving: free)
                        expectRefusal(try cluster.run(["image"] + arguments), cluster, "no space left")
                        #expect(try content(of: cluster) == before, "\(arguments) with \(free) KiB free")
                    }
                }
                #expect(try cluster.martlet("images", "--format", "{{.Name}}").text == "busybox:latest")
                disk.empty()
                try expectSuccess(cluster.martlet("image", "import", "--name", "other", archive))
                try expectSuccess(cluster.martlet("run", "--rm", "other", "test", "-s", "/more"))
            }
        }

        /// An image of which nothing is in the store yet, of twice 5 MB with its unpacked files.
        private func makeArchive(_ cluster: TestCluster) throws -> String {
            let archive = cluster.folder + "/other.tar"
            let script = "cp \"$0\" other.tar && head -c 3000000 /dev/urandom >more && tar -rf other.tar ./more"
            var program = Program("/bin/sh", ["-c", "cd '\(cluster.folder)' && \(script)", TestCluster.rootfs])
            program.environment = ["PATH=/usr/bin:/bin"]
            let result = try program.run()
            try #require(result.status == .exited(0), "\(result.errorText)")
            return archive
        }

        /// What makes up the images, and what operations left where they work.
        private func content(of cluster: TestCluster) throws -> [String] {
            try ["blobs/sha256", "snapshots", "tmp/", "quarantine"].flatMap { folder in
                try File.list("\(cluster.dataDirectory)/images/\(folder)").map { "\(folder)/\($0)" }
            }.sorted()
        }

        @Test("logging: the container goes on, and the log says exactly how much of it is missing")
        func logging() throws {
            try withSmallDisk { cluster, disk in
                let pad = String(repeating: "x", count: 200)
                let talk = "i=0; while :; do i=$((i+1)); echo $i \(pad); echo $i >/dev/shm/i; usleep 500; done"
                try expectSuccess(cluster.martlet("run", "-d", "--name", "talker", "busybox", "sh", "-c", talk))
                func spoken() throws -> Int {
                    Int(try cluster.martlet("exec", "talker", "cat", "/dev/shm/i").text) ?? 0
                }
                func logged() throws -> Int {
                    let line = try cluster.martlet("logs", "--tail", "1", "talker").text
                    return line.split(separator: " ").first.flatMap { Int($0) } ?? 0
                }
                try eventually("it is logged") { try logged() > 10 }
                try disk.fill()
                // More than a pipe and a page hold: a container that waits for its log would not come so far.
                let begun = try spoken()
                try eventually("it goes on while nothing is logged") { try spoken() > begun + 2000 }
                #expect(try logged() < begun + 1000)
                let end = try spoken()
                disk.empty()
                try eventually("it is logged again") { try logged() > end }
                try expectSuccess(cluster.martlet("stop", "-t", "0", "talker"))

                var (next, missing) = (1, 0)
                for line in try logLines(cluster, "talker") {
                    let words = line.split(separator: " ")
                    if words.first == "[martlet]" {
                        let count = try #require(Int(words[1]), "\(line)")
                        #expect(line.contains("No space left on device"))
                        missing += count
                        next += count
                    } else {
                        #expect(words.first == "\(next)", "the line after \(next - 1) and \(missing) missing ones")
                        next += 1
                    }
                }
                #expect(missing > 1000)
            }
        }

        /// Both streams in the order of the log.
        private func logLines(_ cluster: TestCluster, _ container: String) throws -> [Substring] {
            var program = Program("/bin/sh", ["-c", "exec \"$0\" logs \(container) 2>&1", TestCluster.martlet])
            program.environment = ["MARTLET_HOST=\(cluster.host)"]
            program.outputLimit = 64 << 20
            return String(decoding: try program.run().output, as: UTF8.self).split(separator: "\n")
        }

        /// Ends with the code when it gets SIGTERM, which needs no daemon and no disk.
        private func awaitsSignal(_ code: Int) -> String {
            "trap 'exit \(code)' TERM; while :; do usleep 20000; done"
        }

        @Test("committing: 507 and nothing half made, reads and containers go on, exits are recorded afterwards")
        func committing() throws {
            try withSmallDisk { cluster, disk in
                var pids: [String: Int] = [:]
                for (name, restart, program) in [
                    ("kept", "no", "sleep 1000"), ("first", "no", awaitsSignal(7)), ("second", "no", awaitsSignal(8)),
                    ("again", "always", awaitsSignal(9)),
                ] {
                    try expectSuccess(
                        cluster.martlet(
                            "run", "-d", "--name", name, "--restart", restart, "--stop-timeout", "0", "busybox",
                            "sh", "-c", program))
                    try eventually("\(name) runs") { try cluster.inspect(name).status.phase == .running }
                    pids[name] = try cluster.inspect(name).container.pid
                }
                try disk.fill()
                let tasks = try File.list(cluster.dataDirectory + "/tasks").sorted()
                let start = Timestamp.now()

                for arguments in [
                    ["run", "-d", "busybox", "true"], ["run", "--rm", "busybox", "true"], ["create", "busybox"],
                    ["service", "create", "--name", "web", "busybox", "sleep", "1000"], ["stop", "kept"],
                    ["rm", "-f", "kept"],
                ] {
                    expectRefusal(try cluster.run(arguments), cluster, "the store cannot be written")
                }
                expectRefusal(try cluster.martlet("volume", "create", "full"), cluster, "the store cannot be written")
                let body = #"{"name":"web","pod":{"containers":[{"image":"busybox"}]}}"#
                #expect(try status(cluster, "/api/v1/services", body) == 507)
                #expect(try status(cluster, "/healthz") == 503)

                try end(pids["first", default: 0])
                try end(pids["again", default: 0])
                // Reads, and what goes on without the store.
                for arguments in [
                    ["ps"], ["logs", "kept"], ["stats", "--no-stream"], ["exec", "kept", "true"], ["images"],
                    ["top", "kept"], ["node", "ls"], ["events", "--since", "1m", "--until", "0s"],
                ] {
                    try expectSuccess(cluster.run(arguments))
                }
                #expect(try cluster.containers().count == 4)
                #expect(try cluster.martlet("service", "ls", "--format", "{{.Name}}").text == "")
                #expect(try cluster.martlet("volume", "ls", "--format", "{{.Name}}").text == "")
                #expect(try File.list(cluster.dataDirectory + "/tasks").sorted() == tasks)

                // A daemon that dies starts again on the full disk, and finds its containers.
                try disk.fill()
                try cluster.kill("up")
                try end(pids["second", default: 0])
                try cluster.up()
                #expect(try cluster.inspect("kept").container.pid == pids["kept"])
                try expectSuccess(cluster.martlet("exec", "kept", "true"))
                expectRefusal(try cluster.martlet("stop", "kept"), cluster, "the store cannot be written")
                let end = Timestamp.now()

                disk.empty()
                for (name, code) in [("first", 7), ("second", 8)] {
                    try eventually("\(name) has ended") { try cluster.inspect(name).status.phase == .exited }
                    let status = try cluster.inspect(name).container
                    #expect(status.exitCode == code && status.reason == "", "\(name): \(status)")
                    let finished = try #require(status.finishedAt)
                    #expect(finished > start && finished < end, "\(name) ended while the disk was full")
                }
                try eventually("again runs again") {
                    let view = try cluster.inspect("again")
                    return view.container.start == 2 && view.status.phase == .running
                }
                #expect(try cluster.inspect("kept").container.pid == pids["kept"])
                try eventually("changes are taken") { try status(cluster, "/healthz") == 200 }
                try expectSuccess(cluster.martlet("volume", "create", "full"))
                try expectSuccess(cluster.martlet("run", "--rm", "-v", "full:/full", "busybox", "touch", "/full/x"))
                try expectSuccess(
                    cluster.martlet(
                        "service", "create", "--name", "web", "--stop-timeout", "0", "busybox", "sleep", "1000"))
                try expectSuccess(cluster.martlet("service", "wait", "web", "--timeout", "60"))
                try expectSuccess(cluster.martlet("rm", "-f", "kept"))
            }
        }

        /// SIGTERM from outside, to a process that the cluster named while it could.
        private func end(_ pid: Int) throws {
            Glibc.kill(pid_t(pid), SIGTERM)
            try eventually("process \(pid) has ended") { try Proc.stat(pid_t(pid))?.hasEnded ?? true }
        }

        /// The status of an answer; a body makes it a POST.
        private func status(_ cluster: TestCluster, _ path: String, _ body: String? = nil) throws -> Int {
            var arguments = ["-sS", "--unix-socket", "\(cluster.runDirectory)/martlet.sock", "-o", "/dev/null"]
            arguments += ["-w", "%{http_code}"]
            if let body { arguments += ["-H", "Content-Type: application/json", "--data-binary", body] }
            let result = try Program(
                "/usr/bin/curl", arguments + ["http://localhost\(path)"], environment: ["PATH=/usr/bin:/bin"]
            ).run()
            return Int(String(decoding: result.output, as: UTF8.self)) ?? 0
        }

        @Test("down on a full disk keeps what it cannot record, and ends it when there is space")
        func down() throws {
            try withSmallDisk { cluster, disk in
                try expectSuccess(
                    cluster.martlet("run", "-d", "--name", "one", "busybox", "sh", "-c", awaitsSignal(7)))
                try eventually("it runs") { try cluster.inspect("one").status.phase == .running }
                try disk.fill()
                let down = ["down", "--data-dir", cluster.dataDirectory, "--run-dir", cluster.runDirectory]
                expectRefusal(try cluster.run(down), cluster, "the exit of one is not on the disk yet")
                disk.empty()
                try eventually("its exit is recorded") { try cluster.run(down).code == 0 }
                try cluster.up()
                try eventually("it has ended") { try cluster.inspect("one").status.phase == .exited }
                let status = try cluster.inspect("one").container
                #expect(status.exitCode == 7 && status.reason == "", "\(status)")
            }
        }
    }
}

/// A file system of fixed size, in memory, that can be filled to its last byte.
struct SmallDisk {
    private let path: String
    private var filler: String { path + "/filler" }

    init(at path: String, megabytes: Int) throws {
        self.path = path
        try File.makeDirectories(path)
        try systemCall("mount", path) { mount("tmpfs", path, "tmpfs", 0, "size=\(megabytes)m,mode=700") }
    }

    /// Takes all the space but this much.
    func fill(leaving kilobytes: Int = 0) throws {
        let file = try File.open(filler, O_WRONLY | O_CREAT | O_APPEND)
        let (descriptor, block) = (file.raw, [UInt8](repeating: 0, count: 1 << 20))
        while write(descriptor, block, block.count) > 0 {}
        try #require(errno == ENOSPC)
        let size = lseek(descriptor, 0, SEEK_END)
        try systemCall("ftruncate", filler) { ftruncate(descriptor, max(0, size - off_t(kilobytes << 10))) }
    }

    /// Gives all the space back.
    func empty() { unlink(filler) }

    func unmount() { umount2(path, 2 /* MNT_DETACH */) }
}
