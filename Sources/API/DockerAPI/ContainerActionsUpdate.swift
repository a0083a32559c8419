import JSON
import Model
import Wire

/// The body of `docker update`: what is given and not zero changes.
struct UpdateRequest: Decodable, Sendable {
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
    var memorySwappiness: Int64?
    var restartPolicy: HostConfigRequest.RestartPolicy?

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
        case memorySwappiness = "MemorySwappiness"
    }

    /// - Throws: `DockerError` 400 for JSON of another shape, and for what cannot be changed.
    init(_ body: JSONValue, version: APIVersion) throws {
        self = try DockerCall.decode(Self.self, from: body)
        try CreateMembers.checkUpdate(body, version)
        // -1 says nothing either.
        guard [0, -1].contains(memorySwappiness ?? 0) else {
            throw DockerError.unsupported("MemorySwappiness", "it cannot be changed while the container exists")
        }
    }

    /// The same in the cluster's words.
    ///
    /// - Throws: `DockerError` 400 for a restart policy that is none.
    func change() throws -> UpdateContainer {
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
        change.restart = try restartPolicy?.policy()
        return change
    }

    private func given(_ value: Int64?) -> Int64? { value == 0 ? nil : value }
    private func given(_ value: String?) -> String? { value.flatMap { $0.isEmpty ? nil : $0 } }
}
