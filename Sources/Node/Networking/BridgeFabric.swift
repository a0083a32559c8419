import CNISpec
import Glibc
import Kernel
import Netfilter
import Netlink
import Synchronization

/// What the kernel of a node has of its bridge networks, the node's own among them: bridges, pods' ports of them, rules,
/// published ports. What should be is kept here, and compared with what is there (`look`).
///
/// All functions block and take one lock. They belong to the network namespace of the thread that calls.
final class BridgeFabric: Sendable {
    let state = Mutex(State())
    /// Of the pods' published ports.
    let keeper = PortKeeper()

    struct State: Sendable {
        var networks: [String: Network] = [:]
        /// By the names of their devices on the host.
        var pods: [String: BridgedPod] = [:]
        /// All bridges that there ever were: what is in the kernel of others is not looked at.
        var known: Set<String> = []
        /// Why pods on a bridge can pass for each other; nil: they cannot.
        var lack: String?
        /// ip6tables may have rules of ours, of networks that an earlier process had.
        var mayHaveRules6 = true

        var hasV6: Bool { networks.values.contains { $0.device.address6 != nil } }
    }

    struct Network: Sendable {
        let name: String
        let device: BridgeDevice
        /// In bytes.
        let mtu: Int
        /// Of iptables and ip6tables; those of a family that it has not are missing.
        let rules: [IPAddress.Family: [PacketFilter.Rule]]
        let forwarding: [Forwarding]
    }

    /// Why this kernel cannot keep pods on a bridge from passing for each other; nil: it can, or nobody has tried.
    var lack: String? { state.withLock { $0.lack } }

    /// Takes a network over that was just made, with the pods that are on it.
    func install(_ network: Network, _ records: [CNIRecord]) throws(NetworkError) {
        do throws(KernelError) {
            try state.withLock { state throws(KernelError) in
                state.networks[network.name] = network
                state.known.insert(network.device.name)
                take(records, of: network, &state)
                try makeFilter(&state)
            }
        } catch {
            throw NetworkError(.failed, error.description)
        }
    }

    /// Takes over what an earlier process knew of a network; the kernel is not asked.
    func adopt(_ network: Network, _ records: [CNIRecord]) {
        state.withLock { state in
            state.networks[network.name] = network
            state.known.insert(network.device.name)
            take(records, of: network, &state)
        }
    }

    private func take(_ records: [CNIRecord], of network: Network, _ state: inout State) {
        // A record may outlive its namespace, by a reboot: its address is somebody else's then.
        for record in records where record.isComplete && CNIHost.isNamespace(record.attachment.namespacePath) {
            guard let result = record.result else { continue }
            let pod = BridgedPod(record.attachment, on: network.name, bridge: network.device.name, result)
            if let pod { state.pods[pod.device] = pod }
            if !OwnPlugin.publishedByOther(record) { keeper.settle(record.attachment, on: network.name, result) }
        }
    }

    /// - Throws: what the kernel refuses, but that it has no such means at all, which is said by `lack`.
    func makeFilter(_ state: inout State) throws(KernelError) {
        // ENOENT is also what is told when somebody takes the table away between two questions: a firewall that starts anew.
        for attempt in 1...3 {
            do throws(KernelError) {
                var socket = try NetfilterSocket()
                _ = try lookAtFilter(state, repairs: true, &socket)
                state.lack = nil
                return
            } catch {
                guard [ENOENT, EOPNOTSUPP, EAFNOSUPPORT, EPROTONOSUPPORT].contains(error.errno) else { throw error }
                if attempt < 3 { continue }
                state.lack =
                    "the kernel has no nf_tables for bridges (CONFIG_NF_TABLES_BRIDGE): pods of one bridge network can "
                    + "pass for each other (\(error))"
            }
        }
    }

    /// Forgets a network that is to be taken away, and with the last one the tables; what others have in them stays.
    ///
    /// - Parameter bridge: the network's, of which this process may never have heard before.
    func uninstall(_ name: String, bridge: String) throws(NetworkError) {
        do throws(KernelError) {
            try state.withLock { state throws(KernelError) in
                state.known.insert(bridge)
                state.networks[name] = nil
                state.pods = state.pods.filter { $0.value.network != name }
                guard state.networks.isEmpty, state.lack == nil else { return }
                var socket = try NetfilterSocket()
                let table = BridgeFilter.frames.table
                for set in table.sets {
                    do throws(KernelError) {
                        let left = try socket.elements(of: set.name, table: table.name, family: table.family)
                        if left.contains(where: { !Self.isKnown($0, state) }) { return }
                    } catch {
                        // It is gone already.
                        guard error.errno == ENOENT else { throw error }
                    }
                }
                try BridgeFilter.frames.remove(&socket)
                try BridgeFilter.packets.remove(&socket)
                socket.closeUnawaited()
            }
        } catch {
            throw NetworkError(.failed, error.description)
        }
    }

    static func isKnown(_ element: FilterElement, _ state: State) -> Bool {
        BridgedPod.bridge(ofComment: element.comment).map { state.known.contains($0) } ?? true
    }

    // MARK: Pods

    /// Lets the frames of a pod pass that was just wired; until then there are none of it.
    func add(_ pod: BridgedPod) throws(KernelError) {
        try state.withLock { state throws(KernelError) in
            state.pods[pod.device] = pod
            if state.lack != nil { return }
            do throws(KernelError) {
                var socket = try NetfilterSocket()
                do throws(KernelError) {
                    try BridgeFilter.frames.change(add: BridgeFilter.elements(of: pod), &socket)
                } catch {
                    // The table is not there any more, or something is of an earlier pod.
                    _ = try lookAtFilter(state, repairs: true, &socket)
                }
            } catch {
                state.pods[pod.device] = nil
                throw error
            }
        }
    }

    /// Says that a pod goes: its device is no difference any more. What is left in the kernel by a failure is too much for the
    /// next look.
    func remove(_ attachment: NetworkAttachment, from network: String) {
        state.withLock { state in
            let gone = state.pods.values.filter {
                $0.network == network && $0.id == attachment.containerID && $0.interface == attachment.interface
            }
            for pod in gone {
                state.pods[pod.device] = nil
                guard state.lack == nil, var socket = try? NetfilterSocket() else { continue }
                try? BridgeFilter.frames.change(add: [:], remove: BridgeFilter.elements(of: pod), &socket)
                socket.closeUnawaited()
            }
        }
    }
}

// MARK: - What the kernel tells

extension BridgeFabric: KeptNetworks {
    func isForeign(_ event: FilterEvent) -> Bool {
        switch (event.family, event.table) {
        case (.bridge, BridgeFilter.name), (.inet, BridgeFilter.name):
            // Our own elements go one by one.
            return event.isDeletion && !event.isOfElement
        // Those of iptables, which tells more of them than matters: what is added takes nothing away.
        case (.ipv4, "filter"), (.ipv4, "mangle"), (.ipv4, "nat"): return event.isDeletion
        case (.ipv6, "filter"), (.ipv6, "mangle"), (.ipv6, "nat"):
            return event.isDeletion && state.withLock { $0.hasV6 }
        default: return keeper.isForeign(event)
        }
    }

    func isForeign(_ events: [RoutingEvent]) -> Bool {
        if events.isEmpty { return false }
        return state.withLock { state in events.contains { Self.isForeign($0, state) } }
    }

    private static func isForeign(_ event: RoutingEvent, _ state: State) -> Bool {
        switch event {
        case .link(let link, let isGone):
            if state.pods[link.name] != nil {
                return !isGone && (!link.isUp || link.group != BridgeFilter.group || link.master == 0)
            }
            return state.networks.values.contains { $0.device.name == link.name } && (isGone || !link.isUp)
        case .address(let address, let isGone):
            return isGone
                && state.networks.values.contains {
                    [$0.device.address, $0.device.address6].contains { $0?.address.bytes == address.bytes }
                }
        default: return false
        }
    }
}
