import CNISpec
import JSON
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
    private var pools: [JSONValue]
    private var containers: [(id: String, name: String, endpoint: NetworkEndpoint?)]
    private var nodeName = ""

    let scope = "local"

    init(_ view: NetworkView) {
        let network = view.network
        self.network = network
        id = network.id.text
        name = network.name
        driver = network.driver
        isPredefined = false
        isUsed = !view.members.isEmpty
        labels = network.labels
        nodeName = view.nodeName
        // Those that do not run have no endpoint, and are not shown.
        containers = view.members.compactMap { member in
            member.endpoint.map { (member.container.text, member.name, $0) }
        }
        var pool: JSONObject = ["Subnet": .string(network.subnet)]
        if !network.range.isEmpty { pool["IPRange"] = .string(network.range) }
        pool["Gateway"] = .string(network.gateway)
        if !network.reserved.isEmpty { pool["AuxiliaryAddresses"] = .texts(network.reserved) }
        pools = [.object(pool)]
    }

    /// - Parameter views: all containers, or none where they are not shown.
    init(_ predefined: PredefinedNetwork, _ views: [ContainerView]) {
        id = predefined.id
        name = predefined.rawValue
        driver = predefined.driver
        isPredefined = true
        isUsed = true
        labels = [:]
        let members = views.filter { view in
            view.network.rawValue == predefined.rawValue && view.status.isLive && view.container.state != .exited
        }
        containers = members.map { view in
            (view.id.text, view.name, view.status.endpoints.first { $0.network == predefined.rawValue })
        }
        // Every node has a bridge of its own; only those that containers are on are known here.
        var subnets: Set<String> = []
        pools = []
        for endpoint in containers.compactMap(\.endpoint) where subnets.insert(endpoint.gateway).inserted {
            guard let subnet = CIDR(endpoint.address)?.network else { continue }
            pools.append(["Subnet": .string("\(subnet)"), "Gateway": .string(endpoint.gateway)])
        }
    }

    func json(_ version: APIVersion, withContainers: Bool) -> JSONValue {
        var members = JSONObject()
        for container in withContainers ? containers : [] {
            members[container.id] = [
                "Name": .string(container.name), "EndpointID": .string(container.id),
                "MacAddress": .string(container.endpoint?.mac ?? ""),
                "IPv4Address": .string(container.endpoint?.address ?? ""), "IPv6Address": "",
            ]
        }
        var options = network?.options ?? [:]
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
        if version >= APIVersion(minor: 48) { object["EnableIPv4"] = true }
        object["EnableIPv6"] = false
        object["IPAM"] = ["Driver": "default", "Options": .null, "Config": .array(pools)]
        object["Internal"] = .bool(network?.isInternal ?? false)
        object["Attachable"] = .bool(network?.isAttachable ?? false)
        object["Ingress"] = false
        object["ConfigFrom"] = ["Network": ""]
        object["ConfigOnly"] = false
        object["Containers"] = .object(members)
        object["Options"] = .texts(options)
        object["Labels"] = .texts(labels)
        return .object(object)
    }
}
