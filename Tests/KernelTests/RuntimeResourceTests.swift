import Cgroups
import Glibc
import JSON
import Kernel
import OCISpec
import Testing

extension KernelSuite {
    /// `linux.resources` and `update` where there is cgroup v1, read back from the container's cgroup files; runc is the
    /// yardstick.
    @Suite(.serialized, .enabled(if: !HostCgroups.isUnified, "needs controllers on cgroup v1"))
    struct RuntimeResource {
        /// Files of v1 whose values this runtime and runc must agree on.
        private static let compared = [
            "cpu/cpu.shares", "cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us", "cpu/cpu.rt_runtime_us",
            "cpu/cpu.rt_period_us", "cpuset/cpuset.cpus", "cpuset/cpuset.mems", "memory/memory.limit_in_bytes",
            "memory/memory.memsw.limit_in_bytes", "memory/memory.soft_limit_in_bytes", "memory/memory.swappiness",
            "memory/memory.oom_control", "memory/memory.kmem.tcp.limit_in_bytes", "pids/pids.max",
            "devices/devices.list", "blkio/blkio.throttle.read_bps_device", "blkio/blkio.throttle.write_bps_device",
            "blkio/blkio.throttle.read_iops_device", "blkio/blkio.throttle.write_iops_device",
        ]

        /// The limits of the latest bundle's container.
        private func limits(_ fixture: RuntimeFixture) -> [String: String] {
            var found: [String: String] = [:]
            for file in Self.compared {
                guard let slash = file.firstIndex(of: "/") else { continue }
                let path = fixture.cgroup(String(file[..<slash])) + file[slash...]
                let text = try? File.text(path)
                // Releases of runc before 1.2 let every container use /dev/net/tun.
                found[file] = text?.split(separator: "\n").filter { $0 != "c 10:200 rwm" }.sorted()
                    .joined(separator: "\n")
            }
            return found
        }

        /// What a runtime makes of resources: the files of a created container.
        private func written(_ runtime: RuntimeFixture.Runtime, _ json: String) throws -> [String: String] {
            let fixture = try RuntimeFixture(runtime)
            let resources = try ResourcesSpec(parsing: Array(json.utf8))
            try fixture.must("create", "--bundle", try fixture.bundle { $0.linux?.resources = resources }, "c1")
            return limits(fixture)
        }

        private func create(_ fixture: RuntimeFixture, _ json: String) throws -> RuntimeOutput {
            let resources = try ResourcesSpec(parsing: Array(json.utf8))
            return try fixture.call([
                "create", "--bundle", try fixture.bundle { $0.linux?.resources = resources }, "c1",
            ])
        }

        /// Numbers of a whole disk of this host, as `7:0`.
        private func disk() throws -> (major: String, minor: String)? {
            for name in try File.list("/sys/block").sorted() {
                let parts = try File.text("/sys/block/\(name)/dev").split(separator: ":").map { String($0) }
                if parts.count == 2 { return (parts[0], parts[1]) }
            }
            return nil
        }

        @Test(
            arguments: [
                #"{}"#,
                #"{"cpu":{"shares":512,"quota":50000,"period":100000,"cpus":"0","mems":"0"}}"#,
                #"{"cpu":{"quota":-1,"period":50000}}"#, #"{"cpu":{"quota":20000}}"#,
                #"{"cpu":{"shares":0,"quota":0}}"#,
                #"{"memory":{"limit":67108864,"swap":134217728,"reservation":33554432,"swappiness":10}}"#,
                #"{"memory":{"limit":67108864}}"#, #"{"memory":{"limit":-1}}"#, #"{"memory":{"limit":-1,"swap":-1}}"#,
                #"{"memory":{"limit":67108864,"swap":67108864,"disableOOMKiller":true}}"#,
                #"{"memory":{"limit":67108864,"swap":-1,"reservation":-1,"kernel":-1,"kernelTCP":-1}}"#,
                #"{"memory":{"limit":67108864,"useHierarchy":true,"checkBeforeUpdate":true}}"#,
                #"{"pids":{"limit":32}}"#, #"{"pids":{"limit":-1}}"#,
                #"{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":10,"minor":229,"access":"rw"},{"allow":true,"type":"b","major":8,"access":"r"}]}"#,
            ])
        func `the cgroup files say what runc makes them say`(_ json: String) throws {
            let ours = try written(.ours, json)
            let theirs = try written(.runc, json)
            #expect(!ours.isEmpty)
            for file in Self.compared { #expect(ours[file] == theirs[file], "\(file)") }
        }

        @Test func `disks are throttled as runc throttles them`() throws {
            guard let disk = try disk() else { return }
            func entry(_ rate: Int) -> String { #"[{"major":\#(disk.major),"minor":\#(disk.minor),"rate":\#(rate)}]"# }
            let json = #"""
                {"blockIO":{"throttleReadBpsDevice":\#(entry(1_048_576)),"throttleWriteBpsDevice":\#(entry(2_097_152)),
                "throttleReadIOPSDevice":\#(entry(100)),"throttleWriteIOPSDevice":\#(entry(200))}}
                """#
            let ours = try written(.ours, json)
            let theirs = try written(.runc, json)
            #expect(ours["blkio/blkio.throttle.read_bps_device"] == "\(disk.major):\(disk.minor) 1048576")
            for file in Self.compared { #expect(ours[file] == theirs[file], "\(file)") }
        }

        @Test func `limits that runc of this age does not know are written too`() throws {
            let fixture = try RuntimeFixture()
            let output = try create(
                fixture, #"{"cpu":{"quota":50000,"period":100000,"burst":10000,"idle":1},"pids":{"limit":0}}"#)
            #expect(output.code == 0, "\(output.stderr)")
            #expect(try File.text("\(fixture.cgroup("cpu"))/cpu.cfs_burst_us") == "10000")
            #expect(try File.text("\(fixture.cgroup("cpu"))/cpu.idle") == "1")
            #expect(try File.text("\(fixture.cgroup("pids"))/pids.max") == "1")
        }

        @Test func `huge pages and named files go to cgroup v2 where it has the controller`() throws {
            let layout = try CgroupLayout.detect()
            guard let home = layout.home(of: .hugetlb), home.version == .v2,
                File.exists("/sys/kernel/mm/hugepages/hugepages-2048kB")
            else { return }
            let fixture = try RuntimeFixture()
            let output = try create(
                fixture,
                #"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}],"unified":{"cgroup.max.descendants":"5"}}"#)
            #expect(output.code == 0, "\(output.stderr)")
            let place = layout.isUnified ? "" : "unified"
            #expect(try File.text("\(fixture.cgroup(place))/hugetlb.2MB.max") == "4194304")
            #expect(try File.text("\(fixture.cgroup(place))/hugetlb.2MB.rsvd.max") == "4194304")
            #expect(try File.text("\(fixture.cgroup(place))/cgroup.max.descendants") == "5")
        }

        @Test func `a real-time budget comes from the parent group`() throws {
            let fixture = try RuntimeFixture()
            let json = #"{"cpu":{"realtimePeriod":500000,"realtimeRuntime":1000}}"#
            let poor = try create(fixture, json)
            #expect(poor.code == 1)
            #expect(poor.stderr.contains("cpu.rt_runtime_us"), "\(poor.stderr)")
            let name = "martlet-rt-\(getpid())"
            let resources = try ResourcesSpec(parsing: Array(json.utf8))
            try fixture.must(
                "create", "--bundle",
                try fixture.bundle {
                    $0.linux?.resources = resources
                    $0.linux?.cgroupsPath = "/\(name)"
                }, "c2")
            #expect(try File.text("/sys/fs/cgroup/cpu/\(name)/cpu.rt_runtime_us") == "1000")
            #expect(try File.text("/sys/fs/cgroup/cpu/\(name)/cpu.rt_period_us") == "500000")
        }

        @Test(
            arguments: [
                (#"{"cpu":{"shares":1}}"#, ["cpu", "cpu.shares", "2 to 262144"]),
                (#"{"cpu":{"quota":1000,"burst":2000}}"#, ["cpu", "cpu.burst"]),
                (#"{"cpu":{"idle":2}}"#, ["cpu", "cpu.idle"]),
                (#"{"cpu":{"cpus":"0-4095"}}"#, ["cpuset", "cpuset.cpus"]),
                (#"{"memory":{"limit":67108864,"swap":1}}"#, ["memory", "memory.swap"]),
                (#"{"memory":{"swappiness":101}}"#, ["memory", "swappiness"]),
                (#"{"memory":{"useHierarchy":false}}"#, ["memory", "useHierarchy"]),
                (#"{"network":{"classID":1}}"#, ["net_cls", "network.classID"]),
                (#"{"network":{"priorities":[{"name":"lo","priority":1}]}}"#, ["net_prio", "network.priorities"]),
                (#"{"rdma":{"mlx5_0":{"hcaHandles":1}}}"#, ["rdma", "mlx5_0"]),
                (#"{"rdma":{"mlx5_0":{}}}"#, ["linux.resources.rdma.mlx5_0", "hcaHandles"]),
                (#"{"blockIO":{"leafWeight":100}}"#, ["blkio", "leaf weight"]),
                (#"{"blockIO":{"weightDevice":[{"major":8,"minor":0}]}}"#, ["blockIO.weightDevice[0]"]),
                (#"{"hugepageLimits":[{"pageSize":"3MB","limit":1}]}"#, ["hugetlb", "3MB"]),
                (#"{"unified":{"memory.high":"1"}}"#, ["memory", "unified.memory.high", "cgroup v1"]),
                (#"{"unified":{"nonsense.max":"1"}}"#, ["nonsense"]),
                (#"{"unified":{"../x.y":"1"}}"#, ["linux.resources.unified"]),
                (#"{"unified":{"memory":"1"}}"#, ["linux.resources.unified.memory"]),
                (#"{"unified":{"cgroup.procs":"1"}}"#, ["cgroup.procs", "runtime's own"]),
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
                "update", "--memory", "64M", "--memory-swap", "128m", "--memory-reservation", "32MiB", "--cpu-share",
                "512", "--cpu-quota", "50000", "--cpu-period", "100000", "--cpuset-cpus", "0", "--cpuset-mems", "0",
                "--pids-limit", "33", "c1")
            var now = limits(fixture)
            #expect(now["memory/memory.limit_in_bytes"] == "67108864")
            #expect(now["memory/memory.memsw.limit_in_bytes"] == "134217728")
            #expect(now["memory/memory.soft_limit_in_bytes"] == "33554432")
            #expect(now["cpu/cpu.shares"] == "512")
            #expect(now["cpu/cpu.cfs_quota_us"] == "50000")
            #expect(now["cpu/cpu.cfs_period_us"] == "100000")
            #expect(now["cpuset/cpuset.cpus"] == "0")
            #expect(now["pids/pids.max"] == "33")
            try fixture.must("start", "c1")
            try fixture.must("update", "--memory", "-1", "--pids-limit", "-1", "--cpu-quota", "-1", "c1")
            now = limits(fixture)
            #expect(now["memory/memory.limit_in_bytes"] == "9223372036854771712")
            #expect(now["memory/memory.memsw.limit_in_bytes"] == "9223372036854771712")
            #expect(now["pids/pids.max"] == "max")
            #expect(now["cpu/cpu.cfs_quota_us"] == "-1")
            #expect(now["cpu/cpu.shares"] == "512", "what is not named stays")
        }

        @Test func `update takes every flag of runc`() throws {
            let fixture = try RuntimeFixture()
            try fixture.start("c1")
            try fixture.must(
                "update", "--cpu-quota", "50000", "--cpu-period", "100000", "--cpu-burst", "20000", "--cpu-idle", "1",
                "--kernel-memory-tcp", "4096k", "--memory", "", "c1")
            #expect(try File.text("\(fixture.cgroup("cpu"))/cpu.cfs_burst_us") == "20000")
            #expect(try File.text("\(fixture.cgroup("cpu"))/cpu.idle") == "1")
            #expect(try File.text("\(fixture.cgroup("memory"))/memory.kmem.tcp.limit_in_bytes") == "4194304")
            let kernel = try fixture.must("update", "--kernel-memory", "1g", "c1")
            #expect(kernel.stderr.contains("memory.kernel"), "a limit without effect is told: \(kernel.stderr)")
            for (flag, value) in [
                ("--memory", "much"), ("--memory", "-2"), ("--memory", "1.M"), ("--memory", "9999999p"),
                ("--memory", "1ib"), ("--cpu-share", "-1"), ("--blkio-weight", "70000"),
                ("--l3-cache-schema", "L3:0=f"),
                ("--mem-bw-schema", "MB:0=50"),
            ] {
                let output = try fixture.call(["update", flag, value, "c1"])
                #expect(output.code == 1, "\(flag) \(value)")
                #expect(output.stderr.contains(flag), "\(output.stderr)")
            }
        }

        @Test(arguments: RuntimeFixture.Runtime.allCases)
        func `update reads resources from standard input`(_ runtime: RuntimeFixture.Runtime) throws {
            let fixture = try RuntimeFixture(runtime)
            try fixture.start("c1")
            let result = try Program(
                try runtime.path(), ["--root", fixture.root, "update", "--resources", "-", "c1"],
                environment: fixture.environment,
                input: Array(#"{"memory":{"limit":50331648},"cpu":{"shares":77},"pids":{"limit":9}}"#.utf8)
            ).run()
            #expect(result.status == .exited(0), "\(result.errorText)")
            let now = limits(fixture)
            #expect(now["memory/memory.limit_in_bytes"] == "50331648")
            #expect(now["cpu/cpu.shares"] == "77")
            #expect(now["pids/pids.max"] == "9")
        }

        @Test func `a failed update leaves the former limits`() throws {
            let fixture = try RuntimeFixture()
            try fixture.start("c1") {
                var resources = ResourcesSpec()
                resources.memory = MemorySpec(limit: 64 << 20, swap: 64 << 20)
                resources.cpu = CPUSpec(shares: 300, quota: 40_000, period: 80_000)
                resources.pidsLimit = 50
                resources.devices = [DeviceRuleSpec(allow: false, access: "rwm")]
                $0.linux?.resources = resources
            }
            let before = limits(fixture)
            for last in [
                #""blockIO":{"throttleReadBpsDevice":[{"major":4095,"minor":9,"rate":1}]}"#,
                #""rdma":{"mlx5_0":{"hcaHandles":1}}"#, #""unified":{"memory.high":"1"}"#,
                #""devices":[{"allow":true,"type":"c","major":10,"access":"rw"},{"allow":false,"type":"c","major":10,"minor":1,"access":"r"}]"#,
            ] {
                let path = "\(fixture.directory)/resources.json"
                let json = #"""
                    {"memory":{"limit":134217728,"swap":268435456,"reservation":1048576,"swappiness":3},
                    "cpu":{"shares":900,"quota":10000,"period":200000,"cpus":"0","burst":5000},"pids":{"limit":60},\#(last)}
                    """#
                try File.replace(path, with: Array(json.utf8))
                let output = try fixture.call(["update", "--resources", path, "c1"])
                #expect(output.code == 1, "\(last)")
                #expect(limits(fixture) == before, "\(last): \(output.stderr)")
                #expect(try File.text("\(fixture.cgroup("cpu"))/cpu.cfs_burst_us") == "0")
            }
            #expect(try fixture.state("c1").status == .running)
        }

        @Test func `a throttle that a failed update set is lifted again`() throws {
            guard let disk = try disk(), try CgroupLayout.detect().home(of: .blkio)?.version == .v1 else { return }
            let fixture = try RuntimeFixture()
            try fixture.start("c1")
            let path = "\(fixture.directory)/resources.json"
            let json = #"""
                {"blockIO":{"throttleReadBpsDevice":[{"major":\#(disk.major),"minor":\#(disk.minor),"rate":1000000},
                {"major":4095,"minor":9,"rate":1}]}}
                """#
            try File.replace(path, with: Array(json.utf8))
            #expect(try fixture.call(["update", "--resources", path, "c1"]).code == 1)
            #expect(try File.text("\(fixture.cgroup("blkio"))/blkio.throttle.read_bps_device").isEmpty)
        }
    }
}
