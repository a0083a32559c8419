import Glibc
import JSON
import Kernel
import ShimProtocol
import StreamFrames
import Testing

extension KernelSuite {
    @Suite(.serialized) struct ShimLifeTests {
        @Test(arguments: ShimFixture.Runtime.allCases)
        func aContainerRunsAndItsEndIsRecordedLoggedAndAnnounced(_ runtime: ShimFixture.Runtime) throws {
            let shim = try ShimFixture(runtime)
            let events = try shim.open(.events)
            #expect(try events.event().event == .state)

            let created = try shim.create("c1", try shim.bundle("echo out; echo err >&2; printf rest; exit 7"))
            #expect(created.status == .created)
            #expect(kill(created.pid, 0) == 0)
            let client = try shim.open(.attach(ShimAttach(container: "c1")))
            let started = try shim.request(.start(container: "c1"))
            #expect(started.container?.startedAt != nil)

            #expect(try client.output() == ShimOutput(stdout: "out\nrest", stderr: "err\n", code: 7))
            let record = try shim.exitRecord("c1")
            #expect(record.exitCode == 7 && record.signal == nil && !record.oomKilled && record.reason == nil)
            #expect(record.container == "c1" && record.start == 1 && record.pid == created.pid)
            #expect(record.startedAt <= record.finishedAt)
            #expect(try events.event().event == .created)
            #expect(try events.event().event == .started)
            let exited = try events.event()
            #expect(exited.event == .exited && exited.container?.exit == record)
            let state = try shim.request(.state).containers
            #expect(state?.map(\.status) == [.stopped] && state?.first?.exit == record)

            let records = try shim.records(shim.log("c1"))
            #expect(
                Set(records.map { "\($0.stream) \($0.isPartial) \(String(decoding: $0.bytes, as: UTF8.self))" })
                    == ["stdout false out", "stderr false err", "stdout true rest"])

            try shim.request(.delete(container: "c1", force: false))
            #expect(try events.event().event == .deleted)
            #expect(try shim.request(.state).containers == [])
            #expect(try File.list("\(shim.directory)/shim").sorted() == ["shim.pid", "shim.sock"])
        }

        @Test func deathByASignalIs128AndTheSignal() throws {
            let shim = try ShimFixture()
            _ = try shim.create("c2", try shim.bundle("exec sleep 100"))
            let client = try shim.open(.attach(ShimAttach(container: "c2")))
            try shim.request(.start(container: "c2"))
            try shim.request(.signal(container: "c2", signal: SIGKILL, all: false))
            #expect(try client.output().code == 137)
            let record = try shim.exitRecord("c2")
            #expect(record.exitCode == 137 && record.signal == 9 && !record.oomKilled)
        }

        @Test func signalsReachTheProcess() throws {
            let shim = try ShimFixture()
            _ = try shim.create(
                "c1", try shim.bundle("trap 'echo got; exit 3' USR1; echo ready; while :; do sleep 0.1; done"))
            let client = try shim.open(.attach(ShimAttach(container: "c1")))
            try shim.request(.start(container: "c1"))
            #expect(try client.expect("ready"))
            try client.send(.signal(UInt8(SIGUSR1)))
            #expect(try client.output() == ShimOutput(stdout: "got\n", stderr: "", code: 3))
            #expect(try shim.refusal(.signal(container: "c1", signal: 15, all: false))?.contains("has ended") == true)
            #expect(
                try shim.refusal(.signal(container: "c1", signal: 99, all: false))?.contains("99 is no signal") == true)
        }

        @Test func createIsIdempotentForAStartNumberAndANewStartReplacesTheOld() throws {
            let shim = try ShimFixture()
            let bundle = try shim.bundle("echo one; exit 1")
            let first = try shim.create("c1", bundle)
            #expect(try shim.create("c1", bundle) == first)
            #expect(
                try shim.refusal(
                    .create(
                        ShimCreate(
                            container: "c1", start: 2, bundle: bundle, exitPath: shim.exitPath("c1", 2))))?
                    .contains("has not ended") == true)

            let client = try shim.open(.attach(ShimAttach(container: "c1")))
            try shim.request(.start(container: "c1"))
            #expect(try client.output().code == 1)
            let stopped = try shim.create("c1", bundle)
            #expect(stopped.status == .stopped && stopped.exit?.exitCode == 1)
            #expect(try shim.refusal(.start(container: "c1"))?.contains("it has ended") == true)

            let second = try shim.create("c1", bundle, start: 2)
            #expect(second.status == .created && second.start == 2 && second.pid != first.pid)
            let again = try shim.open(.attach(ShimAttach(container: "c1")))
            try shim.request(.start(container: "c1"))
            #expect(try again.output().code == 1)
            #expect(try shim.exitRecord("c1", 1).pid == first.pid)
            #expect(try shim.exitRecord("c1", 2).pid == second.pid)
            #expect(
                try shim.refusal(
                    .create(
                        ShimCreate(
                            container: "c1", start: 1, bundle: bundle, exitPath: shim.exitPath("c1", 1))))?
                    .contains("start 2 is newer") == true)
            // One log through all starts.
            #expect(try shim.records(shim.log("c1")).count == 2)
        }

        @Test func startingTwiceIsNoHarm() throws {
            let shim = try ShimFixture()
            _ = try shim.create("c1", try shim.bundle("exec sleep 100"))
            let first = try shim.request(.start(container: "c1")).container
            #expect(try shim.request(.start(container: "c1")).container == first)
        }

        @Test func pauseStopsTheProcessAndResumeLetsItGoOn() throws {
            let shim = try ShimFixture()
            _ = try shim.create("c1", try shim.bundle("exec sleep 100"))
            #expect(try shim.refusal(.pause(container: "c1"))?.contains("it is not running") == true)
            try shim.request(.start(container: "c1"))
            #expect(try shim.request(.pause(container: "c1")).container?.status == .paused)
            #expect(try shim.request(.pause(container: "c1")).container?.status == .paused)
            #expect(try shim.request(.resume(container: "c1")).container?.status == .running)
            #expect(try shim.refusal(.delete(container: "c1", force: false))?.contains("it has not ended") == true)
            try shim.request(.pause(container: "c1"))
            // Also a frozen one is killed.
            try shim.request(.delete(container: "c1", force: true))
            #expect(try shim.exitRecord("c1").exitCode == 137)
            #expect(try shim.request(.state).containers == [])
            try shim.request(.delete(container: "c1", force: false))
        }

        @Test func theRuntimesOwnWordsComeBack() throws {
            let shim = try ShimFixture()
            let bundle = try shim.bundle("", arguments: ["/bin/nothing-there"])
            let spec = ShimCreate(container: "c1", start: 1, bundle: bundle, exitPath: shim.exitPath("c1", 1))
            let refusal = try shim.refusal(.create(spec)) ?? shim.refusal(.start(container: "c1"))
            #expect(refusal?.contains("/bin/nothing-there") == true)
            try shim.request(.delete(container: "c1", force: true))
            #expect(try shim.request(.state).containers == [])
            #expect(
                try shim.refusal(
                    .create(
                        ShimCreate(
                            container: "c2", start: 1, bundle: "/nowhere", exitPath: "/tmp/x")))?.contains("/nowhere")
                    == true)
        }

        @Test func aProcessThatDiesBeforeItsStartIsRecordedAsThat() throws {
            let shim = try ShimFixture()
            let state = try shim.create("c1", try shim.bundle("true"))
            kill(state.pid, SIGKILL)
            #expect(try shim.eventually { try shim.request(.state).containers?.first?.status == .stopped })
            let record = try shim.exitRecord("c1")
            #expect(record.reason == "it ended before it was started" && record.exitCode == 137)
        }

        @Test func aKillForLackOfMemoryIsRecordedAsThat() throws {
            let shim = try ShimFixture()
            let bundle = try shim.bundle("x=1; while :; do x=$x$x; done") { configuration in
                var linux = configuration["linux"]?.objectValue ?? [:]
                linux["resources"] = ["memory": ["limit": 16_777_216]]
                configuration["linux"] = .object(linux)
            }
            _ = try shim.create("c1", bundle) {
                $0.cgroups = Array(Set([shim.cgroup("memory"), shim.cgroup("unified")]))
            }
            let client = try shim.open(.attach(ShimAttach(container: "c1")))
            try shim.request(.start(container: "c1"))
            #expect(try client.output().code == 137)
            #expect(try shim.exitRecord("c1").oomKilled)
        }

        @Test func processesInTheBackgroundDoNotHoldTheExitBack() throws {
            let shim = try ShimFixture()
            // Without a pid namespace of its own the background process outlives the first one, with the pipe open.
            let bundle = try shim.bundle("sleep 30 & echo first; exit 5") { configuration in
                var linux = configuration["linux"]?.objectValue ?? [:]
                linux["namespaces"] = [["type": "mount"]]
                configuration["linux"] = .object(linux)
                configuration["hostname"] = nil
            }
            _ = try shim.create("c1", bundle)
            let client = try shim.open(.attach(ShimAttach(container: "c1")))
            try shim.request(.start(container: "c1"))
            #expect(try client.output() == ShimOutput(stdout: "first\n", stderr: "", code: 5))
            let left = try File.text("\(shim.cgroup("pids"))/cgroup.procs")
            #expect(!left.isEmpty)
            try shim.request(.delete(container: "c1", force: true))
            // Orphans were reaped: the shim has no zombies.
            #expect(try shim.eventually { try Proc.children(shim.pid).isEmpty })
        }

        @Test func theShimEndsOnlyWithoutContainers() throws {
            let shim = try ShimFixture()
            _ = try shim.create("c1", try shim.bundle("exec sleep 100"))
            try shim.request(.start(container: "c1"))
            #expect(try shim.refusal(.shutdown)?.contains("container c1 has not ended") == true)
            kill(shim.pid, SIGTERM)
            kill(shim.pid, SIGHUP)
            usleep(100_000)
            #expect(try shim.request(.hello).pid == shim.pid)
            try shim.request(.delete(container: "c1", force: true))
            try shim.request(.shutdown)
            #expect(shim.waitForEnd(milliseconds: 5000))
            #expect(try File.list("\(shim.directory)/shim").isEmpty)
        }

        @Test func sigtermEndsAnIdleShim() throws {
            let shim = try ShimFixture()
            kill(shim.pid, SIGTERM)
            #expect(shim.waitForEnd(milliseconds: 5000))
            #expect(!File.exists(shim.socket))
        }

        @Test func aShimIsSmall() throws {
            let shim = try ShimFixture()
            _ = try shim.create("c1", try shim.bundle("seq 1 20000; exec sleep 100"))
            let client = try shim.open(.attach(ShimAttach(container: "c1")))
            try shim.request(.start(container: "c1"))
            #expect(try client.expect("20000\n"))
            client.halfClose()
            usleep(100_000)
            let lines = try File.text("/proc/\(shim.pid)/smaps_rollup").split(separator: "\n")
            // The program's own pages are shared by all shims.
            let kilobytes = lines.filter { $0.hasPrefix("Anonymous:") }
                .compactMap { $0.split(separator: " ").dropFirst().first.flatMap { Int($0) } }.reduce(0, +)
            #expect((1..<1024).contains(kilobytes))
            #expect(try File.list("/proc/\(shim.pid)/task").count == 1)
        }

        @Test func aContainerInheritsNothingFromWhoStartedTheShim() throws {
            signal(SIGHUP, SIG_IGN)
            signal(SIGUSR2, SIG_IGN)
            let before = umask(0o077)
            defer {
                signal(SIGHUP, SIG_DFL)
                signal(SIGUSR2, SIG_DFL)
                umask(before)
            }
            let shim = try ShimFixture()
            let output = try shim.run("c1", "umask; grep -E 'Sig(Ign|Blk)' /proc/self/status; ls /proc/self/fd; env")
            let lines = output.stdout.split(separator: "\n").map(String.init)
            // Descriptor 3 is the listing's own.
            #expect(
                lines.prefix(7) == [
                    "0022", "SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000", "0", "1", "2", "3",
                ])
            #expect(
                lines.dropFirst(7).allSatisfy { line in
                    ["PATH=/bin", "HOME=/", "PWD=/", "SHLVL=1"].contains(line)
                })
        }

        @Test func longPathsWork() throws {
            let shim = try ShimFixture(directoryName: String(repeating: "long", count: 40))
            #expect(try shim.run("c1", "echo x") == ShimOutput(stdout: "x\n", stderr: "", code: 0))
            _ = try shim.create("c2", try shim.bundle("echo y", terminal: true), terminal: true)
            let client = try shim.open(.attach(ShimAttach(container: "c2")))
            try shim.request(.start(container: "c2"))
            #expect(try client.output().stdout == "y\r\n")
        }

        @Test func aShimLivesInItsOwnCgroup() throws {
            let group = "martlet-test-\(getpid())-shims/x"
            defer {
                for path in [group, String(group.dropLast(2))] { HostCgroups.directories(path).forEach { rmdir($0) } }
            }
            do {
                let shim = try ShimFixture(cgroup: group)
                let lines = try File.text("/proc/\(shim.pid)/cgroup").split(separator: "\n")
                #expect(!lines.isEmpty && lines.contains { $0.hasSuffix(":/\(group)") })
                #expect(try shim.run("c1", "echo x").code == 0)
            }
        }
    }
}
