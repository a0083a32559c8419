import CKernel
import CNISpec
import Glibc
import JSON
import Kernel
import Netlink
import Synchronization

/// The networks that users made, as far as pods of this node are on them: a bridge each, made when the first pod comes
/// and removed when the last has gone.
///
/// All functions block. Calls about one container must not overlap; others may.
package final class UserNetworks: Sendable {
    private let node: BridgeNetworkConfiguration
    private let networks = Mutex(Networks())
    /// What the kernel has of them, and of the node's own.
    private let fabric: BridgeFabric
    private let watch = Mutex<NetworkWatch?>(nil)
    /// What the names of such devices begin with.
    private let prefix: String

    private struct Networks {
        var places: [String: Place] = [:]
        /// What an earlier process has left is among them.
        var isLoaded = false
    }

    /// One network. Its lock is held while its device is made or removed, so that nobody comes in between.
    private final class Place: Sendable {
        let state: Mutex<State>

        init(users: Set<String> = []) { state = Mutex(State(users: users)) }

        struct State {
            /// Made and whole.
            var network: BridgeNetwork?
            /// Who comes, is there, or went while something of the network could not be taken away.
            var users: Set<String>
        }
    }

    /// - Parameters:
    ///   - node: the node's own network, whose directories and plugins these use too.
    ///   - prefix: what the names of all such networks begin with, and no other.
    package convenience init(_ node: BridgeNetworkConfiguration, prefix: String) {
        self.init(node, prefix: prefix, fabric: BridgeFabric())
    }

    /// - Parameter own: the node's own network, which is looked at together with these.
    package convenience init(beside own: BridgeNetwork, prefix: String) {
        self.init(own.configuration, prefix: prefix, fabric: own.fabric)
    }

    private init(_ node: BridgeNetworkConfiguration, prefix: String, fabric: BridgeFabric) {
        self.node = node
        self.prefix = prefix
        self.fabric = fabric
    }

    /// The configuration of a network of this node.
    ///
    /// - Parameter device: its name; nil: the same as the network's.
    package func configuration(name: String, device: String? = nil, subnet: String) -> BridgeNetworkConfiguration {
        var configuration = node
        configuration.name = name
        configuration.bridge = device ?? name
        configuration.subnet = subnet
        configuration.mtu = nil
        configuration.nodeBridge = node.bridge
        return configuration
    }

    /// Connects a pod, see `BridgeNetwork.attach`; the network is made when it is not there.
    package func attach(
        _ id: String, to configuration: BridgeNetworkConfiguration, namespacePath: String, interface: String,
        ports: [PortMapping] = [], address: IPAddress? = nil, address6: IPAddress? = nil, mac: MACAddress? = nil,
        isDefaultRoute: Bool
    ) throws(NetworkError) -> EndpointAddresses {
        let place = try place(configuration.name)
        let network = try place.state.withLock { state throws(NetworkError) -> BridgeNetwork in
            if let network = state.network, network.configuration == configuration, network.device.exists {
                state.users.insert(id)
                return network
            }
            let network = try BridgeNetwork(configuration, fabric: fabric)
            state.users.insert(id)
            do throws(NetworkError) {
                try Self.make(network)
            } catch {
                // A part of it may be there.
                try? Self.leave(id, network, &state)
                throw error
            }
            state.network = network
            return network
        }
        do throws(NetworkError) {
            return try network.attach(
                id, namespacePath: namespacePath, interface: interface, ports: ports, address: address,
                address6: address6, mac: mac, isDefaultRoute: isDefaultRoute)
        } catch {
            try? place.state.withLock { state throws(NetworkError) in try Self.leave(id, network, &state) }
            throw error
        }
    }

    /// Makes what belongs to a network as a whole.
    private static func make(_ network: BridgeNetwork) throws(NetworkError) {
        let configuration = network.configuration
        do throws(KernelError) {
            // By this directory the network is found after a crash, whatever else there is of it.
            try File.makeDirectories(network.leaseDirectory)
            if configuration.bridge != configuration.name {
                try File.replace("\(network.leaseDirectory)/\(deviceFile)", with: Array(configuration.bridge.utf8))
            }
            try File.replace(
                "\(network.leaseDirectory)/\(configurationFile)", with: configuration.json.serialized())
        } catch {
            throw NetworkError(.failed, error.description)
        }
        failpoint("network.before_device")
        try network.prepare()
        failpoint("network.after_rules")
    }

    /// Disconnects a pod from one network; one that is not connected is no error.
    ///
    /// - Parameter isEnd: see `BridgeNetwork.detach`.
    package func detach(_ id: String, from name: String, isEnd: Bool = false) throws(NetworkError) {
        let place = try place(name)
        let network = try network(name, place)
        try network.detach(id, isEnd: isEnd)
        failpoint("network.after_detach")
        try place.state.withLock { state throws(NetworkError) in try Self.leave(id, network, &state) }
    }

    /// Disconnects a pod from all of them; costs nothing for one that is on none.
    package func detach(_ id: String, isEnd: Bool = false) throws(NetworkError) {
        for (name, place) in try places().sorted(by: { $0.key < $1.key }) {
            guard place.state.withLock({ $0.users.contains(id) }) else { continue }
            try detach(id, from: name, isEnd: isEnd)
        }
    }

    /// How a pod can be reached on a network; nil for one that is not connected.
    package func addresses(of id: String, on name: String) throws(NetworkError) -> EndpointAddresses? {
        try network(name, place(name)).addresses(of: id)
    }

    /// Takes the network away with the last. Where that fails the last one stays known, so that it is done again with its
    /// next `detach`; who comes meanwhile has the network made whole. Who is on record still stays known too: something of
    /// it could not be undone.
    private static func leave(
        _ id: String, _ network: BridgeNetwork, _ state: inout Place.State
    ) throws(NetworkError) {
        do throws(KernelError) {
            if !id.isEmpty, try network.isOnRecord(id) { return }
        } catch {
            throw NetworkError(.failed, error.description)
        }
        if state.users.subtracting([id]).isEmpty {
            let isInUse: Bool
            do {
                isInUse = try network.isInUse()
            } catch {
                throw NetworkError(.failed, "\(error)")
            }
            if !isInUse {
                state.network = nil
                try network.removeDevice()
            }
        }
        state.users.remove(id)
    }

    private func place(_ name: String) throws(NetworkError) -> Place {
        _ = try places()
        return networks.withLock { networks in
            if let known = networks.places[name] { return known }
            let new = Place()
            networks.places[name] = new
            return new
        }
    }

    /// Takes over what an earlier process has left, before anybody asks for it: pods of it that run have to be in the tables
    /// as soon as these are there.
    package func adopt() throws(NetworkError) {
        if try !places().isEmpty { _ = fabric.look(repairs: true, .filter) }
    }

    /// Networks that something on this machine is of, by name. What there is of earlier processes is looked for once: only
    /// this one connects pods.
    private func places() throws(NetworkError) -> [String: Place] {
        do {
            return try networks.withLock { networks in
                if networks.isLoaded { return networks.places }
                for name in try Self.entries("\(node.runDirectory)/cni/ipam")
                where name.hasPrefix(prefix) && CNINames.isInterface(name) && name != node.bridge {
                    guard networks.places[name] == nil else { continue }
                    let found = try leftover(name)
                    let place = Place(users: try found.network.containers())
                    if found.isWhole {
                        try found.network.adopt()
                        place.state.withLock { $0.network = found.network }
                    }
                    networks.places[name] = place
                }
                networks.isLoaded = true
                return networks.places
            }
        } catch {
            throw NetworkError(.failed, "\(error)")
        }
    }

    /// The network as it was made; after a restart of the process one that is enough to take it away.
    private func network(_ name: String, _ place: Place) throws(NetworkError) -> BridgeNetwork {
        if let known = place.state.withLock({ $0.network }) { return known }
        return try leftover(name).network
    }

    /// - Returns: the network, and whether it is known as it was made; before this was written down it is not.
    private func leftover(_ name: String) throws(NetworkError) -> (network: BridgeNetwork, isWhole: Bool) {
        let directory = "\(node.runDirectory)/cni/ipam/\(name)"
        let path = "\(directory)/\(Self.deviceFile)"
        let device = File.exists(path) ? try? File.text(path, limit: 64) : nil
        let plain = configuration(name: name, device: device, subnet: node.subnet)
        if let bytes = try? File.read("\(directory)/\(Self.configurationFile)", limit: Self.limits.bytes),
            let value = try? JSONValue.parse(bytes, limits: Self.limits),
            let known = try? plain.filled(JSONReader(value)), let network = try? BridgeNetwork(known, fabric: fabric)
        {
            return (network, true)
        }
        return (try BridgeNetwork(plain, fabric: fabric), false)
    }

    /// Beside the leases: the device, where it is not called as the network is, and all that was asked for.
    private static let deviceFile = "device"
    private static let configurationFile = "configuration"
    private static let limits = JSONLimits(bytes: 1 << 20, depth: 4, stringBytes: 4096)

    private static func entries(_ directory: String) throws(KernelError) -> [String] {
        File.exists(directory) ? try File.list(directory) : []
    }
}

// MARK: - What should be and what is

extension UserNetworks {
    /// Whether networks may have IPv6 here: the kernel and ip6tables are there, and pods can be kept from passing for each
    /// other, which nothing else sees to in IPv6.
    package var hasV6: Bool { Forwarding.hasV6 && lack == nil && (try? PacketFilter(isV6: true)) != nil }

    /// Why this kernel cannot keep pods on a bridge from passing for each other; nil: it can.
    package var lack: String? { fabric.lack }

    /// How the kernel's state differs from what should be, in words; changes nothing.
    package func check() -> [String] { look(repairs: false) }

    /// Brings the kernel's state to what should be.
    ///
    /// - Returns: what it was that differed, and what could not be mended.
    package func repair() -> [String] { look(repairs: true) }

    private func look(repairs: Bool) -> [String] {
        do throws(NetworkError) {
            _ = try places()
        } catch {
            return [error.description]
        }
        return fabric.look(repairs: repairs, .all) + (fabric.lack.map { [$0] } ?? [])
    }

    /// Keeps it so: looks at once, then whenever the kernel tells of a change that is not ours, and every 30 seconds. In the
    /// network namespace of the calling thread.
    ///
    /// - Parameter report: is told of what differed and was mended; not of nothing. On a thread of its own.
    package func start(report: @escaping @Sendable ([String]) -> Void = { _ in }) throws(NetworkError) {
        _ = try places()
        do throws(KernelError) {
            let new = try NetworkWatch(fabric, report: report)
            watch.withLock { $0 = new }
        } catch {
            throw NetworkError(.failed, error.description)
        }
    }

    /// Ends what `start` began, and waits for it.
    package func stop() {
        let running = watch.withLock { watch in
            defer { watch = nil }
            return watch
        }
        running?.stop()
    }
}

// MARK: - What crashes leave

extension UserNetworks {
    /// Disconnects what belongs to no living pod, and removes the networks that nobody is on.
    ///
    /// - Returns: what could not be cleaned up.
    package func collectGarbage(living: Set<String>) -> [String] {
        var problems: [String] = []
        do {
            for (name, place) in try places().sorted(by: { $0.key < $1.key }) {
                let network = try network(name, place)
                let done = network.collectGarbage(living: living)
                problems += done.problems
                do throws(NetworkError) {
                    try place.state.withLock { state throws(NetworkError) in
                        state.users.subtract(done.removed)
                        try Self.leave("", network, &state)
                    }
                } catch {
                    problems.append(error.description)
                }
            }
        } catch {
            problems.append("\(error)")
        }
        return problems
    }

    /// Takes away all of them with all that is attached.
    ///
    /// - Returns: what could not be removed.
    package func removeLeftovers() -> [String] {
        stop()
        networks.withLock { $0 = Networks() }
        return collectGarbage(living: [])
    }

    /// The first name of a device, `eth0`, `eth1` …, that is free in a namespace.
    package static func freeInterface(in namespacePath: String) throws(KernelError) -> String {
        try NetworkNamespace.run(in: namespacePath) { () throws(KernelError) in
            for number in 0..<256 where if_nametoindex("eth\(number)") == 0 { return "eth\(number)" }
            throw KernelError("name a device", namespacePath, errno: ENOSPC)
        }
    }

    /// Makes a gateway the way out of a namespace that has none; where there is one, nothing happens.
    package static func setDefaultRoute(
        in namespacePath: String, through gateway: IPAddress, on interface: String
    ) throws(KernelError) {
        try NetworkNamespace.run(in: namespacePath) { () throws(KernelError) in
            var socket = try NetlinkSocket()
            let family = gateway.family == .v4 ? AF_INET : AF_INET6
            if try Route.all(family: family, &socket).contains(where: { $0.prefixLength == 0 }) { return }
            let everywhere = [UInt8](repeating: 0, count: gateway.bytes.count)
            var route = Route(
                to: everywhere, prefixLength: 0, gateway: gateway.bytes,
                interface: Int32(bitPattern: if_nametoindex(interface)))
            route.isOnLink = true
            try socket.send(route.request())
        }
    }
}
