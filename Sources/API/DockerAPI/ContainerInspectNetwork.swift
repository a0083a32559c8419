import JSON
import MasterCore
import Model
import Wire

/// NetworkSettings of an inspected container: where it is on its networks now.
extension ContainerInspect {
    var networkSettings: JSONValue {
        var networks = JSONObject()
        switch view.network {
        case .bridge: networks["bridge"] = network("bridge", attachment: nil)
        case .host, .none: networks[view.network.rawValue] = network(view.network.rawValue, attachment: nil)
        case .attached, .container: break
        }
        for attachment in view.pod.attachments {
            networks[networkNames[attachment.network] ?? attachment.network] = network(
                attachment.network, attachment: attachment)
        }
        var object: JSONObject = ["SandboxID": .string(isUp ? view.id.text : ""), "SandboxKey": "", "Ports": ports]
        if version < .v1_52 { addOldMembers(&object) }
        object["Networks"] = .object(networks)
        return .object(object)
    }

    /// What there was before there were several networks: where it is on the default bridge.
    private func addOldMembers(_ object: inout JSONObject) {
        let own = view.network == .bridge ? endpoint("bridge") : nil
        let (address, prefix) = Self.parts(own?.address)
        for name in ["Bridge", "LinkLocalIPv6Address", "GlobalIPv6Address", "IPv6Gateway"] { object[name] = "" }
        for name in ["LinkLocalIPv6PrefixLen", "GlobalIPv6PrefixLen"] { object[name] = 0 }
        for name in ["SecondaryIPAddresses", "SecondaryIPv6Addresses"] { object[name] = JSONValue.null }
        object["HairpinMode"] = false
        object["EndpointID"] = .string(own == nil ? "" : view.id.text)
        object["Gateway"] = .string(own?.gateway ?? "")
        object["IPAddress"] = .string(address)
        object["IPPrefixLen"] = .integer(prefix)
        object["MacAddress"] = .string(own?.mac ?? "")
    }

    /// Where it is on a network; nil when it does not run.
    private func endpoint(_ network: String) -> NetworkEndpoint? {
        isUp ? view.status.endpoints.first { $0.network == network } : nil
    }

    /// `172.20.0.2/16` as address and length of the prefix.
    private static func parts(_ address: String?) -> (address: String, prefix: Int64) {
        let parts = (address ?? "").split(separator: "/")
        return (parts.first.map(String.init) ?? "", parts.count == 2 ? Int64(parts[1]) ?? 0 : 0)
    }

    private func network(_ id: String, attachment: NetworkAttachment?) -> JSONValue {
        let endpoint = endpoint(id)
        let (address, prefix) = Self.parts(endpoint?.address)
        let (address6, prefix6) = Self.parts(endpoint?.address6)
        var asked = JSONObject()
        if let address = attachment?.address { asked["IPv4Address"] = .string(address) }
        if let address = attachment?.address6 { asked["IPv6Address"] = .string(address) }
        let short = String(view.id.text.prefix(12))
        // Others on a network that users made find it by its short id too; later clients read that from DNSNames.
        let aliases = attachment.map { $0.aliases + (version < .v1_45 ? [short] : []) } ?? []
        var object: JSONObject = [
            "IPAMConfig": asked.isEmpty ? .null : .object(asked),
            "Links": .listOrNull(
                (attachment?.links ?? [:]).map { "\(containerNames[$1] ?? $1):\($0)" }.sorted()),
            "Aliases": .listOrNull(aliases), "NetworkID": .string(PredefinedNetwork(id)?.id ?? id),
            "EndpointID": .string(endpoint == nil ? "" : view.id.text), "Gateway": .string(endpoint?.gateway ?? ""),
            "IPAddress": .string(address), "IPPrefixLen": .integer(prefix),
            "IPv6Gateway": .string(endpoint?.gateway6 ?? ""), "GlobalIPv6Address": .string(address6),
            "GlobalIPv6PrefixLen": .integer(prefix6), "MacAddress": .string(endpoint?.mac ?? attachment?.mac ?? ""),
            "DriverOpts": nil,
        ]
        if version >= .v1_44 {
            var names: [String] = []
            for name in [view.name] + (attachment?.aliases ?? []) + [short, view.hostname] where !names.contains(name) {
                names.append(name)
            }
            object["DNSNames"] = attachment == nil ? .null : .list(names)
        }
        if version >= .v1_48 { object["GwPriority"] = 0 }
        return .object(object)
    }

    /// The ports that it has on its node, and those that it only listens on.
    private var ports: JSONValue {
        guard isUp else { return [:] }
        var object = JSONObject()
        for port in spec.exposedPorts { object[port] = JSONValue.null }
        for port in view.ports {
            let key = "\(port.containerPort)/\(port.transport.rawValue)"
            for address in PublishedPlaces.of(port, node: node?.address, hasV6: publishesIPv6) {
                let binding: JSONValue = ["HostIp": .string(address), "HostPort": .string("\(port.hostPort)")]
                object[key] = .array((object[key]?.arrayValue ?? []) + [binding])
            }
        }
        return .object(object)
    }
}
