import Master
import MasterCore
import Model
import Wire

/// The master's numbers in Prometheus' text format, version 0.0.4.
struct Metrics {
    private(set) var text = ""

    init(_ snapshot: ClusterMaster.Snapshot, nodes: [NodeView]) {
        let tally = snapshot.tally
        let figures = snapshot.figures
        family(
            "nodes", "gauge", "Nodes, ready or not.",
            [
                (["ready": "true"], "\(tally.readyNodes)"), (["ready": "false"], "\(tally.nodes - tally.readyNodes)"),
            ])
        family(
            "workloads", "gauge", "What users asked for, by kind.",
            tally.workloads.map { (["kind": $0.key.rawValue], "\($0.value)") })
        family(
            "tasks", "gauge", "Tasks by phase.", tally.tasks.map { (["phase": $0.key.rawValue], "\($0.value)") })
        family("instances_waiting", "gauge", "Instances for which no node is found.", [([:], "\(tally.waiting)")])
        family("watchers", "gauge", "Watches that are open.", [([:], "\(snapshot.watchers)")])
        family("events_total", "counter", "Events since the master started.", [([:], "\(tally.events)")])
        family("store_revision", "gauge", "The store's revision.", [([:], "\(tally.storeRevision)")])
        family(
            "store_commits_total", "counter", "Transactions.",
            [
                (["result": "done"], "\(figures.commits)"), (["result": "failed"], "\(figures.failedCommits)"),
            ])
        family("store_writes_total", "counter", "Keys written.", [([:], "\(figures.writes)")])
        let (seconds, attoseconds) = figures.commitTime.components
        family(
            "store_commit_seconds_total", "counter", "Time that transactions took.",
            [
                ([:], "\(Double(seconds) + Double(attoseconds) / 1e18)")
            ])
        resources("node_capacity", "What a node has.", nodes) { $0.node.capacity }
        resources("node_allocated", "What a node's tasks were promised.", nodes) { $0.allocated }
    }

    private mutating func resources(
        _ name: String, _ help: String, _ nodes: [NodeView], _ amount: (NodeView) -> Resources
    ) {
        family(
            "\(name)_cpu_cores", "gauge", help,
            nodes.map { (["node": $0.node.name], "\(Double(amount($0).cpu) / 1e9)") })
        family("\(name)_memory_bytes", "gauge", help, nodes.map { (["node": $0.node.name], "\(amount($0).memory)") })
    }

    mutating func family(
        _ name: String, _ type: String, _ help: String, _ samples: [(labels: [String: String], value: String)]
    ) {
        text += "# HELP martlet_\(name) \(help)\n# TYPE martlet_\(name) \(type)\n"
        for line in samples.map({ "martlet_\(name)\(Self.labels($0.labels)) \($0.value)\n" }).sorted() { text += line }
    }

    private static func labels(_ labels: [String: String]) -> String {
        guard !labels.isEmpty else { return "" }
        let pairs = labels.sorted { $0.key < $1.key }.map { "\($0.key)=\"\(escaped($0.value))\"" }
        return "{" + pairs.joined(separator: ",") + "}"
    }

    private static func escaped(_ value: String) -> String {
        // By scalars: a quotation mark with an accent is one character, and so are the two that end a line elsewhere.
        var text = ""
        for scalar in value.unicodeScalars {
            switch scalar {
            case "\\": text += "\\\\"
            case "\"": text += "\\\""
            case "\n": text += "\\n"
            case "\r": text += " "
            default: text.unicodeScalars.append(scalar)
            }
        }
        return text
    }
}
