import CKernel
import Glibc
import JSON
import Kernel
import ShimProtocol
import StreamFrames
import Testing

extension KernelSuite {
    /// Whatever clients and disks do, the shim serves on.
    @Suite(.serialized) struct ShimAbuseTests {
        private func refusal(_ shim: ShimFixture, _ bytes: [UInt8]) throws -> String? {
            let client = try shim.connect()
            try client.send(bytes: bytes)
            guard case .error(let text)? = try client.next() else { return nil }
            #expect(try client.next() == nil)
            return text
        }

        private func refusal(_ shim: ShimFixture, json: String) throws -> String? {
            try refusal(shim, Frame.control(Array(json.utf8)).encoded())
        }

        @Test func garbageEndsOnlyItsOwnConnection() throws {
            let shim = try ShimFixture()
            #expect(
                try refusal(shim, Array("GET / HTTP/1.1\r\n\r\n".utf8))?.contains("frame kind 71 is not known") == true)
            #expect(try refusal(shim, [8, 1, 0, 0, 0, 0, 0, 0])?.contains("flags") == true)
            #expect(try refusal(shim, [8, 0, 0, 0, 0, 16, 0, 1])?.contains("instead of at most 1048576") == true)
            #expect(try refusal(shim, Frame.stdin([1]).encoded())?.contains("expected a control frame") == true)
            #expect(try refusal(shim, json: "{")?.contains("the request is not understood") == true)
            #expect(try refusal(shim, json: "{}")?.contains("$.op: the member is missing") == true)
            #expect(try refusal(shim, json: #"{"op":"explode"}"#)?.contains("no operation \"explode\"") == true)
            #expect(
                try refusal(shim, json: #"{"op":"start","container":7}"#)?.contains("$.container: expected a string")
                    == true)
            #expect(try refusal(shim, json: #"{"op":"start","container":"none"}"#) == "there is no container none")
            let deep = String(repeating: "[", count: 100_000)
            #expect(try refusal(shim, json: deep)?.contains("deeper than") == true)
            // A newer client's unknown field is no mistake.
            let client = try shim.connect()
            try client.send(.control(Array(#"{"op":"hello","color":"red"}"#.utf8)))
            #expect(try client.response().version == ShimProtocol.version)
        }

        @Test(arguments: ["", "-x", "../x", "a/b", ".", "a b", "ä", String(repeating: "x", count: 129), "a\0b"])
        func idsThatCouldMeanSomethingElseAreRefused(_ id: String) throws {
            let shim = try ShimFixture()
            #expect(
                try shim.refusal(
                    .create(
                        ShimCreate(
                            container: id, start: 1, bundle: "/tmp", exitPath: "/tmp/x")))?.contains(
                        "is no container id") == true)
        }

        @Test func requestsThatMakeNoSenseAreRefusedByName() throws {
            let shim = try ShimFixture()
            func refusal(_ change: (inout ShimCreate) -> Void) throws -> String {
                var spec = ShimCreate(container: "c", start: 1, bundle: "/tmp", exitPath: "/tmp/x")
                change(&spec)
                return try shim.refusal(.create(spec)) ?? ""
            }
            #expect(try refusal { $0.start = 0 }.contains("start number 0"))
            #expect(try refusal { $0.bundle = "b" }.contains("bundle of container c is not an absolute path"))
            #expect(try refusal { $0.exitPath = "e" }.contains("exitPath"))
            #expect(try refusal { $0.logPath = "l" }.contains("logPath"))
            #expect(try refusal { $0.logMaxBytes = -1 }.contains("logMaxBytes"))
            #expect(try refusal { $0.cgroups = ["x"] }.contains("cgroups"))
            symlink("/etc/passwd", shim.log("c"))
            #expect(try refusal { $0.logPath = shim.log("c") }.contains("Too many levels of symbolic links"))
        }

        @Test func aStreamsClientThatTalksNonsenseIsDroppedAndTheProcessGoesOn() throws {
            let shim = try ShimFixture()
            _ = try shim.create("c1", try shim.bundle("cat"), stdin: true)
            try shim.request(.start(container: "c1"))
            for nonsense in [Frame.exit(3).encoded(), Frame.control([]).encoded(), [9, 9, 9], Frame.end(1).encoded()] {
                let client = try shim.open(.attach(ShimAttach(container: "c1", stdin: true)))
                try client.send(bytes: nonsense)
                guard case .error? = try client.next() else {
                    Issue.record("\(nonsense) is not refused")
                    continue
                }
            }
            let client = try shim.open(.attach(ShimAttach(container: "c1", stdin: true)))
            try client.send(.stdin(Array("alive\n".utf8)))
            #expect(try client.expect("alive"))
        }

        @Test func connectionsLeaveNothingBehind() throws {
            let shim = try ShimFixture()
            _ = try shim.create("c1", try shim.bundle("yes")) { $0.logPath = nil }
            try shim.request(.start(container: "c1"))
            #expect(try shim.eventually { try shim.request(.hello).ok && true })
            usleep(100_000)
            let before = try shim.descriptors()
            for round in 0..<200 {
                let client = try shim.connect()
                switch round % 5 {
                case 0: break
                case 1: try client.send(bytes: [8, 0, 0])
                case 2: try client.send(.hello)
                case 3: try client.send(.events)
                default:
                    // Gone in the middle of a stream of output, with bytes unread.
                    try client.send(.attach(ShimAttach(container: "c1")))
                    _ = try client.response()
                    _ = try client.receive(1000)
                }
            }
            #expect(try shim.eventually { try shim.descriptors() == before })
            #expect(try shim.request(.state).containers?.first?.status == .running)
        }

        @Test func connectionsAreBounded() throws {
            let shim = try ShimFixture()
            var clients: [ShimClient] = []
            for _ in 0..<ShimProtocol.connectionLimit { clients.append(try shim.open(.events)) }
            let refused = try shim.connect()
            guard case .error(let text)? = try refused.next() else {
                Issue.record("connection \(clients.count + 1) is not refused")
                return
            }
            #expect(text.contains("256 connections"))
            clients = []
            #expect(shim.eventually { (try? shim.request(.hello)) != nil })
        }

        @Test func aKilledClientProcessHarmsNothing() throws {
            let shim = try ShimFixture()
            _ = try shim.create("c1", try shim.bundle("yes")) { $0.logPath = nil }
            try shim.request(.start(container: "c1"))
            // A process of its own that holds the only descriptor of a stream and is killed while it is blocked.
            let client = try shim.open(.attach(ShimAttach(container: "c1")))
            let busybox = try ShimFixture.busybox()
            let holder = try Spawn(busybox, ["sleep", "100"], descriptors: [client.fd.raw, -1, -1]).start()
            let before = try shim.descriptors()
            try client.letGo()
            usleep(200_000)
            try holder.signal(SIGKILL)
            _ = try holder.wait()
            #expect(try shim.eventually { try shim.descriptors() == before - 1 })
            #expect(try shim.request(.state).containers?.first?.status == .running)
        }

        @Test func aSecondShimOnOneSocketIsRefusedAndADeadOnesSocketIsTakenOver() throws {
            let shim = try ShimFixture()
            let options = ShimOptions(
                socket: shim.socket, runtime: "/bin/true", runtimeRoot: shim.directory, taskID: "t", readyFD: 3)
            func start() throws -> (answer: String, pid: pid_t) {
                var ends: [Int32] = [-1, -1]
                try systemCall("pipe2") { pipe2(&ends, O_CLOEXEC) }
                let read = OwnedFD(adopting: ends[0])
                let program = try ShimFixture.program("martlet-shim")
                let child = try Spawn(
                    program, [program] + options.arguments, descriptors: [-1, -1, -1, ends[1]]
                ).start()
                close(ends[1])
                return (String(decoding: try read.readAll(limit: 4096), as: UTF8.self), child.pid)
            }
            let second = try start()
            #expect(second.answer.contains("another shim serves this task"))
            waitpid(second.pid, nil, 0)
            kill(shim.pid, SIGKILL)
            #expect(shim.waitForEnd(milliseconds: 5000))
            let third = try start()
            #expect(third.answer == ShimProtocol.ready)
            kill(third.pid, SIGKILL)
            waitpid(third.pid, nil, 0)
        }

        // MARK: Disks

        /// A file system of so many bytes that is mounted for the time of `body`.
        private func withSmallDisk(_ bytes: Int, in directory: String, _ body: (String) throws -> Void) throws {
            let path = "\(directory)/disk"
            try File.makeDirectories(path)
            try systemCall("mount", path) { mount("tmpfs", path, "tmpfs", 0, "size=\(bytes)") }
            defer { umount2(path, Int32(MNT_DETACH)) }
            try body(path)
        }

        /// Takes all space that is left.
        private func fill(_ disk: String) throws {
            let file = try File.open("\(disk)/filler", O_WRONLY | O_CREAT | O_APPEND)
            let block = [UInt8](repeating: 0, count: 4096)
            while write(file.raw, block, block.count) > 0 {}
        }

        @Test func aFullDiskHoldsNoContainerUpAndTheLogSaysWhatIsMissing() throws {
            let shim = try ShimFixture()
            try withSmallDisk(256 << 10, in: shim.directory) { disk in
                let script = "echo before; read x; seq 1 50000; echo middle >&2; read x; echo after"
                _ = try shim.create("c1", try shim.bundle(script), stdin: true) { $0.logPath = "\(disk)/c1.log" }
                let client = try shim.open(.attach(ShimAttach(container: "c1", stdin: true)))
                try shim.request(.start(container: "c1"))
                #expect(try client.expect("before"))
                try fill(disk)
                try client.send(.stdin([10]))
                #expect(try client.expect("50000"))
                #expect(try client.expect("middle"))
                let lost = try #require(try shim.request(.state).containers?.first?.logLinesLost)
                #expect(lost > 40_000 && lost <= 50_001)
                try File.removeFile("\(disk)/filler")
                try client.send(.stdin([10]))
                #expect(try client.output() == ShimOutput(stdout: "after\n", stderr: "", code: 0))
                let lines = try shim.records("\(disk)/c1.log").map { String(decoding: $0.bytes, as: UTF8.self) }
                #expect(lines.first == "before")
                let notice = "[martlet] \(lost) lines of output are missing here: No space left on device"
                #expect(lines.contains(notice) && lines.last == "after")
                // Every line is in the log or counted: before, 50000 numbers, middle, after; and the notice.
                #expect(lines.count + Int(lost) == 50_003 + 1)
            }
        }

        @Test func anExitRecordWaitsForSpaceAndIsAnnouncedAllTheSame() throws {
            let shim = try ShimFixture()
            try withSmallDisk(64 << 10, in: shim.directory) { disk in
                _ = try shim.create("c1", try shim.bundle("exit 3")) { $0.exitPath = "\(disk)/exit.json" }
                try fill(disk)
                let client = try shim.open(.attach(ShimAttach(container: "c1")))
                try shim.request(.start(container: "c1"))
                #expect(try client.output().code == 3)
                let state = try #require(try shim.request(.state).containers?.first)
                #expect(state.exit?.exitCode == 3 && state.recordError?.contains("No space left") == true)
                #expect(!File.exists("\(disk)/exit.json"))
                try File.removeFile("\(disk)/filler")
                #expect(shim.eventually { File.exists("\(disk)/exit.json") })
                #expect(try JSONCoding.decode(ExitRecord.self, from: File.read("\(disk)/exit.json")).exitCode == 3)
                #expect(try shim.request(.state).containers?.first?.recordError == nil)
            }
        }
    }
}
