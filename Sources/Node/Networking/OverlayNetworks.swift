import CNIPlugin
import CNISpec
import Glibc
import JSON
import Kernel
import Synchronization

/// The overlay networks that pods of this node are on: what the kernel has to know of each is made when the first pod
/// comes and removed when the last has gone (`OverlayFabric`); pods are wired by our CNI plugin martlet-overlay in its
/// mode `routed`.
///
/// Peers are known beside the networks, in memory and in the run directory: a network that comes again has them at once, and
/// after a restart of the process nothing changes until somebody says which peers there are now.
///
/// All functions block. Calls about one container must not overlap; others may. They belong to the network namespace of the
/// thread that calls, which must be the same for all.
package final class OverlayNetworks: Sendable {
    private let node: BridgeNetworkConfiguration
    private let store: OverlayStore
    private let fabric: OverlayFabric
    private let networks = Mutex(Networks())
    private let ports = PublishedPorts()
    private let watch = Mutex<NetworkWatch?>(nil)

    private struct Networks {
        var places: [String: Place] = [:]
        /// What an earlier process has left is among them.
        var isLoaded = false
    }

    /// One network. Its lock is held while it is made or removed, so that nobody comes in between.
    private final class Place: Sendable {
        let state: Mutex<State>

        init(_ configuration: OverlayNetworkConfiguration? = nil, users: Set<String> = []) {
            state = Mutex(State(configuration: configuration, users: users))
        }

        struct State {
            /// As it was made.
            var configuration: OverlayNetworkConfiguration?
            /// Who comes, is there, or went while something of the network could not be taken away.
            var users: Set<String>
            /// What this process attached: never garbage, however old the list of the living is that we are given.
            var attached: Set<String> = []
        }
    }

    /// Touches nothing, but asks the kernel whether it can encrypt.
    ///
    /// - Parameters:
    ///   - node: the node's own network, whose directories and plugins these use too.
    ///   - underlay: the address of this node that packets of others are sent to; on one of its devices.
    ///   - cryptography: by which encrypted networks' keys are made; nil: there are none of them here.
    package init(
        _ node: BridgeNetworkConfiguration, underlay: IPAddress, cryptography: TunnelCryptography? = nil
    ) {
        self.node = node
        store = OverlayStore(parent: "\(node.runDirectory)/cni")
        fabric = OverlayFabric(
            underlay: underlay, mark: "martlet \(node.dataDirectory)", nodeBridge: node.bridge, store: store,
            cryptography: cryptography)
    }
}

// MARK: - One pod

extension OverlayNetworks {
    /// Connects a pod; the network is made when it is not there.
    ///
    /// - Parameters:
    ///   - id: the task's.
    ///   - namespacePath: its pinned network namespace.
    ///   - interface: the device's name inside.
    ///   - ports: to publish; IPv4 only. An internal network has none.
    ///   - addresses: one of each of the network's families; all others are refused.
    ///   - mac: the device's hardware address; nil: one that follows from the address.
    ///   - isDefaultRoute: the pod's way out leads through this network.
    /// - Throws: `NetworkError` of kind portTaken when a port is in use, of kind bridgeTaken when somebody else has a device
    ///   of the name or the VNI; otherwise what plugins or kernel say. Nothing is left behind then, or it is on record for the
    ///   garbage collection.
    package func attach(
        _ id: String, to configuration: OverlayNetworkConfiguration, namespacePath: String, interface: String,
        ports: [PortMapping] = [], addresses: [IPAddress], mac: MACAddress? = nil, isDefaultRoute: Bool
    ) throws(NetworkError) -> EndpointAddresses {
        try configuration.validate()
        let wanted = try Self.wanted(addresses, configuration)
        let place = try place(configuration.name)
        let mtu = try place.state.withLock { state throws(NetworkError) -> Int in
            state.users.insert(id)
            do throws(NetworkError) {
                let mtu = try make(configuration)
                state.configuration = configuration
                state.attached.insert(id)
                return mtu
            } catch {
                // A part of it may be there.
                try? leave(id, configuration, &state, named: configuration.name)
                throw error
            }
        }
        do throws(NetworkError) {
            return try wire(
                id, configuration, namespacePath: namespacePath, interface: interface, ports: ports, wanted: wanted,
                mac: mac, mtu: mtu, isDefaultRoute: isDefaultRoute)
        } catch {
            self.ports.release(id)
            try? place.state.withLock { state throws(NetworkError) in
                try leave(id, configuration, &state, named: configuration.name)
            }
            throw error
        }
    }

    /// The addresses with their subnets' prefixes.
    private static func wanted(
        _ addresses: [IPAddress], _ configuration: OverlayNetworkConfiguration
    ) throws(NetworkError) -> [CIDR] {
        var wanted: [CIDR] = []
        for subnet in configuration.subnets {
            let own = addresses.filter { subnet.contains($0) }
            guard own.count == 1, let address = CIDR(own[0], prefixLength: subnet.prefixLength) else {
                throw NetworkError(
                    .configuration,
                    "the network \(configuration.name): a pod needs one address of \(subnet), not \(own.count)")
            }
            guard !configuration.gateways.contains(own[0]) else {
                throw NetworkError(
                    .addressTaken, "the address \(own[0]) of the network \(configuration.name) is its gateway's")
            }
            wanted.append(address)
        }
        guard wanted.count == addresses.count else {
            throw NetworkError(
                .configuration,
                "the network \(configuration.name): one of \(addresses.map(\.description)) is not of its subnets")
        }
        return wanted
    }

    /// Makes what belongs to a network as a whole.
    ///
    /// - Returns: its devices' MTU.
    private func make(_ configuration: OverlayNetworkConfiguration) throws(NetworkError) -> Int {
        if let mtu = fabric.mtu(of: configuration) { return mtu }
        do throws(KernelError) {
            // By this record the network is found after a crash, whatever else there is of it.
            try store.write(configuration)
        } catch {
            throw NetworkError(.failed, error.description)
        }
        failpoint("overlay.after_record")
        let mtu = try fabric.install(configuration)
        failpoint("overlay.after_fabric")
        return mtu
    }

    private func wire(
        _ id: String, _ configuration: OverlayNetworkConfiguration, namespacePath: String, interface: String,
        ports: [PortMapping], wanted: [CIDR], mac: MACAddress?, mtu: Int, isDefaultRoute: Bool
    ) throws(NetworkError) -> EndpointAddresses {
        let ports = configuration.isInternal ? [] : ports
        let host = try host(configuration.name)
        let list: NetworkConfigurationList
        do throws(JSONError) {
            list = try Self.list(
                configuration, leases: store.leaseDirectory, mtu: mtu, hasPorts: !ports.isEmpty,
                isDefaultRoute: isDefaultRoute && !configuration.isInternal)
        } catch {
            throw NetworkError(.failed, error.description)
        }
        do {
            // Of a try that was cut off.
            for record in try host.records(of: id) where record.attachment.interface != interface {
                fabric.keeper.begin(record.attachment, on: configuration.name)
                try host.delete(record)
                fabric.keeper.settle(record.attachment, on: configuration.name, nil)
            }
        } catch {
            throw NetworkError(.failed, "\(error)")
        }
        try self.ports.reserve(ports, for: id, hasV6: configuration.subnet6 != nil) { () throws(KernelError) in
            try self.records()
        }
        var capabilities = CapabilityArguments(portMappings: ports)
        capabilities.mac = mac
        capabilities.addresses = wanted
        let attachment = NetworkAttachment(
            containerID: id, namespacePath: namespacePath, interface: interface, capabilities: capabilities)
        do throws(NetworkError) {
            try fabric.claim(wanted.map(\.address), for: id, on: configuration.name)
            fabric.keeper.begin(attachment, on: configuration.name)
            do throws(CNIHostError) {
                let result = try host.add(attachment, list: list)
                fabric.keeper.settle(attachment, on: configuration.name, result)
                if let pod = OverlayPod(id, result) { fabric.add(pod, to: configuration.name) }
                return try Self.addresses(in: result, configuration, ports, interface: interface)
            } catch {
                throw NetworkError(.failed, error.description)
            }
        } catch {
            fabric.remove(pod: id, from: configuration.name)
            if (try? host.records(of: id).isEmpty) == true {
                fabric.keeper.settle(attachment, on: configuration.name, nil)
            }
            // What went wrong first is what has to be told; the routes are mended by `repair`.
            try? fabric.release(id, on: configuration.name)
            throw error
        }
    }

    /// What the plugins get.
    static func list(
        _ configuration: OverlayNetworkConfiguration, leases: String, mtu: Int, hasPorts: Bool, isDefaultRoute: Bool
    ) throws(JSONError) -> NetworkConfigurationList {
        let pools: [JSONValue] = zip(configuration.subnets, configuration.gateways).map { subnet, gateway in
            ["subnet": .string(subnet.description), "gateway": .string(gateway.description)]
        }
        var overlay: JSONObject = [
            "type": .string(plugin), "mode": "routed", "group": .integer(Int64(configuration.group)),
            "table": .integer(Int64(OverlayFabric.table)), "mtu": .integer(Int64(mtu)), "addresses": .array(pools),
            "defaultRoute": .bool(isDefaultRoute), "dataDir": .string(leases),
            "capabilities": ["ips": true, "mac": true],
        ]
        if hasPorts { OwnPlugin.addPorts(to: &overlay) }
        return NetworkConfigurationList(
            name: configuration.name, plugins: [try PluginConfiguration(JSONReader(.object(overlay)))])
    }

    /// Our plugin.
    private static let plugin = "martlet-overlay"

    private var cacheDirectory: String { "\(node.dataDirectory)/cni/cache" }

    /// Runs the plugins for a network, and knows what is on record of it.
    private func host(_ name: String) throws(NetworkError) -> CNIHost {
        guard CNINames.isInterface(name), CNINames.isName(name) else {
            throw NetworkError(.configuration, "'\(name)' is no name for a network")
        }
        return CNIHost(
            list: NetworkConfigurationList(name: name, plugins: []), pluginDirectories: node.pluginDirectories,
            own: node.ownPlugins,
            cacheDirectory: cacheDirectory, timeoutMilliseconds: node.timeoutMilliseconds)
    }

    private static func addresses(
        in result: CNIResult, _ configuration: OverlayNetworkConfiguration?, _ ports: [PortMapping], interface: String
    ) throws(CNIHostError) -> EndpointAddresses {
        func own(_ family: IPAddress.Family) -> CNIResult.Address? {
            result.inside.first { $0.address.address.family == family }
        }
        /// With the subnet's prefix, whatever the device has.
        func whole(_ address: CIDR, _ subnet: CIDR?) -> CIDR {
            subnet.flatMap { CIDR(address.address, prefixLength: $0.prefixLength) } ?? address
        }
        guard let address = own(.v4) else {
            throw CNIHostError(
                verb: .add, plugin: plugin, network: configuration?.name ?? "", container: "",
                reason: "the result has no IPv4 address")
        }
        let device = address.interface.map { result.interfaces[$0] }
        let address6 = own(.v6)
        return EndpointAddresses(
            interface: device?.name ?? interface, address: whole(address.address, configuration?.subnet),
            gateway: configuration?.gateway ?? address.gateway,
            address6: address6.map { whole($0.address, configuration?.subnet6) },
            gateway6: address6.flatMap { configuration?.gateway6 ?? $0.gateway }, mac: device?.mac, ports: ports)
    }

    /// Disconnects a pod from one network; one that is not connected is no error. May be repeated until it succeeds.
    ///
    /// - Parameter isEnd: see `BridgeNetwork.detach`.
    package func detach(_ id: String, from name: String, isEnd: Bool = false) throws(NetworkError) {
        let place = try place(name)
        fabric.remove(pod: id, from: name)
        let host = try host(name)
        do {
            for record in try host.records(of: id) {
                fabric.keeper.begin(record.attachment, on: name)
                try host.delete(record, arguments: isEnd ? BridgeNetwork.endArguments : [:])
                fabric.keeper.settle(record.attachment, on: name, nil)
            }
        } catch {
            throw NetworkError(.failed, "\(error)")
        }
        ports.release(id)
        try fabric.release(id, on: name)
        failpoint("overlay.after_detach")
        try place.state.withLock { state throws(NetworkError) in
            try leave(id, state.configuration, &state, named: name)
        }
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
        let configuration = try place(name).state.withLock { $0.configuration }
        do {
            guard let record = try host(name).records(of: id).first(where: \.isComplete), let result = record.result
            else { return nil }
            return try Self.addresses(
                in: result, configuration, record.attachment.capabilities.portMappings,
                interface: record.attachment.interface)
        } catch {
            throw NetworkError(.failed, "\(error)")
        }
    }

    // MARK: Places

    /// Takes the network away with the last. Where that fails the last one stays known, so that it is done again with its
    /// next `detach` or the next garbage collection; who comes meanwhile has the network made whole. Who is on record still
    /// stays known too: something of it could not be undone.
    private func leave(
        _ id: String, _ configuration: OverlayNetworkConfiguration?, _ state: inout Place.State, named name: String
    ) throws(NetworkError) {
        state.attached.remove(id)
        let host = try host(name)
        do throws(KernelError) {
            if !id.isEmpty, try !host.records(of: id).isEmpty { return }
        } catch {
            throw NetworkError(.failed, error.description)
        }
        if state.users.subtracting([id]).isEmpty {
            let isInUse: Bool
            do throws(KernelError) {
                isInUse = try !host.records().isEmpty
            } catch {
                throw NetworkError(.failed, error.description)
            }
            if !isInUse {
                state.configuration = nil
                try fabric.uninstall(name)
                do throws(KernelError) {
                    try Tree.remove("\(store.leaseDirectory)/\(name)")
                    try store.remove(network: name)
                } catch {
                    throw NetworkError(.failed, error.description)
                }
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

    /// Networks that something on this machine is of, by name. What there is of earlier processes is looked for once: only
    /// this one connects pods.
    private func places() throws(NetworkError) -> [String: Place] {
        do {
            return try networks.withLock { networks in
                if networks.isLoaded { return networks.places }
                try fabric.load()
                for configuration in try store.networks() where networks.places[configuration.name] == nil {
                    let records = try host(configuration.name).records()
                    let users = Set(records.map(\.attachment.containerID))
                    networks.places[configuration.name] = Place(configuration, users: users)
                    let pods = records.filter(\.isComplete).compactMap { record in
                        record.result.flatMap { OverlayPod(record.attachment.containerID, $0) }
                    }
                    fabric.adopt(configuration, pods: pods)
                    for record in records where record.isComplete {
                        fabric.keeper.settle(record.attachment, on: configuration.name, record.result)
                    }
                }
                networks.isLoaded = true
                return networks.places
            }
        } catch {
            throw NetworkError(.failed, "\(error)")
        }
    }

    /// What is on record of all networks.
    private func records() throws(KernelError) -> [CNIRecord] {
        var records: [CNIRecord] = []
        let cache = CNICache(directory: cacheDirectory)
        for name in networks.withLock({ Array($0.places.keys) }) { records += try cache.all(network: name) }
        return records
    }
}

// MARK: - Peers

extension OverlayNetworks {
    /// Says which other nodes are on a network and what is behind them; those that were and are not named any more go. A
    /// network that no pod is on here has them when one comes.
    ///
    /// - Throws: the first that cannot be, or that the kernel refused; the others are in force, and what is missing is tried
    ///   again by `repair`.
    package func setPeers(_ peers: [OverlayPeer], of name: String) throws(NetworkError) {
        _ = try places()
        try fabric.setPeers(peers, of: name)
    }

    /// The same for all networks at once: one that is not named has no peers.
    package func setPeers(_ peers: [String: [OverlayPeer]]) throws(NetworkError) {
        _ = try places()
        var failure: NetworkError?
        for name in Set(peers.keys).union(fabric.networksWithPeers).sorted() {
            do throws(NetworkError) {
                try fabric.setPeers(peers[name] ?? [], of: name)
            } catch {
                failure = failure ?? error
            }
        }
        if let failure { throw failure }
    }

    /// Adds a peer or takes over what has changed of it; costs what the change costs.
    package func update(_ peer: OverlayPeer, of name: String) throws(NetworkError) {
        _ = try places()
        try fabric.update(peer, of: name)
    }

    /// Forgets a peer; one that is not known is no error.
    package func remove(peer key: String, of name: String) throws(NetworkError) {
        _ = try places()
        try fabric.remove(peer: key, of: name)
    }
}

// MARK: - Encryption

extension OverlayNetworks {
    /// Why there can be no encrypted networks on this node, in words; nil: there can.
    package var encryptionLack: String? { fabric.tunnels.lack }

    /// This node's public key, by which others encrypt for it; nil: there can be no encrypted networks, which is tried again
    /// then.
    package func publicKey() throws(NetworkError) -> [UInt8]? {
        if fabric.tunnels.lack != nil { fabric.tunnels.probe(isV6: fabric.isV6) }
        do throws(KernelError) {
            return try fabric.tunnels.publicKey()
        } catch {
            throw NetworkError(.failed, error.description)
        }
    }

    /// Has `body` called when this node has another public key: others have to hear of it. It is called with locks held, and
    /// must not call back.
    package func onKeyChange(_ body: @escaping @Sendable () -> Void) { fabric.tunnels.onKeyChange(body) }
}

// MARK: - What should be and what is

extension OverlayNetworks {
    /// Says by which address the others reach this node now; the networks' devices are made anew where it is another one. A
    /// loopback address, which is said while nothing better is known, never takes another one's place, nor that of devices
    /// that an earlier process has made.
    ///
    /// - Returns: what differed from what should be then and was mended, and what could not be.
    @discardableResult
    package func setUnderlay(_ address: IPAddress) -> [String] {
        do throws(NetworkError) {
            _ = try places()
        } catch {
            return [error.description]
        }
        return fabric.setUnderlay(address) ? fabric.look(repairs: true, .all) : []
    }

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
        return fabric.look(repairs: repairs, .all)
    }

    /// Keeps it so: looks at once, then whenever the kernel tells of a change that is not ours, and every 30 seconds. In the
    /// network namespace of the calling thread.
    ///
    /// - Parameter report: is told of what differed and was mended; not of nothing. On a thread of its own.
    package func start(report: @escaping @Sendable ([String]) -> Void = { _ in }) throws(NetworkError) {
        _ = try places()
        let fabric = fabric
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

extension OverlayNetworks {
    /// Disconnects what belongs to no living pod, and removes the networks that nobody is on.
    ///
    /// - Returns: what could not be cleaned up.
    package func collectGarbage(living: Set<String>) -> [String] {
        var problems: [String] = []
        let places: [String: Place]
        do throws(NetworkError) {
            places = try self.places()
        } catch {
            return [error.description]
        }
        for (name, place) in places.sorted(by: { $0.key < $1.key }) {
            do {
                try collectGarbage(living: living, name, place, &problems)
            } catch {
                // The others are not to wait for this one.
                problems.append("the network \(name): \(error)")
            }
        }
        return problems
    }

    private func collectGarbage(
        living: Set<String>, _ name: String, _ place: Place, _ problems: inout [String]
    ) throws {
        let kept = place.state.withLock { living.union($0.attached) }
        let host = try host(name)
        for record in try host.records() where !kept.contains(record.attachment.containerID) {
            let id = record.attachment.containerID
            fabric.remove(pod: id, from: name)
            fabric.keeper.begin(record.attachment, on: name)
            do throws(CNIHostError) {
                try host.delete(record)
                fabric.keeper.settle(record.attachment, on: name, nil)
                ports.release(id)
            } catch {
                problems.append(error.description)
            }
            try fabric.release(id, on: name)
        }
        try place.state.withLock { state in
            let known = try Set(host.records().map(\.attachment.containerID))
            let attached = state.attached
            state.users = state.users.filter { known.contains($0) || attached.contains($0) || living.contains($0) }
            try leave("", state.configuration, &state, named: name)
        }
    }

    /// Takes away all of them with all that is attached, and what is known of peers.
    ///
    /// - Returns: what could not be removed.
    package func removeLeftovers() -> [String] {
        stop()
        networks.withLock { $0 = Networks() }
        var problems = collectGarbage(living: [])
        ports.clear()
        problems += fabric.removeAll()
        do throws(KernelError) {
            try Tree.remove(store.directory)
        } catch {
            problems.append(error.description)
        }
        return problems
    }
}
