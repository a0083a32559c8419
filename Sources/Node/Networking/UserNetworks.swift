import CKernel
import CNISpec
import Glibc
import Kernel
import Synchronization

/// The networks that users made, as far as pods of this node are on them: a bridge each, made when the first pod comes
/// and removed when the last has gone.
///
/// All functions block. Calls about one container must not overlap; others may.
package final class UserNetworks: Sendable {
    private let node: BridgeNetworkConfiguration
    private let networks = Mutex<[String: Place]>([:])
    /// What the names of such devices begin with.
    private let prefix: String

    /// One network. Its lock is held while its device is made or removed, so that nobody comes in between.
    private final class Place: Sendable {
        let state = Mutex(State())

        struct State {
            var network: BridgeNetwork?
            /// Who comes or is there; after a restart of the process, the records say who is there.
            var users: Set<String> = []
        }
    }

    /// - Parameters:
    ///   - node: the node's own network, whose directories and plugins these use too.
    ///   - prefix: what the names of all such networks begin with, and no other.
    package init(_ node: BridgeNetworkConfiguration, prefix: String) {
        self.node = node
        self.prefix = prefix
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
        ports: [PortMapping] = [], address: IPAddress? = nil, mac: MACAddress? = nil, isDefaultRoute: Bool
    ) throws(NetworkError) -> EndpointAddresses {
        let place = place(configuration.name)
        let network = try place.state.withLock { state throws(NetworkError) -> BridgeNetwork in
            if let network = state.network, network.configuration == configuration, network.device.exists {
                state.users.insert(id)
                return network
            }
            let network = try BridgeNetwork(configuration)
            do throws(KernelError) {
                // By this directory the network is found after a crash, whatever else there is of it.
                try File.makeDirectories(network.leaseDirectory)
                if configuration.bridge != configuration.name {
                    try File.replace(
                        "\(network.leaseDirectory)/\(Self.deviceFile)", with: Array(configuration.bridge.utf8))
                }
            } catch {
                throw NetworkError(.failed, error.description)
            }
            failpoint("network.before_device")
            try network.prepare()
            failpoint("network.after_rules")
            state.network = network
            state.users.insert(id)
            return network
        }
        do throws(NetworkError) {
            return try network.attach(
                id, namespacePath: namespacePath, interface: interface, ports: ports, address: address, mac: mac,
                isDefaultRoute: isDefaultRoute)
        } catch {
            try? leave(id, network, place)
            throw error
        }
    }

    /// Disconnects a pod from one network; one that is not connected is no error.
    package func detach(_ id: String, from name: String) throws(NetworkError) {
        let place = place(name)
        let network = try network(name, place)
        try network.detach(id)
        failpoint("network.after_detach")
        try leave(id, network, place)
    }

    /// Disconnects a pod from all of them.
    package func detach(_ id: String) throws(NetworkError) {
        for name in try names() where try isKnown(id, on: name) { try detach(id, from: name) }
    }

    /// How a pod can be reached on a network; nil for one that is not connected.
    package func addresses(of id: String, on name: String) throws(NetworkError) -> EndpointAddresses? {
        try network(name, place(name)).addresses(of: id)
    }

    /// Takes the device away with the last.
    private func leave(_ id: String, _ network: BridgeNetwork, _ place: Place) throws(NetworkError) {
        try place.state.withLock { state throws(NetworkError) in
            state.users.remove(id)
            guard state.users.isEmpty else { return }
            do {
                guard try !network.isInUse() else { return }
            } catch {
                throw NetworkError(.failed, "\(error)")
            }
            state.network = nil
            try network.removeDevice()
        }
    }

    private func isKnown(_ id: String, on name: String) throws(NetworkError) -> Bool {
        let place = place(name)
        if place.state.withLock({ $0.users.contains(id) }) { return true }
        do {
            let network = try network(name, place)
            return try !network.host.records(of: id).isEmpty || network.hasLease(id)
        } catch {
            throw NetworkError(.failed, "\(error)")
        }
    }

    private func place(_ name: String) -> Place {
        networks.withLock { networks in
            if let known = networks[name] { return known }
            let new = Place()
            networks[name] = new
            return new
        }
    }

    /// The network as it was made; after a restart of the process one that is enough to take it away.
    private func network(_ name: String, _ place: Place) throws(NetworkError) -> BridgeNetwork {
        if let known = place.state.withLock({ $0.network }) { return known }
        let path = "\(node.runDirectory)/cni/ipam/\(name)/\(Self.deviceFile)"
        let device = File.exists(path) ? try? File.text(path, limit: 64) : nil
        return try BridgeNetwork(configuration(name: name, device: device, subnet: node.subnet))
    }

    /// Beside the leases: the device, where it is not called as the network is.
    private static let deviceFile = "device"

    /// Networks that something on this machine is of.
    private func names() throws(NetworkError) -> [String] {
        do {
            var names = Set(try Self.entries("\(node.runDirectory)/cni/ipam"))
            names.formUnion(networks.withLock { $0.keys })
            return names.filter { $0.hasPrefix(prefix) && CNINames.isInterface($0) && $0 != node.bridge }.sorted()
        } catch {
            throw NetworkError(.failed, "\(error)")
        }
    }

    private static func entries(_ directory: String) throws(KernelError) -> [String] {
        File.exists(directory) ? try File.list(directory) : []
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
            for name in try names() {
                let place = place(name)
                let network = try network(name, place)
                problems += network.collectGarbage(living: living).problems
                do throws(NetworkError) {
                    try leave("", network, place)
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
        networks.withLock { $0 = [:] }
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
        let raw = UInt32(gateway.value).bigEndian
        try NetworkNamespace.run(in: namespacePath) { () throws(KernelError) in
            if try HostNetwork.routes().contains(where: { $0.destination.prefixLength == 0 }) { return }
            try systemCall("ioctl(SIOCADDRT)", interface) { ck_route_add_default(interface, raw) }
        }
    }
}
