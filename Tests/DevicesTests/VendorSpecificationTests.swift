import CDISpec
import DeviceDiscovery
import Devices
import Glibc
import Kernel
import NVMLReport
import OCISpec
import Testing

@Suite("What a container needs to use devices, made of what was discovered")
struct VendorSpecificationTests {
    private func only(_ machine: NVIDIAMachine, _ roots: DeviceRoots = DeviceRoots(below: "/nowhere")) throws
        -> VendorSpecification
    {
        let all = VendorSpecification.all(machine.inventory, roots: roots)
        #expect(all.count == 1)
        return try #require(all.first)
    }

    private func nodes(_ edits: CDIEdits) -> [String] {
        edits.deviceNodes.map {
            "\($0.path) \($0.type?.rawValue ?? "?") \($0.major):\($0.minor) \($0.permissions ?? "?")"
        }
    }

    @Test("a GPU is its minor's node and the vendor's control nodes, to be used and not to be made")
    func whole() throws {
        let specification = try only(NVIDIAMachine(2))
        #expect(specification.kind.description == "nvidia.com/gpu")
        #expect(
            specification.devices.map(\.name) == [NVIDIAMachine.uuid(0), "0", NVIDIAMachine.uuid(1), "1", "all"])
        let edits = try specification.edits(of: [NVIDIAMachine.uuid(0)])
        #expect(
            nodes(edits) == [
                "/dev/nvidiactl c 195:255 rw", "/dev/nvidia-uvm c 234:0 rw", "/dev/nvidia-uvm-tools c 234:1 rw",
                "/dev/nvidia1 c 195:1 rw",
            ])
        #expect(edits.env == ["NVIDIA_VISIBLE_DEVICES=void"])
        #expect(edits.hooks.isEmpty, "nobody else's program is run")
        // By number in the order of addresses, which is not that of minors.
        let zero = try #require(specification.devices.first { $0.name == "0" })
        #expect(nodes(zero.edits) == ["/dev/nvidia1 c 195:1 rw"])
        let all = try #require(specification.devices.first { $0.name == "all" })
        #expect(nodes(all.edits) == ["/dev/nvidia1 c 195:1 rw", "/dev/nvidia0 c 195:0 rw"])
    }

    @Test("a part of a GPU brings its capabilities along, and the whole of it cannot be had")
    func parts() throws {
        var machine = NVIDIAMachine(2)
        machine.divide(0, into: 2)
        let specification = try only(machine)
        let part = "MIG-02aaaaaa-1111-1111-1111-111111111111"
        #expect(specification.devices.map(\.name).contains("0:1"))
        #expect(!specification.ids.contains(NVIDIAMachine.uuid(0)))
        #expect(!specification.devices.contains { $0.name == "0" })
        let edits = try specification.edits(of: [part])
        #expect(
            nodes(edits).suffix(3) == [
                "/dev/nvidia1 c 195:1 rw", "/dev/nvidia-caps/nvidia-cap20 c 235:20 rw",
                "/dev/nvidia-caps/nvidia-cap21 c 235:21 rw",
            ])
        // Two parts of one GPU share its node.
        let both = try specification.edits(of: [part, "MIG-01aaaaaa-1111-1111-1111-111111111111"])
        #expect(nodes(both).filter { $0.hasPrefix("/dev/nvidia1 ") }.count == 1)
    }

    @Test("what cannot be granted is in no specification, and asking for it names it")
    func refused() throws {
        var machine = NVIDIAMachine(2)
        machine.host.pci[0].driver = "vfio-pci"
        machine.host.nvidia.gpus.removeFirst()
        machine.nvml.gpus.removeFirst()
        let specification = try only(machine)
        // nvidia-smi does not count it either.
        #expect(specification.devices.map(\.name) == [NVIDIAMachine.uuid(1), "0", "all"])
        #expect(specification.ids(named: "0") == [NVIDIAMachine.uuid(1)] && specification.ids(named: "1") == [])
        let error = #expect(throws: CDIError.self) { try specification.edits(of: [NVIDIAMachine.uuid(0)]) }
        #expect(error?.description.contains(NVIDIAMachine.uuid(0)) == true)
        machine.host.pci[1].driver = "vfio-pci"
        #expect(VendorSpecification.all(machine.inventory, roots: DeviceRoots(below: "/nowhere")).isEmpty)
        #expect(VendorSpecification.all(DeviceInventory(), roots: DeviceRoots(below: "/nowhere")).isEmpty)
    }

    @Test("the driver's libraries and programs are there, read-only, by the names that programs ask for")
    func libraries() throws {
        let folder = try DriverFolder()
        for name in [
            "libcuda.so.550.54.15", "libnvidia-gpucomp.so.550.54.15", "libnvidia-ml.so.535.1.1",
            "libGLX_nvidia.so.550.54.15", "libc.so.6", "libnvidia-nvvm70.so.4",
        ] {
            try folder.write("lib/\(name)")
        }
        try folder.link("lib/libcuda.so.1", to: "libcuda.so.550.54.15")
        try folder.link("lib/libnvidia-ml.so.1", to: "libnvidia-ml.so.535.1.1")
        try folder.link("lib/libnvidia-opencl.so.1", to: "nowhere")
        try folder.write("bin/nvidia-smi")
        let edits = try only(NVIDIAMachine(1), folder.roots).edits
        let inside = { (name: String) in DeviceRoots.linkerFolders.map { "\($0)/\(name)" } }
        #expect(
            edits.mounts.map(\.containerPath) == ["/usr/bin/nvidia-smi"]
                + (DeviceRoots.linkerFolders + ["/usr/local/nvidia/lib64"]).flatMap {
                    ["\($0)/libcuda.so", "\($0)/libcuda.so.1"]
                } + inside("libnvidia-gpucomp.so.550.54.15") + inside("libnvidia-nvvm70.so.4"),
            "one of another version than the kernel's driver is none of it")
        #expect(edits.mounts.allSatisfy { $0.options == ["ro", "nosuid", "nodev", "bind"] })
        let library = try #require(edits.mounts.first { $0.containerPath.hasSuffix("/libcuda.so.1") })
        #expect(library.hostPath.hasSuffix("/lib/libcuda.so.550.54.15"), "links are not left to the container")
    }

    @Test("it is a specification that this version's readers take")
    func valid() throws {
        var machine = NVIDIAMachine(4)
        machine.divide(1, into: 7)
        let made = try only(machine)
        let whole = try CDISpecification(kind: made.kind, devices: made.devices, edits: made.edits)
        #expect(try CDISpecification.parse(whole.encoded()) == whole)
        #expect(whole.version <= .v0_5_0, "Debian's podman reads it")
    }
}

/// A folder with a driver's libraries and programs; gone with this value.
private struct DriverFolder: ~Copyable {
    let path: String
    var roots: DeviceRoots { DeviceRoots(below: path) }

    init() throws {
        var template = Array("/tmp/martlet-driver-XXXXXX".utf8CString)
        guard let made = mkdtemp(&template) else { throw KernelError("mkdtemp", "/tmp", errno: errno) }
        let path = String(cString: made)
        for name in ["lib", "bin"] { try File.makeDirectories("\(path)/\(name)") }
        self.path = path
    }

    deinit { _ = try? Program("/bin/rm", ["-rf", path]).run() }

    func write(_ name: String) throws { try File.replace("\(path)/\(name)", with: Array(name.utf8), mode: 0o755) }
    func link(_ name: String, to target: String) throws {
        try systemCall("symlink", name) { symlink(target, "\(path)/\(name)") }
    }
}
