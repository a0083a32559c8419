import Cgroups
import Kernel
import Testing

/// Limits in cgroup v2, against a tree of plain files.
@Suite struct UnifiedResourcesTests {
    private func apply(
        _ files: [String: String], _ change: (inout CgroupResources) -> Void
    ) throws -> (tree: ControlTree, notices: [CgroupNotice]) {
        let tree = try ControlTree.unified(files)
        var resources = CgroupResources()
        change(&resources)
        return (tree, try tree.manager.apply(resources))
    }

    private func refusal(_ files: [String: String], _ change: (inout CgroupResources) -> Void) -> CgroupError? {
        #expect(throws: CgroupError.self) { try apply(files, change) }
    }

    @Test func nothingIsWrittenWhenNothingIsAsked() throws {
        let (tree, notices) = try apply(["memory.max": "max"]) { _ in }
        #expect(tree["unified/memory.max"] == "max")
        #expect(notices.isEmpty)
    }

    @Test func theProcessorIsShared() throws {
        let files = [
            "cpu.weight": "100", "cpu.max": "max 100000", "cpu.max.burst": "0", "cpu.idle": "0", "cpuset.cpus": "",
            "cpuset.mems": "",
        ]
        let (tree, _) = try apply(files) {
            $0.cpu.shares = 1024
            $0.cpu.quota = 50_000
            $0.cpu.period = 200_000
            $0.cpu.burst = 1000
            $0.cpu.cpus = "0-1"
            $0.cpu.mems = "0"
        }
        #expect(tree["unified/cpu.weight"] == "100")
        #expect(tree["unified/cpu.max"] == "50000 200000")
        #expect(tree["unified/cpu.max.burst"] == "1000")
        #expect(tree["unified/cpuset.cpus"] == "0-1")
        #expect(tree["unified/cpuset.mems"] == "0")
    }

    /// The pairs of runc's conversion: an ordinary group stays ordinary, and the ends meet.
    @Test(
        arguments: [
            (1, 1), (2, 1), (3, 2), (10, 4), (100, 17), (512, 59), (1024, 100), (2048, 174), (10_000, 627),
            (262_144, 10_000), (300_000, 10_000),
        ] as [(UInt64, UInt64)])
    func sharesBecomeAWeight(shares: UInt64, weight: UInt64) throws {
        let (tree, _) = try apply(["cpu.weight": "100"]) { $0.cpu.shares = shares }
        #expect(tree["unified/cpu.weight"] == String(weight))
    }

    @Test func aBurstAboveTheQuotaAndAnIdlenessOfTwoAreRefused() {
        let files = ["cpu.max": "max 100000", "cpu.max.burst": "0", "cpu.idle": "0"]
        let burst = refusal(files) {
            $0.cpu.quota = 1000
            $0.cpu.burst = 1001
        }
        #expect(burst?.subject == "cpu.burst")
        #expect(burst?.kind == .invalidValue)
        let idle = refusal(files) { $0.cpu.idle = 2 }
        #expect(idle?.subject == "cpu.idle")
        #expect(idle?.kind == .invalidValue)
    }

    @Test func aChangeOfQuotaOrPeriodKeepsTheOther() throws {
        var (tree, _) = try apply(["cpu.max": "20000 50000\n"]) { $0.cpu.quota = 30_000 }
        #expect(tree["unified/cpu.max"] == "30000 50000")
        (tree, _) = try apply(["cpu.max": "20000 50000\n"]) { $0.cpu.period = 60_000 }
        #expect(tree["unified/cpu.max"] == "20000 60000")
        (tree, _) = try apply(["cpu.max": "20000 50000\n"]) { $0.cpu.quota = -1 }
        #expect(tree["unified/cpu.max"] == "max 50000")
    }

    @Test func aWeightThatIsLiftedIsTheKernelsOwn() throws {
        for file in ["io.weight", "io.bfq.weight"] {
            let (tree, _) = try apply([file: "7"]) { $0.blockIO.isWeightLifted = true }
            #expect(tree["unified/\(file)"] == "100")
        }
    }

    @Test func zeroMeansNotGiven() throws {
        let (tree, _) = try apply(["cpu.max": "a", "cpu.weight": "b", "memory.max": "c"]) {
            $0.cpu.quota = 0
            $0.cpu.shares = 0
            $0.cpu.period = 0
            $0.memory.limit = 0
            $0.memory.swap = 0
        }
        #expect(tree["unified/cpu.max"] == "a")
        #expect(tree["unified/memory.max"] == "c")
    }

    @Test func swapIsWhatIsLeftBesideMemory() throws {
        let files = ["memory.max": "max", "memory.swap.max": "max", "memory.low": "0"]
        var (tree, _) = try apply(files) {
            $0.memory.limit = 64 << 20
            $0.memory.swap = 96 << 20
            $0.memory.reservation = 32 << 20
        }
        #expect(tree["unified/memory.max"] == "67108864")
        #expect(tree["unified/memory.swap.max"] == "33554432")
        #expect(tree["unified/memory.low"] == "33554432")
        (tree, _) = try apply(files) {
            $0.memory.limit = 64 << 20
            $0.memory.swap = 64 << 20
        }
        #expect(tree["unified/memory.swap.max"] == "0")
        (tree, _) = try apply(["memory.max": "1000", "memory.swap.max": "0"]) { $0.memory.limit = -1 }
        #expect(tree["unified/memory.max"] == "max")
        #expect(tree["unified/memory.swap.max"] == "max")
        (tree, _) = try apply(["memory.max": "1000", "memory.swap.max": "0"]) {
            $0.memory.limit = -1
            $0.memory.swap = 2000
        }
        #expect(tree["unified/memory.swap.max"] == "2000", "there is nothing to take away")
        (tree, _) = try apply(["memory.max": "1000", "memory.swap.max": "0"]) { $0.memory.swap = 1500 }
        #expect(tree["unified/memory.swap.max"] == "500")
    }

    @Test func swapLimitsThatMakeNoSenseAreRefused() {
        let files = ["memory.max": "max", "memory.swap.max": "max"]
        var error = refusal(files) {
            $0.memory.limit = 2000
            $0.memory.swap = 1000
        }
        #expect(error?.kind == .invalidValue)
        error = refusal(files) { $0.memory.swap = 1000 }
        #expect(error.map { "\($0)".contains("memory.limit") } == true)
    }

    @Test func aKernelWithoutSwapAccountingIsReported() throws {
        let (tree, notices) = try apply(["memory.max": "max"]) {
            $0.memory.limit = 1000
            $0.memory.swap = 2000
        }
        #expect(tree["unified/memory.max"] == "1000")
        #expect(notices.map(\.kind) == [.swapAccountingAbsent])
        let unlimited = try apply(["memory.max": "max"]) {
            $0.memory.limit = 1000
            $0.memory.swap = -1
        }
        #expect(unlimited.notices.isEmpty)
    }

    @Test func swapIsAccountedWhereTheNearestGroupSaysSo() throws {
        let with = try ControlTree.unified(["memory.max": "max", "memory.swap.max": "max"])
        let without = try ControlTree.unified(["memory.max": "max"])
        let old = try ControlTree.old([.memory: [:]])
        try withExtendedLifetime((with, without, old)) {
            #expect(with.manager.accountsSwap())
            #expect(!without.manager.accountsSwap())
            #expect(try !without.manager.child("not/there").accountsSwap(), "the group above tells")
            let above = try CgroupManager(layout: without.manager.layout, path: "/martlet")
            #expect(above.accountsSwap(), "nobody tells")
            #expect(!old.manager.accountsSwap())
        }
    }

    @Test func aLimitBelowUseIsRefusedWhenAskedTo() {
        let error = refusal(["memory.max": "max", "memory.current": "5000\n"]) {
            $0.memory.limit = 4096
            $0.memory.checkBeforeUpdate = true
        }
        #expect(error?.kind == .invalidValue)
        #expect(error.map { "\($0)".contains("5000") } == true)
    }

    @Test func theKernelMemoryLimitIsIgnoredWithANotice() throws {
        let (_, notices) = try apply([:]) { $0.memory.kernel = 1 << 20 }
        #expect(notices.map(\.kind) == [.ignored])
        #expect(notices.map(\.field) == ["memory.kernel"])
    }

    @Test func fieldsOfTheOldVersionAreRefusedByName() {
        let changes: [(String, (inout CgroupResources) -> Void)] = [
            ("memory.kernelTCP", { $0.memory.kernelTCP = 1 }),
            ("memory.swappiness", { $0.memory.swappiness = 10 }),
            ("memory.disableOOMKiller", { $0.memory.disableOOMKiller = true }),
            ("memory.useHierarchy", { $0.memory.useHierarchy = false }),
            ("cpu.realtimeRuntime", { $0.cpu.realtimeRuntime = 1 }),
            ("cpu.realtimePeriod", { $0.cpu.realtimePeriod = 1 }),
            ("leaf weight", { $0.blockIO.leafWeight = 100 }),
            ("network.classID", { $0.network.classID = 1 }),
            (
                "network.priorities",
                { $0.network.priorities = [CgroupResources.Network.Priority(interface: "eth0", priority: 1)] }
            ),
        ]
        for (name, change) in changes {
            let error = refusal(["memory.max": "max"], change)
            #expect(error.map { "\($0)".contains(name) } == true, "\(name): \(String(describing: error))")
            #expect(error?.kind == .unsupported || error?.kind == .controllerAbsent)
        }
        for harmless: (inout CgroupResources) -> Void in [
            { $0.memory.disableOOMKiller = false }, { $0.memory.kernelTCP = -1 }, { $0.memory.swappiness = .max },
            { $0.memory.kernel = -1 }, { $0.memory.useHierarchy = true },
        ] {
            #expect(throws: Never.self) { try apply([:], harmless) }
        }
    }

    @Test(arguments: [(-1, "max"), (0, "1"), (100, "100")] as [(Int64, String)])
    func processesAreLimited(limit: Int64, text: String) throws {
        let (tree, _) = try apply(["pids.max": "x"]) { $0.pidsLimit = limit }
        #expect(tree["unified/pids.max"] == text)
    }

    @Test func blockDevicesAreThrottledAndWeighed() throws {
        let disk = CgroupResources.BlockIO.Device(major: 8, minor: 0, value: 1_048_576)
        var (tree, _) = try apply(["io.max": "", "io.weight": "", "io.bfq.weight": ""]) {
            $0.blockIO.weight = 300
            $0.blockIO.writeOperationsPerSecond = [disk]
        }
        #expect(tree["unified/io.max"] == "8:0 wiops=1048576")
        #expect(tree["unified/io.bfq.weight"] == "300")
        (tree, _) = try apply(["io.max": "", "io.weight": ""]) {
            $0.blockIO.deviceWeights = [CgroupResources.BlockIO.Device(major: 8, minor: 16, value: 1000)]
            $0.blockIO.readBytesPerSecond = [CgroupResources.BlockIO.Device(major: 8, minor: 0, value: 0)]
        }
        #expect(tree["unified/io.weight"] == "8:16 10000")
        #expect(tree["unified/io.max"] == "8:0 rbps=max")
        #expect(refusal(["io.max": ""]) { $0.blockIO.weight = 300 }?.kind == .unsupported)
        #expect(refusal(["io.weight": ""]) { $0.blockIO.weight = 5 }?.kind == .invalidValue)
    }

    @Test func hugePagesAreLimitedWithTheirReservations() throws {
        let limit = [CgroupResources.Hugepages(pageSize: "2MB", limit: 4 << 20)]
        let (tree, _) = try apply(["hugetlb.2MB.max": "max", "hugetlb.2MB.rsvd.max": "max"]) { $0.hugepages = limit }
        #expect(tree["unified/hugetlb.2MB.max"] == "4194304")
        #expect(tree["unified/hugetlb.2MB.rsvd.max"] == "4194304")
        for size in ["3MB", "2M", "../x", "0MB", "MB", "2MB/.."] {
            let error = refusal(["hugetlb.2MB.max": "max"]) {
                $0.hugepages = [CgroupResources.Hugepages(pageSize: size, limit: 0)]
            }
            #expect(error?.kind == .unsupported || error?.kind == .invalidValue, "\(size)")
        }
    }

    @Test(.enabled(if: File.exists("/sys/kernel/mm/hugepages/hugepages-2048kB"), "needs huge pages of 2 MiB"))
    func whereNoLimitCanBeNoHugePagesAreToldAndSomeRefused() throws {
        let (_, notices) = try apply(["hugetlb.1GB.max": "max"]) {
            $0.hugepages = [CgroupResources.Hugepages(pageSize: "2MB", limit: 0)]
        }
        #expect(notices.map(\.kind) == [.limitAbsent] && notices.map(\.field) == ["hugepageLimits.2MB"])
        let error = refusal(["hugetlb.1GB.max": "max"]) {
            $0.hugepages = [CgroupResources.Hugepages(pageSize: "2MB", limit: 2 << 20)]
        }
        #expect(error?.kind == .unsupported)
    }

    @Test func rdmaDevicesAreLimited() throws {
        let (tree, _) = try apply(["rdma.max": ""]) {
            $0.rdma = [CgroupResources.RDMA(device: "mlx5_0", handles: 3, objects: 1000)]
        }
        #expect(tree["unified/rdma.max"] == "mlx5_0 hca_handle=3 hca_object=1000")
    }

    @Test func anyFileOfTheGroupCanBeSetByName() throws {
        let (tree, _) = try apply(["memory.high": "max", "io.max": "", "cgroup.max.depth": "max", "cpuset.cpus": "0"]) {
            $0.unified = [
                CgroupResources.Unified(file: "memory.high", value: "1000"),
                CgroupResources.Unified(file: "io.max", value: "8:0 rbps=1\n8:16 rbps=2"),
                CgroupResources.Unified(file: "cgroup.max.depth", value: "3"),
                CgroupResources.Unified(file: "cpuset.cpus", value: ""),
            ]
        }
        #expect(tree["unified/cpuset.cpus"] == "\n", "nothing is a value too")
        #expect(tree["unified/memory.high"] == "1000")
        #expect(tree["unified/io.max"] == "8:16 rbps=2", "each line is a write of its own")
        #expect(tree["unified/cgroup.max.depth"] == "3")
    }

    @Test(
        arguments: [
            "cgroup.procs", "cgroup.threads", "cgroup.type", "cgroup.kill", "cgroup.freeze", "cgroup.subtree_control",
            "memory", "../memory.high",
            "memory.nonsense", ".", "", "memory.high\n",
        ])
    func filesThatAreNoLimitAreRefused(file: String) {
        let error = refusal(["memory.high": "max", "cgroup.procs": "", "cgroup.kill": ""]) {
            $0.unified = [CgroupResources.Unified(file: file, value: "1")]
        }
        #expect(error?.kind == .unsupported || error?.kind == .invalidValue)
    }

    @Test(arguments: ["0-", "a", "0\n1"]) func listsOfProcessorsHoldNumbersOnly(list: String) {
        let error = refusal(["cpu.max": ""]) { $0.cpu.cpus = list }
        #expect(error != nil)
        #expect(error?.controller == "cpuset")
    }

    @Test func aMissingFileIsAnErrorThatNamesControllerAndFile() {
        let error = refusal([:]) { $0.pidsLimit = 5 }
        #expect(error?.controller == "pids")
        #expect(error.map { $0.subject.hasSuffix("/martlet/x/pids.max") } == true)
    }
}
