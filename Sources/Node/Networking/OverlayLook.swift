import CNISpec
import Glibc
import Kernel
import Netfilter
import Netlink
import Synchronization

extension OverlayFabric {
    typealias Parts = NetworkParts

    /// Most differences that are told.
    private static let mostWords = 1_000

    /// Compares what is with what should be; with `repairs` it is that afterwards.
    ///
    /// - Returns: what differed, and what could not be looked at or mended.
    func look(repairs: Bool, _ parts: Parts) -> [String] {
        var found: [String] = []
        func look(_ body: () throws(KernelError) -> [String]) {
            do throws(KernelError) {
                found += try body()
            } catch {
                found.append(error.description)
            }
        }
        state.withLock { state in
            if parts.contains(.routing) {
                // Before there is a device that could send.
                var isGuarded = false
                look { () throws(KernelError) in
                    let words = try tunnels.look(state.tunnelKeys, own: underlay, repairs: repairs)
                    isGuarded = true
                    return words
                }
                var links: [String: Link] = [:]
                look { () throws(KernelError) in
                    try lookAtDevices(&state, &links, repairs: repairs, isGuarded: isGuarded)
                }
                look { () throws(KernelError) in try lookAtRoutes(state, links, repairs: repairs) }
                look { () throws(KernelError) in try lookAtNeighbours(state, links, repairs: repairs) }
            }
            if !state.networks.isEmpty {
                look { () throws(KernelError) in try lookAtHost(state, repairs: repairs, parts) }
            }
        }
        if parts.contains(.filter) {
            look { () throws(KernelError) in try settlePolicy(repairs: repairs) }
            // Behind the ways that lead to the pods.
            found += keeper.look(repairs: repairs)
        }
        guard found.count > Self.mostWords else { return found }
        return Array(found.prefix(Self.mostWords)) + ["and \(found.count - Self.mostWords) more"]
    }

    // MARK: Devices

    /// - Parameters:
    ///   - links: becomes all devices of the machine by name, as they are afterwards.
    ///   - isGuarded: what encrypted networks send in the clear is stopped; else no device of theirs is made or mended.
    private func lookAtDevices(
        _ state: inout State, _ links: inout [String: Link], repairs: Bool, isGuarded: Bool
    ) throws(KernelError) -> [String] {
        var socket = try NetlinkSocket()
        let all = try Link.all(&socket)
        links = Dictionary(all.map { ($0.name, $0) }) { first, _ in first }
        var found = try removeStrayDevices(state, all, repairs: repairs)
        if state.networks.isEmpty { return found }
        measure(&state)
        let addresses = Set(try Address.all(&socket))
        let tunnels = all.filter { $0.tunnel != nil }
        for network in state.networks.values.sorted(by: { $0.configuration.name < $1.configuration.name }) {
            do throws(KernelError) {
                let mends = repairs && (isGuarded || !network.configuration.isEncrypted)
                try lookAtDevices(of: network, &state, &links, tunnels, addresses, repairs: mends, &socket, &found)
            } catch {
                // The others are not to wait for this one.
                found.append("the network \(network.configuration.name): \(error.description)")
            }
        }
        return found
    }

    private func lookAtDevices(
        of network: Network, _ state: inout State, _ links: inout [String: Link], _ tunnels: [Link],
        _ addresses: Set<Address>, repairs: Bool, _ socket: inout NetlinkSocket, _ found: inout [String]
    ) throws(KernelError) {
        let configuration = network.configuration
        let taken = tunnels.first { $0.tunnel?.vni == configuration.vni && $0.name != configuration.device }
        if let why = [links[configuration.device], taken].compactMap({ $0 }).compactMap({
            conflict(of: configuration, with: $0)
        }).first {
            found.append(why)
            return
        }
        if configuration.isEncrypted, self.tunnels.lack != nil {
            // Nothing may be sent by it, whatever becomes of all that would drop it.
            if links[configuration.device] != nil {
                found.append("the device \(configuration.device) is there, and what it sends cannot be encrypted")
            }
            guard repairs else { return }
            try removeDevice(configuration)
            links[configuration.device] = nil
            var network = network
            network.index = 0
            state.set(network)
            return
        }
        let words = try differences(network, links[configuration.device], addresses)
        found += words
        if repairs, !words.isEmpty {
            _ = try makeDevice(network)
            links[configuration.device] = try Link.named(configuration.device, &socket)
        }
        if let index = links[configuration.device]?.index, index != network.index {
            var network = network
            network.index = index
            state.set(network)
        }
        for pod in network.pods.values.sorted(by: { $0.id < $1.id }) {
            found += try lookAt(pod, of: network, links[pod.device], &socket, repairs)
        }
    }

    private func differences(
        _ network: Network, _ link: Link?, _ addresses: Set<Address>
    ) throws(KernelError) -> [String] {
        let (name, wanted) = (network.configuration.device, device(of: network))
        guard let link, let present = VXLANDevice(link) else { return ["the device \(name) is missing"] }
        var words: [String] = []
        if present.vni != wanted.vni || present.local != wanted.local || present.port != wanted.port
            || link.tunnel?.learns == true
        {
            words.append("the device \(name) is not as it was made")
        }
        if !link.isUp { words.append("the device \(name) is down") }
        if present.mtu != wanted.mtu {
            words.append("the device \(name) has the MTU \(present.mtu) instead of \(wanted.mtu)")
        }
        if present.mac != wanted.mac { words.append("the device \(name) has another hardware address") }
        if present.group != wanted.group { words.append("the device \(name) is in the group \(present.group)") }
        if present.alias != wanted.alias { words.append("the device \(name) has no mark") }
        for gateway in network.configuration.gateways {
            let address = Address(gateway.bytes, prefixLength: gateway.family.bits, interface: link.index)
            if !addresses.contains(address) { words.append("the address \(gateway) is missing on \(name)") }
        }
        for (control, value) in controls(of: network.configuration) {
            let path = "/proc/sys/net/ipv6/conf/\(name)/\(control)"
            if File.exists(path), try File.text(path, limit: 16) != value {
                words.append("net.ipv6.conf.\(name).\(control) is not \(value)")
            }
        }
        return words
    }

    /// A device that is not there is on its way out with its pod.
    private func lookAt(
        _ pod: OverlayPod, of network: Network, _ link: Link?, _ socket: inout NetlinkSocket, _ repairs: Bool
    ) throws(KernelError) -> [String] {
        guard let link else { return [] }
        var words: [String] = []
        if !link.isUp { words.append("the device \(pod.device) of the pod \(pod.id) is down") }
        if link.group != network.configuration.group {
            words.append("the device \(pod.device) of the pod \(pod.id) is in the group \(link.group)")
        }
        if repairs, !words.isEmpty {
            var change = LinkChange()
            change.group = network.configuration.group
            change.isUp = true
            try socket.send(change.request(for: pod.device).tolerating(ENODEV))
        }
        return words
    }

    // MARK: Routes

    private func lookAtRoutes(
        _ state: State, _ links: [String: Link], repairs: Bool
    ) throws(KernelError) -> [String] {
        var socket = try NetlinkSocket()
        var wanted: Set<Route> = []
        for network in state.networks.values { wanted.formUnion(routes(of: network, state, links)) }
        let present = Set(
            try Route.all(family: AF_INET, table: Self.table, &socket)
                + Route.all(family: AF_INET6, table: Self.table, &socket))
        let missing = wanted.subtracting(present)
        // Of pods that come or go: their routes are the plugin's to make and to take away.
        var moving: Set<CIDR> = []
        for network in state.networks.values {
            for (block, owner) in network.owners where network.pods[owner] == nil { moving.insert(block) }
        }
        // The table is ours alone, as soon as there is an overlay.
        let extra = present.subtracting(wanted)
            .filter { $0.origin == OverlayNumbers.routeProtocol || !state.networks.isEmpty }
            .filter { Self.block($0).map { !moving.contains($0) } ?? true }
        let names = Dictionary(links.values.map { ($0.index, $0.name) }) { first, _ in first }
        if repairs, !missing.isEmpty || !extra.isEmpty {
            var writer = try NetlinkWriter()
            for route in extra { try writer.add(route.deletion()) }
            for route in missing { try writer.add(route.request().tolerating(EEXIST)) }
            try writer.flush()
            if let refusal = writer.refusals.first { throw refusal }
        }
        return missing.map { Self.words($0, names) + " is missing" + Self.place($0, names) }.sorted()
            + extra.map { Self.words($0, names) + " is too much" + Self.place($0, names) }.sorted()
    }

    private func routes(of network: Network, _ state: State, _ links: [String: Link]) -> Set<Route> {
        let peers = state.peers[network.configuration.name] ?? OverlayPeers()
        var routes = Set(network.configuration.subnets.map { Self.unreachable($0) })
        for pod in network.pods.values {
            guard let link = links[pod.device] else { continue }
            for address in pod.addresses {
                if let block = CIDR(address, prefixLength: address.family.bits) {
                    routes.insert(Self.route(to: block, gateway: nil, link.index))
                }
            }
        }
        guard network.index != 0 else { return routes }
        for block in peers.blocks where network.takes(block) && network.owners[block] == nil {
            guard let way = peers.way(to: block) else { continue }
            if network.configuration.subnets.contains(block) { routes.remove(Self.unreachable(block)) }
            routes.insert(OverlayWay(way).route(to: block, network.index))
        }
        return routes
    }

    private static func block(_ route: Route) -> CIDR? {
        IPAddress(bytes: route.destination).flatMap { CIDR($0, prefixLength: route.prefixLength) }
    }

    private static func words(_ route: Route, _ names: [Int32: String]) -> String {
        let to = "the route to \(block(route)?.description ?? "?")"
        if route.kind == .unreachable { return to + " that refuses" }
        guard let gateway = route.gateway else { return to }
        let by = OverlayWay.underlay(ofGateway: gateway) ?? IPAddress(bytes: gateway)
        return to + " by \(by?.description ?? "?")"
    }

    private static func place(_ route: Route, _ names: [Int32: String]) -> String {
        route.interface == 0
            ? " in the table \(route.table)" : " on \(names[route.interface] ?? "device \(route.interface)")"
    }

    // MARK: Neighbours

    private func lookAtNeighbours(
        _ state: State, _ links: [String: Link], repairs: Bool
    ) throws(KernelError) -> [String] {
        if state.networks.isEmpty { return [] }
        var socket = try NetlinkSocket()
        var neighbours: Set<Neighbour> = []
        var entries: Set<ForwardingEntry> = []
        var names: [Int32: String] = [:]
        for network in state.networks.values {
            let hasV6 = network.configuration.subnet6 != nil
            for pod in network.pods.values {
                guard let link = links[pod.device], link.isUp else { continue }
                names[link.index] = link.name
                for address in pod.addresses {
                    neighbours.insert(Neighbour(address.bytes, interface: link.index, mac: pod.mac.bytes))
                }
            }
            guard network.index != 0, links[network.configuration.device] != nil else { continue }
            names[network.index] = network.configuration.device
            for address in (state.peers[network.configuration.name] ?? OverlayPeers()).underlays {
                let way = OverlayWay(address)
                neighbours.formUnion(way.neighbours(network.index, hasV6: hasV6))
                entries.insert(way.entry(network.index))
            }
        }
        let known = Set(
            try (Neighbour.all(family: AF_INET, &socket) + Neighbour.all(family: AF_INET6, &socket))
                .filter { names[$0.interface] != nil && $0.isPermanent })
        let written = Set(try ForwardingEntry.all(&socket).filter { state.indices[$0.interface] != nil })
        let (missing, extra) = (neighbours.subtracting(known), known.subtracting(neighbours))
        let (unwritten, strange) = (entries.subtracting(written), written.subtracting(entries))
        if repairs {
            var writer = try NetlinkWriter()
            for neighbour in extra { try writer.add(neighbour.deletion()) }
            for entry in strange { try writer.add(entry.deletion()) }
            for neighbour in missing { try writer.add(neighbour.request()) }
            for entry in unwritten { try writer.add(entry.request()) }
            try writer.flush()
            if let refusal = writer.refusals.first { throw refusal }
        }
        func words(_ bytes: [UInt8], _ interface: Int32, _ what: String, _ how: String) -> String {
            "the \(what) \(IPAddress(bytes: bytes)?.description ?? "?") is \(how) on \(names[interface] ?? "\(interface)")"
        }
        return
            (missing.map { words($0.address, $0.interface, "neighbour", "missing") }
            + extra.map { words($0.address, $0.interface, "neighbour", "too much") }
            + unwritten.map { words($0.destination, $0.interface, "forwarding entry to", "missing") }
            + strange.map { words($0.destination, $0.interface, "forwarding entry to", "too much") }).sorted()
    }

    // MARK: The machine as a whole

    /// What all networks share.
    func lookAtHost(_ state: State, repairs: Bool, _ parts: Parts = .all) throws(KernelError) -> [String] {
        var found: [String] = []
        if parts.contains(.routing) {
            var socket = try NetlinkSocket()
            for isV6 in state.hasV6 ? [false, true] : [false] {
                let forwarding = Forwarding(isV6: isV6, directory: store.parent)
                if try !forwarding.isOn() {
                    found.append("\(forwarding.name) is off")
                    if repairs { try forwarding.enable() }
                }
                let rule = Self.rule(isV6: isV6)
                if try !PolicyRule.all(family: rule.family, &socket).contains(rule) {
                    let family = isV6 ? "IPv6" : "IPv4"
                    found.append("the rule by which \(family) looks into the table \(rule.table) is missing")
                    if repairs { try socket.send(rule.request().tolerating(EEXIST)) }
                }
            }
        }
        if parts.contains(.filter) {
            var socket = try NetfilterSocket()
            found += try filter.look(state.elements, repairs: repairs, &socket)
        }
        return found
    }

    private static func rule(isV6: Bool) -> PolicyRule {
        PolicyRule(table: table, priority: OverlayNumbers.rulePriority, family: isV6 ? AF_INET6 : AF_INET)
    }

    private static let ruleMark = "martlet:overlay"

    /// Where the policy of FORWARD is to drop (a docker daemon sets it) nothing would pass that our table lets pass.
    private static let acceptance = ["-i", "-o"].flatMap { side in
        ["mv+", "mx-+"].map { device in
            PacketFilter.Rule(
                table: "filter", chain: "FORWARD",
                words: [side, device, "-m", "comment", "--comment", ruleMark, "-j", "ACCEPT"])
        }
    }

    /// Has iptables let pods' packets pass while there are networks, and not any more when there are none. iptables may wait for
    /// others: a lock of its own, which no network waits for, keeps the calls in order; each goes by what is so then.
    ///
    /// - Returns: what differed.
    @discardableResult
    func settlePolicy(repairs: Bool) throws(KernelError) -> [String] {
        try policy.withLock { families throws(KernelError) in
            let (isNeeded, hasV6) = state.withLock { (!$0.networks.isEmpty, $0.hasV6) }
            var found: [String] = []
            if isNeeded {
                for isV6 in hasV6 ? [false, true] : [false] {
                    found += try lookAtPolicy(isV6: isV6, repairs: repairs)
                    families.insert(isV6)
                }
            } else if repairs {
                for isV6 in families { try removePolicy(isV6: isV6) }
                families = []
            }
            return found
        }
    }

    private func lookAtPolicy(isV6: Bool, repairs: Bool) throws(KernelError) -> [String] {
        do throws(NetworkError) {
            let packets = try PacketFilter(isV6: isV6)
            let present = try packets.rules(table: "filter")
            let missing = Self.acceptance.filter { !present.contains($0) }
            if repairs { for rule in missing { try packets.insert(rule) } }
            let program = isV6 ? "ip6tables" : "iptables"
            return missing.map { "the rule '\($0.words[0]) \($0.words[1])' of \(program)' chain FORWARD is missing" }
        } catch {
            throw KernelError("let pods' packets pass", "chain FORWARD", errno: EIO, hint: error.description)
        }
    }

    private func removePolicy(isV6: Bool) throws(KernelError) {
        do throws(NetworkError) {
            let packets = try PacketFilter(isV6: isV6)
            for rule in try packets.rules(table: "filter") where rule.comment == Self.ruleMark {
                try packets.remove(rule)
            }
        } catch {
            if error.kind == .missingProgram { return }
            throw KernelError("remove rules", "chain FORWARD", errno: EIO, hint: error.description)
        }
    }

    /// Takes away what all networks share; what was not there is no error.
    func removeHost() throws(KernelError) {
        var filters = try NetfilterSocket()
        try filter.remove(&filters)
        var writer = try NetlinkWriter()
        for isV6 in [false, true] {
            let rule = Self.rule(isV6: isV6)
            var socket = try NetlinkSocket()
            if try PolicyRule.all(family: rule.family, &socket).contains(rule) { try writer.add(rule.deletion()) }
            for route in try Route.all(family: rule.family, table: Self.table, &socket)
            where route.origin == OverlayNumbers.routeProtocol { try writer.add(route.deletion()) }
        }
        try writer.flush()
        if let refusal = writer.refusals.first { throw refusal }
    }
}
