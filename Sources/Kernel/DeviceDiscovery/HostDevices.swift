import CKernel
import Glibc
import Kernel

/// What a machine's kernel says of its GPUs in procfs and sysfs. Reading it loads nothing and executes nothing.
package struct HostDevices: Sendable, Equatable {
    /// Display controllers and accelerators.
    package var pci: [PCIDevice] = []
    package var majors = DeviceMajors()
    package var nvidia = NVIDIADriverFiles()
    package var kfd: [KFDNode] = []
    package var drm: [DRMNode] = []
    /// How AMD's GPUs are divided, by address: `CPX`.
    package var computePartitions: [PCIAddress: String] = [:]
    /// The version of a driver that is no part of the kernel, by its module.
    package var moduleVersions: [String: String] = [:]
    /// Sentences on what is there and could not be read.
    package var problems: [String] = []

    /// A machine without any.
    package init() {}

    /// Reads all of it. What cannot be read is in `problems`.
    ///
    /// It may block where a driver does: a caller that must not be held up runs it on a thread of its own.
    package static func read(_ roots: DeviceRoots) -> HostDevices {
        var proc = DeviceTree(roots.proc)
        var sys = DeviceTree(roots.sys)
        var host = HostDevices()
        host.majors = DeviceMajors(proc.text("devices", limit: 256 << 10) ?? "")
        host.nvidia = NVIDIADriverFiles.read(&proc)
        host.pci = PCIDevice.list(&sys)
        host.drm = DRMNode.list(&sys)
        host.kfd = KFDNode.list(&sys)
        for device in host.pci where device.driver == "amdgpu" {
            let path = "bus/pci/devices/\(device.address)/current_compute_partition"
            host.computePartitions[device.address] = sys.text(path, limit: 64).flatMap { word($0) }
        }
        for module in ["nvidia", "amdgpu", "i915", "xe"] {
            host.moduleVersions[module] = sys.text("module/\(module)/version", limit: 256).map { $0.cleaned }
        }
        host.problems = proc.problems + sys.problems
        return host
    }

    /// Whether NVIDIA's driver is loaded.
    package var hasNVIDIADriver: Bool {
        nvidia.version != nil || majors.major(of: "nvidiactl", "nvidia", "nvidia-frontend") != nil
    }

    private static func word(_ text: String) -> String? {
        (1...16).contains(text.utf8.count) && text.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7f } ? text : nil
    }
}

/// What is at a device node's path.
package enum NodeState: Sendable, Equatable {
    /// The device that is meant.
    case present
    /// Nothing: the driver's tool that makes it has not run, or udev has not.
    case missing
    /// Something else, or it cannot be looked at; in words.
    case wrong(String)

    /// Looks at a character device without opening it.
    ///
    /// - Parameter path: below /dev, `/dev/nvidia0`.
    package static func look(at path: String, major: UInt32, minor: UInt32, in roots: DeviceRoots) -> NodeState {
        let path = path.hasPrefix("/dev/") ? roots.dev + path.dropFirst(4) : path
        var information = stat()
        guard lstat(path, &information) == 0 else {
            let number = errno
            return number == ENOENT ? .missing : .wrong("\(path) cannot be looked at: \(String(errno: number))")
        }
        guard information.st_mode & S_IFMT == S_IFCHR else { return .wrong("\(path) is no character device") }
        let found = (ck_major(UInt64(information.st_rdev)), ck_minor(UInt64(information.st_rdev)))
        return found == (major, minor)
            ? .present : .wrong("\(path) is device \(found.0):\(found.1), and the driver's is \(major):\(minor)")
    }
}
