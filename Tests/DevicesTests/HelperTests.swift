import DeviceDiscovery
import Devices
import Glibc
import Kernel
import NVMLReport
import Testing

@Suite("Asking NVML in a process of its own", .enabled(if: FakeNVML.clang != nil, "needs clang on the PATH"))
struct HelperTests {
    static let uuids = ["GPU-11111111-1111-1111-1111-111111111111", "GPU-22222222-2222-2222-2222-222222222222"]
    static let fixture = """
        driver 550.54.15
        gpu \(uuids[0]) minor=3 pci=0:65:0 name=NVIDIA_H200 memory=143771 used=1024 reserved=500 cc=9.0 numa=1 mig=1 remap=1,0 slowdown=0x48
        gpu \(uuids[1]) minor=1 pci=1:3b:0 name=NVIDIA_H200 memory=143771 corrected=3 utilization=37 celsius=61 milliwatts=412000
        mig 0 0 MIG-aaaaaaaa-1111-1111-1111-111111111111 1 0 memory=16384 sm=16 slices=1 name=NVIDIA_H200_MIG_1g.18gb
        mig 0 2 MIG-bbbbbbbb-1111-1111-1111-111111111111 3 0 memory=16384 sm=16 slices=1
        link 0 0 gpu 1:3b:0
        link 1 5 switch 0:80:0
        ancestor 0 1 20
        process 1 4242 512

        """

    private func inventory(_ outcome: NVMLOutcome) -> NVMLInventory? {
        if case .inventory(let inventory) = outcome { return inventory }
        Issue.record("no inventory: \(outcome)")
        return nil
    }

    @Test("all that a current library tells comes through")
    func whole() throws {
        let fake = try FakeNVML(Self.fixture)
        let found = try #require(inventory(fake.helper().inventory()))
        #expect((found.driverVersion, found.libraryVersion, found.cudaVersion) == ("550.54.15", "12.550.54.15", "12.4"))
        #expect(found.missingFunctions.isEmpty)
        #expect(found.ancestors == [NVMLAncestor(first: 0, second: 1, level: .switches)])
        var first = NVMLGPU(index: 0)
        first.uuid = Self.uuids[0]
        first.name = "NVIDIA H200"
        first.minor = 3
        first.pciAddress = "0000:65:00.0"
        first.pciDevice = 0x2335_10de
        first.memoryBytes = 143_771 << 20
        first.reservedBytes = 500 << 20
        first.computeCapability = "9.0"
        first.numaNode = 1
        first.isDivided = true
        first.links = [NVMLLink(number: 0, remote: .gpu, pciAddress: "0001:3b:00.0")]
        first.condition.correctedErrors = 0
        first.condition.uncorrectedErrors = 0
        first.condition.remapPending = true
        first.condition.remapFailed = false
        first.condition.pagesPending = false
        first.condition.slowdowns = [.hardware, .hardwareThermal]
        var instance = NVMLInstance(
            uuid: "MIG-aaaaaaaa-1111-1111-1111-111111111111", gpuInstance: 1, computeInstance: 0)
        instance.name = "NVIDIA H200 MIG 1g.18gb"
        instance.memoryBytes = 16384 << 20
        instance.multiprocessors = 16
        instance.gpuSlices = 1
        instance.computeSlices = 1
        first.instances = [instance]
        instance.uuid = "MIG-bbbbbbbb-1111-1111-1111-111111111111"
        instance.gpuInstance = 3
        instance.name = nil
        first.instances.append(instance)
        #expect(found.gpus.first == first)
        #expect(found.gpus.last?.numaNode == nil)
        #expect(found.gpus.last?.isDivided == nil)
        #expect(found.gpus.last?.condition.correctedErrors == 3)
    }

    @Test("a library of years ago tells what it knows")
    func oldSymbols() throws {
        let found = try #require(inventory(FakeNVML(Self.fixture, .old).helper().inventory()))
        #expect(found.gpus.map(\.uuid) == Self.uuids)
        #expect(found.gpus.map(\.minor) == [3, 1])
        #expect(found.gpus.map(\.pciAddress) == ["0000:65:00.0", "0001:3b:00.0"])
        #expect(found.gpus[0].memoryBytes == 143_771 << 20)
        #expect(found.gpus[0].reservedBytes == nil)
        #expect(found.gpus[0].isDivided == nil)
        #expect(found.missingFunctions.contains("nvmlDeviceGetMigMode"))
        #expect(found.gpus.allSatisfy { $0.problems.isEmpty && !$0.isLost })
    }

    @Test("a library with the least of functions tells the uuids, and says what it lacks")
    func fewSymbols() throws {
        let found = try #require(inventory(FakeNVML(Self.fixture, .few).helper().inventory()))
        #expect(found.gpus.map(\.uuid) == Self.uuids)
        #expect(found.gpus.allSatisfy { $0.minor == nil && $0.pciAddress == nil && $0.memoryBytes == nil })
        #expect(found.missingFunctions.contains("nvmlDeviceGetMinorNumber"))
    }

    @Test("no library is no error, wherever it is looked for")
    func missing() throws {
        var roots = DeviceRoots()
        roots.libraries = ["/nowhere/lib", "/nowhere/lib64"]
        let program = try FakeNVML.program("martlet-nvml")
        #expect(
            NVMLHelper(program: program, roots: roots).inventory()
                == .absent("there is no libnvidia-ml.so.1 in /nowhere/lib, /nowhere/lib64"))
    }

    @Test("a library that is none is broken, and so is one without functions")
    func broken() throws {
        let fake = try FakeNVML("", .none)
        guard case .trouble(let trouble) = try fake.helper().inventory() else {
            Issue.record("a library without functions was used")
            return
        }
        #expect(trouble.kind == .refused(.libraryBroken))
        #expect(trouble.description.contains("nvmlInit_v2"))
        try File.replace("\(fake.folder)/lib/libnvidia-ml.so.1", with: Array("no library".utf8))
        guard case .trouble(let other) = try fake.helper().inventory() else {
            Issue.record("a text file was used as a library")
            return
        }
        #expect(other.kind == .refused(.libraryBroken))
        #expect(other.description.contains("install NVIDIA's driver anew"))
    }

    /// A line more in the fixture, and what comes of it.
    struct Case: Sendable, CustomTestStringConvertible {
        let line: String
        let kind: NVMLTrouble.Kind
        let words: String
        var testDescription: String { line }
    }

    @Test(
        "what is wrong with the driver as a whole is said in words",
        arguments: [
            Case(line: "error nvmlInit 9", kind: .refused(.driverNotLoaded), words: "modprobe nvidia"),
            Case(line: "error nvmlInit 18", kind: .refused(.versionMismatch), words: "reboot"),
            Case(line: "error nvmlInit 4", kind: .refused(.noPermission), words: "root"),
            Case(line: "error nvmlDeviceGetCount 999", kind: .refused(.other), words: "Unknown Error (999)"),
            Case(line: "crash nvmlInit", kind: .crashed, words: "signal 11"),
            Case(line: "crash nvmlDeviceGetName", kind: .crashed, words: "nvidia-smi"),
            Case(line: "nonsense", kind: .crashed, words: "cannot understand"),
        ])
    func troubles(trial: Case) throws {
        let fake = try FakeNVML(Self.fixture + trial.line + "\n")
        let outcome = try fake.helper().inventory()
        guard case .trouble(let trouble) = outcome else {
            Issue.record("\(outcome)")
            return
        }
        #expect(trouble.kind == trial.kind)
        #expect(trouble.description.contains(trial.words), "\(trouble)")
    }

    @Test(
        "a driver that hangs is given up, and the helper does not stay", arguments: ["nvmlInit", "nvmlDeviceGetUUID"])
    func hang(function: String) throws {
        let fake = try FakeNVML(Self.fixture + "hang \(function)\n")
        let helper = try fake.helper(timeoutMilliseconds: 500)
        for _ in 0..<2 {
            guard case .trouble(let trouble) = helper.inventory() else {
                Issue.record("there is an inventory")
                return
            }
            #expect(trouble.kind == .hung)
            #expect(trouble.description.contains("500 ms"))
        }
        // The environment names the fixture, and no process has it any more.
        #expect(try isGone("FAKE_NVML=\(fake.folder)/fixture"))
    }

    /// Whether no process has this variable any more: what was killed is gone soon, not at once.
    private func isGone(_ variable: String) throws -> Bool {
        for _ in 0..<3000 {
            let left = try File.list("/proc").contains { name in
                guard Int(name) != nil, let bytes = try? File.read("/proc/\(name)/environ") else { return false }
                return bytes.split(separator: 0).contains { String(decoding: $0, as: UTF8.self) == variable }
            }
            if !left { return true }
            usleep(10_000)
        }
        return false
    }

    @Test("what fails of one GPU is said of that one")
    func oneGPU() throws {
        let lines = """
            error nvmlDeviceGetMemoryInfo_v2 15 0
            error nvmlDeviceGetMemoryInfo 15 0
            error nvmlDeviceGetName 999 1

            """
        let found = try #require(inventory(FakeNVML(Self.fixture + lines).helper().inventory()))
        #expect(found.gpus[0].isLost)
        #expect(found.gpus[0].uuid == Self.uuids[0])
        #expect(found.gpus[0].problems.contains { $0.contains("GPU is lost (15)") })
        #expect(!found.gpus[1].isLost)
        #expect(found.gpus[1].problems == ["nvmlDeviceGetName: Unknown Error (999)"])
        #expect(found.gpus[1].memoryBytes == 143_771 << 20)
        let handle = try FakeNVML(Self.fixture + "error nvmlDeviceGetHandleByIndex 15 1\n").helper().inventory()
        #expect(inventory(handle)?.gpus.last?.isLost == true)
        #expect(inventory(handle)?.gpus.first?.isLost == false)
    }

    @Test("more GPUs than are told of are left out, and that is said")
    func tooMany() throws {
        let lines = (0..<70).map { "gpu GPU-number-\($0)\n" }.joined()
        let found = try #require(inventory(FakeNVML(lines).helper().inventory()))
        #expect(found.gpus.count == NVMLLine.maximumGPUs)
        #expect(found.problems.joined().contains("70 GPUs"))
    }

    /// What a program in the helper's place does, and what is made of it.
    struct Impostor: Sendable, CustomTestStringConvertible {
        let script: String
        let kind: NVMLTrouble.Kind
        var testDescription: String { script }
    }

    @Test(
        "whatever the helper does, its caller is told in time",
        arguments: [
            Impostor(script: "exit 0", kind: .crashed), Impostor(script: "exit 7", kind: .crashed),
            Impostor(script: "echo nonsense", kind: .garbled),
            Impostor(script: "echo '{\"protocol\":2,\"kind\":\"inventory\",\"inventory\":{}}'", kind: .garbled),
            Impostor(script: "echo a; echo b; sleep 1000", kind: .garbled),
            Impostor(
                script: "while :; do printf 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'; done",
                kind: .garbled),
            Impostor(script: "while :; do echo complaint >&2; done", kind: .hung),
            Impostor(script: "exec >&- 2>&-; sleep 1000", kind: .hung),
            Impostor(script: "trap '' TERM HUP; sleep 1000 & wait", kind: .hung),
            Impostor(script: "kill -ILL $$", kind: .crashed),
        ])
    func impostors(impostor: Impostor) throws {
        let fake = try FakeNVML("")
        let program = "\(fake.folder)/impostor"
        try File.replace(program, with: Array("#!/bin/sh\n\(impostor.script)\n".utf8), mode: 0o755)
        let helper = NVMLHelper(
            program: program, environment: ["PATH=/usr/bin:/bin", "FAKE_NVML=\(fake.folder)"],
            timeoutMilliseconds: impostor.kind == .hung ? 500 : 60_000, endMilliseconds: 60_000)
        var outcome = helper.inventory()
        // A child that another test starts has the program open for writing until its own execve.
        while case .trouble(let trouble) = outcome, trouble.description.contains(String(errno: ETXTBSY)) {
            outcome = helper.inventory()
        }
        guard case .trouble(let trouble) = outcome else {
            Issue.record("there is an inventory")
            return
        }
        #expect(trouble.kind == impostor.kind, "\(trouble)")
        #expect(try isGone("FAKE_NVML=\(fake.folder)"))
    }

    @Test("a helper that does not end when it is killed is left behind, and another starts only once it has ended")
    func stuck() throws {
        let fake = try FakeNVML(Self.fixture + "hang nvmlInit\n")
        // Nobody waits for its end: it counts as one that cannot be killed.
        let helper = try fake.helper(timeoutMilliseconds: 300, endMilliseconds: -1)
        guard case .trouble(let trouble) = helper.inventory() else {
            Issue.record("there is an inventory")
            return
        }
        if trouble.kind == .stuck { #expect(trouble.description.contains("cannot be killed")) }
        try fake.write(Self.fixture)
        let slow = try fake.helper()
        #expect(inventory(slow.inventory()) != nil)
        // Ended meanwhile, it is in nobody's way any more.
        for _ in 0..<6000 {
            if case .trouble(let again) = helper.inventory(), again.kind == .stuck {
                usleep(10_000)
                continue
            }
            return
        }
        Issue.record("the helper stays stuck")
    }

    @Test("a program that is not there is said to be missing")
    func notThere() {
        guard case .trouble(let trouble) = NVMLHelper(program: "/nowhere/martlet-nvml").inventory() else {
            Issue.record("there is an inventory")
            return
        }
        #expect(trouble.kind == .notStarted)
        #expect(trouble.description.contains("/nowhere/martlet-nvml"))
    }

    @Test(
        "a command line that is none is refused with the usage",
        arguments: [
            [], ["list"], ["inventory", "--interval", "1000"], ["watch", "--interval", "1"],
            ["inventory", "--library", "lib"],
        ])
    func commandLine(arguments: [String]) throws {
        let result = try Program(try FakeNVML.program("martlet-nvml"), arguments).run() as ProgramResult
        #expect(result.status == .exited(2))
        #expect(result.output.isEmpty)
        #expect(result.errorText.contains("usage: martlet-nvml"))
    }
}
