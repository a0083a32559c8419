import JSON
import Model

/// `POST /networks`.
package struct CreateNetwork: Sendable, Codable {
    package var name: String
    package var driver: String
    /// nil: the cluster chooses a free one.
    package var subnet: String?
    package var gateway: String?
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
        name: String, driver: String = "bridge", subnet: String? = nil, gateway: String? = nil, range: String? = nil,
        reserved: [String: String] = [:], isInternal: Bool = false, isAttachable: Bool = false,
        labels: [String: String] = [:], options: [String: String] = [:], group: String? = nil
    ) {
        self.name = name
        self.driver = driver
        self.subnet = subnet
        self.gateway = gateway
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
        subnet = try values.decodeIfPresent(String.self, forKey: .subnet)
        gateway = try values.decodeIfPresent(String.self, forKey: .gateway)
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
    package var members: [Member]

    package init(network: Network, nodeName: String, members: [Member]) {
        self.network = network
        self.nodeName = nodeName
        self.members = members
    }
}

/// `POST /networks/{network}/connect`.
package struct ConnectNetwork: Sendable, Codable {
    package var container: String
    package var aliases: [String]
    package var address: String?
    package var mac: String?

    package init(container: String, aliases: [String] = [], address: String? = nil, mac: String? = nil) {
        self.container = container
        self.aliases = aliases
        self.address = address
        self.mac = mac
    }

    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        container = try values.decode(String.self, forKey: .container)
        aliases = try values.decode(.aliases, or: [])
        address = try values.decodeIfPresent(String.self, forKey: .address)
        mac = try values.decodeIfPresent(String.self, forKey: .mac)
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
