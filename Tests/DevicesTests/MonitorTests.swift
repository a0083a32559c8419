import DeviceDiscovery
import Devices
import Glibc
import Kernel
import Testing

@Suite("Keeping the inventory of a node", .enabled(if: FakeNVML.clang != nil, "needs clang on the PATH"))
struct MonitorTests {
    struct News: Sendable {
        let inventory: DeviceInventory
        let changes: [DeviceChange]
    }

    private func monitor(
        _ fake: FakeNVML, helper: NVMLHelper? = nil, rescan: Int64 = 600_000
    ) throws -> (DeviceMonitor, Deliveries<News>) {
        for name in ["proc", "sys", "dev"] { try File.makeDirectories("\(fake.folder)/\(name)") }
        try File.replace(
            "\(fake.folder)/proc/devices", with: Array("Character devices:\n195 nvidia\n234 nvidia-uvm\n".utf8))
        var times = DeviceMonitor.Times()
        times.settle = 10
        times.settleLimit = 100
        times.rescan = rescan
        let news = Deliveries<News>()
        let monitor = try DeviceMonitor(
            roots: DeviceRoots(below: fake.folder), helper: try helper ?? fake.helper(), times: times
        ) { news.add(News(inventory: $0, changes: $1)) }
        #expect(try monitor.start() == nil)
        return (monitor, news)
    }

    private let first = "gpu \(HelperTests.uuids[0]) minor=1\n"
    private let second = "gpu \(HelperTests.uuids[1]) minor=0\n"

    @Test("it looks at the beginning, and again when it is told to: one goes, and returns")
    func looksAgain() throws {
        let fake = try FakeNVML(first + second)
        let (monitor, news) = try monitor(fake)
        defer { monitor.stop() }
        let appeared = try #require(news.first { $0.changes.count == 2 })
        #expect(appeared.inventory.devices.map(\.id).sorted() == HelperTests.uuids)
        #expect(appeared.inventory.devices.allSatisfy { $0.nodes.first?.state == .missing })
        try fake.write(first)
        monitor.lookAgain()
        let isGone = { (change: DeviceChange) in
            if case .gone(let device) = change { device.id == HelperTests.uuids[1] } else { false }
        }
        #expect(news.first { $0.changes.contains(where: isGone) } != nil)
        try fake.write(first + second)
        monitor.lookAgain()
        let isBack = { (change: DeviceChange) in
            if case .returned(let device) = change { device.id == HelperTests.uuids[1] } else { false }
        }
        #expect(news.first { $0.changes.contains(where: isBack) } != nil)
        #expect(monitor.state.table.present.count == 2)
    }

    @Test("without any event it looks again after a while")
    func rescans() throws {
        let fake = try FakeNVML(first)
        let (monitor, news) = try monitor(fake, rescan: 50)
        defer { monitor.stop() }
        _ = news.first { _ in true }
        try fake.write(first + second)
        #expect(news.first { $0.inventory.devices.count == 2 } != nil)
    }

    /// A device whose events are news. Writing an action into its `uevent` makes the kernel tell of it, as `udevadm trigger`
    /// does; nothing becomes of the device by that.
    private static let uevent: String? = {
        let names: [String] = ((try? File.list("/sys/bus/pci/devices")) ?? []).sorted()
        return names.map { name -> String in "/sys/bus/pci/devices/\(name)/uevent" }.first { access($0, W_OK) == 0 }
    }()

    @Test(
        "what the kernel tells of a device has it look again",
        .enabled(if: uevent != nil, "needs root, a sysfs that can be written to and a PCI device"))
    func heard() throws {
        let fake = try FakeNVML(first)
        let (monitor, news) = try monitor(fake)
        defer { monitor.stop() }
        _ = news.first { _ in true }
        try fake.write(first + second)
        try File.writeControl(try #require(Self.uevent), "add")
        #expect(news.first { $0.inventory.devices.count == 2 } != nil)
    }

    @Test("while a driver makes it wait, that is all that waits, and it says so")
    func hangs() throws {
        let fake = try FakeNVML(first)
        let (monitor, news) = try monitor(fake, helper: fake.helper(timeoutMilliseconds: 1500))
        defer { monitor.stop() }
        _ = news.first { _ in true }
        try fake.write(first + "hang nvmlInit\n")
        monitor.lookAgain()
        for _ in 0..<6000 where monitor.state.lookingSince == nil { usleep(1000) }
        #expect(monitor.state.inventory?.devices.count == 1)
        let hung = try #require(news.first { $0.inventory.uncertain == [.nvidia] })
        #expect(hung.inventory.devices.isEmpty)
        // The device is kept: nobody can say that it is gone.
        let kept = try #require(monitor.state.table.present.first)
        #expect(!kept.isGrantable)
    }
}
