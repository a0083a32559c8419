import JSON
import Master
import MasterCore
import Model
import Wire

/// A node as Swarm classic showed it in `docker info`.
extension NodeView {
    private var isSilent: Bool { conditions.contains { $0.kind == .unreachable && $0.holds } }

    /// nil: all is well with it.
    var warning: String? {
        if isSilent { return "WARNING: the node \(node.name) is unreachable" }
        return isReady ? nil : "WARNING: the node \(node.name) has yet to report"
    }

    func rows(_ counts: ClusterCounts) -> [(String, String)] {
        var rows = [(" " + node.name, node.address)]
        func add(_ key: String, _ value: String) { rows.append(("  └ " + key, value)) }
        let containers = counts.onNodes[node.id] ?? ContainerCounts()
        add("ID", node.id.text)
        add("Status", isReady ? "Healthy" : isSilent ? "Disconnected" : "Pending")
        add(
            "Containers",
            "\(containers.all) (\(containers.running) Running, \(containers.paused) Paused, "
                + "\(containers.stopped) Stopped)")
        add("Reserved CPUs", "\(Self.cores(allocated.cpu)) / \(Self.cores(node.capacity.cpu))")
        add("Reserved Memory", "\(Self.size(allocated.memory)) / \(Self.size(node.capacity.memory))")
        add("Labels", labels.joined(separator: ", "))
        if node.availability != .active { add("Availability", node.availability.rawValue) }
        add("UpdatedAt", counts.heard[node.id]?.description ?? "")
        add("ServerVersion", node.agentVersion)
        return rows
    }

    /// Its own, and those that Swarm classic gave every node.
    private var labels: [String] {
        var labels = node.labels
        labels["storagedriver"] = "overlay2"
        labels["kernelversion"] = node.kernelVersion
        labels["ostype"] = node.platform.os
        if let system = node.operatingSystem { labels["operatingsystem"] = system }
        return labels.map { "\($0.key)=\($0.value)" }.sorted()
    }

    /// Cores with at most two digits behind the point.
    private static func cores(_ nanos: Int64) -> String {
        decimal(nanos / 10_000_000, unit: "")
    }

    /// Bytes in the largest unit of which there is at least one.
    private static func size(_ bytes: Int64) -> String {
        var unit = 0
        var size = bytes
        while size >= 1024 << 10, unit < 3 {
            size >>= 10
            unit += 1
        }
        let units = [" KiB", " MiB", " GiB", " TiB"]
        return bytes < 1024 ? "\(bytes) B" : decimal(size * 100 / 1024, unit: units[unit])
    }

    private static func decimal(_ hundredths: Int64, unit: String) -> String {
        let (whole, rest) = hundredths.quotientAndRemainder(dividingBy: 100)
        let digits = rest == 0 ? "" : rest % 10 == 0 ? ".\(rest / 10)" : rest < 10 ? ".0\(rest)" : ".\(rest)"
        return "\(whole)\(digits)\(unit)"
    }
}
