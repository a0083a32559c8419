import JSON

/// A process of a container: `process` of config.json, and what `exec --process` reads.
package struct ProcessSpec: OCIDocument {
    package var terminal: Bool
    package var consoleSize: ConsoleSize?
    package var user: UserSpec
    package var args: [String]
    package var env: [String]
    /// Absolute path in the container.
    package var cwd: String
    package var capabilities: CapabilitiesSpec?
    package var rlimits: [RlimitSpec]
    package var noNewPrivileges: Bool
    package var apparmorProfile: String?
    package var oomScoreAdj: Int32?
    package var selinuxLabel: String?
    package var scheduler: SchedulerSpec?
    package var ioPriority: IOPrioritySpec?
    /// For the processes of `exec` only.
    package var execCPUAffinity: CPUAffinitySpec?

    package init(args: [String], cwd: String = "/") {
        self.args = args
        self.cwd = cwd
        terminal = false
        user = UserSpec()
        env = []
        rlimits = []
        noNewPrivileges = false
    }

    package init(_ reader: JSONReader) throws(JSONError) {
        terminal = try reader.optionalBool("terminal") ?? false
        consoleSize = try reader.document("consoleSize")
        user = try reader.document("user") ?? UserSpec()
        args = try reader.list("args")
        env = try reader.list("env")
        cwd = try reader.string("cwd")
        capabilities = try reader.document("capabilities")
        rlimits = try reader.documents("rlimits")
        noNewPrivileges = try reader.optionalBool("noNewPrivileges") ?? false
        apparmorProfile = try reader.optionalString("apparmorProfile")
        oomScoreAdj = try reader.optionalInt32("oomScoreAdj")
        selinuxLabel = try reader.optionalString("selinuxLabel")
        scheduler = try reader.document("scheduler")
        ioPriority = try reader.document("ioPriority")
        execCPUAffinity = try reader.document("execCPUAffinity")
    }

    package var json: JSONValue {
        var writer = ObjectWriter()
        if terminal { writer.put("terminal", true) }
        writer.put("consoleSize", consoleSize?.json)
        writer.put("user", user.json)
        writer.put("args", args)
        writer.put("env", env)
        writer.put("cwd", cwd)
        writer.put("capabilities", capabilities?.json)
        writer.put("rlimits", rlimits.map(\.json))
        if noNewPrivileges { writer.put("noNewPrivileges", true) }
        writer.put("apparmorProfile", apparmorProfile)
        writer.put("oomScoreAdj", oomScoreAdj)
        writer.put("selinuxLabel", selinuxLabel)
        writer.put("scheduler", scheduler?.json)
        writer.put("ioPriority", ioPriority?.json)
        writer.put("execCPUAffinity", execCPUAffinity?.json)
        return writer.value
    }
}

/// A terminal's size in character cells.
package struct ConsoleSize: OCIDocument {
    package var height: UInt16
    package var width: UInt16

    package init(height: UInt16, width: UInt16) {
        self.height = height
        self.width = width
    }

    package init(_ reader: JSONReader) throws(JSONError) {
        height = try reader.integer("height")
        width = try reader.integer("width")
    }

    package var json: JSONValue {
        var writer = ObjectWriter()
        writer.put("height", height)
        writer.put("width", width)
        return writer.value
    }
}

/// Ids as the container's user namespace has them.
package struct UserSpec: OCIDocument {
    package var uid: UInt32
    package var gid: UInt32
    package var umask: UInt32?
    package var additionalGids: [UInt32]

    package init(uid: UInt32 = 0, gid: UInt32 = 0, umask: UInt32? = nil, additionalGids: [UInt32] = []) {
        self.uid = uid
        self.gid = gid
        self.umask = umask
        self.additionalGids = additionalGids
    }

    package init(_ reader: JSONReader) throws(JSONError) {
        uid = try reader.optionalUInt32("uid") ?? 0
        gid = try reader.optionalUInt32("gid") ?? 0
        umask = try reader.optionalUInt32("umask")
        additionalGids = try reader.map("additionalGids") { reader throws(JSONError) in
            let gid: UInt32 = try reader.integer()
            guard gid != .max else { throw reader.error(.type, "4294967295 is no group id") }
            return gid
        }
        // (uid_t)-1 means "leave as it is" to the kernel's set*id calls.
        if uid == .max { throw reader.error(.type, "uid", "4294967295 is no user id") }
        if gid == .max { throw reader.error(.type, "gid", "4294967295 is no group id") }
    }

    package var json: JSONValue {
        var writer = ObjectWriter()
        writer.put("uid", uid)
        writer.put("gid", gid)
        writer.put("umask", umask)
        writer.put("additionalGids", additionalGids.map { .integer(Int64($0)) })
        return writer.value
    }
}

/// The five capability sets, see capabilities(7); names with `CAP_`.
package struct CapabilitiesSpec: OCIDocument {
    package var bounding: [String]
    package var effective: [String]
    package var inheritable: [String]
    package var permitted: [String]
    package var ambient: [String]

    package init(
        bounding: [String] = [], effective: [String] = [], inheritable: [String] = [], permitted: [String] = [],
        ambient: [String] = []
    ) {
        self.bounding = bounding
        self.effective = effective
        self.inheritable = inheritable
        self.permitted = permitted
        self.ambient = ambient
    }

    package init(_ reader: JSONReader) throws(JSONError) {
        bounding = try reader.list("bounding")
        effective = try reader.list("effective")
        inheritable = try reader.list("inheritable")
        permitted = try reader.list("permitted")
        ambient = try reader.list("ambient")
    }

    package var json: JSONValue {
        var writer = ObjectWriter()
        writer.put("bounding", bounding)
        writer.put("effective", effective)
        writer.put("inheritable", inheritable)
        writer.put("permitted", permitted)
        writer.put("ambient", ambient)
        return writer.value
    }
}

/// A resource limit, see getrlimit(2).
package struct RlimitSpec: OCIDocument {
    /// `RLIMIT_NOFILE`, …
    package var type: String
    package var hard: UInt64
    package var soft: UInt64

    package init(type: String, hard: UInt64, soft: UInt64) {
        self.type = type
        self.hard = hard
        self.soft = soft
    }

    package init(_ reader: JSONReader) throws(JSONError) {
        type = try reader.string("type")
        hard = try reader.uint64("hard")
        soft = try reader.uint64("soft")
    }

    package var json: JSONValue {
        var writer = ObjectWriter()
        writer.put("type", type)
        writer.put("hard", hard)
        writer.put("soft", soft)
        return writer.value
    }
}
