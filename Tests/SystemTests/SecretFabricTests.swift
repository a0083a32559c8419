import Glibc
import JSON
import Kernel
import Model
import Testing
import Wire

extension SystemSuite {
    @Suite("Secrets over several machines: where they are, and where they never were", .serialized)
    struct SecretFabric {
        typealias Secrets = SystemSuite.Secrets

        /// A fabric whose daemons write down all that they can, and dump core if they may.
        ///
        /// - Parameter body: gets the node that has a task with the secret, and the one that has none.
        private func withSecret(_ body: (ClusterFabric, Machine, Machine) throws -> Void) throws {
            let fabric = try ClusterFabric(nodes: 2)
            defer { fabric.tearDown() }
            let (user, other) = (fabric.nodes[0], fabric.nodes[1])
            try begin(
                fabric.master, ["master", "--advertise", fabric.master.address, "--log-level", "trace"])
            try eventually("the master serves") { try fabric.martlet("node", "ls").code == 0 }
            let token = try fabric.token()
            for node in fabric.nodes {
                try begin(
                    node,
                    [
                        "agent", "--master", fabric.url, "--node-name", node.name, "--join", token, "--log-level",
                        "trace",
                    ] + node.nodeFlags)
            }
            try eventually("both nodes are ready") {
                try fabric.nodeViews().filter { view in
                    view.conditions.contains { $0.kind == .ready && $0.holds }
                }.count == 2
            }
            try fabric.importImage()
            try expectSuccess(try fabric.martlet("secret", "create", "password", "-", input: "x\(Secrets.marker)y"))
            // The other one has tasks too, and runs something of the same service's image.
            for (name, node) in [("user", user), ("other", other)] {
                try expectSuccess(
                    fabric.run(
                        ["run", "-d", "--name", name, "--constraint", "node.name==\(node.name)"]
                            + (name == "user" ? ["--secret", "password"] : [])
                            + ["busybox", "sh", "-c", "wc -c /run/secrets/* 2>/dev/null; exec sleep 1000"]))
            }
            try eventually("it has read its secret") {
                try fabric.martlet("logs", "user").output.contains("\(Secrets.marker.utf8.count + 2)")
            }
            try body(fabric, user, other)
        }

        /// A daemon whose working directory, where core files go, is its machine's folder.
        private func begin(_ machine: Machine, _ arguments: [String]) throws {
            let shell = "cd \"$0\"; ulimit -Sc $(ulimit -Hc); exec \"$@\""
            _ = try machine.begin(
                ["sh", "-c", shell, machine.folder, TestCluster.martlet] + arguments + machine.placeFlags,
                output: "\(machine.folder)/journal")
        }

        /// Whether the marker is anywhere in what the process has in memory.
        private static func memory(_ pid: pid_t) throws -> Bool {
            let maps = try File.text("/proc/\(pid)/maps", limit: 16 << 20)
            let memory = try File.open("/proc/\(pid)/mem", O_RDONLY)
            for line in maps.split(separator: "\n") {
                let words = line.split(separator: " ")
                let ends = words[0].split(separator: "-").compactMap { UInt64($0, radix: 16) }
                // What was written is in pages that can be; what the file behind them has is looked for there.
                guard ends.count == 2, words[1].hasPrefix("rw"), ends[0] < UInt64(Int64.max) else { continue }
                var from = ends[0]
                while from < ends[1] {
                    // A marker on the edge of two pieces is in the next one whole.
                    var piece = [UInt8](repeating: 0, count: Int(min(4 << 20, ends[1] - from)))
                    let size = piece.count
                    let count = pread(memory.raw, &piece, size, off_t(from))
                    guard count > 0 else { break }
                    if Secrets.contains(Array(piece.prefix(count))) { return true }
                    if count < size || from + UInt64(count) >= ends[1] { break }
                    from += UInt64(count - 256)
                }
            }
            return false
        }

        @Test("a node that runs nothing which needs it never has it: no file, no memory, no answer")
        func elsewhere() throws {
            try withSecret { fabric, user, other in
                // Others' work is done there as well: a start, an update of the node, an image, a stream.
                try expectSuccess(try fabric.martlet("exec", "other", "true"))
                try expectSuccess(try fabric.martlet("restart", "-t", "0", "other"))
                #expect(try Secrets.findings(below: fabric.master.folder) == [])
                for machine in [user, other] {
                    #expect(try Secrets.findings(below: machine.folder) == [], "\(machine.name)")
                    #expect(try File.text("\(machine.folder)/journal", limit: 64 << 20).contains("debug"))
                }
                #expect(try File.text("\(fabric.master.dataDirectory)/audit.log").contains("/api/v1/secrets"))
                for pid in other.processes { #expect(try !Self.memory(pid), "\(other.name): process \(pid)") }
                for machine in [fabric.master, user, other] {
                    for pid in machine.processes {
                        for file in ["environ", "cmdline"] {
                            guard let bytes = try? File.read("/proc/\(pid)/\(file)", limit: 16 << 20) else { continue }
                            #expect(!Secrets.contains(bytes), "\(machine.name): /proc/\(pid)/\(file)")
                        }
                    }
                }
                // The shim is the container's parent, and has nothing of it to lose; what is looked for can be found.
                for pid in user.processes where try Proc.stat(pid)?.command.hasPrefix("martlet-shim") ?? false {
                    #expect(try !Self.memory(pid), "the shim")
                }
                let container = try fabric.inspect("user").container.pid
                #expect(Secrets.contains(try File.read("/proc/\(container)/root/run/secrets/password")))
            }
        }

        @Test(
            "no daemon leaves a core file, whichever signal ends it; nor does the command that brings a secret",
            .enabled(if: Secrets.writesCoreFilesWhereItRuns, "core files of this machine go elsewhere"),
            arguments: [SIGSEGV, SIGABRT])
        func crash(signal: Int32) throws {
            try withSecret { fabric, user, _ in
                for (machine, role) in [(fabric.master, "master"), (user, "agent")] {
                    try machine.kill(role, signal)
                    #expect(try File.list(machine.folder).filter { $0.hasPrefix("core") } == [], "\(role)")
                }
                // Any other program does leave one there: the trap works.
                _ = try user.run(["sh", "-c", "cd \"$0\"; ulimit -Sc $(ulimit -Hc); kill -SEGV $$", user.folder])
                #expect(try File.list(user.folder).contains { $0.hasPrefix("core") })
                for name in try File.list(user.folder) where name.hasPrefix("core") {
                    try Tree.remove("\(user.folder)/\(name)")
                }

                // It waits for the rest of its input while it has the first part of it.
                let shell = """
                    cd "$0"; ulimit -Sc $(ulimit -Hc); mkfifo secret; exec 3<>secret
                    "$@" secret create another - <secret & command=$!
                    printf 'x\(Secrets.marker)y' >&3; sleep 1; kill -\(signal) $command; wait $command; echo $? >ended
                    """
                _ = try user.run(["sh", "-c", shell, user.folder, TestCluster.martlet])
                #expect(try File.text("\(user.folder)/ended") == "\(128 + signal)")
                #expect(try File.list(user.folder).filter { $0.hasPrefix("core") } == [], "the command")
            }
        }
    }
}
