import CNIPlugin
import CNISpec
import Glibc
import Kernel
import Netlink

extension OverlayConfiguration {
    /// Whether containers reach each other by the host with addresses of the family: in the mode "shared" with those of IPv6.
    /// Nobody asks for hardware addresses there then, and no container can answer for another, or be a router.
    func routes(_ family: IPAddress.Family) -> Bool { if case .routed = mode { true } else { family == .v6 } }
}

/// The mode "shared": containers have the IPv4 subnet's prefix and see each other on a bridge; IPv6 goes by the bridge's own
/// device and its gateway, with all neighbours written down on both sides. Between making a device and bringing it up there is
/// a setting that netlink does not have.
extension PodWiring {
    func bridge(_ name: String, _ host: inout NetlinkSocket) throws(KernelError) -> Link {
        guard let bridge = try Link.named(name, &host) else {
            throw KernelError(
                "find the bridge", name, errno: ENODEV, hint: "the plugin does not make it: make it first")
        }
        guard bridge.kind == "bridge" else {
            throw KernelError("find the bridge", name, errno: ENOTUNIQ, hint: "it is no bridge")
        }
        return bridge
    }

    func switchOn(_ bridge: Link, _ host: inout NetlinkSocket) throws(KernelError) {
        if bridge.isUp { return }
        var up = LinkChange()
        up.isUp = true
        try host.send(up.request(for: bridge.name))
    }

    /// Makes the devices, one of them a port of the bridge. Where that fails there are none.
    func makePort(
        _ pair: VethPair, _ addresses: [IPAddress], _ bridge: Link, _ mode: OverlayConfiguration.SharedMode,
        _ host: inout NetlinkSocket
    ) throws(KernelError) {
        try host.send(pair.request())
        do throws(KernelError) {
            var port = LinkChange()
            port.port = BridgePort()
            port.port?.hairpin = mode.hairpin
            port.port?.learning = mode.learning
            var quiet = LinkChange()
            quiet.hasNoGeneratedAddress = true
            var first = NetlinkBatch()
            try first.add(quiet.request(for: pair.name))
            try first.add(port.request(for: pair.name))
            for address in addresses where address.family == .v4 {
                // An earlier container with this address may have had another hardware address.
                try first.add(Neighbour(address.bytes, interface: pair.master).deletion())
            }
            // A port of a bridge has no IPv6 of its own: nothing is said to the host past the bridge.
            try HostRouting.set(HostRouting.settingsV6(of: pair.name, hasV6: false), hasV6: false, after: first, &host)
            var up = LinkChange()
            up.isUp = true
            var batch = NetlinkBatch()
            if !mode.learning {
                let index = Int32(bitPattern: if_nametoindex(pair.name))
                try batch.add(BridgeEntry(pair.peerMAC ?? [], port: index).request())
            }
            try batch.add(up.request(for: pair.name))
            for address in addresses where address.family == .v6 {
                try batch.add(Neighbour(address.bytes, interface: bridge.index, mac: pair.peerMAC ?? []).request())
            }
            try host.send(batch)
        } catch {
            try? host.send(Link.deletion(of: pair.name))
            guard error.operation == "RTM_NEWNEIGH", error.errno == EEXIST else { throw error }
            // The caller takes EEXIST for a device's name.
            throw KernelError(
                "write down", error.subject, errno: EADDRINUSE,
                hint: "the bridge \(mode.bridge) knows that hardware address already: choose another")
        }
    }

    /// The thread is in the container's namespace.
    func makeContainerEnd(_ addresses: [IPAddress], _ bridge: Link) throws(KernelError) {
        let hasV6 = configuration.hasV6
        var up = LinkChange()
        up.isUp = true
        var first = NetlinkBatch()
        try first.add(up.request(for: "lo"))
        if hasV6 {
            var quiet = LinkChange()
            quiet.hasNoGeneratedAddress = true
            try first.add(quiet.request(for: attachment.interface))
        }
        var inside = try NetlinkSocket()
        try HostRouting.set(
            HostRouting.settingsV6(of: attachment.interface, hasV6: hasV6), hasV6: hasV6, after: first, &inside)
        let index = Int32(bitPattern: if_nametoindex(attachment.interface))
        var batch = NetlinkBatch()
        try batch.add(up.request(for: attachment.interface))
        for (address, pool) in zip(addresses, configuration.pools) {
            let isRouted = configuration.routes(address.family)
            let prefix = isRouted ? address.family.bits : pool.subnet.prefixLength
            try batch.add(Address(address.bytes, prefixLength: prefix, interface: index).request())
            if isRouted, let gateway = pool.gateway {
                try batch.add(Neighbour(gateway.bytes, interface: index, mac: bridge.mac).request())
                for route in HostRouting.routes(of: pool, by: index) { try batch.add(route.request()) }
            }
            if configuration.isDefaultRoute, let gateway = pool.gateway {
                try addDefaultRoute(by: gateway, interface: index, to: &batch)
            }
        }
        try inside.send(batch)
    }

    // MARK: Whether it is there

    /// Of what the host has to reach the container's IPv6 address, what is not there any more.
    func neighbourMissing(
        _ addresses: [IPAddress], at bridge: Link, _ host: inout NetlinkSocket
    ) throws(KernelError) -> String? {
        for address in addresses where address.family == .v6 {
            let found = try Neighbour.all(family: AF_INET6, interface: bridge.index, &host)
            guard found.contains(where: { $0.address == address.bytes && $0.isPermanent }) else {
                return "the neighbour \(address) of \(bridge.name) is gone"
            }
        }
        return nil
    }

    /// The same of what the container has for IPv6. The thread is in its namespace.
    func whatIsMissing(
        in inner: Link, _ bridge: Link, _ socket: inout NetlinkSocket
    ) throws(KernelError) -> String? {
        for pool in configuration.pools where pool.subnet.address.family == .v6 {
            let settings = HostRouting.settingsV6(of: inner.name, hasV6: true)
            if let what = HostRouting.whatIsSetOtherwise(settings) { return what }
            if let what = try wayMissing(of: pool, in: inner, mac: bridge.mac, &socket) { return what }
        }
        return nil
    }
}
