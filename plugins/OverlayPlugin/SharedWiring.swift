import CNIPlugin
import CNISpec
import Glibc
import Kernel
import Netlink

/// The mode "shared": containers have the subnet's prefix and see each other on a bridge. There are three datagrams to the
/// kernel: between making a device and bringing it up there is a setting that netlink does not have.
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

    /// Without IPv6, before a device is brought up: nothing passes by an address that nobody gave, and what routers say, to
    /// whatever hardware address they say it, is not heard.
    private static func switchOffV6(_ device: String) throws(KernelError) {
        do throws(KernelError) {
            try File.writeControl("/proc/sys/net/ipv6/conf/\(device)/disable_ipv6", "1")
        } catch {
            // A kernel without IPv6 needs not be told.
            guard error.errno == ENOENT else { throw error }
        }
    }

    /// Makes the devices, one of them a port of the bridge. Where that fails there are none.
    func makePort(
        _ pair: VethPair, _ addresses: [IPAddress], _ mode: OverlayConfiguration.SharedMode,
        _ host: inout NetlinkSocket
    ) throws(KernelError) {
        var port = LinkChange()
        port.port = BridgePort()
        port.port?.hairpin = mode.hairpin
        port.port?.learning = mode.learning
        var quiet = LinkChange()
        quiet.hasNoGeneratedAddress = true
        var batch = NetlinkBatch()
        try batch.add(pair.request())
        try batch.add(quiet.request(for: pair.name))
        try batch.add(port.request(for: pair.name))
        for address in addresses {
            // An earlier container with this address may have had another hardware address.
            try batch.add(Neighbour(address.bytes, interface: pair.master).deletion())
        }
        try undo(host.perform(batch), of: pair, &host)
        do throws(KernelError) {
            try Self.switchOffV6(pair.name)
            var up = LinkChange()
            up.isUp = true
            var batch = NetlinkBatch()
            if !mode.learning {
                let index = Int32(bitPattern: if_nametoindex(pair.name))
                try batch.add(BridgeEntry(pair.peerMAC ?? [], port: index).request())
            }
            try batch.add(up.request(for: pair.name))
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
    func makeContainerEnd(_ addresses: [IPAddress]) throws(KernelError) {
        try Self.switchOffV6(attachment.interface)
        let index = Int32(bitPattern: if_nametoindex(attachment.interface))
        var up = LinkChange()
        up.isUp = true
        var batch = NetlinkBatch()
        try batch.add(up.request(for: "lo"))
        try batch.add(up.request(for: attachment.interface))
        for (address, pool) in zip(addresses, configuration.pools) {
            let own = Address(address.bytes, prefixLength: pool.subnet.prefixLength, interface: index)
            try batch.add(own.request())
            if configuration.isDefaultRoute, let gateway = pool.gateway {
                try addDefaultRoute(by: gateway, interface: index, to: &batch)
            }
        }
        var inside = try NetlinkSocket()
        try inside.send(batch)
    }
}
