import ArgumentParser
import JSON
import Model
import Wire

struct Exec: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "exec", abstract: "Run a program in a running container.",
        discussion: "Example: martlet exec -it web.1 sh")
    @OptionGroup var connection: ConnectionOptions
    @Flag(name: .shortAndLong, help: "Keep standard input open.") var interactive = false
    @Flag(name: .shortAndLong, help: "A terminal.") var tty = false
    @OptionGroup var environment: EnvironmentOptions
    @Option(name: .shortAndLong, help: "The directory that the program starts in.") var workdir = ""
    @Option(name: .shortAndLong, help: "USER[:GROUP].") var user = ""
    @Argument(completion: .containers) var container: String
    @Argument(parsing: .captureForPassthrough) var command: [String]

    func run() async throws {
        var request = ExecRequest(
            command: command, environment: try environment.entries(), workingDirectory: workdir, user: user,
            terminal: tty, stdin: interactive
        )
        if tty, let size = Terminal.size() {
            request.columns = size.columns
            request.rows = size.rows
        }
        let code: Int32
        do {
            let spec = String(decoding: try JSONCoding.encode(request), as: UTF8.self)
            let session = try await FrameSession.open(
                connection.cluster, "\(APIPaths.containers)/\(escaped(container))/exec", query: [("spec", spec)],
                terminal: tty,
                stdin: interactive)
            code = try await session.run()
        } catch let error as CommandFailure {
            throw error
        } catch {
            throw CommandFailure(Explanation.sentence(error), code: 125)
        }
        if code != 0 { throw CommandFailure("", code: code) }
    }
}

struct Attach: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "attach",
        abstract: "Connect to the streams of a running container; ctrl-p ctrl-q leaves a terminal.")
    @OptionGroup var connection: ConnectionOptions
    @Flag(help: "Do not send standard input.") var noStdin = false
    @Argument(completion: .containers) var container: String

    func run() async throws {
        let code: Int32
        do {
            let view: ContainerView = try await connection.cluster.get("\(APIPaths.containers)/\(escaped(container))")
            let stdin = view.spec.stdin && !noStdin
            var session = try await FrameSession.open(
                connection.cluster, "\(APIPaths.containers)/\(view.id)/attach", query: [("stdin", "\(stdin)")],
                terminal: view.spec.terminal, stdin: stdin)
            session.redraws = view.status.phase == .running
            code = try await session.run()
        } catch let error as CommandFailure {
            throw error
        } catch {
            throw CommandFailure(Explanation.sentence(error), code: 125)
        }
        if code != 0 { throw CommandFailure("", code: code) }
    }
}
