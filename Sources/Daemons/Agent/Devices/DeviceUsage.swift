import AgentCore
import Cgroups
import Devices
import Model
import Reactor
import Wire

extension PodExecutor {
    /// How the node's devices are used, by all and by these tasks; nil: it has none of which that is known.
    func deviceUsage(_ records: [TaskRecord]) async -> [DeviceUsage]? {
        let ids = (devices.known?.inventory.devices ?? []).prefix(NodeDevice.limit).map(\.id)
        guard !ids.isEmpty else { return nil }
        var all = devices.usage(of: ids, by: []).map { stats in
            var stats = stats
            stats.memoryUsage = nil
            return DeviceUsage(stats)
        }
        guard !all.isEmpty else { return nil }
        for record in records where record.isLive {
            let held = devices.held(by: record).sorted()
            // A container may end while we look: it has no processes then.
            guard !held.isEmpty, let group = try? cgroup(of: record.assignment.task),
                let pids = try? await pool.run({ try group.processes() })
            else { continue }
            for stats in devices.usage(of: held, by: Set(pids.map { UInt32(clamping: $0) })) {
                guard let memory = stats.memoryUsage, let place = all.firstIndex(where: { $0.stats.id == stats.id })
                else { continue }
                all[place].tasks.append(DeviceUsage.Share(task: record.assignment.task, memoryUsage: memory))
            }
        }
        return all
    }
}
