import Model
import Wire

extension Metrics {
    /// Devices of nodes: how many there are, how each is, who has it and how it is used.
    ///
    /// - Parameter usage: by node and id, what nodes told lately; devices that it lacks have no such samples.
    mutating func add(_ devices: [DeviceView], _ usage: [NodeID: [String: DeviceUsage]]) {
        var counts: [[String: String]: Int] = [:]
        for view in devices {
            let labels = [
                "node": view.nodeName, "health": Self.health(view.device), "granted": "\(!view.holders.isEmpty)",
            ]
            counts[labels, default: 0] += 1
        }
        family(
            "node_devices", "gauge", "Devices of a node by health, and whether a task has them.",
            counts.map { ($0.key, "\($0.value)") })
        family(
            "device_health", "gauge", "How a device is: 1 for the state that it is in.",
            devices.flatMap { view in
                Self.states.map {
                    (Self.labels(of: view, ["health": $0]), $0 == Self.health(view.device) ? "1" : "0")
                }
            })
        family(
            "device_shares", "gauge", "How many tasks may have a device at the same time.",
            devices.map { (Self.labels(of: $0), "\($0.device.shares)") })
        family(
            "device_tasks", "gauge", "How many tasks have a device.",
            devices.map { (Self.labels(of: $0), "\($0.holders.count)") })
        family(
            "device_task", "gauge", "1 for each task that has a device.",
            devices.flatMap { view in
                view.holders.compactMap { holder in
                    holder.task.map { (Self.labels(of: view, Self.labels(of: $0, holder)), "1") }
                }
            })
        let told = devices.compactMap { view in
            usage[view.node]?[view.device.id].map { (view: view, usage: $0) }
        }
        func measured(_ name: String, _ help: String, ofWhole: Bool = false, _ value: (DeviceStats) -> String?) {
            family(
                name, "gauge", help,
                told.filter { !ofWhole || $0.view.device.parent == nil }.compactMap { one in
                    value(one.usage.stats).map { (Self.labels(of: one.view), $0) }
                })
        }
        measured("device_utilization_ratio", "Part of the last interval in which a device worked.") {
            $0.utilization.map { "\(Double($0) / 100)" }
        }
        measured("device_memory_used_bytes", "Memory of a device that is in use, by whomever.") {
            $0.memoryUsedByAll.map { "\($0)" }
        }
        measured("device_memory_bytes", "Memory of a device.") { $0.memory.map { "\($0)" } }
        // A part of a device has the whole's.
        measured("device_power_watts", "What a device draws.", ofWhole: true) {
            $0.milliwatts.map { "\(Double($0) / 1000)" }
        }
        measured("device_temperature_celsius", "How hot a device is.", ofWhole: true) { $0.celsius.map { "\($0)" } }
        family(
            "device_task_memory_used_bytes", "gauge", "Memory of a device that the processes of a task have.",
            told.flatMap { one in
                one.usage.tasks.compactMap { share in
                    // What the master does not know of has no name.
                    one.view.holders.first { $0.task == share.task }.map {
                        (Self.labels(of: one.view, Self.labels(of: share.task, $0)), "\(share.memoryUsage)")
                    }
                }
            })
    }

    /// All words of `health`.
    private static let states = NodeDevice.Health.State.allCases.map(\.rawValue) + ["gone"]

    private static func health(_ device: NodeDevice) -> String {
        device.isGone ? "gone" : device.health.state.rawValue
    }

    private static func labels(of view: DeviceView, _ more: [String: String] = [:]) -> [String: String] {
        [
            "node": view.nodeName, "device": view.device.id, "vendor": view.device.vendor,
            "model": view.device.model ?? "",
        ].merging(more) { first, _ in first }
    }

    private static func labels(of task: TaskID, _ holder: DeviceView.Holder) -> [String: String] {
        ["task": task.text, "container": holder.name]
    }
}
