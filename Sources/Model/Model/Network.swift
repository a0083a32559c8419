import JSON

/// 64 hexadecimal digits, as container tools show them.
package typealias NetworkID = Identifier<Network>

/// A network that users made. One with the driver `bridge` is on one node: all containers that are attached to it run
/// there.
package struct Network: Sendable, Hashable, Codable {
    package var id: NetworkID
    /// Unique in the cluster.
    package var name: String
    /// Whose it is: callers that are confined to groups reach it from this one and those above.
    package var group: String
    /// `bridge`.
    package var driver: String
    /// The node that has it; nil: where the first container that is attached to it goes.
    package var node: NodeID?
    /// `172.20.0.0/16`.
    package var subnet: String
    /// An address of the subnet.
    package var gateway: String
    /// The part of the subnet that containers get addresses from; empty: all of it.
    package var range: String
    /// Addresses of the subnet that no container gets, by what they are for.
    package var reserved: [String: String]
    /// Has no way out.
    package var isInternal: Bool
    package var isAttachable: Bool
    package var labels: [String: String]
    package var options: [String: String]
    package var createdAt: Timestamp

    package init(
        id: NetworkID, name: String, group: String = Group.root, driver: String = "bridge", node: NodeID? = nil,
        subnet: String, gateway: String, range: String = "", reserved: [String: String] = [:], isInternal: Bool = false,
        isAttachable: Bool = false, labels: [String: String] = [:], options: [String: String] = [:],
        createdAt: Timestamp
    ) {
        self.id = id
        self.name = name
        self.group = group
        self.driver = driver
        self.node = node
        self.subnet = subnet
        self.gateway = gateway
        self.range = range
        self.reserved = reserved
        self.isInternal = isInternal
        self.isAttachable = isAttachable
        self.labels = labels
        self.options = options
        self.createdAt = createdAt
    }
}

extension Network {
    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        id = try values.decode(NetworkID.self, forKey: .id)
        name = try values.decode(String.self, forKey: .name)
        group = try values.decode(String.self, forKey: .group)
        driver = try values.decode(String.self, forKey: .driver)
        node = try values.decodeIfPresent(NodeID.self, forKey: .node)
        subnet = try values.decode(String.self, forKey: .subnet)
        gateway = try values.decode(String.self, forKey: .gateway)
        range = try values.decode(.range, or: "")
        reserved = try values.decode(.reserved, or: [:])
        isInternal = try values.decode(.isInternal, or: false)
        isAttachable = try values.decode(.isAttachable, or: false)
        labels = try values.decode(.labels, or: [:])
        options = try values.decode(.options, or: [:])
        createdAt = try values.decode(Timestamp.self, forKey: .createdAt)
    }

    /// The name of its device on its node unless an option says another, at most 15 characters: with the first 12
    /// digits of its id.
    package var device: String { Self.devicePrefix + id.text.prefix(12) }
    /// What the names of all such devices begin with.
    package static let devicePrefix = "mt-"
    /// What the node's own network is called in endpoints and by people.
    package static let nodeNetwork = "bridge"
    /// Names that mean something else.
    package static let reservedNames: Set<String> = [nodeNetwork, "host", "none", "default", "container", "ingress"]

    /// Options that can be set, with their names in Docker's API.
    package enum Option: String, CaseIterable, Sendable {
        /// `true`: what leaves it bears the node's address.
        case masquerade = "com.docker.network.bridge.enable_ip_masquerade"
        /// Whether its members reach each other: only `true` is served.
        case communication = "com.docker.network.bridge.enable_icc"
        /// The address of the node that ports are published on unless a port names one.
        case hostAddress = "com.docker.network.bridge.host_binding_ipv4"
        /// Bytes.
        case mtu = "com.docker.network.driver.mtu"
        /// The name of its device.
        case device = "com.docker.network.bridge.name"
    }

    package subscript(option: Option) -> String? { options[option.rawValue] }
}

extension Identifier where Noun == Network {
    /// Makes a network's id: 64 hexadecimal digits.
    package static func makeNetwork(_ random: inout some RandomNumberGenerator) -> Self {
        Self(ContainerID.makeContainer(&random).text)
    }
}

/// That a pod is on a network.
package struct NetworkAttachment: Sendable, Hashable, Codable {
    /// As the user wrote it, name or id; admission puts the id here.
    package var network: String
    /// Further names of the container on this network.
    package var aliases: [String]
    /// IPv4 address that it asks for; nil: any free one.
    package var address: String?
    /// `02:42:ac:11:00:02`; nil: any.
    package var mac: String?
    /// What this container alone calls others on the network: a name, and the other's id (admission takes any reference).
    package var links: [String: String]

    package init(network: String, aliases: [String] = [], address: String? = nil, mac: String? = nil) {
        links = [:]
        self.network = network
        self.aliases = aliases
        self.address = address
        self.mac = mac
    }

    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        network = try values.decode(String.self, forKey: .network)
        aliases = try values.decode(.aliases, or: [])
        address = try values.decodeIfPresent(String.self, forKey: .address)
        mac = try values.decodeIfPresent(String.self, forKey: .mac)
        links = try values.decode(.links, or: [:])
    }
}

/// Where a pod really is on a network, as its node reports it.
package struct NetworkEndpoint: Sendable, Hashable, Codable {
    /// The network's id; `bridge` for the node's own.
    package var network: String
    /// With the subnet's prefix: `172.20.0.2/16`.
    package var address: String
    package var gateway: String
    package var mac: String

    package init(network: String, address: String, gateway: String, mac: String) {
        self.network = network
        self.address = address
        self.gateway = gateway
        self.mac = mac
    }
}

/// What replaces the node's own settings of the name service, see resolv.conf(5).
package struct NameService: Sendable, Hashable, Codable {
    /// Addresses.
    package var servers: [String]
    package var search: [String]
    package var options: [String]

    package init(servers: [String] = [], search: [String] = [], options: [String] = []) {
        self.servers = servers
        self.search = search
        self.options = options
    }

    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        servers = try values.decode(.servers, or: [])
        search = try values.decode(.search, or: [])
        options = try values.decode(.options, or: [])
    }
}
