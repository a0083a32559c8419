import CNIPlugin
import CNISpec
import Glibc
import Kernel
import Netlink

/// The token buckets of one attachment: one on the host's end of its veth for what goes in; for what comes out one on an
/// ifb, to which all that arrives at the host's end is redirected.
struct Shaping {
    let attachment: PluginAttachment
    /// The network's name.
    let network: String
    /// The container's network namespace.
    let namespacePath: String

    init(attachment: PluginAttachment, network: String, namespacePath: String) {
        self.attachment = attachment
        self.network = network
        self.namespacePath = namespacePath
    }

    init(_ call: PluginCall) {
        self.init(
            attachment: PluginAttachment(containerID: call.containerID, interface: call.interface),
            network: call.network, namespacePath: call.namespacePath)
    }

    /// The number of our buckets: one of somebody else's is never taken away.
    static let handle: UInt32 = 0x6d61_0000

    /// The ifb's name.
    var deviceName: String { attachment.deviceName("mb", in: network) }

    // MARK: The host's end

    /// The device on the host whose peer is the container's, among those that the plugins before name. The thread is in
    /// the container's namespace afterwards.
    func hostEnd(_ previous: CNIResult, _ host: inout NetlinkSocket) throws(KernelError) -> Link {
        try ContainerNamespace.enter(namespacePath)
        let inner = try inner()
        for interface in previous.interfaces where interface.sandbox == nil {
            guard let outer = try Link.named(interface.name, &host), isPair(outer, inner) else { continue }
            return outer
        }
        throw KernelError(
            "find the host's end", "of \(attachment.interface) in \(namespacePath)", errno: ENODEV,
            hint: "none of the interfaces without sandbox in prevResult is its peer: only veth devices are shaped")
    }

    /// The same for DEL, which goes by the devices alone; nil when there is none any more.
    func hostEndIfThere(_ host: inout NetlinkSocket) throws(KernelError) -> Link? {
        guard try ContainerNamespace.enterIfThere(namespacePath) else { return nil }
        do throws(KernelError) {
            let inner = try inner()
            return try Link.all(&host).first { isPair($0, inner) }
        } catch {
            if error.errno == ENODEV { return nil }
            throw error
        }
    }

    /// The container's device. The thread is in its namespace.
    private func inner() throws(KernelError) -> Link {
        var inside = try NetlinkSocket()
        guard let inner = try Link.named(attachment.interface, &inside) else {
            throw KernelError("find the device", "\(attachment.interface) in \(namespacePath)", errno: ENODEV)
        }
        return inner
    }

    private func isPair(_ outer: Link, _ inner: Link) -> Bool {
        outer.kind == "veth" && inner.kind == "veth" && outer.index == inner.peer && outer.peer == inner.index
    }

    // MARK: Making

    /// Makes what is asked for; where that fails nothing of it stays. What an ADD left that was killed goes first.
    ///
    /// - Returns: the ifb, when what comes from the container is shaped.
    func make(
        _ configuration: BandwidthConfiguration, at end: Link, _ host: inout NetlinkSocket
    ) throws(KernelError) -> Link? {
        try refuseOthers(&host)
        try remove(at: end, &host)
        let others = "somebody else shapes \(end.name) already: tc qdisc show dev \(end.name)"
        if configuration.egress != nil, try Redirection.hasPlace(at: end, &host) {
            throw KernelError("redirect what arrives at", end.name, errno: EEXIST, hint: others)
        }
        do throws(KernelError) {
            var made: Link?
            if let egress = configuration.egress { made = try makeDevice(egress, at: end, &host) }
            if let ingress = configuration.ingress { try host.send(ingress.request(on: end, handle: Self.handle)) }
            failpoint("plugin.after_shaping")
            return made
        } catch {
            try? remove(at: end, &host)
            guard error.errno == EEXIST else { throw error }
            throw KernelError(error.operation, error.subject, errno: EEXIST, hint: others)
        }
    }

    /// A device of our name that is not ours is in the way of ADD.
    private func refuseOthers(_ host: inout NetlinkSocket) throws(KernelError) {
        guard let device = try Link.named(deviceName, &host), mark(of: device) == nil else { return }
        throw KernelError(
            "make the device", deviceName, errno: EEXIST, hint: "there is one already that is not this container's")
    }

    private func makeDevice(
        _ bucket: TokenBucket, at end: Link, _ host: inout NetlinkSocket
    ) throws(KernelError) -> Link {
        let mark = ShapingMark(network: network, attachment: attachment, hostEnd: end.name)
        var quiet = LinkChange()
        quiet.hasNoGeneratedAddress = true
        var up = LinkChange()
        up.alias = mark.alias
        up.isUp = true
        // One datagram, so that no kill leaves one that is not known as ours.
        var batch = NetlinkBatch()
        try batch.add(FunctionalBlock(deviceName, mtu: end.mtu).request())
        try batch.add(quiet.request(for: deviceName))
        try batch.add(up.request(for: deviceName))
        try host.send(batch)
        failpoint("plugin.after_ifb")
        guard let device = try Link.named(deviceName, &host) else {
            throw KernelError("find the device", deviceName, errno: ENODEV, hint: "it was deleted just now")
        }
        var flow = NetlinkBatch()
        try flow.add(bucket.request(on: device, handle: Self.handle))
        try Redirection(from: end, to: device).add(to: &flow)
        do throws(KernelError) {
            try host.send(flow)
        } catch {
            // There was none before: without the filter nobody would know it as ours.
            try? host.send(Redirection.deletion(from: end))
            throw error
        }
        failpoint("plugin.after_redirection")
        return device
    }

    /// All of it with devices of its own, which are the caller's to take away.
    static func tryOut(_ socket: inout NetlinkSocket) throws(KernelError) {
        let names = ["end", "block"]
        let mtu: UInt32 = 1500
        var links: [Link] = []
        for name in names {
            try socket.send(FunctionalBlock(name, mtu: mtu).request())
            if let link = try Link.named(name, &socket) { links.append(link) }
        }
        guard links.count == names.count else { throw KernelError("find the device", names[0], errno: ENODEV) }
        let bucket = TokenBucket(rate: 1 << 20, burst: 1 << 16, limit: 1 << 16)
        var batch = NetlinkBatch()
        try batch.add(bucket.request(on: links[1], handle: handle))
        try Redirection(from: links[0], to: links[1]).add(to: &batch)
        try socket.send(batch)
    }

    // MARK: The end

    /// Takes away what there is of it.
    ///
    /// - Parameter end: the host's end where it is known to be this container's; nil: the one that the ifb's alias names
    ///   and that sends to it.
    func remove(at end: Link?, _ host: inout NetlinkSocket) throws(KernelError) {
        var device = try Link.named(deviceName, &host)
        let mark = device.flatMap { self.mark(of: $0) }
        if mark == nil { device = nil }
        var source = end
        if source == nil, let mark { source = try Link.named(mark.hostEnd, &host) }
        var batch = NetlinkBatch()
        if let source {
            let targets = try Redirection.targets(of: source, &host)
            // 0: the ifb is gone already, and what comes is dropped.
            let isOurs = !targets.isEmpty && targets.allSatisfy { $0 == device?.index || ($0 == 0 && end != nil) }
            if isOurs { try batch.add(Redirection.deletion(from: source)) }
            // A name alone may be another container's by now.
            if isOurs || end != nil { try batch.add(TokenBucket.deletion(from: source, handle: Self.handle)) }
        }
        if let device { try batch.add(Link.deletion(of: device.name)) }
        try host.send(batch)
    }

    /// Nil when the device is not this attachment's.
    private func mark(of device: Link) -> ShapingMark? {
        guard device.kind == FunctionalBlock.kind, let mark = ShapingMark(device.alias), mark.network == network,
            mark.attachment == attachment
        else { return nil }
        return mark
    }

    // MARK: Whether it is there

    /// What is not there any more or not as asked, in words; nil: all is as it was made.
    func whatIsMissing(
        _ configuration: BandwidthConfiguration, at end: Link, _ host: inout NetlinkSocket
    ) throws(KernelError) -> String? {
        if let ingress = configuration.ingress, let what = try difference(ingress, at: end, &host) {
            return "what goes to the container is not shaped: \(what)"
        }
        guard let egress = configuration.egress else { return nil }
        let problem: String?
        if let device = try Link.named(deviceName, &host), mark(of: device) != nil {
            if !device.isUp {
                problem = "the device \(device.name) is down"
            } else if try Redirection.targets(of: end, &host) != [device.index] {
                problem = "what arrives at \(end.name) is not redirected to \(device.name)"
            } else {
                problem = try difference(egress, at: device, &host)
            }
        } else {
            problem = "the device \(deviceName) is gone"
        }
        return problem.map { "what comes from the container is not shaped: \($0)" }
    }

    private func difference(
        _ bucket: TokenBucket, at link: Link, _ host: inout NetlinkSocket
    ) throws(KernelError) -> String? {
        let found = try QueueingDiscipline.root(of: link, &host)
        guard let found, found.kind == "tbf", found.handle == Self.handle else {
            return "\(link.name) has no token bucket of ours"
        }
        return found.holds(bucket) ? nil : "the token bucket of \(link.name) is of another rate or size"
    }
}
