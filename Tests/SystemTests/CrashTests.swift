import Glibc
import Kernel
import Model
import Testing
import Wire

extension SystemSuite {
    @Suite("SIGKILL at marked points: one container or none as recorded, never two", .serialized)
    struct Crashes {
        static let startPoints = [
            "agent.before_record", "agent.after_record", "agent.after_network", "agent.after_shim",
            "agent.after_prepare",
            "agent.after_clone", "agent.after_start", "agent.before_report",
        ]
        static let masterPoints = ["master.after_accept", "master.after_commit", "master.after_placement"]

        /// The processes in the cluster's cgroups whose command line names the marker.
        private func processes(_ cluster: TestCluster, _ marker: String) throws -> [pid_t] {
            try File.list("/proc").compactMap { pid_t($0) }.filter { pid in
                guard let line = try? File.read("/proc/\(pid)/cmdline"),
                    let group = try? File.text("/proc/\(pid)/cgroup")
                else {
                    return false
                }
                return String(decoding: line, as: UTF8.self).contains(marker)
                    && group.contains(cluster.cgroupParent + "/")
            }
        }

        private func prepared(_ body: (TestCluster) throws -> Void) throws {
            let cluster = try TestCluster()
            defer { cluster.tearDown() }
            try cluster.upAsTwo()
            try cluster.importImage()
            try body(cluster)
        }

        @Test("the agent dies while a container starts", arguments: startPoints)
        func agentDuringStart(point: String) throws {
            try prepared { cluster in
                for round in 0..<loops(50) {
                    try cluster.kill("agent")
                    // It dies at the point, perhaps before it is known to be ready.
                    _ = try cluster.run(agentFlags(cluster), environment: ["MARTLET_FAILPOINT=\(point)"])
                    let name = "c\(round)"
                    let marker = "10\(round)0\(getpid())"
                    _ = try cluster.martlet(
                        "run", "-d", "--name", name, "--restart", "always", "busybox", "sleep", marker)
                    try eventually("the agent died at \(point)") {
                        try Proc.stat(cluster.pid(of: "agent"))?.hasEnded ?? true
                    }
                    #expect(try processes(cluster, marker).count <= 1)
                    try cluster.startAgent()
                    try eventually("\(name) runs after the crash at \(point)") {
                        try cluster.inspect(name).status.phase == .running
                    }
                    #expect(try processes(cluster, marker).count == 1, "exactly one after \(point)")
                    try expectSuccess(cluster.martlet("rm", "-f", name))
                    #expect(try processes(cluster, marker).isEmpty)
                }
            }
        }

        @Test("the agent dies while a container is stopped: the stop is finished, grace and all")
        func agentDuringStop() throws {
            try prepared { cluster in
                for round in 0..<loops(50) {
                    let name = "s\(round)"
                    try expectSuccess(
                        cluster.martlet(
                            "run", "-d", "--name", name, "--restart", "always", "busybox", "sh", "-c",
                            "trap '' TERM; while :; do sleep 1; done"))
                    try eventually("it runs") { try cluster.inspect(name).status.phase == .running }
                    try cluster.kill("agent")
                    try cluster.startAgent(environment: ["MARTLET_FAILPOINT=agent.during_stop"])
                    // It waits for the node, which is about to die: not waited for here.
                    let stop = try cluster.begin(["stop", "-t", "2", name])
                    try eventually("the agent died in the stop") {
                        try Proc.stat(cluster.pid(of: "agent"))?.hasEnded ?? true
                    }
                    try cluster.startAgent()
                    try eventually("the stop is finished") {
                        let view = try cluster.inspect(name)
                        return view.status.phase == .exited && view.container.exitCode == 137
                    }
                    #expect(try stop.wait() == .exited(0), "who asked for the stop learns that it is done")
                    try expectSuccess(cluster.martlet("rm", name))
                }
            }
        }

        @Test("a running container keeps its process and its connections; exits meanwhile are recorded rightly")
        func agentAndMasterDie() throws {
            try prepared { cluster in
                try expectSuccess(cluster.martlet("run", "-d", "--name", "stays", "busybox", "sleep", "100000"))
                try expectSuccess(
                    cluster.martlet("run", "-d", "--name", "ends", "busybox", "sh", "-c", "sleep 2; exit 42"))
                try eventually("both run") {
                    try cluster.inspect("stays").status.phase == .running
                        && cluster.inspect("ends").status.phase == .running
                }
                let pid = try cluster.inspect("stays").container.pid
                try cluster.kill("agent")
                try cluster.kill("master")
                sleep(3)
                try cluster.startMaster()
                try cluster.startAgent()
                try eventually("the exit is known") { try cluster.inspect("ends").container.exitCode == 42 }
                let view = try cluster.inspect("stays")
                #expect(view.container.pid == pid && view.status.phase == .running && view.container.start == 1)
            }
        }

        @Test(
            "the master dies: what it acknowledged is there, what it did not is there at most once",
            arguments: masterPoints)
        func masterDies(point: String) throws {
            try prepared { cluster in
                for round in 0..<loops(50) {
                    try cluster.kill("master")
                    try cluster.startMaster(environment: ["MARTLET_FAILPOINT=\(point)"])
                    let name = "m\(round)"
                    let outcome = try cluster.martlet("run", "-d", "--name", name, "busybox", "sleep", "1000")
                    try eventually("the master died at \(point)") {
                        try Proc.stat(cluster.pid(of: "master"))?.hasEnded ?? true
                    }
                    try cluster.startMaster()
                    let found = try cluster.containers().filter { $0.name == name }
                    #expect(found.count <= 1)
                    if outcome.code == 0 { #expect(found.count == 1, "acknowledged, so it is there") }
                    if !found.isEmpty {
                        try eventually("it runs") { try cluster.inspect(name).status.phase == .running }
                        try expectSuccess(cluster.martlet("rm", "-f", name))
                    }
                }
            }
        }

        @Test("the agent dies during an update: it goes on afterwards, and never runs an instance twice")
        func agentDuringUpdate() throws {
            try prepared { cluster in
                try expectSuccess(
                    cluster.martlet(
                        "service", "create", "--name", "u", "--replicas", "2", "--stop-timeout", "0", "busybox",
                        "sleep", "77777"))
                try expectSuccess(cluster.martlet("service", "wait", "u"))
                for round in 0..<loops(50) {
                    let point = ["agent.after_removal", "agent.after_clone", "agent.after_start"][round % 3]
                    try cluster.kill("agent")
                    try cluster.startAgent(environment: ["MARTLET_FAILPOINT=\(point)"])
                    try expectSuccess(cluster.martlet("service", "update", "--force", "--env", "ROUND=\(round)", "u"))
                    try eventually("the agent died at \(point)") {
                        try Proc.stat(cluster.pid(of: "agent"))?.hasEnded ?? true
                    }
                    #expect(try processes(cluster, "77777").count <= 2)
                    try cluster.startAgent()
                    try expectSuccess(cluster.martlet("service", "wait", "u"))
                    #expect(try processes(cluster, "77777").count == 2)
                }
            }
        }

        @Test("the agent dies during an exec: the client gets an error, the container lives on")
        func agentDuringExec() throws {
            try prepared { cluster in
                try expectSuccess(cluster.martlet("run", "-d", "--name", "e", "busybox", "sleep", "1000"))
                try eventually("it runs") { try cluster.inspect("e").status.phase == .running }
                let pid = try cluster.inspect("e").container.pid
                try cluster.kill("agent")
                try cluster.startAgent(environment: ["MARTLET_FAILPOINT=agent.during_exec"])
                #expect(try cluster.martlet("exec", "e", "sleep", "5").code == 125)
                try cluster.startAgent()
                #expect(try cluster.martlet("exec", "e", "echo", "fine").text == "fine")
                #expect(try cluster.inspect("e").container.pid == pid)
            }
        }

        @Test("`up` dies as one process: the same")
        func upDies() throws {
            let cluster = try TestCluster()
            defer { cluster.tearDown() }
            try cluster.up()
            try cluster.importImage()
            try expectSuccess(cluster.martlet("run", "-d", "--name", "one", "busybox", "sleep", "1000"))
            try eventually("it runs") { try cluster.inspect("one").status.phase == .running }
            let pid = try cluster.inspect("one").container.pid
            for _ in 0..<loops(50) {
                try cluster.kill("up")
                try cluster.up()
                let view = try cluster.inspect("one")
                #expect(view.container.pid == pid && view.status.phase == .running)
            }
        }

        @Test("the shim dies: the container ends with it, and starts again as its policy says")
        func shimDies() throws {
            try prepared { cluster in
                try expectSuccess(
                    cluster.martlet("run", "-d", "--name", "o", "--restart", "always", "busybox", "sleep", "88888"))
                try eventually("it runs") { try cluster.inspect("o").status.phase == .running }
                let task = try #require(try cluster.inspect("o").task)
                let shim = try #require(try pid_t(File.text("\(cluster.runDirectory)/shims/\(task)/shim.pid")))
                Glibc.kill(shim, SIGKILL)
                try eventually("it runs again, once") {
                    let view = try cluster.inspect("o")
                    return view.status.phase == .running && view.container.start == 2
                }
                #expect(try processes(cluster, "88888").count == 1)
            }
        }

        private func agentFlags(_ cluster: TestCluster) -> [String] {
            [
                "agent", "--detach", "--data-dir", cluster.dataDirectory, "--run-dir", cluster.runDirectory, "--bridge",
                cluster.bridge, "--subnet", cluster.subnet, "--cgroup-parent", cluster.cgroupParent,
            ]
        }
    }
}
