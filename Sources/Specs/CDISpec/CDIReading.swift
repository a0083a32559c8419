import JSON
import OCISpec

extension CDISpecification {
    /// Reads a specification's JSON text.
    ///
    /// - Throws: `JSONError` with the path of what breaks a rule.
    package static func parse(_ bytes: [UInt8]) throws(JSONError) -> CDISpecification {
        try CDISpecification(JSONReader(JSONValue.parse(bytes, limits: CDILimits.json)))
    }

    /// Reads a specification that is parsed already, from JSON or YAML.
    package init(_ reader: JSONReader) throws(JSONError) {
        try reader.rejectUnknown(known: ["cdiVersion", "kind", "annotations", "devices", "containerEdits"])
        let version = try Self.version(try reader.required("cdiVersion"))
        let rules = CDIRules(version: version)
        let kind = try rules.kind(try reader.required("kind"))
        let annotations = try rules.annotations(reader)
        let edits = try rules.edits(of: reader)
        var devices: [CDIDevice] = []
        var names: [String: Int] = [:]
        for (index, element) in try reader.elements("devices", atMost: CDILimits.devices).enumerated() {
            let device = try rules.device(element)
            if let first = names.updateValue(index, forKey: device.name) {
                throw element.error(
                    .type, "name", "\(JSONPathElement.quoted(device.name)) is the name of devices[\(first)] already")
            }
            devices.append(device)
        }
        guard !devices.isEmpty else { throw reader.error(.missing, "devices", "a specification needs a device") }
        self.init(version: version, kind: kind, annotations: annotations, devices: devices, edits: edits)
    }

    private static func version(_ reader: JSONReader) throws(JSONError) -> CDIVersion {
        let text = try reader.string()
        // The reference implementation takes a `v` before the number too.
        guard let version = CDIVersion(rawValue: text.hasPrefix("v") ? String(text.dropFirst()) : text) else {
            throw reader.error(
                .type,
                "\(JSONPathElement.quoted(text)) is no version of CDI that is known here: there are "
                    + "\(CDIVersion.earliest.rawValue) to \(CDIVersion.newest.rawValue)")
        }
        guard version >= .earliest else {
            throw reader.error(
                .type, "\(version.rawValue) is not read any more, \(CDIVersion.earliest.rawValue) is the first that is")
        }
        return version
    }
}

/// Reads the parts of a specification of one version.
struct CDIRules {
    let version: CDIVersion

    /// Refuses what came later.
    private func need(_ feature: CDIFeature, _ what: String, _ place: JSONReader) throws(JSONError) {
        guard version < feature.since else { return }
        throw place.error(
            .type,
            "\(what) came with CDI \(feature.since.rawValue), and cdiVersion is \(version.rawValue): raise it or leave "
                + "this out")
    }

    func kind(_ reader: JSONReader) throws(JSONError) -> CDIKind {
        let text = try reader.string()
        guard let kind = CDIKind(text) else {
            throw reader.error(.type, "\(JSONPathElement.quoted(text)) is no kind: \(CDINames.kindRule)")
        }
        if kind.className.utf8.contains(UInt8(ascii: ".")) { try need(.dottedClass, "a '.' in a class", reader) }
        return kind
    }

    func annotations(_ reader: JSONReader) throws(JSONError) -> [String: String] {
        guard let member = try reader.optionalObject("annotations") else { return [:] }
        let entries = try member.entries()
        guard entries.count <= CDILimits.elements else {
            throw member.error(.tooLarge, "there are more than the \(CDILimits.elements) allowed")
        }
        var annotations: [String: String] = [:]
        var bytes = 0
        for (key, value) in entries {
            guard CDINames.isAnnotationKey(key) else {
                throw value.error(
                    .type,
                    "the key is no name of at most 63 letters, digits, '_', '-' and '.', with a DNS name and '/' before it or "
                        + "not")
            }
            let text = try value.string()
            bytes += key.utf8.count + text.utf8.count
            annotations[key] = text
        }
        guard bytes <= CDILimits.annotationBytes else {
            throw member.error(.tooLarge, "\(bytes) bytes are more than the \(CDILimits.annotationBytes) allowed")
        }
        if !annotations.isEmpty { try need(.annotations, "annotations", member) }
        return annotations
    }

    func device(_ reader: JSONReader) throws(JSONError) -> CDIDevice {
        try reader.rejectUnknown(known: ["name", "annotations", "containerEdits"])
        let name = try reader.required("name")
        let text = try name.string()
        guard CDINames.isDevice(text) else {
            throw name.error(.type, "\(JSONPathElement.quoted(text)) is no device's name: \(CDINames.deviceRule)")
        }
        if CDINames.beginsWithDigit(text) { try need(.digitFirst, "a name with a digit first", name) }
        let annotations = try annotations(reader)
        let edits = try edits(of: reader)
        guard !edits.isEmpty else {
            throw reader.error(
                .missing, "containerEdits", "a device needs edits: without any, who gets it gets nothing")
        }
        return CDIDevice(text, annotations: annotations, edits: edits)
    }

    /// The member `containerEdits` of an object; none when it is absent.
    func edits(of object: JSONReader) throws(JSONError) -> CDIEdits {
        guard let reader = try object.optionalObject("containerEdits") else { return CDIEdits() }
        try reader.rejectUnknown(known: Self.members)
        var edits = CDIEdits()
        edits.env = try environment(reader)
        for element in try reader.elements("deviceNodes") { edits.deviceNodes.append(try deviceNode(element)) }
        edits.netDevices = try netDevices(reader)
        for element in try reader.elements("mounts") { edits.mounts.append(try mount(element)) }
        for element in try reader.elements("hooks") { edits.hooks.append(try hook(element)) }
        edits.intelRdt = try intelRdt(reader)
        // SPEC.md has both spellings.
        for key in ["additionalGids", "additionalGIDs"] {
            for element in try reader.elements(key) {
                try need(.additionalGids, key, element)
                let gid: UInt32 = try element.integer()
                guard gid != .max else { throw element.error(.type, "4294967295 is no group id") }
                edits.additionalGids.append(gid)
            }
        }
        return edits
    }

    private static let members: Set<String> = [
        "env", "deviceNodes", "netDevices", "mounts", "hooks", "intelRdt", "additionalGids", "additionalGIDs",
    ]

    private func environment(_ reader: JSONReader) throws(JSONError) -> [String] {
        var variables: [String] = []
        for element in try reader.elements("env") {
            let text = try element.string()
            guard let equals = text.utf8.firstIndex(of: UInt8(ascii: "=")), equals != text.utf8.startIndex else {
                throw element.error(.type, "\(JSONPathElement.quoted(text)) is not of the form NAME=value")
            }
            variables.append(text)
        }
        return variables
    }

    private func deviceNode(_ reader: JSONReader) throws(JSONError) -> CDIDeviceNode {
        try reader.rejectUnknown(known: [
            "path", "hostPath", "type", "major", "minor", "fileMode", "permissions", "uid", "gid",
        ])
        var node = CDIDeviceNode(path: try reader.path("path"))
        if let place = try reader.filled("hostPath") {
            try need(.hostPath, "hostPath", place)
            node.hostPath = try reader.path("hostPath")
        }
        node.type = try reader.filled("type")?.choice()
        node.major = try number(reader, "major")
        node.minor = try number(reader, "minor")
        node.fileMode = try reader.optionalUInt32("fileMode")
        if let permissions = try reader.filled("permissions") {
            let text = try permissions.string()
            guard text == "none" || text.utf8.allSatisfy({ "rwm".utf8.contains($0) }) else {
                throw permissions.error(.type, "\(JSONPathElement.quoted(text)) is neither made of r, w and m nor none")
            }
            node.permissions = text
        }
        node.uid = try id(reader, "uid")
        node.gid = try id(reader, "gid")
        return node
    }

    private func number(_ reader: JSONReader, _ key: String) throws(JSONError) -> UInt32 {
        try reader.optionalUInt32(key) ?? 0
    }

    private func id(_ reader: JSONReader, _ key: String) throws(JSONError) -> UInt32? {
        let id = try reader.optionalUInt32(key)
        // To the kernel it means "leave as it is".
        if id == .max { throw reader.error(.type, key, "4294967295 is no id") }
        return id
    }

    private func netDevices(_ reader: JSONReader) throws(JSONError) -> [CDINetDevice] {
        var devices: [CDINetDevice] = []
        for element in try reader.elements("netDevices") {
            try need(.netDevices, "netDevices", element)
            try element.rejectUnknown(known: ["hostInterfaceName", "name"])
            for key in ["hostInterfaceName", "name"] {
                let text = try element.string(key)
                guard CDINames.isInterface(text) else {
                    throw element.error(
                        .type, key, "\(JSONPathElement.quoted(text)) is no network device's name of 1 to 15 bytes")
                }
            }
            let device = CDINetDevice(
                hostInterfaceName: try element.string("hostInterfaceName"), name: try element.string("name"))
            if devices.contains(where: { $0.hostInterfaceName == device.hostInterfaceName }) {
                throw element.error(.type, "hostInterfaceName", "\(device.hostInterfaceName) is there twice")
            }
            if devices.contains(where: { $0.name == device.name }) {
                throw element.error(.type, "name", "\(device.name) is there twice")
            }
            devices.append(device)
        }
        return devices
    }

    private func mount(_ reader: JSONReader) throws(JSONError) -> CDIMount {
        try reader.rejectUnknown(known: ["hostPath", "containerPath", "type", "options"])
        var mount = CDIMount(
            hostPath: try reader.string("hostPath"), containerPath: try reader.path("containerPath"))
        if let place = try reader.filled("type") {
            try need(.mountType, "a mount's type", place)
            mount.type = try place.string()
        }
        for element in try reader.elements("options") { mount.options.append(try element.string()) }
        guard !mount.hostPath.isEmpty else { throw reader.error(.type, "hostPath", "it is empty") }
        // What a tmpfs, say, is mounted from is a word.
        if mount.isBind || mount.type == nil { mount.hostPath = try reader.path("hostPath") }
        return mount
    }

    private func hook(_ reader: JSONReader) throws(JSONError) -> CDIHook {
        try reader.rejectUnknown(known: ["hookName", "path", "args", "env", "timeout"])
        let point: CDIHook.Point = try reader.choice("hookName")
        var hook = HookSpec(path: try reader.path("path"))
        for element in try reader.elements("args") { hook.args.append(try element.string()) }
        hook.env = try environment(reader)
        if let timeout = try reader.optional("timeout") {
            let seconds: Int64 = try timeout.integer()
            guard (1...Int64(UInt32.max)).contains(seconds) else {
                throw timeout.error(.type, "\(seconds) is no time-out: 1 to \(UInt32.max) seconds are")
            }
            hook.timeout = seconds
        }
        return CDIHook(point, hook)
    }

    private func intelRdt(_ outer: JSONReader) throws(JSONError) -> IntelRdtSpec? {
        guard let reader = try outer.optionalObject("intelRdt") else { return nil }
        try need(.intelRdt, "intelRdt", reader)
        for (key, place) in try reader.entries() where key == "enableCMT" || key == "enableMBM" {
            throw place.error(.unknownField, "CDI 1.1.0 dropped the member; what there is now is enableMonitoring")
        }
        try reader.rejectUnknown(known: ["closID", "l3CacheSchema", "memBwSchema", "schemata", "enableMonitoring"])
        var rdt = IntelRdtSpec()
        if let place = try reader.filled("closID") {
            let text = try place.string()
            // The name of a directory of resctrl; `/` is the root's own class.
            guard
                text == "/"
                    || text.utf8.count < 4096 && text != "." && text != ".."
                        && !text.utf8.contains(where: { $0 == UInt8(ascii: "/") || $0 == 10 })
            else { throw place.error(.type, "\(JSONPathElement.quoted(text)) is no name of a class of service") }
            rdt.closID = text
        }
        rdt.l3CacheSchema = try reader.filled("l3CacheSchema")?.string()
        rdt.memBwSchema = try reader.filled("memBwSchema")?.string()
        if let place = try reader.optional("schemata") {
            try need(.schemata, "schemata", place)
            for element in try reader.elements("schemata") { rdt.schemata.append(try element.string()) }
        }
        if let place = try reader.optional("enableMonitoring"), try place.bool() {
            try need(.enableMonitoring, "enableMonitoring", place)
            rdt.enableMonitoring = true
        }
        return rdt
    }
}

extension JSONReader {
    /// The elements of a member that is an array of bounded length; none when it is absent.
    fileprivate func elements(_ key: String, atMost limit: Int = CDILimits.elements) throws(JSONError) -> [JSONReader] {
        let elements = try optionalArray(key) ?? []
        guard elements.count <= limit else {
            throw error(.tooLarge, key, "\(elements.count) elements are more than the \(limit) allowed")
        }
        return elements
    }

    /// A reader of a member; nil when it is absent, null or the empty string, which mean the same here.
    fileprivate func filled(_ key: String) throws(JSONError) -> JSONReader? {
        guard let member = try optional(key) else { return nil }
        return member.value.stringValue == "" ? nil : member
    }

    /// A member that is an absolute path.
    fileprivate func path(_ key: String) throws(JSONError) -> String {
        let text = try string(key)
        guard text.utf8.first == UInt8(ascii: "/"), text.utf8.count < 4096 else {
            throw error(.type, key, "\(JSONPathElement.quoted(text)) is no absolute path of less than 4096 bytes")
        }
        return text
    }
}
