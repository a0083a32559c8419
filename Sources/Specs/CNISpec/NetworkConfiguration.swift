import JSON

/// A network configuration list: which plugins, in which order, wire a container (CNI specification, section 1).
package struct NetworkConfigurationList: Sendable, Equatable {
    package let version: CNIVersion
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
        self.name = name
        self.disableCheck = disableCheck
        self.disableGC = disableGC
        self.plugins = plugins
    }

    /// Reads a list (`.conflist`), or a single plugin's configuration (`.conf`), which is a list of one.
    ///
    /// A list of several `cniVersions` (1.1) is taken at the highest one that is known here.
    ///
    /// - Throws: `JSONError` with the path of what is wrong.
    package static func parse(_ bytes: [UInt8]) throws(JSONError) -> NetworkConfigurationList {
        try NetworkConfigurationList(JSONReader(JSONValue.parse(bytes, limits: CNILimits.json)))
    }

    /// Reads a list that is parsed already.
    package init(_ reader: JSONReader) throws(JSONError) {
        version = try Self.version(reader)
        name = try reader.string("name")
        guard CNINames.isName(name) else {
            throw reader.error(
                .type, "name", "a network's name has letters, digits, '_', '.' and '-' and at most 100 of them")
        }
        disableCheck = try Self.flag(reader, "disableCheck")
        disableGC = try Self.flag(reader, "disableGC")
        guard try reader.optional("plugins") != nil else {
            plugins = [try PluginConfiguration(reader)]
            return
        }
        var plugins: [PluginConfiguration] = []
        for element in try reader.elements("plugins", atMost: CNILimits.plugins) {
            plugins.append(try PluginConfiguration(element))
        }
        guard !plugins.isEmpty else { throw reader.error(.type, "plugins", "a list needs at least one plugin") }
        self.plugins = plugins
    }

    private static func version(_ reader: JSONReader) throws(JSONError) -> CNIVersion {
        let offered = try reader.optionalStrings("cniVersions") ?? []
        if let best = offered.compactMap({ CNIVersion(rawValue: $0) }).max() { return best }
        return try reader.required("cniVersion").version()
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
    package init(_ reader: JSONReader) throws(JSONError) {
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
        fields = try reader.members()
    }

    /// The configuration that the plugin reads on standard input (CNI specification, "deriving execution
    /// configuration").
    ///
    /// - Parameters:
    ///   - arguments: the runtime's capability arguments; only those that the plugin asked for are passed on.
    ///   - previous: what the plugin before it returned.
    package func execution(
        version: CNIVersion, network: String, arguments: CapabilityArguments, previous: CNIResult?
    ) -> JSONValue {
        var object: JSONObject = ["cniVersion": .string(version.rawValue), "name": .string(network)]
        for member in fields.members where !["cniVersion", "name", "capabilities", "plugins"].contains(member.key) {
            object[member.key] = member.value
        }
        var runtime = JSONObject()
        for member in arguments.json.members where capabilities.contains(member.key) {
            runtime[member.key] = member.value
        }
        object["runtimeConfig"] = runtime.isEmpty ? nil : .object(runtime)
        object["prevResult"] = previous?.json(version: version)
        return .object(object)
    }
}

/// A port of the host that leads to one of a container (capability `portMappings`).
package struct PortMapping: Sendable, Hashable {
    package enum Transport: String, Sendable, Hashable, CaseIterable {
        case tcp
        case udp
        case sctp
    }

    package let hostPort: UInt16
    package let containerPort: UInt16
    package let transport: Transport
    /// The host's address that listens; nil for all.
    package let hostAddress: IPAddress?

    package init(hostPort: UInt16, containerPort: UInt16, transport: Transport = .tcp, hostAddress: IPAddress? = nil) {
        self.hostPort = hostPort
        self.containerPort = containerPort
        self.transport = transport
        self.hostAddress = hostAddress
    }

    init(_ reader: JSONReader) throws(JSONError) {
        hostPort = try reader.integer("hostPort")
        containerPort = try reader.integer("containerPort")
        transport = try reader.optionalChoice("protocol") ?? .tcp
        let address = try reader.optionalString("hostIP")
        hostAddress = address?.isEmpty == false ? try reader.required("hostIP").address() : nil
    }

    var json: JSONValue {
        var object: JSONObject = [
            "hostPort": JSONValue(UInt64(hostPort)), "containerPort": JSONValue(UInt64(containerPort)),
            "protocol": .string(transport.rawValue),
        ]
        if let hostAddress { object["hostIP"] = .string(hostAddress.description) }
        return .object(object)
    }
}

/// Limits on a container's traffic (capability `bandwidth`): rates in bits per second, bursts in bits; 0 for none.
package struct Bandwidth: Sendable, Hashable {
    package var ingressRate: UInt64 = 0
    package var ingressBurst: UInt64 = 0
    package var egressRate: UInt64 = 0
    package var egressBurst: UInt64 = 0

    package init() {}

    init(_ reader: JSONReader) throws(JSONError) {
        ingressRate = try reader.optionalUInt64("ingressRate") ?? 0
        ingressBurst = try reader.optionalUInt64("ingressBurst") ?? 0
        egressRate = try reader.optionalUInt64("egressRate") ?? 0
        egressBurst = try reader.optionalUInt64("egressBurst") ?? 0
    }

    var json: JSONValue {
        [
            "ingressRate": JSONValue(ingressRate), "ingressBurst": JSONValue(ingressBurst),
            "egressRate": JSONValue(egressRate), "egressBurst": JSONValue(egressBurst),
        ]
    }
}

/// What the runtime knows about one container and offers to the plugins that declare the capability.
package struct CapabilityArguments: Sendable, Equatable {
    package var portMappings: [PortMapping] = []
    /// Addresses wanted, with or without a prefix's length (capability `ips`).
    package var addresses: [CIDR] = []
    package var mac: MACAddress?
    package var bandwidth: Bandwidth?

    package init(portMappings: [PortMapping] = []) { self.portMappings = portMappings }

    /// Reads what `json` wrote.
    package init(_ reader: JSONReader) throws(JSONError) {
        for element in try reader.elements("portMappings", atMost: CNILimits.portMappings) {
            portMappings.append(try PortMapping(element))
        }
        for element in try reader.elements("ips", atMost: CNILimits.endpoints) {
            addresses.append(try element.cidr())
        }
        mac = try reader.optional("mac")?.mac()
        bandwidth = try reader.optionalObject("bandwidth").map { reader throws(JSONError) in try Bandwidth(reader) }
    }

    /// By capability.
    package var json: JSONObject {
        var object = JSONObject()
        if !portMappings.isEmpty { object["portMappings"] = .array(portMappings.map(\.json)) }
        if !addresses.isEmpty { object["ips"] = .array(addresses.map { .string($0.description) }) }
        if let mac { object["mac"] = .string(mac.description) }
        if let bandwidth { object["bandwidth"] = bandwidth.json }
        return object
    }
}
