import CKernel
import CNIPlugin
import CNISpec
import Glibc
import Kernel
import Netlink

/// The devices, addresses and routes of one container, whatever the mode: the devices' ends on the host are made in the
/// host's network namespace, what is in the container by one datagram to the kernel there.
struct PodWiring {
    let attachment: PluginAttachment
    /// The network's name.
    let network: String
    let configuration: OverlayConfiguration
    /// The container's network namespace.
    let namespacePath: String

    var hostEnd: String { OverlayNames.hostEnd(of: attachment, in: network) }

    /// What was made.
    struct Outcome {
        /// Of the host, in the order of the result.
        let outer: [CNIResult.Interface]
        let mac: MACAddress
        let mtu: UInt32
    }

    /// What the way into a mode's network is.
    enum Base {
        case bridge(Link, OverlayConfiguration.SharedMode)
        case host(HostRouting)
    }

    /// - Throws: when there is no way into the network.
    func base(_ host: inout NetlinkSocket) throws(KernelError) -> Base {
        switch configuration.mode {
        case .shared(let mode): .bridge(try bridge(mode.bridge, &host), mode)
        case .routed(let group, let table): .host(HostRouting(group: group, table: table, pools: configuration.pools))
        }
    }

    /// Makes all of it for an address in each family. Where that fails nothing of it stays. The thread is in the
    /// container's namespace afterwards.
    func make(_ addresses: [IPAddress], _ host: inout NetlinkSocket) throws(KernelError) -> Outcome {
        let namespace = try ContainerNamespace.open(namespacePath)
        let base = try base(&host)
        let mac = try mac(of: addresses)
        var pair = VethPair(hostEnd, peer: attachment.interface, namespace: namespace.raw, mtu: 1500)
        pair.peerMAC = mac.bytes
        switch base {
        case .bridge(let bridge, let mode):
            try switchOn(bridge, &host)
            pair.mtu = bridge.mtu
            pair.master = bridge.index
            pair.group = mode.group
        case .host(let routing):
            pair.mac = HostRouting.mac
            pair.group = routing.group
        }
        if let mtu = configuration.mtu { pair.mtu = mtu }
        do throws(KernelError) {
            try makeHostEnd(pair, addresses, base, &host)
        } catch {
            guard error.errno == EEXIST else { throw error }
            // Of a container that was let go, and waits for the end of its namespace, which may come just now.
            if let old = try Link.named(hostEnd, &host) {
                guard !old.isUp, old.master == 0 else {
                    throw taken("the container is attached already, by \(hostEnd)")
                }
                try Self.remove(hostEnd, &host)
            }
            do throws(KernelError) {
                try makeHostEnd(pair, addresses, base, &host)
            } catch {
                guard error.errno == EEXIST else { throw error }
                throw taken("a device \(attachment.interface) is in \(namespacePath) already")
            }
        }
        failpoint("plugin.after_veth")
        do throws(KernelError) {
            try systemCall("setns", namespacePath) { setns(namespace.raw, Int32(CK_CLONE_NEWNET)) }
            switch base {
            case .bridge(let bridge, _): try makeContainerEnd(addresses, bridge)
            case .host(let routing): try makeContainerEnd(addresses, routing)
            }
        } catch {
            // The socket is still in the host's namespace.
            try? host.send(Link.deletion(of: hostEnd))
            if case .bridge(let bridge, _) = base {
                for address in addresses where address.family == .v6 {
                    try? host.send(Neighbour(address.bytes, interface: bridge.index).deletion())
                }
            }
            throw error
        }
        failpoint("plugin.after_pod")
        var outer = [CNIResult.Interface(name: hostEnd, mac: pair.mac.flatMap { MACAddress(bytes: $0) })]
        if case .bridge(let bridge, _) = base {
            outer.insert(CNIResult.Interface(name: bridge.name, mac: MACAddress(bytes: bridge.mac)), at: 0)
        }
        return Outcome(outer: outer, mac: mac, mtu: pair.mtu)
    }

    private func makeHostEnd(
        _ pair: VethPair, _ addresses: [IPAddress], _ base: Base, _ host: inout NetlinkSocket
    ) throws(KernelError) {
        switch base {
        case .bridge(let bridge, let mode): try makePort(pair, addresses, bridge, mode, &host)
        case .host(let routing): try makeHostEnd(pair, addresses, routing, &host)
        }
    }

    /// Made of the address, so that who remembers it is right when another container gets it.
    private func mac(of addresses: [IPAddress]) throws(KernelError) -> MACAddress {
        if let mac = configuration.mac { return mac }
        let bytes = addresses.first.map { Array($0.bytes.suffix(4)) } ?? []
        guard let mac = MACAddress(bytes: [0x02, 0x42] + bytes) else {
            throw KernelError("make a hardware address", addresses.description, errno: EINVAL)
        }
        return mac
    }

    private func taken(_ why: String) -> KernelError {
        KernelError(
            "attach", "\(attachment.interface) of container \(attachment.containerID)", errno: EEXIST, hint: why)
    }

    /// The container may have made its own way out, a tunnel say: that stays.
    func addDefaultRoute(
        by gateway: IPAddress, interface: Int32, to batch: inout NetlinkBatch
    ) throws(KernelError) {
        let everywhere = [UInt8](repeating: 0, count: gateway.bytes.count)
        let route = Route(to: everywhere, prefixLength: 0, gateway: gateway.bytes, interface: interface)
        try batch.add(route.request().tolerating(EEXIST))
    }

    // MARK: The end

    /// Deletes both ends, and with them all routes and neighbours by them.
    static func remove(_ hostEnd: String, _ host: inout NetlinkSocket) throws(KernelError) {
        try host.send(Link.deletion(of: hostEnd))
    }

    /// Takes the device off the bridge, down, and leaves its deletion to the end of the namespace: to delete it here
    /// waits 10 to 50 ms for the kernel. Routes and neighbours go as soon as it is down.
    static func letGo(_ hostEnd: String, _ host: inout NetlinkSocket) throws(KernelError) {
        var change = LinkChange()
        change.isUp = false
        change.master = 0
        try host.send(change.request(for: hostEnd).tolerating(ENODEV))
    }

    // MARK: Whether it is there

    /// What is not there any more, in words; nil: all is. The thread is in the container's namespace afterwards.
    func whatIsMissing(_ addresses: [IPAddress], _ host: inout NetlinkSocket) throws(KernelError) -> String? {
        let base = try base(&host)
        if case .bridge(let bridge, _) = base, !bridge.isUp { return "the bridge \(bridge.name) is down" }
        guard let outer = try Link.named(hostEnd, &host) else { return "the device \(hostEnd) is gone" }
        if case .bridge(let bridge, let mode) = base {
            guard outer.master == bridge.index else { return "the device \(hostEnd) hangs off \(bridge.name) no more" }
            guard outer.group == mode.group else {
                return "the device \(hostEnd) is in the group \(outer.group), not \(mode.group)"
            }
        }
        guard outer.isUp else { return "the device \(hostEnd) is down" }
        switch base {
        case .host(let routing):
            if let what = try whatIsMissing(at: outer, addresses, routing, &host) { return what }
        case .bridge(let bridge, _):
            if let what = try neighbourMissing(addresses, at: bridge, &host) { return what }
        }
        let namespace = try ContainerNamespace.open(namespacePath)
        try systemCall("setns", namespacePath) { setns(namespace.raw, Int32(CK_CLONE_NEWNET)) }
        var socket = try NetlinkSocket()
        guard let inner = try Link.named(attachment.interface, &socket) else {
            return "the container's device \(attachment.interface) is gone"
        }
        guard inner.isUp else { return "the container's device \(inner.name) is down" }
        let found = try Address.all(&socket)
        for (address, pool) in zip(addresses, configuration.pools) {
            let prefix = configuration.routes(address.family) ? address.family.bits : pool.subnet.prefixLength
            let own = Address(address.bytes, prefixLength: prefix, interface: inner.index)
            guard found.contains(own) else { return "the address \(address) is not on \(inner.name)" }
        }
        switch base {
        case .host(let routing):
            if let what = try whatIsMissing(in: inner, routing, &socket) { return what }
        case .bridge(let bridge, _):
            if let what = try whatIsMissing(in: inner, bridge, &socket) { return what }
        }
        guard configuration.isDefaultRoute else { return nil }
        for pool in configuration.pools {
            let isFour = pool.subnet.address.family == .v4
            let routes = try Route.all(family: isFour ? AF_INET : AF_INET6, &socket)
            guard routes.contains(where: { $0.prefixLength == 0 }) else {
                return "the default route\(isFour ? "" : " of IPv6") is gone"
            }
        }
        return nil
    }
}
