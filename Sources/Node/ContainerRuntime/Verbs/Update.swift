import Cgroups
import Glibc
import JSON
import Kernel
import OCISpec

extension Verb {
    static let update = Verb(
        name: "update", usage: "[command options] <container-id>", summary: "change the limits of a container",
        flags: {
            [
                Flag(
                    "resources", "r", value: "FILE", help: "read all limits from a file (- is standard input), as JSON"),
                Flag("memory", value: "BYTES", help: "memory, as 64M; -1: no limit"),
                Flag("memory-reservation", value: "BYTES", help: "memory that is reclaimed last"),
                Flag("memory-swap", value: "BYTES", help: "memory and swap together; -1: no limit"),
                Flag("cpu-share", "cpu-shares", value: "N", help: "relative weight"),
                Flag("cpu-period", value: "US", help: "period of the quota, in microseconds"),
                Flag("cpu-quota", value: "US", help: "time in a period, in microseconds; -1: no limit"),
                Flag("cpu-burst", value: "US", help: "time that may be saved up, in microseconds"),
                Flag("cpu-rt-period", value: "US", help: "period of the real-time budget"),
                Flag("cpu-rt-runtime", value: "US", help: "real-time budget in a period"),
                Flag("cpu-idle", value: "0|1", help: "1: run only when nobody else does"),
                Flag("cpuset-cpus", value: "LIST", help: "CPUs, as 0-2,5"),
                Flag("cpuset-mems", value: "LIST", help: "memory nodes"),
                Flag("pids-limit", value: "N", help: "processes and threads; -1: no limit"),
                Flag("blkio-weight", value: "N", help: "relative weight, 10 to 1000"),
                Flag("kernel-memory", value: "BYTES", help: "without effect: kernels have no such limit"),
                Flag("kernel-memory-tcp", value: "BYTES", help: "TCP buffers; cgroup v1 only"),
                Flag("l3-cache-schema", value: "SCHEMA", help: "its class of service's share of the cache, as L3:0=ff"),
                Flag("mem-bw-schema", value: "SCHEMA", help: "the same for memory bandwidth, as MB:0=50"),
            ]
        }
    ) { call in
        try call.arguments.require("update", atLeast: 1, atMost: 1)
        let id = try call.containerID()
        let lock = try call.store.lock(id)
        let record = try call.store.require(id)
        guard try call.store.status(record) != .stopped else { throw RuntimeError.notRunning }
        let schemata = try UpdateArguments.schemata(call.arguments, record)
        let resources = try UpdateArguments.resources(call.arguments)
        if schemata.isEmpty { try record.cgroup.require("limit it") }
        try Validation.check(resources, path: "resources")
        let limits = CgroupResources(resources)
        let rules = resources.devices.isEmpty ? nil : try DeviceRules.of(resources)
        let notices = try record.cgroup.manager.update(limits, devices: rules) { notices throws(CgroupError) in
            try LimitNotices.check(notices)
            try record.cgroup.tellSystemd(of: limits)
        }
        LimitNotices.report(notices, log: call.log)
        try record.resourceControl?.update(schemata)
        _ = consume lock
        return 0
    }
}

/// The limits that `update` describes.
private enum UpdateArguments {
    /// Lines for the container's class of service, checked; none when none is given.
    static func schemata(_ arguments: Arguments, _ record: ContainerRecord) throws -> [String] {
        var lines: [String] = []
        for (flag, prefix) in [("l3-cache-schema", "L3"), ("mem-bw-schema", "MB:")] {
            guard let text = arguments.value(flag), !text.isEmpty else { continue }
            guard let control = record.resourceControl else {
                throw RuntimeError("--\(flag): the container was made without linux.intelRdt")
            }
            do {
                lines += try control.checked(text, prefix: prefix)
            } catch {
                throw RuntimeError("--\(flag)", error)
            }
        }
        return lines
    }

    static func resources(_ arguments: Arguments) throws -> ResourcesSpec {
        if let path = arguments.value("resources"), !path.isEmpty {
            let bytes = path == "-" ? try Descriptor.readAll(0, limit: 4 << 20) : try File.read(path, limit: 4 << 20)
            return try withContext("--resources") { try ResourcesSpec(parsing: bytes) }
        }
        /// An empty text is a flag that was not given, as engines write it.
        func given(_ flag: String) -> String? { arguments.value(flag).flatMap { $0.isEmpty ? nil : $0 } }
        func number<Number: FixedWidthInteger>(_ flag: String) throws -> Number? {
            guard let text = given(flag) else { return nil }
            guard let number = Number(text) else { throw RuntimeError("--\(flag): '\(text)' is no number for it") }
            return number
        }
        func size(_ flag: String) throws -> Int64? {
            guard let text = given(flag) else { return nil }
            if text == "-1" { return -1 }
            guard let size = ByteSize.parse(text) else {
                throw RuntimeError("--\(flag): '\(text)' is no size such as 1048576, 64M or -1")
            }
            return size
        }
        var resources = ResourcesSpec()
        var memory = MemorySpec(
            limit: try size("memory"), reservation: try size("memory-reservation"), swap: try size("memory-swap"))
        memory.kernel = try size("kernel-memory")
        memory.kernelTCP = try size("kernel-memory-tcp")
        resources.memory = memory
        var cpu = CPUSpec(
            shares: try number("cpu-share"), quota: try number("cpu-quota"), period: try number("cpu-period"))
        cpu.burst = try number("cpu-burst")
        cpu.realtimePeriod = try number("cpu-rt-period")
        cpu.realtimeRuntime = try number("cpu-rt-runtime")
        cpu.idle = try number("cpu-idle")
        cpu.cpus = given("cpuset-cpus")
        cpu.mems = given("cpuset-mems")
        resources.cpu = cpu
        resources.pidsLimit = try number("pids-limit")
        if let weight: UInt16 = try number("blkio-weight") {
            resources.blockIO = BlockIOSpec()
            resources.blockIO?.weight = weight
        }
        return resources
    }
}

/// Sizes as people write them for containers: a number, perhaps with a fraction, and a unit of 1024: `512k`, `1.5GiB`.
enum ByteSize {
    /// - Returns: bytes, fractions of one cut off; nil for what is no size or too large.
    static func parse(_ text: String) -> Int64? {
        guard text.utf8.allSatisfy({ $0 < 0x80 }) else { return nil }
        var rest = Substring(text)
        let whole = rest.prefix { $0.isASCII && $0.isNumber }
        rest = rest.dropFirst(whole.count)
        var fraction: Substring = ""
        if rest.first == "." {
            fraction = rest.dropFirst().prefix { $0.isASCII && $0.isNumber }
            rest = rest.dropFirst(1 + fraction.count)
            guard !fraction.isEmpty else { return nil }
        }
        guard !whole.isEmpty, let units = Int64(whole), fraction.count <= 9 else { return nil }
        if rest.first == " " { rest = rest.dropFirst() }
        var unit = rest.lowercased()
        if unit.hasSuffix("b") { unit.removeLast() }
        if unit.count == 2, unit.hasSuffix("i") { unit.removeLast() }
        guard let power = ["", "k", "m", "g", "t", "p"].firstIndex(of: unit) else {
            return nil
        }
        let factor = Int64(1) << Int64(10 * power)
        let (product, overflow) = units.multipliedReportingOverflow(by: factor)
        guard !overflow else { return nil }
        // At most nine digits and 2^50: the quotient fits, the product in a wider type.
        let digits = UInt64(fraction) ?? 0
        let scale = fraction.reduce(into: UInt64(1)) { scale, _ in scale *= 10 }
        let wide = digits.multipliedFullWidth(by: UInt64(factor))
        let part = scale.dividingFullWidth(wide).quotient
        let (sum, tooLarge) = product.addingReportingOverflow(Int64(part))
        return tooLarge ? nil : sum
    }
}
