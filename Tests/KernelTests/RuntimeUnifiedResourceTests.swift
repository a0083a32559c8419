import Cgroups
import Glibc
import JSON
import Kernel
import OCISpec
import Testing

extension KernelSuite {
    /// `linux.resources` and `update` where every controller is on cgroup v2, read back from the container's cgroup
    /// files; runc is the yardstick.
    @Suite(.serialized, .enabled(if: HostCgroups.isUnified, "needs all controllers on cgroup v2"))
    struct RuntimeUnifiedResource {
        /// Files whose values this runtime and runc must agree on. `cpu.weight` is not among them: releases of runc
        /// before 1.3 convert shares in another way.
        private static let compared = [
            "cpu.max", "cpuset.cpus", "cpuset.mems", "io.max", "memory.high", "memory.low", "memory.max",
            "memory.swap.max", "pids.max",
        ]

        private func file(_ name: String, _ fixture: RuntimeFixture) throws -> String {
            try File.text("\(fixture.cgroup("unified"))/\(name)")
        }

        /// The limits of the latest bundle's container.
        private func limits(_ fixture: RuntimeFixture) throws -> [String: String] {
            var found: [String: String] = [:]
            for name in Self.compared { found[name] = try file(name, fixture) }
            return found
        }

        private func create(_ fixture: RuntimeFixture, _ json: String) throws -> RuntimeOutput {
            let resources = try ResourcesSpec(parsing: Array(json.utf8))
            return try fixture.call([
                "create", "--bundle", try fixture.bundle { $0.linux?.resources = resources }, "c1",
            ])
        }

        /// What a runtime makes of resources: the files of a created container.
        private func written(_ runtime: RuntimeFixture.Runtime, _ json: String) throws -> [String: String] {
            let fixture = try RuntimeFixture(runtime)
            let output = try create(fixture, json)
            try #require(output.code == 0, "\(runtime): \(output.stderr)")
            return try limits(fixture)
        }

        /// Numbers of a whole disk of this host, as `7:0`.
        private func disk() throws -> String? {
            try File.list("/sys/block").sorted().first.map { try File.text("/sys/block/\($0)/dev") }
        }

        @Test(
            arguments: [
                #"{}"#,
                #"{"cpu":{"shares":512,"quota":50000,"period":100000,"cpus":"0","mems":"0"}}"#,
                #"{"cpu":{"quota":-1,"period":50000}}"#, #"{"cpu":{"quota":20000}}"#,
                #"{"cpu":{"shares":0,"quota":0}}"#,
                #"{"memory":{"limit":67108864,"swap":134217728,"reservation":33554432}}"#,
                #"{"memory":{"limit":67108864}}"#, #"{"memory":{"limit":-1}}"#, #"{"memory":{"limit":-1,"swap":-1}}"#,
                #"{"memory":{"limit":67108864,"swap":67108864,"useHierarchy":true,"checkBeforeUpdate":true}}"#,
                #"{"memory":{"limit":67108864,"swap":-1,"reservation":-1}}"#,
                #"{"pids":{"limit":32}}"#, #"{"pids":{"limit":-1}}"#,
                #"{"unified":{"memory.high":"33554432","pids.max":"77"}}"#,
            ])
        func `the cgroup files say what runc makes them say`(_ json: String) throws {
            let ours = try written(.ours, json)
            let theirs = try written(.runc, json)
            for name in Self.compared { #expect(ours[name] == theirs[name], "\(name)") }
        }

        @Test func `disks are throttled as runc throttles them`() throws {
            guard let disk = try disk() else { return }
            let numbers = disk.split(separator: ":")
            func entry(_ rate: Int) -> String { #"[{"major":\#(numbers[0]),"minor":\#(numbers[1]),"rate":\#(rate)}]"# }
            let json = #"""
                {"blockIO":{"throttleReadBpsDevice":\#(entry(1_048_576)),"throttleWriteBpsDevice":\#(entry(2_097_152)),
                "throttleReadIOPSDevice":\#(entry(100)),"throttleWriteIOPSDevice":\#(entry(200))}}
                """#
            let ours = try written(.ours, json)
            #expect(ours["io.max"] == "\(disk) rbps=1048576 wbps=2097152 riops=100 wiops=200")
            #expect(try written(.runc, json) == ours)
        }

        @Test func `what runc of this age does not know, or converts in another way, is written too`() throws {
            let fixture = try RuntimeFixture()
            let json =
                #"{"cpu":{"quota":50000,"period":100000,"burst":10000,"idle":1},"pids":{"limit":0},"unified":{"cgroup.max.descendants":"5"}}"#
            let output = try create(fixture, json)
            #expect(output.code == 0, "\(output.stderr)")
            #expect(try file("cpu.max.burst", fixture) == "10000")
            #expect(try file("cpu.idle", fixture) == "1")
            #expect(try file("pids.max", fixture) == "1")
            #expect(try file("cgroup.max.descendants", fixture) == "5")
            try fixture.must("delete", "c1")
            #expect(try create(fixture, #"{"cpu":{"shares":512}}"#).code == 0)
            #expect(try file("cpu.weight", fixture) == "59")
        }

        @Test(.enabled(if: File.exists("/sys/kernel/mm/hugepages/hugepages-2048kB"), "needs huge pages of 2 MiB"))
        func `huge pages are limited, those in use and those reserved`() throws {
            let fixture = try RuntimeFixture()
            let output = try create(fixture, #"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#)
            #expect(output.code == 0, "\(output.stderr)")
            #expect(try file("hugetlb.2MB.max", fixture) == "4194304")
            #expect(try file("hugetlb.2MB.rsvd.max", fixture) == "4194304")
        }

        @Test func `a device is there for whom the rules allow it`() throws {
            func outcome(_ rules: [DeviceRuleSpec]) throws -> String {
                try RuntimeFixture().run("true 2>/dev/null >/dev/message && echo open; head -c 1 /dev/zero | wc -c") {
                    $0.linux?.devices = [DeviceSpec(path: "/dev/message", type: .character, major: 1, minor: 11)]
                    $0.linux?.resources = ResourcesSpec()
                    $0.linux?.resources?.devices = rules
                }.text
            }
            let none = DeviceRuleSpec(allow: false, access: "rwm")
            let reading = DeviceRuleSpec(allow: true, type: "c", major: 1, minor: 11, access: "r")
            let all = DeviceRuleSpec(allow: true, type: "c", major: 1, minor: 11, access: "rwm")
            #expect(try outcome([none]) == "1", "the default devices are allowed in any case")
            #expect(try outcome([none, reading]) == "1")
            #expect(try outcome([none, all]) == "open\n1")
            #expect(try outcome([none, all, none]) == "1", "the last rule decides")
        }

        @Test(
            arguments: [
                (#"{"cpu":{"quota":1000,"burst":2000}}"#, ["cpu", "cpu.burst"]),
                (#"{"cpu":{"idle":2}}"#, ["cpu", "cpu.idle"]),
                (#"{"cpu":{"cpus":"0-9999"}}"#, ["cpuset", "cpuset.cpus"]),
                (#"{"cpu":{"realtimeRuntime":1000}}"#, ["cpu", "cpu.realtimeRuntime"]),
                (#"{"cpu":{"realtimePeriod":1000}}"#, ["cpu", "cpu.realtimePeriod"]),
                (#"{"memory":{"limit":67108864,"swap":1}}"#, ["memory", "memory.swap"]),
                (#"{"memory":{"swappiness":10}}"#, ["memory", "memory.swappiness"]),
                (#"{"memory":{"useHierarchy":false}}"#, ["memory", "useHierarchy"]),
                (#"{"memory":{"disableOOMKiller":true}}"#, ["memory", "memory.disableOOMKiller"]),
                (#"{"memory":{"kernelTCP":4096}}"#, ["memory", "memory.kernelTCP"]),
                (#"{"network":{"classID":1}}"#, ["net_cls", "network.classID"]),
                (#"{"network":{"priorities":[{"name":"lo","priority":1}]}}"#, ["net_prio", "network.priorities"]),
                (#"{"rdma":{"mlx5_0":{"hcaHandles":1}}}"#, ["rdma", "mlx5_0"]),
                (#"{"rdma":{"mlx5_0":{}}}"#, ["linux.resources.rdma.mlx5_0", "hcaHandles"]),
                (#"{"blockIO":{"leafWeight":100}}"#, ["leaf weight"]),
                (#"{"blockIO":{"weightDevice":[{"major":8,"minor":0}]}}"#, ["blockIO.weightDevice[0]"]),
                (#"{"blockIO":{"throttleReadBpsDevice":[{"major":4095,"minor":9,"rate":1}]}}"#, ["4095:9"]),
                (#"{"hugepageLimits":[{"pageSize":"3MB","limit":1}]}"#, ["hugetlb", "3MB"]),
                (#"{"unified":{"nonsense.max":"1"}}"#, ["nonsense"]),
                (#"{"unified":{"../x.y":"1"}}"#, ["linux.resources.unified"]),
                (#"{"unified":{"memory":"1"}}"#, ["linux.resources.unified.memory"]),
                (#"{"unified":{"cgroup.procs":"1"}}"#, ["cgroup.procs", "runtime's own"]),
                (#"{"unified":{"cgroup.freeze":"1"}}"#, ["cgroup.freeze", "runtime's own"]),
                (#"{"unified":{"cgroup.subtree_control":"+pids"}}"#, ["cgroup.subtree_control", "runtime's own"]),
                (#"{"devices":[{"allow":true,"type":"x"}]}"#, ["linux.resources.devices[0].type"]),
                (#"{"devices":[{"allow":true,"type":"c","major":1,"minor":3,"access":"q"}]}"#, ["devices[0].access"]),
            ] as [(String, [String])])
        func `a limit that cannot hold is an error that names it, and leaves nothing`(
            _ json: String, _ words: [String]
        ) throws {
            let fixture = try RuntimeFixture()
            let output = try create(fixture, json)
            #expect(output.code == 1)
            for word in words { #expect(output.stderr.contains(word), "\(word): \(output.stderr)") }
            #expect(try fixture.traces() == [])
        }

        // MARK: update

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `update changes a created and a running container`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            try fixture.must("create", "--bundle", try fixture.bundle("sleep 1000"), "c1")
            try fixture.must(
                "update", "--memory", "64M", "--memory-swap", "128m", "--memory-reservation", "32MiB", "--cpu-quota",
                "50000", "--cpu-period", "100000", "--cpuset-cpus", "0", "--cpuset-mems", "0", "--pids-limit", "33",
                "c1")
            var now = try limits(fixture)
            #expect(now["memory.max"] == "67108864")
            #expect(now["memory.swap.max"] == "67108864", "what memory and swap together leave beside memory")
            #expect(now["memory.low"] == "33554432")
            #expect(now["cpu.max"] == "50000 100000")
            #expect(now["cpuset.cpus"] == "0")
            #expect(now["pids.max"] == "33")
            try fixture.must("start", "c1")
            try fixture.must("update", "--memory", "-1", "--pids-limit", "-1", "--cpu-quota", "-1", "c1")
            now = try limits(fixture)
            #expect(now["memory.max"] == "max")
            #expect(now["memory.swap.max"] == "max")
            #expect(now["pids.max"] == "max")
            #expect(now["cpu.max"] == "max 100000")
            #expect(now["memory.low"] == "33554432", "what is not named stays")
        }

        @Test func `update takes every flag of runc that cgroup v2 has something for`() throws {
            let fixture = try RuntimeFixture()
            try fixture.start("c1")
            try fixture.must(
                "update", "--cpu-quota", "50000", "--cpu-period", "100000", "--cpu-burst", "20000", "--cpu-share",
                "1024", "--cpu-idle", "1", "--memory", "", "c1")
            #expect(try file("cpu.max.burst", fixture) == "20000")
            #expect(try file("cpu.idle", fixture) == "1")
            let kernel = try fixture.must("update", "--kernel-memory", "1g", "c1")
            #expect(kernel.stderr.contains("memory.kernel"), "a limit without effect is told: \(kernel.stderr)")
            for (flag, value, name) in [
                ("--kernel-memory-tcp", "4096k", "memory.kernelTCP"), ("--cpu-rt-runtime", "1000", "realtimeRuntime"),
                ("--cpu-rt-period", "1000", "realtimePeriod"),
            ] {
                let output = try fixture.call(["update", flag, value, "c1"])
                #expect(output.code == 1, "\(flag)")
                #expect(output.stderr.contains(name), "\(output.stderr)")
            }
        }

        @Test func `a failed update leaves the former limits`() throws {
            let fixture = try RuntimeFixture()
            try fixture.start("c1") {
                var resources = ResourcesSpec()
                resources.memory = MemorySpec(limit: 64 << 20, swap: 64 << 20)
                resources.cpu = CPUSpec(shares: 300, quota: 40_000, period: 80_000)
                resources.pidsLimit = 50
                $0.linux?.resources = resources
            }
            let names = ["cpu.weight", "cpu.max.burst"]
            func all() throws -> [String: String] {
                var found = try limits(fixture)
                for name in names { found[name] = try file(name, fixture) }
                // The kernel lets nobody empty a set with processes: what counts is what they may use.
                found["cpuset.cpus"] = try file("cpuset.cpus.effective", fixture)
                return found
            }
            let before = try all()
            var throttled = ""
            if let numbers = try disk()?.split(separator: ":") {
                throttled = #"{"major":\#(numbers[0]),"minor":\#(numbers[1]),"rate":1000000},"#
            }
            for last in [
                #""blockIO":{"throttleReadBpsDevice":[\#(throttled){"major":4095,"minor":9,"rate":1}]}"#,
                #""rdma":{"mlx5_0":{"hcaHandles":1}}"#, #""unified":{"memory.nonsense":"1"}"#,
            ] {
                let path = "\(fixture.directory)/resources.json"
                let json = #"""
                    {"memory":{"limit":134217728,"swap":268435456,"reservation":1048576},
                    "cpu":{"shares":900,"quota":10000,"period":200000,"cpus":"0","burst":5000},"pids":{"limit":60},\#(last)}
                    """#
                try File.replace(path, with: Array(json.utf8))
                let output = try fixture.call(["update", "--resources", path, "c1"])
                #expect(output.code == 1, "\(last)")
                #expect(try all() == before, "\(last): \(output.stderr)")
            }
            #expect(try fixture.state("c1").status == .running)
        }
    }
}
