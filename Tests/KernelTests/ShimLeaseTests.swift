import CKernel
import Glibc
import JSON
import Kernel
import ShimProtocol
import StreamFrames
import Testing

extension KernelSuite {
    /// A container that may run only while somebody says so: its shim ends it without anybody's help.
    @Suite(.serialized) struct ShimLeaseTests {
        private static let obedient = "trap 'echo bye; exit 9' TERM; echo ready; while :; do sleep 0.02; done"
        private static let stubborn = "trap '' TERM; echo ready; while :; do sleep 0.02; done"

        private func lease(
            _ id: String, _ milliseconds: Int64, signal: Int32 = SIGTERM, grace: Int64 = 60_000
        ) throws -> ShimRequest {
            let now = Proc.uptimeNanoseconds() / 1_000_000
            return .lease(ShimLease(container: id, until: now + milliseconds, signal: signal, grace: grace))
        }

        /// Starts a container with the lease given, and lets go of it once its program runs; afterwards the shim has no
        /// client.
        private func start(_ shim: ShimFixture, _ id: String, _ script: String, _ lease: ShimRequest) throws {
            _ = try shim.create(id, try shim.bundle(script)) { $0.cgroups = self.cgroups(shim) }
            let client = try shim.open(.attach(ShimAttach(container: id)))
            try shim.request(lease)
            try shim.request(.start(container: id))
            try #require(try client.expect("ready"))
        }

        private func cgroups(_ shim: ShimFixture) -> [String] {
            ["freezer", "memory", "unified"].map { shim.cgroup($0) }.filter { File.exists($0) }
        }

        /// The record of the container's end, read without asking the shim.
        private func end(_ shim: ShimFixture, _ id: String, _ start: Int = 1) throws -> ExitRecord {
            try #require(shim.eventually { File.exists(shim.exitPath(id, start)) }, "the container has not ended")
            return try shim.exitRecord(id, start)
        }

        private func status(_ shim: ShimFixture) throws -> ShimContainerState {
            try #require(try shim.request(.state).containers?.first)
        }

        @Test(arguments: ShimFixture.Runtime.allCases)
        func aContainerEndsWithItsLeaseThoughNobodyAsks(_ runtime: ShimFixture.Runtime) throws {
            let shim = try ShimFixture(runtime)
            try start(shim, "c1", Self.obedient, lease("c1", 1000))
            let record = try end(shim, "c1")
            #expect(record.exitCode == 9 && record.signal == nil)
            #expect(record.reason == ExitRecord.leaseRanOut)
            #expect(try shim.records(shim.log("c1")).map { String(decoding: $0.bytes, as: UTF8.self) }.last == "bye")
            #expect(try status(shim).exit == record)
        }

        @Test func aRenewalMovesTheMoment() throws {
            let shim = try ShimFixture()
            try start(shim, "c1", Self.obedient, lease("c1", 1000))
            for _ in 0..<20 {
                let answer = try shim.request(lease("c1", 1000))
                #expect(answer.container?.status == .running && answer.container?.leaseUntil != nil)
                usleep(100_000)
            }
            #expect(try status(shim).status == .running)
            #expect(try end(shim, "c1").reason == ExitRecord.leaseRanOut)
        }

        @Test func theLastLeaseCountsAlsoWhenItEndsSooner() throws {
            let shim = try ShimFixture()
            try start(shim, "c1", Self.obedient, lease("c1", 3_600_000))
            try shim.request(lease("c1", 10))
            #expect(try end(shim, "c1").exitCode == 9)
        }

        @Test func aReleasedContainerRunsForEver() throws {
            let shim = try ShimFixture()
            try start(shim, "c1", Self.obedient, lease("c1", 1000))
            #expect(try shim.request(.release(container: "c1")).container?.leaseUntil == nil)
            usleep(1_300_000)
            #expect(try status(shim).status == .running)
        }

        @Test func stuckClientsHoldNothingUp() throws {
            let shim = try ShimFixture()
            _ = try shim.create("c1", try shim.bundle("yes"))
            // Without a handler the first process of a pid namespace does not see SIGTERM.
            try shim.request(lease("c1", 1000, grace: 500))
            // A stopped agent: its connections stay open, nothing is read, and one has sent half a request.
            let reader = try shim.open(.attach(ShimAttach(container: "c1")))
            let events = try shim.open(.events)
            let half = try shim.connect()
            try half.send(bytes: [0, 0])
            let program = try ShimFixture.busybox()
            let holder = try Spawn(
                program, ["busybox", "sleep", "1000"], descriptors: [reader.fd.raw, events.fd.raw, half.fd.raw]
            ).start()
            defer {
                kill(holder.pid, SIGKILL)
                _ = try? holder.wait()
            }
            kill(holder.pid, SIGSTOP)
            for client in [reader, events, half] { try client.letGo() }
            try shim.request(.start(container: "c1"))
            let record = try end(shim, "c1")
            #expect(record.signal == SIGKILL && record.reason == ExitRecord.leaseRanOut)
        }

        @Test(arguments: ShimFixture.Runtime.allCases)
        func aFrozenContainerIsThawedForItsSignal(_ runtime: ShimFixture.Runtime) throws {
            let shim = try ShimFixture(runtime)
            try start(shim, "c1", Self.obedient, lease("c1", 1000))
            try shim.request(.pause(container: "c1"))
            let record = try end(shim, "c1")
            #expect(record.exitCode == 9 && record.reason == ExitRecord.leaseRanOut)
        }

        @Test(arguments: ShimFixture.Runtime.allCases)
        func whatIgnoresTheSignalIsKilledAfterTheGrace(_ runtime: ShimFixture.Runtime) throws {
            let shim = try ShimFixture(runtime)
            try start(shim, "c1", Self.stubborn, lease("c1", 500, grace: 500))
            let record = try end(shim, "c1")
            #expect(record.signal == SIGKILL && record.exitCode == 137 && record.reason == ExitRecord.leaseRanOut)
        }

        @Test func aLeaseThatRanOutLongAgoLeavesNoGrace() throws {
            let shim = try ShimFixture()
            try start(shim, "c1", Self.obedient, lease("c1", 3_600_000))
            try shim.request(.pause(container: "c1"))
            // As after a long sleep of the machine.
            try shim.request(lease("c1", -10_000, grace: 5_000))
            let record = try end(shim, "c1")
            #expect(record.signal == SIGKILL && record.reason == ExitRecord.leaseRanOut)
        }

        @Test func whatTheFirstProcessLeavesBehindGoesToo() throws {
            let shim = try ShimFixture()
            let bundle = try shim.bundle("trap 'exit 0' TERM; sleep 300 & while :; do sleep 0.02; done") {
                var linux = $0["linux"]?.objectValue ?? [:]
                linux["namespaces"] = [["type": "mount"]]
                $0["linux"] = .object(linux)
                $0["hostname"] = nil
            }
            _ = try shim.create("c1", bundle)
            try shim.request(lease("c1", 1000))
            try shim.request(.start(container: "c1"))
            #expect(try end(shim, "c1").reason == ExitRecord.leaseRanOut)
            let processes = "\(shim.cgroup("unified"))/cgroup.procs"
            #expect(try shim.eventually { try File.text(processes).isEmpty })
        }

        @Test func noRuntimeIsNeededForTheKill() throws {
            let link = "/tmp/martlet-runtime-\(getpid())"
            symlink(try ShimFixture.Runtime.ours.path(), link)
            defer { unlink(link) }
            let shim = try ShimFixture(runtimePath: link)
            try start(shim, "c1", Self.stubborn, lease("c1", 1000, grace: 200))
            unlink(link)
            #expect(try end(shim, "c1").signal == SIGKILL)
        }

        @Test func whatIsBeingEndedHasNoNewLease() throws {
            let shim = try ShimFixture()
            try start(shim, "c1", Self.stubborn, lease("c1", 3_600_000))
            try shim.request(lease("c1", 0))
            let refusal = try shim.refusal(lease("c1", 60_000))
            #expect(refusal == "cannot lease container c1: its lease ran out, and it is being ended")
            try shim.request(.release(container: "c1"))
            try shim.request(.delete(container: "c1", force: true))
            #expect(try shim.exitRecord("c1").reason == ExitRecord.leaseRanOut)
        }

        @Test func aRenewalThatComesTooLateDoesNotCount() throws {
            let shim = try ShimFixture()
            try start(shim, "c1", Self.obedient, lease("c1", 1500))
            // The shim stands still, as on a suspended machine, while the lease runs out; when it goes on, the renewal
            // lies before it. Half of that was read before, so that it is served before the timer is.
            let bytes = Frame.control(try JSONCoding.encode(try lease("c1", 60_000))).encoded()
            let client = try shim.connect()
            try client.send(bytes: Array(bytes.prefix(20)))
            usleep(200_000)
            kill(shim.pid, SIGSTOP)
            try client.send(bytes: Array(bytes.dropFirst(20)))
            usleep(2_000_000)
            kill(shim.pid, SIGCONT)
            let refusal = #expect(throws: ShimRefusal.self) { try client.response() }
            #expect(refusal?.text.contains("its lease ran out, and it is being ended") == true)
            #expect(try end(shim, "c1").reason == ExitRecord.leaseRanOut)
        }

        @Test func aStartNeedsALeaseThatHolds() throws {
            let shim = try ShimFixture()
            _ = try shim.create("c1", try shim.bundle(Self.obedient))
            try shim.request(lease("c1", 0))
            let refusal = "cannot start container c1: its lease ran out; give it a new one first"
            #expect(try shim.refusal(.start(container: "c1")) == refusal)
            // Nothing of it has run, so nothing is ended.
            #expect(try status(shim).status == .created)
            try shim.request(lease("c1", 1000))
            try shim.request(.start(container: "c1"))
            #expect(try end(shim, "c1").reason == ExitRecord.leaseRanOut)
            // The same for the starts that follow.
            _ = try shim.create("c1", try shim.bundle("exit 4"), start: 2)
            #expect(try shim.refusal(.start(container: "c1")) == refusal)
            try shim.request(lease("c1", 60_000))
            try shim.request(.start(container: "c1"))
            let record = try end(shim, "c1", 2)
            #expect(record.exitCode == 4 && record.reason == nil)
        }

        @Test func leasesAreAFeatureAndSenselessOnesAreRefused() throws {
            let shim = try ShimFixture()
            #expect(try shim.request(.hello).features == [ShimProtocol.leases])
            #expect(try shim.refusal(lease("c1", 1000)) == "there is no container c1")
            #expect(try shim.refusal(.release(container: "c1")) == "there is no container c1")
            #expect(try shim.refusal(lease("c1", 1000, signal: 65)) == "65 is no signal; 1 to 64 are")
        }

        @Test func renewalsCostNoMemory() throws {
            let shim = try ShimFixture()
            try start(shim, "c1", Self.obedient, lease("c1", 60_000))
            func kilobytes() throws -> Int {
                let lines = try File.text("/proc/\(shim.pid)/smaps_rollup").split(separator: "\n")
                return lines.filter { $0.hasPrefix("Anonymous:") }
                    .compactMap { $0.split(separator: " ").dropFirst().first.flatMap { Int($0) } }.reduce(0, +)
            }
            for _ in 0..<20 { try shim.request(lease("c1", 60_000)) }
            let (memory, descriptors) = (try kilobytes(), try shim.descriptors())
            for _ in 0..<500 { try shim.request(lease("c1", 60_000)) }
            #expect(try shim.eventually { try shim.descriptors() <= descriptors })
            #expect(try kilobytes() <= memory + 32)
        }
    }
}
