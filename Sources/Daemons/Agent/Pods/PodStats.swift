import AgentCore
import Cgroups
import Glibc
import JSON
import Kernel
import Model
import Networking
import Reactor
import Wire

extension PodExecutor {
    package func stats(_ record: TaskRecord) async throws -> ContainerStats {
        let group = try cgroup(of: record.assignment.task)
        var sample = try await pool.run { try Self.sample(record, group) }
        let held = devices.held(by: record).sorted()
        if !held.isEmpty {
            let pids = try await pool.run { try group.processes() }
            let usage = devices.usage(of: held, by: Set(pids.map { UInt32(clamping: $0) }))
            if !usage.isEmpty { sample.devices = usage }
        }
        return sample
    }

    /// Blocks.
    private static func sample(_ record: TaskRecord, _ group: CgroupManager) throws -> ContainerStats {
        let stats = try group.stats()
        let limits = record.assignment.pod.containers.first?.limits ?? Limits()
        var interfaces: [NetworkInterface]?
        // The container may end while we look: its counters are gone then.
        if record.container.pid > 0, record.assignment.pod.network != .host,
            let counters = try? InterfaceCounters.of(process: pid_t(record.container.pid))
        {
            interfaces = counters.map { NetworkInterface($0) }
        }
        func carried(_ direction: (NetworkInterface) -> NetworkInterface.Counters) -> Int64 {
            (interfaces ?? []).reduce(0) { $0 &+ direction($1).bytes }
        }
        func sum(_ value: (CgroupStats.Device) -> UInt64) -> Int64 {
            Int64(clamping: (stats.devices ?? []).reduce(UInt64(0)) { $0 &+ value($1) })
        }
        let memoryLimit = stats.memory?.limit.map { Int64(clamping: $0) } ?? limits.memory
        var sample = ContainerStats(
            id: record.container.id, name: record.assignment.instanceName, time: Timestamp.now(),
            cpuTotal: Int64(clamping: stats.cpu?.usage ?? 0), cpuUser: Int64(clamping: stats.cpu?.user ?? 0),
            cpuSystem: Int64(clamping: stats.cpu?.system ?? 0),
            throttledPeriods: Int64(clamping: stats.cpu?.throttledPeriods ?? 0),
            throttledTime: Int64(clamping: stats.cpu?.throttledTime ?? 0),
            memoryUsage: Int64(clamping: stats.memory?.workingSet ?? 0), memoryLimit: memoryLimit,
            pids: Int64(clamping: stats.pids?.current ?? 0), pidsLimit: stats.pids?.limit.map { Int64(clamping: $0) },
            networkReceived: carried(\.received), networkSent: carried(\.sent), blockRead: sum(\.readBytes),
            blockWritten: sum(\.writeBytes))
        if record.assignment.pod.network != .container { sample.interfaces = interfaces }
        return sample
    }

    package func processes(_ record: TaskRecord, _ columns: [ProcessColumn]) async throws -> ProcessList {
        let group = try cgroup(of: record.assignment.task)
        return try await pool.run {
            let rows = try group.processes().sorted().compactMap { ProcessRow($0)?.values(columns) }
            return ProcessList(titles: columns.map(\.title), processes: rows)
        }
    }
}

extension NetworkInterface {
    fileprivate init(_ counters: InterfaceCounters) {
        func count(_ bytes: UInt64, _ packets: UInt64, _ errors: UInt64, _ dropped: UInt64) -> Counters {
            Counters(
                bytes: Int64(clamping: bytes), packets: Int64(clamping: packets), errors: Int64(clamping: errors),
                dropped: Int64(clamping: dropped))
        }
        self.init(
            name: counters.name,
            received: count(
                counters.receivedBytes, counters.receivedPackets, counters.receiveErrors, counters.receiveDrops),
            sent: count(counters.sentBytes, counters.sentPackets, counters.sendErrors, counters.sendDrops))
    }
}
