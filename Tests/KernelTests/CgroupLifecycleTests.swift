import CKernel
import Cgroups
import Glibc
import Kernel
import Testing

extension KernelSuite {
    /// Groups of the kernel: made, filled, stopped, emptied, removed.
    @Suite(.serialized) struct CgroupLifecycleTests {
        /// The host as it is, its v1 hierarchies alone, its cgroup2 alone.
        static let layouts: [@Sendable () throws -> CgroupLayout] = [
            { try GroupFixture.host() }, { try GroupFixture.old() }, { try GroupFixture.unified() },
        ]

        /// The places above that this host has.
        static func present() -> [Int] { layouts.indices.filter { (try? layouts[$0]().hierarchies.isEmpty) == false } }

        @Test(arguments: present()) func aGroupIsMadeEverywhereAndRemovedAgain(place: Int) throws {
            let group = try GroupFixture(Self.layouts[place]())
            for directory in group.manager.directories { #expect(File.exists(directory)) }
            #expect(try group.manager.isEmpty())
            try group.manager.create()
            try group.manager.delete()
            for directory in group.manager.directories { #expect(!File.exists(directory)) }
            #expect(!group.manager.exists())
            try group.manager.delete()
        }

        @Test func aProcessIsMovedInEveryHierarchy() throws {
            let group = try GroupFixture(GroupFixture.host())
            let process = try group.start("cat /proc/self/cgroup; echo end; sleep 1000")
            let lines = try process.read(until: "end").split(separator: "\n").filter { $0.contains(":") }
            #expect(lines.count >= group.manager.directories.count)
            for line in lines { #expect(line.hasSuffix(":" + group.manager.path), "\(line)") }
            #expect(try group.manager.processes().contains(process.child.pid))
            #expect(try !group.manager.isEmpty())
        }

        @Test func aProcessCanBeStartedInTheUnifiedGroup() throws {
            let group = try GroupFixture(GroupFixture.host())
            let descriptor = try group.descriptor()
            let process = try ScriptProcess("cat /proc/self/cgroup", cgroup: descriptor.raw)
            try group.manager.place(process.child.pid)
            try process.release()
            for line in try process.read().split(separator: "\n") { #expect(line.hasSuffix(":" + group.manager.path)) }
            #expect(try process.wait() == .exited(0))
        }

        @Test func aGroupThatSomebodyUsesIsNotVacant() throws {
            let group = try GroupFixture(GroupFixture.host())
            try group.manager.requireVacant()
            try group.manager.freeze()
            #expect(throws: CgroupError.self) { try group.manager.requireVacant() }
            try group.manager.thaw()
            let process = try group.start("sleep 1000")
            let error = #expect(throws: CgroupError.self) { try group.manager.requireVacant() }
            #expect(error?.kind == .busy)
            #expect(error.map { "\($0)".contains(String(process.child.pid)) } == true)
        }

        @Test func aGroupWithAProcessIsNotRemovedAndTheErrorNamesIt() throws {
            let group = try GroupFixture(GroupFixture.host())
            let process = try group.start("sleep 1000")
            let error = #expect(throws: CgroupError.self) { try group.manager.delete(timeoutMilliseconds: 20) }
            #expect(error?.kind == .busy)
            #expect(error.map { "\($0)".contains("/martlet-test-") } == true)
            #expect(error.map { "\($0)".contains(String(process.child.pid)) } == true)
        }

        @Test(arguments: present()) func subgroupsGoWithTheGroup(place: Int) throws {
            let group = try GroupFixture(Self.layouts[place]())
            try group.manager.child("a").create()
            try group.manager.child("a").child("b").create()
            try group.manager.child("c").create()
            try group.manager.delete()
            #expect(!group.manager.exists())
        }

        @Test(arguments: present()) func groupsThatAContainerMadeAreFoundAndGo(place: Int) throws {
            let group = try GroupFixture(Self.layouts[place]())
            // No text, and together longer than a path may be.
            let name = [0xff] + [UInt8](repeating: UInt8(ascii: "n"), count: 59)
            let process = try ScriptProcess("sleep 1000")
            for directory in group.manager.directories {
                var here = try File.open(directory, O_RDONLY | O_DIRECTORY)
                for level in 1...100 {
                    try systemCall("mkdirat") { ByteName.with(name) { mkdirat(here.raw, $0, 0o755) } }
                    here = try ByteName.openEntry(name, of: here.raw, O_RDONLY | O_DIRECTORY)
                    guard level == 2 else { continue }
                    let members = try ByteName.openEntry(Array("cgroup.procs".utf8), of: here.raw, O_WRONLY)
                    // A new cpuset of v1 has no processors and takes nobody.
                    try? Descriptor.writeAll(members.raw, Array("\(process.child.pid)".utf8))
                }
            }
            #expect(try group.manager.processes().contains(process.child.pid))
            let error = #expect(throws: CgroupError.self) { try group.manager.delete(timeoutMilliseconds: 20) }
            #expect(error.map { "\($0)".contains(String(process.child.pid)) } == true)
            try process.child.signal(SIGKILL)
            try group.manager.delete()
            #expect(!group.manager.exists())
        }

        @Test func whatWasMadeIsRemovedWhenAHierarchyCannotBeWritten() throws {
            let good = try #require(try GroupFixture.host().hierarchies.first)
            let broken = CgroupHierarchy(mountPoint: "/proc/sys", version: .v2, controllers: [])
            let manager = try CgroupManager(layout: CgroupLayout([good, broken]), path: "/martlet-test-undo/x")
            let error = #expect(throws: CgroupError.self) { try manager.create() }
            #expect(error.map { "\($0)".contains("/proc/sys/martlet-test-undo") } == true)
            #expect(!File.exists("\(good.mountPoint)/martlet-test-undo"))
        }

        @Test(arguments: present()) func aFrozenGroupStandsStillUntilItIsThawed(place: Int) throws {
            let layout = try Self.layouts[place]()
            let group = try GroupFixture(layout)
            let process = try group.start("while :; do echo tick; done")
            _ = try process.read(until: "tick")
            try group.manager.freeze()
            #expect(try group.manager.isFrozen())
            while process.isWriting(within: 0) {}
            #expect(!process.isWriting(within: 50))
            try group.manager.thaw()
            #expect(try !group.manager.isFrozen())
            #expect(process.isWriting(within: 10_000))
        }

        @Test(arguments: present()) func aGroupThatForksAllTheTimeFreezes(place: Int) throws {
            let group = try GroupFixture(Self.layouts[place]())
            let process = try group.start("echo begun; while :; do (:) ; (:) & wait; done")
            _ = try process.read(until: "begun")
            for _ in 0..<10 {
                try group.manager.freeze()
                #expect(try group.manager.isFrozen())
                try group.manager.thaw()
            }
        }

        @Test(arguments: present()) func everythingInAGroupIsKilled(place: Int) throws {
            let group = try GroupFixture(Self.layouts[place]())
            let process = try group.start(
                "trap '' TERM INT; setsid sh -c 'sleep 1000 & sleep 1000' & echo begun; while :; do sleep 0.01 & done")
            _ = try process.read(until: "begun")
            // Beside a process v2 passes no controllers on: the sub-group comes after it.
            let inner = try group.manager.child("inner")
            try inner.create()
            let nested = try ScriptProcess("sleep 1000")
            try inner.place(nested.child.pid)
            try nested.release()
            #expect(try group.manager.processes().contains(nested.child.pid))
            #expect(try !group.manager.processes(recursive: false).contains(nested.child.pid))
            try group.manager.kill()
            #expect(try group.manager.isEmpty())
            #expect(try process.wait() == .signaled(SIGKILL))
            #expect(try nested.wait() == .signaled(SIGKILL))
            try group.manager.delete()
        }

        @Test func aGroupBelowOneWithProcessesIsNoPartOfAThreadedDomain() throws {
            let group = try GroupFixture(GroupFixture.unified())
            let process = try group.start("echo begun; sleep 1000")
            _ = try process.read(until: "begun")
            let inner = try group.manager.child("inner")
            try inner.create()
            #expect(try File.text("\(try #require(inner.unifiedDirectory))/cgroup.type") == "domain")
        }

        @Test(arguments: present()) func aFrozenGroupIsKilled(place: Int) throws {
            let group = try GroupFixture(Self.layouts[place]())
            let process = try group.start("echo begun; sleep 1000")
            _ = try process.read(until: "begun")
            try group.manager.freeze()
            try group.manager.kill()
            #expect(try process.wait() == .signaled(SIGKILL))
            try group.manager.delete()
        }

        @Test func aGroupThatTheOldFreezerStoppedIsKilledAndThawed() throws {
            let host = try GroupFixture.host()
            let group = try GroupFixture(host)
            guard host.hierarchies.contains(where: { $0.version == .v1 && $0.controllers.contains(.freezer) }) else {
                return
            }
            let old = try CgroupManager(layout: GroupFixture.old(), path: group.manager.path)
            let process = try group.start("echo begun; sleep 1000")
            _ = try process.read(until: "begun")
            try old.freeze()
            #expect(try group.manager.isFrozen())
            try group.manager.thaw()
            #expect(try !group.manager.isFrozen())
            try old.freeze()
            try group.manager.kill()
            #expect(try process.wait() == .signaled(SIGKILL))
        }

        @Test func aSignalReachesEveryProcess() throws {
            let group = try GroupFixture(GroupFixture.host())
            let process = try group.start("trap 'echo first; exit 3' USR1; echo begun; while :; do sleep 0.01; done")
            let other = try group.start("trap 'echo second; exit 4' USR1; echo begun; while :; do sleep 0.01; done")
            _ = try process.read(until: "begun")
            _ = try other.read(until: "begun")
            try group.manager.signalAll(SIGUSR1)
            // A shell whose sleep was signalled with it takes its trap; the sleep itself dies.
            #expect(try process.wait() == .exited(3))
            #expect(try other.wait() == .exited(4))
        }

        @Test func aProcessThatEndedLeavesAnEmptyGroupEvenBeforeItIsReaped() throws {
            let group = try GroupFixture(GroupFixture.host())
            let process = try group.start("exit 0")
            // Readable once it has ended, without reaping it.
            var request = pollfd(fd: process.child.pidfd.raw, events: Int16(POLLIN), revents: 0)
            #expect(poll(&request, 1, 10_000) == 1)
            #expect(try group.manager.isEmpty())
            try group.manager.delete()
            #expect(try process.wait() == .exited(0))
        }

        @Test func aNewcomerJoinsTheSubgroupOfTheFirstProcess() throws {
            let host = try GroupFixture.host()
            let unified = try #require(host.unified)
            guard let controller = unified.controllers.first?.unifiedName else { return }
            let group = try GroupFixture(host)
            let inner = try group.manager.child("init")
            try inner.create()
            let first = try ScriptProcess("echo begun; sleep 1000")
            try inner.place(first.child.pid)
            try first.release()
            _ = try first.read(until: "begun")
            let directory = try #require(group.manager.unifiedDirectory)
            try File.writeControl("\(directory)/cgroup.subtree_control", "+\(controller)")
            let descriptor = try group.descriptor(beside: first.child.pid)
            let third = try ScriptProcess("cat /proc/self/cgroup", cgroup: descriptor.raw)
            try third.release()
            #expect(try third.read().contains("0::\(group.manager.path)/init\n"))
            #expect(try third.wait() == .exited(0))
            try group.manager.kill()
            #expect(try first.wait() == .signaled(SIGKILL))
        }
    }
}
