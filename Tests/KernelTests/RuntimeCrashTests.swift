import Glibc
import Kernel
import OCISpec
import Testing

extension KernelSuite {
    /// The runtime killed at every marked stage, and at any moment: nothing is left, or `delete --force` removes it.
    /// And thousands of containers, after which the host is as before.
    @Suite(.serialized) struct RuntimeCrashes {
        /// Containers whose leftovers differ: where all processes end with the first, where they do not, and where the
        /// process waits for its maps.
        enum Shape: CaseIterable {
            case plain, sharedPids, userNamespace

            func apply(to spec: inout ContainerSpec) {
                switch self {
                case .plain: break
                case .sharedPids: spec.linux?.namespaces.removeAll { $0.type == .pid }
                case .userNamespace:
                    spec.linux?.namespaces.append(NamespaceSpec(.user))
                    spec.linux?.uidMappings = [IDMapping(containerID: 0, hostID: 0, size: 65536)]
                    spec.linux?.gidMappings = [IDMapping(containerID: 0, hostID: 0, size: 65536)]
                }
            }
        }

        /// A runtime and one bundle of every shape.
        private struct Scene {
            let fixture: RuntimeFixture
            let bundles: [String]

            init() throws {
                let fixture = try RuntimeFixture()
                self.fixture = fixture
                bundles = try Shape.allCases.map { shape in
                    // The second process is nobody's to wait for.
                    try fixture.bundle("sleep 1000 & exec sleep 1000") { shape.apply(to: &$0) }
                }
            }

            /// The calls that bring a container to where the last of them is killed.
            func calls(_ verb: String, _ bundle: String) -> [[String]] {
                let create = ["create", "--bundle", bundle, "c1"]
                let start = ["start", "c1"]
                switch verb {
                case "create": return [create]
                case "run": return [["run", "--detach", "--bundle", bundle, "c1"]]
                case "start": return [create, start]
                case "exec": return [create, start, ["exec", "c1", "true"]]
                case "exec --detach": return [create, start, ["exec", "--detach", "c1", "sleep", "1000"]]
                case "kill": return [create, start, ["kill", "--all", "c1", "KILL"]]
                case "delete": return [create, start, ["delete", "--force", "c1"]]
                case "delete of a created one": return [create, ["delete", "c1"]]
                default: preconditionFailure("no such verb: \(verb)")
                }
            }

            /// Whatever there is now can be looked at, and goes away.
            func expectRemovable(_ comment: String) throws {
                #expect(try fixture.call(["list"]).code == 0, "\(comment)")
                let errors = try fixture.deleteAndReap("c1")
                #expect(errors == "", "\(comment)")
                #expect(try fixture.traces() == [], "\(comment)")
                #expect(try fixture.hasNoProcesses(), "\(comment)")
            }
        }

        @Test(
            arguments: [
                ("create", "after_directory"), ("create", "before_cgroup"), ("create", "after_cgroup"),
                ("create", "after_clone"), ("create", "after_maps"), ("create", "before_publish"),
                ("create", "published"), ("create", "created"),
                ("run", "after_clone"), ("run", "after_maps"), ("run", "published"), ("run", "created"),
                ("start", "starting"), ("start", "started"),
                ("exec", "exec_after_clone"), ("exec", "exec_before_go"), ("exec", "exec_after_go"),
                ("exec --detach", "exec_after_clone"), ("exec --detach", "exec_after_go"),
                ("delete", "after_kill"), ("delete", "destroy"), ("delete", "after_cgroup_removal"),
                ("delete", "after_removal"), ("delete of a created one", "after_kill"),
                ("delete of a created one", "destroy"),
            ] as [(String, String)])
        func `what a runtime leaves that is killed at a marked stage is removed by delete`(
            _ verb: String, _ mark: String
        ) throws {
            let scene = try Scene()
            for round in 0..<RuntimeFixture.rounds(50) {
                var calls = scene.calls(verb, scene.bundles[round % scene.bundles.count])
                let last = calls.removeLast()
                for call in calls { #expect(try scene.fixture.call(call).code == 0) }
                scene.fixture.environment.append("MARTLET_FAILPOINT=runtime.\(mark)")
                let output = try scene.fixture.call(last)
                scene.fixture.environment.removeLast()
                try #require(output.code == 137, "\(last) did not come by runtime.\(mark): \(output.stderr)")
                try scene.expectRemovable("round \(round)")
            }
            #expect(try scene.fixture.run("echo fine").text == "fine")
        }

        @Test func `what a runtime leaves that is killed at any moment is removed by delete`() throws {
            let scene = try Scene()
            let verbs = [
                "create", "run", "start", "exec", "exec --detach", "kill", "delete", "delete of a created one",
            ]
            let rounds = RuntimeFixture.rounds(verbs.count * 100)
            // How long a verb takes here, in microseconds: moments up to there are worth trying.
            var lasting: [String: UInt32] = [:]
            var random = SystemRandomNumberGenerator()
            for round in 0..<(verbs.count + rounds) {
                let verb = verbs[round % verbs.count]
                var calls = scene.calls(verb, scene.bundles[round / verbs.count % scene.bundles.count])
                let last = calls.removeLast()
                for call in calls { #expect(try scene.fixture.call(call).code == 0) }
                let began = Proc.uptimeNanoseconds()
                let child = try scene.fixture.spawn(last)
                let moment = lasting[verb].map { UInt32.random(in: 0...$0, using: &random) }
                if let moment {
                    usleep(moment)
                    try child.signal(SIGKILL)
                }
                _ = try child.wait()
                if moment == nil { lasting[verb] = UInt32((Proc.uptimeNanoseconds() - began) / 1000) }
                try scene.expectRemovable("\(verb), killed after \(moment.map { "\($0) µs" } ?? "its end")")
            }
            #expect(try scene.fixture.run("echo fine").text == "fine")
        }

        @Test func `a container whose process is killed before its start is stopped, and can be deleted`() throws {
            let scene = try Scene()
            for bundle in scene.bundles {
                try scene.fixture.must("create", "--bundle", bundle, "c1")
                let pid = try scene.fixture.state("c1").pid
                #expect(kill(pid, SIGKILL) == 0)
                #expect(scene.fixture.wait(pid) == 128 + SIGKILL)
                #expect(try scene.fixture.state("c1").status == .stopped)
                #expect(try scene.fixture.call(["start", "c1"]).stderr.contains("has stopped"))
                try scene.fixture.must("delete", "c1")
                #expect(try scene.fixture.traces() == [])
                #expect(try scene.fixture.hasNoProcesses())
            }
        }

        @Test(.timeLimit(.minutes(60))) func `after thousands of containers the host is as before`() throws {
            let scene = try Scene()
            let fixture = scene.fixture
            let bundles = try Shape.allCases.map { shape in try fixture.bundle { shape.apply(to: &$0) } }
            let pidFile = "\(fixture.directory)/pid"
            func cycle(_ round: Int) throws {
                let bundle = bundles[round % bundles.count]
                try fixture.must("create", "--bundle", bundle, "--pid-file", pidFile, "c1")
                let pid = try #require(pid_t(try File.text(pidFile)))
                guard let process = try Proc.open(pid) else {
                    Issue.record("there is no process \(pid)")
                    return
                }
                try fixture.must("start", "c1")
                var end = pollfd(fd: process.raw, events: Int16(POLLIN), revents: 0)
                let ended = poll(&end, 1, 10_000) == 1
                try #require(ended, "the program does not end")
                #expect(fixture.wait(pid) == 0)
                try fixture.must("delete", "c1")
                guard round % 100 == 99 else { return }
                try #require(try fixture.traces() == [], "after \(round + 1) containers")
            }
            // The first make what stays: caches, the runtime's own groups.
            for round in 0..<10 { try cycle(round) }
            let wanted = getenv("MARTLET_CONTAINERS").flatMap { Int(String(cString: $0)) }
            let count = wanted ?? RuntimeFixture.rounds(10_000, otherwise: 100)
            let before = try HostFootprint.now()
            for round in 0..<count { try cycle(round) }
            #expect(try fixture.traces() == [])
            #expect(try fixture.hasNoProcesses())
            // Namespaces, groups and their memory are given back a moment later, by the kernel's workers.
            var after = try HostFootprint.now()
            let spare = max(64, count / 100)
            // A mount namespace that stays has all its mounts, some fifteen.
            func mayStay(_ kind: String) -> Int { kind == "mnt_cache" ? spare * 10 : spare }
            fixture.eventually {
                after = (try? HostFootprint.now()) ?? after
                return after.dyingCgroups <= before.dyingCgroups + spare
                    && HostFootprint.kinds.allSatisfy {
                        after.objects[$0, default: 0] <= before.objects[$0, default: 0] + mayStay($0)
                    }
            }
            print("containers \(count), before \(before), after \(after)")
            #expect(after.mounts == before.mounts)
            #expect(after.descriptors == before.descriptors)
            #expect(after.dyingCgroups <= before.dyingCgroups + spare)
            for kind in HostFootprint.kinds {
                #expect(
                    after.objects[kind, default: 0] <= before.objects[kind, default: 0] + mayStay(kind),
                    "\(kind): \(before.objects[kind] ?? 0) before, \(after.objects[kind] ?? 0) after")
            }
            // A cgroup alone would be some ten KiB in all hierarchies: one that stays of every container shows.
            #expect(
                after.kernelMemory - before.kernelMemory < 8192 + count * 2, "KiB, before and after \(count) containers"
            )
        }
    }
}

extension RuntimeFixture {
    /// `delete --force`, while processes of the container that have become children of ours are waited for: its pid
    /// namespace does not end before they are.
    ///
    /// - Returns: what it says; its exit status where that is not 0.
    func deleteAndReap(_ id: String) throws -> String {
        let errors = SharedFD(try File.open("\(directory)/errors", O_RDWR | O_CREAT | O_TRUNC))
        let child = try spawn(["delete", "--force", id], errors: errors)
        while true {
            if let status = try child.poll() {
                let text = try File.text("\(directory)/errors")
                return status == .exited(0) ? text : "\(status): \(text)"
            }
            for pid in try Proc.children(getpid()) where pid != child.pid { waitpid(pid, nil, WNOHANG) }
            usleep(1000)
        }
    }

    /// Whether all children of ours end: containers' processes and what they have left, which come to us.
    func hasNoProcesses() throws -> Bool {
        eventually {
            reap()
            return waitpid(-1, nil, WNOHANG) < 0 && errno == ECHILD
        }
    }
}
