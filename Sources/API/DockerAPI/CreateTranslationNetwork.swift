import Model
import Wire

/// NetworkMode, NetworkingConfig, ports and links.
extension CreateTranslation {
    mutating func network() throws {
        let mode = request.networkDisabled == true ? "none" : host.networkMode ?? ""
        var endpoints = (request.networkingConfig?.endpointsConfig ?? [:]).mapValues { $0 ?? EndpointRequest() }
        let standard = ["default", "bridge"].compactMap { endpoints.removeValue(forKey: $0) }
        for endpoint in standard { try refuseDetails(endpoint) }
        switch mode {
        case "", "default":
            // Docker connects to what is named, and to its own network only when nothing is.
            pod.network = endpoints.isEmpty || !standard.isEmpty ? .bridge : .attached
        case "bridge": pod.network = .bridge
        case "host", "none":
            pod.network = mode == "host" ? .host : .none
            for (name, endpoint) in endpoints where name == mode { try refuseDetails(endpoint) }
            endpoints[mode] = nil
            guard endpoints.isEmpty else {
                throw DockerError.badRequest("conflicting options: the network mode \(mode) and a network of its own")
            }
        default:
            if let ref = Self.containerReference(mode) {
                endpoints[mode] = nil
                try shareNetwork(of: ref, isAlone: endpoints.isEmpty)
            } else {
                pod.network = .attached
                endpoints[mode] = endpoints[mode] ?? EndpointRequest()
            }
        }
        // The first is the way out: what says so by priority, then the one that the mode names.
        let order = endpoints.sorted { left, right in
            let (first, second) = (left.value.gwPriority ?? 0, right.value.gwPriority ?? 0)
            if first != second { return first > second }
            if left.key == mode || right.key == mode { return left.key == mode }
            return left.key < right.key
        }
        pod.attachments = try order.map { name, endpoint in
            var links = try links(endpoint.links ?? [], on: name)
            if name == order.first?.key { try links.merge(self.links(host.links ?? [], on: name)) { $1 } }
            let mac = [endpoint.macAddress, name == order.first?.key ? request.macAddress : nil]
                .compactMap { $0 }.first { !$0.isEmpty }
            var attachment = NetworkAttachment(
                network: name, aliases: endpoint.aliases ?? [],
                address: endpoint.ipamConfig?.ipv4Address.flatMap { $0.isEmpty ? nil : $0 },
                address6: endpoint.ipamConfig?.ipv6Address.flatMap { $0.isEmpty ? nil : $0 }, mac: mac)
            attachment.links = links
            return attachment
        }
        if order.isEmpty { _ = try links(host.links ?? [], on: nil) }
        if pod.attachments.isEmpty, let mac = request.macAddress, !mac.isEmpty {
            throw DockerError.unsupported(
                "MacAddress", "only on a network that was made for it (`docker network create`)")
        }
        try ports()
    }

    /// On the networks that every node has, an endpoint is as its node makes it.
    private mutating func refuseDetails(_ endpoint: EndpointRequest) throws {
        if endpoint.aliases?.isEmpty == false {
            throw DockerError.badRequest(
                "network-scoped alias is supported only for containers in user defined networks")
        }
        if endpoint.ipamConfig?.ipv4Address?.isEmpty == false || endpoint.ipamConfig?.ipv6Address?.isEmpty == false {
            throw DockerError.badRequest(
                "user specified IP address is supported on user defined networks only")
        }
        if endpoint.macAddress?.isEmpty == false {
            throw DockerError.unsupported(
                "EndpointSettings.MacAddress", "only on a network that was made for it (`docker network create`)")
        }
        _ = try links(endpoint.links ?? [], on: nil)
    }

    private mutating func shareNetwork(of ref: String, isAlone: Bool) throws {
        pod.network = .container
        pod.namespaces.network = .container(ref)
        let conflicts = [
            ("hostname", !pod.hostname.isEmpty), ("links", host.links?.isEmpty == false),
            ("dns", host.dns?.isEmpty == false), ("custom host-to-IP mapping", host.extraHosts?.isEmpty == false),
            ("mac-address", request.macAddress?.isEmpty == false),
            ("port publishing", host.portBindings?.isEmpty == false || host.publishAllPorts == true),
            ("a network of its own", !isAlone),
        ]
        for (what, isGiven) in conflicts where isGiven {
            throw DockerError.badRequest("conflicting options: \(what) and the container type network mode")
        }
    }

    // MARK: Links

    /// `container[:alias]`: what this container calls another one of its network.
    ///
    /// - Returns: ids of containers by those names.
    private mutating func links(_ links: [String], on network: String?) throws -> [String: String] {
        var names: [String: String] = [:]
        for link in links {
            let (name, alias) = Self.link(link)
            guard network != nil else {
                throw DockerError.unsupported(
                    "HostConfig.Links", "put both containers on a network of your own (`docker network create`)")
            }
            guard let other = others[name] else { throw DockerAPI.noContainer(name) }
            names[alias] = other.id.text
            let affinity = Constraint(label: "container", relation: .equal, value: other.id.text)
            if !pod.affinities.contains(affinity) { pod.affinities.append(affinity) }
        }
        return names
    }

    static func link(_ text: String) -> (name: String, alias: String) {
        let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        let name = String((parts.first ?? "").split(separator: "/").last ?? "")
        return (name, parts.count == 2 ? parts[1] : name)
    }

    // MARK: Ports

    private mutating func ports() throws {
        var exposed = try Set((request.exposedPorts ?? [:]).keys.map { try PortText($0) })
        exposed.formUnion(try image.exposedPorts.map { try PortText($0) })
        var bound: [PortMapping] = []
        for (key, bindings) in host.portBindings ?? [:] {
            let port = try PortText(key)
            guard port.first == port.last else {
                throw DockerError.badRequest("invalid port specification: \(Admission.quoted(key))")
            }
            exposed.insert(port)
            // An empty list means any port of the node, as dockerd takes it still.
            let wanted = bindings ?? []
            if wanted.isEmpty {
                emptyBindings.append(
                    "port \(port) has an empty list of bindings, which is to mean nothing some time: give it one")
            }
            for binding in wanted.isEmpty ? [.init()] : wanted { bound.append(try mapping(port, binding)) }
        }
        if host.publishAllPorts == true {
            for port in exposed {
                guard port.last - port.first < 1024 else {
                    throw DockerError.badRequest("HostConfig.PublishAllPorts: \(port) are more than 1024 ports")
                }
                for number in port.first...port.last
                where !bound.contains(where: { $0.containerPort == number && $0.transport == port.transport }) {
                    bound.append(PortMapping(hostPort: 0, containerPort: number, transport: port.transport))
                }
            }
        }
        bound.sort {
            ($0.containerPort, $0.transport.rawValue, $0.hostPort, $0.hostAddress)
                < ($1.containerPort, $1.transport.rawValue, $1.hostPort, $1.hostAddress)
        }
        spec.exposedPorts = exposed.sorted { ($0.first, $0.transport.rawValue) < ($1.first, $1.transport.rawValue) }
            .map(\.description)
        if !bound.isEmpty, pod.network == .host || pod.network == .none {
            warnings.append("Published ports are discarded when using \(pod.network.rawValue) network mode")
        } else {
            pod.ports = bound
        }
    }

    private func mapping(_ port: PortText, _ binding: HostConfigRequest.PortBinding) throws -> PortMapping {
        let range = (binding.hostPort ?? "").split(separator: "-", omittingEmptySubsequences: false)
        let numbers = range.map { $0.isEmpty ? 0 : Int($0) ?? -1 }
        guard numbers.count <= 2, numbers.allSatisfy({ (0...65535).contains($0) }) else {
            throw DockerError.badRequest("invalid port specification: \(Admission.quoted(binding.hostPort ?? ""))")
        }
        return PortMapping(
            hostAddress: binding.hostIP ?? "", hostPort: numbers.first ?? 0, hostPortEnd: numbers.last ?? 0,
            containerPort: port.first, transport: port.transport)
    }
}

/// `80/tcp`, `53/udp`, `80`, `8000-8010/tcp`.
struct PortText: Sendable, Hashable, CustomStringConvertible {
    let first: Int
    let last: Int
    let transport: PortMapping.Transport

    /// - Throws: `DockerError` 400 for what is no port.
    init(_ text: String) throws {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        let ends = (parts.first ?? "").split(separator: "-", omittingEmptySubsequences: false).map { Int($0) ?? 0 }
        guard parts.count <= 2, (1...2).contains(ends.count), let first = ends.first, let last = ends.last,
            (1...65535).contains(first), (first...65535).contains(last),
            let transport = PortMapping.Transport(rawValue: parts.count == 2 ? parts[1].lowercased() : "tcp")
        else { throw DockerError.badRequest("invalid port specification: \(Admission.quoted(text))") }
        self.first = first
        self.last = last
        self.transport = transport
    }

    var description: String { (first == last ? "\(first)" : "\(first)-\(last)") + "/\(transport.rawValue)" }
}
