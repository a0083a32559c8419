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

    static func open(
        _ cluster: ClusterAPI, _ path: String, query: [(String, String)], terminal: Bool, stdin: Bool
    ) async throws -> FrameSession {
        if terminal && stdin && isatty(0) == 0 {
            throw CommandFailure("standard input is no terminal: leave out -t, or -i", code: 125)
        }
        return FrameSession(stream: try await cluster.upgrade(path, query: query), terminal: terminal, stdin: stdin)
    }

    /// Carries bytes, signals and window sizes until the program ends; returns its exit code.
    ///
    /// - Parameter failure: asked beside; when it answers with a failure that is the outcome.
    func run(orFailing failure: StartFailure? = nil) async throws -> Int32 {
        let saved = terminal && stdin ? Terminal.makeRaw() : nil
        defer { Terminal.restore(saved) }
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
        for try await frame in stream {
            switch frame {
            case .stdout(let bytes): Output.bytes(bytes, to: 1)
            case .stderr(let bytes): Output.bytes(bytes, to: 2)
            case .exit(let code): return code
            case .error(let message): throw CommandFailure(message, code: 125)
            default: break
            }
        }
        throw CommandFailure("the connection ended before the program did", code: 125)
    }

    private func pumpInput() async {
        var keys = DetachKeys()
        while let bytes = await Self.readInput() {
            if terminal && keys.pressed(in: bytes) {
                Terminal.restore(nil)
                Glibc.exit(0)
            }
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
    private func pumpSignals() async {
        if terminal { await sendSize() }
        for await signal in await UnixSignalsSequence(
            trapping: .sigint, .sigterm, .sighup, .sigquit, .sigusr1, .sigusr2, .sigwinch)
        {
            if signal == .sigwinch {
                if terminal { await sendSize() }
                continue
            }
            let numbers: [UnixSignal: Int32] = [
                .sigint: SIGINT, .sigterm: SIGTERM, .sighup: SIGHUP, .sigquit: SIGQUIT, .sigusr1: SIGUSR1,
                .sigusr2: SIGUSR2,
            ]
            if let number = numbers[signal] { try? await stream.send(.signal(UInt8(number))) }
        }
    }

    private func sendSize() async {
        guard let size = Terminal.size() else { return }
        try? await stream.send(.resize(columns: size.columns, rows: size.rows))
    }
}

/// ctrl-p ctrl-q: leave the container's terminal without ending it.
struct DetachKeys {
    private var first = false

    mutating func pressed(in bytes: [UInt8]) -> Bool {
        for byte in bytes {
            if first && byte == 17 { return true }
            first = byte == 16
        }
        return false
    }
}
