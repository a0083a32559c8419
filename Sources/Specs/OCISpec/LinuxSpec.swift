import JSON

/// `linux` of config.json.
package struct LinuxSpec: OCIDocument {
    package var namespaces: [NamespaceSpec]
    /// For a new user namespace.
    package var uidMappings: [IDMapping]
    package var gidMappings: [IDMapping]
    /// `boottime` and `monotonic`.
    package var timeOffsets: [String: TimeOffset]
    package var devices: [DeviceSpec]
    /// A cgroup path: absolute from the root of every hierarchy, or relative to a place of the runtime's choice.
    package var cgroupsPath: String?
    package var resources: ResourcesSpec?
    package var sysctl: [String: String]
    package var seccomp: SeccompSpec?
    package var rootfsPropagation: String?
    package var maskedPaths: [String]
    package var readonlyPaths: [String]
    package var mountLabel: String?
    package var personality: PersonalitySpec?
    package var intelRdt: IntelRdtSpec?
    package var memoryPolicy: MemoryPolicySpec?
    /// By their names on the host.
    package var netDevices: [String: NetDeviceSpec]

    package init() {
        namespaces = []
        uidMappings = []
        gidMappings = []
        timeOffsets = [:]
        devices = []
        sysctl = [:]
        maskedPaths = []
        readonlyPaths = []
        netDevices = [:]
    }

    package init(_ reader: JSONReader) throws(JSONError) {
        namespaces = try reader.documents("namespaces")
        uidMappings = try reader.documents("uidMappings")
        gidMappings = try reader.documents("gidMappings")
        timeOffsets = [:]
        if let offsets = try reader.optionalObject("timeOffsets") {
            for (clock, offset) in try offsets.entries() { timeOffsets[clock] = try TimeOffset(offset) }
        }
        devices = try reader.documents("devices")
        cgroupsPath = try reader.optionalString("cgroupsPath")
        resources = try reader.document("resources")
        sysctl = try reader.table("sysctl")
        seccomp = try reader.document("seccomp")
        rootfsPropagation = try reader.optionalString("rootfsPropagation")
        maskedPaths = try reader.list("maskedPaths")
        readonlyPaths = try reader.list("readonlyPaths")
        mountLabel = try reader.optionalString("mountLabel")
        personality = try reader.document("personality")
        intelRdt = try reader.document("intelRdt")
        memoryPolicy = try reader.document("memoryPolicy")
        netDevices = try reader.documentTable("netDevices")
    }

    package var json: JSONValue {
        var writer = ObjectWriter()
        writer.put("uidMappings", uidMappings.map(\.json))
        writer.put("gidMappings", gidMappings.map(\.json))
        writer.put("sysctl", sysctl)
        writer.put("resources", resources?.json)
        writer.put("cgroupsPath", cgroupsPath)
        writer.put("namespaces", namespaces.map(\.json))
        writer.put("devices", devices.map(\.json))
        writer.put("netDevices", netDevices.mapValues(\.json))
        writer.put("seccomp", seccomp?.json)
        writer.put("rootfsPropagation", rootfsPropagation)
        writer.put("maskedPaths", maskedPaths)
        writer.put("readonlyPaths", readonlyPaths)
        writer.put("mountLabel", mountLabel)
        writer.put("intelRdt", intelRdt?.json)
        writer.put("memoryPolicy", memoryPolicy?.json)
        writer.put("personality", personality?.json)
        if !timeOffsets.isEmpty {
            var offsets = ObjectWriter()
            for clock in timeOffsets.keys.sorted() { offsets.put(clock, timeOffsets[clock]?.json) }
            writer.put("timeOffsets", offsets.value)
        }
        return writer.value
    }

    /// The namespace of a type, if the container has one that is not the runtime's own.
    package func namespace(_ type: NamespaceSpec.Kind) -> NamespaceSpec? {
        namespaces.first { $0.type == type }
    }
}

/// A namespace to make, or to join when it has a path.
package struct NamespaceSpec: OCIDocument {
    /// The eight kinds, by the specification's names.
    package enum Kind: String, Sendable, CaseIterable {
        case pid, network, mount, ipc, uts, user, cgroup, time
    }

    package var type: Kind
    package var path: String?

    package init(_ type: Kind, path: String? = nil) {
        self.type = type
        self.path = path
    }

    package init(_ reader: JSONReader) throws(JSONError) {
        type = try reader.choice("type")
        path = try reader.optionalString("path")
        if path == "" { path = nil }
    }

    package var json: JSONValue {
        var writer = ObjectWriter()
        writer.put("type", type.rawValue)
        writer.put("path", path)
        return writer.value
    }
}

/// An offset of a clock in a time namespace, see time_namespaces(7).
package struct TimeOffset: OCIDocument {
    package var seconds: Int64
    package var nanoseconds: UInt32

    package init(seconds: Int64, nanoseconds: UInt32) {
        self.seconds = seconds
        self.nanoseconds = nanoseconds
    }

    package init(_ reader: JSONReader) throws(JSONError) {
        seconds = try reader.optionalInt64("secs") ?? 0
        nanoseconds = try reader.optionalUInt32("nanosecs") ?? 0
        guard nanoseconds < 1_000_000_000 else {
            throw reader.error(.type, "nanosecs", "must be less than 1000000000")
        }
    }

    package var json: JSONValue {
        var writer = ObjectWriter()
        writer.put("secs", seconds)
        writer.put("nanosecs", nanoseconds)
        return writer.value
    }
}

/// A device node to make in the container.
package struct DeviceSpec: OCIDocument {
    /// What kind of node, by the letter of mknod(1).
    package enum Kind: String, Sendable, CaseIterable {
        case character = "c"
        case unbuffered = "u"
        case block = "b"
        case fifo = "p"
    }

    /// Absolute path in the container.
    package var path: String
    package var type: Kind
    package var major: UInt32
    package var minor: UInt32
    /// Permission bits; nil for 0666.
    package var fileMode: UInt32?
    package var uid: UInt32?
    package var gid: UInt32?

    package init(
        path: String, type: Kind, major: UInt32, minor: UInt32, fileMode: UInt32? = nil, uid: UInt32? = nil,
        gid: UInt32? = nil
    ) {
        self.path = path
        self.type = type
        self.major = major
        self.minor = minor
        self.fileMode = fileMode
        self.uid = uid
        self.gid = gid
    }

    package init(_ reader: JSONReader) throws(JSONError) {
        path = try reader.string("path")
        type = try reader.choice("type")
        // A FIFO has no numbers; what stands there is ignored.
        major = type == .fifo ? 0 : try reader.optionalUInt32("major") ?? 0
        minor = type == .fifo ? 0 : try reader.optionalUInt32("minor") ?? 0
        fileMode = try reader.optionalUInt32("fileMode")
        uid = try reader.optionalUInt32("uid")
        gid = try reader.optionalUInt32("gid")
    }

    package var json: JSONValue {
        var writer = ObjectWriter()
        writer.put("path", path)
        writer.put("type", type.rawValue)
        if type != .fifo {
            writer.put("major", major)
            writer.put("minor", minor)
        }
        writer.put("fileMode", fileMode)
        writer.put("uid", uid)
        writer.put("gid", gid)
        return writer.value
    }
}

/// The execution domain, see personality(2).
package struct PersonalitySpec: OCIDocument {
    /// PER_LINUX and PER_LINUX32.
    package enum Domain: String, Sendable, CaseIterable {
        case linux = "LINUX"
        case linux32 = "LINUX32"
    }

    package var domain: Domain
    package var flags: [String]

    package init(domain: Domain) {
        self.domain = domain
        flags = []
    }

    package init(_ reader: JSONReader) throws(JSONError) {
        domain = try reader.choice("domain")
        flags = try reader.list("flags")
    }

    package var json: JSONValue {
        var writer = ObjectWriter()
        writer.put("domain", domain.rawValue)
        writer.put("flags", flags)
        return writer.value
    }
}
