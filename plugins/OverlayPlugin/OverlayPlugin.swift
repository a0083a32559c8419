import CNIPlugin
import CNISpec
import Glibc
import JSON
import Kernel
import Netlink
import PortmapPlugin

/// The plugin `martlet-overlay`: a container's device on a bridge, its address and its routes.
package enum OverlayPlugin: Plugin {
    package static let name = "martlet-overlay"

    /// An address is taken before a device is made and given back after it is deleted: at no time does somebody else get
    /// an address that a device still has.
    package static func add(_ call: PluginCall) throws(CNIError) -> CNIResult {
        let configuration = try OverlayConfiguration(call)
        guard configuration.previous == nil else {
            throw CNIError(
                code: CNIError.invalidConfiguration,
                message: "\(name) makes a device of its own: it must be the first plugin of a list")
        }
        let wiring = wiring(call, configuration)
        let addresses = try take(configuration, wiring.attachment)
        failpoint("plugin.after_lease")
        let made: CNIResult
        let home: SharedFD?
        do throws(KernelError) {
            // The way into the container's namespace leads back where there is something to be done at home.
            home = configuration.publishes ? try ContainerNamespace.own() : nil
            var host = try NetlinkSocket()
            made = result(addresses, try wiring.make(addresses, &host), wiring)
        } catch {
            throw giveBack(
                addresses, configuration, wiring.attachment,
                CNIError(code: CNIError.refusedByKernel, message: error.description))
        }
        if let home { try publish(call, made, home) }
        return made
    }

    /// The device does not stay without the ports, and a lease not without the device, nor with a port that leads to it.
    ///
    /// - Parameter home: the host's network namespace.
    private static func publish(_ call: PluginCall, _ made: CNIResult, _ home: SharedFD) throws(CNIError) {
        failpoint("plugin.before_ports")
        do throws(CNIError) {
            try CNIError.from(CNIError.refusedByKernel) { () throws(KernelError) in
                try ContainerNamespace.enter(home)
            }
            try PortmapPlugin.publish(call, made)
        } catch {
            var message = error.message
            do throws(CNIError) {
                try PortmapPlugin.withdraw(call, made)
                try removeDevice(call, made)
            } catch {
                message += "; what was made is still there: \(error.message)"
            }
            throw CNIError(code: error.code, message: message)
        }
    }

    /// An address of each subnet, or none at all.
    private static func take(
        _ configuration: OverlayConfiguration, _ attachment: PluginAttachment
    ) throws(CNIError) -> [IPAddress] {
        var taken: [IPAddress] = []
        do throws(CNIError) {
            for (number, pool) in configuration.pools.enumerated() {
                let wanted = configuration.wanted.first { $0.family == pool.subnet.address.family }
                if wanted == nil, let twin = try takeTwin(of: taken.first, configuration, number, attachment) {
                    taken.append(twin)
                    continue
                }
                taken.append(try configuration.leases.take(wanted, of: pool, number: number, for: attachment))
            }
            return taken
        } catch {
            throw giveBack(taken, configuration, attachment, error)
        }
    }

    /// On a bridge the second address has the number of the first in its subnet, so that people know one by the other; nil:
    /// somebody asked for that one, or the subnet has none.
    private static func takeTwin(
        of first: IPAddress?, _ configuration: OverlayConfiguration, _ number: Int, _ attachment: PluginAttachment
    ) throws(CNIError) -> IPAddress? {
        guard case .shared = configuration.mode, let first, let base = configuration.pools.first?.subnet.first
        else { return nil }
        let pool = configuration.pools[number]
        let (value, isBeyond) = pool.subnet.first.value.addingReportingOverflow(first.value - base.value)
        let twin = IPAddress(pool.subnet.address.family, value)
        guard !isBeyond, pool.serves(twin), pool.ranges.contains(where: { $0.contains(twin) }) else { return nil }
        do throws(CNIError) {
            return try configuration.leases.take(twin, of: pool, number: number, for: attachment)
        } catch {
            guard error.code == CNIError.addressTaken else { throw error }
            return nil
        }
    }

    /// - Returns: the error, with what went wrong beside it.
    private static func giveBack(
        _ addresses: [IPAddress], _ configuration: OverlayConfiguration, _ attachment: PluginAttachment,
        _ error: CNIError
    ) -> CNIError {
        var message = error.message
        for address in addresses {
            do throws(CNIError) {
                try configuration.leases.giveBack(address, of: attachment)
            } catch {
                message += "; the address \(address) could not be given back: \(error.message)"
            }
        }
        return CNIError(code: error.code, message: message)
    }

    private static func result(_ addresses: [IPAddress], _ outcome: PodWiring.Outcome, _ wiring: PodWiring) -> CNIResult
    {
        let configuration = wiring.configuration
        var result = CNIResult()
        let inside = CNIResult.Interface(
            name: wiring.attachment.interface, mac: outcome.mac, sandbox: wiring.namespacePath, mtu: outcome.mtu)
        result.interfaces = outcome.outer + [inside]
        for (address, pool) in zip(addresses, configuration.pools) {
            let isRouted = configuration.routes(address.family)
            let prefix = isRouted ? address.family.bits : pool.subnet.prefixLength
            if let address = CIDR(address, prefixLength: prefix) {
                result.addresses.append(
                    CNIResult.Address(address, gateway: pool.gateway, interface: result.interfaces.count - 1))
            }
            guard let gateway = pool.gateway else { continue }
            if isRouted { result.routes.append(CNIResult.Route(pool.subnet, gateway: gateway)) }
            if configuration.isDefaultRoute, let everywhere = CIDR(IPAddress(gateway.family, 0), prefixLength: 0) {
                result.routes.append(CNIResult.Route(everywhere, gateway: gateway))
            }
        }
        result.dns = configuration.dns
        return result
    }

    /// Needs of the configuration where the leases are, and no more: what was attached is detached whatever became of the rest.
    package static func delete(_ call: PluginCall) throws(CNIError) {
        let previous = (try? call.configuration.optionalObject("prevResult")).flatMap { $0 }
            .flatMap { try? CNIResult($0, version: nil) }
        var problem: CNIError?
        if OverlayConfiguration.publishes(call) {
            do throws(CNIError) {
                try PortmapPlugin.withdraw(call, previous)
            } catch {
                problem = error
            }
        }
        // A port may lead to the address yet: that is nobody else's until DEL has succeeded.
        try removeDevice(call, previous, keepsLease: problem != nil)
        if let problem { throw problem }
    }

    /// - Parameter previous: what ADD made, if it is known.
    private static func removeDevice(
        _ call: PluginCall, _ previous: CNIResult?, keepsLease: Bool = false
    ) throws(CNIError) {
        let leases = try OverlayConfiguration.leases(call)
        let attachment = PluginAttachment(containerID: call.containerID, interface: call.interface)
        let hostEnd = OverlayNames.hostEnd(of: attachment, in: call.network)
        try CNIError.from(CNIError.refusedByKernel) { () throws(KernelError) in
            var host = try NetlinkSocket()
            if call.arguments[PluginCall.endArgument] == "1" {
                try PodWiring.letGo(hostEnd, &host)
            } else {
                try PodWiring.remove(hostEnd, &host)
            }
        }
        failpoint("plugin.after_device")
        let known = previous.map { addressesOfADD(call, in: $0) } ?? []
        if let bridge = OverlayConfiguration.bridge(call), known.isEmpty || known.contains(where: { $0.family == .v6 })
        {
            // Those that are somebody else's by now are left alone: this may be said again.
            let own = try leases.all().filter { $0.value == attachment }.map(\.key)
            try forget(own, at: bridge)
        }
        if !keepsLease { try leases.giveBack(attachment, expected: known) }
    }

    /// Neighbours of a bridge are no container's device's: they do not go with it.
    private static func forget(_ addresses: [IPAddress], at bridge: String) throws(CNIError) {
        let addresses = addresses.filter { $0.family == .v6 }
        if addresses.isEmpty { return }
        let index = Int32(bitPattern: if_nametoindex(bridge))
        if index == 0 { return }
        try CNIError.from(CNIError.refusedByKernel) { () throws(KernelError) in
            var host = try NetlinkSocket()
            for address in addresses { try host.send(Neighbour(address.bytes, interface: index).deletion()) }
        }
    }

    package static func check(_ call: PluginCall) throws(CNIError) {
        let configuration = try OverlayConfiguration(call)
        let wiring = wiring(call, configuration)
        let known = configuration.previous.map { addressesOfADD(call, in: $0) } ?? []
        var addresses: [IPAddress] = []
        for pool in configuration.pools {
            guard let address = known.first(where: { pool.subnet.contains($0) }) else {
                throw CNIError(
                    code: CNIError.invalidConfiguration,
                    message: "$.prevResult has no address of the container's device \(call.interface) in \(pool.subnet)"
                )
            }
            addresses.append(address)
        }
        func missing(_ what: String) -> CNIError {
            CNIError(
                code: CNIError.notAttached,
                message: "\(what) (container \(call.containerID), network \(call.network)): attach it again")
        }
        for address in addresses where try configuration.leases.holder(of: address) != wiring.attachment {
            throw missing("the lease of \(address) is gone")
        }
        if configuration.publishes, let previous = configuration.previous { try PortmapPlugin.check(call, previous) }
        let what = try CNIError.from(CNIError.refusedByKernel) { () throws(KernelError) in
            var host = try NetlinkSocket()
            return try wiring.whatIsMissing(addresses, &host)
        }
        if let what { throw missing(what) }
    }

    package static func status(_ call: PluginCall) throws(CNIError) {
        let wiring = wiring(call, try OverlayConfiguration(call))
        try CNIError.from(CNIError.notAvailable) { () throws(KernelError) in
            var host = try NetlinkSocket()
            switch try wiring.base(&host) {
            case .bridge(let bridge, _):
                if wiring.configuration.hasV6 { try PodWiring.expectV6Forwarding() }
                guard bridge.isUp else {
                    throw KernelError(
                        "use the bridge", bridge.name, errno: ENETDOWN,
                        hint: "switch it on: ip link set \(bridge.name) up")
                }
            case .host(let routing): try PodWiring.expectForwarding(routing, &host)
            }
        }
        if wiring.configuration.publishes { try PortmapPlugin.status() }
    }

    package static func collectGarbage(_ call: PluginCall, valid: Set<PluginAttachment>) throws(CNIError) {
        let configuration = try OverlayConfiguration(call)
        if configuration.publishes { try PortmapPlugin.withdraw(of: call.network, except: valid) }
        for (address, holder) in try configuration.leases.all() where !valid.contains(holder) {
            try CNIError.from(CNIError.refusedByKernel) { () throws(KernelError) in
                var host = try NetlinkSocket()
                try host.send(Link.deletion(of: OverlayNames.hostEnd(of: holder, in: call.network)))
            }
            if let bridge = OverlayConfiguration.bridge(call), try configuration.leases.holder(of: address) == holder {
                try forget([address], at: bridge)
            }
            try configuration.leases.giveBack(address, of: holder)
        }
    }

    private static func wiring(_ call: PluginCall, _ configuration: OverlayConfiguration) -> PodWiring {
        PodWiring(
            attachment: PluginAttachment(containerID: call.containerID, interface: call.interface),
            network: call.network,
            configuration: configuration, namespacePath: call.namespacePath)
    }

    /// The container's addresses as the result of ADD has them.
    private static func addressesOfADD(_ call: PluginCall, in previous: CNIResult) -> [IPAddress] {
        previous.addresses.filter { address in
            guard let index = address.interface else { return false }
            return previous.interfaces[index].name == call.interface && previous.interfaces[index].sandbox != nil
        }.map(\.address.address)
    }
}
