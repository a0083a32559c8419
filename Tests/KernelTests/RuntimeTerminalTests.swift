import CKernel
import Glibc
import JSON
import Kernel
import OCISpec
import Testing

extension KernelSuite {
    /// Terminals: through a console socket, and relayed by the runtime itself.
    @Suite(.serialized) struct RuntimeTerminals {
        /// Reads what comes from a terminal until it says `text` or ends.
        private func read(_ terminal: Int32, until text: String) -> String {
            var all: [UInt8] = []
            var chunk = [UInt8](repeating: 0, count: 4096)
            for _ in 0..<200 {
                var ready = pollfd(fd: terminal, events: Int16(POLLIN), revents: 0)
                guard poll(&ready, 1, 100) >= 0 else { break }
                if ready.revents == 0 { continue }
                let count = Glibc.read(terminal, &chunk, chunk.count)
                if count <= 0 { break }
                all += chunk[..<count]
                if String(decoding: all, as: UTF8.self).contains(text) { break }
            }
            return String(decoding: all, as: UTF8.self)
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `a console socket receives the terminal`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            let path = "\(fixture.directory)/console.sock"
            let listener = try UnixSocket.listen(path)
            let script = "tty; stty -a | grep -o -- -onlcr; test -t 0 && echo input; ls -l /dev/console; stty size; cat"
            let bundle = try fixture.bundle(script) { spec in
                spec.process?.terminal = true
                spec.process?.consoleSize = ConsoleSize(height: 30, width: 100)
            }
            try fixture.must("create", "--bundle", bundle, "--console-socket", path, "c1")
            let connection = try UnixSocket.accept(listener.raw)
            let received = try UnixSocket.receive(connection.raw, limit: 4096, maximumDescriptors: 1)
            let terminal = try #require(received.descriptors.first)
            try fixture.must("start", "c1")
            let shown = read(terminal.raw, until: "30 100")
            #expect(shown.contains("/dev/pts/0"), "\(shown)")
            #expect(shown.contains("input"), "\(shown)")
            // runc leaves this to whoever receives the terminal.
            #expect(!shown.contains("-onlcr"), "\(shown)")
            #expect(shown.contains("136,   0"), "the console is the terminal: \(shown)")
            #expect(shown.contains("30 100"), "\(shown)")
            let pid = try fixture.state("c1").pid
            try Descriptor.writeAll(terminal.raw, Array("hello\n".utf8))
            #expect(read(terminal.raw, until: "hello\r\nhello").contains("hello"))
            try Descriptor.writeAll(terminal.raw, [4])
            #expect(fixture.wait(pid) == 0)
        }

        @Test func `run relays the terminal of its caller`() throws {
            let fixture = try RuntimeFixture()
            let bundle = try fixture.bundle("stty size; read line; echo got $line; exit 6") {
                $0.process?.terminal = true
            }
            let pair = try Terminal.pair()
            try Terminal.setSize(Terminal.Size(columns: 91, rows: 17), of: pair.main.raw)
            let program = try RuntimeFixture.program("martlet-runtime")
            let child = try Spawn(
                program, [program, "--root", fixture.root, "run", "--bundle", bundle, "c1"],
                environment: fixture.environment, descriptors: [pair.peer.raw, pair.peer.raw, pair.peer.raw]
            ).start()
            #expect(read(pair.main.raw, until: "17 91").contains("17 91"))
            try Descriptor.writeAll(pair.main.raw, Array("words\r".utf8))
            #expect(read(pair.main.raw, until: "got words").contains("got words"))
            #expect(try child.wait() == .exited(6))
            #expect(try fixture.traces() == [])
        }

        @Test func `exec gives a terminal, and passes its size and signals on`() throws {
            let fixture = try RuntimeFixture()
            try fixture.start("c1")
            let pair = try Terminal.pair()
            try Terminal.setSize(Terminal.Size(columns: 50, rows: 20), of: pair.main.raw)
            let program = try RuntimeFixture.program("martlet-runtime")
            let script = "tty; stty size; trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done"
            let child = try Spawn(
                program, [program, "--root", fixture.root, "exec", "-t", "c1", "sh", "-c", script],
                environment: fixture.environment, descriptors: [pair.peer.raw, pair.peer.raw, pair.peer.raw]
            ).start()
            let shown = read(pair.main.raw, until: "ready")
            #expect(shown.contains("/dev/pts/") && shown.contains("20 50"), "\(shown)")
            try Terminal.setSize(Terminal.Size(columns: 60, rows: 25), of: pair.main.raw)
            try child.signal(SIGWINCH)
            #expect(read(pair.main.raw, until: "25 60").contains("25 60"))
            try child.signal(SIGTERM)
            #expect(try child.wait() == .exited(143))
        }

        @Test func `a terminal that nobody would get is refused`() throws {
            let fixture = try RuntimeFixture()
            let terminal = try fixture.bundle { $0.process?.terminal = true }
            for verb in [["create"], ["run", "--detach"]] {
                let output = try fixture.call(verb + ["--bundle", terminal, "c1"])
                #expect(output.code == 1)
                #expect(output.stderr.contains("--console-socket"), "\(output.stderr)")
            }
            let plain = try fixture.bundle()
            let output = try fixture.call(["create", "--bundle", plain, "--console-socket", "/nonexistent", "c1"])
            #expect(output.code == 1)
            #expect(output.stderr.contains("--console-socket"), "\(output.stderr)")
            #expect(try fixture.traces() == [])
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `signals to a runtime in the foreground reach the container`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            let bundle = try fixture.bundle("trap 'exit 44' TERM; touch /tmp/ready; while :; do sleep 0.05; done")
            let program = try runtime.path()
            let child = try Spawn(
                program, [program, "--root", fixture.root, "run", "--bundle", bundle, "c1"],
                environment: fixture.environment, descriptors: [0, 1, 2]
            ).start()
            fixture.eventually { File.exists("\(bundle)/rootfs/tmp/ready") }
            try child.signal(SIGTERM)
            #expect(try child.wait() == .exited(44))
            #expect(try fixture.traces() == [])
        }
    }
}
