import ArgumentParser
import Model
import Wire

/// Limits of a container: those of `run`, which `update` changes.
struct LimitOptions: ParsableArguments {
    @Option(name: .shortAndLong, help: "Memory limit, such as 64m.")
    var memory: ByteSize?

    @Option(
        parsing: .unconditional, help: "Memory plus swap; the same as --memory unless given; -1 for no limit on swap.")
    var memorySwap: ByteSize?

    @Option(help: "What the scheduler reserves when it is less than --memory.")
    var memoryReservation: ByteSize?

    @Option(parsing: .unconditional, help: "Processors, such as 0.5.")
    var cpus: Cores?

    @Option(parsing: .unconditional, help: "Weight among neighbours, 2 to 262144.")
    var cpuShares: Int64?

    @Option(parsing: .unconditional, help: "Microseconds in which --cpu-quota is counted (100000).")
    var cpuPeriod: Int64?

    @Option(parsing: .unconditional, help: "Microseconds of processor time in each period; -1 for no limit.")
    var cpuQuota: Int64?

    @Option(help: "Processors that it may run on, such as 0-3,7.")
    var cpusetCpus: String?

    @Option(help: "Memory nodes that it may use, such as 0-1.")
    var cpusetMems: String?

    @Option(parsing: .unconditional, help: "The most processes; -1 for no limit.")
    var pidsLimit: Int64?

    @Option(parsing: .unconditional, help: "Weight of its reads and writes on disks, 10 to 1000.")
    var blkioWeight: Int64?

    func apply(to limits: inout Limits) {
        if let memory { limits.memory = memory.bytes }
        if let memorySwap { limits.memorySwap = memorySwap.bytes }
        if let memoryReservation { limits.memoryReservation = memoryReservation.bytes }
        if let cpus { limits.cpu = cpus.nano }
        if let cpuShares { limits.cpuShares = cpuShares }
        if let cpuPeriod { limits.cpuPeriod = cpuPeriod }
        if let cpuQuota { limits.cpuQuota = cpuQuota == -1 ? nil : cpuQuota }
        if let cpusetCpus { limits.cpus = cpusetCpus }
        if let cpusetMems { limits.memoryNodes = cpusetMems }
        if let pidsLimit { limits.pids = pidsLimit == -1 ? nil : pidsLimit }
        if let blkioWeight { limits.blockWeight = blkioWeight }
    }

    /// As a change of a container that exists.
    var change: UpdateContainer {
        var change = UpdateContainer()
        change.memory = memory?.bytes
        change.memorySwap = memorySwap?.bytes
        change.memoryReservation = memoryReservation?.bytes
        change.cpu = cpus?.nano
        change.cpuShares = cpuShares
        change.cpuPeriod = cpuPeriod
        change.cpuQuota = cpuQuota
        change.cpus = cpusetCpus
        change.memoryNodes = cpusetMems
        change.pids = pidsLimit
        change.blockWeight = blkioWeight
        return change
    }

    /// Nothing was given.
    var isEmpty: Bool {
        memory == nil && memorySwap == nil && memoryReservation == nil && cpus == nil && cpuShares == nil
            && cpuPeriod == nil && cpuQuota == nil && cpusetCpus == nil && cpusetMems == nil && pidsLimit == nil
            && blkioWeight == nil
    }
}
