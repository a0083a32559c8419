import Cgroups
import Testing

/// Limits in cgroup v1, against trees of plain files.
@Suite struct OldResourcesTests {
    private func apply(
        _ files: [CgroupController: [String: String]], _ change: (inout CgroupResources) -> Void
    ) throws -> (tree: ControlTree, notices: [CgroupNotice]) {
        let tree = try ControlTree.old(files)
        var resources = CgroupResources()
        change(&resources)
        return (tree, try tree.manager.apply(resources))
    }

    @Test func theProcessorIsShared() throws {
        let files: [CgroupController: [String: String]] = [
            .cpu: [
                "cpu.shares": "1024", "cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000", "cpu.cfs_burst_us": "0",
            ],
            .cpuset: ["cpuset.cpus": "0-3", "cpuset.mems": "0"],
        ]
        let (tree, _) = try apply(files) {
            $0.cpu.shares = 300
            $0.cpu.quota = 20_000
            $0.cpu.period = 50_000
            $0.cpu.burst = 100
            $0.cpu.cpus = "1,3"
        }
        #expect(tree["cpu/cpu.shares"] == "300")
        #expect(tree["cpu/cpu.cfs_quota_us"] == "20000")
        #expect(tree["cpu/cpu.cfs_period_us"] == "50000")
        #expect(tree["cpu/cpu.cfs_burst_us"] == "100")
        #expect(tree["cpuset/cpuset.cpus"] == "1,3")
        #expect(tree["cpuset/cpuset.mems"] == "0")
    }

    @Test(arguments: [1, 262_145] as [UInt64]) func sharesThatTheKernelWouldChangeAreRefused(shares: UInt64) throws {
        let tree = try ControlTree.old([.cpu: ["cpu.shares": "1024"]])
        var resources = CgroupResources()
        resources.cpu.shares = shares
        let error = #expect(throws: CgroupError.self) { try tree.manager.apply(resources) }
        #expect(error?.kind == .invalidValue)
        #expect(error?.controller == "cpu")
        #expect(error?.subject == "cpu.shares")
        #expect(tree["cpu/cpu.shares"] == "1024")
    }

    @Test func realTimeIsBudgetedInItsOwnPeriod() throws {
        let (tree, _) = try apply([.cpu: ["cpu.rt_period_us": "1000000", "cpu.rt_runtime_us": "0"]]) {
            $0.cpu.realtimePeriod = 500_000
            $0.cpu.realtimeRuntime = 1000
        }
        #expect(tree["cpu/cpu.rt_period_us"] == "500000")
        #expect(tree["cpu/cpu.rt_runtime_us"] == "1000")
    }

    @Test func leafWeightsAndWeightsOfDisksGoToTheFilesOfTheirScheduler() throws {
        let disk = { CgroupResources.BlockIO.Device(major: 8, minor: 0, value: $0) }
        let (tree, _) = try apply([
            .blkio: [
                "blkio.weight": "", "blkio.weight_device": "", "blkio.leaf_weight": "", "blkio.leaf_weight_device": "",
            ]
        ]) {
            $0.blockIO.weight = 1000
            $0.blockIO.leafWeight = 10
            $0.blockIO.deviceWeights = [disk(500)]
            $0.blockIO.deviceLeafWeights = [disk(300)]
        }
        #expect(tree["blkio/blkio.weight"] == "1000")
        #expect(tree["blkio/blkio.leaf_weight"] == "10")
        #expect(tree["blkio/blkio.weight_device"] == "8:0 500")
        #expect(tree["blkio/blkio.leaf_weight_device"] == "8:0 300")
    }

    @Test func hugePagesAndRDMAHaveFilesOfTheirOwn() throws {
        let (tree, _) = try apply([
            .hugetlb: ["hugetlb.2MB.limit_in_bytes": "", "hugetlb.2MB.rsvd.limit_in_bytes": ""],
            .rdma: ["rdma.max": ""],
        ]) {
            $0.hugepages = [CgroupResources.Hugepages(pageSize: "2MB", limit: 2 << 20)]
            $0.rdma = [CgroupResources.RDMA(device: "rxe3", objects: 7)]
        }
        #expect(tree["hugetlb/hugetlb.2MB.limit_in_bytes"] == "2097152")
        #expect(tree["hugetlb/hugetlb.2MB.rsvd.limit_in_bytes"] == "2097152")
        #expect(tree["rdma/rdma.max"] == "rxe3 hca_object=7")
    }

    @Test func memoryAndSwapAreLimitedTogether() throws {
        let files: [CgroupController: [String: String]] = [
            .memory: [
                "memory.limit_in_bytes": "9223372036854771712", "memory.memsw.limit_in_bytes": "9223372036854771712",
                "memory.soft_limit_in_bytes": "x", "memory.swappiness": "60", "memory.oom_control": "x",
                "memory.kmem.tcp.limit_in_bytes": "x",
            ]
        ]
        let (tree, notices) = try apply(files) {
            $0.memory.limit = 1000
            $0.memory.swap = 2000
            $0.memory.reservation = 500
            $0.memory.swappiness = 10
            $0.memory.disableOOMKiller = true
            $0.memory.kernelTCP = 300
        }
        #expect(notices.isEmpty)
        #expect(tree["memory/memory.limit_in_bytes"] == "1000")
        #expect(tree["memory/memory.memsw.limit_in_bytes"] == "2000")
        #expect(tree["memory/memory.soft_limit_in_bytes"] == "500")
        #expect(tree["memory/memory.swappiness"] == "10")
        #expect(tree["memory/memory.oom_control"] == "1")
        #expect(tree["memory/memory.kmem.tcp.limit_in_bytes"] == "300")
    }

    @Test func aKernelWithoutSwapAccountingIsReported() throws {
        let (tree, notices) = try apply([.memory: ["memory.limit_in_bytes": "x"]]) {
            $0.memory.limit = 1000
            $0.memory.swap = 2000
        }
        #expect(tree["memory/memory.limit_in_bytes"] == "1000")
        #expect(notices.map(\.kind) == [.swapAccountingAbsent])
    }

    @Test func blockDevicesAreThrottled() throws {
        let disk = [CgroupResources.BlockIO.Device(major: 8, minor: 0, value: 77)]
        let (tree, _) = try apply([
            .blkio: [
                "blkio.throttle.read_bps_device": "", "blkio.throttle.write_iops_device": "", "blkio.bfq.weight": "",
            ]
        ]) {
            $0.blockIO.readBytesPerSecond = disk
            $0.blockIO.writeOperationsPerSecond = disk
            $0.blockIO.weight = 10
        }
        #expect(tree["blkio/blkio.throttle.read_bps_device"] == "8:0 77")
        #expect(tree["blkio/blkio.throttle.write_iops_device"] == "8:0 77")
        #expect(tree["blkio/blkio.bfq.weight"] == "10")
    }

    @Test func networkClassesAreSetWhereTheHostHasThem() throws {
        let files: [CgroupController: [String: String]] = [
            .netClassifier: ["net_cls.classid": ""], .netPriority: ["net_prio.ifpriomap": ""],
        ]
        let (tree, _) = try apply(files) {
            $0.network.classID = 0x10_0001
            $0.network.priorities = [CgroupResources.Network.Priority(interface: "eth0", priority: 5)]
        }
        #expect(tree["net_cls/net_cls.classid"] == "1048577")
        #expect(tree["net_prio/net_prio.ifpriomap"] == "eth0 5")
    }

    @Test func aLimitWithoutItsControllerIsRefusedByName() throws {
        let tree = try ControlTree.old([.freezer: [:]])
        let changes: [(String, (inout CgroupResources) -> Void)] = [
            ("memory", { $0.memory.limit = 1000 }), ("cpu", { $0.cpu.shares = 2 }), ("pids", { $0.pidsLimit = 3 }),
            ("cpuset", { $0.cpu.cpus = "0" }), ("blkio", { $0.blockIO.weight = 10 }),
            ("hugetlb", { $0.hugepages = [CgroupResources.Hugepages(pageSize: "2MB", limit: 0)] }),
            ("rdma", { $0.rdma = [CgroupResources.RDMA(device: "a", handles: 1)] }),
        ]
        for (controller, change) in changes {
            var resources = CgroupResources()
            change(&resources)
            let error = #expect(throws: CgroupError.self) { try tree.manager.apply(resources) }
            #expect(error?.kind == .controllerAbsent)
            #expect(error?.controller == controller)
            #expect(error?.hint.isEmpty == false)
        }
    }

    @Test func liftingALimitNeedsNoController() throws {
        let tree = try ControlTree.old([.freezer: [:]])
        var resources = CgroupResources()
        resources.memory.limit = -1
        resources.memory.swap = -1
        resources.memory.kernelTCP = -1
        resources.pidsLimit = -1
        resources.network.classID = 0
        #expect(try tree.manager.apply(resources).isEmpty)
    }

    @Test func aFileOfTheNewVersionIsRefusedForAnOldController() throws {
        let memory = CgroupHierarchy(mountPoint: "/nowhere/memory", version: .v1, controllers: [.memory])
        let unified = CgroupHierarchy(mountPoint: "/nowhere/unified", version: .v2, controllers: [.hugetlb])
        var resources = CgroupResources()
        resources.unified = [CgroupResources.Unified(file: "memory.high", value: "1")]
        for layout in [CgroupLayout([memory, unified]), CgroupLayout([memory])] {
            let manager = try CgroupManager(layout: layout, path: "/martlet/x")
            let error = #expect(throws: CgroupError.self) { try manager.apply(resources) }
            #expect(error?.kind == .unsupported)
            #expect(error?.controller == "memory")
        }
    }
}
