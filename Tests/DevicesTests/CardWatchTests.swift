import DeviceDiscovery
import Devices
import Glibc
import Kernel
import Synchronization
import Testing

@Suite("A watch of AMD's and Intel's GPUs")
struct CardWatchTests {
    private static func card(_ vendor: DeviceVendor, _ address: PCIAddress, driver: String) -> Device {
        var device = Device(id: "\(vendor.rawValue)-\(address)", vendor: vendor)
        device.pciAddress = address
        device.driver = driver
        return device
    }

    /// Asks again until it holds.
    private static func eventually(_ holds: () throws -> Bool) rethrows -> Bool {
        for _ in 0..<2000 {
            if try holds() { return true }
            usleep(5000)
        }
        return false
    }

    @Test("it tells how they are used, what Intel's draw, and of errors that make one suspect")
    func usage() throws {
        var template = Array("/tmp/martlet-cards-XXXXXX".utf8CString)
        guard let made = mkdtemp(&template) else { throw KernelError("mkdtemp", "/tmp", errno: errno) }
        let root = String(cString: made)
        defer { _ = try? Tree.remove(root) }
        func write(_ name: String, _ text: String) throws {
            let path = "\(root)/sys/bus/pci/devices/\(name)"
            try File.makeDirectories(String(path[..<(path.lastIndex(of: "/") ?? path.endIndex)]))
            try File.replace(path, with: Array(text.utf8), mode: 0o644)
        }
        let amd = try OtherVendorTests.address("0000:03:00.0")
        let intel = try OtherVendorTests.address("0000:83:00.0")
        try write("\(amd)/gpu_busy_percent", "42\n")
        try write("\(amd)/ras/umc_err_count", "ue: 0\nce: 0\n")
        try write("\(intel)/hwmon/hwmon1/energy1_input", "1000\n")
        let calls = Mutex(0)
        let watch = try CardWatch(roots: DeviceRoots(below: root), intervalMilliseconds: 20) {
            calls.withLock { $0 += 1 }
        }
        defer { watch.stop() }
        #expect(watch.usage.isEmpty)
        let host = try OtherVendorTests.amd()
        try watch.follow([
            Self.card(.amd, amd, driver: "amdgpu"), Self.card(.intel, intel, driver: "xe"),
            Self.card(.amd, try OtherVendorTests.address("0000:84:00.0"), driver: "vfio-pci"),
        ])
        #expect(Self.eventually { watch.usage[amd]?.figures.busyPercent == 42 })
        #expect(Self.eventually { watch.usage.keys.sorted() == [amd, intel] })
        // A counter that stands still draws nothing.
        #expect(Self.eventually { watch.usage[intel]?.milliwatts == 0 })
        var drawn = 1000
        #expect(
            try Self.eventually {
                drawn += 1_000_000
                try write("\(intel)/hwmon/hwmon1/energy1_input", "\(drawn)\n")
                return (watch.usage[intel]?.milliwatts ?? 0) > 0
            })
        #expect(calls.withLock { $0 } == 0)
        var before = OtherVendorTests.inventory(host)
        watch.judge(&before)
        #expect(before.devices.allSatisfy { $0.health.state == .healthy })
        try write("\(amd)/ras/umc_err_count", "ue: 3\nce: 0\n")
        #expect(Self.eventually { calls.withLock { $0 } == 1 })
        var after = OtherVendorTests.inventory(host)
        watch.judge(&after)
        #expect(after.devices.map(\.health.state) == [.degraded, .healthy])
        #expect(after.devices[0].health.reasons.joined().contains("3 in umc"))
        // It is told once.
        try write("\(amd)/gpu_busy_percent", "43\n")
        #expect(Self.eventually { watch.usage[amd]?.figures.busyPercent == 43 })
        #expect(calls.withLock { $0 } == 1)
    }
}
