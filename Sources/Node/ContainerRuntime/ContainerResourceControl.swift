import Confinement
import JSON
import Kernel
import OCISpec

/// `linux.intelRdt` of a container: its class of service in the resctrl filesystem, also in the runtime's record.
struct ContainerResourceControl {
    private let mount: ResourceControlMount
    private let group: ResourceControlGroup
    /// What the class is made with; not in the record.
    private var schemata: [String] = []
    private var isNamed = false

    /// Decides where the container goes; nothing is made.
    ///
    /// - Throws: `RefusedField` where the host has no resctrl filesystem, or not the resource that a schema is for.
    init(_ spec: IntelRdtSpec, id: ContainerID) throws {
        schemata = try Self.schemata(spec)
        guard let mount = try ResourceControlMount.find() else {
            throw RefusedField(
                "linux.intelRdt",
                "no resctrl filesystem is mounted: mount one at /sys/fs/resctrl where processor and kernel have it")
        }
        for line in schemata {
            if let objection = Self.objection(to: line, mount) { throw RefusedField("linux.intelRdt", objection) }
        }
        self.mount = mount
        isNamed = !(spec.closID ?? "").isEmpty
        group = try refusing("linux.intelRdt") { () throws(ProcessAttributeError) in
            try ResourceControlGroup(
                closID: spec.closID, container: id.description, monitored: spec.enableMonitoring, in: mount)
        }
    }

    /// nil for a line of a resource that the host can divide.
    private static func objection(to line: String, _ mount: ResourceControlMount) -> String? {
        let resource = line.prefix { $0 != ":" }
        return mount.exists("info/\(resource)")
            ? nil : "this host cannot divide \(resource), as '\(line.prefix(64))' asks"
    }

    /// nil for a line such as `L3:0=7f0;1=1f`.
    private static func objection(to line: String, prefix: String) -> String? {
        guard line.utf8.count <= 4000, line.utf8.allSatisfy({ $0 >= 32 && $0 < 127 }) else {
            return "is more than one line of text"
        }
        guard line.hasPrefix(prefix), let colon = line.firstIndex(of: ":"), colon != line.startIndex,
            line[..<colon].allSatisfy({ $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "_") })
        else { return "'\(line.prefix(64))' is no line such as \(prefix.isEmpty ? "L3:" : prefix)0=…" }
        return nil
    }

    /// The lines of `l3CacheSchema`: the specification advises against more than one and does not forbid them; with the
    /// cache divided between code and data (`L3CODE`, `L3DATA`) there are two.
    private static func cacheLines(_ text: String) -> [String] {
        text.split(separator: "\n", maxSplits: 64).map(String.init)
    }

    /// The lines for the file `schemata`, in the order of the specification.
    static func schemata(_ spec: IntelRdtSpec) throws -> [String] {
        var lines: [String] = []
        func add(_ line: String, _ field: String, prefix: String) throws {
            if let objection = objection(to: line, prefix: prefix) {
                throw RefusedField("linux.intelRdt.\(field)", objection)
            }
            lines.append(line)
        }
        for line in cacheLines(spec.l3CacheSchema ?? "") { try add(line, "l3CacheSchema", prefix: "L3") }
        if let line = spec.memBwSchema, !line.isEmpty { try add(line, "memBwSchema", prefix: "MB:") }
        for (index, line) in spec.schemata.enumerated() { try add(line, "schemata[\(index)]", prefix: "") }
        return lines
    }

    /// Makes what has to be made.
    func create() throws {
        do {
            try group.create(schemata: schemata, named: isNamed, in: mount)
        } catch let error as ProcessAttributeError {
            throw RefusedField("linux.intelRdt.\(error.field)", error.reason)
        } catch {
            throw RuntimeError("config.json: linux.intelRdt", error)
        }
    }

    /// Puts a process in, if the class is still there.
    func add(_ process: Int32) throws {
        guard group.exists(in: mount) else { return }
        try withContext("linux.intelRdt") { try group.add(process, in: mount) }
    }

    /// The lines of one flag of `update`.
    ///
    /// - Throws: `RuntimeError` for what is none, is not to be had on this host, or would change the host's own class.
    func checked(_ text: String, prefix: String) throws -> [String] {
        guard !group.path.isEmpty else {
            throw RuntimeError("the container is in the default class of service, which is that of the host")
        }
        let lines = prefix == "L3" ? Self.cacheLines(text) : [text]
        for line in lines {
            if let objection = Self.objection(to: line, prefix: prefix) ?? Self.objection(to: line, mount) {
                throw RuntimeError(objection)
            }
        }
        return lines
    }

    /// Gives the class other shares, also where it is shared with others, as runc does.
    func update(_ schemata: [String]) throws {
        if schemata.isEmpty { return }
        try withContext("linux.intelRdt") { try group.update(schemata: schemata, in: mount) }
    }

    /// Removes what was made for the container.
    func remove() throws { try group.remove(in: mount) }
}

extension ContainerResourceControl {
    var json: JSONValue {
        var object: JSONObject = [
            "root": .string(mount.root), "group": .string(group.path), "own": .bool(group.isOwn),
        ]
        if let monitoring = group.monitoring { object["monitoring"] = .string(monitoring) }
        return .object(object)
    }

    init(_ reader: JSONReader) throws(JSONError) {
        mount = ResourceControlMount(root: try reader.string("root"))
        group = ResourceControlGroup(
            path: try reader.string("group"), monitoring: try reader.optionalString("monitoring"),
            isOwn: try reader.bool("own"))
    }
}
