import CNISpec
import Glibc
import Kernel
import Netfilter
import Netlink

/// How another node is reached by a VXLAN device: a neighbour that is written down, behind which frames go to the node's
/// address.
struct OverlayWay: Sendable {
    let underlay: IPAddress
    let mac: [UInt8]

    init(_ underlay: IPAddress) {
        self.underlay = underlay
        mac = OverlayNumbers.mac(of: underlay.bytes)
    }

    /// Made of the hardware address (RFC 4291, appendix A): IPv6 takes no address as a gateway here that the node reaches by
    /// another device.
    var linkLocal: [UInt8] {
        [0xfe, 0x80, 0, 0, 0, 0, 0, 0, mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]]
    }

    /// Of a neighbour of the VXLAN device; nil: it is no such address.
    static func underlay(ofGateway bytes: [UInt8]) -> IPAddress? {
        if bytes.count == 4 { return IPAddress(bytes: bytes) }
        guard bytes.count == 16, bytes[8] == 0, bytes[9] == 0x6d else { return nil }
        return IPAddress(bytes: [bytes[10], bytes[13], bytes[14], bytes[15]])
    }

    func gateway(to block: CIDR) -> [UInt8] {
        block.address.family == .v4 && underlay.family == .v4 ? underlay.bytes : linkLocal
    }

    func route(to block: CIDR, _ interface: Int32) -> Route {
        let gateway = gateway(to: block)
        var route = OverlayFabric.route(to: block, gateway: gateway, interface)
        route.isOnLink = gateway.count == 4
        return route
    }

    /// - Parameter hasV6: whether the network has IPv6 addresses.
    func neighbours(_ interface: Int32, hasV6: Bool) -> [Neighbour] {
        var addresses: [[UInt8]] = underlay.family == .v4 ? [underlay.bytes] : []
        if hasV6 || underlay.family == .v6 { addresses.append(linkLocal) }
        return addresses.map { Neighbour($0, interface: interface, mac: mac) }
    }

    func entry(_ interface: Int32) -> ForwardingEntry {
        ForwardingEntry(mac, interface: interface, destination: underlay.bytes)
    }
}

// MARK: - Routes

extension OverlayFabric {
    static func route(to block: CIDR, gateway: [UInt8]?, _ interface: Int32) -> Route {
        var route = Route(
            to: block.address.bytes, prefixLength: block.prefixLength, gateway: gateway, interface: interface)
        route.table = OverlayNumbers.table
        route.origin = OverlayNumbers.routeProtocol
        return route
    }

    /// What leaves by no other way.
    static func unreachable(_ subnet: CIDR) -> Route {
        var route = route(to: subnet, gateway: nil, 0)
        route.kind = .unreachable
        return route
    }

    /// Tells the kernel all of a network that was just made.
    func program(_ network: Network, _ state: State, _ writer: inout NetlinkWriter) throws(KernelError) {
        let peers = state.peers[network.configuration.name] ?? OverlayPeers()
        for subnet in network.configuration.subnets {
            try writer.add(Self.unreachable(subnet).request().tolerating(EEXIST))
        }
        for address in peers.underlays { try add(address, network, &writer) }
        var routes: [CIDR: OverlayPeers.Change.Way] = [:]
        for block in peers.blocks { routes[block] = .init(before: nil, after: peers.way(to: block)) }
        try program(routes, network, &writer)
        try writer.flush()
    }

    private func add(
        _ address: IPAddress, _ network: Network, _ writer: inout NetlinkWriter
    ) throws(KernelError) {
        let way = OverlayWay(address)
        for neighbour in way.neighbours(network.index, hasV6: network.configuration.subnet6 != nil) {
            try writer.add(neighbour.request())
        }
        try writer.add(way.entry(network.index).request())
    }

    /// Tells the kernel how ways have changed.
    func program(
        _ routes: [CIDR: OverlayPeers.Change.Way], _ network: Network, _ writer: inout NetlinkWriter
    ) throws(KernelError) {
        for (block, way) in routes where network.takes(block) && (way.after == nil || network.owners[block] == nil) {
            if network.owners[block] != nil, way.after != nil { continue }
            // IPv6 has its own idea of which route a new one replaces.
            if let before = way.before, way.after == nil || block.address.family == .v6 {
                try writer.add(OverlayWay(before).route(to: block, network.index).deletion())
            }
            if let after = way.after {
                let route = OverlayWay(after).route(to: block, network.index)
                if block.address.family == .v4 {
                    try writer.add(route.request(replaces: true))
                } else {
                    try writer.add(route.request().tolerating(EEXIST))
                }
            } else if network.configuration.subnets.contains(block) {
                try writer.add(Self.unreachable(block).request(replaces: true))
            }
        }
    }

    /// Tells the kernel what has changed of a network's peers.
    func apply(_ change: OverlayPeers.Change, _ name: String, _ state: State) throws(NetworkError) {
        guard !change.isEmpty, let network = state.networks[name], network.index != 0 else { return }
        do throws(KernelError) {
            var (added, removed): (OverlayFilter.Elements, OverlayFilter.Elements) = ([:], [:])
            for address in change.appeared {
                let (part, element) = OverlayFilter.element(of: address, vni: network.configuration.vni)
                added[part, default: []].insert(element)
            }
            for address in change.gone {
                let (part, element) = OverlayFilter.element(of: address, vni: network.configuration.vni)
                removed[part, default: []].insert(element)
            }
            var failure: KernelError?
            if network.configuration.isEncrypted {
                do throws(KernelError) {
                    try changeTunnels(change, state)
                } catch {
                    // What could not be encrypted is dropped; the other peers are not to wait for it.
                    failure = error
                }
            }
            // Who sends must be let in before anybody sends there.
            if !added.isEmpty || !removed.isEmpty { try changeFilter(add: added, remove: removed, state) }
            failpoint("overlay.after_peer_filter")
            var writer = try NetlinkWriter()
            for address in change.appeared { try add(address, network, &writer) }
            try program(change.routes, network, &writer)
            for address in change.gone {
                let way = OverlayWay(address)
                for neighbour in way.neighbours(network.index, hasV6: network.configuration.subnet6 != nil) {
                    try writer.add(neighbour.deletion())
                }
                try writer.add(way.entry(network.index).deletion())
            }
            try writer.flush()
            if let refusal = failure ?? writer.refusals.first { throw refusal }
        } catch {
            throw NetworkError(.failed, error.description)
        }
    }

    /// Has what goes to peers encrypted before anything goes there.
    private func changeTunnels(_ change: OverlayPeers.Change, _ state: State) throws(KernelError) {
        let touched = change.appeared.union(change.keyed).union(change.gone)
        let gone = touched.filter { !state.isOnEncrypted($0) }
        if !gone.isEmpty { try tunnels.disconnect(gone, own: underlay) }
        // Who is gone from one network may be on another, and what he said here does not count any more.
        var keys: [IPAddress: Set<[UInt8]>] = [:]
        for address in touched.subtracting(gone) { keys[address] = state.tunnelKeys(at: address) }
        if keys.isEmpty { return }
        if try !tunnels.connect(keys, own: underlay) {
            _ = try tunnels.look(state.tunnelKeys, own: underlay, repairs: true)
        }
        failpoint("overlay.after_peer_tunnels")
    }

    /// Changes elements; where that is refused, the table is not what was thought, and is made what it should be.
    func changeFilter(
        add: OverlayFilter.Elements = [:], remove: OverlayFilter.Elements = [:], _ state: State
    ) throws(KernelError) {
        var socket = try NetfilterSocket()
        do throws(KernelError) {
            try filter.change(add: add, remove: remove, &socket)
        } catch {
            guard [EEXIST, ENOENT, ENOTEMPTY].contains(error.errno) else { throw error }
            _ = try filter.look(state.elements, repairs: true, &socket)
        }
    }
}

// MARK: - Devices

extension OverlayFabric {
    /// The operation of errors that say that somebody else has something.
    static let takenOperation = "make the overlay network"

    func mark(of configuration: OverlayNetworkConfiguration) -> String { "\(mark) \(configuration.name)" }

    func device(of network: Network) -> VXLANDevice {
        var device = VXLANDevice(
            network.configuration.device, vni: network.configuration.vni, local: underlay.bytes,
            port: network.configuration.port, mtu: UInt32(network.mtu), mac: OverlayNumbers.mac(of: underlay.bytes))
        device.group = network.configuration.group
        device.alias = mark(of: network.configuration)
        return device
    }

    /// What stands in the way of a network on this machine. Who has its VNI is asked only when the kernel refuses the device:
    /// all devices would be read for it.
    func conflict(of configuration: OverlayNetworkConfiguration) throws(KernelError) {
        var socket = try NetlinkSocket()
        if let link = try Link.named(configuration.device, &socket) { try refuse([link], configuration) }
        for subnet in configuration.subnets {
            if let other = try HostNetwork.conflict(with: subnet, except: configuration.device) {
                throw KernelError(
                    Self.takenOperation, configuration.name, errno: EEXIST,
                    hint: "the subnet \(subnet) overlaps \(other.network) on \(other.interface); choose another subnet")
            }
        }
    }

    private func refuse(_ links: [Link], _ configuration: OverlayNetworkConfiguration) throws(KernelError) {
        for link in links {
            if let why = conflict(of: configuration, with: link) {
                throw KernelError(Self.takenOperation, configuration.name, errno: EEXIST, hint: why)
            }
        }
    }

    func conflict(of configuration: OverlayNetworkConfiguration, with link: Link) -> String? {
        let isSame = link.tunnel?.vni == configuration.vni && link.tunnel?.port == configuration.port
        if link.name == configuration.device {
            // Without an alias it is of a start of ours that was cut off.
            if link.alias == mark(of: configuration) || isSame && link.alias.isEmpty { return nil }
            return "the device \(link.name) is there already and not ours; remove it"
        }
        guard isSame else { return nil }
        return
            "the device \(link.name) has the VNI \(configuration.vni) on port \(configuration.port) already; remove it"
    }

    /// Makes a network's device, or gives it what it lacks, and switches it on.
    ///
    /// - Returns: its index.
    func makeDevice(_ network: Network) throws(KernelError) -> Int32 {
        let (configuration, device) = (network.configuration, device(of: network))
        var socket = try NetlinkSocket()
        var found = try Link.named(device.name, &socket)
        if let link = found, let tunnel = link.tunnel,
            tunnel.vni != device.vni || tunnel.local != device.local || tunnel.port != device.port || tunnel.learns
        {
            try socket.send(Link.deletion(of: device.name))
            found = nil
        }
        if found == nil {
            do throws(KernelError) {
                try socket.send(device.request())
            } catch {
                if error.errno == EEXIST { try refuse(Link.all(&socket), configuration) }
                throw error
            }
        }
        var change = LinkChange()
        change.alias = device.alias
        change.mac = device.mac
        change.mtu = device.mtu
        change.group = device.group
        // Without a link-local address of its own there is nothing to be told to others.
        var quiet = LinkChange()
        quiet.hasNoGeneratedAddress = true
        var batch = NetlinkBatch()
        try batch.add(quiet.request(for: device.name))
        try batch.add(change.request(for: device.name))
        try socket.send(batch)
        failpoint("overlay.after_link")
        for (control, value) in controls(of: configuration) {
            let path = "/proc/sys/net/ipv6/conf/\(device.name)/\(control)"
            if File.exists(path) {
                try File.writeControl(path, value)
            } else if configuration.subnet6 != nil {
                throw KernelError(
                    "give IPv6 addresses", device.name, errno: EAFNOSUPPORT,
                    hint: "the kernel of this node has no IPv6; make the network without it")
            }
        }
        guard let link = try Link.named(device.name, &socket) else {
            throw KernelError("find the device", device.name, errno: ENODEV)
        }
        var up = LinkChange()
        up.isUp = true
        var last = NetlinkBatch()
        try last.add(up.request(for: device.name))
        for gateway in configuration.gateways {
            let address = Address(gateway.bytes, prefixLength: gateway.family.bits, interface: link.index)
            try last.add(address.request().tolerating(EEXIST))
        }
        try socket.send(last)
        return link.index
    }

    /// Files of /proc/sys/net/ipv6/conf/<device>, with what is in them.
    func controls(of configuration: OverlayNetworkConfiguration) -> [(name: String, value: String)] {
        // Neighbours behind an IPv6 underlay have IPv6 addresses.
        [("disable_ipv6", configuration.subnet6 == nil && !isV6 ? "1" : "0"), ("accept_ra", "0")]
    }

    func removeDevice(_ configuration: OverlayNetworkConfiguration) throws(KernelError) {
        var socket = try NetlinkSocket()
        guard let link = try Link.named(configuration.device, &socket),
            conflict(of: configuration, with: link) == nil
        else { return }
        try socket.send(Link.deletion(of: configuration.device))
    }

    /// Removes devices of ours that no network is known for.
    ///
    /// - Returns: what was there.
    func removeStrayDevices(_ state: State, _ links: [Link]? = nil, repairs: Bool = true) throws(KernelError)
        -> [String]
    {
        var socket = try NetlinkSocket()
        var found: [String] = []
        let all = if let links { links } else { try Link.all(&socket) }
        for link in all
        where link.kind == VXLANDevice.kind && link.alias.hasPrefix(mark + " ") && state.devices[link.name] == nil {
            found.append("the device \(link.name) is of no network that pods are on")
            if repairs { try socket.send(Link.deletion(of: link.name)) }
        }
        return found
    }
}
