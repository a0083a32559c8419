import JSON
import Model

/// `POST /networks`.
package struct CreateNetwork: Sendable, Codable {
    package var name: String
    /// `bridge`, `overlay` or `cni`.
    package var driver: String
    /// The VXLAN network identifier of an overlay, 1…16777215; nil: the cluster chooses a free one.
    package var vni: Int?
    /// nil: the cluster chooses a free one.
    package var subnet: String?
    package var gateway: String?
    /// IPv6; nil: it has none unless `isIPv6`.
    package var subnet6: String?
    package var gateway6: String?
    /// It has IPv6: when no `subnet6` is named the cluster chooses one, a unique local /64 (RFC 4193).
    package var isIPv6: Bool
    package var range: String?
    /// Addresses of the subnet that no container gets, by what they are for.
    package var reserved: [String: String]
    package var isInternal: Bool
    package var isAttachable: Bool
    package var labels: [String: String]
    package var options: [String: String]
    /// Whose it is; nil: the caller's own group, or `/`.
    package var group: String?

    package init(
        name: String, driver: String = "bridge", vni: Int? = nil, subnet: String? = nil, gateway: String? = nil,
        subnet6: String? = nil, gateway6: String? = nil, isIPv6: Bool = false, range: String? = nil,
        reserved: [String: String] = [:], isInternal: Bool = false, isAttachable: Bool = false,
        labels: [String: String] = [:], options: [String: String] = [:], group: String? = nil
    ) {
        self.name = name
        self.driver = driver
        self.vni = vni
        self.subnet = subnet
        self.gateway = gateway
        self.subnet6 = subnet6
        self.gateway6 = gateway6
        self.isIPv6 = isIPv6
        self.range = range
        self.reserved = reserved
        self.isInternal = isInternal
        self.isAttachable = isAttachable
        self.labels = labels
        self.options = options
        self.group = group
    }

    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        name = try values.decode(String.self, forKey: .name)
        driver = try values.decode(.driver, or: "bridge")
        vni = try values.decodeIfPresent(Int.self, forKey: .vni)
        subnet = try values.decodeIfPresent(String.self, forKey: .subnet)
        gateway = try values.decodeIfPresent(String.self, forKey: .gateway)
        subnet6 = try values.decodeIfPresent(String.self, forKey: .subnet6)
        gateway6 = try values.decodeIfPresent(String.self, forKey: .gateway6)
        isIPv6 = try values.decode(.isIPv6, or: false)
        range = try values.decodeIfPresent(String.self, forKey: .range)
        reserved = try values.decode(.reserved, or: [:])
        isInternal = try values.decode(.isInternal, or: false)
        isAttachable = try values.decode(.isAttachable, or: false)
        labels = try values.decode(.labels, or: [:])
        options = try values.decode(.options, or: [:])
        group = try values.decodeIfPresent(String.self, forKey: .group)
    }
}

/// A network with what is on it.
package struct NetworkView: Sendable, Codable, Hashable {
    package struct Member: Sendable, Codable, Hashable {
        package var container: ContainerID
        package var name: String
        /// nil: it is not there now, as it does not run.
        package var endpoint: NetworkEndpoint?

        package init(container: ContainerID, name: String, endpoint: NetworkEndpoint?) {
            self.container = container
            self.name = name
            self.endpoint = endpoint
        }
    }

    package var network: Network
    /// Empty: on no node yet.
    package var nodeName: String
    /// How many containers are on it, running or not.
    package var containers: Int
    /// In the order of their names, at most `mostMembers`; empty in lists.
    package var members: [Member]
    /// The last of the members' names, when there are more: `?after=` it has those that follow.
    package var next: String?
    /// Where an overlay is, in the order of nodes' names; empty for other networks.
    package var nodes: [Part]

    /// What a node has of an overlay.
    package struct Part: Sendable, Codable, Hashable {
        package var node: NodeID
        package var nodeName: String
        /// Where other nodes send packets for it.
        package var underlay: String
        /// CIDRs of the blocks that it leases.
        package var blocks: [String]
        /// Addresses beside these.
        package var addresses: [String]
        package var tasks: Int

        package init(
            node: NodeID, nodeName: String, underlay: String, blocks: [String], addresses: [String], tasks: Int
        ) {
            self.node = node
            self.nodeName = nodeName
            self.underlay = underlay
            self.blocks = blocks
            self.addresses = addresses
            self.tasks = tasks
        }
    }

    /// Members of one answer.
    package static let mostMembers = 1000

    package init(
        network: Network, nodeName: String, containers: Int = 0, members: [Member] = [], next: String? = nil,
        nodes: [Part] = []
    ) {
        self.network = network
        self.nodeName = nodeName
        self.containers = containers
        self.members = members
        self.next = next
        self.nodes = nodes
    }

    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        network = try values.decode(Network.self, forKey: .network)
        nodeName = try values.decode(String.self, forKey: .nodeName)
        members = try values.decode([Member].self, forKey: .members)
        containers = try values.decode(.containers, or: members.count)
        next = try values.decodeIfPresent(String.self, forKey: .next)
        nodes = try values.decode(.nodes, or: [])
    }
}

/// `POST /networks/{network}/connect`.
package struct ConnectNetwork: Sendable, Codable {
    package var container: String
    package var aliases: [String]
    package var address: String?
    /// IPv6.
    package var address6: String?
    package var mac: String?
    /// On a network with the driver `cni` only.
    package var bandwidth: TrafficLimits?

    package init(
        container: String, aliases: [String] = [], address: String? = nil, address6: String? = nil, mac: String? = nil,
        bandwidth: TrafficLimits? = nil
    ) {
        self.bandwidth = bandwidth
        self.container = container
        self.aliases = aliases
        self.address = address
        self.address6 = address6
        self.mac = mac
    }

    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        container = try values.decode(String.self, forKey: .container)
        aliases = try values.decode(.aliases, or: [])
        address = try values.decodeIfPresent(String.self, forKey: .address)
        address6 = try values.decodeIfPresent(String.self, forKey: .address6)
        mac = try values.decodeIfPresent(String.self, forKey: .mac)
        bandwidth = try values.decodeIfPresent(TrafficLimits.self, forKey: .bandwidth)
    }
}

/// `POST /networks/{network}/disconnect`.
package struct DisconnectNetwork: Sendable, Codable {
    package var container: String

    package init(container: String) { self.container = container }
}

/// `POST /networks/prune`: which of the networks that nothing is attached to go.
package struct PruneNetworks: Sendable, Codable {
    /// Made before this; nil: whenever.
    package var until: Timestamp?
    /// `key` or `key=value`: it has all of them.
    package var labels: [String]
    /// It has none of these.
    package var withoutLabels: [String]

    package init(until: Timestamp? = nil, labels: [String] = [], withoutLabels: [String] = []) {
        self.until = until
        self.labels = labels
        self.withoutLabels = withoutLabels
    }

    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        until = try values.decodeIfPresent(Timestamp.self, forKey: .until)
        labels = try values.decode(.labels, or: [])
        withoutLabels = try values.decode(.withoutLabels, or: [])
    }
}

/// What `prune` removed.
package struct RemovedNetworks: Sendable, Codable {
    package var networks: [String]

    package init(networks: [String]) { self.networks = networks }
}
