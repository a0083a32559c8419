import JSON
import Model
import Wire

/// The body of `POST /networks/create`.
struct NetworkCreateRequest: Decodable, Sendable {
    struct Addresses: Decodable, Sendable {
        struct Pool: Decodable, Sendable {
            var subnet: String?
            var range: String?
            var gateway: String?
            var auxiliary: [String: String]?

            enum CodingKeys: String, CodingKey {
                case subnet = "Subnet"
                case range = "IPRange"
                case gateway = "Gateway"
                case auxiliary = "AuxiliaryAddresses"
            }

            var isIPv6: Bool { subnet?.contains(":") ?? false }
        }

        var driver: String?
        var config: [Pool]?
        var options: [String: String]?

        enum CodingKeys: String, CodingKey {
            case driver = "Driver"
            case config = "Config"
            case options = "Options"
        }
    }

    struct Origin: Decodable, Sendable {
        var network: String?

        enum CodingKeys: String, CodingKey { case network = "Network" }
    }

    var name: String?
    var driver: String?
    var scope: String?
    var isInternal: Bool?
    var isAttachable: Bool?
    var isIngress: Bool?
    var isConfigurationOnly: Bool?
    var configuredFrom: Origin?
    var hasIPv4: Bool?
    var hasIPv6: Bool?
    var addresses: Addresses?
    var options: [String: String]?
    var labels: [String: String]?

    enum CodingKeys: String, CodingKey {
        case name = "Name"
        case driver = "Driver"
        case scope = "Scope"
        case isInternal = "Internal"
        case isAttachable = "Attachable"
        case isIngress = "Ingress"
        case isConfigurationOnly = "ConfigOnly"
        case configuredFrom = "ConfigFrom"
        case hasIPv4 = "EnableIPv4"
        case hasIPv6 = "EnableIPv6"
        case addresses = "IPAM"
        case options = "Options"
        case labels = "Labels"
    }

    /// - Throws: `DockerError` 400 for what is known and cannot be honoured.
    func wish() throws -> CreateNetwork {
        guard let name, !name.isEmpty else { throw DockerError.badRequest("Name is missing: a network has a name") }
        let isOverlay = driver == Network.Driver.overlay.rawValue
        if let scope, !scope.isEmpty, scope != (isOverlay ? "swarm" : "local") {
            throw DockerError.unsupported(
                "Scope", "networks with the driver overlay have the scope swarm, all others the scope local")
        }
        if isIngress == true { throw DockerError.unsupported("Ingress", "there is no routing mesh of Swarm mode") }
        if isConfigurationOnly == true || configuredFrom?.network?.isEmpty == false {
            throw DockerError.unsupported("ConfigOnly and ConfigFrom", "give each network its configuration")
        }
        if hasIPv4 == false { throw DockerError.unsupported("EnableIPv4", "networks have IPv4 addresses") }
        if let driver = addresses?.driver, !driver.isEmpty, driver != "default" {
            throw DockerError.unsupported("IPAM.Driver", "addresses are given by the driver default")
        }
        if addresses?.options?.isEmpty == false {
            throw DockerError.unsupported("IPAM.Options", "the driver default has none")
        }
        let pools = addresses?.config ?? []
        let (pools6, pools4) = (pools.filter(\.isIPv6), pools.filter { !$0.isIPv6 })
        guard pools4.count <= 1, pools6.count <= 1 else {
            throw DockerError.unsupported("IPAM.Config", "a network has one subnet of a family, and not \(pools.count)")
        }
        if let pool = pools6.first, pool.range?.isEmpty == false || pool.auxiliary?.isEmpty == false {
            throw DockerError.unsupported(
                "IPAM.Config",
                "the IPv6 addresses of containers have the numbers of their IPv4 addresses: a range and "
                    + "reserved addresses are of the IPv4 subnet")
        }
        if let pool = pools6.first, hasIPv6 != true {
            throw DockerError.badRequest(
                "IPv6 is not enabled, and the subnet \(pool.subnet ?? "") is of IPv6: add --ipv6")
        }
        let (pool, pool6) = (pools4.first, pools6.first)
        return CreateNetwork(
            name: name, driver: driver ?? "", subnet: pool?.subnet, gateway: pool?.gateway, subnet6: pool6?.subnet,
            gateway6: pool6?.gateway, isIPv6: hasIPv6 ?? false, range: pool?.range, reserved: pool?.auxiliary ?? [:],
            isInternal: isInternal ?? false, isAttachable: isAttachable ?? false, labels: labels ?? [:],
            options: options ?? [:])
    }
}

/// The body of `POST /networks/{id}/connect` and `…/disconnect`.
struct NetworkConnectRequest: Decodable, Sendable {
    var container: String?
    var endpoint: EndpointRequest?

    enum CodingKeys: String, CodingKey {
        case container = "Container"
        case endpoint = "EndpointConfig"
    }

    /// - Throws: `DockerError` 400 for JSON of another shape, and for what is known and not supported.
    init(_ body: JSONValue) throws {
        self = try DockerCall.decode(Self.self, from: body)
        try CreateMembers.checkEndpoint(body["EndpointConfig"])
    }

    var name: String {
        get throws {
            guard let container, !container.isEmpty else {
                throw DockerError.badRequest("Container is missing: name the container")
            }
            return container
        }
    }

    /// - Throws: `DockerError` 400 for what only a container that is made can be given.
    func connection(of container: String) throws -> ConnectNetwork {
        if endpoint?.links?.isEmpty == false {
            throw DockerError.unsupported(
                "EndpointSettings.Links", "members of a network find each other by name; use aliases for further names")
        }
        if let priority = endpoint?.gwPriority, priority != 0 {
            throw DockerError.unsupported(
                "EndpointSettings.GwPriority", "the way out leads through the first network that has one")
        }
        return ConnectNetwork(
            container: container, aliases: endpoint?.aliases ?? [], address: endpoint?.ipamConfig?.ipv4Address,
            address6: endpoint?.ipamConfig?.ipv6Address, mac: endpoint?.macAddress)
    }
}
