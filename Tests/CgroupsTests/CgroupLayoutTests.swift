import Cgroups
import Testing

@Suite struct CgroupLayoutTests {
    static let hybrid = """
        22 1 0:21 / /proc rw,relatime - proc proc rw
        31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
        35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
        36 31 0:33 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices
        40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:1 master:2 - cgroup2 cgroup2 rw,nsdelegate
        """

    static func parse(_ text: String, controllers: String = "hugetlb") -> CgroupLayout {
        CgroupLayout.parse(mountInfo: Array(text.utf8)) { _ in controllers }
    }

    @Test func aHybridHostBindsEachControllerWhereItIsMounted() {
        let layout = Self.parse(Self.hybrid)
        #expect(layout.hierarchies.count == 5)
        #expect(layout.home(of: .cpu)?.mountPoint == "/sys/fs/cgroup/cpu,cpuacct")
        #expect(layout.home(of: .cpuacct)?.mountPoint == "/sys/fs/cgroup/cpu,cpuacct")
        #expect(layout.home(of: .memory)?.version == .v1)
        #expect(layout.home(of: .hugetlb)?.version == .v2)
        #expect(layout.home(of: .devices)?.version == .v1)
        #expect(layout.home(of: .pids) == nil)
        #expect(layout.unified?.mountPoint == "/sys/fs/cgroup/unified")
        #expect(layout.hierarchies.contains { $0.name == "systemd" && $0.controllers.isEmpty })
    }

    @Test func aUnifiedHostHasOneHierarchyForEverything() {
        let layout = Self.parse(
            "30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot",
            controllers: "cpuset cpu io memory hugetlb pids rdma misc dmem\n")
        #expect(layout.hierarchies.count == 1)
        for controller in [CgroupController.cpu, .cpuset, .blkio, .memory, .pids, .rdma, .devices, .freezer, .cpuacct] {
            #expect(layout.home(of: controller)?.version == .v2, "\(controller)")
        }
        #expect(layout.home(of: .netClassifier) == nil)
    }

    @Test func anOldHostHasNoUnifiedHierarchy() {
        let layout = Self.parse("36 31 0:33 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer")
        #expect(layout.unified == nil)
        #expect(layout.home(of: .freezer)?.version == .v1)
        #expect(layout.home(of: .devices) == nil)
    }

    @Test func aTreeThatIsMountedAgainElsewhereCountsOnce() {
        let again = "90 31 0:32 /docker/a /var/lib/x/sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
        for text in [again + Self.hybrid, Self.hybrid + "\n" + again] {
            let layout = Self.parse(text)
            #expect(layout.hierarchies.count == 5)
            #expect(layout.home(of: .memory)?.mountPoint == "/sys/fs/cgroup/memory")
        }
    }

    @Test func aMountThatAnotherOneCoversIsNotThere() {
        let layout = CgroupLayout.parse(
            mountInfo: Array(Self.hybrid.utf8),
            isReachable: { place, device in place != "/sys/fs/cgroup/unified" || device != "0:38" },
            unifiedControllers: { _ in "hugetlb" })
        #expect(layout.unified == nil)
        #expect(layout.hierarchies.count == 4)
    }

    @Test func escapedMountPointsAreRead() {
        let layout = Self.parse(#"36 31 0:33 / /mnt/a\040b\134c rw - cgroup cgroup rw,pids"#)
        #expect(layout.home(of: .pids)?.mountPoint == #"/mnt/a b\c"#)
    }

    @Test(arguments: [
        "", "\n\n", "x", "36 31", "36 31 0:33 / /p rw - cgroup", "36 31 0:33 / /p rw cgroup cgroup rw,pids",
    ])
    func brokenLinesAreNoMounts(text: String) {
        #expect(Self.parse(text).hierarchies.isEmpty)
    }

    @Test func aHostWithoutProcfsIsAnError() {
        let error = #expect(throws: CgroupError.self) { try CgroupLayout.detect(procfs: "/there-is-no-procfs") }
        #expect(error.map { "\($0)".contains("/there-is-no-procfs/self/mountinfo") } == true)
    }
}

@Suite struct CgroupPathTests {
    static let layout = CgroupLayoutTests.parse(CgroupLayoutTests.hybrid)

    @Test func aGroupHasADirectoryInEveryHierarchy() throws {
        let manager = try CgroupManager(layout: Self.layout, path: "/martlet//a/")
        #expect(manager.path == "/martlet/a")
        #expect(manager.directories.count == 5)
        #expect(manager.directory(of: .memory) == "/sys/fs/cgroup/memory/martlet/a")
        #expect(manager.unifiedDirectory == "/sys/fs/cgroup/unified/martlet/a")
        #expect(try manager.child("b").path == "/martlet/a/b")
    }

    @Test(
        arguments: [
            "", "/", "//", "martlet", "/..", "/a/../b", "/a/../\u{301}b", "/a/.", "/a\nb", "/a\u{0}", "/\u{7f}",
            "/" + String(repeating: "x", count: 256), String(repeating: "/a", count: 17),
            "/" + String(repeating: "abcdefgh/", count: 300),
        ])
    func aPathThatLeadsElsewhereIsRefused(path: String) {
        let error = #expect(throws: CgroupError.self) { try CgroupManager(layout: Self.layout, path: path) }
        #expect(error?.kind == .invalidPath)
    }

    @Test func aChildStaysBelow() throws {
        let manager = try CgroupManager(layout: Self.layout, path: "/martlet/a")
        #expect(throws: CgroupError.self) { try manager.child("../../etc") }
    }
}

@Suite struct WeightTests {
    @Test(arguments: [(0, 1), (2, 1), (1024, 100), (262_144, 10_000), (1_000_000, 10_000)] as [(UInt64, UInt64)])
    func sharesBecomeWeights(shares: UInt64, weight: UInt64) {
        #expect(CgroupManager.weight(fromShares: shares) == weight)
    }

    @Test func moreSharesAreNeverLessWeight() {
        var last: UInt64 = 0
        for shares in stride(from: UInt64(2), through: 262_144, by: 101) {
            let weight = CgroupManager.weight(fromShares: shares)
            #expect(weight >= last && (1...10_000).contains(weight))
            last = weight
        }
    }

    @Test func blockWeightsBecomeUnifiedOnes() {
        #expect(CgroupManager.unifiedWeight(10) == 1)
        #expect(CgroupManager.unifiedWeight(1000) == 10_000)
        #expect(CgroupManager.unifiedWeight(500) == 4950)
    }
}
