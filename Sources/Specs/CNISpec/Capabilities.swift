import JSON

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

/// Name service for a container (capability `dns`).
package struct NameService: Sendable, Hashable {
    package var servers: [IPAddress] = []
    package var searches: [String] = []
    package var options: [String] = []

    package init() {}

    init(_ reader: JSONReader) throws(JSONError) {
        for element in try reader.elements("servers", atMost: CNILimits.words) { servers.append(try element.address()) }
        searches = try reader.words("searches")
        options = try reader.words("options")
    }

    var json: JSONValue {
        var object = JSONObject()
        if !servers.isEmpty { object["servers"] = .array(servers.map { .string($0.description) }) }
        if !searches.isEmpty { object["searches"] = .array(searches.map { .string($0) }) }
        if !options.isEmpty { object["options"] = .array(options.map { .string($0) }) }
        return .object(object)
    }
}

/// A part of a subnet that addresses may be taken from (capability `ipRanges`, as the ranges of host-local).
package struct SubnetRange: Sendable, Hashable {
    package var subnet: CIDR
    /// The first address that may be given; nil: the subnet's.
    package var first: IPAddress?
    /// The last one; nil: the subnet's.
    package var last: IPAddress?
    package var gateway: IPAddress?

    package init(_ subnet: CIDR, first: IPAddress? = nil, last: IPAddress? = nil, gateway: IPAddress? = nil) {
        self.subnet = subnet
        self.first = first
        self.last = last
        self.gateway = gateway
    }

    init(_ reader: JSONReader) throws(JSONError) {
        subnet = try reader.required("subnet").cidr()
        first = try reader.optional("rangeStart")?.address()
        last = try reader.optional("rangeEnd")?.address()
        gateway = try reader.optional("gateway")?.address()
        for (key, address) in [("rangeStart", first), ("rangeEnd", last), ("gateway", gateway)] {
            if let address, !subnet.contains(address) {
                throw reader.error(.type, key, "\(address) is no address of \(subnet)")
            }
        }
        if let first, let last, last < first {
            throw reader.error(.type, "rangeEnd", "\(last) comes before \(first)")
        }
    }

    var json: JSONValue {
        var object: JSONObject = ["subnet": .string(subnet.description)]
        if let first { object["rangeStart"] = .string(first.description) }
        if let last { object["rangeEnd"] = .string(last.description) }
        if let gateway { object["gateway"] = .string(gateway.description) }
        return .object(object)
    }
}

/// What the runtime knows about one container and offers to the plugins that declare the capability (CNI's
/// CONVENTIONS.md, "well-known capabilities").
package struct CapabilityArguments: Sendable, Equatable {
    package var portMappings: [PortMapping] = []
    /// Addresses wanted (capability `ips`), with a prefix's length.
    package var addresses: [CIDR] = []
    /// Further ones of which the plugin is to know the prefix; written after `addresses`.
    package var plainAddresses: [IPAddress] = []
    package var mac: MACAddress?
    package var bandwidth: Bandwidth?
    package var dns: NameService?
    /// Further names of the container.
    package var aliases: [String] = []
    /// For each address to be given, the ranges that it may be from (capability `ipRanges`).
    package var ranges: [[SubnetRange]] = []

    package init(portMappings: [PortMapping] = []) { self.portMappings = portMappings }

    /// Reads what `json` wrote; other capabilities are left out.
    package init(_ reader: JSONReader) throws(JSONError) {
        for element in try reader.elements("portMappings", atMost: CNILimits.portMappings) {
            portMappings.append(try PortMapping(element))
        }
        for element in try reader.elements("ips", atMost: CNILimits.endpoints) {
            if try element.string().utf8.contains(UInt8(ascii: "/")) {
                addresses.append(try element.cidr())
            } else {
                plainAddresses.append(try element.address())
            }
        }
        mac = try reader.optional("mac")?.mac()
        bandwidth = try reader.optionalObject("bandwidth").map { reader throws(JSONError) in try Bandwidth(reader) }
        dns = try reader.optionalObject("dns").map { reader throws(JSONError) in try NameService(reader) }
        aliases = try reader.words("aliases")
        for element in try reader.elements("ipRanges", atMost: CNILimits.words) {
            let parts = try element.elements()
            guard parts.count <= CNILimits.words else {
                throw element.error(.tooLarge, "\(parts.count) ranges are more than the \(CNILimits.words) allowed")
            }
            var ranges: [SubnetRange] = []
            for part in parts { ranges.append(try SubnetRange(part)) }
            self.ranges.append(ranges)
        }
    }

    /// By capability.
    package var json: JSONObject {
        var object = JSONObject()
        if !portMappings.isEmpty { object["portMappings"] = .array(portMappings.map(\.json)) }
        let wanted = addresses.map(\.description) + plainAddresses.map(\.description)
        if !wanted.isEmpty { object["ips"] = .array(wanted.map { .string($0) }) }
        if let mac { object["mac"] = .string(mac.description) }
        if let bandwidth { object["bandwidth"] = bandwidth.json }
        if let dns { object["dns"] = dns.json }
        if !aliases.isEmpty { object["aliases"] = .array(aliases.map { .string($0) }) }
        if !ranges.isEmpty { object["ipRanges"] = .array(ranges.map { .array($0.map(\.json)) }) }
        return object
    }

    /// These, and of `others` what is not among them.
    package func completed(by others: CapabilityArguments) -> CapabilityArguments {
        var all = self
        if all.portMappings.isEmpty { all.portMappings = others.portMappings }
        if all.addresses.isEmpty, all.plainAddresses.isEmpty {
            all.addresses = others.addresses
            all.plainAddresses = others.plainAddresses
        }
        all.mac = mac ?? others.mac
        all.bandwidth = bandwidth ?? others.bandwidth
        all.dns = dns ?? others.dns
        if all.aliases.isEmpty { all.aliases = others.aliases }
        if all.ranges.isEmpty { all.ranges = others.ranges }
        return all
    }

    /// Capabilities of which there is something here and that no plugin of the list declares.
    package func unserved(by list: NetworkConfigurationList) -> [String] {
        json.keys.filter { key in !list.plugins.contains { $0.capabilities.contains(key) } }
    }
}
