import ArgumentParser
import Model
import Wire

struct PS: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ps", abstract: "List containers.",
        discussion: "Example: martlet ps -a --format '{{.Name}} {{.Status}}'")
    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var format: FormatOptions
    @Flag(name: .shortAndLong, help: "Also those that do not run.") var all = false
    @Flag(help: "Whole ids and statuses.") var noTrunc = false
    @Option(help: "Only the instances of this service.") var service: String?
    @Option(name: [.customShort("f"), .long], help: "KEY=VALUE with the keys name, label, status, node, service.")
    var filter: [LabelArgument] = []

    func run() async throws {
        // Who asks for a status means containers that do not run, too.
        var query: [(String, String)] = [("all", "\(all || filter.contains { $0.key == "status" })")]
        if let service { query.append(("service", service)) }
        for item in filter {
            guard ["name", "label", "status", "node", "service"].contains(item.key) else {
                throw ValidationError("no filter '\(item.key)': use name, label, status, node or service")
            }
            query.append((item.key, item.value))
        }
        let views: [ContainerView] = try await connection.cluster.get(APIPaths.containers, query: query)
        try Self.table(views, whole: noTrunc).print(format)
    }

    static func table(_ views: [ContainerView], whole: Bool) throws -> Table {
        var table = Table("Id", "Name", "Image", "Node", "Status", "Address", "Ports")
        for view in views.sorted(by: { $0.createdAt > $1.createdAt }) {
            try table.add(
                view, whole ? view.id.text : String(view.id.text.prefix(12)), view.name, view.spec.image, view.nodeName,
                whole ? view.statusText : view.statusText.shortened(to: 80), view.status.addresses.first ?? "",
                view.portsText)
        }
        return table
    }
}

extension String {
    /// At most `length` characters; what is left out is marked.
    func shortened(to length: Int) -> String { count <= length ? self : prefix(length - 1) + "…" }
}

extension ContainerView {
    /// As a person reads it: `Up 3 minutes (healthy)`, `Exited (1) 5 seconds ago`, `Unreachable for 20 seconds`.
    var statusText: String {
        if let unschedulable, task == nil { return "Waiting: \(unschedulable.message)" }
        if let unreachableSince, status.phase != .removed {
            // What it did when its node was last heard of is no news any more.
            return "Unreachable for \(unreachableSince.age())" + (unschedulable.map { ": \($0.message)" } ?? "")
        }
        let note = status.message.isEmpty ? "" : ": \(status.message)"
        switch status.phase {
        case .assigned, .preparing: return "Preparing"
        case .prepared: return "Created"
        case .running:
            let isSick = conditions.contains { $0.kind == .deviceUnusable && $0.holds }
            return "Up \(upTime)\(healthText)" + (isSick ? " (device unusable)" : "")
        case .paused: return "Up \(upTime) (paused)"
        case .stopping: return "Stopping"
        case .exited: return exitText + (status.restartAt == nil ? "" : ", restarting")
        case .failed: return "Failed\(note)" + (status.restartAt == nil ? "" : " (trying again)")
        case .removed: return "Removed"
        }
    }

    private var upTime: String { container.startedAt?.age() ?? "0 seconds" }

    private var healthText: String {
        switch container.health {
        case .none: container.restarts > 0 ? ", \(container.restarts) restarts" : ""
        case .starting: " (health: starting)"
        case .healthy: " (healthy)"
        case .unhealthy: " (unhealthy)"
        }
    }

    private var exitText: String {
        let reason = container.outOfMemory ? "out of memory" : container.reason
        let code = container.exitCode.map { "(\($0)) " } ?? ""
        let when = container.finishedAt?.ago() ?? ""
        return "Exited \(code)\(when)" + (reason.isEmpty ? "" : ", \(reason)")
    }

    var portsText: String {
        ports.map { port in
            let host = port.hostAddress.contains(":") ? "[\(port.hostAddress)]" : port.hostAddress
            let address = host.isEmpty ? "" : "\(host):"
            let transport = port.transport == .tcp ? "" : "/\(port.transport.rawValue)"
            return "\(address)\(port.hostPort)->\(port.containerPort)\(transport)"
        }.joined(separator: ", ")
    }
}
