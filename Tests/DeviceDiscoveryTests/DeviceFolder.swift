import DeviceDiscovery
import Glibc
import Kernel

/// A folder with a procfs, a sysfs and a /dev of our own in it; gone with this value.
struct DeviceFolder: ~Copyable {
    let path: String
    var roots: DeviceRoots { DeviceRoots(below: path) }

    init() throws {
        var template = Array("/tmp/martlet-devices-XXXXXX".utf8CString)
        guard let made = mkdtemp(&template) else { throw KernelError("mkdtemp", "/tmp", errno: errno) }
        let path = String(cString: made)
        for name in ["proc", "sys", "dev"] { try File.makeDirectories("\(path)/\(name)") }
        self.path = path
    }

    deinit {
        _ = try? Program("/bin/rm", ["-rf", path]).run()
    }

    /// A file with its folders.
    func write(_ name: String, _ text: String) throws {
        try write(name, bytes: Array(text.utf8))
    }

    func write(_ name: String, bytes: [UInt8]) throws {
        try File.makeDirectories(String("\(path)/\(name)"[..<("\(path)/\(name)".lastSlash ?? path.startIndex)]))
        let file = try File.open("\(path)/\(name)", O_WRONLY | O_CREAT | O_TRUNC, mode: 0o644)
        try file.writeAll(bytes)
    }

    func link(_ name: String, to target: String) throws {
        try File.makeDirectories(String("\(path)/\(name)"[..<("\(path)/\(name)".lastSlash ?? path.startIndex)]))
        try systemCall("symlink", name) { symlink(target, "\(path)/\(name)") }
    }

    /// A GPU as sysfs has it: its folder deep in /sys/devices, and a link to it.
    func gpu(_ address: String, vendor: String, device: String, deviceClass: String, driver: String?, numa: Int = 0)
        throws
    {
        let folder = "sys/devices/pci0000:00/\(address)"
        try write("\(folder)/vendor", "\(vendor)\n")
        try write("\(folder)/device", "\(device)\n")
        try write("\(folder)/class", "\(deviceClass)\n")
        try write("\(folder)/numa_node", "\(numa)\n")
        try write("\(folder)/current_link_width", "16\n")
        try write("\(folder)/max_link_width", "16\n")
        if let driver { try link("\(folder)/driver", to: "../../../bus/pci/drivers/\(driver)") }
        try link("sys/bus/pci/devices/\(address)", to: "../../../devices/pci0000:00/\(address)")
    }

    /// A node of the graphics layer below a device's folder.
    func drm(_ name: String, _ numbers: String, of folder: String) throws {
        try write("sys/devices/\(folder)/drm/\(name)/dev", "\(numbers)\n")
        let device = folder.pathComponents.last.map { String($0) } ?? folder
        try link("sys/devices/\(folder)/drm/\(name)/device", to: "../../../\(device)")
        try link("sys/class/drm/\(name)", to: "../../devices/\(folder)/drm/\(name)")
    }

    /// A node of AMD's compute topology.
    func kfd(_ number: Int, gpuID: UInt64, _ properties: String, memory: UInt64 = 0, links: [String] = []) throws {
        let folder = "sys/devices/virtual/kfd/kfd/topology/nodes/\(number)"
        try write("\(folder)/gpu_id", "\(gpuID)\n")
        try write("\(folder)/properties", properties)
        if memory > 0 { try write("\(folder)/mem_banks/0/properties", "heap_type 1\nsize_in_bytes \(memory)\n") }
        for (index, link) in links.enumerated() { try write("\(folder)/io_links/\(index)/properties", link) }
        if !File.exists("\(path)/sys/class/kfd") { try link("sys/class/kfd", to: "../devices/virtual/kfd") }
    }

    /// What NVIDIA's driver writes of a GPU.
    func nvidia(_ address: String, uuid: String, minor: Int, model: String = "NVIDIA H200", excluded: String = "No")
        throws
    {
        try write(
            "proc/driver/nvidia/gpus/\(address)/information",
            """
            Model: \t\t \(model)
            IRQ:   \t\t 140
            GPU UUID: \t \(uuid)
            Video BIOS: \t 96.00.61.00.01
            Bus Type: \t PCIe
            DMA Size: \t 52 bits
            DMA Mask: \t 0xfffffffffffff
            Bus Location: \t \(address)
            Device Minor: \t \(minor)
            GPU Firmware: \t 550.54.15
            GPU Excluded:\t \(excluded)

            """)
    }

    /// The majors and the version of a driver that is loaded.
    func nvidiaDriver(_ version: String = "550.54.15") throws {
        try write(
            "proc/devices",
            """
            Character devices:
              1 mem
            195 nvidia
            195 nvidia-modeset
            195 nvidiactl
            226 drm
            234 nvidia-uvm
            235 nvidia-caps
            236 kfd

            Block devices:
              8 sd
            999 kfd

            """)
        try write(
            "proc/driver/nvidia/version",
            """
            NVRM version: NVIDIA UNIX x86_64 Kernel Module  \(version)  Tue Mar  5 22:23:56 UTC 2024
            GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)

            """)
    }
}
