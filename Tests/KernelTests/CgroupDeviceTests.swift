import CKernel
import Cgroups
import DeviceNodes
import Glibc
import Kernel
import Testing

extension KernelSuite {
    /// Devices that a group may use, with the v1 controller and with a device program.
    @Suite(.serialized) struct CgroupDeviceTests {
        private static let full = DeviceRule(allow: true, .char, major: 1, minor: 7)
        private static let zero = DeviceRule(allow: true, .char, major: 1, minor: 5)

        /// Says which of two devices, which both exist, can be read.
        private static let probe =
            "for d in full zero; do if (: </dev/$d); then echo $d yes; else echo $d no; fi; done"

        private func outcome(_ group: GroupFixture) throws -> String {
            let process = try group.start(Self.probe)
            let text = try process.read()
            _ = try process.wait()
            return text
        }

        private func check(_ layout: CgroupLayout) throws {
            let group = try GroupFixture(layout)
            var text = try outcome(group)
            #expect(text.contains("full yes") && text.contains("zero yes"), "without rules both can be read")
            try group.manager.setDevices([.denyAll, Self.full])
            text = try outcome(group)
            #expect(text.contains("full yes") && text.contains("zero no"), "\(text)")
            #expect(text.contains("Operation not permitted"))
            try group.manager.setDevices([.denyAll, Self.zero])
            text = try outcome(group)
            #expect(text.contains("full no") && text.contains("zero yes"), "\(text)")
            try group.manager.setDevices([.denyAll, Self.zero, Self.full])
            text = try outcome(group)
            #expect(text.contains("full yes") && text.contains("zero yes"), "\(text)")
            try group.manager.setDevices([.denyAll, DeviceRule(allow: true, .all)])
            text = try outcome(group)
            #expect(text.contains("full yes") && text.contains("zero yes"), "\(text)")
        }

        @Test func theOldControllerLetsThroughWhatTheRulesAllow() throws {
            let layout = try GroupFixture.old()
            guard layout.home(of: .devices) != nil else { return }
            try check(layout)
        }

        @Test func theDeviceProgramLetsThroughWhatTheRulesAllow() throws { try check(GroupFixture.unified()) }

        @Test(arguments: ["old", "unified"]) func makingANodeIsAnAccessOfItsOwn(place: String) throws {
            let layout = try place == "old" ? GroupFixture.old() : GroupFixture.unified()
            guard layout.home(of: .devices) != nil else { return }
            let group = try GroupFixture(layout)
            try group.manager.setDevices([.denyAll] + DeviceRule.containerDefaults)
            let directory = "/tmp/martlet-test-\(getpid())"
            mkdir(directory, 0o700)
            defer { _ = try? Tree.remove(directory) }
            let process = try group.start(
                "mknod \(directory)/kmsg c 1 11 && echo made; cat \(directory)/kmsg 2>&1; mknod \(directory)/null c 1 3; "
                    + "echo x > \(directory)/null && echo written")
            let text = try process.read()
            #expect(text.contains("made"))
            #expect(text.contains("Operation not permitted"))
            #expect(text.contains("written"))
            try group.manager.setDevices([.denyAll, Self.full])
            let second = try group.start("mknod \(directory)/zero c 1 5 2>&1")
            #expect(try second.read().contains("Operation not permitted"))
            _ = try process.wait()
            _ = try second.wait()
        }

        /// Nodes of a major that no driver of this machine answers to, made by the process itself: an open that the rules let
        /// through says ENXIO, another one EPERM.
        @Test(arguments: ["old", "unified"]) func devicesAreGivenAndWithdrawnWhileAProcessRuns(place: String) throws {
            let layout = try place == "old" ? GroupFixture.old() : GroupFixture.unified()
            guard layout.home(of: .devices) != nil else { return }
            let drivers = try File.text("/proc/devices")
            guard !drivers.contains("195 ") else { return }
            let group = try GroupFixture(layout)
            let directory = "/tmp/martlet-test-\(getpid())-gpus"
            mkdir(directory, 0o700)
            defer { _ = try? Tree.remove(directory) }
            func grant(_ minors: UInt32...) throws {
                let rules = minors.map {
                    DeviceRule(allow: true, .char, major: 195, minor: $0, access: [.read, .write])
                }
                try group.manager.setDevices([.denyAll] + DeviceRule.containerDefaults + rules)
            }
            func seen(_ turn: String) throws -> String {
                for _ in 0..<6000 where !File.exists("\(directory)/\(turn)") { usleep(5000) }
                return try File.text("\(directory)/\(turn)")
            }
            let (open, closed) = ("No such device or address", "Operation not permitted")
            try grant(1)
            let process = try group.start(
                """
                cd \(directory)
                for minor in 0 1; do mknod n$minor c 195 $minor; done
                for turn in a b c; do
                  for minor in 0 1; do echo $minor $( (: <n$minor) 2>&1 | sed 's/.*: //'); done >$turn.new
                  mv $turn.new $turn
                  while [ ! -e after-$turn ]; do sleep 0.02; done
                done
                """)
            #expect(try seen("a") == "0 \(closed)\n1 \(open)")
            try grant(0)
            try File.replace("\(directory)/after-a", with: [])
            #expect(try seen("b") == "0 \(open)\n1 \(closed)")
            try grant()
            try File.replace("\(directory)/after-b", with: [])
            #expect(try seen("c") == "0 \(closed)\n1 \(closed)")
            try File.replace("\(directory)/after-c", with: [])
            _ = try process.wait()
        }

        @Test func aGroupHasOneProgramOfOursHoweverOftenRulesAreSet() throws {
            let group = try GroupFixture(GroupFixture.unified())
            let directory = try File.open(try #require(group.manager.unifiedDirectory), O_RDONLY | O_DIRECTORY)
            for _ in 0..<5 { try group.manager.setDevices([.denyAll, Self.full]) }
            #expect(try attachedPrograms(directory) == 1)
            try group.manager.setDevices([DeviceRule(allow: true, .all)])
            #expect(try attachedPrograms(directory) == 0)
        }

        @Test func aProgramOfSomebodyElseStays() throws {
            let group = try GroupFixture(GroupFixture.unified())
            try group.manager.setDevices([.denyAll, Self.full])
            let inner = try group.manager.child("inner")
            try inner.create()
            try inner.setDevices([.denyAll, Self.zero, Self.full])
            let process = try ScriptProcess(Self.probe)
            try inner.place(process.child.pid)
            try process.release()
            let text = try process.read()
            #expect(text.contains("full yes") && text.contains("zero no"), "the outer group's rules hold too: \(text)")
            _ = try process.wait()
        }

        @Test func aHoleInARangeIsRefusedByTheOldControllerAndHeldByTheProgram() throws {
            let rules: [DeviceRule] = [
                .denyAll, DeviceRule(allow: true, .char, major: 1), DeviceRule(allow: false, .char, major: 1, minor: 5),
            ]
            let unified = try GroupFixture(GroupFixture.unified())
            try unified.manager.setDevices(rules)
            let text = try outcome(unified)
            #expect(text.contains("full yes") && text.contains("zero no"))
            let layout = try GroupFixture.old()
            guard layout.home(of: .devices) != nil else { return }
            let old = try GroupFixture(layout)
            let error = #expect(throws: CgroupError.self) { try old.manager.setDevices(rules) }
            #expect(error?.kind == .unsupported)
            #expect(error.map { "\($0)".contains("c 1:5") } == true)
        }

        private func attachedPrograms(_ directory: borrowing OwnedFD) throws -> UInt32 {
            var attributes = bpf_attr()
            attributes.query.target_fd = UInt32(directory.raw)
            attributes.query.attach_type = BPF_CGROUP_DEVICE.rawValue
            let size = UInt32(MemoryLayout<bpf_attr>.size)
            try systemCall("bpf") { ck_bpf(Int32(BPF_PROG_QUERY.rawValue), &attributes, size) }
            return attributes.query.prog_cnt
        }
    }

    /// Device nodes made in a directory.
    @Suite(.serialized) struct DeviceNodeTests {
        private func inDirectory(_ body: (String, Int32) throws -> Void) throws {
            let path = "/tmp/martlet-nodes-\(getpid())"
            mkdir(path, 0o700)
            defer { _ = try? Tree.remove(path) }
            let directory = try File.open(path, Int32(CK_O_PATH) | O_DIRECTORY)
            try body(path, directory.raw)
        }

        @Test func defaultNodesAreMadeWithTheirNumbersAndModes() throws {
            try inDirectory { path, directory in
                for node in DeviceNode.containerDefaults {
                    try node.create(in: directory)
                    try node.create(in: directory)
                    let made = try DeviceNode.discover(path + node.path.dropFirst(4))
                    #expect(made.major == node.major && made.minor == node.minor && made.mode == 0o666)
                }
            }
        }

        @Test func ownerModeAndKindAreAsAsked() throws {
            try inDirectory { path, directory in
                let node = DeviceNode("/dev/x", .block, major: 7, minor: 3, mode: 0o640, uid: 12, gid: 34)
                try node.create(in: directory)
                let made = try DeviceNode.discover("\(path)/x")
                #expect(made.kind == .block && made.major == 7 && made.minor == 3)
                #expect(made.mode == 0o640 && made.uid == 12 && made.gid == 34)
                try DeviceNode("/dev/pipe", .fifo, major: 9, minor: 9, mode: 0o600).create(in: directory)
                var information = stat()
                #expect(lstat("\(path)/pipe", &information) == 0 && information.st_mode & S_IFMT == S_IFIFO)
            }
        }

        @Test func aNodeWithAnotherModeIsMendedThroughProcfs() throws {
            try inDirectory { path, directory in
                try DeviceNode("/dev/null", .char, major: 1, minor: 3, mode: 0o600).create(in: directory)
                let node = DeviceNode("/dev/null", .char, major: 1, minor: 3, mode: 0o666)
                #expect(throws: DeviceError.self) { try node.create(in: directory) }
                let procfs = try File.open("/proc", Int32(CK_O_PATH) | O_DIRECTORY)
                try node.create(in: directory, procfs: procfs.raw)
                #expect(try DeviceNode.discover("\(path)/null").mode == 0o666)
            }
        }

        @Test func whatHasTheNameAlreadyIsNotTakenForTheDevice() throws {
            try inDirectory { path, directory in
                let node = DeviceNode("/dev/null", .char, major: 1, minor: 3)
                try DeviceNode("/dev/null", .char, major: 1, minor: 5).create(in: directory)
                #expect(throws: DeviceError.self) { try node.create(in: directory) }
                unlink("\(path)/null")
                symlink("/dev/null", "\(path)/null")
                let error = #expect(throws: DeviceError.self) { try node.create(in: directory) }
                #expect(error?.errno == EEXIST)
            }
        }

        @Test(arguments: ["/", "/dev/..", "", "."]) func aPathWithoutANameIsRefused(path: String) throws {
            try inDirectory { _, directory in
                #expect(throws: DeviceError.self) {
                    try DeviceNode(path, .char, major: 1, minor: 3).create(in: directory)
                }
            }
        }

        @Test func numbersThatDoNotFitAreRefused() throws {
            try inDirectory { _, directory in
                let error = #expect(throws: DeviceError.self) {
                    try DeviceNode("/dev/x", .char, major: 4096, minor: 0).create(in: directory)
                }
                #expect(error.map { "\($0)".contains("4096") } == true)
            }
        }
    }
}
