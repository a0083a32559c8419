import CNIPlugin
import CNISpec
import Glibc
import JSON
import Kernel
import Netlink

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
        let address = try configuration.leases.take(
            configuration.address, of: configuration.pool, for: wiring.attachment)
        failpoint("plugin.after_lease")
        do throws(KernelError) {
            var host = try NetlinkSocket()
            let outcome = try wiring.make(address, &host)
            return result(address, outcome, wiring)
        } catch {
            var message = error.description
            do throws(CNIError) {
                try configuration.leases.giveBack(address, of: wiring.attachment)
            } catch {
                message += "; the address \(address) could not be given back: \(error.message)"
            }
            throw CNIError(code: CNIError.refusedByKernel, message: message)
        }
    }

    private static func result(_ address: IPAddress, _ outcome: PodWiring.Outcome, _ wiring: PodWiring) -> CNIResult {
        let configuration = wiring.configuration
        var result = CNIResult()
        let inside = CNIResult.Interface(
            name: wiring.attachment.interface, mac: outcome.mac, sandbox: wiring.namespacePath, mtu: outcome.mtu)
        result.interfaces = [
            CNIResult.Interface(name: outcome.bridge.name, mac: MACAddress(bytes: outcome.bridge.mac)),
            CNIResult.Interface(name: wiring.hostEnd), inside,
        ]
        let (subnet, gateway) = (configuration.pool.subnet, configuration.pool.gateway)
        if let address = CIDR(address, prefixLength: subnet.prefixLength) {
            result.addresses = [CNIResult.Address(address, gateway: gateway, interface: 2)]
        }
        if configuration.isDefaultRoute, let gateway, let everywhere = CIDR(IPAddress(.v4, 0), prefixLength: 0) {
            result.routes = [CNIResult.Route(everywhere, gateway: gateway)]
        }
        result.dns = configuration.dns
        return result
    }

    /// Needs of the configuration where the leases are, and no more: what was attached is detached whatever became of the rest.
    package static func delete(_ call: PluginCall) throws(CNIError) {
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
        let previous = (try? call.configuration.optionalObject("prevResult")).flatMap { $0 }
            .flatMap { try? CNIResult($0, version: nil) }
        try leases.giveBack(attachment, expected: previous.flatMap { address(call, in: $0) })
    }

    package static func check(_ call: PluginCall) throws(CNIError) {
        let configuration = try OverlayConfiguration(call)
        let wiring = wiring(call, configuration)
        guard let previous = configuration.previous, let address = address(call, in: previous),
            configuration.pool.subnet.contains(address)
        else {
            throw CNIError(
                code: CNIError.invalidConfiguration,
                message: "$.prevResult has no address of the container's device \(call.interface)")
        }
        func missing(_ what: String) -> CNIError {
            CNIError(
                code: CNIError.notAttached,
                message: "\(what) (container \(call.containerID), network \(call.network)): attach it again")
        }
        guard try configuration.leases.holder(of: address) == wiring.attachment else {
            throw missing("the lease of \(address) is gone")
        }
        let what = try CNIError.from(CNIError.refusedByKernel) { () throws(KernelError) in
            var host = try NetlinkSocket()
            return try wiring.whatIsMissing(address, &host)
        }
        if let what { throw missing(what) }
    }

    package static func status(_ call: PluginCall) throws(CNIError) {
        let wiring = wiring(call, try OverlayConfiguration(call))
        try CNIError.from(CNIError.notAvailable) { () throws(KernelError) in
            var host = try NetlinkSocket()
            let bridge = try wiring.bridge(&host)
            guard bridge.isUp else {
                throw KernelError(
                    "use the bridge", bridge.name, errno: ENETDOWN, hint: "switch it on: ip link set \(bridge.name) up")
            }
        }
    }

    package static func collectGarbage(_ call: PluginCall, valid: Set<PluginAttachment>) throws(CNIError) {
        let configuration = try OverlayConfiguration(call)
        for (address, holder) in try configuration.leases.all() where !valid.contains(holder) {
            try CNIError.from(CNIError.refusedByKernel) { () throws(KernelError) in
                var host = try NetlinkSocket()
                try host.send(Link.deletion(of: OverlayNames.hostEnd(of: holder, in: call.network)))
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

    /// The container's address as the result of ADD has it.
    private static func address(_ call: PluginCall, in previous: CNIResult) -> IPAddress? {
        previous.addresses.first { address in
            guard let index = address.interface else { return false }
            return previous.interfaces[index].name == call.interface && previous.interfaces[index].sandbox != nil
        }?.address.address
    }
}
