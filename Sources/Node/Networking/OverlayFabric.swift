import CNISpec
import Kernel
import Netlink
import Synchronization

/// A pod of this node on an overlay network, as the plugin wired it.
struct OverlayPod: Sendable, Equatable {
    let id: String
    /// The host's end of its device.
    let device: String
    /// Of the container's end.
    let mac: MACAddress
    let addresses: [IPAddress]

    /// nil when the result does not say what is needed.
    init?(_ id: String, _ result: CNIResult) {
        guard let device = result.interfaces.first(where: { $0.sandbox == nil })?.name,
            let mac = result.interfaces.first(where: { $0.sandbox != nil })?.mac
        else { return nil }
        self.id = id
        self.device = device
        self.mac = mac
        addresses = result.inside.map(\.address.address)
    }
}

final class OverlayFabric: Sendable {
    static let table = OverlayNumbers.table

    init(underlay: IPAddress, mark: String, nodeBridge: String, store: OverlayStore) {}
    func mtu(of configuration: OverlayNetworkConfiguration) -> Int? { nil }
    func install(_ configuration: OverlayNetworkConfiguration) throws(NetworkError) -> Int { 1450 }
    func uninstall(_ name: String) throws(NetworkError) {}
    func add(_ pod: OverlayPod, to name: String) {}
    func remove(pod id: String, from name: String) {}
    func load() throws(KernelError) {}
    func adopt(_ configuration: OverlayNetworkConfiguration, pods: [OverlayPod]) {}
    var networksWithPeers: Set<String> { [] }
    func setPeers(_ peers: [OverlayPeer], of name: String) throws(NetworkError) {}
    func update(_ peer: OverlayPeer, of name: String) throws(NetworkError) {}
    func remove(peer key: String, of name: String) throws(NetworkError) {}
    func look(repairs: Bool) -> [String] { [] }
    func removeAll() -> [String] { [] }
}

final class OverlayWatch: Sendable {
    init(_ fabric: OverlayFabric, report: @escaping @Sendable ([String]) -> Void) throws(KernelError) {}
    func stop() {}
}
