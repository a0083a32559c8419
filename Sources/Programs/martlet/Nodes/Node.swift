import ArgumentParser
import Model
import Wire

/// `martlet node …`
struct NodeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "node", abstract: "The machines of the cluster.",
        subcommands: [
            NodeList.self, NodeInspect.self, NodeLabel.self, NodeDrain.self, NodeCordon.self, NodeActivate.self,
            NodeRemove.self,
        ])
}

struct NodeList: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "ls", abstract: "List nodes.")
    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var format: FormatOptions

    func run() async throws {
        let views: [NodeView] = try await connection.cluster.get(APIPaths.nodes)
        var table = Table("Id", "Name", "Status", "Platform", "CPU", "Memory", "Tasks", "Address", "Version", key: 1)
        for view in views.sorted(by: { $0.node.name < $1.node.name }) {
            let node = view.node
            let ready = view.conditions.contains { $0.kind == .ready && $0.holds }
            let used = view.allocated
            try table.add(
                view, String(node.id.text.prefix(12)), node.name,
                (ready ? "ready" : "unreachable")
                    + (node.availability == .active ? "" : ", \(node.availability.rawValue)"),
                "\(node.platform.os)/\(node.platform.architecture)",
                "\((Double(used.cpu) / 1e9).rounded(toPlaces: 1))/\((Double(node.capacity.cpu) / 1e9).rounded(toPlaces: 1))",
                "\(ByteSize.text(used.memory))/\(ByteSize.text(node.capacity.memory))", "\(view.tasks)", node.address,
                node.agentVersion)
        }
        try table.print(format)
    }
}

struct NodeInspect: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inspect", abstract: "Show everything about nodes, as JSON.")
    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var format: InspectOptions
    @Argument(completion: .nodes) var nodes: [String]

    func run() async throws {
        try await format.print(nodes) { node -> NodeView in
            try await connection.cluster.get("\(APIPaths.nodes)/\(escaped(node))")
        }
    }
}

struct NodeLabel: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "label", abstract: "Set labels of a node, or remove them.",
        discussion: "Example: martlet node label machine-1 zone=b disk-  (a trailing '-' removes)")
    @OptionGroup var connection: ConnectionOptions
    @Argument(completion: .nodes) var node: String
    @Argument(help: "KEY=VALUE, or KEY- to remove.") var labels: [String]

    func run() async throws {
        var set: [String: String] = [:]
        var remove: [String] = []
        for label in labels {
            if let pair = LabelArgument(argument: label), label.contains("=") {
                set[pair.key] = pair.value
            } else if label.hasSuffix("-"), label.count > 1 {
                remove.append(String(label.dropLast()))
            } else {
                throw ValidationError("'\(label)' is neither KEY=VALUE nor KEY-")
            }
        }
        let view: NodeView = try await connection.cluster.send(
            "PATCH", "\(APIPaths.nodes)/\(escaped(node))", body: UpdateNode(setLabels: set, removeLabels: remove))
        for (key, value) in view.node.labels.sorted(by: { $0.key < $1.key }) { Output.line("\(key)=\(value)") }
    }
}
