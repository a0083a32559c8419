import AgentCore
import JSON
import Kernel
import Model
import NIOCore
import NIOPosix
import Reactor
import ShimProtocol
import StreamFrames
import Wire

extension PodExecutor {
    package func probe(_ assignment: TaskAssignment, _ check: HealthCheck) async -> ProbeOutcome {
        let began = Timestamp.now()
        let answer = await answer(assignment, check)
        probeLog.note(
            ProbeResult(start: began, end: .now(), exitCode: answer.exitCode, output: answer.output),
            of: assignment.task)
        return answer.outcome
    }

    private func answer(_ assignment: TaskAssignment, _ check: HealthCheck) async -> ProbeAnswer {
        do {
            return try await withThrowingTaskGroup(of: ProbeAnswer.self) { group in
                defer { group.cancelAll() }
                group.addTask { try await self.ask(assignment, check) }
                group.addTask {
                    try await Task.sleep(for: .seconds(check.patience))
                    return ProbeAnswer(.failure("no answer within \(check.patience) s"))
                }
                return try await group.next() ?? ProbeAnswer(.failure("cancelled"))
            }
        } catch let error as ShimError {
            return ProbeAnswer(.failure(error.description))
        } catch {
            return ProbeAnswer(.failure("\(error)"))
        }
    }

    private func ask(_ assignment: TaskAssignment, _ check: HealthCheck) async throws -> ProbeAnswer {
        switch check.probe {
        case .command(let command): return try await run(command, assignment, check.patience)
        case .tcp(let port):
            return ProbeAnswer(
                try await NetworkProbe(host: try await address(of: assignment), port: port).connect())
        case .http(let port, let path):
            return ProbeAnswer(
                try await NetworkProbe(host: try await address(of: assignment), port: port).get(path))
        }
    }

    private func address(of assignment: TaskAssignment) async throws -> String {
        var pod = assignment
        if case .container(let text) = assignment.pod.namespaces.network {
            guard let owner = JoinedNamespaces.networkOwner(text, table.all) else {
                throw AgentError("the container \(text.prefix(12)), whose network it shares, is not on this node")
            }
            pod = owner.assignment
        }
        if pod.pod.network == .host { return "127.0.0.1" }
        let task = paths.task(pod.task)
        guard let address = try await pool.run({ try PodFile.read(task)?.addresses.first }) else {
            throw AgentError("the pod has no address: only a command can be its health check")
        }
        return address
    }

    /// Most bytes of a command's output that are kept, and that a failure shows.
    private static let (outputLimit, failureLimit) = (4096, 1024)

    private func run(_ command: [String], _ assignment: TaskAssignment, _ timeout: Int) async throws -> ProbeAnswer {
        let request = ExecRequest(command: command)
        let exec = try await exec(assignment, request, deadline: timeout)
        return try await shim(of: assignment.task).session(.exec(exec)) { _, connection in
            var output: [UInt8] = []
            while let frame = try await connection.next() {
                switch frame {
                case .stdout(let bytes), .stderr(let bytes):
                    output += bytes.prefix(Self.outputLimit - output.count)
                case .exit(let code):
                    let text = String(decoding: output, as: UTF8.self)
                    guard code != 0 else { return ProbeAnswer(.success, exitCode: 0, output: text) }
                    let shown = String(decoding: output.prefix(Self.failureLimit), as: UTF8.self)
                        .split(separator: "\n").joined(separator: "; ")
                    return ProbeAnswer(
                        .failure("the command ended with \(code)\(shown.isEmpty ? "" : ": \(shown)")"),
                        exitCode: Int(code), output: text)
                case .error(let text): return ProbeAnswer(.failure(text))
                default: break
                }
            }
            return ProbeAnswer(.failure("the command's end is not known"))
        }
    }
}

/// What a probe came to, for the core and for people.
private struct ProbeAnswer: Sendable {
    let outcome: ProbeOutcome
    /// Of a command; else 0, or -1 for a failure.
    let exitCode: Int
    let output: String

    init(_ outcome: ProbeOutcome, exitCode: Int, output: String) {
        self.outcome = outcome
        self.exitCode = exitCode
        self.output = output
    }

    init(_ outcome: ProbeOutcome) {
        switch outcome {
        case .success: self.init(outcome, exitCode: 0, output: "")
        case .failure(let why):
            self.init(outcome, exitCode: -1, output: String(decoding: why.utf8.prefix(4096), as: UTF8.self))
        }
    }
}

/// Asks a pod over its network.
struct NetworkProbe: Sendable {
    let host: String
    let port: Int

    /// A connection is made.
    func connect() async throws -> ProbeOutcome {
        do {
            let channel = try await bootstrap.connect(host: host, port: port).get()
            try? await channel.close()
            return .success
        } catch {
            return .failure("cannot connect to \(host) port \(port): \(Self.why(error))")
        }
    }

    private var bootstrap: ClientBootstrap { ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton) }

    /// NIO wraps the one error that there is.
    private static func why(_ error: any Error) -> String {
        if let error = error as? NIOConnectionError, let inner = error.connectionErrors.first?.error {
            return why(inner)
        }
        if let error = error as? IOError { return String(errno: error.errnoCode) }
        return "\(error)"
    }

    /// The longest status line that is read.
    private static let lineLimit = 1024

    /// GET is answered with a status of 200 to 399. Redirections are not followed.
    func get(_ path: String) async throws -> ProbeOutcome {
        let channel: NIOAsyncChannel<ByteBuffer, ByteBuffer>
        do {
            channel = try await bootstrap.connect(host: host, port: port) { channel in
                channel.eventLoop.makeCompletedFuture { try NIOAsyncChannel(wrappingChannelSynchronously: channel) }
            }
        } catch {
            return .failure("cannot connect to \(host) port \(port): \(Self.why(error))")
        }
        return try await channel.executeThenClose { inbound, outbound in
            let target = path.hasPrefix("/") ? path : "/" + path
            let request =
                "GET \(target) HTTP/1.1\r\nHost: \(host):\(port)\r\nUser-Agent: martlet\r\nAccept: */*\r\n"
                + "Connection: close\r\n\r\n"
            try await outbound.write(ByteBuffer(string: request))
            var line: [UInt8] = []
            for try await bytes in inbound {
                line += bytes.readableBytesView.prefix(Self.lineLimit - line.count)
                if line.contains(UInt8(ascii: "\n")) || line.count >= Self.lineLimit { break }
            }
            return Self.outcome(line, target)
        }
    }

    /// Reads `HTTP/1.1 200 OK`.
    static func outcome(_ bytes: [UInt8], _ path: String) -> ProbeOutcome {
        let line = bytes.prefix { $0 != UInt8(ascii: "\r") && $0 != UInt8(ascii: "\n") }
        let words = String(decoding: line, as: UTF8.self).split(separator: " ")
        guard words.count >= 2, words[0].hasPrefix("HTTP/"), let status = Int(words[1]) else {
            return .failure("what listens does not speak HTTP")
        }
        return (200..<400).contains(status) ? .success : .failure("GET \(path) was answered with status \(status)")
    }
}
