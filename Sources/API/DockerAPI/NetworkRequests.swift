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
        if let scope, !scope.isEmpty, scope != "local" {
            throw DockerError.unsupported("Scope", "networks with the driver bridge are local")
        }
        if isIngress == true { throw DockerError.unsupported("Ingress", "there is no routing mesh of Swarm mode") }
        if isConfigurationOnly == true || configuredFrom?.network?.isEmpty == false {
            throw DockerError.unsupported("ConfigOnly and ConfigFrom", "give each network its configuration")
        }
        if hasIPv4 == false { throw DockerError.unsupported("EnableIPv4", "networks have IPv4 addresses") }
        if hasIPv6 == true { throw DockerError.unsupported("EnableIPv6", "networks have IPv4 addresses only, as yet") }
        if let driver = addresses?.driver, !driver.isEmpty, driver != "default" {
            throw DockerError.unsupported("IPAM.Driver", "addresses are given by the driver default")
        }
        if addresses?.options?.isEmpty == false {
            throw DockerError.unsupported("IPAM.Options", "the driver default has none")
        }
        let pools = addresses?.config ?? []
        guard pools.count <= 1 else {
            throw DockerError.unsupported("IPAM.Config", "a network has one subnet, and not \(pools.count)")
        }
        let pool = pools.first
        return CreateNetwork(
            name: name, driver: driver ?? "", subnet: pool?.subnet, gateway: pool?.gateway, range: pool?.range,
            reserved: pool?.auxiliary ?? [:], isInternal: isInternal ?? false, isAttachable: isAttachable ?? false,
            labels: labels ?? [:], options: options ?? [:])
    }
}

/// The body of `POST /networks/{id}/connect` and `…/disconnect`.
struct NetworkConnectRequest: Decodable, Sendable {
    struct Endpoint: Decodable, Sendable {
        struct Addresses: Decodable, Sendable {
            var ipv4: String?
            var ipv6: String?
            var linkLocal: [String]?

            enum CodingKeys: String, CodingKey {
                case ipv4 = "IPv4Address"
                case ipv6 = "IPv6Address"
                case linkLocal = "LinkLocalIPs"
            }
        }

        var addresses: Addresses?
        var links: [String]?
        var aliases: [String]?
        var mac: String?
        var driverOptions: [String: String]?
        var gatewayPriority: Int?

        enum CodingKeys: String, CodingKey {
            case addresses = "IPAMConfig"
            case links = "Links"
            case aliases = "Aliases"
            case mac = "MacAddress"
            case driverOptions = "DriverOpts"
            case gatewayPriority = "GwPriority"
        }
    }

    var container: String?
    var endpoint: Endpoint?

    enum CodingKeys: String, CodingKey {
        case container = "Container"
        case endpoint = "EndpointConfig"
    }

    var name: String {
        get throws {
            guard let container, !container.isEmpty else {
                throw DockerError.badRequest("Container is missing: name the container")
            }
            return container
        }
    }

    /// - Throws: `DockerError` 400 for what is known and cannot be honoured.
    func connection(of container: String) throws -> ConnectNetwork {
        if endpoint?.links?.isEmpty == false {
            throw DockerError.unsupported(
                "EndpointConfig.Links", "members of a network find each other by name; use aliases for further names")
        }
        if endpoint?.addresses?.ipv6?.isEmpty == false {
            throw DockerError.unsupported("EndpointConfig.IPAMConfig.IPv6Address", "networks have IPv4 addresses only")
        }
        if endpoint?.addresses?.linkLocal?.isEmpty == false {
            throw DockerError.unsupported("EndpointConfig.IPAMConfig.LinkLocalIPs", "give one address of the subnet")
        }
        if endpoint?.driverOptions?.isEmpty == false {
            throw DockerError.unsupported("EndpointConfig.DriverOpts", "the driver bridge has none")
        }
        if let priority = endpoint?.gatewayPriority, priority != 0 {
            throw DockerError.unsupported(
                "EndpointConfig.GwPriority", "the way out leads through the first network that has one")
        }
        return ConnectNetwork(
            container: container, aliases: endpoint?.aliases ?? [], address: endpoint?.addresses?.ipv4,
            mac: endpoint?.mac)
    }
}
