import Glibc
import Kernel

/// A machine's procfs, sysfs, /dev and driver with GPUs of NVIDIA's in a cluster's folder, and no hardware: their nodes have
/// numbers that no driver of this machine answers to (ENXIO), and a library of ours tells of them.
struct FakeGPUs {
    let root: String
    let count: Int

    static func uuid(_ index: Int) -> String { "GPU-\(index)1111111-1111-1111-1111-111111111111" }
    /// Not the index.
    func minor(_ index: Int) -> Int { count - 1 - index }

    init(_ count: Int, of cluster: TestCluster) throws {
        root = cluster.deviceRoot
        self.count = count
        let names = ["proc/driver/nvidia/gpus", "sys/bus/pci/devices", "sys/devices/pci0000:00", "dev", "lib", "bin"]
        for name in names { try File.makeDirectories("\(root)/\(name)", mode: 0o755) }
        try write("proc/devices", "Character devices:\n195 nvidia\n195 nvidiactl\n234 nvidia-uvm\n235 nvidia-caps\n")
        try write("proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue\n")
        for index in 0..<count {
            let address = "0000:\(10 + index):00.0"
            let folder = "sys/devices/pci0000:00/\(address)"
            for (name, text) in [
                ("vendor", "0x10de"), ("device", "0x2335"), ("class", "0x030200"), ("numa_node", "0"),
            ] {
                try write("\(folder)/\(name)", text + "\n")
            }
            try link("\(folder)/driver", to: "../../../bus/pci/drivers/nvidia")
            try link("sys/bus/pci/devices/\(address)", to: "../../../devices/pci0000:00/\(address)")
            try write(
                "proc/driver/nvidia/gpus/\(address)/information",
                "Model: \t\t NVIDIA H200\nGPU UUID: \t \(Self.uuid(index))\nDevice Minor: \t \(minor(index))\n")
            try node("nvidia\(minor(index))", 195, minor(index))
        }
        for (name, major, minor) in [("nvidiactl", 195, 255), ("nvidia-uvm", 234, 0), ("nvidia-uvm-tools", 234, 1)] {
            try node(name, major, minor)
        }
        try write("lib/libcuda.so.550.54.15", "a library\n")
        try link("lib/libcuda.so.1", to: "libcuda.so.550.54.15")
        try setFixture()
        let source = String(#filePath.dropLast("/Tests/SystemTests/FakeGPUs.swift".count))
        let path = getenv("PATH").map { String(cString: $0) } ?? "/usr/bin:/bin"
        let result = try Program(
            "\(source)/scripts/fakenvml.sh", ["\(root)/lib/libnvidia-ml.so.1"], environment: ["PATH=\(path)"],
            timeoutMilliseconds: 120_000
        ).run()
        guard result.status == .exited(0) else {
            throw KernelError("compile", "fakenvml.c", errno: EIO, hint: result.errorText)
        }
    }

    /// The folder of `init(amdOf:)`'s GPU.
    static let amd = "sys/devices/pci0000:00/0000:03:00.0"

    /// One of AMD's instead, whose driver says by files how it is used.
    init(amdOf cluster: TestCluster) throws {
        root = cluster.deviceRoot
        count = 0
        for name in ["proc", "sys/bus/pci/devices", "sys/class/drm", "dev/dri", "lib", "bin"] {
            try File.makeDirectories("\(root)/\(name)", mode: 0o755)
        }
        try write("proc/devices", "Character devices:\n226 drm\n236 kfd\n")
        for (name, text) in [
            ("vendor", "0x1002"), ("device", "0x740f"), ("class", "0x038000"), ("numa_node", "0"),
            ("gpu_busy_percent", "42"), ("mem_info_vram_total", "68702699520"), ("mem_info_vram_used", "1073741824"),
            ("hwmon/hwmon3/power1_average", "91000000"), ("hwmon/hwmon3/temp1_input", "45000"),
        ] {
            try write("\(Self.amd)/\(name)", text + "\n")
        }
        try setErrors(0)
        try link("\(Self.amd)/driver", to: "../../../bus/pci/drivers/amdgpu")
        try link("sys/bus/pci/devices/0000:03:00.0", to: "../../../devices/pci0000:00/0000:03:00.0")
        for (name, minor) in [("card1", 1), ("renderD128", 128)] {
            try write("\(Self.amd)/drm/\(name)/dev", "226:\(minor)\n")
            try link("\(Self.amd)/drm/\(name)/device", to: "../../../0000:03:00.0")
            try link("sys/class/drm/\(name)", to: "../../devices/pci0000:00/0000:03:00.0/drm/\(name)")
            try node("dri/\(name)", 226, minor)
        }
        try node("kfd", 236, 0)
        let topology = "sys/devices/virtual/kfd/kfd/topology/nodes/1"
        try write("\(topology)/gpu_id", "51140\n")
        try write(
            "\(topology)/properties",
            "simd_count 440\nlocation_id 768\ndomain 0\ndrm_render_minor 128\nunique_id 4241422387402343811\n"
                + "gfx_target_version 90010\n")
        try write("\(topology)/mem_banks/0/properties", "heap_type 1\nsize_in_bytes 68702699520\n")
        try link("sys/class/kfd", to: "../devices/virtual/kfd")
    }

    /// Errors of its memory that AMD's driver says could not be corrected.
    func setErrors(_ count: Int) throws { try write("\(Self.amd)/ras/umc_err_count", "ue: \(count)\nce: 7\n") }

    /// What the library says of the GPUs, with more lines for some of them.
    func setFixture(_ more: String = "") throws {
        let lines = (0..<count).map { index in
            "gpu \(Self.uuid(index)) minor=\(minor(index)) pci=0:\(10 + index):0 name=NVIDIA_H200 memory=143771 cc=9.0"
        }
        try write("fixture", (["driver 550.54.15", "cuda 12040"] + lines + [more]).joined(separator: "\n") + "\n")
    }

    private func write(_ name: String, _ text: String) throws {
        let path = "\(root)/\(name)"
        try File.makeDirectories(String(path[..<(path.lastIndex(of: "/") ?? path.endIndex)]), mode: 0o755)
        try File.replace(path, with: Array(text.utf8), mode: 0o644)
    }

    private func link(_ name: String, to target: String) throws {
        try systemCall("symlink", name) { symlink(target, "\(root)/\(name)") }
    }

    private func node(_ name: String, _ major: Int, _ minor: Int) throws {
        try systemCall("mknod", name) {
            mknod("\(root)/dev/\(name)", S_IFCHR | 0o666, dev_t(major << 8 | minor))
        }
    }
}
