import DeviceDiscovery
import Testing

@Suite("What drivers write, line by line")
struct ParsingTests {
    @Test(
        "a PCI address is read as the kernel and as NVML write it, and written as the kernel does",
        arguments: [
            ("0000:65:00.0", "0000:65:00.0"), ("00000000:3B:00.0", "0000:3b:00.0"), ("10000:e1:1f.7", "10000:e1:1f.7"),
        ])
    func pciAddress(text: String, written: String) {
        #expect(PCIAddress(text)?.description == written)
    }

    @Test(
        "what is no PCI address is refused",
        arguments: [
            "", "0000:65:00", "65:00.0", "0000:65:20.0", "0000:65:00.8", "0000:065:00.0", "-000:65:00.0",
            "0000:+5:00.0",
            "0000:65:00.0\n", "000000000:65:00.0", "0000:65:00.0/x", "..",
        ])
    func noPCIAddress(text: String) {
        #expect(PCIAddress(text) == nil)
    }

    @Test("majors are those of character devices, whatever lines are between")
    func majors() {
        let majors = DeviceMajors(
            """
            Character devices:
              1 mem
            195 nvidia
            garbage
            99999 toolarge
            235 nvidia-caps

            Block devices:
              8 sd
            """)
        #expect(majors.major(of: "nvidia") == 195)
        #expect(majors.major(of: "nvidia-frontend", "nvidia") == 195)
        #expect(majors.major(of: "nvidia-caps") == 235)
        #expect(majors.major(of: "sd") == nil)
        #expect(majors.major(of: "toolarge") == nil)
    }

    @Test("before driver 550 the major was called nvidia-frontend")
    func olderMajor() {
        let majors = DeviceMajors("Character devices:\n195 nvidia-frontend\n")
        #expect(majors.major(of: "nvidia", "nvidia-frontend") == 195)
    }

    @Test(
        "the driver's version is found in the words of closed and open modules",
        arguments: [
            ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.57.02  Tue Jul 13 16:14:05 UTC 2021", "470.57.02"),
            ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build", "580.65.06"),
            ("GCC version: 12.2.0\nNVRM version: NVIDIA UNIX aarch64 Kernel Module  555.42\n", "555.42"),
        ])
    func version(text: String, version: String) {
        #expect(NVIDIADriverFiles.version(in: text) == version)
    }

    @Test(
        "a version that is none is not taken", arguments: ["", "NVRM version: x86_64 1..2 3.x", "GCC version: 12.2.0"])
    func noVersion(text: String) {
        #expect(NVIDIADriverFiles.version(in: text) == nil)
    }

    @Test("capability minors are those of instances, and whatever else the file says is passed over")
    func capabilities() {
        let minors = NVIDIACapability.minors(
            in: """
                config 1
                monitor 2
                gpu0/gi1/access 12
                gpu0/gi1/ci0/access 13
                gpu31/gi14/ci7/access 4321
                gpu0/gi1/ci0/access
                gpu-1/gi1/access 5
                gpu0/gi1/../access 6
                gpu0/gi1/ci0/write 7
                gpu0/gi2/access 99999999999
                """)
        #expect(
            minors == [
                .config: 1, .monitor: 2, .gpuInstance(minor: 0, 1): 12, .computeInstance(minor: 0, 1, 0): 13,
                .computeInstance(minor: 31, 14, 7): 4321,
            ])
    }

    @Test(
        "a uuid is only what can be one",
        arguments: [
            ("GPU-5a3b1c2d-1111-2222-3333-444444444444", true), ("MIG-5a3b1c2d-1111-2222-3333-444444444444", true),
            ("MIG-GPU-5a3b1c2d-1111-2222-3333-444444444444/1/0", true),
            ("GPU-????????-????-????-????-????????????", false), ("GPU-", false), ("", false),
            ("GPU-5a3b1c2d\n", false), ("GPU-" + String(repeating: "a", count: 92), false),
        ])
    func uuid(text: String, isValid: Bool) {
        #expect(DeviceUUID.isValid(text) == isValid)
    }

    @Test("AMD's target versions are written as its compilers name them")
    func architecture() {
        #expect(KFDNode.architecture(90010) == "gfx90a")
        #expect(KFDNode.architecture(90402) == "gfx942")
        #expect(KFDNode.architecture(110001) == "gfx1101")
        #expect(KFDNode.architecture(0) == nil)
        #expect(KFDNode.architecture(.max) == nil)
    }

    @Test("an event says what happened to which device, and most events are of no concern")
    func events() throws {
        func event(_ parts: String...) -> KernelEvent? { KernelEvent(parts.joined(separator: "\0").utf8) }
        let path = "/devices/pci0000:00/0000:00:02.0"
        let bound = try #require(
            event("bind@\(path)", "ACTION=bind", "SUBSYSTEM=pci", "PCI_SLOT_NAME=0000:00:02.0", ""))
        #expect(bound.action == "bind")
        #expect(bound.path == path)
        #expect(bound.properties["PCI_SLOT_NAME"] == "0000:00:02.0")
        #expect(bound.mayChangeDevices)
        #expect(event("remove@\(path)", "SUBSYSTEM=pci")?.mayChangeDevices == true)
        #expect(event("add@/module/nvidia", "SUBSYSTEM=module")?.mayChangeDevices == true)
        #expect(event("add@/module/loop", "SUBSYSTEM=module")?.mayChangeDevices == false)
        #expect(event("change@\(path)/drm/card0", "SUBSYSTEM=drm", "HOTPLUG=1")?.mayChangeDevices == false)
        #expect(event("change@\(path)/drm/card0", "SUBSYSTEM=drm", "WEDGED=rebind")?.mayChangeDevices == true)
        #expect(event("add@/devices/virtual/net/veth0", "SUBSYSTEM=net")?.mayChangeDevices == false)
    }

    @Test(
        "what comes, goes or changes its driver is news where GPUs are, and nothing else is",
        arguments: [
            ("add@/devices/pci0000:00/0000:00:01.0/0000:01:00.0", "pci", "PCI_CLASS=30200", true),
            ("unbind@/devices/pci0000:00/0000:00:01.0/0000:01:00.0", "pci", "PCI_ID=10DE:2335", true),
            ("change@/devices/pci0000:00/0000:00:01.0/0000:01:00.0", "pci", "PCI_ID=10DE:2335", false),
            ("add@/devices/pci0000:00/0000:00:01.0/0000:01:00.0/drm/renderD128", "drm", "MINOR=128", true),
            ("remove@/devices/pci0000:00/0000:00:01.0/0000:01:00.0/drm/card1", "drm", "DEVNAME=dri/card1", true),
            ("change@/devices/pci0000:00/0000:00:01.0/0000:01:00.0/drm/card1", "drm", "HOTPLUG=1", false),
            ("add@/devices/virtual/kfd/kfd", "kfd", "DEVNAME=kfd", true),
            ("add@/module/nvidia_uvm", "module", "SEQNUM=7", true),
            ("remove@/module/amdgpu", "module", "SEQNUM=8", true),
            ("add@/module/nvidia_other", "module", "SEQNUM=9", false),
            ("add@/devices/pci0000:00/0000:00:14.0/usb1/1-1", "usb", "DEVTYPE=usb_device", false),
            ("remove@/devices/virtual/block/loop7", "block", "DEVNAME=loop7", false),
        ] as [(String, String, String, Bool)])
    func news(head: String, subsystem: String, property: String, isNews: Bool) {
        let action = head.prefix { $0 != "@" }
        let path = head.dropFirst(action.count + 1)
        // As the kernel writes it: a NUL behind each part, the last one too.
        let parts = [head, "ACTION=\(action)", "DEVPATH=\(path)", "SUBSYSTEM=\(subsystem)", property, ""]
        #expect(KernelEvent(parts.joined(separator: "\0").utf8)?.mayChangeDevices == isNews)
    }

    @Test("what is no event is none")
    func noEvents() {
        #expect(KernelEvent([]) == nil)
        #expect(KernelEvent("libudev\0\u{fe}\u{ed}".utf8) == nil)
        #expect(KernelEvent("ADD@/devices".utf8) == nil)
        #expect(KernelEvent("@/devices".utf8) == nil)
        #expect(KernelEvent([UInt8]("add@/".utf8) + [UInt8](repeating: 97, count: 10000)) == nil)
    }
}
