/// A GPU or other accelerator as PCI has it, whatever its driver says.
package struct PCIDevice: Sendable, Equatable {
    package let address: PCIAddress
    /// 0x10de NVIDIA, 0x1002 AMD, 0x8086 Intel.
    package let vendor: UInt16
    package let device: UInt16
    /// Base class, subclass, interface: 0x030200 is a 3D controller.
    package let deviceClass: UInt32
    /// The memory node that it is near to; nil: the machine does not say, or has one only.
    package var numaNode: Int?
    /// The driver that has it; nil: none.
    package var driver: String?
    /// Lanes in use, and lanes that both ends could use.
    package var linkWidth: Int?
    package var maximumLinkWidth: Int?
    /// What the device calls itself (AMD, from its FRU).
    package var productName: String?

    /// What identifies it; the rest is not known.
    package init(address: PCIAddress, vendor: UInt16, device: UInt16, deviceClass: UInt32) {
        self.address = address
        self.vendor = vendor
        self.device = device
        self.deviceClass = deviceClass
    }

    /// Display controllers, and processing accelerators (AMD's Instinct since the MI300).
    package static func isAccelerator(_ deviceClass: UInt32) -> Bool {
        [0x03, 0x12].contains(deviceClass >> 16)
    }

    /// Those of a sysfs.
    ///
    /// What is read of each is what the kernel keeps of it or has in its configuration space: no driver is asked.
    package static func list(_ sys: inout DeviceTree) -> [PCIDevice] {
        sys.list("bus/pci/devices").compactMap { name in
            guard let address = PCIAddress(name) else {
                sys.note("bus/pci/devices has '\(name.cleaned)', which is no PCI address")
                return nil
            }
            let folder = "bus/pci/devices/\(name)"
            guard let deviceClass = sys.number("\(folder)/class"), deviceClass <= 0xffffff,
                isAccelerator(UInt32(deviceClass)), let vendor = sys.number("\(folder)/vendor"),
                let vendor = UInt16(exactly: vendor), let device = sys.number("\(folder)/device"),
                let device = UInt16(exactly: device)
            else { return nil }
            var found = PCIDevice(
                address: address, vendor: vendor, device: device, deviceClass: UInt32(deviceClass))
            // -1: not known.
            found.numaNode = sys.text("\(folder)/numa_node", limit: 64).flatMap { Int($0) }
                .flatMap { (0..<1024).contains($0) ? $0 : nil }
            found.driver = sys.linkName("\(folder)/driver")
            found.linkWidth = Self.width(sys.text("\(folder)/current_link_width", limit: 64))
            found.maximumLinkWidth = Self.width(sys.text("\(folder)/max_link_width", limit: 64))
            found.productName = sys.text("\(folder)/product_name", limit: 256).map { $0.cleaned }
            return found
        }
    }

    /// Lanes; 0, 63 and 255 are what a device says that does not answer, or is none of PCI Express.
    private static func width(_ text: String?) -> Int? {
        text.flatMap { Int($0) }.flatMap { (1...32).contains($0) ? $0 : nil }
    }
}
