import Cgroups
import Testing

@Suite struct CgroupStatsTests {
    @Test func aUnifiedGroupIsRead() throws {
        let tree = try ControlTree.unified([
            "cpu.stat":
                "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnr_periods 9\nnr_throttled 2\nthrottled_usec 7\n",
            "memory.current": "1000\n", "memory.max": "max\n", "memory.peak": "3000\n",
            "memory.swap.current": "11\n", "memory.swap.max": "12\n",
            "memory.stat": "anon 500\nfile 400\ninactive_file 300\nkernel 50\n",
            "memory.events": "low 0\nhigh 0\nmax 4\noom 1\noom_kill 2\noom_group_kill 0\n",
            "pids.current": "3\n", "pids.max": "5\n",
            "io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n8:16 rbytes=9\n253:0 \n",
            "cpu.pressure":
                "some avg10=1.25 avg60=0.00 avg300=0.00 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
            "hugetlb.2MB.current": "0\n", "hugetlb.2MB.events": "max 3\n", "hugetlb.2MB.rsvd.current": "0\n",
        ])
        let stats = try tree.manager.stats()
        #expect(stats.cpu?.usage == 1_500_000)
        #expect(stats.cpu?.user == 1_000_000)
        #expect(stats.cpu?.throttledTime == 7000)
        #expect(stats.cpu?.periods == 9 && stats.cpu?.throttledPeriods == 2)
        #expect(stats.memory?.usage == 1000 && stats.memory?.workingSet == 700 && stats.memory?.cache == 400)
        #expect(stats.memory?.limit == nil && stats.memory?.maxUsage == 3000)
        #expect(stats.memory?.swapUsage == 11 && stats.memory?.swapLimit == 12)
        #expect(stats.memory?.failures == 4 && stats.memory?.oomKills == 2)
        #expect(stats.pids?.current == 3 && stats.pids?.limit == 5)
        let disk = try #require(stats.devices?.first { $0.major == 8 && $0.minor == 0 })
        #expect(disk.readBytes == 1 && disk.writeBytes == 2 && disk.readOperations == 3 && disk.writeOperations == 4)
        #expect(disk.discardBytes == 5 && disk.discardOperations == 6)
        #expect(stats.devices?.count == 2)
        #expect(stats.cpuPressure?.some == 77 && stats.cpuPressure?.someTenSeconds == 125)
        #expect(stats.memoryPressure == nil)
        #expect(stats.hugepages.map(\.pageSize) == ["2MB"] && stats.hugepages.map(\.failures) == [3])
        #expect(try tree.manager.oomKillCount() == 2)
    }

    @Test func anOldGroupIsRead() throws {
        let tree = try ControlTree.old([
            .cpuacct: [
                "cpuacct.usage": "900\n", "cpuacct.usage_user": "600\n", "cpuacct.usage_sys": "300\n",
                "cpuacct.usage_percpu": "400 500 \n",
            ],
            .cpu: ["cpu.stat": "nr_periods 1\nnr_throttled 1\nthrottled_time 55\n"],
            .memory: [
                "memory.usage_in_bytes": "1000\n", "memory.limit_in_bytes": "9223372036854771712\n",
                "memory.max_usage_in_bytes": "2000\n", "memory.failcnt": "5\n", "memory.memsw.failcnt": "3\n",
                "memory.memsw.usage_in_bytes": "1100\n",
                "memory.stat": "cache 1\ntotal_cache 350\ntotal_inactive_file 1200\n",
                "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 6\n",
            ],
            .pids: ["pids.current": "1\n", "pids.max": "max\n"],
            .blkio: [
                "blkio.throttle.io_service_bytes_recursive":
                    "254:0 Read 10\n254:0 Write 20\n254:0 Total 30\nTotal 30\n",
                "blkio.throttle.io_serviced_recursive": "254:0 Read 1\n254:0 Write 2\nTotal 3\n",
                "blkio.bfq.io_service_bytes_recursive": "Total 0\n",
            ],
        ])
        let stats = try tree.manager.stats()
        #expect(stats.cpu?.usage == 900 && stats.cpu?.user == 600 && stats.cpu?.system == 300)
        #expect(stats.cpu?.perProcessor == [400, 500])
        #expect(stats.cpu?.throttledTime == 55)
        #expect(stats.memory?.limit == nil && stats.memory?.swapUsage == 100)
        #expect(stats.memory?.workingSet == 0, "more inactive cache than use: never below zero")
        #expect(stats.memory?.cache == 350 && stats.memory?.failures == 8 && stats.memory?.oomKills == 6)
        #expect(stats.pids?.current == 1 && stats.pids?.limit == nil)
        #expect(stats.devices?.map(\.readBytes) == [10])
        #expect(stats.devices?.map(\.writeOperations) == [2])
    }

    @Test func countersThatAreTooLargeTogetherWrap() throws {
        let most = UInt64.max
        let unified = try ControlTree.unified(["io.stat": "8:0 rbytes=\(most) dios=\(most)\n8:0 rbytes=2 dios=3\n"])
        #expect(try unified.manager.stats().devices?.map(\.readBytes) == [1])
        let old = try ControlTree.old([
            .blkio: [
                "blkio.throttle.io_service_bytes": "8:0 Read \(most)\n8:0 Read 5\n",
                "blkio.throttle.io_serviced": "8:0 Read \(most)\n8:0 Write \(most)\n8:0 Discard \(most)\n",
            ]
        ])
        #expect(try old.manager.stats().devices?.map(\.readBytes) == [4])
    }

    @Test func whatTheHostLacksIsAbsent() throws {
        let tree = try ControlTree.old([.freezer: [:]])
        let stats = try withExtendedLifetime(tree) { try tree.manager.stats() }
        #expect(stats.cpu == nil && stats.memory == nil && stats.pids == nil && stats.devices == nil)
    }

    @Test func aGroupThatDoesNotExistIsAnError() throws {
        let layout = CgroupLayout([CgroupHierarchy(mountPoint: "/nowhere", version: .v2, controllers: [])])
        let manager = try CgroupManager(layout: layout, path: "/martlet/x")
        #expect(throws: CgroupError.self) { try manager.stats() }
    }
}
