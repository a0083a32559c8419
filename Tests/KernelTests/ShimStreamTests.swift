import Glibc
import JSON
import Kernel
import ShimProtocol
import StreamFrames
import Testing

extension KernelSuite {
    @Suite(.serialized) struct ShimStreamTests {
        @Test func halfCloseEndsTheInput() throws {
            let shim = try ShimFixture()
            _ = try shim.create("c1", try shim.bundle("cat; echo end"), stdin: true)
            let client = try shim.open(.attach(ShimAttach(container: "c1", stdin: true)))
            try shim.request(.start(container: "c1"))
            try client.send(.stdin(Array("hello\n".utf8)))
            #expect(try client.expect("hello\n"))
            try client.send(.stdin(Array("bye\n".utf8)))
            try client.send(.end(0))
            #expect(try client.output() == ShimOutput(stdout: "bye\nend\n", stderr: "", code: 0))
        }

        @Test func inputStaysOpenWhenAClientOnlyDisconnectsOrIsNotTheOneToCloseIt() throws {
            let shim = try ShimFixture()
            _ = try shim.create("c1", try shim.bundle("cat"), stdin: true)
            _ = try shim.create("c2", try shim.bundle("cat"), stdin: true) { $0.stdinOnce = false }
            for id in ["c1", "c2"] { try shim.request(.start(container: id)) }
            do {
                let first = try shim.open(.attach(ShimAttach(container: "c1", stdin: true)))
                try first.send(.stdin(Array("a\n".utf8)))
                #expect(try first.expect("a\n"))
                let second = try shim.open(.attach(ShimAttach(container: "c2", stdin: true)))
                try second.send(.end(0))
                let watcher = try shim.open(.attach(ShimAttach(container: "c1", stdin: false)))
                try watcher.send(.stdin(Array("not mine\n".utf8)))
                try watcher.send(.end(0))
            }
            for id in ["c1", "c2"] {
                let client = try shim.open(.attach(ShimAttach(container: id, stdin: true)))
                try client.send(.stdin(Array("still here\n".utf8)))
                #expect(try client.expect("still here\n"))
            }
        }

        @Test func withoutStdinTheInputIsEmpty() throws {
            let shim = try ShimFixture()
            #expect(try shim.run("c1", "cat; echo end") == ShimOutput(stdout: "end\n", stderr: "", code: 0))
        }

        @Test func severalClientsSeeTheSameAndEachOnlyWhatItAskedFor() throws {
            let shim = try ShimFixture()
            _ = try shim.create("c1", try shim.bundle("read x; echo $x; echo e >&2"), stdin: true)
            let all = try (0..<3).map { _ in try shim.open(.attach(ShimAttach(container: "c1", stdin: true))) }
            let errors = try shim.open(.attach(ShimAttach(container: "c1", stdout: false)))
            try shim.request(.start(container: "c1"))
            try all[1].send(.stdin(Array("x\n".utf8)))
            for client in all { #expect(try client.output() == ShimOutput(stdout: "x\n", stderr: "e\n", code: 0)) }
            #expect(try errors.output() == ShimOutput(stdout: "", stderr: "e\n", code: 0))
        }

        @Test func aLateClientGetsTheExitAtOnce() throws {
            let shim = try ShimFixture()
            #expect(try shim.run("c1", "exit 4").code == 4)
            let late = try shim.open(.attach(ShimAttach(container: "c1")))
            #expect(try late.output() == ShimOutput(code: 4))
        }

        @Test func aSlowClientLosesNothing() throws {
            let shim = try ShimFixture()
            _ = try shim.create("c1", try shim.bundle("seq 1 2700000")) { $0.logPath = nil }
            let client = try shim.open(.attach(ShimAttach(container: "c1")))
            try shim.request(.start(container: "c1"))
            var (expected, total, rounds, code): (Int, Int, Int, Int32?) = (1, 0, 0, nil)
            var rest: [UInt8] = []
            while let frame = try client.next() {
                switch frame {
                case .stdout(let bytes):
                    rounds += 1
                    // Slow at first, so that everything between us and the process fills up.
                    if rounds < 40 { usleep(10_000) }
                    total += bytes.count
                    rest += bytes
                    let end = rest.lastIndex(of: 10) ?? -1
                    for line in rest[..<(end + 1)].split(separator: 10) {
                        guard line.elementsEqual(String(expected).utf8) else {
                            Issue.record("line \(expected) is \(String(decoding: line, as: UTF8.self))")
                            return
                        }
                        expected += 1
                    }
                    rest.removeFirst(end + 1)
                case .exit(let number): code = number
                default: Issue.record("unexpected \(frame)")
                }
            }
            #expect(total > 20_000_000 && expected == 2_700_001 && code == 0)
        }

        @Test func aClientThatTakesNothingHoldsTheProcessNotTheShimsMemory() throws {
            let shim = try ShimFixture()
            _ = try shim.create("c1", try shim.bundle("yes")) { $0.logPath = nil }
            let stuck = try shim.open(.attach(ShimAttach(container: "c1")))
            try shim.request(.start(container: "c1"))
            usleep(500_000)
            let status = try #require(try Proc.status(shim.pid))
            let resident = try #require(status["RssAnon"]?.split(separator: " ").first.flatMap { Int($0) })
            #expect(resident < 4096)
            // Others are served meanwhile, and its end releases the process.
            #expect(try shim.request(.hello).pid == shim.pid)
            withExtendedLifetime(stuck) {}
        }

        @Test func muchInputIsDeliveredAsFastAsItIsRead() throws {
            let shim = try ShimFixture()
            _ = try shim.create("c1", try shim.bundle("sleep 0.5; wc -c"), stdin: true)
            let client = try shim.open(.attach(ShimAttach(container: "c1", stdin: true)))
            try shim.request(.start(container: "c1"))
            let block = [UInt8](repeating: 120, count: 100_000)
            for _ in 0..<50 { try client.send(.stdin(block)) }
            try client.send(.end(0))
            #expect(try client.output().stdout == "5000000\n")
        }

        @Test func inputForAProcessThatReadsNoneIsDropped() throws {
            let shim = try ShimFixture()
            _ = try shim.create("c1", try shim.bundle("exec <&-; sleep 0.5; echo done"), stdin: true)
            let client = try shim.open(.attach(ShimAttach(container: "c1", stdin: true)))
            try shim.request(.start(container: "c1"))
            for _ in 0..<50 { try client.send(.stdin([UInt8](repeating: 120, count: 60_000))) }
            #expect(try client.output().stdout == "done\n")
        }

        // MARK: Terminals

        @Test(arguments: ShimFixture.Runtime.allCases)
        func aTerminalHasASizeAndEchoes(_ runtime: ShimFixture.Runtime) throws {
            let shim = try ShimFixture(runtime)
            let bundle = try shim.bundle("stty size; read x; stty size; echo got $x; exit 9", terminal: true)
            _ = try shim.create("c1", bundle, terminal: true, stdin: true)
            let client = try shim.open(.attach(ShimAttach(container: "c1", stdin: true)))
            try shim.request(.resize(container: "c1", columns: 101, rows: 33))
            try shim.request(.start(container: "c1"))
            #expect(try client.expect("33 101\r\n"))
            try client.send(.resize(columns: 80, rows: 24))
            try client.send(.stdin(Array("abc\r".utf8)))
            // The terminal echoes the input; stderr and stdout are one.
            #expect(try client.output() == ShimOutput(stdout: "abc\r\n24 80\r\ngot abc\r\n", stderr: "", code: 9))
            #expect(try shim.refusal(.resize(container: "c1", columns: 1, rows: 1)) != nil)
        }

        @Test func controlCInterruptsATerminalsProcess() throws {
            let shim = try ShimFixture()
            let bundle = try shim.bundle("trap 'exit 42' INT; echo ready; while :; do sleep 0.1; done", terminal: true)
            _ = try shim.create("c1", bundle, terminal: true, stdin: true)
            let client = try shim.open(.attach(ShimAttach(container: "c1", stdin: true)))
            try shim.request(.start(container: "c1"))
            #expect(try client.expect("ready"))
            try client.send(.stdin([3]))
            #expect(try client.output().code == 42)
        }

        // MARK: Exec

        private func running(_ shim: ShimFixture) throws {
            _ = try shim.create("c1", try shim.bundle("exec sleep 1000"))
            try shim.request(.start(container: "c1"))
        }

        private func exec(
            _ arguments: [String], id: String = "e1", terminal: Bool = false, stdin: Bool = false, deadline: Int? = nil
        ) -> ShimRequest {
            .exec(
                ShimExec(
                    container: "c1", execID: id, process: ShimFixture.process(arguments, terminal: terminal),
                    terminal: terminal, stdin: stdin, deadlineSeconds: deadline))
        }

        @Test(arguments: ShimFixture.Runtime.allCases)
        func anExecHasItsOwnOutputAndCode(_ runtime: ShimFixture.Runtime) throws {
            let shim = try ShimFixture(runtime)
            try running(shim)
            let client = try shim.open(exec(["/bin/sh", "-c", "echo o; echo e >&2; exit 6"]))
            #expect(try client.output() == ShimOutput(stdout: "o\n", stderr: "e\n", code: 6))
            let state = try shim.request(.state)
            #expect(state.execs?.map(\.exitCode) == [6])
            #expect(state.containers?.map(\.status) == [.running])
            // The container's log is the container's own.
            #expect(try shim.records(shim.log("c1")).isEmpty)
        }

        @Test func anExecReadsItsConnection() throws {
            let shim = try ShimFixture()
            try running(shim)
            // Frames may follow the request without waiting for the answer.
            let client = try shim.connect()
            try client.send(exec(["/bin/cat"], stdin: true))
            try client.send(.stdin(Array("early\n".utf8)))
            try client.send(.end(0))
            _ = try client.response()
            #expect(try client.output() == ShimOutput(stdout: "early\n", stderr: "", code: 0))
        }

        @Test func anExecMayHaveATerminal() throws {
            let shim = try ShimFixture()
            try running(shim)
            let client = try shim.open(exec(["/bin/sh"], terminal: true, stdin: true))
            try client.send(.resize(columns: 99, rows: 11))
            try client.send(.stdin(Array("stty size; exit 8\n".utf8)))
            let output = try client.output()
            #expect(output.stdout.contains("11 99\r\n") && output.code == 8)
        }

        @Test func anExecCanBeSignalledAndHasADeadline() throws {
            let shim = try ShimFixture()
            try running(shim)
            let client = try shim.open(exec(["/bin/sleep", "100"]))
            #expect(try shim.refusal(exec(["/bin/true"]))?.contains("e1 runs already") == true)
            try client.send(.signal(UInt8(SIGTERM)))
            #expect(try client.output().code == 143)
            let late = try shim.open(exec(["/bin/sh", "-c", "sleep 100 & sleep 100"], id: "e2", deadline: 1))
            #expect(try late.output().code == 137)
        }

        @Test func anExecOfNothingIsRefusedWithTheRuntimesWords() throws {
            let shim = try ShimFixture()
            try running(shim)
            #expect(try shim.refusal(exec(["/bin/nothing-there"]))?.contains("/bin/nothing-there") == true)
            #expect(try shim.request(.state).execs == [])
            #expect(try File.list("\(shim.directory)/shim").sorted() == ["shim.pid", "shim.sock"])
            try shim.request(.delete(container: "c1", force: true))
            #expect(try shim.refusal(exec(["/bin/true"]))?.contains("there is no container c1") == true)
        }

        @Test func anExecGoesOnWhenItsClientIsGone() throws {
            let shim = try ShimFixture()
            try running(shim)
            do {
                _ = try shim.open(
                    exec(["/bin/sh", "-c", "cat; yes | head -c 1000000; sleep 0.2; exit 5"], stdin: true))
            }
            #expect(try shim.eventually { try shim.request(.state).execs?.first?.exitCode == 5 })
        }

        @Test func manyExecsAtOnce() throws {
            let shim = try ShimFixture()
            try running(shim)
            let clients = try (0..<20).map { number in
                try shim.open(exec(["/bin/sh", "-c", "echo \(number); exit \(number)"], id: "e\(number)"))
            }
            for (number, client) in clients.enumerated() {
                #expect(try client.output() == ShimOutput(stdout: "\(number)\n", stderr: "", code: Int32(number)))
            }
        }
    }
}
