import CNIPlugin
import CNISpec
import Glibc
import Kernel
import Netlink

/// How the host reaches the containers of a network in the mode "routed".
struct HostRouting: Sendable {
    /// Of the devices' ends on the host.
    let group: UInt32
    /// Where the routes to the containers are.
    let table: UInt32
    let pools: [AddressPool]

    var hasV6: Bool { pools.contains { $0.subnet.address.family == .v6 } }

    /// Of all ends on the host. No link has two of them, and nobody has to read back what can be known.
    static let mac: [UInt8] = [0x02, 0x6d, 0x76, 0, 0, 1]

    /// The kernel's settings of a device (kernel documentation, ip-sysctl), in its namespace.
    ///
    /// - Parameter isHost: of the end on the host.
    func settings(of device: String, isHost: Bool) -> [(path: String, value: String)] {
        // Without a subnet of IPv6 the device has none: nothing passes by an address that nobody gave.
        var settings = Self.settingsV6(of: device, hasV6: hasV6)
        // A container that reaches itself by a port of the host would be told of a shorter way.
        if isHost { settings.append(("/proc/sys/net/ipv4/conf/\(device)/send_redirects", "0")) }
        return settings
    }

    static func settingsV6(of device: String, hasV6: Bool) -> [(path: String, value: String)] {
        let v6 = "/proc/sys/net/ipv6/conf/\(device)"
        // What routers say would come from other containers.
        return [("\(v6)/disable_ipv6", hasV6 ? "0" : "1")] + (hasV6 ? [("\(v6)/accept_ra", "0")] : [])
    }

    /// To be called before the device is brought up.
    func set(
        _ device: String, isHost: Bool, after batch: borrowing NetlinkBatch, _ socket: inout NetlinkSocket
    ) throws(KernelError) {
        try Self.set(settings(of: device, isHost: isHost), hasV6: hasV6, after: batch, &socket)
    }

    /// Sends the batch, then changes the settings.
    ///
    /// A write of `disable_ipv6` that meets the routing lock held starts over in the kernel until it is free
    /// (restart_syscall), without ever giving up the processor. Who has it is mostly the worker that tells of new devices; with
    /// the lock in its hands that waits until each processor has been given up once, up to four milliseconds. So it gets its
    /// turn here, and netlink, which sleeps until the lock is free, goes before.
    static func set(
        _ settings: [(path: String, value: String)], hasV6: Bool, after batch: borrowing NetlinkBatch,
        _ socket: inout NetlinkSocket
    ) throws(KernelError) {
        sched_yield()
        try socket.send(batch)
        for (path, value) in settings {
            do throws(KernelError) {
                try File.writeControl(path, value)
            } catch {
                // A kernel without IPv6 needs not be told to do without.
                if error.errno == ENOENT, !hasV6, path.hasSuffix("/disable_ipv6") { continue }
                throw error
            }
        }
    }

    /// In words, the first setting that is another one; nil: there is none.
    func whatIsSetOtherwise(_ device: String, isHost: Bool) -> String? {
        Self.whatIsSetOtherwise(settings(of: device, isHost: isHost))
    }

    /// One that is not there is not looked at: the kernel has no IPv6.
    static func whatIsSetOtherwise(_ settings: [(path: String, value: String)]) -> String? {
        for (path, value) in settings {
            guard let found = try? File.text(path, limit: 16), found != value else { continue }
            return "\(path) is \(found), not \(value)"
        }
        return nil
    }

    /// The host's route to a container.
    func route(to address: IPAddress, by interface: Int32) -> Route {
        var route = Route(
            to: address.bytes, prefixLength: address.family.bits, gateway: nil, interface: interface)
        route.table = table
        route.origin = OverlayNumbers.routeProtocol
        return route
    }

    /// In a container: to the gateway, by which it reaches the rest of the subnet.
    static func routes(of pool: AddressPool, by interface: Int32) -> [Route] {
        guard let gateway = pool.gateway else { return [] }
        return [
            Route(to: gateway.bytes, prefixLength: gateway.family.bits, gateway: nil, interface: interface),
            Route(
                to: pool.subnet.address.bytes, prefixLength: pool.subnet.prefixLength, gateway: gateway.bytes,
                interface: interface),
        ]
    }
}

/// The mode "routed": the host has a route to each container and nobody asks for hardware addresses. There are three
/// datagrams to the kernel: between making a device and bringing it up there are settings that netlink does not have.
extension PodWiring {
    /// Makes the devices, and the way from the host to the container. Where that fails there is nothing.
    func makeHostEnd(
        _ pair: VethPair, _ addresses: [IPAddress], _ routing: HostRouting, _ host: inout NetlinkSocket
    ) throws(KernelError) {
        try host.send(pair.request())
        failpoint("plugin.before_routes")
        do throws(KernelError) {
            var quiet = LinkChange()
            quiet.hasNoGeneratedAddress = true
            var first = NetlinkBatch()
            try first.add(quiet.request(for: pair.name))
            try routing.set(pair.name, isHost: true, after: first, &host)
            let index = Int32(bitPattern: if_nametoindex(pair.name))
            var up = LinkChange()
            up.isUp = true
            var batch = NetlinkBatch()
            try batch.add(up.request(for: pair.name))
            for address in addresses {
                // One that was there leads to where the address was before.
                try batch.add(routing.route(to: address, by: index).request(replaces: true))
                try batch.add(Neighbour(address.bytes, interface: index, mac: pair.peerMAC ?? []).request())
            }
            try host.send(batch)
        } catch {
            try? host.send(Link.deletion(of: pair.name))
            throw error
        }
    }

    /// The thread is in the container's namespace.
    func makeContainerEnd(_ addresses: [IPAddress], _ routing: HostRouting) throws(KernelError) {
        let device = attachment.interface
        var up = LinkChange()
        up.isUp = true
        var quiet = LinkChange()
        quiet.hasNoGeneratedAddress = true
        var first = NetlinkBatch()
        try first.add(up.request(for: "lo"))
        try first.add(quiet.request(for: device))
        var inside = try NetlinkSocket()
        try routing.set(device, isHost: false, after: first, &inside)
        let index = Int32(bitPattern: if_nametoindex(device))
        var batch = NetlinkBatch()
        try batch.add(up.request(for: device))
        for (address, pool) in zip(addresses, configuration.pools) {
            try batch.add(Address(address.bytes, prefixLength: address.family.bits, interface: index).request())
            guard let gateway = pool.gateway else { continue }
            try batch.add(Neighbour(gateway.bytes, interface: index, mac: HostRouting.mac).request())
            for route in HostRouting.routes(of: pool, by: index) { try batch.add(route.request()) }
            if configuration.isDefaultRoute { try addDefaultRoute(by: gateway, interface: index, to: &batch) }
        }
        try inside.send(batch)
    }

    // MARK: Whether it is there

    /// Of what the host has to reach the container, what is not there any more.
    func whatIsMissing(
        at outer: Link, _ addresses: [IPAddress], _ routing: HostRouting, _ host: inout NetlinkSocket
    ) throws(KernelError) -> String? {
        guard outer.group == routing.group else {
            return "the device \(outer.name) is in the group \(outer.group), not \(routing.group)"
        }
        if let what = routing.whatIsSetOtherwise(outer.name, isHost: true) { return what }
        for address in addresses {
            let family = address.family == .v4 ? AF_INET : AF_INET6
            let route = routing.route(to: address, by: outer.index)
            guard try Route.all(family: family, table: routing.table, &host).contains(where: { $0.leads(as: route) })
            else { return "the route to \(address) by \(outer.name) is gone from the table \(routing.table)" }
            let neighbours = try Neighbour.all(family: family, interface: outer.index, &host)
            guard neighbours.contains(where: { $0.address == address.bytes && $0.isPermanent }) else {
                return "the neighbour \(address) of \(outer.name) is gone"
            }
        }
        return nil
    }

    /// The same of what the container has to reach others. The thread is in its namespace.
    func whatIsMissing(
        in inner: Link, _ routing: HostRouting, _ socket: inout NetlinkSocket
    ) throws(KernelError) -> String? {
        if let what = routing.whatIsSetOtherwise(inner.name, isHost: false) { return what }
        for pool in configuration.pools {
            if let what = try wayMissing(of: pool, in: inner, mac: HostRouting.mac, &socket) { return what }
        }
        return nil
    }

    /// Of a container's way to a gateway and by it to the rest of the subnet.
    ///
    /// - Parameter mac: the gateway's.
    func wayMissing(
        of pool: AddressPool, in inner: Link, mac: [UInt8], _ socket: inout NetlinkSocket
    ) throws(KernelError) -> String? {
        guard let gateway = pool.gateway else { return nil }
        let family = gateway.family == .v4 ? AF_INET : AF_INET6
        let neighbour = Neighbour(gateway.bytes, interface: inner.index, mac: mac)
        guard try Neighbour.all(family: family, interface: inner.index, &socket).contains(neighbour) else {
            return "the neighbour \(gateway) of \(inner.name) is gone"
        }
        let routes = try Route.all(family: family, &socket)
        for route in HostRouting.routes(of: pool, by: inner.index) {
            guard routes.contains(where: { $0.leads(as: route) }) else {
                let what = route.gateway == nil ? gateway.description : pool.subnet.description
                return "the route to \(what) by \(inner.name) is gone"
            }
        }
        return nil
    }

    static func expectV6Forwarding() throws(KernelError) {
        try expectForwarding("/proc/sys/net/ipv6/conf/all/forwarding")
    }

    private static func expectForwarding(_ path: String) throws(KernelError) {
        guard try File.text(path, limit: 16) != "0" else {
            throw KernelError("forward packets", path, errno: EOPNOTSUPP, hint: "it is 0: set it to 1")
        }
    }

    /// - Throws: when the host forwards nothing between containers, with what to do about it.
    static func expectForwarding(_ routing: HostRouting, _ host: inout NetlinkSocket) throws(KernelError) {
        for pool in routing.pools {
            let isFour = pool.subnet.address.family == .v4
            if isFour { try expectForwarding("/proc/sys/net/ipv4/ip_forward") } else { try expectV6Forwarding() }
            guard routing.table != Route.mainTable else { continue }
            let rules = try PolicyRule.all(family: isFour ? AF_INET : AF_INET6, &host)
            guard rules.contains(where: { $0.table == routing.table }) else {
                throw KernelError(
                    "look up routes", "table \(routing.table)", errno: ENOENT,
                    hint: "no rule has it looked up: ip \(isFour ? "" : "-6 ")rule add table \(routing.table)")
            }
        }
    }
}

extension Route {
    /// Whether packets go the same way by it.
    fileprivate func leads(as other: Route) -> Bool {
        kind == other.kind && destination == other.destination && prefixLength == other.prefixLength
            && gateway == other.gateway && interface == other.interface
    }
}
