import ArgumentParser
import JSON
import Model
import StreamFrames
import Wire

struct Logs: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "logs", abstract: "Print what a container wrote to standard output and error.",
        discussion: "Example: martlet logs -f --tail 20 web.1")
    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var options: LogOptions
    @Argument(completion: .containers) var container: String

    func run() async throws {
        try await options.print(connection.cluster, "\(APIPaths.containers)/\(escaped(container))/logs")
    }
}

/// What `logs` and `service logs` share.
struct LogOptions: ParsableArguments {
    @Flag(name: .shortAndLong, help: "Go on until the container has ended.") var follow = false
    @Flag(name: .shortAndLong, help: "The time before each line.") var timestamps = false
    @Option(name: [.customShort("n"), .long], help: "So many of the last lines, or all.", transform: tailArgument)
    var tail: String?
    @Option(help: "From this time (RFC 3339), or this long ago (10m).") var since: MomentArgument?
    @Option(help: "Until this time.") var until: MomentArgument?

    func print(_ cluster: ClusterAPI, _ path: String) async throws {
        var query = [("follow", "\(follow)"), ("timestamps", "\(timestamps)")]
        if let tail { query.append(("tail", tail)) }
        if let since { query.append(("since", since.time.description)) }
        if let until { query.append(("until", until.time.description)) }
        try await cluster.frames(path, query: query) { frame in
            switch frame {
            case .stdout(let bytes): Output.bytes(bytes, to: 1)
            case .stderr(let bytes): Output.bytes(bytes, to: 2)
            case .error(let message): throw CommandFailure(message)
            default: break
            }
        }
    }
}

private func tailArgument(_ text: String) throws -> String {
    guard text == "all" || Int(text).map({ $0 >= 0 }) ?? false else {
        throw ValidationError("give a number of lines, or all")
    }
    return text
}

/// A time, or how long ago.
struct MomentArgument: ExpressibleByArgument {
    let time: Timestamp

    init?(argument: String) {
        if let time = Timestamp(rfc3339: argument) {
            self.time = time
        } else if let ago = Seconds(argument: argument) {
            let past = Timestamp.now().nanoseconds - Int64(ago.value * 1e9)
            time = Timestamp(nanoseconds: past)
        } else {
            return nil
        }
    }
}

struct Events: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "events", abstract: "Show what happens in the cluster.",
        discussion: "Example: martlet events --since 10m --until 0s, or without --until to go on watching")
    @OptionGroup var connection: ConnectionOptions
    @Option(help: "From this time (RFC 3339), or this long ago (10m).") var since: MomentArgument?
    @Option(help: "Until this time; without it, goes on.") var until: MomentArgument?
    @Option(name: [.customShort("f"), .long], help: "KEY=VALUE with the keys kind, action, id, name.") var filter:
        [LabelArgument] = []
    @Option(help: "table, or json: one object a line.") var format = "table"

    func run() async throws {
        guard format == "table" || format == "json" else {
            throw ValidationError("--format of events is table or json, not '\(format)'")
        }
        var query: [(String, String)] = [("follow", "\(until == nil)")]
        if let since { query.append(("since", since.time.description)) }
        if let until { query.append(("until", until.time.description)) }
        for item in filter {
            guard ["kind", "action", "id", "name"].contains(item.key) else {
                throw ValidationError("no filter '\(item.key)': use kind, action, id or name")
            }
            query.append((item.key, item.value))
        }
        try await connection.cluster.lines(APIPaths.events, query: query) { (event: Event) in
            if format == "json" {
                Output.line(String(decoding: try JSONCoding.encode(event), as: UTF8.self))
                return
            }
            let details = event.attributes.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }.joined(
                separator: ", ")
            Output.line(
                "\(event.time) \(event.kind) \(event.action) \(event.name)" + (details.isEmpty ? "" : " (\(details))"))
        }
    }
}
