import CNISpec
import Glibc
import Kernel
import Netfilter
import Netlink
import Synchronization

/// What the kernel of a node knows of its overlay networks, see docs/networks.md: what it should know is kept here, is
/// brought there change by change, and is compared with what is there (`look`).
///
/// All functions block and take one lock. They belong to the network namespace of the thread that calls.
final class OverlayFabric: Sendable {
    static let table = OverlayNumbers.table

    /// Changed with the lock of the state held, and never the other way round.
    private let address: Mutex<IPAddress>
    /// Says whose devices are, in their alias, with the network's name behind it.
    let mark: String
    private let nodeBridge: String
    let store: OverlayStore
    let tunnels: OverlayTunnels
    /// Of the pods' published ports.
    let keeper = PortKeeper()
    let state = Mutex(State())
    /// The families that iptables has rules of ours for, as far as is known; after a start both may have. Never taken with
    /// the state's lock held.
    let policy = Mutex<Set<Bool>>([false, true])

    struct State: Sendable {
        var networks: [String: Network] = [:]
        /// Also of networks that no pod is on here.
        var peers: [String: OverlayPeers] = [:]
        /// Lines of the files that peers are written down in.
        var lines: [String: Int] = [:]
        /// Networks by their devices' indices and names, and by the names of pods' devices.
        var indices: [Int32: String] = [:]
        var devices: [String: String] = [:]
    }

    struct Network: Sendable {
        var configuration: OverlayNetworkConfiguration
        /// In bytes.
        var mtu: Int
        /// Of the VXLAN device; 0: there is none yet.
        var index: Int32 = 0
        var pods: [String: OverlayPod] = [:]
        /// Who has an address (/32, /128) here, from before it is wired.
        var owners: [CIDR: String] = [:]

        /// Whether a block lies within the network: what does not is nobody's to say here.
        func takes(_ block: CIDR) -> Bool { configuration.subnets.contains { $0.contains(block) } }
    }

    /// - Parameters:
    ///   - nodeBridge: of the node's own pods, which are kept apart.
    ///   - cryptography: nil: there are no encrypted networks here.
    init(
        underlay: IPAddress, mark: String, nodeBridge: String, store: OverlayStore, cryptography: TunnelCryptography?
    ) {
        address = Mutex(underlay)
        self.mark = mark
        self.store = store
        tunnels = OverlayTunnels(cryptography, isV6: underlay.family == .v6, store: store)
        self.nodeBridge = nodeBridge
    }

    var filter: OverlayFilter { OverlayFilter(nodeBridge: nodeBridge, hasIPsec: tunnels.lack == nil) }

    /// The address of this node that packets of others are sent to.
    var underlay: IPAddress { address.withLock { $0 } }
    var isV6: Bool { underlay.family == .v6 }

    /// Takes over another address; devices are not touched. A loopback address takes no other one's place.
    ///
    /// - Returns: whether it is another one.
    func setUnderlay(_ new: IPAddress) -> Bool {
        state.withLock { state in
            if new == underlay || new.isLoopback && !underlay.isLoopback { return false }
            let wasV6 = isV6
            address.withLock { $0 = new }
            if isV6 != wasV6 { tunnels.probe(isV6: isV6) }
            measure(&state)
            return true
        }
    }
}

// MARK: - Networks

extension OverlayFabric {
    /// The MTU of a network that is there as configured; nil: it is not.
    func mtu(of configuration: OverlayNetworkConfiguration) -> Int? {
        state.withLock { state in
            guard let network = state.networks[configuration.name], network.configuration == configuration,
                network.index != 0, if_nametoindex(configuration.device) == UInt32(network.index)
            else { return nil }
            return network.mtu
        }
    }

    /// Takes over what an earlier process knew of a network; the kernel is not asked.
    func adopt(_ configuration: OverlayNetworkConfiguration, pods: [OverlayPod]) {
        // Until somebody says better: what the device that is there was made with.
        if underlay.isLoopback, let found = underlay(ofDeviceOf: configuration) { _ = setUnderlay(found) }
        // Where it cannot be told now it is as before.
        let mtu = (try? mtu(for: configuration)) ?? configuration.mtu ?? 1450
        state.withLock { state in
            var network = Network(configuration: configuration, mtu: mtu)
            network.index = Int32(bitPattern: if_nametoindex(configuration.device))
            state.set(network)
            for pod in pods { state.add(pod, to: configuration.name) }
        }
    }

    private func underlay(ofDeviceOf configuration: OverlayNetworkConfiguration) -> IPAddress? {
        guard var socket = try? NetlinkSocket(),
            let link = try? Link.named(configuration.device, &socket), link.alias == mark(of: configuration)
        else { return nil }
        return VXLANDevice(link).flatMap { IPAddress(bytes: $0.local) }
    }

    /// Makes a network, or makes it whole.
    ///
    /// - Returns: its devices' MTU, in bytes.
    /// - Throws: `NetworkError` of kind bridgeTaken when somebody else has a device of its name or VNI.
    func install(_ configuration: OverlayNetworkConfiguration) throws(NetworkError) -> Int {
        if configuration.isEncrypted, tunnels.lack != nil { tunnels.probe(isV6: isV6) }
        if configuration.isEncrypted, let lack = tunnels.lack {
            throw NetworkError(
                .configuration, "the network \(configuration.name) is encrypted, which this node cannot: \(lack)")
        }
        let mtu = try mtu(for: configuration)
        let isNew = try state.withLock { state throws(NetworkError) in
            let isFirst = state.networks.isEmpty
            let needsV6 = configuration.subnet6 != nil && !state.hasV6
            do throws(KernelError) {
                var writer = try NetlinkWriter()
                try conflict(of: configuration)
                var network = state.networks[configuration.name] ?? Network(configuration: configuration, mtu: mtu)
                let isChanged = network.configuration != configuration
                (network.configuration, network.mtu) = (configuration, mtu)
                state.set(network)
                // The table may have been made while nothing could be encrypted.
                let looks = isFirst || needsV6 || isChanged || configuration.isEncrypted
                if looks { _ = try lookAtHost(state, repairs: true) }
                failpoint("overlay.after_host")
                if !looks { try changeFilter(add: state.elements(of: network), state) }
                failpoint("overlay.after_filter")
                // Before there is a device that could send.
                if configuration.isEncrypted {
                    _ = try tunnels.look(state.tunnelKeys, own: underlay, repairs: true)
                    failpoint("overlay.after_tunnels")
                }
                network.index = try makeDevice(network)
                state.set(network)
                failpoint("overlay.after_device")
                try program(network, state, &writer)
                if let refusal = writer.refusals.first { throw refusal }
                return isFirst || needsV6
            } catch {
                throw Self.error(error)
            }
        }
        do throws(KernelError) {
            if isNew { try settlePolicy(repairs: true) }
        } catch {
            throw NetworkError(.failed, error.description)
        }
        return mtu
    }

    /// EEXIST is about what somebody else has.
    private static func error(_ error: KernelError) -> NetworkError {
        NetworkError(
            error.errno == EEXIST && error.operation == takenOperation ? .bridgeTaken : .failed, error.description)
    }

    /// Gives all networks the MTU that they should have now; where it cannot be told they keep theirs.
    func measure(_ state: inout State) {
        guard let room = try? underlayMTU() else { return }
        for var network in state.networks.values where network.configuration.mtu == nil {
            let mtu = usualMTU(network.configuration, room)
            if network.mtu == mtu { continue }
            network.mtu = mtu
            state.set(network)
        }
    }

    func mtu(for configuration: OverlayNetworkConfiguration) throws(NetworkError) -> Int {
        if let mtu = configuration.mtu { mtu } else { usualMTU(configuration, try underlayMTU()) }
    }

    /// The underlay's less what VXLAN needs, and ESP, which fills up to words of four bytes behind two of its own.
    private func usualMTU(_ configuration: OverlayNetworkConfiguration, _ underlay: Int) -> Int {
        let overhead = Int(VXLANDevice.overhead(isV6: isV6))
        guard configuration.isEncrypted else { return underlay - overhead }
        let header = isV6 ? 40 : 20
        return (underlay - header - SecurityAssociation.overhead) & ~3 - 2 - (overhead - header)
    }

    private func underlayMTU() throws(NetworkError) -> Int {
        do throws(KernelError) {
            guard let device = try HostNetwork.addresses().first(where: { $0.network.address == underlay })?.interface
            else {
                throw KernelError(
                    "find the underlay", "\(underlay)", errno: EADDRNOTAVAIL,
                    hint: "no device of this node has the address that the others reach it by; give the node one that "
                        + "a device has")
            }
            // That of lo is larger than what leaves the node.
            return min(try BridgeDevice.mtu(of: device), try HostNetwork.defaultMTU())
        } catch {
            throw NetworkError(.failed, error.description)
        }
    }

    /// Takes a network away; with the last one all that there is of overlays. One that is not there is no error. One of
    /// which something could not be taken away is still known, so that it can be done again.
    func uninstall(_ name: String) throws(NetworkError) {
        try state.withLock { state throws(NetworkError) in
            guard let network = state.networks[name] else { return }
            do throws(KernelError) {
                try removeDevice(network.configuration)
                failpoint("overlay.after_device_removal")
                var writer = try NetlinkWriter()
                for subnet in network.configuration.subnets {
                    try writer.add(Self.unreachable(subnet).deletion())
                }
                try writer.flush()
                var rest = state
                rest.forget(name)
                if network.configuration.isEncrypted {
                    _ = try tunnels.look(rest.tunnelKeys, own: underlay, repairs: true)
                }
                if rest.networks.isEmpty {
                    try removeHost()
                } else {
                    try changeFilter(remove: state.elements(of: network), rest)
                }
                state = rest
            } catch {
                throw NetworkError(.failed, error.description)
            }
        }
        do throws(KernelError) {
            if state.withLock({ $0.networks.isEmpty }) { try settlePolicy(repairs: true) }
        } catch {
            throw NetworkError(.failed, error.description)
        }
    }

    /// Takes away all networks.
    ///
    /// - Returns: what could not be removed.
    func removeAll() -> [String] {
        do throws(KernelError) {
            try state.withLock { state throws(KernelError) in
                state = State()
                _ = try removeStrayDevices(state)
                try tunnels.removeAll()
                try removeHost()
                try Forwarding(isV6: true, directory: store.parent).restore()
                try Forwarding(isV6: false, directory: store.parent).restore()
            }
            try settlePolicy(repairs: true)
            return []
        } catch {
            return [error.description]
        }
    }

    // MARK: Pods

    /// Says that an address is a pod's, before it is wired: what peers say of it does not count from now on.
    func claim(_ addresses: [IPAddress], for id: String, on name: String) throws(NetworkError) {
        try change(name) { network, peers in
            var change = OverlayPeers.Change()
            for block in addresses.compactMap({ CIDR($0, prefixLength: $0.family.bits) }) {
                if network.owners.updateValue(id, forKey: block) == nil, let way = peers.way(to: block) {
                    change.routes[block] = .init(before: way, after: nil)
                }
            }
            return change
        }
    }

    /// Says how a pod was wired.
    func add(_ pod: OverlayPod, to name: String) { state.withLock { $0.add(pod, to: name) } }

    /// Says that a pod goes; its wiring is the plugin's to take away.
    func remove(pod id: String, from name: String) {
        state.withLock { state in
            if let pod = state.networks[name]?.pods.removeValue(forKey: id) { state.devices[pod.device] = nil }
        }
    }

    /// Says that a pod has gone: what peers say of its addresses counts again.
    func release(_ id: String, on name: String) throws(NetworkError) {
        try change(name) { network, peers in
            var change = OverlayPeers.Change()
            for (block, owner) in network.owners where owner == id {
                network.owners[block] = nil
                if let way = peers.way(to: block) { change.routes[block] = .init(before: nil, after: way) }
            }
            return change
        }
    }

    // MARK: Peers

    /// Takes over the peers that an earlier process has written down.
    func load() throws(KernelError) {
        let all = try store.peers()
        state.withLock { state in
            for (name, list) in all {
                var peers = OverlayPeers()
                for peer in list { _ = peers.update(peer) }
                state.peers[name] = peers
                state.lines[name] = list.count
            }
        }
    }

    var networksWithPeers: Set<String> { state.withLock { Set($0.peers.keys) } }

    func setPeers(_ list: [OverlayPeer], of name: String) throws(NetworkError) {
        for peer in list { try peer.validate() }
        try state.withLock { state throws(NetworkError) in
            let wanted = Set(list.map(\.key))
            let old = state.peers[name] ?? OverlayPeers()
            let gone = old.peers.keys.filter { !wanted.contains($0) }
            // Nothing is written or sent where all is as it was.
            guard !gone.isEmpty || list.contains(where: { old.peers[$0.key] != $0 }) else { return }
            let change = state.changePeers(of: name) { peers in
                var change = OverlayPeers.Change()
                for peer in list { change.merge(peers.update(peer)) }
                for key in gone { change.merge(peers.remove(key)) }
                return change
            }
            try write(&state, name)
            try apply(change, name, state)
        }
    }

    func update(_ peer: OverlayPeer, of name: String) throws(NetworkError) {
        try peer.validate()
        try state.withLock { state throws(NetworkError) in
            if state.peers[name]?.peers[peer.key] == peer { return }
            let change = state.changePeers(of: name) { $0.update(peer) }
            try write(&state, name, .update(peer))
            try apply(change, name, state)
        }
    }

    func remove(peer key: String, of name: String) throws(NetworkError) {
        try state.withLock { state throws(NetworkError) in
            guard state.peers[name]?.peers[key] != nil else { return }
            let change = state.changePeers(of: name) { $0.remove(key) }
            try write(&state, name, .remove(key))
            try apply(change, name, state)
        }
    }

    /// Writes down one change, or all of them anew when that is asked for or the file is mostly of the past.
    private func write(
        _ state: inout State, _ name: String, _ change: OverlayPeerChange? = nil
    ) throws(NetworkError) {
        let peers = state.peers[name]?.peers ?? [:]
        let lines = (state.lines[name] ?? 0) + 1
        do throws(KernelError) {
            if let change, !peers.isEmpty, lines < 2 * peers.count + 100 {
                try store.append(change, of: name)
                state.lines[name] = lines
            } else {
                try store.write(peers.values, of: name)
                state.lines[name] = peers.isEmpty ? nil : peers.count
            }
        } catch {
            // The file may end anywhere: the next change writes all of it anew.
            state.lines[name] = Int.max >> 1
            throw NetworkError(.failed, error.description)
        }
    }

    private func change(
        _ name: String, _ body: (inout Network, OverlayPeers) -> OverlayPeers.Change
    ) throws(NetworkError) {
        try state.withLock { state throws(NetworkError) in
            guard var network = state.networks[name] else { return }
            let change = body(&network, state.peers[name] ?? OverlayPeers())
            state.networks[name] = network
            guard !change.isEmpty, network.index != 0 else { return }
            do throws(KernelError) {
                var writer = try NetlinkWriter()
                try program(change.routes, network, &writer)
                try writer.flush()
                if let refusal = writer.refusals.first { throw refusal }
            } catch {
                throw NetworkError(.failed, error.description)
            }
        }
    }
}

// MARK: - The state

extension OverlayFabric.State {
    var hasV6: Bool { networks.values.contains { $0.configuration.subnet6 != nil } }

    mutating func set(_ network: OverlayFabric.Network) {
        let name = network.configuration.name
        if let old = networks[name], old.index != network.index { indices[old.index] = nil }
        networks[name] = network
        devices[network.configuration.device] = name
        if network.index != 0 { indices[network.index] = name }
    }

    mutating func forget(_ name: String) {
        guard let network = networks.removeValue(forKey: name) else { return }
        indices[network.index] = nil
        devices[network.configuration.device] = nil
        for pod in network.pods.values { devices[pod.device] = nil }
    }

    mutating func add(_ pod: OverlayPod, to name: String) {
        guard networks[name] != nil else { return }
        networks[name]?.pods[pod.id] = pod
        devices[pod.device] = name
        for address in pod.addresses {
            if let block = CIDR(address, prefixLength: address.family.bits) { networks[name]?.owners[block] = pod.id }
        }
    }

    /// The public keys that peers at an address have on encrypted networks of this node. Associations are those of addresses,
    /// whatever the network: where there are two keys somebody is not who he says, or there no more, and none of them counts.
    func tunnelKeys(at address: IPAddress) -> Set<[UInt8]> {
        var keys: Set<[UInt8]> = []
        for network in networks.values where network.configuration.isEncrypted {
            if let peers = peers[network.configuration.name] { keys.formUnion(peers.publicKeys(at: address)) }
        }
        return keys
    }

    /// The same for all who are on encrypted networks of this node; nil: there are no such networks.
    var tunnelKeys: [IPAddress: Set<[UInt8]>]? {
        let encrypted = networks.values.filter(\.configuration.isEncrypted)
        if encrypted.isEmpty { return nil }
        var all: [IPAddress: Set<[UInt8]>] = [:]
        for peers in encrypted.compactMap({ peers[$0.configuration.name] }) {
            for address in peers.underlays { all[address, default: []].formUnion(peers.publicKeys(at: address)) }
        }
        return all
    }

    /// Whether an address is a peer's on an encrypted network.
    func isOnEncrypted(_ address: IPAddress) -> Bool {
        networks.values.contains {
            $0.configuration.isEncrypted && peers[$0.configuration.name]?.underlays.contains(address) == true
        }
    }

    mutating func changePeers(
        of name: String, _ body: (inout OverlayPeers) -> OverlayPeers.Change
    ) -> OverlayPeers.Change {
        var peers = self.peers.removeValue(forKey: name) ?? OverlayPeers()
        let change = body(&peers)
        if !peers.peers.isEmpty { self.peers[name] = peers }
        return change
    }

    /// What is in the sets of the packet filter for a network.
    func elements(of network: OverlayFabric.Network) -> OverlayFilter.Elements {
        var elements = OverlayFilter.elements(of: network.configuration)
        for address in peers[network.configuration.name]?.underlays ?? OverlayPeers().underlays {
            let (part, element) = OverlayFilter.element(of: address, vni: network.configuration.vni)
            elements[part, default: []].insert(element)
        }
        return elements
    }

    /// The same for all.
    var elements: OverlayFilter.Elements {
        var all: OverlayFilter.Elements = [:]
        for network in networks.values { all.merge(elements(of: network)) { $0.union($1) } }
        return all
    }
}
