import Model
import Wire

/// The body of `docker update`: what is given and not zero changes.
struct UpdateRequest: Decodable, Sendable {
    struct Restart: Decodable, Sendable {
        var name: String?
        var maximumRetryCount: Int?

        enum CodingKeys: String, CodingKey {
            case name = "Name"
            case maximumRetryCount = "MaximumRetryCount"
        }
    }

    var cpuShares: Int64?
    var cpuPeriod: Int64?
    var cpuQuota: Int64?
    var cpusetCpus: String?
    var cpusetMems: String?
    var nanoCpus: Int64?
    var memory: Int64?
    var memorySwap: Int64?
    var memoryReservation: Int64?
    var pidsLimit: Int64?
    var blkioWeight: Int64?
    var restartPolicy: Restart?
    // What is refused by name.
    var kernelMemory: Int64?
    var cpuRealtimePeriod: Int64?
    var cpuRealtimeRuntime: Int64?
    var cgroupParent: String?
    var memorySwappiness: Int64?
    var oomKillDisable: Bool?

    enum CodingKeys: String, CodingKey {
        case cpuShares = "CpuShares"
        case cpuPeriod = "CpuPeriod"
        case cpuQuota = "CpuQuota"
        case cpusetCpus = "CpusetCpus"
        case cpusetMems = "CpusetMems"
        case nanoCpus = "NanoCpus"
        case memory = "Memory"
        case memorySwap = "MemorySwap"
        case memoryReservation = "MemoryReservation"
        case pidsLimit = "PidsLimit"
        case blkioWeight = "BlkioWeight"
        case restartPolicy = "RestartPolicy"
        case kernelMemory = "KernelMemory"
        case cpuRealtimePeriod = "CpuRealtimePeriod"
        case cpuRealtimeRuntime = "CpuRealtimeRuntime"
        case cgroupParent = "CgroupParent"
        case memorySwappiness = "MemorySwappiness"
        case oomKillDisable = "OomKillDisable"
    }

    /// The same in the cluster's words.
    ///
    /// - Throws: `DockerError` 400 that names what cannot be changed.
    func change() throws -> UpdateContainer {
        let refused: [(String, Bool)] = [
            ("KernelMemory", kernelMemory ?? 0 != 0), ("CpuRealtimePeriod", cpuRealtimePeriod ?? 0 != 0),
            ("CpuRealtimeRuntime", cpuRealtimeRuntime ?? 0 != 0), ("CgroupParent", !(cgroupParent ?? "").isEmpty),
            ("MemorySwappiness", ![0, -1].contains(memorySwappiness ?? 0)), ("OomKillDisable", oomKillDisable ?? false),
        ]
        if let field = refused.first(where: \.1)?.0 {
            throw DockerError.unsupported(field, "it cannot be changed while the container exists")
        }
        var change = UpdateContainer()
        change.cpu = given(nanoCpus)
        change.cpuShares = given(cpuShares)
        change.cpuPeriod = given(cpuPeriod)
        change.cpuQuota = given(cpuQuota)
        change.cpus = given(cpusetCpus)
        change.memoryNodes = given(cpusetMems)
        change.memory = given(memory)
        change.memorySwap = given(memorySwap)
        change.memoryReservation = given(memoryReservation)
        change.pids = pidsLimit
        change.blockWeight = given(blkioWeight)
        change.restart = try restart()
        return change
    }

    private func restart() throws -> RestartPolicy? {
        guard let name = given(restartPolicy?.name) else { return nil }
        guard let condition = RestartPolicy.Condition(rawValue: name) else {
            throw DockerError.badRequest("invalid restart policy: unknown policy '\(name.prefix(40))'")
        }
        let retries = restartPolicy?.maximumRetryCount ?? 0
        guard retries >= 0, retries == 0 || condition == .onFailure else {
            throw DockerError.badRequest("invalid restart policy: retries go with 'on-failure', and are not negative")
        }
        return RestartPolicy(condition, maximumRetries: retries == 0 ? nil : retries)
    }

    private func given(_ value: Int64?) -> Int64? { value == 0 ? nil : value }
    private func given(_ value: String?) -> String? { value.flatMap { $0.isEmpty ? nil : $0 } }
}
