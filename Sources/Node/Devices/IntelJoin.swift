import DeviceDiscovery

/// Joins the graphics layer and PCI to Intel's devices. They have no name of their own that the kernel would tell: the
/// address is what is stable.
struct IntelJoin {
    private let host: HostDevices

    init(_ host: HostDevices) { self.host = host }

    func devices() -> [Device] {
        host.pci.filter { DeviceVendor(pci: $0.vendor) == .intel }.map { pci in
            var device = Device(id: "intel-\(pci.address)", vendor: .intel)
            device.pciAddress = pci.address
            device.read(pci)
            device.requireDriver(["i915", "xe"])
            device.driverVersion = device.driver.flatMap { host.moduleVersions[$0] }
            device.model = pci.productName
            let nodes = host.drm.filter { $0.parent == .pci(pci.address) }.sorted { $0.isRender && !$1.isRender }
            device.nodes = nodes.map { DeviceFile("/dev/dri/\($0.name)", $0.major, $0.minor, .device) }
            device.minor = nodes.first { $0.isRender }?.minor
            device.memoryBytes = nodes.lazy.compactMap(\.memoryBytes).first
            if nodes.isEmpty {
                device.health.worsen(.unusable, "it has no nodes in /dev/dri")
            } else {
                device.sources.insert(.drm)
            }
            return device
        }
    }
}
