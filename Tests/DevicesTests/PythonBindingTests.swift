import Devices
import Glibc
import JSON
import Kernel
import NVMLReport
import Testing

/// NVIDIA's own bindings, where scripts/nvmlpy.sh puts them.
private let bindings = getenv("MARTLET_NVMLPY").map { String(cString: $0) } ?? "\(FakeNVML.root)/.build/assets/nvmlpy"

@Suite(
    "NVIDIA's Python bindings read the same of the same library",
    .enabled(if: FakeNVML.clang != nil, "needs clang on the PATH"),
    .enabled(if: File.exists("\(bindings)/pynvml.py"), "needs nvidia-ml-py: scripts/nvmlpy.sh"))
struct PythonBindingTests {
    @Test("what martlet-nvml tells of a machine is what they tell")
    func inventory() throws {
        let fake = try FakeNVML(HelperTests.fixture)
        let result =
            try Program(
                "/usr/bin/python3", ["\(FakeNVML.root)/Tests/FakeNVML/dump.py", bindings],
                environment: fake.environment + ["LD_LIBRARY_PATH=\(fake.folder)/lib", "PYTHONDONTWRITEBYTECODE=1"],
                timeoutMilliseconds: 120_000
            ).run() as ProgramResult
        try #require(result.status == .exited(0), "\(result.errorText)")
        let theirs = try JSONValue.parse(result.output)
        guard case .inventory(let ours) = try fake.helper().inventory() else {
            Issue.record("there is no inventory")
            return
        }
        #expect(theirs["driverVersion"]?.stringValue == ours.driverVersion)
        #expect(theirs["libraryVersion"]?.stringValue == ours.libraryVersion)
        #expect(theirs["cudaNumber"]?.intValue == 12040)
        #expect(ours.cudaVersion == "12.4")
        let gpus = try #require(theirs["gpus"]?.arrayValue)
        try #require(gpus.count == ours.gpus.count && !gpus.isEmpty)
        for (theirs, ours) in zip(gpus, ours.gpus) { try compare(theirs, ours) }
        let ancestors = try #require(
            theirs["ancestors"]?.arrayValue?.compactMap { $0.arrayValue?.compactMap(\.uintValue) })
        #expect(
            ancestors.compactMap { NVMLAncestor.Level(nvml: UInt32($0[2])) } == ours.ancestors.map(\.level))
    }

    private func compare(_ theirs: JSONValue, _ ours: NVMLGPU) throws {
        let encoded = try JSONCoding.value(ours)
        let same = [
            "uuid", "name", "minor", "pciAddress", "pciDevice", "memoryBytes", "reservedBytes", "computeCapability",
            "numaNode", "isDivided", "links",
        ]
        for member in same { #expect((encoded[member] ?? .null) == theirs[member], "\(member)") }
        for member in ["correctedErrors", "uncorrectedErrors", "remapPending", "remapFailed", "pagesPending"] {
            #expect(encoded["condition"]?[member] == theirs[member], "\(member)")
        }
        let bits = try #require(theirs["slowdownBits"]?.uintValue)
        #expect(ours.condition.slowdowns == NVMLSlowdown.allCases.filter { bits & $0.bit != 0 })
        let instances = try #require(theirs["instances"]?.arrayValue)
        try #require(instances.count == ours.instances.count)
        for (theirs, ours) in zip(instances, ours.instances) {
            let encoded = try JSONCoding.value(ours)
            for (member, value) in (theirs.objectValue?.members ?? []).map({ ($0.key, $0.value) }) {
                #expect(encoded[member] == value, "\(member)")
            }
        }
    }

    @Test("and how the GPUs are used")
    func usage() throws {
        let fake = try FakeNVML(HelperTests.fixture)
        let result =
            try Program(
                "/usr/bin/python3", ["\(FakeNVML.root)/Tests/FakeNVML/dump.py", bindings],
                environment: fake.environment + ["LD_LIBRARY_PATH=\(fake.folder)/lib", "PYTHONDONTWRITEBYTECODE=1"],
                timeoutMilliseconds: 120_000
            ).run() as ProgramResult
        try #require(result.status == .exited(0), "\(result.errorText)")
        let gpus = try #require(JSONValue.parse(result.output)["gpus"]?.arrayValue)
        let reports = Deliveries<NVMLSample>()
        let watch = try NVMLWatch(fake.helper(), intervalMilliseconds: 100) {
            if case .sample(let sample) = $0 { reports.add(sample) }
        }
        try watch.start()
        defer { watch.stop() }
        let sample = try #require(reports.first { _ in true })
        try #require(gpus.count == sample.gpus.count && !gpus.isEmpty)
        for (theirs, ours) in zip(gpus, sample.gpus) {
            let encoded = try JSONCoding.value(ours)
            for member in ["celsius", "milliwatts", "utilization", "memoryBytes", "memoryUsedBytes"] {
                #expect((encoded[member] ?? .null) == theirs[member], "\(member)")
            }
            let processes = theirs["processes"]?.arrayValue?.compactMap { $0.arrayValue?.first?.uintValue }
            #expect(processes == ours.processes.map { UInt64($0.pid) })
        }
    }
}
