import Client
import Glibc
import Kernel
import NIOPosix
import StreamFrames
import UnixSignals

/// A connection to a container's or a program's streams, joined with this program's own.
struct FrameSession: Sendable {
    let stream: FrameStream<ResponseBody>
    let terminal: Bool
    let stdin: Bool
    /// Whether the program runs already and is to draw its screen again.
    var redraws = false

    static func requireTerminal(_ isNeeded: Bool) throws(CommandFailure) {
        guard isNeeded, isatty(0) == 0 else { return }
        throw CommandFailure("standard input is no terminal: leave out -t, or -i", code: 125)
    }

    static func open(
        _ cluster: ClusterAPI, _ path: String, query: [(String, String)], terminal: Bool, stdin: Bool
    ) async throws -> FrameSession {
        try requireTerminal(terminal && stdin)
        return FrameSession(stream: try await cluster.upgrade(path, query: query), terminal: terminal, stdin: stdin)
    }

    /// Carries bytes, signals and window sizes until the program ends; returns its exit code.
    ///
    /// - Parameter failure: asked beside; when it answers with a failure that is the outcome.
    func run(orFailing failure: StartFailure? = nil) async throws -> Int32 {
        if terminal && stdin { Terminal.makeRaw() }
        defer { Terminal.restore() }
        // A blocking read of standard input cannot be cancelled, so these two are left to end with the program.
        if stdin { Task { await pumpInput() } }
        Task { await pumpSignals() }
        return try await withThrowingTaskGroup(of: Int32?.self) { group in
            group.addTask { try await pumpOutput() }
            if let failure {
                group.addTask {
                    guard let problem = try await failure.wait() else { return nil }
                    // What the program may have written on its way out comes first.
                    try await Task.sleep(for: .milliseconds(200))
                    throw problem
                }
            }
            defer { group.cancelAll() }
            while let result = try await group.next() {
                if let code = result { return code }
            }
            throw CommandFailure("the connection ended before the program did", code: 125)
        }
    }

    private func pumpOutput() async throws -> Int32 {
        var problem: String?
        for try await frame in stream {
            switch frame {
            case .stdout(let bytes): Output.bytes(bytes, to: 1)
            case .stderr(let bytes): Output.bytes(bytes, to: 2)
            case .exit(let code):
                if let problem { throw CommandFailure(problem, code: code) }
                return code
            // The code that goes with it may follow: 127 for a program that is not there.
            case .error(let message): problem = message
            default: break
            }
        }
        throw CommandFailure(problem ?? "the connection ended before the program did", code: 125)
    }

    private func pumpInput() async {
        var keys = DetachKeys()
        while let bytes = await Self.readInput() {
            var bytes = bytes
            if terminal {
                guard let rest = keys.passing(bytes) else {
                    Terminal.restore()
                    Output.error("")
                    Glibc.exit(0)
                }
                bytes = rest
            }
            if bytes.isEmpty { continue }
            guard (try? await stream.send(.stdin(bytes))) != nil else { return }
        }
        try? await stream.send(.end(0))
    }

    private static func readInput() async -> [UInt8]? {
        let bytes = try? await NIOThreadPool.singleton.runIfActive { () -> [UInt8] in
            var chunk = [UInt8](repeating: 0, count: 32768)
            let count = try systemCall("read", "standard input") {
                chunk.withUnsafeMutableBytes { Glibc.read(0, $0.baseAddress, $0.count) }
            }
            return Array(chunk[..<count])
        }
        guard let bytes, !bytes.isEmpty else { return nil }
        return bytes
    }

    /// Passes signals on; the terminal's size too, once at the start and with every change.
    ///
    /// With a raw terminal the keys reach the program as bytes, so a signal means this client: it leaves, and the
    /// program goes on. Without one, who sends SIGINT or SIGTERM three times within seconds wants to leave a program that
    /// ignores them.
    private func pumpSignals() async {
        // Trapped before the size is read, so that no change is missed.
        let signals = await UnixSignalsSequence(
            trapping: .sigint, .sigterm, .sighup, .sigquit, .sigusr1, .sigusr2, .sigwinch)
        if terminal {
            // A program draws its screen when the size changes, and only then.
            if redraws, let size = Terminal.size(), size.columns > 0, size.rows > 0 {
                try? await stream.send(.resize(columns: size.columns, rows: size.rows &+ 1))
            }
            await sendSize()
        }
        let numbers: [UnixSignal: Int32] = [
            .sigint: SIGINT, .sigterm: SIGTERM, .sighup: SIGHUP, .sigquit: SIGQUIT, .sigusr1: SIGUSR1,
            .sigusr2: SIGUSR2,
        ]
        var ignored = 0
        var last = ContinuousClock.now
        for await signal in signals {
            if signal == .sigwinch {
                if terminal { await sendSize() }
                continue
            }
            guard let number = numbers[signal] else { continue }
            let ends = [SIGINT, SIGTERM, SIGHUP, SIGQUIT].contains(number)
            if ends, terminal && (stdin || number == SIGHUP) { leave(number) }
            if number == SIGINT || number == SIGTERM {
                let now = ContinuousClock.now
                ignored = now - last < .seconds(3) ? ignored + 1 : 1
                last = now
            }
            if ignored == 3 {
                Output.error("martlet: the program ignores the signals; leaving, it goes on without this client")
                leave(number)
            }
            try? await stream.send(.signal(UInt8(number)))
        }
    }

    private func leave(_ signal: Int32) -> Never {
        Terminal.restore()
        Glibc.exit(128 + signal)
    }

    private func sendSize() async {
        guard let size = Terminal.size(), size.columns > 0, size.rows > 0 else { return }
        try? await stream.send(.resize(columns: size.columns, rows: size.rows))
    }
}

/// ctrl-p ctrl-q: leave the container's terminal without ending it.
struct DetachKeys {
    private static let (first, second): (UInt8, UInt8) = (16, 17)
    /// ctrl-p was pressed, and is passed on unless ctrl-q follows.
    private var isHolding = false

    /// What of the keys is the container's; nil when the user leaves.
    mutating func passing(_ bytes: [UInt8]) -> [UInt8]? {
        var passed: [UInt8] = []
        for byte in bytes {
            if isHolding {
                if byte == Self.second { return nil }
                passed.append(Self.first)
            }
            isHolding = byte == Self.first
            if !isHolding { passed.append(byte) }
        }
        return passed
    }
}
