import Glibc
import OCISpec

@testable import Cgroups
@testable import Confinement
@testable import ContainerRuntime
@testable import Kernel

extension FuzzTarget {
    /// Files of procfs.
    static let proc = FuzzTarget(
        name: "proc", longest: 2048,
        seeds: {
            let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 9 0 0 0 1 2 0 0 20 0 1 0 99 4096 5 18446744073709551615 1 1\n"
            let mounts = """
                21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
                30 21 0:26 /x\\040y /sys/fs/cgroup ro,nosuid master:2 - cgroup2 cgroup2 rw
                31 21 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
                32 21 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd

                """
            let groups = "12:memory:/user/x\n3:name=systemd:/init.scope\n0::/x y/system.slice/a.service\n"
            return [bytes(stat), bytes(mounts), bytes(mounts + "\u{0}" + groups)]
        }
    ) { input in
        if let stat = Proc.parse(stat: input) {
            expect(stat.command.utf8.count <= 3 * input.count, "a command is of the line")
        }
        for line in input.split(separator: 10) {
            guard let entry = MountInfo.parse(line) else { continue }
            expect(entry.mountPoint.utf8.count <= 3 * line.count, "a mount point is of the line")
        }
        // The table, then what /proc/self/cgroup says.
        let parts = input.split(separator: 0, maxSplits: 1, omittingEmptySubsequences: false)
        let layout = CgroupLayout.parse(mountInfo: Array(parts[0])) { _ in "cpu io memory pids nosuch" }
        expect(layout.hierarchies.count { $0.version == .v2 } <= 1, "there is one unified hierarchy")
        guard parts.count == 2 else { return }
        let membership = String(decoding: parts[1], as: UTF8.self)
        guard let moved = try? layout.startingFromOwnGroups(membership) else { return }
        expect(moved.hierarchies.count == layout.hierarchies.count, "every hierarchy is still there")
        for hierarchy in moved.hierarchies {
            expect(!components(hierarchy.base).contains(bytes("..")), "a group is below its root: \(hierarchy.base)")
        }
    }

    /// Files of control groups: an input is files' numbers and contents, with NUL between.
    static let counters = FuzzTarget(
        name: "counters", longest: 1024,
        seeds: {
            ControlFiles.examples.enumerated().map { [UInt8($0)] + bytes($1) + [0] }
                + [ControlFiles.examples.enumerated().flatMap { [UInt8($0)] + bytes($1) + [0] }]
        }
    ) { input in
        guard let files = ControlFiles.shared else { return expect(false, "files can be made in /dev/shm") }
        files.replace(input)
        var change = CgroupResources()
        change.cpu.quota = 1
        change.cpu.shares = 1
        change.cpu.cpus = "0"
        change.memory.limit = 1
        change.pidsLimit = 1
        for manager in files.managers {
            guard let stats = try? manager.stats() else { return expect(false, "the group is there") }
            if let memory = stats.memory { expect(memory.workingSet <= memory.usage, "the working set is used") }
            _ = try? manager.oomKillCount()
            _ = try? manager.processes()
            _ = try? manager.isFrozen()
            for property in manager.unitProperties(of: change) {
                if case .array(_, let mask) = property.value { expect(mask.count <= 1024, "a mask has 8192 bits") }
            }
        }
    }

    static let seccomp = FuzzTarget(name: "seccomp", longest: 2048, seeds: { [bytes(Fixtures.seccomp)] }) { input in
        guard let spec = roundTrip(SeccompSpec.self, input), spec.syscalls.count <= 32,
            spec.syscalls.allSatisfy({ $0.names.count <= 64 }),
            let log = try? RuntimeLog(path: nil, format: .text, debug: false)
        else { return }
        let cache = SeccompCache(directory: "/proc/no-cache")
        guard let filter = try? Filter(spec, cache: cache, log: log) else { return }
        expect(filter.bytes.count % 8 == 0, "a filter is made of whole instructions")
        guard let program = FilterProgram(bytes: filter.bytes) else { return expect(false, "instructions are ours") }
        expect((1...4096).contains(program.instructions.count), "the kernel takes as many instructions")
        program.expectLoadable()
        // Conditions aside, a call gets what the first rule for it says that differs from the default.
        let byDefault = try? SeccompAction(name: spec.defaultAction, errnoRet: spec.defaultErrnoRet)
        var seen: Set<String> = []
        for rule in spec.syscalls where rule.args.isEmpty {
            guard let action = try? SeccompAction(name: rule.action, errnoRet: rule.errnoRet), action != byDefault
            else {
                continue
            }
            for name in rule.names where seen.insert(name).inserted {
                let number = ["read": 0, "write": 1, "kill": 62, "personality": 135][name] as UInt32?
                guard let number, FuzzTarget.isNative64 else { continue }
                expect(program.answer(number, 0xc000_003e) == action.code, "\(name) is answered with \(action)")
            }
        }
    }

    private static var isNative64: Bool { SeccompArchitecture.native == .x8664 }
}

extension FilterProgram {
    /// What the kernel checks of a classic program: every jump leads to an instruction behind it, and the last answers.
    fileprivate func expectLoadable() {
        for (index, instruction) in instructions.enumerated() {
            switch instruction.code {
            case .jump:
                expect(index + 1 + Int(instruction.operand) < instructions.count, "a jump ends in the program")
            case .jumpIfEqual, .jumpIfGreater, .jumpIfGreaterOrEqual, .jumpIfSet:
                let far = Int(max(instruction.ifTrue, instruction.ifFalse))
                expect(index + 1 + far < instructions.count, "a jump ends in the program")
            case .load: expect(instruction.operand < 64 && instruction.operand % 4 == 0, "a load is of the call")
            case .and, .answer: break
            }
        }
        expect(instructions.last?.code == .answer, "the last instruction answers")
    }

    /// The answer to a call whose arguments are 0.
    fileprivate func answer(_ number: UInt32, _ architecture: UInt32) -> UInt32? {
        var accumulator: UInt32 = 0
        var index = 0
        while index < instructions.count {
            let step = instructions[index]
            index += 1
            func jump(_ condition: Bool) { index += Int(condition ? step.ifTrue : step.ifFalse) }
            switch step.code {
            case .load: accumulator = step.operand == 0 ? number : step.operand == 4 ? architecture : 0
            case .and: accumulator &= step.operand
            case .jump: index += Int(step.operand)
            case .jumpIfEqual: jump(accumulator == step.operand)
            case .jumpIfGreater: jump(accumulator > step.operand)
            case .jumpIfGreaterOrEqual: jump(accumulator >= step.operand)
            case .jumpIfSet: jump(accumulator & step.operand != 0)
            case .answer: return step.operand
            }
        }
        return nil
    }
}

/// A group of cgroup v2 and one of v1, in memory, with plain files.
private struct ControlFiles: Sendable {
    let root: String
    let managers: [CgroupManager]

    static let shared = ControlFiles()

    /// Name and first content of every file that is read.
    private static let files: [(name: String, example: String)] = [
        ("cpu.stat", "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 1\nnr_throttled 1\nthrottled_usec 7\n"),
        ("memory.stat", "file 4096\ninactive_file 512\nkernel 10\ntotal_cache 7\ntotal_inactive_file 3\n"),
        ("memory.events", "low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\n"), ("memory.current", "8192\n"),
        ("memory.max", "max\n"), ("memory.swap.max", "4096\n"), ("memory.swap.current", "1\n"),
        ("pids.current", "3\n"), ("pids.max", "64\n"), ("cpu.max", "50000 100000\n"), ("cpu.weight", "100\n"),
        ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n8:0 rbytes=9 wbytes=9\n"),
        ("cpuset.cpus", "0-3,7\n"), ("cgroup.procs", "1\n0\n22\n"), ("cgroup.events", "populated 1\nfrozen 0\n"),
        ("memory.pressure", "some avg10=0.12 avg60=0.00 avg300=0.00 total=9\nfull avg10=1.00 total=2\n"),
        ("hugetlb.2MB.current", "0\n"), ("hugetlb.2MB.events", "max 0\n"), ("cpu.idle", "0\n"),
        ("memory.usage_in_bytes", "9\n"), ("memory.limit_in_bytes", "9223372036854771712\n"),
        ("memory.memsw.usage_in_bytes", "10\n"), ("memory.memsw.limit_in_bytes", "20\n"),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"), ("memory.failcnt", "1\n"),
        ("cpuacct.usage", "5\n"), ("cpuacct.usage_percpu", "1 2 3 \n"), ("freezer.state", "THAWED\n"),
        ("blkio.throttle.io_service_bytes", "8:0 Read 1\n8:0 Write 2\n8:0 Total 3\nTotal 3\n"),
        ("blkio.throttle.io_serviced", "8:0 Read 1\n8:0 Read 2\n"),
        ("blkio.bfq.io_service_bytes_recursive", "8:0 Read 1\n8:0 Discard 2\n"),
        ("blkio.bfq.io_serviced_recursive", "8:16 Read 1\n8:16 Write 1\n"),
    ]

    static var examples: [String] { files.map(\.example) }

    private init?() {
        root = "/dev/shm/martlet-fuzz-\(getpid())"
        let all = CgroupController.allCases.filter { $0.unifiedName != nil }
        let old: [CgroupController] = [.memory, .cpuacct, .cpu, .blkio, .pids, .freezer, .cpuset]
        let layouts = [
            CgroupHierarchy(mountPoint: "\(root)/v2", version: .v2, controllers: all),
            CgroupHierarchy(mountPoint: "\(root)/v1", version: .v1, controllers: old),
        ]
        managers = layouts.compactMap { try? CgroupManager(layout: CgroupLayout([$0]), path: "/g") }
        for directory in ["", "/v1", "/v2", "/v1/g", "/v2/g"] { mkdir(root + directory, 0o700) }
        guard File.exists("\(root)/v2/g"), managers.count == 2 else { return nil }
        let place = root
        Self.removed = place
        atexit { if let place = ControlFiles.removed { _ = try? Tree.remove(place) } }
    }

    /// Read when the process ends.
    // SAFETY: written once, before the only thread reads it.
    nonisolated(unsafe) private static var removed: String?

    /// Only the files of the input are there afterwards, in both groups.
    func replace(_ input: [UInt8]) {
        for name in Self.files.map(\.name) {
            for version in ["v1", "v2"] { unlink("\(root)/\(version)/g/\(name)") }
        }
        for part in input.split(separator: 0).prefix(16) {
            guard let number = part.first, Int(number) < Self.files.count else { continue }
            for version in ["v1", "v2"] {
                let path = "\(root)/\(version)/g/\(Self.files[Int(number)].name)"
                guard let file = try? File.open(path, O_WRONLY | O_CREAT | O_TRUNC) else { continue }
                try? file.writeAll(Array(part.dropFirst()), subject: path)
            }
        }
    }
}
