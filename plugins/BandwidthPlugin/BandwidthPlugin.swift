import CKernel
import CNIPlugin
import CNISpec
import Glibc
import Kernel
import Netlink

/// The plugin `bandwidth`: bounds how fast a container's device sends and receives, behind the plugin that made it.
package enum BandwidthPlugin: Plugin {
    package static let name = "bandwidth"

    package static func add(_ call: PluginCall) throws(CNIError) -> CNIResult {
        let configuration = try BandwidthConfiguration(call)
        let previous = try previous(configuration)
        guard configuration.ingress != nil || configuration.egress != nil else { return previous }
        var result = previous
        let shaping = Shaping(call)
        var tooSmall: String?
        try CNIError.from(CNIError.refusedByKernel) { () throws(KernelError) in
            var host = try NetlinkSocket()
            let end = try shaping.hostEnd(previous, &host)
            tooSmall = configuration.whatIsTooSmall(for: end)
            if tooSmall != nil { return }
            if let made = try shaping.make(configuration, at: end, &host) {
                result.interfaces.append(
                    CNIResult.Interface(name: made.name, mac: MACAddress(bytes: made.mac), mtu: made.mtu))
            }
        }
        if let tooSmall { throw CNIError(code: CNIError.invalidConfiguration, message: tooSmall) }
        return result
    }

    /// Needs nothing of the configuration: what was made is taken away whatever became of it.
    package static func delete(_ call: PluginCall) throws(CNIError) {
        let shaping = Shaping(call)
        try CNIError.from(CNIError.refusedByKernel) { () throws(KernelError) in
            var host = try NetlinkSocket()
            try shaping.remove(at: shaping.hostEndIfThere(&host), &host)
        }
    }

    package static func check(_ call: PluginCall) throws(CNIError) {
        let configuration = try BandwidthConfiguration(call)
        let previous = try previous(configuration)
        guard configuration.ingress != nil || configuration.egress != nil else { return }
        let shaping = Shaping(call)
        var what: String?
        try CNIError.from(CNIError.refusedByKernel) { () throws(KernelError) in
            var host = try NetlinkSocket()
            let end = try shaping.hostEnd(previous, &host)
            what = try shaping.whatIsMissing(configuration, at: end, &host)
        }
        guard let what else { return }
        throw CNIError(
            code: CNIError.notAttached,
            message: "\(what) (container \(call.containerID), network \(call.network)): attach it again")
    }

    /// Makes what an ADD makes once, in a network namespace that ends with the program.
    package static func status(_ call: PluginCall) throws(CNIError) {
        _ = try BandwidthConfiguration(call)
        try CNIError.from(CNIError.notAvailable) { () throws(KernelError) in
            try systemCall("unshare", "a network namespace to try in") { unshare(Int32(CK_CLONE_NEWNET)) }
            var socket = try NetlinkSocket()
            try Shaping.tryOut(&socket)
        }
    }

    package static func collectGarbage(_ call: PluginCall, valid: Set<PluginAttachment>) throws(CNIError) {
        try CNIError.from(CNIError.refusedByKernel) { () throws(KernelError) in
            var host = try NetlinkSocket()
            for link in try Link.all(&host) where link.kind == FunctionalBlock.kind {
                guard let mark = ShapingMark(link.alias), mark.network == call.network,
                    !valid.contains(mark.attachment)
                else { continue }
                try Shaping(attachment: mark.attachment, network: mark.network, namespacePath: "").remove(
                    at: nil, &host)
            }
        }
    }

    private static func previous(_ configuration: BandwidthConfiguration) throws(CNIError) -> CNIResult {
        guard let previous = configuration.previous else {
            throw CNIError(
                code: CNIError.invalidConfiguration,
                message: "there is no $.prevResult: \(name) must come behind the plugin that makes the device")
        }
        return previous
    }
}
