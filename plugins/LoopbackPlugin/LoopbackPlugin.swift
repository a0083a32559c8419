import CNIPlugin
import CNISpec
import Glibc
import JSON
import Kernel
import Netlink

/// The plugin `loopback`: switches on the device `lo` of a container, whatever `CNI_IFNAME` says. It has no settings.
package enum LoopbackPlugin: Plugin {
    package static let name = "loopback"
    private static let device = "lo"

    /// The result is that of the plugins before, untouched; where there is none: `lo` with the addresses that the kernel
    /// has given it.
    package static func add(_ call: PluginCall) throws(CNIError) -> CNIResult {
        let previous = try previous(call)
        let addresses = try CNIError.from(CNIError.refusedByKernel) { () throws(KernelError) in
            try ContainerNamespace.enter(call.namespacePath)
            var socket = try NetlinkSocket()
            var up = LinkChange()
            up.isUp = true
            try socket.send(up.request(for: device))
            return try loopbackAddresses(&socket)
        }
        if let previous { return previous }
        var result = CNIResult()
        let none = MACAddress(bytes: [UInt8](repeating: 0, count: 6))
        result.interfaces = [CNIResult.Interface(name: device, mac: none, sandbox: call.namespacePath)]
        result.addresses = addresses.map { CNIResult.Address($0, interface: 0) }
        return result
    }

    package static func delete(_ call: PluginCall) throws(CNIError) {
        try CNIError.from(CNIError.refusedByKernel) { () throws(KernelError) in
            guard try ContainerNamespace.enterIfThere(call.namespacePath) else { return }
            var socket = try NetlinkSocket()
            var down = LinkChange()
            down.isUp = false
            try socket.send(down.request(for: device))
        }
    }

    package static func check(_ call: PluginCall) throws(CNIError) {
        let previous = try previous(call)
        let (isUp, addresses) = try CNIError.from(CNIError.refusedByKernel) { () throws(KernelError) in
            try ContainerNamespace.enter(call.namespacePath)
            var socket = try NetlinkSocket()
            return (try Link.named(device, &socket)?.isUp ?? false, try loopbackAddresses(&socket))
        }
        func missing(_ what: String) -> CNIError {
            CNIError(
                code: CNIError.notAttached,
                message: "\(what) (container \(call.containerID), network \(call.network)): attach it again")
        }
        guard isUp else { throw missing("the container's device \(device) is down") }
        for address in expected(previous) where !addresses.contains(address) {
            throw missing("the address \(address) is not on \(device)")
        }
    }

    package static func status(_ call: PluginCall) throws(CNIError) { _ = try previous(call) }

    /// It leaves nothing on the host.
    package static func collectGarbage(_ call: PluginCall, valid: Set<PluginAttachment>) throws(CNIError) {
        _ = try previous(call)
    }

    /// What the result of ADD says of `lo`; of IPv4 it is always there.
    private static func expected(_ previous: CNIResult?) -> [CIDR] {
        guard let previous else { return [CIDR("127.0.0.1/8")].compactMap { $0 } }
        return previous.addresses.filter { address in
            address.interface.map { previous.interfaces[$0].name == device && previous.interfaces[$0].sandbox != nil }
                ?? false
        }.map(\.address)
    }

    /// 127.0.0.1 and ::1 with their prefixes, as far as they are there.
    private static func loopbackAddresses(_ socket: inout NetlinkSocket) throws(KernelError) -> [CIDR] {
        let index = Int32(bitPattern: if_nametoindex(device))
        var found: [CIDR] = []
        for address in try Address.all(&socket) where address.interface == index {
            guard let ip = IPAddress(bytes: address.bytes), ["127.0.0.1", "::1"].contains(ip.description),
                let cidr = CIDR(ip, prefixLength: address.prefixLength)
            else { continue }
            found.append(cidr)
        }
        return found
    }

    /// Refuses what is no member of the specification's, and reads what plugins before made.
    private static func previous(_ call: PluginCall) throws(CNIError) -> CNIResult? {
        try call.rejectUnknown(call.configuration, known: PluginCall.commonMembers.union(["runtimeConfig"]))
        let previous: CNIResult?
        let runtime: JSONReader?
        do throws(JSONError) {
            previous = try call.configuration.optionalObject("prevResult").map { member throws(JSONError) in
                try CNIResult(member, version: nil)
            }
            runtime = try call.configuration.optionalObject("runtimeConfig")
        } catch {
            throw CNIError(code: CNIError.invalidConfiguration, message: error.description)
        }
        if let runtime { try call.rejectUnknown(runtime, known: []) }
        try call.rejectUnknownArguments(known: [PluginCall.endArgument])
        return previous
    }
}
