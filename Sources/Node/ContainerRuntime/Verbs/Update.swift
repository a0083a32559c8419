import Cgroups
import Glibc
import JSON
import Kernel
import OCISpec

extension Verb {
    static let update = Verb(
        name: "update", usage: "[command options] <container-id>", summary: "change the limits of a container",
        flags: [
            Flag("resources", "r", value: "FILE", help: "read all limits from a file (- is standard input), as JSON"),
            Flag("memory", value: "BYTES", help: "memory; -1: no limit"),
            Flag("memory-reservation", value: "BYTES", help: "memory that is reclaimed last"),
            Flag("memory-swap", value: "BYTES", help: "memory and swap together; -1: no limit"),
            Flag("cpu-shares", value: "N", help: "relative weight"),
            Flag("cpu-period", value: "US", help: "period of the quota, in microseconds"),
            Flag("cpu-quota", value: "US", help: "time in a period, in microseconds"),
            Flag("cpuset-cpus", value: "LIST", help: "CPUs, as 0-2,5"),
            Flag("cpuset-mems", value: "LIST", help: "memory nodes"),
            Flag("pids-limit", value: "N", help: "processes and threads; -1: no limit"),
            Flag("blkio-weight", value: "N", help: "relative weight, 10 to 1000"),
        ]
    ) { call in
        try call.arguments.require("update", atLeast: 1, atMost: 1)
        let id = try call.containerID()
        let lock = try call.store.lock(id)
        let record = try call.store.require(id)
        guard try call.store.status(record) != .stopped else { throw RuntimeError.notRunning }
        let resources = try UpdateArguments.resources(call.arguments)
        for notice in try record.cgroup.manager.apply(CgroupResources(resources)) {
            call.log.write(.warning, "\(notice)")
        }
        if !resources.devices.isEmpty { try record.cgroup.manager.setDevices(DeviceRules.of(resources)) }
        _ = consume lock
        return 0
    }
}

/// The limits that `update` describes.
private enum UpdateArguments {
    static func resources(_ arguments: Arguments) throws -> ResourcesSpec {
        if let path = arguments.value("resources") {
            let bytes = path == "-" ? try Descriptor.readAll(0, limit: 4 << 20) : try File.read(path, limit: 4 << 20)
            return try withContext("--resources") { try ResourcesSpec(parsing: bytes) }
        }
        func number<Number: FixedWidthInteger>(_ flag: String) throws -> Number? {
            guard let text = arguments.value(flag) else { return nil }
            guard let number = Number(text) else { throw RuntimeError("--\(flag): '\(text)' is no number for it") }
            return number
        }
        var resources = ResourcesSpec()
        resources.memory = MemorySpec(
            limit: try number("memory"), reservation: try number("memory-reservation"), swap: try number("memory-swap"))
        var cpu = CPUSpec(
            shares: try number("cpu-shares"), quota: try number("cpu-quota"), period: try number("cpu-period"))
        cpu.cpus = arguments.value("cpuset-cpus")
        cpu.mems = arguments.value("cpuset-mems")
        resources.cpu = cpu
        resources.pidsLimit = try number("pids-limit")
        if let weight: UInt16 = try number("blkio-weight") {
            resources.blockIO = BlockIOSpec()
            resources.blockIO?.weight = weight
        }
        return resources
    }
}
