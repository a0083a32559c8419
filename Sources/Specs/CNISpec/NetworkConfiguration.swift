import JSON

/// A network configuration list: which plugins, in which order, wire a container (CNI specification, section 1).
package struct NetworkConfigurationList: Sendable, Equatable {
    /// The one that its plugins are called in: the highest of `versions` unless `at` chose another.
    package let version: CNIVersion
    /// Those that it may be used in and that are known here, lowest first: of `cniVersion` and `cniVersions` (1.1).
    package let versions: [CNIVersion]
    package let name: String
    /// CHECK is not to be called, because the plugins cannot do it.
    package let disableCheck: Bool
    /// Garbage collection is not to be called on the plugins (1.1).
    package let disableGC: Bool
    package let plugins: [PluginConfiguration]

    /// - Precondition: `name` is a name and `plugins` are not empty; lists from outside come through `parse`.
    package init(
        version: CNIVersion = .current, name: String, disableCheck: Bool = false, disableGC: Bool = false,
        plugins: [PluginConfiguration]
    ) {
        self.version = version
        versions = [version]
        self.name = name
        self.disableCheck = disableCheck
        self.disableGC = disableGC
        self.plugins = plugins
    }

    /// Reads a list (`.conflist`), or a single plugin's configuration (`.conf`), which is a list of one.
    ///
    /// A list of several `cniVersions` (1.1) is taken at the highest one that is known here. Of files beside the list
    /// nothing is known here, see `PluginFiles`.
    ///
    /// - Throws: `JSONError` with the path of what is wrong.
    package static func parse(_ bytes: [UInt8]) throws(JSONError) -> NetworkConfigurationList {
        try NetworkConfigurationList(JSONReader(JSONValue.parse(bytes, limits: CNILimits.json)))
    }

    /// Reads a list that is parsed already.
    ///
    /// - Parameter more: plugins that files beside the list add at its end.
    package init(_ reader: JSONReader, more: [PluginConfiguration] = []) throws(JSONError) {
        versions = try Self.versions(reader)
        // `versions` never is empty.
        version = versions.last ?? .current
        name = try Self.name(reader)
        disableCheck = try Self.flag(reader, "disableCheck")
        disableGC = try Self.flag(reader, "disableGC")
        var plugins: [PluginConfiguration] = []
        if try reader.optional("plugins") != nil {
            for element in try reader.elements("plugins", atMost: CNILimits.plugins) {
                plugins.append(try PluginConfiguration(element))
            }
            guard !plugins.isEmpty else { throw reader.error(.type, "plugins", "a list needs at least one plugin") }
        } else if try reader.optional("type") != nil || more.isEmpty {
            plugins.append(try PluginConfiguration(reader, isList: true))
        }
        plugins += more
        guard plugins.count <= CNILimits.plugins else {
            throw reader.error(
                .tooLarge, "plugins", "with those of files there are more plugins than the \(CNILimits.plugins) allowed"
            )
        }
        self.plugins = plugins
    }

    private init(_ list: NetworkConfigurationList, _ version: CNIVersion) {
        self.version = version
        versions = [version]
        name = list.name
        disableCheck = list.disableCheck
        disableGC = list.disableGC
        plugins = list.plugins
    }

    /// The same list in one version alone.
    package func at(_ version: CNIVersion) -> NetworkConfigurationList { NetworkConfigurationList(self, version) }

    private static func name(_ reader: JSONReader) throws(JSONError) -> String {
        let name = try reader.string("name")
        guard CNINames.isName(name) else {
            throw reader.error(
                .type, "name", "a network's name has letters, digits, '_', '.' and '-' and at most 100 of them")
        }
        return name
    }

    private static func versions(_ reader: JSONReader) throws(JSONError) -> [CNIVersion] {
        var offered: [String] = []
        for element in try reader.elements("cniVersions", atMost: 64) { offered.append(try element.string()) }
        var known = Set(offered.compactMap { CNIVersion(rawValue: $0) })
        if let text = try reader.optionalString("cniVersion"), let version = CNIVersion(rawValue: text) {
            known.insert(version)
        }
        if known.isEmpty { known.insert(try reader.required("cniVersion").version()) }
        return known.sorted()
    }

    /// Whether files beside a list add plugins to it (1.1: `loadOnlyInlinedPlugins`).
    package struct PluginFiles: Sendable, Equatable {
        /// The list's name, which is also that of the directory beside it; nil: no file adds anything.
        package let directory: String?

        /// - Throws: `JSONError` for a list that wants its own plugins only and has none.
        package init(of reader: JSONReader) throws(JSONError) {
            let hasPlugins = try reader.optional("plugins") != nil
            let isAlone = try NetworkConfigurationList.flag(reader, "loadOnlyInlinedPlugins")
            let isSingle = try reader.optional("type") != nil && !hasPlugins
            if isAlone, !hasPlugins, !isSingle {
                throw reader.error(.type, "loadOnlyInlinedPlugins", "is true, but there are no \"plugins\"")
            }
            directory = isAlone || isSingle ? nil : try NetworkConfigurationList.name(reader)
        }
    }

    /// Older writers put booleans into strings.
    private static func flag(_ reader: JSONReader, _ key: String) throws(JSONError) -> Bool {
        guard let member = try reader.optional(key) else { return false }
        switch member.value {
        case .string("true"), .string("True"): return true
        case .string("false"), .string("False"), .string(""): return false
        default: return try member.bool()
        }
    }

    /// The list as JSON.
    package var json: JSONValue {
        var object: JSONObject = ["cniVersion": .string(version.rawValue), "name": .string(name)]
        if versions.count > 1 { object["cniVersions"] = .array(versions.map { .string($0.rawValue) }) }
        if disableCheck { object["disableCheck"] = true }
        if disableGC { object["disableGC"] = true }
        object["plugins"] = .array(plugins.map { .object($0.fields) })
        return .object(object)
    }
}

/// One plugin's part of a list. Its own fields are passed on as they stand.
package struct PluginConfiguration: Sendable, Equatable {
    /// The name of its program, a plain file name.
    package let type: String
    /// The capabilities for which it wants the runtime's arguments.
    package let capabilities: Set<String>
    /// All fields as they were written.
    package let fields: JSONObject

    /// Reads one plugin's configuration.
    ///
    /// - Parameter isList: it is a list of one, whose own members are not the plugin's.
    package init(_ reader: JSONReader, isList: Bool = false) throws(JSONError) {
        type = try reader.string("type")
        guard CNINames.isPluginType(type) else {
            throw reader.error(
                .type, "type", "\(JSONPathElement.quoted(type)) is no plugin's name: it must be a plain file name")
        }
        var capabilities: Set<String> = []
        for (key, value) in try reader.optionalObject("capabilities")?.entries() ?? [] where try value.bool() {
            capabilities.insert(key)
        }
        self.capabilities = capabilities
        try Self.checkAddressPlugin(reader)
        var fields = JSONObject()
        for member in try reader.members().members where !(isList && Self.listMembers.contains(member.key)) {
            fields[member.key] = member.value
        }
        self.fields = fields
    }

    /// Plugins run the one that `ipam` names, so that the same holds for its name.
    private static func checkAddressPlugin(_ reader: JSONReader) throws(JSONError) {
        guard let member = try reader.optional("ipam"), case .object = member.value,
            let type = try member.optional("type")
        else { return }
        let name = try type.string()
        guard name.isEmpty || CNINames.isPluginType(name) else {
            throw type.error(
                .type, "\(JSONPathElement.quoted(name)) is no plugin's name: it must be a plain file name")
        }
    }

    private static let listMembers: Set<String> = [
        "cniVersion", "cniVersions", "name", "disableCheck", "disableGC", "loadOnlyInlinedPlugins",
    ]
    /// What the runtime itself writes there, or takes out.
    private static let reserved: Set<String> = [
        "cniVersion", "name", "capabilities", "plugins", "runtimeConfig", "prevResult",
    ]
    private static let reservedPrefix = "cni.dev/"

    /// The configuration that the plugin reads on standard input (CNI specification, "deriving execution
    /// configuration").
    ///
    /// - Parameters:
    ///   - arguments: the runtime's capability arguments; only those that the plugin asked for are passed on.
    ///   - previous: what the plugin before it returned.
    ///   - valid: for GC, the attachments that are to stay.
    package func execution(
        version: CNIVersion, network: String, arguments: CapabilityArguments = CapabilityArguments(),
        previous: CNIResult? = nil, valid: [ValidAttachment]? = nil
    ) -> JSONValue {
        var object: JSONObject = ["cniVersion": .string(version.rawValue), "name": .string(network)]
        for member in fields.members
        where !Self.reserved.contains(member.key) && !member.key.hasPrefix(Self.reservedPrefix) {
            object[member.key] = member.value
        }
        var runtime = JSONObject()
        for member in arguments.json.members where capabilities.contains(member.key) {
            runtime[member.key] = member.value
        }
        if !runtime.isEmpty { object["runtimeConfig"] = .object(runtime) }
        if let previous { object["prevResult"] = previous.json(version: version) }
        if let valid { object["cni.dev/valid-attachments"] = .array(valid.map(\.json)) }
        return .object(object)
    }
}

/// An attachment that GC is to leave alone.
package struct ValidAttachment: Sendable, Hashable {
    package let containerID: String
    package let interface: String

    package init(containerID: String, interface: String) {
        self.containerID = containerID
        self.interface = interface
    }

    var json: JSONValue { ["containerID": .string(containerID), "ifname": .string(interface)] }
}
