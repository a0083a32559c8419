import DeviceDiscovery
import Glibc
import Kernel
import Testing

@Suite("What the kernel says of a machine's GPUs")
struct HostDevicesTests {
    static let uuid = "GPU-11111111-1111-1111-1111-111111111111"

    @Test("a machine without any has none, and nothing to complain of")
    func nothing() throws {
        let folder = try DeviceFolder()
        #expect(HostDevices.read(folder.roots) == HostDevices())
        #expect(HostDevices.read(DeviceRoots(below: "\(folder.path)/nowhere")) == HostDevices())
    }

    @Test("this machine's own procfs and sysfs can be read")
    func thisMachine() {
        #expect(HostDevices.read(DeviceRoots()).majors.major(of: "mem") == 1)
    }

    @Test("NVIDIA's driver tells model, uuid and minor of each GPU, and PCI where it is")
    func nvidia() throws {
        let folder = try DeviceFolder()
        try folder.nvidiaDriver()
        try folder.nvidia("0000:65:00.0", uuid: Self.uuid, minor: 3)
        try folder.nvidia("0000:b1:00.0", uuid: "GPU-????????-????-????-????-????????????", minor: 0, excluded: "Yes")
        try folder.write("proc/driver/nvidia-caps/mig-minors", "gpu3/gi1/access 12\ngpu3/gi1/ci0/access 13\n")
        try folder.gpu(
            "0000:65:00.0", vendor: "0x10de", device: "0x2335", deviceClass: "0x030200", driver: "nvidia", numa: 1)
        let host = HostDevices.read(folder.roots)
        #expect(host.problems.isEmpty)
        #expect(host.nvidia.version == "550.54.15")
        #expect(host.nvidia.capabilities.count == 2)
        let first = try #require(host.nvidia.gpus.first)
        #expect(first.address.description == "0000:65:00.0")
        #expect(first.model == "NVIDIA H200")
        #expect(first.uuid == Self.uuid)
        #expect(first.minor == 3)
        #expect(!first.isExcluded)
        #expect(host.nvidia.gpus[1].uuid == nil)
        #expect(host.nvidia.gpus[1].isExcluded)
        let pci = try #require(host.pci.first)
        #expect((pci.vendor, pci.device, pci.deviceClass) == (0x10de, 0x2335, 0x030200))
        #expect((pci.numaNode, pci.driver, pci.linkWidth, pci.maximumLinkWidth) == (1, "nvidia", 16, 16))
        #expect(host.majors.major(of: "kfd") == 236)
    }

    @Test("other devices on PCI are passed over")
    func otherDevices() throws {
        let folder = try DeviceFolder()
        try folder.gpu("0000:01:00.0", vendor: "0x15b3", device: "0x1017", deviceClass: "0x020000", driver: "mlx5_core")
        try folder.gpu("0000:02:00.0", vendor: "0x1002", device: "0x74a1", deviceClass: "0x120000", driver: "amdgpu")
        #expect(HostDevices.read(folder.roots).pci.map(\.device) == [0x74a1])
    }

    @Test("KFD's GPUs are its nodes that are no processors, with memory, links and render minor")
    func kfd() throws {
        let folder = try DeviceFolder()
        try folder.kfd(0, gpuID: 0, "cpu_cores_count 64\n")
        try folder.kfd(
            1, gpuID: 51140,
            """
            simd_count 440
            location_id 25600
            domain 1
            drm_render_minor 129
            unique_id 4241422387402343811
            gfx_target_version 90010

            """, memory: 68_702_699_520,
            links: [
                "type 2\nnode_from 1\nnode_to 0\nweight 20\n", "type 11\nnode_from 1\nnode_to 2\nweight 15\n",
                "type 8\nnode_to 3\n",
            ])
        let host = HostDevices.read(folder.roots)
        #expect(host.problems.isEmpty)
        let node = try #require(host.kfd.first)
        #expect(host.kfd.count == 1)
        #expect(node.address.description == "0001:64:00.0")
        #expect((node.renderMinor, node.architecture, node.memoryBytes) == (129, "gfx90a", 68_702_699_520))
        #expect(node.uniqueID == 4_241_422_387_402_343_811)
        #expect(node.links == [KFDLink(to: 0, kind: .pci, weight: 20), KFDLink(to: 2, kind: .xgmi, weight: 15)])
    }

    @Test("nodes of the graphics layer have numbers, and a parent on PCI or a platform's partition")
    func drm() throws {
        let folder = try DeviceFolder()
        try folder.drm("card0", "226:0", of: "pci0000:00/0000:03:00.0")
        try folder.write("sys/devices/pci0000:00/0000:03:00.0/drm/card0/lmem_total_bytes", "17179869184\n")
        try folder.drm("renderD129", "226:129", of: "platform/amdgpu_xcp_1")
        try folder.write("sys/class/drm/version", "drm 1.1.0\n")
        try folder.write("sys/class/drm/card0-DP-1/status", "connected\n")
        let host = HostDevices.read(folder.roots)
        #expect(host.problems.isEmpty)
        #expect(host.drm.map(\.name) == ["card0", "renderD129"])
        #expect(host.drm[0].parent == .pci(try #require(PCIAddress("0000:03:00.0"))))
        #expect(host.drm[0].memoryBytes == 17_179_869_184)
        #expect(host.drm[1].parent == .platform("amdgpu_xcp_1"))
        #expect((host.drm[1].major, host.drm[1].minor, host.drm[1].isRender) == (226, 129, true))
    }

    /// What is done to one file of a tree in which all is well.
    enum Damage: String, CaseIterable, Sendable {
        case empty, garbage, huge, folder, pipe, loop, gone
    }

    @Test("a damaged file costs what it says, and nothing else", arguments: Damage.allCases)
    func damage(kind: Damage) throws {
        let names = [
            "proc/devices", "proc/driver/nvidia/version", "proc/driver/nvidia/gpus/0000:65:00.0/information",
            "proc/driver/nvidia-caps/mig-minors", "sys/devices/pci0000:00/0000:65:00.0/class",
            "sys/devices/pci0000:00/0000:65:00.0/numa_node", "sys/devices/pci0000:00/0000:65:00.0/drm/card1/dev",
            "sys/devices/virtual/kfd/kfd/topology/nodes/1/properties",
            "sys/devices/virtual/kfd/kfd/topology/nodes/1/gpu_id",
        ]
        for name in names {
            let folder = try DeviceFolder()
            try folder.nvidiaDriver()
            try folder.nvidia("0000:65:00.0", uuid: Self.uuid, minor: 3)
            try folder.write("proc/driver/nvidia-caps/mig-minors", "gpu3/gi1/access 12\n")
            try folder.gpu(
                "0000:65:00.0", vendor: "0x10de", device: "0x2335", deviceClass: "0x030200", driver: "nvidia")
            try folder.gpu(
                "0000:66:00.0", vendor: "0x1002", device: "0x74a1", deviceClass: "0x120000", driver: "amdgpu")
            try folder.drm("card1", "226:1", of: "pci0000:00/0000:65:00.0")
            try folder.kfd(1, gpuID: 7, "location_id 26112\ndrm_render_minor 128\n")
            let path = "\(folder.path)/\(name)"
            try File.removeFile(path)
            switch kind {
            case .empty: try folder.write(name, "")
            case .garbage: try folder.write(name, bytes: (0..<3000).map { UInt8(truncatingIfNeeded: $0 &* 7919 >> 3) })
            case .huge: try folder.write(name, bytes: [UInt8](repeating: 48, count: 5 << 20))
            case .folder: try File.makeDirectories(path)
            case .pipe: try systemCall("mkfifo") { mkfifo(path, 0o600) }
            case .loop: try folder.link(name, to: path.pathComponents.last.map { String($0) } ?? "")
            case .gone: break
            }
            let host = HostDevices.read(folder.roots)
            if [.huge, .folder, .pipe, .loop].contains(kind) { #expect(!host.problems.isEmpty, "\(name)") }
            // All else is still found: the other GPU, which no damaged file is about.
            #expect(host.pci.contains { $0.address.description == "0000:66:00.0" && $0.driver == "amdgpu" }, "\(name)")
            #expect(host.problems.count <= 2 * DeviceTree.problemLimit)
        }
    }

    @Test("a tree of links that lead nowhere, in circles and out of it is left alone")
    func hostileLinks() throws {
        let folder = try DeviceFolder()
        try folder.link("sys/bus/pci/devices/0000:01:00.0", to: "0000:01:00.0")
        try folder.link("sys/bus/pci/devices/0000:02:00.0", to: "/etc")
        try folder.link("sys/bus/pci/devices/0000:03:00.0", to: "../../../../../../../../../etc")
        try folder.link("sys/class/kfd", to: "..")
        try folder.link("sys/class/drm", to: "drm")
        try folder.link("proc/driver", to: "/proc/self/root/etc")
        let host = HostDevices.read(folder.roots)
        #expect(host.pci.isEmpty)
        #expect(host.kfd.isEmpty)
        #expect(host.drm.isEmpty)
        #expect(host.nvidia == NVIDIADriverFiles())
    }

    @Test("names in the drivers' folders that are no addresses are told and passed over")
    func strangeNames() throws {
        let folder = try DeviceFolder()
        try folder.write("sys/bus/pci/devices/README/class", "0x030200\n")
        try folder.write("proc/driver/nvidia/gpus/one\u{1b}[31m/information", "Device Minor: 1\n")
        let host = HostDevices.read(folder.roots)
        #expect(host.pci.isEmpty)
        #expect(host.nvidia.gpus.isEmpty)
        #expect(host.problems.count == 2)
        #expect(!host.problems.joined().contains("\u{1b}"))
    }

    @Test("what may not be read is a problem", .enabled(if: geteuid() != 0, "root may read everything"))
    func denied() throws {
        let folder = try DeviceFolder()
        try folder.nvidiaDriver()
        chmod("\(folder.path)/proc/devices", 0)
        #expect(HostDevices.read(folder.roots).problems.count == 1)
    }

    @Test("a node's path is looked at without opening it")
    func nodes() throws {
        let folder = try DeviceFolder()
        var roots = folder.roots
        #expect(NodeState.look(at: "/dev/nvidia0", major: 195, minor: 0, in: roots) == .missing)
        try folder.write("dev/nvidia0", "")
        guard case .wrong(let words) = NodeState.look(at: "/dev/nvidia0", major: 195, minor: 0, in: roots) else {
            Issue.record("a file passed for a device")
            return
        }
        #expect(words.contains("/dev/nvidia0 is no character device"))
        roots.dev = "/dev"
        #expect(NodeState.look(at: "/dev/null", major: 1, minor: 3, in: roots) == .present)
        #expect(
            NodeState.look(at: "/dev/null", major: 195, minor: 0, in: roots)
                == .wrong("/dev/null is device 1:3, and the driver's is 195:0"))
    }
}
