import JSON

/// A bundle's config.json, OCI runtime specification 1.3 (the parts for Linux).
package struct ContainerSpec: OCIDocument {
    package var ociVersion: String
    /// Required for a container that is to be made.
    package var root: RootSpec?
    package var process: ProcessSpec?
    package var hostname: String?
    package var domainname: String?
    package var mounts: [MountSpec]
    package var hooks: HooksSpec?
    package var annotations: [String: String]
    package var linux: LinuxSpec?

    package init(ociVersion: String = "1.2.0") {
        self.ociVersion = ociVersion
        mounts = []
        annotations = [:]
    }

    package init(_ reader: JSONReader) throws(JSONError) {
        ociVersion = try reader.string("ociVersion")
        root = try reader.document("root")
        process = try reader.document("process")
        hostname = try reader.optionalString("hostname")
        domainname = try reader.optionalString("domainname")
        mounts = try reader.documents("mounts")
        hooks = try reader.document("hooks")
        annotations = try reader.table("annotations")
        linux = try reader.document("linux")
    }

    package var json: JSONValue {
        var writer = ObjectWriter()
        writer.put("ociVersion", ociVersion)
        writer.put("process", process?.json)
        writer.put("root", root?.json)
        writer.put("hostname", hostname)
        writer.put("domainname", domainname)
        writer.put("mounts", mounts.map(\.json))
        writer.put("hooks", hooks?.json)
        writer.put("annotations", annotations)
        writer.put("linux", linux?.json)
        return writer.value
    }
}

/// The container's root filesystem.
package struct RootSpec: OCIDocument {
    /// Absolute, or relative to the bundle.
    package var path: String
    package var readonly: Bool

    package init(path: String, readonly: Bool = false) {
        self.path = path
        self.readonly = readonly
    }

    package init(_ reader: JSONReader) throws(JSONError) {
        path = try reader.string("path")
        readonly = try reader.optionalBool("readonly") ?? false
    }

    package var json: JSONValue {
        var writer = ObjectWriter()
        writer.put("path", path)
        if readonly { writer.put("readonly", true) }
        return writer.value
    }
}

/// One mount, in the order in which they are made.
package struct MountSpec: OCIDocument {
    /// Absolute path in the container; made when it is not there.
    package var destination: String
    /// A filesystem type, `bind`, or absent.
    package var type: String?
    package var source: String?
    package var options: [String]
    package var uidMappings: [IDMapping]
    package var gidMappings: [IDMapping]

    package init(destination: String, type: String? = nil, source: String? = nil, options: [String] = []) {
        self.destination = destination
        self.type = type
        self.source = source
        self.options = options
        uidMappings = []
        gidMappings = []
    }

    package init(_ reader: JSONReader) throws(JSONError) {
        destination = try reader.string("destination")
        type = try reader.optionalString("type")
        source = try reader.optionalString("source")
        options = try reader.list("options")
        uidMappings = try reader.documents("uidMappings")
        gidMappings = try reader.documents("gidMappings")
    }

    package var json: JSONValue {
        var writer = ObjectWriter()
        writer.put("destination", destination)
        writer.put("type", type)
        writer.put("source", source)
        writer.put("options", options)
        writer.put("uidMappings", uidMappings.map(\.json))
        writer.put("gidMappings", gidMappings.map(\.json))
        return writer.value
    }
}

/// A range of ids of a user namespace (or of an id-mapped mount).
package struct IDMapping: OCIDocument {
    package var containerID: UInt32
    package var hostID: UInt32
    package var size: UInt32

    package init(containerID: UInt32, hostID: UInt32, size: UInt32) {
        self.containerID = containerID
        self.hostID = hostID
        self.size = size
    }

    package init(_ reader: JSONReader) throws(JSONError) {
        containerID = try reader.uint32("containerID")
        hostID = try reader.uint32("hostID")
        size = try reader.uint32("size")
    }

    package var json: JSONValue {
        var writer = ObjectWriter()
        writer.put("containerID", containerID)
        writer.put("hostID", hostID)
        writer.put("size", size)
        return writer.value
    }
}

/// A program that the runtime calls at one point of a container's life, with the state on its standard input.
package struct HookSpec: OCIDocument {
    /// Absolute path.
    package var path: String
    /// All arguments, the program's own name first; empty means the path alone.
    package var args: [String]
    package var env: [String]
    /// Seconds; nil for no limit.
    package var timeout: Int64?

    package init(path: String, args: [String] = [], env: [String] = [], timeout: Int64? = nil) {
        self.path = path
        self.args = args
        self.env = env
        self.timeout = timeout
    }

    package init(_ reader: JSONReader) throws(JSONError) {
        path = try reader.string("path")
        args = try reader.list("args")
        env = try reader.list("env")
        timeout = try reader.optionalInt64("timeout")
        guard path.utf8.first == UInt8(ascii: "/") else {
            throw reader.error(.type, "path", "must be an absolute path")
        }
        if let timeout, timeout <= 0 { throw reader.error(.type, "timeout", "must be greater than 0") }
    }

    package var json: JSONValue {
        var writer = ObjectWriter()
        writer.put("path", path)
        writer.put("args", args)
        writer.put("env", env)
        writer.put("timeout", timeout)
        return writer.value
    }
}

/// The six kinds of hooks.
package struct HooksSpec: OCIDocument {
    /// Deprecated in the specification, still in use; runs before `createRuntime`.
    package var prestart: [HookSpec]
    package var createRuntime: [HookSpec]
    package var createContainer: [HookSpec]
    package var startContainer: [HookSpec]
    package var poststart: [HookSpec]
    package var poststop: [HookSpec]

    package init() {
        prestart = []
        createRuntime = []
        createContainer = []
        startContainer = []
        poststart = []
        poststop = []
    }

    package init(_ reader: JSONReader) throws(JSONError) {
        prestart = try reader.documents("prestart")
        createRuntime = try reader.documents("createRuntime")
        createContainer = try reader.documents("createContainer")
        startContainer = try reader.documents("startContainer")
        poststart = try reader.documents("poststart")
        poststop = try reader.documents("poststop")
    }

    package var json: JSONValue {
        var writer = ObjectWriter()
        writer.put("prestart", prestart.map(\.json))
        writer.put("createRuntime", createRuntime.map(\.json))
        writer.put("createContainer", createContainer.map(\.json))
        writer.put("startContainer", startContainer.map(\.json))
        writer.put("poststart", poststart.map(\.json))
        writer.put("poststop", poststop.map(\.json))
        return writer.value
    }
}
