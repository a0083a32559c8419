import CKernel
import Cgroups
import Glibc
import Kernel
import Testing

extension KernelSuite {
    /// Limits that the kernel holds.
    @Suite(.serialized) struct CgroupLimitTests {
        private func apply(_ group: GroupFixture, _ change: (inout CgroupResources) -> Void) throws -> [CgroupNotice] {
            var resources = CgroupResources()
            change(&resources)
            return try group.manager.apply(resources)
        }

        private func refusal(_ group: GroupFixture, _ change: (inout CgroupResources) -> Void) -> CgroupError? {
            #expect(throws: CgroupError.self) { try apply(group, change) }
        }

        @Test func memoryBeyondTheLimitKillsAndIsCounted() throws {
            let group = try GroupFixture(GroupFixture.host())
            _ = try apply(group) {
                $0.memory.limit = 16 << 20
                $0.memory.swap = 24 << 20
            }
            #expect(try group.manager.oomKillCount() == 0)
            let process = try group.start("head -c 64M /dev/zero | tail; sleep 0.1; echo $?")
            _ = try process.read()
            _ = try process.wait()
            #expect(try group.manager.oomKillCount() >= 1)
            let memory = try #require(try group.manager.stats().memory)
            #expect(memory.limit == 16 << 20)
            #expect(memory.oomKills >= 1)
            #expect(memory.failures > 0)
        }

        @Test func memoryLimitsRiseAndFallInTheOrderTheKernelTakes() throws {
            let group = try GroupFixture(GroupFixture.host())
            for (limit, swap) in [(64, 128), (256, 512), (32, 32), (300, 300), (-1, -1), (16, 20)] as [(Int64, Int64)] {
                let unit: Int64 = 1 << 20
                _ = try apply(group) {
                    $0.memory.limit = limit < 0 ? -1 : limit * unit
                    $0.memory.swap = swap < 0 ? -1 : swap * unit
                }
                let memory = try #require(try group.manager.stats().memory)
                #expect(memory.limit == (limit < 0 ? nil : UInt64(limit * unit)))
            }
            _ = try apply(group) { $0.memory.limit = -1 }
            #expect(try group.manager.stats().memory?.limit == nil)
        }

        @Test func aLimitAboveTheOneWithSwapIsRefusedWithTheReason() throws {
            let group = try GroupFixture(GroupFixture.host())
            guard let directory = group.manager.directory(of: .memory),
                File.exists("\(directory)/memory.memsw.limit_in_bytes")
            else { return }
            _ = try apply(group) {
                $0.memory.limit = 32 << 20
                $0.memory.swap = 32 << 20
            }
            let error = refusal(group) { $0.memory.limit = 64 << 20 }
            #expect(error?.controller == "memory")
            #expect(error.map { "\($0)".contains("memory.swap") } == true)
            #expect(error?.errno == EINVAL)
        }

        @Test func aLimitBelowUseIsRefused() throws {
            let group = try GroupFixture(GroupFixture.host())
            let process = try group.start("x=$(head -c 8M /dev/zero | tr '\\0' x); echo begun; read end")
            _ = try process.read(until: "begun")
            let error = refusal(group) {
                $0.memory.limit = 1 << 20
                $0.memory.checkBeforeUpdate = true
            }
            #expect(error?.kind == .invalidValue)
        }

        @Test func processesAreLimited() throws {
            let group = try GroupFixture(GroupFixture.host())
            _ = try apply(group) { $0.pidsLimit = 5 }
            let process = try group.start(
                "echo begun; for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done; echo unreachable")
            let text = try process.read(until: "fork")
            #expect(!text.contains("unreachable"))
            let pids = try #require(try group.manager.stats().pids)
            #expect(pids.limit == 5)
            #expect(pids.current <= 5)
            _ = try apply(group) { $0.pidsLimit = -1 }
            #expect(try group.manager.stats().pids?.limit == nil)
        }

        @Test func aProcessRunsOnlyOnTheProcessorsOfItsGroup() throws {
            let group = try GroupFixture(GroupFixture.host())
            let first = try group.start("grep Cpus_allowed_list /proc/self/status")
            let all = try first.read()
            _ = try first.wait()
            #expect(all.contains("0"), "a new cpuset has the processors of its parent")
            _ = try apply(group) {
                $0.cpu.cpus = "0"
                $0.cpu.mems = "0"
            }
            let second = try group.start("grep Cpus_allowed_list /proc/self/status")
            #expect(try second.read() == "Cpus_allowed_list:\t0\n")
            _ = try second.wait()
            let error = refusal(group) { $0.cpu.cpus = "0-4095" }
            #expect(error?.controller == "cpuset")
            #expect(error.map { "\($0)".contains("cpuset.cpus") } == true)
        }

        @Test func processorTimeIsLimitedAndCounted() throws {
            let group = try GroupFixture(GroupFixture.host())
            _ = try apply(group) {
                $0.cpu.shares = 512
                $0.cpu.quota = 5_000
                $0.cpu.period = 50_000
            }
            let process = try group.start("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")
            #expect(try process.wait() == .exited(0))
            let cpu = try #require(try group.manager.stats().cpu)
            #expect(cpu.usage > 0)
            #expect(cpu.periods > 0)
            #expect(cpu.throttledPeriods > 0)
            #expect(cpu.throttledTime > 0)
        }

        @Test func quotaPeriodAndBurstChangeTogetherInAnyOrder() throws {
            let group = try GroupFixture(GroupFixture.host())
            let directory = try #require(group.manager.directory(of: .cpu))
            func bandwidth() throws -> [String] {
                if File.exists("\(directory)/cpu.max") {
                    return try File.text("\(directory)/cpu.max").split(separator: " ").map { String($0) }
                        + [File.text("\(directory)/cpu.max.burst")]
                }
                return try ["cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.cfs_burst_us"].map {
                    try File.text("\(directory)/\($0)")
                }
            }
            for (quota, period, burst) in [(10_000, 20_000, 5_000), (900_000, 1_000_000, 800_000), (2000, 5000, 1000)] {
                _ = try apply(group) {
                    $0.cpu.quota = Int64(quota)
                    $0.cpu.period = UInt64(period)
                    $0.cpu.burst = UInt64(burst)
                }
                #expect(try bandwidth() == [quota, period, burst].map { String($0) })
            }
            let error = refusal(group) { $0.cpu.burst = 3_000 }
            #expect(error?.controller == "cpu")
            #expect(refusal(group) { $0.cpu.period = 5 }?.errno == EINVAL)
        }

        @Test func anIdleGroupIsMadeOrdinaryAgainWithItsShares() throws {
            let group = try GroupFixture(GroupFixture.host())
            let directory = try #require(group.manager.directory(of: .cpu))
            guard File.exists("\(directory)/cpu.idle") else { return }
            _ = try apply(group) {
                $0.cpu.shares = 300
                $0.cpu.idle = 1
            }
            #expect(try File.text("\(directory)/cpu.idle") == "1")
            _ = try apply(group) {
                $0.cpu.shares = 400
                $0.cpu.idle = 0
            }
            #expect(try File.text("\(directory)/cpu.idle") == "0")
        }

        @Test func throttlesNameADiskOfTheHost() throws {
            let group = try GroupFixture(GroupFixture.host())
            guard group.manager.directory(of: .blkio) != nil else { return }
            let nothing = [CgroupResources.BlockIO.Device(major: 4095, minor: 9, value: 1000)]
            let error = refusal(group) { $0.blockIO.readBytesPerSecond = nothing }
            #expect(error.map { $0.controller == "blkio" || $0.controller == "io" } == true)
            #expect(error.map { "\($0)".contains("4095:9") } == true)
        }

        @Test func hugePagesAreLimitedInTheUnifiedGroup() throws {
            let group = try GroupFixture(GroupFixture.host())
            guard let directory = group.manager.directory(of: .hugetlb), File.exists("\(directory)/hugetlb.2MB.max")
            else { return }
            _ = try apply(group) { $0.hugepages = [CgroupResources.Hugepages(pageSize: "2MB", limit: 4 << 20)] }
            #expect(try File.text("\(directory)/hugetlb.2MB.max") == "4194304")
            #expect(try group.manager.stats().hugepages.contains { $0.pageSize == "2MB" && $0.usage == 0 })
        }
    }
}
