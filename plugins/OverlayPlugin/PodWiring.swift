import CKernel
import CNIPlugin
import CNISpec
import Glibc
import Kernel
import Netlink

/// The devices, addresses and routes of one container: two datagrams to the kernel, one in the host's network namespace
/// and one in the container's.
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
        let bridge: Link
        let mac: MACAddress
        let mtu: UInt32
    }

    /// Makes all of it for an address. Where that fails nothing of it stays. The thread is in the container's namespace
    /// afterwards.
    func make(_ address: IPAddress, _ host: inout NetlinkSocket) throws(KernelError) -> Outcome {
        let namespace = try ContainerNamespace.open(namespacePath)
        let bridge = try bridge(&host)
        if !bridge.isUp {
            var up = LinkChange()
            up.isUp = true
            try host.send(up.request(for: bridge.name))
        }
        let mtu = configuration.mtu ?? bridge.mtu
        // Made of the address, so that who remembers it is right when another container gets it.
        guard let mac = configuration.mac ?? MACAddress(bytes: [0x02, 0x42] + address.bytes) else {
            throw KernelError("make a hardware address", address.description, errno: EINVAL)
        }
        var pair = VethPair(hostEnd, peer: attachment.interface, namespace: namespace.raw, mtu: mtu)
        pair.peerMAC = mac.bytes
        pair.master = bridge.index
        do throws(KernelError) {
            try makeHostEnd(pair, address, &host)
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
                try makeHostEnd(pair, address, &host)
            } catch {
                guard error.errno == EEXIST else { throw error }
                throw taken("a device \(attachment.interface) is in \(namespacePath) already")
            }
        }
        failpoint("plugin.after_veth")
        do throws(KernelError) {
            try systemCall("setns", namespacePath) { setns(namespace.raw, Int32(CK_CLONE_NEWNET)) }
            try makeContainerEnd(address)
        } catch {
            // The socket is still in the host's namespace.
            try? host.send(Link.deletion(of: hostEnd))
            throw error
        }
        failpoint("plugin.after_pod")
        return Outcome(bridge: bridge, mac: mac, mtu: mtu)
    }

    func bridge(_ host: inout NetlinkSocket) throws(KernelError) -> Link {
        guard let bridge = try Link.named(configuration.bridge, &host) else {
            throw KernelError(
                "find the bridge", configuration.bridge, errno: ENODEV,
                hint: "the plugin does not make it: make it first")
        }
        guard bridge.kind == "bridge" else {
            throw KernelError("find the bridge", configuration.bridge, errno: ENOTUNIQ, hint: "it is no bridge")
        }
        return bridge
    }

    private func makeHostEnd(
        _ pair: VethPair, _ address: IPAddress, _ host: inout NetlinkSocket
    ) throws(KernelError) {
        var port = LinkChange()
        port.port = BridgePort()
        port.port?.hairpin = configuration.hairpin
        port.isUp = true
        var quiet = LinkChange()
        quiet.hasNoGeneratedAddress = true
        var batch = NetlinkBatch()
        try batch.add(pair.request())
        try batch.add(quiet.request(for: pair.name))
        try batch.add(port.request(for: pair.name))
        // An earlier container with this address may have had another hardware address.
        try batch.add(Neighbour(address.bytes, interface: pair.master).deletion())
        let outcomes = try host.perform(batch)
        guard let failure = outcomes.compactMap({ $0 }).first else { return }
        // With the first refused, what the others were refused or did concerns somebody else's device of that name.
        if outcomes[0] == nil { try? host.send(Link.deletion(of: pair.name)) }
        throw failure
    }

    private func taken(_ why: String) -> KernelError {
        KernelError(
            "attach", "\(attachment.interface) of container \(attachment.containerID)", errno: EEXIST, hint: why)
    }

    private func makeContainerEnd(_ address: IPAddress) throws(KernelError) {
        let index = Int32(bitPattern: if_nametoindex(attachment.interface))
        var up = LinkChange()
        up.isUp = true
        var batch = NetlinkBatch()
        try batch.add(up.request(for: "lo"))
        try batch.add(up.request(for: attachment.interface))
        let own = Address(address.bytes, prefixLength: configuration.pool.subnet.prefixLength, interface: index)
        try batch.add(own.request())
        if configuration.isDefaultRoute, let gateway = configuration.pool.gateway {
            // A program in the container may have made its own way out, a tunnel say: that stays.
            let route = Route(to: [0, 0, 0, 0], prefixLength: 0, gateway: gateway.bytes, interface: index)
            try batch.add(route.request().tolerating(EEXIST))
        }
        var inside = try NetlinkSocket()
        try inside.send(batch)
    }

    // MARK: The end

    /// Deletes both ends.
    static func remove(_ hostEnd: String, _ host: inout NetlinkSocket) throws(KernelError) {
        try host.send(Link.deletion(of: hostEnd))
    }

    /// Takes the device off the bridge, down, and leaves its deletion to the end of the namespace: to delete it here
    /// waits 10 to 50 ms for the kernel.
    static func letGo(_ hostEnd: String, _ host: inout NetlinkSocket) throws(KernelError) {
        var change = LinkChange()
        change.isUp = false
        change.master = 0
        try host.send(change.request(for: hostEnd).tolerating(ENODEV))
    }

    // MARK: Whether it is there

    /// What is not there any more, in words; nil: all is. The thread is in the container's namespace afterwards.
    func whatIsMissing(_ address: IPAddress, _ host: inout NetlinkSocket) throws(KernelError) -> String? {
        let bridge = try bridge(&host)
        guard bridge.isUp else { return "the bridge \(bridge.name) is down" }
        guard let outer = try Link.named(hostEnd, &host) else { return "the device \(hostEnd) is gone" }
        guard outer.master == bridge.index else { return "the device \(hostEnd) hangs off \(bridge.name) no more" }
        guard outer.isUp else { return "the device \(hostEnd) is down" }
        let namespace = try ContainerNamespace.open(namespacePath)
        try systemCall("setns", namespacePath) { setns(namespace.raw, Int32(CK_CLONE_NEWNET)) }
        var socket = try NetlinkSocket()
        guard let inner = try Link.named(attachment.interface, &socket) else {
            return "the container's device \(attachment.interface) is gone"
        }
        guard inner.isUp else { return "the container's device \(inner.name) is down" }
        let own = Address(address.bytes, prefixLength: configuration.pool.subnet.prefixLength, interface: inner.index)
        guard try Address.all(&socket).contains(own) else { return "the address \(address) is not on \(inner.name)" }
        if configuration.isDefaultRoute {
            let hasWayOut = try Route.all(family: AF_INET, &socket).contains { $0.prefixLength == 0 }
            guard hasWayOut else { return "the default route is gone" }
        }
        return nil
    }
}
