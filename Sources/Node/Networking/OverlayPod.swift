import CNISpec

/// A pod of this node on an overlay network, as the plugin wired it.
struct OverlayPod: Sendable, Equatable {
    let id: String
    /// The host's end of its device.
    let device: String
    /// Of the container's end.
    let mac: MACAddress
    let addresses: [IPAddress]

    init(id: String, device: String, mac: MACAddress, addresses: [IPAddress]) {
        self.id = id
        self.device = device
        self.mac = mac
        self.addresses = addresses
    }

    /// nil when the result does not say what is needed.
    init?(_ id: String, _ result: CNIResult) {
        guard let device = result.interfaces.first(where: { $0.sandbox == nil })?.name,
            let mac = result.interfaces.first(where: { $0.sandbox != nil })?.mac
        else { return nil }
        self.init(id: id, device: device, mac: mac, addresses: result.inside.map(\.address.address))
    }
}
