import CNISpec
import Glibc
import Kernel
import Netfilter
import Netlink
import Synchronization

extension OverlayFabric: KeptNetworks {
    func isForeign(_ event: FilterEvent) -> Bool {
        event.family == .inet && event.table == OverlayFilter.name || keeper.isForeign(event)
    }

    func isForeign(_ events: [RoutingEvent]) -> Bool {
        if events.isEmpty { return false }
        return state.withLock { state in events.contains { isForeign($0, state) } }
    }

    private func isForeign(_ event: RoutingEvent, _ state: State) -> Bool {
        switch event {
        case .link(let link, let isGone):
            guard let network = state.devices[link.name].flatMap({ state.networks[$0] }) else {
                return !isGone && link.alias.hasPrefix(mark + " ")
            }
            let isTunnel = link.name == network.configuration.device
            // A device that is not known by its number yet is being made.
            if isTunnel, network.index == 0 { return false }
            if isGone { return isTunnel }
            return !link.isUp || link.group != network.configuration.group
                || isTunnel && (link.index != network.index || link.mtu != UInt32(network.mtu))
        case .address(let address, let isGone):
            return isGone && state.indices[address.interface] != nil
        case .route(let route, let isGone):
            guard route.table == Self.table, let address = IPAddress(bytes: route.destination),
                let block = CIDR(address, prefixLength: route.prefixLength)
            else { return false }
            // A pod's is made before its wiring is known, and goes after that.
            if !isGone, state.isClaimed(block) { return false }
            return isGone == isWanted(block, route, state)
        case .neighbour(let neighbour, let isGone):
            guard isGone, let name = state.indices[neighbour.interface], let peers = state.peers[name] else {
                return false
            }
            guard let underlay = OverlayWay.underlay(ofGateway: neighbour.address) else { return neighbour.isPermanent }
            return peers.underlays.contains(underlay)
        case .forwarding(let entry, let isGone):
            guard isGone, let name = state.indices[entry.interface], let peers = state.peers[name],
                let underlay = IPAddress(bytes: entry.destination)
            else { return false }
            return peers.underlays.contains(underlay)
        case .rule(let rule, let isGone):
            return isGone && rule.table == Self.table && !state.networks.isEmpty
        }
    }

    /// Whether a route of our table should be there.
    private func isWanted(_ block: CIDR, _ route: Route, _ state: State) -> Bool {
        if let name = state.indices[route.interface], let network = state.networks[name] {
            guard network.takes(block), network.owners[block] == nil, let way = state.peers[name]?.way(to: block) else {
                return false
            }
            return route.gateway == OverlayWay(way).gateway(to: block)
        }
        guard let network = state.networks.values.first(where: { $0.takes(block) }) else { return false }
        if route.kind == .unreachable { return network.configuration.subnets.contains(block) }
        guard let owner = network.owners[block], route.gateway == nil else { return false }
        return network.pods[owner] != nil
    }
}

extension OverlayFabric.State {
    fileprivate func isClaimed(_ block: CIDR) -> Bool { networks.values.contains { $0.owners[block] != nil } }
}
