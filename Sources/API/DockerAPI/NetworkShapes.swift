import CNISpec
import JSON
import MasterCore
import Model
import Wire

/// Networks that every node has and nobody makes.
enum PredefinedNetwork: String, CaseIterable, Sendable {
    case bridge
    case host
    case none

    /// The same in every cluster.
    var id: String {
        switch self {
        case .bridge: "fa8caadaaa379a2beff5ef5e751310cfbdff783411df1bd489235c3eb1a64f48"
        case .host: "5445be6a5eadc6c0e1a17eda5537b5854d7c791c9e971c01d593eac34532833e"
        case .none: "7bc3b23199803fa1a765252df7a55f5921033b9abfdd9fe3e6572eb0603a3c72"
        }
    }

    var driver: String { self == .none ? "null" : rawValue }

    /// By its name or its id.
    init?(_ ref: String) {
        guard let found = Self.allCases.first(where: { $0.rawValue == ref || $0.id == ref }) else {
            guard ref == "default" else { return nil }
            self = .bridge
            return
        }
        self = found
    }

    /// By the beginning of its id.
    init?(idPrefix: String) {
        let found = idPrefix.isEmpty ? [] : Self.allCases.filter { $0.id.hasPrefix(idPrefix) }
        guard found.count == 1 else { return nil }
        self = found[0]
    }
}

/// A network as this API shows it.
struct ShownNetwork: Sendable {
    var id: String
    var name: String
    var driver: String
    var isPredefined: Bool
    var isUsed: Bool
    var labels: [String: String]
    /// Of networks that users made.
    private var network: Network?
    private var pools: [Pool]
    private var containers: [(id: String, name: String, endpoint: NetworkEndpoint?)]
    private var nodes: [NetworkView.Part] = []

    /// Of one node, or of the cluster: clients know no other word for that than Swarm mode's.
    var scope: String { network?.isOverlay == true ? "swarm" : "local" }

    /// A subnet, and what of it is taken.
    private struct Pool {
        var subnet: String
        var gateway: String
        var range = ""
        var reserved: [String: String] = [:]

        var json: JSONValue {
            var object: JSONObject = ["Subnet": .string(subnet)]
            if !range.isEmpty { object["IPRange"] = .string(range) }
            object["Gateway"] = .string(gateway)
            if !reserved.isEmpty { object["AuxiliaryAddresses"] = .texts(reserved) }
            return .object(object)
        }

        /// How many addresses are taken, and how many of the range are left.
        ///
        /// - Parameter used: those of containers, in any subnet.
        func status(_ used: [IPAddress]) -> JSONValue? {
            guard let all = CIDR(subnet) else { return nil }
            // The subnet's own address, and the one for all of it, are nobody's.
            let last = all.address.family == .v4 ? all.last : nil
            let nobodys = [all.first, last, IPAddress(gateway)] + reserved.values.map { IPAddress($0) }
            let taken = Set((nobodys.compactMap(\.self) + used).filter(all.contains))
            let part = CIDR(range) ?? all
            let size = part.last.value - part.first.value + 1
            let left = Int64(clamping: size) - Int64(taken.filter(part.contains).count)
            return ["IPsInUse": .integer(Int64(taken.count)), "DynamicIPsAvailable": .integer(max(0, left))]
        }
    }

    init(_ view: NetworkView) {
        let network = view.network
        self.network = network
        id = network.id.text
        name = network.name
        driver = network.driver
        isPredefined = false
        isUsed = view.containers > 0
        labels = network.labels
        nodes = view.nodes
        // Those that do not run have no endpoint, and are not shown.
        containers = view.members.compactMap { member in
            member.endpoint.map { (member.container.text, member.name, $0) }
        }
        pools = []
        if !network.subnet.isEmpty {
            pools.append(
                Pool(
                    subnet: network.subnet, gateway: network.gateway, range: network.range, reserved: network.reserved))
        }
        if !network.subnet6.isEmpty { pools.append(Pool(subnet: network.subnet6, gateway: network.gateway6)) }
    }

    /// - Parameter members: the containers that are on it, or none where they are not shown.
    init(_ predefined: PredefinedNetwork, _ members: [ContainerSummary]) {
        id = predefined.id
        name = predefined.rawValue
        driver = predefined.driver
        isPredefined = true
        isUsed = true
        labels = [:]
        containers = members.map { member in
            (member.id.text, member.name, member.networks.first { $0.name == predefined.rawValue }?.endpoint)
        }
        // Every node has a bridge of its own; only those that containers are on are known here.
        var subnets: Set<String> = []
        pools = []
        for endpoint in containers.compactMap(\.endpoint) where subnets.insert(endpoint.gateway).inserted {
            guard let subnet = CIDR(endpoint.address)?.network else { continue }
            pools.append(Pool(subnet: "\(subnet)", gateway: endpoint.gateway))
        }
    }

    /// - Parameter isAlone: not in a list: with its containers, and what is taken of its subnets.
    func json(_ version: APIVersion, isAlone: Bool) -> JSONValue {
        var members = JSONObject()
        for container in isAlone ? containers : [] {
            members[container.id] = [
                "Name": .string(container.name), "EndpointID": .string(container.id),
                "MacAddress": .string(container.endpoint?.mac ?? ""),
                "IPv4Address": .string(container.endpoint?.address ?? ""),
                "IPv6Address": .string(container.endpoint?.address6 ?? ""),
            ]
        }
        var options = network?.options ?? [:]
        if let vni = network?.vni { options[Network.Option.vni.rawValue] = "\(vni)" }
        if name == PredefinedNetwork.bridge.rawValue, isPredefined {
            options = [
                "com.docker.network.bridge.default_bridge": "true", Network.Option.communication.rawValue: "true",
                Network.Option.masquerade.rawValue: "true",
            ]
        }
        var object: JSONObject = [
            "Name": .string(name), "Id": .string(id),
            "Created": .string("\(network?.createdAt ?? Timestamp(nanoseconds: 0))"), "Scope": .string(scope),
            "Driver": .string(driver),
        ]
        if version >= .v1_48 { object["EnableIPv4"] = true }
        object["EnableIPv6"] = .bool(network?.subnet6.isEmpty == false)
        object["IPAM"] = ["Driver": "default", "Options": .null, "Config": .array(pools.map(\.json))]
        object["Internal"] = .bool(network?.isInternal ?? false)
        object["Attachable"] = .bool(network?.isAttachable ?? false)
        object["Ingress"] = false
        object["ConfigFrom"] = ["Network": ""]
        object["ConfigOnly"] = false
        object["Containers"] = .object(members)
        object["Options"] = .texts(options)
        object["Labels"] = .texts(labels)
        if isAlone, network?.isOverlay == true {
            object["Peers"] = .array(nodes.map { ["Name": .string($0.nodeName), "IP": .string($0.underlay)] })
        }
        if version >= .v1_52, isAlone {
            let used = containers.flatMap { [$0.endpoint?.address, $0.endpoint?.address6] }
                .compactMap { $0.flatMap { CIDR($0)?.address } }
            var subnets = JSONObject()
            for pool in pools { subnets[pool.subnet] = pool.status(used) }
            object["Status"] = ["IPAM": ["Subnets": .object(subnets)]]
        }
        return .object(object)
    }
}
