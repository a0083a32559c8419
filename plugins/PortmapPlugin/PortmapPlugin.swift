import CNIPlugin
import CNISpec
import Glibc
import Kernel
import Netfilter
import Netlink

/// The plugin `portmap`: ports of the host that lead to those of a container.
package enum PortmapPlugin: Plugin {
    package static let name = "portmap"

    package static func add(_ call: PluginCall) throws(CNIError) -> CNIResult {
        let configuration = try PortmapConfiguration(call)
        let previous = try previous(configuration)
        try publish(configuration, owner(call))
        return previous
    }

    /// For a plugin that has just made the container's device itself, and has `snat` and `runtimeConfig.portMappings` in its
    /// configuration.
    package static func publish(_ call: PluginCall, _ result: CNIResult) throws(CNIError) {
        try publish(PortmapConfiguration(call, behind: result), owner(call))
    }

    /// Whether such a plugin's ports can be understood, before anything is made.
    package static func expectPorts(_ call: PluginCall) throws(CNIError) {
        _ = try PortmapConfiguration(call, behind: nil)
    }

    private static func publish(_ configuration: PortmapConfiguration, _ owner: PortOwner) throws(CNIError) {
        // One that an ADD has left that was killed is replaced; without ports it goes.
        let device = try loopbackDevice(configuration)
        // Only what was off is switched off again in the end.
        let isOn = try device.map { device throws(CNIError) in
            try CNIError.from(CNIError.refusedByKernel) { () throws(KernelError) in try LoopbackRouting.isOn(device) }
        }
        var socket = try open()
        let before = try PortTableUpdate.run(&socket) { state throws(CNIError) in
            try refuseTaken(configuration.ports, owner, state)
            var wanted = state.elements { $0 == owner }
            wanted.merge(configuration.elements(owner)) { $0 + $1 }
            if let device, isOn == false || state.localnet.contains(device),
                !PortTableState.localnet(wanted).contains(device)
            {
                wanted[.localnet, default: []].append(
                    FilterElement(
                        key: PortTable.interfaceKey(device),
                        comment: configuration.hasDeviceOfItsOwn ? owner.comment : nil))
            }
            return wanted
        }
        failpoint("plugin.after_rules")
        do throws(KernelError) {
            if let device { try LoopbackRouting.set(device, true) }
            try forget(&socket, nowPublished: configuration.ports)
        } catch {
            try? remove(&socket) { $0 == owner }
            throw CNIError(error, code: CNIError.refusedByKernel)
        }
        if before.replaces(owner) { socket.closeUnawaited() }
    }

    /// Needs nothing of the configuration: what was published is withdrawn whatever became of it.
    package static func delete(_ call: PluginCall) throws(CNIError) {
        try withdraw(call, told: (try? PortmapConfiguration(call))?.ports ?? [])
    }

    /// The same for a plugin that published by `publish`.
    ///
    /// - Parameter previous: the result of its ADD, if it is known.
    package static func withdraw(_ call: PluginCall, _ previous: CNIResult?) throws(CNIError) {
        try withdraw(call, told: (try? PortmapConfiguration(call, behind: previous))?.ports ?? [])
    }

    /// - Parameter told: a DEL that was killed may have left conversations by ports that are in the table no more.
    private static func withdraw(_ call: PluginCall, told: [PublishedPort]) throws(CNIError) {
        let owner = owner(call)
        var socket = try open()
        try remove(&socket, told: told) { $0 == owner }
        socket.closeUnawaited()
    }

    package static func collectGarbage(_ call: PluginCall, valid: Set<PluginAttachment>) throws(CNIError) {
        try PortmapConfiguration.check(call)
        try withdraw(of: call.network, except: valid)
    }

    /// Withdraws all ports of a network but those of the attachments.
    package static func withdraw(of network: String, except valid: Set<PluginAttachment>) throws(CNIError) {
        var socket = try open()
        try remove(&socket) { $0.network == network && !valid.contains($0.attachment) }
        socket.closeUnawaited()
    }

    package static func check(_ call: PluginCall) throws(CNIError) {
        let configuration = try PortmapConfiguration(call)
        _ = try previous(configuration)
        try check(call, configuration)
    }

    /// The same for a plugin that published by `publish`, with the result of its ADD.
    package static func check(_ call: PluginCall, _ result: CNIResult) throws(CNIError) {
        try check(call, PortmapConfiguration(call, behind: result))
    }

    private static func check(_ call: PluginCall, _ configuration: PortmapConfiguration) throws(CNIError) {
        let owner = owner(call)
        func missing(_ what: String) -> CNIError {
            CNIError(
                code: CNIError.notAttached,
                message: "\(what) (container \(call.containerID), network \(call.network)): attach it again")
        }
        var socket = try open()
        let state = try CNIError.from(CNIError.refusedByKernel) { () throws(KernelError) in
            try PortTableState(&socket)
        }
        let wanted = configuration.elements(owner)
        if !configuration.ports.isEmpty {
            guard state.exists else { throw missing("the table inet \(PortTable.name) is gone") }
            guard state.isWhole else {
                throw missing("the table inet \(PortTable.name) has not the rules it should have")
            }
        }
        let published = Set(state.published.filter { $0.owner == owner }.map(\.port))
        for port in configuration.ports where !published.contains(port) {
            throw missing("the published port \(port.place) is gone")
        }
        for part in PortTable.Part.allCases where part != .localnet {
            let found = Set((state.elements[part] ?? []).filter { PortOwner($0.comment) == owner })
            guard found == Set(wanted[part] ?? []) else {
                throw missing("the elements of the set \(part.rawValue) of inet \(PortTable.name) are not those of ADD")
            }
        }
        guard let device = try loopbackDevice(configuration) else { return }
        let isOn = try CNIError.from(CNIError.refusedByKernel) { () throws(KernelError) in
            try LoopbackRouting.isOn(device)
        }
        guard isOn else { throw missing("route_localnet of \(device) is off") }
    }

    /// Whether the kernel would take all rules, and tells of connections.
    package static func status(_ call: PluginCall) throws(CNIError) {
        try PortmapConfiguration.check(call)
        try status()
    }

    /// The same for any plugin that publishes ports.
    package static func status() throws(CNIError) {
        try CNIError.from(CNIError.notAvailable) { () throws(KernelError) in
            var socket = try NetfilterSocket()
            _ = try PortTableState(&socket)
            var transaction = try FilterTransaction(generation: nil)
            try transaction.replace(PortTable.table)
            try socket.rehearse(transaction)
            // None: a port of 0 is nobody's.
            try socket.forgetConnections(isV6: false, transport: 0) { _ in false }
        }
    }

    // MARK: Pieces

    private static func open() throws(CNIError) -> NetfilterSocket {
        try CNIError.from(CNIError.refusedByKernel) { () throws(KernelError) in try NetfilterSocket() }
    }

    private static func owner(_ call: PluginCall) -> PortOwner {
        PortOwner(
            network: call.network,
            attachment: PluginAttachment(containerID: call.containerID, interface: call.interface))
    }

    private static func previous(_ configuration: PortmapConfiguration) throws(CNIError) -> CNIResult {
        guard let previous = configuration.previous else {
            throw CNIError(
                code: CNIError.invalidConfiguration,
                message: "$.prevResult is missing: \(name) makes no device, it must come behind the plugin that does")
        }
        return previous
    }

    /// The host's device that leads to the container, where 127.0.0.1 is to lead there too.
    static func loopbackDevice(_ configuration: PortmapConfiguration) throws(CNIError) -> String? {
        guard configuration.servesLoopback,
            let address = configuration.addresses.first(where: { $0.address.family == .v4 })?.address
        else { return nil }
        let index = try CNIError.from(CNIError.refusedByKernel) { () throws(KernelError) in
            var socket = try NetlinkSocket()
            return try Route.device(to: address.bytes, &socket)
        }
        var name = [CChar](repeating: 0, count: Int(IF_NAMESIZE))
        guard let index, if_indextoname(UInt32(bitPattern: index), &name) != nil else {
            throw CNIError(
                code: CNIError.refusedByKernel,
                message: "the container's address \(address) is on none of the host's links, "
                    + "so that 127.0.0.1 cannot lead there: \"snat\": false does without")
        }
        return String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// Two that want the same packets.
    private static func refuseTaken(
        _ ports: [PublishedPort], _ owner: PortOwner, _ state: PortTableState
    ) throws(CNIError) {
        let others = Dictionary(grouping: state.published.filter { $0.owner != owner }, by: \.port.claim)
        var own: [PublishedPort.Claim: [PublishedPort]] = [:]
        for port in ports {
            if let other = own[port.claim]?.first(where: { $0.overlaps(port) }) {
                throw CNIError(
                    code: CNIError.invalidConfiguration,
                    message: "$.runtimeConfig.portMappings: \(port.place) and \(other.place) are for the same packets")
            }
            own[port.claim, default: []].append(port)
            guard let other = others[port.claim]?.first(where: { $0.port.overlaps(port) }) else { continue }
            let holder =
                other.owner.map { "container \($0.attachment.containerID) of the network \($0.network)" }
                ?? "somebody who is not known here"
            throw CNIError(
                code: CNIError.portTaken,
                message: "\(port.place) is published by \(holder) already, at \(other.port.place): choose another port")
        }
    }

    /// Takes away all that belongs to somebody, and the kernel's memory of conversations by UDP.
    private static func remove(
        _ socket: inout NetfilterSocket, told: [PublishedPort] = [], _ leaves: (PortOwner) -> Bool
    ) throws(CNIError) {
        let before = try PortTableUpdate.run(&socket) { state throws(CNIError) in state.elements(without: leaves) }
        failpoint("plugin.after_rules")
        let gone = told + before.published.filter { $0.owner.map(leaves) ?? false }.map(\.port)
        try CNIError.from(CNIError.refusedByKernel) { () throws(KernelError) in
            try forget(&socket, wherePublished: gone)
        }
    }

    /// Conversations by UDP with the host itself, which would go on with it.
    static func forget(
        _ socket: inout NetfilterSocket, nowPublished ports: [PublishedPort]
    ) throws(KernelError) {
        let ports = ports.filter { $0.transport == .udp }
        guard !ports.isEmpty else { return }
        var route = try NetlinkSocket()
        let own = Set(try Address.all(&route).map(\.bytes))
        try forget(&socket, ports) { port, connection in
            let destination = connection.original.destination
            if let host = port.host { return destination == host.bytes }
            return own.contains(destination) || (destination.count == 4 && destination.first == 127)
        }
    }

    /// Conversations by UDP with a container, which would go on with it or with nobody.
    private static func forget(
        _ socket: inout NetfilterSocket, wherePublished ports: [PublishedPort]
    ) throws(KernelError) {
        try forget(&socket, ports.filter { $0.transport == .udp }) { port, connection in
            connection.reply.sourcePort == port.containerPort && connection.reply.source == port.container.bytes
        }
    }

    /// - Parameter isStale: of a conversation with the port's number.
    private static func forget(
        _ socket: inout NetfilterSocket, _ ports: [PublishedPort],
        _ isStale: (PublishedPort, TrackedConnection) -> Bool
    ) throws(KernelError) {
        for family in [IPAddress.Family.v4, .v6] {
            let those = Dictionary(grouping: ports.filter { $0.container.family == family }, by: \.hostPort)
            guard !those.isEmpty else { continue }
            try socket.forgetConnections(isV6: family == .v6, transport: UInt8(IPPROTO_UDP)) { connection in
                those[connection.original.destinationPort]?.contains { isStale($0, connection) } ?? false
            }
        }
    }
}
