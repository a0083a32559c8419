import ArgumentParser
import Client
import Model
import Wire

struct NodeDrain: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "drain", abstract: "Move what belongs to services away from a node, and give it nothing more.",
        discussion: """
            Replacements serve before what they replace goes. Containers that belong to no service stay; they are named. \
            `martlet node activate` ends a drain.
            Example: martlet node drain machine-1 --deadline 10m
            """)
    @OptionGroup var connection: ConnectionOptions
    @Option(help: "Remove what is left after so long, whatever it takes (never).") var deadline: Seconds?
    @Option(help: "Per cent of each service's instances that serve all the time, where an instance has to go first.")
    var minAvailable = 100
    @Flag(help: "Return at once instead of when nothing is left to move.") var noWait = false
    @Argument(completion: .nodes) var node: String

    func run() async throws {
        let path = "\(APIPaths.nodes)/\(escaped(node))"
        var view: NodeView = try await connection.cluster.send(
            "PATCH", path,
            body: UpdateNode(
                availability: .drained, drain: DrainOrder(deadline: deadline?.whole, minimumAvailable: minAvailable)))
        guard !noWait else { return Output.line(view.node.name) }
        var shown = -1
        while let drain = view.drain, drain.remaining > 0 {
            if drain.remaining != shown {
                shown = drain.remaining
                Output.error("\(view.node.name): \(drain.remaining) left to move")
                for item in drain.staying.prefix(5) where item.kind == .service && !item.reason.isEmpty {
                    Output.error("  \(item.name): \(item.reason)")
                }
            }
            try await Task.sleep(for: .milliseconds(200))
            view = try await connection.cluster.get(path)
        }
        for item in view.drain?.staying ?? [] { Output.error("\(item.name) stays: \(item.reason)") }
        guard view.drain != nil else { throw CommandFailure("the node \(view.node.name) was activated meanwhile") }
        Output.line(view.node.name)
    }
}

struct NodeCordon: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cordon", abstract: "Give nodes nothing more; they keep what they have.")
    @OptionGroup var connection: ConnectionOptions
    @Argument(completion: .nodes) var nodes: [String]

    func run() async throws { try await NodeActivate.set(.cordoned, nodes, connection.cluster) }
}

struct NodeActivate: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "activate", abstract: "Let nodes have work again that were cordoned or drained.")
    @OptionGroup var connection: ConnectionOptions
    @Argument(completion: .nodes) var nodes: [String]

    func run() async throws { try await Self.set(.active, nodes, connection.cluster) }

    static func set(_ availability: Node.Availability, _ nodes: [String], _ cluster: ClusterAPI) async throws {
        try await forEach(nodes) { node in
            let view: NodeView = try await cluster.send(
                "PATCH", "\(APIPaths.nodes)/\(escaped(node))", body: UpdateNode(availability: availability))
            Output.line(view.node.name)
        }
    }
}

struct NodeRemove: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rm", abstract: "Forget nodes that are gone; their certificates count no more.",
        discussion: "A node that is connected is drained and its agent ended first.")
    @OptionGroup var connection: ConnectionOptions
    @Flag(name: .shortAndLong, help: "Give up what it had.") var force = false
    @Argument(completion: .nodes) var nodes: [String]

    func run() async throws {
        try await forEach(nodes) { node in
            try await connection.cluster.delete(APIPaths.nodes, node, query: [("force", "\(force)")])
            Output.line(node)
        }
    }
}
