import CNIPlugin
import CNISpec
import Glibc
import JSON
import Kernel
import Netfilter

/// What is published for one attachment, as `portmap` put it into the table.
package struct PublishedAttachment: Sendable {
    let owner: PortOwner
    let configuration: PortmapConfiguration
    let elements: PortTable.Elements
    /// By one of these the host reaches the container, or not at all.
    let hostDevices: Set<String>

    /// - Parameters:
    ///   - ports: as the plugin got them.
    ///   - result: of the plugin that made the device.
    package init(
        network: String, attachment: PluginAttachment, ports: [PortMapping], result: CNIResult
    ) throws(CNIError) {
        let input: JSONObject = [
            "cniVersion": "1.1.0", "name": .string(network), "type": .string(PortmapPlugin.name), "snat": true,
            "runtimeConfig": .object(CapabilityArguments(portMappings: ports).json),
            "prevResult": result.json(version: .v1_1_0),
        ]
        let environment = [
            "CNI_COMMAND": "ADD", "CNI_CONTAINERID": attachment.containerID, "CNI_NETNS": "/",
            "CNI_IFNAME": attachment.interface,
        ]
        let call = try PluginCall(
            environment: { environment[$0] }, input: JSONValue.object(input).serialized())
        configuration = try PortmapConfiguration(call)
        owner = PortOwner(network: network, attachment: attachment)
        elements = configuration.elements(owner)
        hostDevices = Set(result.interfaces.filter { $0.sandbox == nil }.map(\.name))
    }
}

/// The table of published ports, compared with what should be in it.
package enum PortRepair {
    package static let table = PortTable.name

    /// With `repairs` what is missing is there afterwards, and what is too much is gone.
    ///
    /// - Parameters:
    ///   - wanted: of all attachments of some networks.
    ///   - isOver: whether what the table has of an attachment that `wanted` does not name is too much.
    /// - Returns: what differed, in words.
    package static func look(
        _ wanted: [PublishedAttachment], repairs: Bool,
        isOver: (_ network: String, _ attachment: PluginAttachment) -> Bool
    ) throws(CNIError) -> [String] {
        var socket = try CNIError.from(CNIError.refusedByKernel) { () throws(KernelError) in try NetfilterSocket() }
        let state = try CNIError.from(CNIError.refusedByKernel) { () throws(KernelError) in
            try PortTableState(&socket)
        }
        let known = Dictionary(wanted.map { ($0.owner, $0) }) { first, _ in first }
        var words: [String] = []
        if !wanted.isEmpty, !state.isWhole {
            words.append(
                "the nf_tables table inet \(PortTable.name) is \(state.exists ? "not as it was made" : "missing")")
        }
        var lacking: Set<PortOwner> = []
        let present = PortTable.Part.allCases.reduce(into: [PortOwner: PortTable.Elements]()) { found, part in
            for element in state.elements[part] ?? [] {
                if let owner = PortOwner(element.comment) {
                    found[owner, default: [:]][part, default: []].append(element)
                }
            }
        }
        var devices: [PortOwner: String] = [:]
        var deaf: Set<String> = []
        for attachment in wanted {
            let found = present[attachment.owner] ?? [:]
            let differs = PortTable.Part.allCases.contains { part in
                part != .localnet && Set(found[part] ?? []) != Set(attachment.elements[part] ?? [])
            }
            if differs {
                lacking.insert(attachment.owner)
                let places = attachment.configuration.ports.map(\.place).joined(separator: ", ")
                words.append(
                    "of the published ports \(places) of \(attachment.owner.attachment.containerID) something is missing"
                )
            }
            // Where no way leads to the container there is none to open; whoever mends the way is asked again.
            guard let device = try? PortmapPlugin.loopbackDevice(attachment.configuration),
                attachment.hostDevices.contains(device)
            else { continue }
            devices[attachment.owner] = device
            let isOn = try CNIError.from(CNIError.refusedByKernel) { () throws(KernelError) in
                try LoopbackRouting.isOn(device)
            }
            if !isOn, deaf.insert(device).inserted { words.append("net.ipv4.conf.\(device).route_localnet is off") }
        }
        let extra = present.keys.filter { known[$0] == nil && isOver($0.network, $0.attachment) }
        words += extra.map { "the published ports of \($0.attachment.containerID), which is not there, are too much" }
        guard repairs, !words.isEmpty else { return words.sorted() }
        let (over, wasWhole) = (Set(extra), state.isWhole)
        try PortTableUpdate.run(&socket) { state throws(CNIError) in
            var elements = state.elements {
                lacking.contains($0) || over.contains($0) || !state.isWhole && known[$0] != nil
            }
            for attachment in wanted where lacking.contains(attachment.owner) || !state.isWhole {
                elements.merge(attachment.elements) { $0 + $1 }
            }
            for attachment in wanted {
                guard let device = devices[attachment.owner], deaf.contains(device) || !wasWhole,
                    !PortTableState.localnet(elements).contains(device)
                else { continue }
                let comment = attachment.configuration.hasDeviceOfItsOwn ? attachment.owner.comment : nil
                elements[.localnet, default: []].append(
                    FilterElement(key: PortTable.interfaceKey(device), comment: comment))
            }
            return elements
        }
        try CNIError.from(CNIError.refusedByKernel) { () throws(KernelError) in
            for device in deaf { try LoopbackRouting.set(device, true) }
            let ports = wanted.filter { lacking.contains($0.owner) }.flatMap(\.configuration.ports)
            try PortmapPlugin.forget(&socket, nowPublished: ports)
        }
        socket.closeUnawaited()
        return words.sorted()
    }
}
