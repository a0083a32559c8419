import Glibc
import Kernel
import Model
import Testing
import Wire

extension SystemSuite {
    /// In every round somebody dies at the marked point: in turn the one process that passes it, master and agent
    /// together, and `up`. A container beside it keeps its process and its connection through all of them.
    @Suite("SIGKILL at marked points: one container or none as recorded, never two", .serialized)
    struct Crashes {
        static let masterPoints = ["master.after_accept", "master.after_commit"]
        static let startPoints =
            [
                "agent.before_record", "agent.after_record", "agent.after_network", "agent.after_shim",
                "agent.after_prepare", "agent.after_clone", "agent.after_start", "agent.before_report",
                "cni.after_record", "cni.after_plugin", "cni.after_add", "shim.after_create",
                "runtime.before_cgroup", "runtime.after_clone", "runtime.created", "runtime.started",
                "master.after_placement",
            ] + masterPoints
        static let stopPoints =
            [
                "agent.before_record", "agent.after_record", "agent.during_stop", "agent.after_kill",
                "agent.before_report", "shim.before_exit_record", "shim.after_exit_record",
            ] + masterPoints
        static let execPoints = ["agent.during_exec", "master.during_session"]
        static let updatePoints =
            ["agent.after_removal", "agent.after_clone", "agent.after_start", "master.after_placement"] + masterPoints
        static let removalPoints = ["agent.after_kill", "agent.after_removal", "runtime.destroy"] + masterPoints

        /// Runs `body` with a number for its names, as often as the tier says: in `make test` once, where the point is one of
        /// several and each has the next kind of victims.
        private func rounds(
            _ point: String, of points: [String] = [], _ body: (CrashCluster, Int) throws -> Void
        ) throws {
            let crash = try CrashCluster()
            defer { crash.tearDown() }
            let first = points.firstIndex(of: point) ?? 0
            for round in 0..<loops(50, otherwise: points.isEmpty ? 3 : 1) {
                try crash.arm(point, Victims.allCases[(first + round) % Victims.allCases.count])
                try body(crash, round)
            }
        }

        @Test("a start", arguments: startPoints)
        func start(point: String) throws {
            try rounds(point, of: Self.startPoints) { crash, round in
                let name = "c\(round)"
                let marker = "10\(round)0\(getpid())"
                try crash.pull()
                let client = try crash.cluster.begin([
                    "run", "-d", "--name", name, "--restart", "always", "busybox", "sleep", marker,
                ])
                try crash.untilDeath()
                #expect(try crash.processes(marker).count <= 1)
                try crash.recover()
                let code = try crash.exitCode(client)
                let found = try crash.cluster.containers().filter { $0.name == name }
                #expect(found.count <= 1)
                if code == 0 { #expect(found.count == 1, "acknowledged, so it is there") }
                if !found.isEmpty {
                    try eventually("\(name) runs") { try crash.cluster.inspect(name).status.phase == .running }
                    #expect(try crash.processes(marker).count == 1, "exactly one after round \(round)")
                    try expectSuccess(crash.cluster.martlet("rm", "-f", name))
                }
                #expect(try crash.processes(marker).isEmpty)
            }
        }

        @Test("a stop is finished, grace and all", arguments: stopPoints)
        func stop(point: String) throws {
            try rounds(point, of: Self.stopPoints) { crash, round in
                let name = "s\(round)"
                try expectSuccess(
                    crash.cluster.martlet(
                        "run", "-d", "--name", name, "--restart", "unless-stopped", "busybox", "sh", "-c",
                        "trap '' TERM; while :; do sleep 1; done"))
                try eventually("it runs") { try crash.cluster.inspect(name).status.phase == .running }
                try crash.pull()
                let client = try crash.cluster.begin(["stop", "-t", "1", name])
                try crash.untilDeath()
                try crash.recover()
                if try crash.exitCode(client) != 0 {
                    // Nobody said that it was accepted: it is asked for again.
                    try expectSuccess(crash.cluster.martlet("stop", "-t", "1", name))
                }
                let view = try crash.cluster.inspect(name)
                #expect(view.status.phase == .exited)
                // A shim that dies before it has written the exit down leaves none that could be known.
                if point != "shim.before_exit_record" { #expect(view.container.exitCode == 137) }
                try expectSuccess(crash.cluster.martlet("rm", name))
            }
        }

        @Test("an exec: the client gets an error, the container lives on", arguments: execPoints)
        func exec(point: String) throws {
            try rounds(point, of: Self.execPoints) { crash, round in
                let name = "e\(round)"
                try expectSuccess(crash.cluster.martlet("run", "-d", "--name", name, "busybox", "sleep", "1000"))
                try eventually("it runs") { try crash.cluster.inspect(name).status.phase == .running }
                let pid = try crash.cluster.inspect(name).container.pid
                try crash.pull()
                let client = try crash.cluster.begin(["exec", name, "sleep", "5"])
                try crash.untilDeath()
                #expect(try crash.exitCode(client) == 125)
                try crash.recover()
                #expect(try crash.cluster.martlet("exec", name, "echo", "fine").text == "fine")
                #expect(try crash.cluster.inspect(name).container.pid == pid)
                try expectSuccess(crash.cluster.martlet("rm", "-f", name))
            }
        }

        @Test("a commit: the client gets an error, there is no image, and nothing of the container stays frozen")
        func commit() throws {
            try rounds("agent.during_commit") { crash, round in
                let name = "k\(round)"
                try expectSuccess(
                    crash.cluster.martlet(
                        "run", "-d", "--name", name, "busybox", "sh", "-c",
                        "n=0; while :; do n=$((n + 1)); echo $n >/n; sleep 0.1; done"))
                try eventually("it runs") { try crash.cluster.martlet("exec", name, "cat", "/n").code == 0 }
                try crash.pull()
                let client = try crash.cluster.begin(["commit", name, "made:\(round)"])
                try crash.untilDeath()
                try crash.recover()
                #expect(try crash.exitCode(client) != 0)
                let count = try crash.cluster.martlet("exec", name, "cat", "/n").text
                try eventually("it goes on") { try crash.cluster.martlet("exec", name, "cat", "/n").text != count }
                #expect(try crash.cluster.martlet("image", "inspect", "made:\(round)").code != 0)
                try expectSuccess(crash.cluster.martlet("commit", name, "made:\(round)"))
                try expectSuccess(crash.cluster.martlet("rm", "-f", name))
                try expectSuccess(crash.cluster.martlet("image", "rm", "made:\(round)"))
            }
        }

        @Test("an update goes on afterwards, and never runs an instance twice", arguments: updatePoints)
        func update(point: String) throws {
            let marker = "77\(getpid())"
            try rounds(point, of: Self.updatePoints) { crash, round in
                if round == 0 {
                    try expectSuccess(
                        crash.cluster.martlet(
                            "service", "create", "--name", "u", "--replicas", "2", "--stop-timeout", "0", "busybox",
                            "sleep", marker))
                    try expectSuccess(crash.cluster.martlet("service", "wait", "u"))
                }
                let update = ["service", "update", "--force", "--env", "ROUND=\(round)", "u"]
                try crash.pull()
                let client = try crash.cluster.begin(update)
                try crash.untilDeath()
                #expect(try crash.processes(marker).count <= 2)
                try crash.recover()
                if try crash.exitCode(client) != 0 { try expectSuccess(crash.cluster.run(update)) }
                try expectSuccess(crash.cluster.martlet("service", "wait", "u"))
                #expect(try crash.processes(marker).count == 2)
                let views = try crash.cluster.containers(service: "u").filter { $0.status.phase == .running }
                #expect(views.count == 2)
                #expect(views.allSatisfy { $0.spec.environment.contains("ROUND=\(round)") })
            }
        }

        @Test("a removal leaves nothing", arguments: removalPoints)
        func removal(point: String) throws {
            try rounds(point, of: Self.removalPoints) { crash, round in
                let name = "r\(round)"
                let marker = "66\(round)0\(getpid())"
                try expectSuccess(crash.cluster.martlet("run", "-d", "--name", name, "busybox", "sleep", marker))
                try eventually("it runs") { try crash.cluster.inspect(name).status.phase == .running }
                let task = try #require(try crash.cluster.inspect(name).task)
                try crash.pull()
                let client = try crash.cluster.begin(["rm", "-f", name])
                try crash.untilDeath()
                try crash.recover()
                if try crash.exitCode(client) != 0 { _ = try crash.cluster.martlet("rm", "-f", name) }
                try eventually("\(name) is gone") {
                    try !crash.cluster.containers().contains { $0.name == name }
                        && !File.exists("\(crash.cluster.dataDirectory)/tasks/\(task)")
                }
                #expect(try crash.processes(marker).isEmpty)
            }
        }

        @Test("an exit while agent and master are dead is recorded rightly")
        func exitMeanwhile() throws {
            try rounds("agent.before_report") { crash, round in
                let name = "x\(round)"
                try expectSuccess(
                    crash.cluster.martlet("run", "-d", "--name", name, "busybox", "sh", "-c", "sleep 1; exit 42"))
                try eventually("it runs") { try crash.cluster.inspect(name).status.phase == .running }
                try crash.pull()
                try crash.untilDeath()
                sleep(1)
                try crash.recover()
                try eventually("the exit is known") { try crash.cluster.inspect(name).container.exitCode == 42 }
                try expectSuccess(crash.cluster.martlet("rm", name))
            }
        }

        @Test("the shim of a running container dies: it ends with it, and starts again as its policy says")
        func shimDies() throws {
            let crash = try CrashCluster()
            defer { crash.tearDown() }
            let marker = "88\(getpid())"
            for round in 0..<loops(50) {
                // A new one each time: the pauses between restarts grow.
                let name = "o\(round)"
                try expectSuccess(
                    crash.cluster.martlet(
                        "run", "-d", "--name", name, "--restart", "always", "busybox", "sleep", marker))
                let task = try #require(try crash.cluster.inspect(name).task)
                let record = try File.text("\(crash.cluster.runDirectory)/shims/\(task)/shim.pid")
                Glibc.kill(try #require(record.split(separator: " ").first.flatMap { pid_t($0) }), SIGKILL)
                try eventually("\(name) runs again, once") {
                    let view = try crash.cluster.inspect(name)
                    return view.status.phase == .running && view.container.start == 2
                }
                #expect(try crash.processes(marker).count == 1)
                try expectSuccess(crash.cluster.martlet("rm", "-f", name))
            }
        }
    }
}
