import DeviceDiscovery
import Testing

@Suite("How AMD's and Intel's drivers say that their GPUs are used")
struct CardFiguresTests {
    private static let address = "0000:03:00.0"
    private static let folder = "sys/devices/pci0000:00/\(address)"

    private static func read(_ folder: borrowing DeviceFolder) throws -> (CardFigures?, problems: [String]) {
        var sys = DeviceTree(folder.roots.sys)
        let figures = CardFigures.read(&sys, try #require(PCIAddress(address)))
        return (figures, sys.problems)
    }

    private static func gpu(_ files: [String: String], vendor: String = "0x1002") throws -> DeviceFolder {
        let folder = try DeviceFolder()
        try folder.gpu(address, vendor: vendor, device: "0x740f", deviceClass: "0x038000", driver: "amdgpu")
        for (name, text) in files { try folder.write("\(Self.folder)/\(name)", text) }
        return folder
    }

    @Test("amdgpu tells load, memory, power, heat and errors")
    func amd() throws {
        let folder = try Self.gpu([
            "gpu_busy_percent": "37\n", "mem_info_vram_total": "68702699520\n", "mem_info_vram_used": "1073741824\n",
            "hwmon/hwmon3/power1_average": "91000000\n", "hwmon/hwmon3/temp1_input": "45000\n",
            "ras/umc_err_count": "ue: 2\nce: 5\n", "ras/gfx_err_count": "ue: 0\nce: 0\nde: 0\n",
            "ras/features": "feature mask: 0x5f\n",
        ])
        let (figures, problems) = try Self.read(folder)
        var expected = CardFigures()
        (expected.busyPercent, expected.memoryUsedBytes, expected.memoryBytes) = (37, 1_073_741_824, 68_702_699_520)
        (expected.milliwatts, expected.millicelsius) = (91_000, 45_000)
        expected.uncorrectedErrors = ["umc": 2]
        #expect(figures == expected)
        #expect(problems.isEmpty)
    }

    @Test("newer ones tell what is drawn now, Intel's what was drawn by now, and neither more")
    func others() throws {
        let newer = try Self.gpu(["hwmon/hwmon0/power1_input": "2500000\n"])
        let drawn = try Self.read(newer).0?.milliwatts
        #expect(drawn == 2500)
        let intel = try Self.gpu(
            ["hwmon/hwmon7/energy1_input": "123456789\n", "hwmon/hwmon7/temp2_input": "-5000\n"], vendor: "0x8086")
        let (figures, problems) = try Self.read(intel)
        var expected = CardFigures()
        (expected.microjoules, expected.millicelsius) = (123_456_789, -5000)
        #expect(figures == expected)
        #expect(problems.isEmpty)
    }

    @Test("one that sleeps is not woken")
    func asleep() throws {
        let folder = try Self.gpu(["power/runtime_status": "suspended\n", "gpu_busy_percent": "0\n"])
        let figures = try Self.read(folder).0
        #expect(figures == nil)
    }

    @Test(
        "what is no number, or none that can be, is not known",
        arguments: [
            ("gpu_busy_percent", "101"), ("gpu_busy_percent", "busy"), ("mem_info_vram_used", "-1"),
            ("mem_info_vram_used", String(repeating: "9", count: 5000)), ("hwmon/hwmon0/temp1_input", "9999999"),
            ("hwmon/hwmon0/power1_average", ""), ("ras/umc_err_count", "ue: many"), ("ras/umc_err_count", "fine"),
        ])
    func nonsense(file: String, text: String) throws {
        let folder = try Self.gpu([file: text])
        let figures = try Self.read(folder).0
        #expect(figures == CardFigures())
    }

    @Test("a folder in a file's place, and a link that leads to itself, harm nothing")
    func strange() throws {
        let folder = try Self.gpu(["gpu_busy_percent/x": "1", "mem_info_vram_total": "8589934592"])
        try folder.link("\(Self.folder)/mem_info_vram_used", to: "mem_info_vram_used")
        try folder.link("\(Self.folder)/hwmon", to: "hwmon")
        let bytes = try Self.read(folder).0?.memoryBytes
        #expect(bytes == 8_589_934_592)
    }

    @Test("what is not there tells nothing")
    func absent() throws {
        let figures = try Self.read(try DeviceFolder()).0
        #expect(figures == CardFigures())
    }
}
