import CNISpec
import Glibc
import Kernel

/// Whether what plugins say that they made is there, can be, and is what was asked for.
struct CNIResultCheck {
    let attachment: NetworkAttachment
    let asked: CapabilityArguments

    init(_ attachment: NetworkAttachment, _ asked: CapabilityArguments) {
        self.attachment = attachment
        self.asked = asked
    }

    /// One sentence about the first thing that is wrong; nil when nothing is.
    func problem(in result: CNIResult) -> String? {
        guard CNINetworks.addresses(in: result, attachment) != nil else {
            return "the plugins gave the pod no address; the list needs an address plugin (ipam)"
        }
        for address in result.addresses {
            let isLoopback = address.interface.map { result.interfaces[$0].name == "lo" } ?? false
            if let why = Self.flaw(of: address.address, isLoopback: isLoopback) {
                return "the plugins gave the pod the address \(address.address), which \(why)"
            }
        }
        return difference(result) ?? absence(result)
    }

    private static func flaw(of address: CIDR, isLoopback: Bool) -> String? {
        let host = address.address
        if host.isUnspecified { return "is none" }
        if host.isMulticast { return "is a multicast address" }
        if host.isLoopback, !isLoopback { return "never leaves a machine" }
        if host.family == .v4, host.value == 0xffff_ffff { return "is the broadcast address" }
        if address.prefixLength == 0 { return "leaves nobody outside its subnet" }
        let ends = host.family == .v4 && address.prefixLength < 31
        if ends, host == address.first || host == address.last { return "stands for its subnet, not for a host" }
        return nil
    }

    private func difference(_ result: CNIResult) -> String? {
        let given = result.addresses.map(\.address.address)
        for wanted in asked.addresses.map(\.address) + asked.plainAddresses where !given.contains(wanted) {
            let text = given.map(\.description).joined(separator: ", ")
            return "the address \(wanted) was asked for, and the plugins gave \(text)"
        }
        guard let wanted = asked.mac else { return nil }
        let macs = result.interfaces.filter { $0.sandbox == attachment.namespacePath }.compactMap(\.mac)
        if macs.isEmpty || macs.contains(wanted) { return nil }
        let text = macs.map(\.description).joined(separator: ", ")
        return "the hardware address \(wanted) was asked for, and the plugins gave \(text)"
    }

    /// Devices and addresses that are not there. What the kernel has no part in (a socket, another isolation domain) is
    /// not looked for.
    private func absence(_ result: CNIResult) -> String? {
        let inside = result.interfaces.indices.filter {
            result.interfaces[$0].sandbox == attachment.namespacePath && result.interfaces[$0].socketPath == nil
        }
        let names = inside.map { result.interfaces[$0].name }
        let wanted = result.interfaces.isEmpty ? [attachment.interface] : names
        let addresses = result.addresses.filter { address in address.interface.map { inside.contains($0) } ?? false }
            .map(\.address.address)
        if wanted.isEmpty { return nil }
        do throws(KernelError) {
            return try NetworkNamespace.run(in: attachment.namespacePath) { () throws(KernelError) -> String? in
                if let name = wanted.first(where: { if_nametoindex($0) == 0 }) {
                    return "the plugins say that they made the device \(name), but it is not there"
                }
                let present = try HostNetwork.addresses().map(\.network.address)
                if let address = addresses.first(where: { !present.contains($0) }) {
                    return "the plugins say that the pod has the address \(address), but no device has it"
                }
                return nil
            }
        } catch {
            return error.description
        }
    }
}
