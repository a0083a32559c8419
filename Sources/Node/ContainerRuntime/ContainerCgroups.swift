import Cgroups
import DeviceNodes
import JSON
import Kernel
import OCISpec

/// Where a container's cgroups are, in the runtime's record: enough to find them again without looking for mounts.
struct CgroupRecord: Sendable, Equatable {
    let manager: CgroupManager
    /// The unit that the group belongs to; nil where groups are made directly.
    let scope: SystemdScope?

    /// The cgroup of a new container: an absolute path counts from the root of every hierarchy, a relative one from the
    /// runtime's own groups; without a path it is a group of the container's own name at the root.
    ///
    /// - Parameter systemd: systemd makes the group, and the path is `slice:prefix:name`.
    init(path: String?, id: ContainerID, systemd: Bool) throws {
        if systemd {
            (manager, scope) = try Self.managed(path, id)
            return
        }
        scope = nil
        let place = path.flatMap { $0.isEmpty ? nil : $0 } ?? "/martlet-\(id)"
        guard place.isAbsolutePath || !place.contains(":") else {
            throw RefusedField("linux.cgroupsPath", "'\(place)' is a path for systemd: call with --systemd-cgroup")
        }
        manager = try withContext("config.json: linux.cgroupsPath") {
            var layout = try CgroupLayout.detect()
            guard !place.isAbsolutePath else { return try CgroupManager(layout: layout, path: place) }
            layout = try layout.startingFromOwnGroups(try File.text("/proc/self/cgroup"))
            return try CgroupManager(layout: layout, path: "/" + place)
        }
    }

    /// A group that is made directly.
    init(manager: CgroupManager) {
        self.manager = manager
        scope = nil
    }

    init(_ reader: JSONReader) throws {
        let hierarchies = try reader.map("hierarchies") { reader throws(JSONError) in
            CgroupHierarchy(
                mountPoint: try reader.string("mountPoint"),
                version: try reader.int64("version") == 1 ? .v1 : .v2,
                controllers: try reader.map("controllers") { controller throws(JSONError) in try controller.choice() },
                name: try reader.optionalString("name"), root: try reader.optionalString("root") ?? "/",
                base: try reader.optionalString("base") ?? "")
        }
        manager = try CgroupManager(layout: CgroupLayout(hierarchies), path: try reader.string("path"))
        scope = try reader.optionalObject("scope").map { scope in
            try SystemdScope(slice: try scope.string("slice"), unit: try scope.string("unit"))
        }
    }

    var json: JSONValue {
        let hierarchies = manager.layout.hierarchies.map { hierarchy in
            var object: JSONObject = [
                "mountPoint": .string(hierarchy.mountPoint), "version": hierarchy.version == .v1 ? 1 : 2,
                "controllers": .array(hierarchy.controllers.map { .string($0.rawValue) }),
            ]
            if let name = hierarchy.name { object["name"] = .string(name) }
            if hierarchy.root != "/" { object["root"] = .string(hierarchy.root) }
            if !hierarchy.base.isEmpty { object["base"] = .string(hierarchy.base) }
            return JSONValue.object(object)
        }
        var object: JSONObject = ["path": .string(manager.path), "hierarchies": .array(hierarchies)]
        if let scope { object["scope"] = ["slice": .string(scope.slice), "unit": .string(scope.unit)] }
        return .object(object)
    }
}

/// The group of a new container, made in two steps around the making of its process.
struct ContainerGroup {
    let record: CgroupRecord
    let spec: ContainerSpec
    let rules: [DeviceRule]
    let log: RuntimeLog

    private var manager: CgroupManager { record.manager }

    /// Whether the process stops until it is let into v1 groups, before the first mount that these count or allow. Where
    /// there is only cgroup v2 (so always when systemd makes the group), or nothing at all, one directory is all there is
    /// to make: the process is made in a group that has all of its limits.
    var isWaitedFor: Bool { !manager.layout.isUnified }

    /// What has to be there before the process is, because that is made in it.
    ///
    /// - Parameter exists: becomes true once there is something to remove.
    func prepare(_ exists: inout Bool) throws {
        if !isWaitedFor { return try make(&exists) }
        try manager.createUnified()
        exists = manager.layout.unified != nil
    }

    /// The rest: a process that waits for its `entrance` does what needs no group meanwhile, for the many directories of cgroup
    /// v1 take as long.
    func complete(_ exists: inout Bool) throws {
        if isWaitedFor { try make(&exists) }
    }

    /// What lets the process into the v1 groups, one after the other.
    func entrance() throws -> [SharedFD] { try manager.entry().files.map(\.descriptor) }

    private func make(_ exists: inout Bool) throws {
        try manager.create()
        exists = true
        if record.isAbsent {
            if let resources = spec.linux?.resources { try record.refuseLimits(resources) }
            return
        }
        if let resources = spec.linux?.resources {
            var limits = CgroupResources(resources)
            if record.scope != nil { _ = limits.takeProcessLimits() }
            let notices = try manager.apply(limits)
            try LimitNotices.check(notices)
            LimitNotices.report(notices, log: log)
            try record.tellSystemd(of: limits)
        }
        if let owner = CgroupOwnership.owner(spec) { try manager.delegate(to: owner) }
        try manager.setDevices(rules)
    }

    /// Limits the processes of a scope, in which the container's first process is alone by now.
    func limitProcesses() throws {
        guard let resources = spec.linux?.resources else { return }
        var limits = CgroupResources(resources)
        let processes = limits.takeProcessLimits()
        guard processes != CgroupResources() else { return }
        _ = try manager.apply(processes)
        try record.tellSystemd(of: processes)
    }
}

extension CgroupResources {
    /// The configuration's limits, without device rules.
    init(_ spec: ResourcesSpec) {
        self.init()
        if let source = spec.cpu {
            cpu.shares = source.shares
            cpu.quota = source.quota
            cpu.burst = source.burst
            cpu.period = source.period
            cpu.realtimeRuntime = source.realtimeRuntime
            cpu.realtimePeriod = source.realtimePeriod
            cpu.cpus = source.cpus
            cpu.mems = source.mems
            cpu.idle = source.idle
        }
        if let source = spec.memory {
            memory.limit = source.limit
            memory.reservation = source.reservation
            memory.swap = source.swap
            memory.kernel = source.kernel
            memory.kernelTCP = source.kernelTCP
            memory.swappiness = source.swappiness
            memory.disableOOMKiller = source.disableOOMKiller
            memory.useHierarchy = source.useHierarchy
            memory.checkBeforeUpdate = source.checkBeforeUpdate
        }
        pidsLimit = spec.pidsLimit
        if let source = spec.blockIO { blockIO = BlockIO(source) }
        hugepages = spec.hugepageLimits.map { Hugepages(pageSize: $0.pageSize, limit: $0.limit) }
        if let source = spec.network {
            network.classID = source.classID
            network.priorities = source.priorities.map {
                Network.Priority(interface: $0.name, priority: $0.priority)
            }
        }
        // Few have these: the types of such loops are made at run time.
        if !spec.rdma.isEmpty {
            rdma = spec.rdma.keys.sorted().map { device in
                RDMA(device: device, handles: spec.rdma[device]?.hcaHandles, objects: spec.rdma[device]?.hcaObjects)
            }
        }
        if !spec.unified.isEmpty {
            unified = spec.unified.keys.sorted().map { Unified(file: $0, value: spec.unified[$0] ?? "") }
        }
    }
}

extension CgroupResources {
    /// Takes out what limits the number of processes.
    mutating func takeProcessLimits() -> CgroupResources {
        var taken = CgroupResources()
        taken.pidsLimit = pidsLimit
        taken.unified = unified.filter { $0.file == "pids.max" }
        pidsLimit = nil
        unified.removeAll { $0.file == "pids.max" }
        return taken
    }
}

extension CgroupResources.BlockIO {
    init(_ spec: BlockIOSpec) {
        self.init()
        weight = spec.weight
        leafWeight = spec.leafWeight
        for device in spec.weightDevice {
            if let weight = device.weight {
                deviceWeights.append(Device(major: device.major, minor: device.minor, value: UInt64(weight)))
            }
            if let weight = device.leafWeight {
                deviceLeafWeights.append(Device(major: device.major, minor: device.minor, value: UInt64(weight)))
            }
        }
        func rates(_ devices: [ThrottleDevice]) -> [Device] {
            devices.map { Device(major: $0.major, minor: $0.minor, value: $0.rate) }
        }
        readBytesPerSecond = rates(spec.throttleReadBpsDevice)
        writeBytesPerSecond = rates(spec.throttleWriteBpsDevice)
        readOperationsPerSecond = rates(spec.throttleReadIOPSDevice)
        writeOperationsPerSecond = rates(spec.throttleWriteIOPSDevice)
    }
}

/// The rules of a container's device cgroup: the configuration's, then what every container needs.
enum DeviceRules {
    static func of(_ spec: ResourcesSpec?) throws -> [DeviceRule] {
        var rules: [DeviceRule] = []
        for (index, rule) in (spec?.devices ?? []).enumerated() {
            let path = "linux.resources.devices[\(index)]"
            let kind = rule.type ?? ""
            guard let device = kind.isEmpty ? DeviceClass.all : DeviceClass(kind) else {
                throw RefusedField("\(path).type", "'\(kind)' is none of a, b, c")
            }
            guard let access = rule.access.map({ DeviceAccess($0) }) ?? .all else {
                throw RefusedField("\(path).access", "'\(rule.access ?? "")' is not made of r, w and m")
            }
            rules.append(
                DeviceRule(
                    allow: rule.allow, device, major: try number(rule.major, "\(path).major"),
                    minor: try number(rule.minor, "\(path).minor"), access: access))
        }
        return rules + DeviceRule.containerDefaults
    }

    /// Like no number, -1 stands for all.
    private static func number(_ value: Int64?, _ path: String) throws -> UInt32? {
        guard let value, value != -1 else { return nil }
        guard let number = UInt32(exactly: value) else { throw RefusedField(path, "\(value) is out of range") }
        return number
    }
}
