import Kernel
import Model
import Testing
import Wire

extension SystemSuite {
    /// Two GPUs, two containers with one each and a third that waits: in every round one of the two gives its own back, somebody
    /// dies at the marked point, and then each GPU is one container's, by the records and by what can be opened.
    @Suite("SIGKILL at marked points: a GPU is never two containers'", .serialized)
    struct GPUCrashes {
        static let removalPoints = [
            "agent.before_record", "agent.after_record", "agent.after_kill", "agent.after_removal",
            "agent.after_network", "agent.after_prepare", "agent.after_shim", "agent.after_clone", "agent.after_start",
            "agent.before_report", "shim.after_create", "runtime.after_directory", "runtime.before_cgroup",
            "runtime.after_cgroup", "runtime.after_clone", "runtime.after_maps", "runtime.before_publish",
            "runtime.published", "runtime.created", "runtime.starting", "runtime.started", "master.after_accept",
            "master.after_commit", "master.after_placement",
        ]
        /// Of the shim of the container that goes: it has to be started with the mark.
        static let endPoints = [
            "shim.before_exit_record", "shim.after_exit_record", "runtime.after_kill", "runtime.destroy",
            "runtime.after_cgroup_removal", "runtime.after_removal",
        ]
        static let changePoints = [
            "agent.before_record", "agent.after_device_rules", "agent.after_devices", "agent.before_report",
            "master.after_commit",
        ]
        /// Nobody comes by them on a GPU's way from one container to another.
        static let otherPoints = [
            "agent.after_attachment", "agent.after_disconnect",  // networks that users made
            "agent.during_commit", "agent.during_exec", "runtime.exec_after_clone", "runtime.exec_after_go",
            "runtime.exec_before_go", "master.during_session",  // images, and programs beside the container's
            "agent.during_stop",  // a signal to a container that keeps what it has
        ]

        @Test("every marked point of agent, shim, runtime and master is in a list here")
        func lists() throws {
            let sources = #filePath.split(separator: "/", omittingEmptySubsequences: false).dropLast(3).joined(
                separator: "/")
            let found: ProgramResult = try Program(
                "/bin/grep", ["-rhoE", #"failpoint\("(agent|shim|runtime|master)\.[a-z_]+"#, "\(sources)/Sources"]
            ).run()
            let marked = Set(
                String(decoding: found.output, as: UTF8.self).split(separator: "\n").map { $0.dropFirst(11) })
            let listed = Set(
                (Self.removalPoints + Self.endPoints + Self.changePoints + Self.otherPoints).map { Substring($0) })
            #expect(marked == listed, "\(marked.symmetricDifference(listed).sorted())")
        }

        @Test("while its container is removed and another one is given it")
        func removal() throws {
            try rounds(Self.removalPoints + Self.endPoints) { crash, name in
                let removal = try crash.cluster.begin(["rm", "-f", name])
                try crash.untilDeath()
                try crash.recover()
                if try crash.exitCode(removal) != 0 { _ = try crash.cluster.martlet("rm", "-f", name) }
            }
        }

        @Test("while it is taken from a container that goes on without it")
        func change() throws {
            try rounds(Self.changePoints) { crash, name in
                let update = ["update", "--gpus", "none", name]
                let change = try crash.cluster.begin(update)
                try crash.untilDeath()
                try crash.recover()
                if try crash.exitCode(change) != 0 { try expectSuccess(crash.cluster.run(update)) }
                #expect(try minors(name, crash.cluster) == [])
                try expectSuccess(crash.cluster.martlet("rm", "-f", name))
            }
        }

        @Test("while it is given to a container that goes on with it")
        func gift() throws {
            let crash = try CrashCluster(gpus: 2)
            defer { crash.tearDown() }
            let cluster = crash.cluster
            func start(_ name: String, _ claim: [String] = []) throws {
                try expectSuccess(
                    cluster.run(
                        [
                            "run", "-d", "--name", name, "--cap-add", "MKNOD", "--restart", "always", "--stop-timeout",
                            "0",
                        ]
                            + claim + ["busybox", "sleep", "1000"]))
            }
            try eventually("the node tells of its devices") {
                try cluster.martlet("device", "ls", "--quiet").text.split(separator: "\n").count == 2
            }
            try start("owner", ["--gpus", "1"])
            let owned = try minors("owner", cluster)
            #expect(owned.count == 1)
            for (round, point) in Self.changePoints.enumerated() {
                try crash.arm(point, Victims.allCases[round % Victims.allCases.count])
                let name = "plain\(round)"
                try start(name)
                #expect(try minors(name, cluster) == [])
                try crash.pull()
                let update = ["update", "--gpus", "1", name]
                let change = try cluster.begin(update)
                try crash.untilDeath()
                try crash.recover()
                if try crash.exitCode(change) != 0 { try expectSuccess(cluster.run(update)) }
                try eventually("\(name) has the other one") {
                    try minors(name, cluster) == ["0", "1"].filter { !owned.contains($0) }
                }
                #expect(try minors("owner", cluster) == owned)
                try expectSuccess(cluster.martlet("rm", "-f", name))
            }
        }

        /// - Parameter giveUp: has a container lose what it has, while somebody dies.
        private func rounds(_ points: [String], _ giveUp: (CrashCluster, String) throws -> Void) throws {
            let crash = try CrashCluster(gpus: 2)
            defer { crash.tearDown() }
            let cluster = crash.cluster
            func start(_ name: String) throws {
                let claim = ["--gpus", "1", "--cap-add", "MKNOD", "--restart", "always", "--stop-timeout", "0"]
                try expectSuccess(
                    cluster.run(["create", "--name", name] + claim + ["busybox", "sleep", "1000"]))
                _ = try cluster.begin(["start", name])
            }
            try eventually("the node tells of its devices") {
                try cluster.martlet("device", "ls", "--quiet").text.split(separator: "\n").count == 2
            }
            var holders = ["g0", "g1"]
            for name in holders {
                try start(name)
                try eventually("\(name) runs") { try cluster.inspect(name).status.phase == .running }
            }
            for (round, point) in points.enumerated() {
                try crash.arm(point, Victims.allCases[round % Victims.allCases.count])
                if Self.endPoints.contains(point) {
                    let marked = "marked\(round)"
                    try expectSuccess(cluster.martlet("rm", "-f", holders.removeFirst()))
                    holders.insert(marked, at: 0)
                    try start(marked)
                    try eventually("\(marked) runs") { try cluster.inspect(marked).status.phase == .running }
                }
                let next = "g\(round + 2)"
                try start(next)
                try eventually("\(next) waits") {
                    let view = try cluster.inspect(next)
                    return view.desired == .running && view.unschedulable?.message.contains("gpus taken") == true
                }
                try crash.pull()
                try giveUp(crash, holders.removeFirst())
                holders.append(next)
                try eventually("\(next) runs") { try cluster.inspect(next).status.phase == .running }
                let granted = try holders.flatMap { try cluster.inspect($0).grantedDevices.flatMap(\.devices) }
                #expect(Set(granted) == Set((0..<2).map(FakeGPUs.uuid)) && granted.count == 2, "\(granted)")
                let open = try holders.flatMap { try minors($0, cluster) }
                #expect(open.sorted() == ["0", "1"], "each can be opened by one: \(open)")
            }
        }

        /// Of the devices that a container can open, by whatever node.
        private func minors(_ name: String, _ cluster: TestCluster) throws -> [String] {
            let script = """
                for minor in 0 1; do
                  mknod /tmp/n$minor c 195 $minor 2>/dev/null
                  head -c 0 /tmp/n$minor 2>&1 | grep -q 'No such device or address' && echo $minor
                done; true
                """
            let outcome = try cluster.run(["exec", name, "sh", "-c", script])
            try expectSuccess(outcome)
            return outcome.text.split(separator: "\n").map(String.init)
        }
    }
}
