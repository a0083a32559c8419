import AgentCore
import CNISpec
import Kernel
import Logging
import Model
import Networking
import Reactor
import Synchronization
import Wire

/// The networks of pods: the node's own, and those that users made.
extension PodExecutor {
    private static func places(of assignment: TaskAssignment) throws(ExecutorFailure) -> [Place] {
        guard assignment.pod.network == .bridge || assignment.pod.network == .attached else { return [] }
        var places: [Place] = assignment.pod.network == .bridge ? [.node] : []
        for attachment in assignment.pod.attachments {
            guard let network = assignment.networks.first(where: { $0.id.text == attachment.network }) else {
                throw ExecutorFailure("the network \(attachment.network) is not known any more")
            }
            places.append(.user(network, attachment, assignment.addresses.first { $0.network == network.id }))
        }
        return places
    }

    /// Makes the pod's network namespace and connects it to all of its networks. Blocks.
    ///
    /// - Returns: nothing for a pod without an address of its own.
    func connect(_ assignment: TaskAssignment, _ task: TaskPaths) throws -> [NetworkEndpoint] {
        guard assignment.pod.network != .host, assignment.pod.network != .container else { return [] }
        try NetworkNamespace.create(at: task.namespace)
        let places = try Self.places(of: assignment)
        let way = places.first { !$0.isInternal }
        var endpoints: [NetworkEndpoint] = []
        for (index, place) in places.enumerated() {
            endpoints.append(
                try attach(assignment, task, to: place, interface: "eth\(index)", isWay: place == way))
            failpoint("agent.after_attachment")
        }
        return endpoints
    }

    /// - Parameter isWay: the pod's way out leads through it, and its ports are published there.
    private func attach(
        _ assignment: TaskAssignment, _ task: TaskPaths, to place: Place, interface: String, isWay: Bool,
        keeping endpoint: NetworkEndpoint? = nil
    ) throws -> NetworkEndpoint {
        let ports = isWay ? try assignment.ports.map { try $0.published() } : []
        let id = task.id.text
        let found: EndpointAddresses
        switch place {
        case .node:
            found = try network.attach(
                id, namespacePath: task.namespace, interface: interface, ports: ports,
                address: endpoint.flatMap { IPAddress($0.host) }, mac: endpoint.flatMap { MACAddress($0.mac) },
                isDefaultRoute: isWay)
        case .user(let network, let attachment, let given):
            let mac = (attachment.mac ?? endpoint?.mac).flatMap { MACAddress($0) }
            let ports = ports.flatMap { $0.published(on: network) }
            if network.isOverlay {
                found = try overlays.attach(
                    id, to: OverlayNetworkConfiguration(network), namespacePath: task.namespace, interface: interface,
                    ports: ports, addresses: Self.addresses(given, on: network), mac: mac, isDefaultRoute: isWay)
            } else if network.isCNI {
                found = try cniNetworks.attach(
                    id, to: CNINetworkConfiguration(network), namespacePath: task.namespace, interface: interface,
                    asked: Self.asked(attachment, ports: ports), offered: Self.offered(assignment.pod, attachment))
            } else {
                let address = attachment.address ?? endpoint?.host
                let address6 = attachment.address6 ?? endpoint?.host6
                found = try userNetworks.attach(
                    id, to: userNetworks.configuration(network), namespacePath: task.namespace, interface: interface,
                    ports: ports, address: address.flatMap { IPAddress($0) },
                    address6: address6.flatMap { IPAddress($0) }, mac: mac, isDefaultRoute: isWay)
            }
        }
        return NetworkEndpoint(place.network, found)
    }

    /// What the master gave a task on an overlay.
    private static func addresses(
        _ given: AssignedAddress?, on network: Model.Network
    ) throws(ExecutorFailure) -> [IPAddress] {
        let addresses = [given?.address ?? "", given?.address6 ?? ""].compactMap { IPAddress($0) }
        guard !addresses.isEmpty else {
            throw ExecutorFailure("the master has given no address on the network \(network.name)")
        }
        return addresses
    }

    /// What a user wants of the plugins of a CNI network.
    private static func asked(
        _ attachment: Model.NetworkAttachment, ports: [CNISpec.PortMapping]
    ) -> CapabilityArguments {
        var asked = CapabilityArguments(portMappings: ports)
        asked.mac = attachment.mac.flatMap { MACAddress($0) }
        if let limits = attachment.bandwidth {
            var bandwidth = CNISpec.Bandwidth()
            bandwidth.ingressRate = UInt64(limits.ingressRate)
            bandwidth.ingressBurst = UInt64(limits.ingressBurst)
            bandwidth.egressRate = UInt64(limits.egressRate)
            bandwidth.egressBurst = UInt64(limits.egressBurst)
            asked.bandwidth = bandwidth
        }
        asked.plainAddresses = [attachment.address, attachment.address6].compactMap { $0.flatMap { IPAddress($0) } }
        return asked
    }

    /// What they are told besides, if they care.
    private static func offered(_ pod: PodSpec, _ attachment: Model.NetworkAttachment) -> CapabilityArguments {
        var offered = CapabilityArguments()
        offered.aliases = attachment.aliases
        if pod.nameService != Model.NameService() {
            var dns = CNISpec.NameService()
            dns.servers = pod.nameService.servers.compactMap { IPAddress($0) }
            dns.searches = pod.nameService.search
            dns.options = pod.nameService.options
            offered.dns = dns
        }
        return offered
    }

    private func detach(_ task: TaskPaths, from place: Place) throws {
        switch place {
        case .node: try network.detach(task.id.text)
        case .user(let network, _, _) where network.isOverlay:
            try overlays.detach(task.id.text, from: network.device)
        case .user(let network, _, _) where network.isCNI: try cniNetworks.detach(task.id.text, from: network.device)
        case .user(let network, _, _): try userNetworks.detach(task.id.text, from: network.device)
        }
    }

    /// Takes a task from all networks; its namespace goes right afterwards. Blocks.
    func detachFromAll(_ task: TaskPaths) throws {
        try cniNetworks.detach(task.id.text)
        try overlays.detach(task.id.text, isEnd: true)
        try userNetworks.detach(task.id.text, isEnd: true)
        try network.detach(task.id.text, isEnd: true)
    }

    /// Disconnects what belongs to no living pod. Blocks.
    ///
    /// - Returns: what could not be cleaned up.
    func collectNetworkGarbage(living: Set<String>) -> [String] {
        // The node's own goes last: it takes the namespaces away, which plugins may need.
        cniNetworks.collectGarbage(living: living) + overlays.collectGarbage(living: living)
            + userNetworks.collectGarbage(living: living) + network.collectGarbage(living: living).problems
    }

    private func addresses(_ task: TaskPaths, on place: Place) throws -> EndpointAddresses? {
        switch place {
        case .node: try network.addresses(of: task.id.text)
        case .user(let network, _, _) where network.isOverlay:
            try overlays.addresses(of: task.id.text, on: network.device)
        case .user(let network, _, _) where network.isCNI:
            try cniNetworks.addresses(of: task.id.text, on: network.device)
        case .user(let network, _, _): try userNetworks.addresses(of: task.id.text, on: network.device)
        }
    }

    // MARK: While it is there

    /// Brings the networks of a pod that is there, whether it runs or not, from what an earlier assignment said to what
    /// this one says. Done again after a crash at any point; harmless when it is so already.
    func updateNetworks(_ assignment: TaskAssignment, _ previous: TaskAssignment) async throws {
        let wanted = try Self.places(of: assignment)
        let had = try Self.places(of: previous)
        guard wanted != had else { return }
        let task = paths.task(assignment.task)
        let pod = try await pool.run { () throws -> PreparedPod? in
            guard var file = try PodFile.read(task), File.exists(task.namespace) else { return nil }
            for place in had where !wanted.contains(where: { $0.isSame(as: place) }) {
                try self.detach(task, from: place)
                failpoint("agent.after_disconnect")
            }
            let endpoints = try self.connect(assignment, task, had: had, wanted: wanted)
            file.endpoints = endpoints
            file.addresses = endpoints.map(\.host)
            try file.write(task)
            try self.writeFiles(assignment, file.hostname, endpoints, task) { try $0.writeHosts(to: task.files) }
            return file.pod
        }
        if let pod { tell(.rewired(task.id, pod)) }
    }

    /// Connects a pod to what it is not on yet, and gives it a way out and its ports anew where they went with a network.
    private func connect(
        _ assignment: TaskAssignment, _ task: TaskPaths, had: [Place], wanted: [Place]
    ) throws -> [NetworkEndpoint] {
        // The way out stays where it is as long as that is there.
        let kept = had.filter { place in wanted.contains { $0.isSame(as: place) } }
        let way = kept.first { !$0.isInternal } ?? wanted.first { !$0.isInternal }
        let before = had.first { !$0.isInternal }
        let hasMoved = way.map { way in before.map { !$0.isSame(as: way) } ?? true } ?? false
        return try wanted.map { place in
            let isWay = way.map { place.isSame(as: $0) } ?? false
            let present = try addresses(task, on: place)
            guard let present else {
                let interface = try UserNetworks.freeInterface(in: task.namespace)
                return try attach(assignment, task, to: place, interface: interface, isWay: isWay)
            }
            let endpoint = NetworkEndpoint(place.network, present)
            guard isWay, hasMoved else { return endpoint }
            if !assignment.ports.isEmpty, present.ports.isEmpty {
                // The plugins publish ports together with an address: it comes again with the same.
                try detach(task, from: place)
                return try attach(
                    assignment, task, to: place, interface: present.interface, isWay: true, keeping: endpoint)
            }
            for gateway in [present.gateway, present.gateway6].compactMap(\.self) {
                try UserNetworks.setDefaultRoute(in: task.namespace, through: gateway, on: present.interface)
            }
            return endpoint
        }
    }

    // MARK: Names

    /// Keeps the hosts files of all pods on networks that users made up to date, until it is cancelled.
    func keepHosts() async {
        for await _ in table.networkChanges {
            let all = table.all
            let members = NetworkMembers(all)
            let records = all.filter { record in
                record.prepared && record.endpoints?.contains { $0.network != Model.Network.nodeNetwork } ?? false
            }
            for record in records {
                let task = record.assignment.task
                do {
                    let files = try files(
                        record.assignment, hostname(record.assignment, record.container.id), record.endpoints ?? [],
                        among: members)
                    if hosts.withLock({ $0[task] }) == files { continue }
                    let directory = paths.task(task).files
                    try await pool.run {
                        try self.hosts.withLock { hosts in
                            try files.writeHosts(to: directory)
                            hosts[task] = files
                        }
                    }
                } catch {
                    if Task.isCancelled { return }
                    logger.warning(
                        "the names of other containers are not up to date",
                        metadata: ["task": "\(task)", "error": "\(error)"])
                }
            }
            let known = Set(records.map(\.assignment.task))
            hosts.withLock { hosts in hosts = hosts.filter { known.contains($0.key) } }
        }
    }
}

/// One of a pod's networks, as its assignment says.
private enum Place: Hashable {
    case node
    /// With what the master gave the task there, if it is an overlay.
    case user(Model.Network, Model.NetworkAttachment, AssignedAddress?)

    var network: String {
        switch self {
        case .node: Model.Network.nodeNetwork
        case .user(let network, _, _): network.id.text
        }
    }

    var isInternal: Bool { if case .user(let network, _, _) = self { network.isInternal } else { false } }

    /// Whether nothing has to be done to come from one to the other: names are no part of it.
    func isSame(as other: Self) -> Bool {
        switch (self, other) {
        case (.node, .node): true
        case (.user(let network, let mine, let given), .user(let theirs, let attachment, let other)):
            network.id == theirs.id && mine.address == attachment.address && mine.address6 == attachment.address6
                && mine.mac == attachment.mac && given?.address == other?.address && given?.address6 == other?.address6
        default: false
        }
    }
}

extension NetworkEndpoint {
    fileprivate init(_ network: String, _ found: EndpointAddresses) {
        self.init(
            network: network, address: "\(found.address)", gateway: found.gateway.map { "\($0)" } ?? "",
            address6: found.address6.map { "\($0)" } ?? "", gateway6: found.gateway6.map { "\($0)" } ?? "",
            mac: found.mac.map { "\($0)" } ?? "")
    }

    /// The address without the prefix's length.
    var host: String { String(address.prefix { $0 != "/" }) }
    /// The same of IPv6; empty: there is none.
    fileprivate var host6: String { String(address6.prefix { $0 != "/" }) }
}

extension UserNetworks {
    /// What a network that users made is on this node.
    fileprivate func configuration(_ network: Model.Network) -> BridgeNetworkConfiguration {
        var configuration = configuration(name: network.device, device: network[.device], subnet: network.subnet)
        configuration.gateway = network.gateway
        configuration.subnet6 = network.hasIPv6 ? network.subnet6 : nil
        configuration.gateway6 = network.gateway6.isEmpty ? nil : network.gateway6
        configuration.range = network.range.isEmpty ? nil : network.range
        configuration.reserved = network.reserved.values.sorted()
        configuration.isInternal = network.isInternal
        configuration.mtu = network[.mtu].flatMap { Int($0) }
        configuration.masquerade = !["false", "0", "f"].contains(network[.masquerade]?.lowercased() ?? "true")
        return configuration
    }
}

extension CNISpec.PortMapping {
    /// On the IPv4 address that the network prefers, unless it names one.
    fileprivate func published(on network: Model.Network) -> [Self] {
        guard hostAddress == nil, let preferred = network[.hostAddress].flatMap({ IPAddress($0) }),
            !preferred.isUnspecified
        else { return [self] }
        return [
            CNISpec.PortMapping(
                hostPort: hostPort, containerPort: containerPort, transport: transport, hostAddress: preferred)
        ]
    }
}
