import Devices
import Glibc
import Kernel
import NVMLReport
import Testing

@Suite("Watching NVIDIA's GPUs", .enabled(if: FakeNVML.clang != nil, "needs clang on the PATH"))
struct WatchTests {
    private let uuids = HelperTests.uuids

    private func watch(
        _ fake: FakeNVML, timeoutMilliseconds: Int = 60_000
    ) throws -> (NVMLWatch, Deliveries<NVMLWatchReport>) {
        let reports = Deliveries<NVMLWatchReport>()
        let helper = try fake.helper(timeoutMilliseconds: timeoutMilliseconds)
        let watch = try NVMLWatch(helper, intervalMilliseconds: 100, firstPauseMilliseconds: 10) { reports.add($0) }
        try watch.start()
        return (watch, reports)
    }

    private func event(_ reports: Deliveries<NVMLWatchReport>, where fits: (NVMLEvent) -> Bool) -> NVMLEvent? {
        let found = reports.first { if case .event(let event) = $0 { fits(event) } else { false } }
        if case .event(let event) = found { return event }
        return nil
    }

    private func broken(_ reports: Deliveries<NVMLWatchReport>) -> NVMLTrouble? {
        if case .broken(let trouble) = reports.first(where: { if case .broken = $0 { true } else { false } }) {
            return trouble
        }
        return nil
    }

    @Test("it begins with an inventory, tells how the GPUs are used, and of each event whose it is")
    func events() throws {
        let fake = try FakeNVML("")
        let fifo = try fake.fifo()
        try fake.write(HelperTests.fixture + "fifo \(fake.folder)/events\n")
        let (watch, reports) = try watch(fake)
        defer { watch.stop() }
        let began = reports.first { _ in true }
        guard case .began(let inventory) = began else {
            Issue.record("it began with \(String(describing: began))")
            return
        }
        #expect(inventory.gpus.map(\.uuid) == uuids)
        try fifo.writeAll(Array("0 8 79\n1 2 0\n0 8 31 3 0\n-1 8 48\n".utf8))
        let fallen = try #require(event(reports) { $0.xid == 79 })
        #expect((fallen.kind, fallen.uuid, fallen.gpuInstance) == (.xid, uuids[0], nil))
        #expect(event(reports) { $0.kind == .doubleBitECC }?.uuid == uuids[1])
        let instance = try #require(event(reports) { $0.xid == 31 })
        #expect((instance.gpuInstance, instance.computeInstance) == (3, 0))
        #expect(event(reports) { $0.xid == 48 }?.uuid == nil)
        let sample = reports.first { if case .sample = $0 { true } else { false } }
        guard case .sample(let sample) = sample else {
            Issue.record("there is no sample")
            return
        }
        let second = try #require(sample.gpus.last)
        #expect((second.utilization, second.celsius, second.milliwatts) == (37, 61, 412_000))
        #expect(second.processes.map(\.pid) == [4242])
        #expect(second.processes.first?.memoryBytes == 512 << 20)
        #expect(sample.gpus.first?.memoryUsedBytes == 1024 << 20)
        #expect(sample.gpus.first?.utilization == nil)
        #expect(sample.gpus.first?.instances.count == 2)
    }

    @Test("a library of years ago tells of events too")
    func oldSymbols() throws {
        let fake = try FakeNVML("", .old)
        let fifo = try fake.fifo()
        try fake.write(HelperTests.fixture + "fifo \(fake.folder)/events\n")
        let (watch, reports) = try watch(fake)
        defer { watch.stop() }
        try fifo.writeAll(Array("1 8 79\n".utf8))
        let fallen = try #require(event(reports) { $0.xid == 79 })
        #expect((fallen.uuid, fallen.gpuInstance) == (uuids[1], nil))
    }

    @Test("a GPU whose events cannot be had is named, and the others are watched")
    func unwatched() throws {
        let fake = try FakeNVML(HelperTests.fixture + "error nvmlDeviceRegisterEvents 999 0\n")
        let (watch, reports) = try watch(fake)
        defer { watch.stop() }
        let refused = try #require(event(reports) { $0.kind == .unwatched })
        #expect(refused.uuid == uuids[0])
        #expect(refused.message?.contains("Unknown Error") == true)
        #expect(reports.first { if case .sample = $0 { true } else { false } } != nil)
        #expect(!reports.all.contains { if case .event(let event) = $0 { event.uuid == uuids[1] } else { false } })
    }

    @Test("a wait that fails again and again ends the watch, which begins anew")
    func waitFails() throws {
        let fake = try FakeNVML("")
        let fifo = try fake.fifo()
        try fake.write(HelperTests.fixture + "fifo \(fake.folder)/events\n")
        let (watch, reports) = try watch(fake)
        defer { watch.stop() }
        _ = reports.first { _ in true }
        try fifo.writeAll(Array([String](repeating: "error 999\n", count: 5).joined().utf8))
        let trouble = try #require(broken(reports))
        #expect(trouble.kind == .refused(.other))
        #expect(trouble.description.contains("waiting for events"))
        try fifo.writeAll(Array("0 8 79\n".utf8))
        #expect(event(reports) { $0.xid == 79 } != nil)
    }

    @Test(
        "a library that hangs or crashes in a call is given up with its process, and asked anew",
        arguments: ["hang", "crash"])
    func misbehaves(how: String) throws {
        let fake = try FakeNVML(HelperTests.fixture + "\(how) nvmlDeviceGetPowerUsage\n")
        let (watch, reports) = try watch(fake, timeoutMilliseconds: 500)
        defer { watch.stop() }
        #expect(broken(reports)?.kind == (how == "hang" ? .hung : .crashed))
        try fake.write(HelperTests.fixture)
        #expect(reports.first { if case .sample = $0 { true } else { false } } != nil)
    }

    @Test("without a library it is over at once")
    func missing() throws {
        let fake = try FakeNVML("")
        try File.removeFile("\(fake.folder)/lib/libnvidia-ml.so.1")
        let (_, reports) = try watch(fake)
        guard case .absent = reports.first(where: { _ in true }) else {
            Issue.record("it is not over: \(reports.all)")
            return
        }
    }
}
