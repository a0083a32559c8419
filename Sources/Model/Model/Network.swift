import CNISpec
import JSON

/// 64 hexadecimal digits, as container tools show them.
package typealias NetworkID = Identifier<Network>

/// A network that users made. One with the driver `bridge` is on one node: all containers that are attached to it run
/// there. One with the driver `overlay` is wherever one of its containers runs, and so is one with the driver `cni`,
/// of which each node makes its own by a CNI configuration list.
package struct Network: Sendable, Hashable, Codable {
    package var id: NetworkID
    /// Unique in the cluster.
    package var name: String
    /// Whose it is: callers that are confined to groups reach it from this one and those above.
    package var group: String
    /// `bridge`, `overlay` or `cni`, see `Driver`.
    package var driver: String
    /// The VXLAN network identifier of an overlay, 1…16777215 (RFC 7348), and no other's; nil: it is none.
    package var vni: Int?
    /// The node that has it; nil: where the first container that is attached to it goes.
    package var node: NodeID?
    /// `172.20.0.0/16`; empty when the driver is `cni`, as is all else that is said of addresses here.
    package var subnet: String
    /// An address of the subnet.
    package var gateway: String
    /// `fd00:1::/64`; empty: it has no IPv6.
    package var subnet6: String
    /// An address of `subnet6`; empty when there is none.
    package var gateway6: String
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
        vni: Int? = nil, subnet: String, gateway: String, subnet6: String = "", gateway6: String = "",
        range: String = "", reserved: [String: String] = [:], isInternal: Bool = false, isAttachable: Bool = false,
        labels: [String: String] = [:], options: [String: String] = [:], createdAt: Timestamp
    ) {
        self.id = id
        self.name = name
        self.group = group
        self.driver = driver
        self.node = node
        self.vni = vni
        self.subnet = subnet
        self.gateway = gateway
        self.subnet6 = subnet6
        self.gateway6 = gateway6
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
        vni = try values.decodeIfPresent(Int.self, forKey: .vni)
        subnet = try values.decode(String.self, forKey: .subnet)
        gateway = try values.decode(String.self, forKey: .gateway)
        subnet6 = try values.decode(.subnet6, or: "")
        gateway6 = try values.decode(.gateway6, or: "")
        range = try values.decode(.range, or: "")
        reserved = try values.decode(.reserved, or: [:])
        isInternal = try values.decode(.isInternal, or: false)
        isAttachable = try values.decode(.isAttachable, or: false)
        labels = try values.decode(.labels, or: [:])
        options = try values.decode(.options, or: [:])
        createdAt = try values.decode(Timestamp.self, forKey: .createdAt)
    }

    package enum Driver: String, CaseIterable, Sendable { case bridge, overlay, cni }

    /// Whether pods on all nodes reach each other on it, with addresses that the master gives.
    package var isOverlay: Bool { driver == Driver.overlay.rawValue }
    /// Whether each node makes it by a CNI configuration list.
    package var isCNI: Bool { driver == Driver.cni.rawValue }
    /// Whether all of its containers run on one node.
    package var isOfOneNode: Bool { !isOverlay && !isCNI }

    /// What a node must be able to do for it, see `Node.features`.
    package var features: [String] {
        if isOfOneNode { return hasIPv6 ? [Self.bridgeIPv6] : [] }
        return [driver] + (isEncrypted ? [Self.overlayEncryption] : [])
    }
    /// Of nodes that tell plugins of limits on traffic: an agent of an earlier version would leave them out.
    package static let trafficLimits = "traffic-limits"
    /// Of nodes that can encrypt what overlays send to other nodes.
    package static let overlayEncryption = "overlay-encryption"
    /// Whether what an overlay sends from node to node is encrypted. As with Docker an option without a value says so.
    package var isEncrypted: Bool { isOverlay && self[.encrypted].map { Self.truth($0) ?? true } ?? false }

    /// What an option says that is true or false; nil: it says neither.
    package static func truth(_ text: String) -> Bool? {
        switch text.lowercased() {
        case "true", "1", "t": true
        case "false", "0", "f": false
        default: nil
        }
    }

    /// Of nodes whose bridges may have IPv6: an agent of an earlier version would leave it out.
    package static let bridgeIPv6 = "bridge-ipv6"
    package var hasIPv6: Bool { !subnet6.isEmpty }
    /// Whether ports without an address are published for IPv6 too: as with Docker not where an address of IPv4 is preferred.
    package var publishesIPv6: Bool {
        hasIPv6 && (self[.hostAddress].flatMap { IPAddress($0) }?.isUnspecified ?? true)
    }

    /// What VXLAN can tell apart; 0 is left out.
    package static let vnis = 1...16_777_215

    /// The name of its device on its node unless an option says another, at most 15 characters: with the first 12
    /// digits of its id.
    package var device: String { Self.device(of: id) }
    package static func device(of id: NetworkID) -> String { devicePrefix + id.text.prefix(12) }
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
        /// The VXLAN network identifier of an overlay: one number.
        case vni = "com.docker.network.driver.overlay.vxlanid_list"
        /// What an overlay sends from node to node is encrypted; empty is true.
        case encrypted = "encrypted"
        /// The CNI configuration list of a network with the driver `cni`, as text; left out: the list of the network's
        /// name in each node's directory of lists.
        case cniConfiguration = "martlet.cni.config"
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
    /// IPv6 address that it asks for; nil: any free one.
    package var address6: String?
    /// `02:42:ac:11:00:02`; nil: any.
    package var mac: String?
    /// What this container alone calls others on the network: a name, and the other's id (admission takes any reference).
    package var links: [String: String]
    /// On a network with the driver `cni` only; nil: none.
    package var bandwidth: TrafficLimits?

    package init(
        network: String, aliases: [String] = [], address: String? = nil, address6: String? = nil, mac: String? = nil,
        bandwidth: TrafficLimits? = nil
    ) {
        links = [:]
        self.bandwidth = bandwidth
        self.network = network
        self.aliases = aliases
        self.address = address
        self.address6 = address6
        self.mac = mac
    }

    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        network = try values.decode(String.self, forKey: .network)
        aliases = try values.decode(.aliases, or: [])
        address = try values.decodeIfPresent(String.self, forKey: .address)
        address6 = try values.decodeIfPresent(String.self, forKey: .address6)
        mac = try values.decodeIfPresent(String.self, forKey: .mac)
        links = try values.decode(.links, or: [:])
        bandwidth = try values.decodeIfPresent(TrafficLimits.self, forKey: .bandwidth)
    }

    /// What a node must be able to do for it beside the network itself, see `Node.features`.
    package var features: [String] { bandwidth == nil ? [] : [Network.trafficLimits] }
}

/// Where a pod really is on a network, as its node reports it.
package struct NetworkEndpoint: Sendable, Hashable, Codable {
    /// The network's id; `bridge` for the node's own.
    package var network: String
    /// With the subnet's prefix: `172.20.0.2/16`.
    package var address: String
    package var gateway: String
    /// With the subnet's prefix: `fd00:1::2/64`; empty: none.
    package var address6: String
    /// Empty: none.
    package var gateway6: String
    package var mac: String

    package init(
        network: String, address: String, gateway: String, address6: String = "", gateway6: String = "", mac: String
    ) {
        self.network = network
        self.address = address
        self.gateway = gateway
        self.address6 = address6
        self.gateway6 = gateway6
        self.mac = mac
    }

    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        network = try values.decode(String.self, forKey: .network)
        address = try values.decode(String.self, forKey: .address)
        gateway = try values.decode(String.self, forKey: .gateway)
        address6 = try values.decode(.address6, or: "")
        gateway6 = try values.decode(.gateway6, or: "")
        mac = try values.decode(String.self, forKey: .mac)
    }
}

/// The addresses that the master gave a task on an overlay: its own for as long as it exists.
package struct AssignedAddress: Sendable, Hashable, Codable {
    package var network: NetworkID
    /// IPv4, without prefix length.
    package var address: String
    /// IPv6, without prefix length; empty: the network has none.
    package var address6: String
    /// Whether the node of the task leases the block of addresses that it is from; otherwise the address is an
    /// exception that every other node knows by itself: fixed by the user, or borrowed.
    package var isLeased: Bool
    /// The pod has left the network with this revision, and its node may still have the address there: it is nobody
    /// else's until the node has said that the revision is in force (`TaskStatus.revision`). nil: it is the task's.
    package var leftAt: Int?

    package init(
        network: NetworkID, address: String, address6: String = "", isLeased: Bool, leftAt: Int? = nil
    ) {
        self.leftAt = leftAt
        self.network = network
        self.address = address
        self.address6 = address6
        self.isLeased = isLeased
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
