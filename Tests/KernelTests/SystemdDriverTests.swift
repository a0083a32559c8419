import Cgroups
import Glibc
import JSON
import Kernel
import OCISpec
import Testing

extension KernelSuite {
    /// `--systemd-cgroup` with a real systemd: what the manager is told, what it does to the group later, and what is left.
    @Suite(.serialized, .enabled(if: SystemdHost.isHere, "needs systemd and cgroup v2 alone"))
    struct SystemdDriver {
        @Test func `limits are told to systemd, which leaves them as they are when it reads its units again`() throws {
            let scope = try ScopeFixture()
            try scope.start {
                $0.memory = MemorySpec(limit: 64 << 20, reservation: 32 << 20, swap: 96 << 20)
                $0.cpu = CPUSpec(shares: 512, quota: 50_000, period: 100_000)
                $0.cpu?.cpus = "0"
                $0.cpu?.mems = "0"
                $0.pidsLimit = 20
                $0.unified = ["memory.high": "\(48 << 20)", "memory.min": "4194304"]
            }
            #expect(try scope.state() == .running)
            let expected = [
                "ActiveState": "active", "Slice": "system.slice", "Delegate": "yes", "MemoryMax": "\(64 << 20)",
                "MemoryLow": "\(32 << 20)", "MemoryHigh": "\(48 << 20)", "MemoryMin": "\(4 << 20)",
                "MemorySwapMax": "\(32 << 20)", "CPUWeight": "59", "CPUQuotaPerSecUSec": "500ms",
                "CPUQuotaPeriodUSec": "100ms", "TasksMax": "20", "AllowedCPUs": "0", "AllowedMemoryNodes": "0",
                "OOMPolicy": "continue",
            ]
            #expect(try scope.show(expected.keys.sorted()) == expected)
            let before = scope.limits()
            #expect(before["memory.max"] == "\(64 << 20)")
            #expect(before["cpu.max"] == "50000 100000")
            #expect(before["cpu.weight"] == "59")
            #expect(before["pids.max"] == "20")
            #expect(before["cpuset.cpus"] == "0")
            try SystemdHost.control("daemon-reload")
            #expect(scope.limits() == before)
            // A change of one property has systemd write all of its group.
            try SystemdHost.control("set-property", "--runtime", scope.unit, "CPUWeight=60")
            #expect(scope.limits() == before.merging(["cpu.weight": "60"]) { $1 })
        }

        @Test func `what update changes is told too, and what it takes back`() throws {
            let scope = try ScopeFixture()
            try scope.start { $0.pidsLimit = 20 }
            try scope.fixture.must(
                "update", "--pids-limit", "30", "--memory", "64M", "--cpu-quota", "20000", "--cpu-period", "50000",
                "--cpu-share", "2048", "--cpuset-cpus", "0", "c1")
            let names = ["AllowedCPUs", "CPUQuotaPerSecUSec", "CPUWeight", "MemoryMax", "TasksMax"]
            let expected = [
                "AllowedCPUs": "0", "CPUQuotaPerSecUSec": "400ms", "CPUWeight": scope.limits()["cpu.weight"] ?? "",
                "MemoryMax": "\(64 << 20)", "TasksMax": "30",
            ]
            #expect(try scope.show(names) == expected)
            try scope.fixture.must("update", "--pids-limit", "-1", "--memory", "-1", "--cpu-quota", "-1", "c1")
            let lifted = ["CPUQuotaPerSecUSec": "infinity", "MemoryMax": "infinity", "TasksMax": "infinity"]
            #expect(try scope.show(lifted.keys.sorted()) == lifted)
            let before = scope.limits()
            try SystemdHost.control("daemon-reload")
            #expect(scope.limits() == before)
            #expect(before["pids.max"] == "max")
        }

        @Test func `a group of one process has a place for the container's`() throws {
            let scope = try ScopeFixture()
            try scope.start("exec sleep 1000") { $0.pidsLimit = 1 }
            #expect(try scope.show(["TasksMax"]) == ["TasksMax": "1"])
            #expect(try File.text("\(scope.place)/pids.max") == "1")
            #expect(scope.processes().count == 1)
        }

        @Test func `a group that is killed as one stays so, and is`() throws {
            let scope = try ScopeFixture()
            try scope.start("sleep 1000 & dd if=/dev/zero of=/dev/null bs=128M; sleep 1000") {
                $0.memory = MemorySpec(limit: 48 << 20, swap: 48 << 20)
                $0.unified = ["memory.oom.group": "1"]
            }
            #expect(scope.ends(), "one process alone was killed")
            #expect(scope.processes() == [])
            let other = try ScopeFixture()
            try other.start { $0.unified = ["memory.oom.group": "1"] }
            #expect(try other.show(["OOMPolicy"]) == ["OOMPolicy": "kill"])
            try SystemdHost.control("daemon-reload")
            #expect(other.limits()["memory.oom.group"] == "1")
        }

        @Test func `slices are made on the way, and processes of exec are in the scope`() throws {
            let scope = try ScopeFixture(slice: "martlettest-a.slice")
            try scope.start()
            #expect(scope.place.hasPrefix("/sys/fs/cgroup/martlettest.slice/martlettest-a.slice/"))
            #expect(try scope.show(["Slice"]) == ["Slice": "martlettest-a.slice"])
            try scope.fixture.must("exec", "--detach", "c1", "sleep", "500")
            #expect(scope.fixture.eventually { scope.processes().count == 2 })
            try scope.fixture.must("kill", "--all", "c1", "KILL")
            #expect(scope.ends())
            try scope.fixture.must("delete", "c1")
            #expect(try scope.isGone())
            try SystemdHost.control("stop", "martlettest.slice")
        }

        @Test(arguments: ["runtime.before_cgroup", "runtime.after_clone", "runtime.created"])
        func `a runtime that is killed leaves nobody in the scope but the container`(mark: String) throws {
            let scope = try ScopeFixture()
            let bundle = try scope.bundle("sleep 1000") { $0.pidsLimit = 20 }
            scope.fixture.environment.append("MARTLET_FAILPOINT=\(mark)")
            let output = try scope.fixture.call(["--systemd-cgroup", "create", "--bundle", bundle, "c1"])
            scope.fixture.environment.removeLast()
            #expect(output.code == 128 + SIGKILL)
            let remaining = mark == "runtime.created" ? 1 : 0
            #expect(scope.fixture.eventually { scope.processes().count == remaining }, "\(scope.processes())")
            try scope.fixture.must("delete", "--force", "c1")
            #expect(try scope.isGone())
            #expect(try scope.fixture.traces() == [])
        }

        @Test func `annotations are properties of the scope, and one that systemd does not know is its refusal`() throws
        {
            let scope = try ScopeFixture()
            try scope.start(annotations: [
                "org.systemd.property.TimeoutStopSec": "uint64 7",
                "org.systemd.property.CollectMode": "'inactive-or-failed'",
            ])
            let expected = ["CollectMode": "inactive-or-failed", "TimeoutStopUSec": "7s"]
            #expect(try scope.show(expected.keys.sorted()) == expected)
            let other = try ScopeFixture()
            let bundle = try other.bundle("true", annotations: ["org.systemd.property.NoSuchThing": "true"])
            let output = try other.fixture.call(["--systemd-cgroup", "create", "--bundle", bundle, "c1"])
            #expect(output.code == 1)
            #expect(output.stderr.contains("NoSuchThing"), "\(output.stderr)")
            #expect(try other.isGone())
            #expect(try other.fixture.traces() == [])
        }

        @Test func `a scope that is there is nobody else's to use`() throws {
            let scope = try ScopeFixture()
            try scope.start()
            let bundle = try scope.bundle("sleep 1000")
            let output = try scope.fixture.call(["--systemd-cgroup", "create", "--bundle", bundle, "c2"])
            #expect(output.code == 1)
            #expect(output.stderr.contains("has processes already"), "\(output.stderr)")
            #expect(try scope.state() == .running)
            try scope.fixture.must("delete", "--force", "c1")
            #expect(try scope.isGone())
        }
    }
}

/// A host whose PID 1 is a systemd with cgroup v2 alone.
enum SystemdHost {
    static let isHere = SystemdConnection.isRunning && HostCgroups.isUnified

    /// Calls systemctl(1).
    ///
    /// - Throws: when it fails, with what it said.
    @discardableResult
    static func control(_ arguments: String...) throws -> String {
        let result = try Program(
            "/usr/bin/systemctl", ["--no-pager"] + arguments, environment: ["PATH=/usr/bin:/bin"]
        ).run()
        let text = String(decoding: result.output, as: UTF8.self)
        try #require(
            result.status.shellCode == 0,
            "systemctl \(arguments.joined(separator: " ")): \(String(decoding: result.errors, as: UTF8.self))")
        return text
    }

    /// Properties of a unit by their names.
    static func show(_ unit: String, _ names: [String]) throws -> [String: String] {
        var found: [String: String] = [:]
        for line in try control("show", "--property", names.joined(separator: ","), unit).split(separator: "\n") {
            let parts = line.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            if parts.count == 2 { found[String(parts[0])] = String(parts[1]) }
        }
        return found
    }
}

/// A container `c1` whose group systemd makes.
private struct ScopeFixture {
    let fixture: RuntimeFixture
    let slice: String
    private let name: String

    init(slice: String = "system.slice") throws {
        fixture = try RuntimeFixture()
        self.slice = slice
        name = fixture.directory.suffix(6).utf8.map { String($0, radix: 16) }.joined()
    }

    var unit: String { "martlet-\(name).scope" }

    var place: String {
        let parents = slice == "system.slice" ? slice : "martlettest.slice/\(slice)"
        return "/sys/fs/cgroup/\(parents)/\(unit)"
    }

    func bundle(
        _ script: String, annotations: [String: String] = [:], _ shape: (inout ResourcesSpec) -> Void = { _ in }
    ) throws -> String {
        try fixture.bundle(script) {
            $0.linux?.cgroupsPath = "\(slice):martlet:\(name)"
            $0.annotations = annotations
            var resources = ResourcesSpec()
            shape(&resources)
            $0.linux?.resources = resources
        }
    }

    func start(
        _ script: String = "sleep 1000", annotations: [String: String] = [:],
        _ shape: (inout ResourcesSpec) -> Void = { _ in }
    ) throws {
        let bundle = try bundle(script, annotations: annotations, shape)
        try fixture.must("--systemd-cgroup", "create", "--bundle", bundle, "c1")
        try fixture.must("start", "c1")
    }

    /// Waits for the container's end, which is not before its processes, children of ours, are reaped.
    func ends() -> Bool {
        fixture.eventually {
            fixture.reap()
            return (try? state()) == .stopped
        }
    }

    func state() throws -> RuntimeState.Status { try fixture.state("c1").status }

    func show(_ names: [String]) throws -> [String: String] { try SystemdHost.show(unit, names) }

    /// What every file of the group says that holds a limit.
    func limits() -> [String: String] {
        let names = ((try? File.list(place)) ?? []).filter { name in
            [".max", ".high", ".low", ".min", ".weight", ".idle", ".cpus", ".mems", ".group"].contains {
                name.hasSuffix($0)
            }
        }
        return names.reduce(into: [:]) { limits, name in limits[name] = try? File.text("\(place)/\(name)") }
    }

    func processes() -> [String] {
        ((try? File.text("\(place)/cgroup.procs")) ?? "").split(separator: "\n").map { String($0) }
    }

    func isGone() throws -> Bool {
        try fixture.eventually {
            try !File.exists(place) && SystemdHost.show(unit, ["LoadState"]) == ["LoadState": "not-found"]
        }
    }
}
