import ArgumentParser
import Model
import StreamFrames
import Wire

struct Run: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run", abstract: "Run a program in a new container.",
        discussion: """
            Examples:
              martlet run --rm -it busybox sh
              martlet run -d --name web -p 8080:80 busybox httpd -f
            """)
    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var options: PodOptions
    @OptionGroup var images: PullOptions
    @Flag(name: .shortAndLong, help: "In the background: print the id.") var detach = false
    @Flag(name: .shortAndLong, help: "Keep standard input open.") var interactive = false
    @Flag(name: .shortAndLong, help: "A terminal.") var tty = false
    @Flag(name: .customLong("rm"), help: "Remove the container when it has ended.") var remove = false
    @Option(help: "Unique in the cluster; made up when not given.") var name: String?
    @Argument(completion: .images) var image: String
    @Argument(parsing: .captureForPassthrough, help: "The program and its arguments, instead of the image's.")
    var command: [String] = []

    func run() async throws {
        let cluster = connection.cluster
        do {
            // Before anything is made.
            try FrameSession.requireTerminal(tty && interactive && !detach)
            let pod = try options.pod(.container, image: image, command: command, terminal: tty, stdin: interactive)
            let view: ContainerView = try await images.pulling(image, cluster) {
                try await cluster.send(
                    "POST", APIPaths.containers,
                    body: CreateContainer(
                        name: name, pod: pod, removeOnExit: remove, start: detach, group: options.group, pull: .never))
            }
            if detach {
                Output.line(view.id.text)
                return try await background(view, cluster)
            }
            let code = try await foreground(view, cluster)
            if code != 0 { throw CommandFailure("", code: code) }
        } catch let error as CommandFailure {
            // Without a message it is the program's own exit code, of which 1 is one.
            throw CommandFailure(error.message, code: error.code == 1 && !error.message.isEmpty ? 125 : error.code)
        } catch let error as ValidationError {
            throw error
        } catch {
            throw CommandFailure(Explanation.sentence(error), code: 125)
        }
    }

    /// Says when the container does not come up. One that takes long goes on without us.
    private func background(_ view: ContainerView, _ cluster: ClusterAPI) async throws {
        let watcher = StartFailure(cluster: cluster, container: view.id.text)
        let failure: CommandFailure?
        do {
            failure = try await watcher.wait(patience: .seconds(30))
        } catch {
            throw CommandFailure(
                "the container \(view.name) was made, but whether it started is not known: "
                    + "\(Explanation.sentence(error)); see `martlet ps --all`", code: 125)
        }
        if let failure { throw failure }
    }

    /// Attaches first and starts then, so that not a byte is missed.
    private func foreground(_ view: ContainerView, _ cluster: ClusterAPI) async throws -> Int32 {
        let watcher = StartFailure(cluster: cluster, container: view.id.text)
        let session: FrameSession
        do {
            session = try await FrameSession.open(
                cluster, "\(APIPaths.containers)/\(view.id)/attach",
                query: [("stdin", "\(interactive)"), ("stdout", "true"), ("stderr", "true")],
                terminal: tty, stdin: interactive)
            try await cluster.act(view.id.text, .start, ContainerAction())
        } catch {
            // The cluster knows the code that goes with the failure: 127 for a program that is not there.
            let failure = try? await watcher.wait(patience: .seconds(2))
            // What could not be attached or started must not stay behind as a container that nobody asked for.
            if remove { try? await cluster.delete(APIPaths.containers, view.id.text, query: [("force", "true")]) }
            throw failure ?? error
        }
        do {
            let code = try await session.run(orFailing: watcher)
            if remove { await untilRemoved(view, cluster) }
            return code
        } catch let failure as CommandFailure {
            if remove { await untilRemoved(view, cluster) }
            throw failure
        }
    }

    /// Its name and its ports are free when this program has ended; unless the node takes very long.
    private func untilRemoved(_ view: ContainerView, _ cluster: ClusterAPI) async {
        let path = "\(APIPaths.containers)/\(view.id)/wait"
        await withTaskGroup(of: Void.self) { group in
            group.addTask {
                let _: WaitResult? = try? await cluster.send("POST", path, query: [("condition", "removed")])
            }
            group.addTask { try? await Task.sleep(for: .seconds(20)) }
            await group.next()
            group.cancelAll()
        }
    }
}

/// A container that cannot be started never ends its stream: the cluster's own word for it does.
struct StartFailure: Sendable {
    let cluster: ClusterAPI
    let container: String

    /// nil when it has started, or nothing is known yet after `patience`.
    func wait(patience: Duration) async throws -> CommandFailure? {
        try await withThrowingTaskGroup(of: CommandFailure?.self) { group in
            defer { group.cancelAll() }
            group.addTask { try await wait() }
            group.addTask {
                try await Task.sleep(for: patience)
                return nil
            }
            return try await group.next() ?? nil
        }
    }

    func wait() async throws -> CommandFailure? {
        let result: WaitResult = try await cluster.send(
            "POST", "\(APIPaths.containers)/\(container)/wait", query: [("condition", "started")])
        return result.exitCode == 0 ? nil : CommandFailure(result.message, code: Int32(clamping: result.exitCode))
    }
}

struct Create: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "create", abstract: "Make a container without starting it.")
    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var options: PodOptions
    @OptionGroup var images: PullOptions
    @Flag(name: .shortAndLong, help: "Keep standard input open.") var interactive = false
    @Flag(name: .shortAndLong, help: "A terminal.") var tty = false
    @Flag(name: .customLong("rm"), help: "Remove the container when it has ended.") var remove = false
    @Option(help: "Unique in the cluster; made up when not given.") var name: String?
    @Argument(completion: .images) var image: String
    @Argument(parsing: .captureForPassthrough) var command: [String] = []

    func run() async throws {
        let pod = try options.pod(.container, image: image, command: command, terminal: tty, stdin: interactive)
        let cluster = connection.cluster
        let view: ContainerView = try await images.pulling(image, cluster) {
            try await cluster.send(
                "POST", APIPaths.containers,
                body: CreateContainer(
                    name: name, pod: pod, removeOnExit: remove, start: false, group: options.group, pull: .never))
        }
        Output.line(view.id.text)
    }
}
