import Cgroups
import Glibc
import JSON
import Kernel
import OCISpec

/// What the runtime remembers of a container between its calls: state.json in the container's state directory.
struct ContainerRecord {
    /// The latest version that this runtime reads; it refuses later ones.
    ///
    /// The rule: a member that an earlier runtime may pass over needs no new version, and is optional for ever. One that it
    /// must not, because it would look for processes elsewhere or kill others, needs one. A record has the lowest version
    /// that says all of it, so that an earlier runtime still reads what has nothing new in it.
    ///
    /// - 1: the first.
    /// - 2: a hierarchy's `base`, without which the container's group would be another.
    static let latestVersion: Int64 = 2

    /// The version of this record.
    var version: Int64 { cgroup.manager.layout.hierarchies.contains { !$0.base.isEmpty } ? 2 : 1 }

    var ociVersion: String
    var id: ContainerID
    /// 0 until the container's process exists.
    var pid: pid_t = 0
    /// Of that process, in clock ticks after boot: with the pid it is unmistakable.
    var startTime: UInt64 = 0
    var bundle: String
    var rootfs: String
    var created: Timestamp
    var annotations: [String: String]
    /// Where its cgroups are.
    var cgroup: CgroupRecord
    /// The namespaces that are not the runtime's own.
    var namespaces: [NamespaceSpec.Kind]
    /// Whether the container's pid namespace is its own, so that all its processes end with the first.
    var ownsPids: Bool
    /// What `exec` starts from.
    var process: ProcessSpec
    var poststart: [HookSpec]
    var poststop: [HookSpec]
    /// Flags of the compiled filter in the file `seccomp.bpf`; nil without one.
    var seccompFlags: UInt32?
    /// Who is asked about the filter's notified calls; nil when there are none.
    var seccompListener: SeccompListener?
    /// What every process of the container gets, of `exec` too.
    var personality: PersonalitySpec?
    var memoryPolicy: MemoryPolicySpec?
    var resourceControl: ContainerResourceControl?

    /// The state that hooks and `state` show.
    func state(_ status: RuntimeState.Status) -> RuntimeState {
        RuntimeState(
            ociVersion: ociVersion, id: id.description, status: status, pid: status == .stopped ? 0 : pid,
            bundle: bundle, annotations: annotations)
    }
}

extension ContainerRecord {
    var json: JSONValue {
        var object: JSONObject = [
            "version": .integer(version), "ociVersion": .string(ociVersion), "id": .string(id.description),
            "pid": .integer(Int64(pid)), "startTime": JSONValue(startTime), "bundle": .string(bundle),
            "rootfs": .string(rootfs), "created": .string(created.description), "cgroup": cgroup.json,
            "namespaces": .array(namespaces.map { .string($0.rawValue) }), "process": process.json,
            "ownsPids": .bool(ownsPids),
        ]
        if !annotations.isEmpty {
            var table = JSONObject()
            for (key, value) in annotations { table[key] = .string(value) }
            object["annotations"] = .object(table)
        }
        if !poststart.isEmpty { object["poststart"] = .array(poststart.map(\.json)) }
        if !poststop.isEmpty { object["poststop"] = .array(poststop.map(\.json)) }
        if let seccompFlags { object["seccompFlags"] = .integer(Int64(seccompFlags)) }
        if let seccompListener { object["seccompListener"] = seccompListener.json }
        if let personality { object["personality"] = personality.json }
        if let memoryPolicy { object["memoryPolicy"] = memoryPolicy.json }
        if let resourceControl { object["resourceControl"] = resourceControl.json }
        return .object(object)
    }

    init(_ reader: JSONReader) throws {
        let version = try reader.int64("version")
        guard (1...Self.latestVersion).contains(version) else {
            throw RuntimeError(
                "the container's record has version \(version), and this runtime reads 1 to \(Self.latestVersion): "
                    + "use the martlet-runtime that made the container")
        }
        ociVersion = try reader.string("ociVersion")
        id = try ContainerID(try reader.string("id"))
        pid = try reader.int32("pid")
        startTime = try reader.uint64("startTime")
        bundle = try reader.string("bundle")
        rootfs = try reader.string("rootfs")
        guard let created = Timestamp(rfc3339: try reader.string("created")) else {
            throw reader.error(.type, "created", "not a time of RFC 3339")
        }
        self.created = created
        annotations = try reader.optionalStringMap("annotations") ?? [:]
        cgroup = try CgroupRecord(try reader.object("cgroup"))
        namespaces = try reader.map("namespaces") { reader throws(JSONError) in try reader.choice() }
        ownsPids = try reader.bool("ownsPids")
        process = try ProcessSpec(try reader.object("process"))
        poststart = try reader.map("poststart") { reader throws(JSONError) in try HookSpec(reader) }
        poststop = try reader.map("poststop") { reader throws(JSONError) in try HookSpec(reader) }
        seccompFlags = try reader.optionalUInt32("seccompFlags")
        seccompListener = try reader.optionalObject("seccompListener").map { try SeccompListener($0) }
        if let part = try reader.optionalObject("personality") { personality = try PersonalitySpec(part) }
        if let part = try reader.optionalObject("memoryPolicy") { memoryPolicy = try MemoryPolicySpec(part) }
        if let part = try reader.optionalObject("resourceControl") {
            resourceControl = try ContainerResourceControl(part)
        }
    }
}
