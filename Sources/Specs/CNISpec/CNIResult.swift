import JSON

/// What an ADD made: the "success" type of the CNI specification.
///
/// One shape here for the versions 0.3.0 to 1.1.0; they differ only in that addresses named their family until 1.0.0
/// and that 1.1.0 knows a few more fields.
package struct CNIResult: Sendable, Equatable {
    package struct Interface: Sendable, Equatable {
        package var name: String
        package var mac: MACAddress?
        /// The path of the network namespace it is in; nil for one of the host.
        package var sandbox: String?
        /// 1.1: the device's MTU.
        package var mtu: UInt32?
        /// 1.1: the socket of a user-space datapath.
        package var socketPath: String?
        /// 1.1: the PCI device behind it.
        package var pciID: String?

        package init(name: String, mac: MACAddress? = nil, sandbox: String? = nil, mtu: UInt32? = nil) {
            self.name = name
            self.mac = mac
            self.sandbox = sandbox
            self.mtu = mtu
        }
    }

    package struct Address: Sendable, Equatable {
        package var address: CIDR
        package var gateway: IPAddress?
        /// Its interface's index in `interfaces`.
        package var interface: Int?

        package init(_ address: CIDR, gateway: IPAddress? = nil, interface: Int? = nil) {
            self.address = address
            self.gateway = gateway
            self.interface = interface
        }
    }

    package struct Route: Sendable, Equatable {
        package var destination: CIDR
        package var gateway: IPAddress?
        /// 1.1: further attributes (`mtu`, `advmss`, `priority`, `table`, `scope`), as they came.
        package var attributes: [String: UInt32] = [:]

        package init(_ destination: CIDR, gateway: IPAddress? = nil) {
            self.destination = destination
            self.gateway = gateway
        }

        static let attributeNames = ["mtu", "advmss", "priority", "table", "scope"]
    }

    /// Name service for the container; the strings go into a resolv.conf and have no control characters.
    package struct DNS: Sendable, Equatable {
        package var nameservers: [String] = []
        package var domain: String?
        package var search: [String] = []
        package var options: [String] = []

        package init() {}
        package var isEmpty: Bool { self == DNS() }
    }

    package var interfaces: [Interface] = []
    package var addresses: [Address] = []
    package var routes: [Route] = []
    package var dns = DNS()

    package init() {}
}

extension CNIResult {
    /// Reads a result of any version from 0.3.0 on.
    ///
    /// - Parameter version: what it must be; a plugin answers in the version it was asked in. Nil takes any known.
    /// - Throws: `JSONError` with the path of what is wrong.
    package init(_ reader: JSONReader, version wanted: CNIVersion?) throws(JSONError) {
        let version = try reader.required("cniVersion").version()
        if let wanted, wanted != version {
            throw reader.error(
                .type, "cniVersion", "the answer is of version \(version.rawValue), wanted \(wanted.rawValue)")
        }
        for element in try reader.elements("interfaces", atMost: CNILimits.endpoints) {
            interfaces.append(try Interface(element))
        }
        for element in try reader.elements("ips", atMost: CNILimits.endpoints) {
            addresses.append(try Address(element, version, interfaces: interfaces.count))
        }
        for element in try reader.elements("routes", atMost: CNILimits.routes) { routes.append(try Route(element)) }
        if let member = try reader.optionalObject("dns") { dns = try DNS(member) }
    }

    /// The result in the shape of a version.
    package func json(version: CNIVersion) -> JSONValue {
        var object: JSONObject = ["cniVersion": .string(version.rawValue)]
        if !interfaces.isEmpty { object["interfaces"] = .array(interfaces.map { $0.json(version) }) }
        object["ips"] = .array(addresses.map { $0.json(version) })
        object["routes"] = .array(routes.map { $0.json(version) })
        object["dns"] = dns.json
        return .object(object)
    }
}

extension CNIResult.Interface {
    init(_ reader: JSONReader) throws(JSONError) {
        name = try reader.string("name")
        guard CNINames.isInterface(name) else {
            throw reader.error(.type, "name", "\(JSONPathElement.quoted(name)) is no name of a network device")
        }
        if let text = try reader.optionalString("mac"), !text.isEmpty { mac = try reader.required("mac").mac() }
        if let text = try reader.optionalString("sandbox"), !text.isEmpty { sandbox = text }
        mtu = try reader.optionalUInt32("mtu")
        socketPath = try reader.optionalString("socketPath")
        pciID = try reader.optionalString("pciID")
    }

    func json(_ version: CNIVersion) -> JSONValue {
        var object: JSONObject = ["name": .string(name)]
        if let mac { object["mac"] = .string(mac.description) }
        if let sandbox { object["sandbox"] = .string(sandbox) }
        guard version >= .v1_1_0 else { return .object(object) }
        if let mtu { object["mtu"] = JSONValue(UInt64(mtu)) }
        if let socketPath { object["socketPath"] = .string(socketPath) }
        if let pciID { object["pciID"] = .string(pciID) }
        return .object(object)
    }
}

extension CNIResult.Address {
    init(_ reader: JSONReader, _ version: CNIVersion, interfaces: Int) throws(JSONError) {
        address = try reader.required("address").cidr()
        if let text = try reader.optionalString("gateway"), !text.isEmpty {
            gateway = try reader.required("gateway").address()
        }
        if let gateway, gateway.family != address.address.family {
            throw reader.error(.type, "gateway", "\(gateway) is of another family than \(address)")
        }
        if version.hasAddressVersion, let family = try reader.optionalString("version"),
            family != (address.address.family == .v4 ? "4" : "6")
        {
            throw reader.error(.type, "version", "\(JSONPathElement.quoted(family)) is not the family of \(address)")
        }
        interface = try reader.optionalInteger("interface")
        if let interface, !(0..<interfaces).contains(interface) {
            throw reader.error(.type, "interface", "there is no interface \(interface), only \(interfaces) of them")
        }
    }

    func json(_ version: CNIVersion) -> JSONValue {
        var object = JSONObject()
        if version.hasAddressVersion { object["version"] = address.address.family == .v4 ? "4" : "6" }
        if let interface { object["interface"] = .integer(Int64(interface)) }
        object["address"] = .string(address.description)
        if let gateway { object["gateway"] = .string(gateway.description) }
        return .object(object)
    }
}

extension CNIResult.Route {
    init(_ reader: JSONReader) throws(JSONError) {
        destination = try reader.required("dst").cidr()
        if let text = try reader.optionalString("gw"), !text.isEmpty { gateway = try reader.required("gw").address() }
        for name in Self.attributeNames { attributes[name] = try reader.optionalUInt32(name) }
    }

    func json(_ version: CNIVersion) -> JSONValue {
        var object: JSONObject = ["dst": .string(destination.description)]
        if let gateway { object["gw"] = .string(gateway.description) }
        guard version >= .v1_1_0 else { return .object(object) }
        for name in Self.attributeNames {
            if let number = attributes[name] { object[name] = JSONValue(UInt64(number)) }
        }
        return .object(object)
    }
}

extension CNIResult.DNS {
    package init(_ reader: JSONReader) throws(JSONError) {
        nameservers = try reader.words("nameservers")
        if let text = try reader.optionalString("domain"), !text.isEmpty { domain = text }
        search = try reader.words("search")
        options = try reader.words("options")
        if let domain, !CNINames.isWord(domain) {
            throw reader.error(.type, "domain", "\(JSONPathElement.quoted(domain)) is no domain")
        }
        for (index, text) in nameservers.enumerated() where IPAddress(text) == nil {
            throw reader.error(
                .type, "nameservers", "element \(index), \(JSONPathElement.quoted(text)), is no IP address")
        }
    }

    var json: JSONValue {
        var object = JSONObject()
        if !nameservers.isEmpty { object["nameservers"] = .array(nameservers.map { .string($0) }) }
        if let domain { object["domain"] = .string(domain) }
        if !search.isEmpty { object["search"] = .array(search.map { .string($0) }) }
        if !options.isEmpty { object["options"] = .array(options.map { .string($0) }) }
        return .object(object)
    }
}
