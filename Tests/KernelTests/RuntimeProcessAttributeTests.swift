import Glibc
import JSON
import Kernel
import OCISpec
import Testing

extension KernelSuite {
    /// How a container's processes are scheduled, placed and labelled: what the kernel shows of the first process and of
    /// those of `exec`.
    @Suite(.serialized) struct RuntimeProcessAttributes {
        /// proc_pid_stat(5): policy, nice value and real-time priority.
        private struct Schedule: Equatable {
            var policy: Int
            var nice: Int
            var priority: Int

            init(_ policy: Int, nice: Int = 0, priority: Int = 0) {
                self.policy = policy
                self.nice = nice
                self.priority = priority
            }

            init(of pid: pid_t) throws {
                let text = try File.text("/proc/\(pid)/stat")
                let fields = text[(try #require(text.lastIndex(of: ")")))...].split(separator: " ").dropFirst()
                    .map { Int($0) ?? 0 }
                // The first of these is field 3.
                self.init(fields[41 - 3], nice: fields[19 - 3], priority: fields[40 - 3])
            }
        }

        /// Runs `sleep` in the container by `exec`.
        private func execute(_ fixture: RuntimeFixture, _ more: [String] = []) throws -> pid_t {
            let file = "\(fixture.directory)/exec.pid"
            let words = more.contains("--process") ? [] : ["sleep", "1000"]
            let output = try fixture.call(["exec", "--detach", "--pid-file", file] + more + ["c1"] + words)
            try #require(output.code == 0, "\(output.stderr)")
            return try #require(pid_t(try File.text(file)))
        }

        private func process(_ fixture: RuntimeFixture, _ shape: (inout ProcessSpec) -> Void) throws -> String {
            var process = ProcessSpec(args: ["/bin/sleep", "1000"])
            shape(&process)
            let path = "\(fixture.directory)/process.json"
            try File.replace(path, with: process.encoded())
            return path
        }

        // MARK: Scheduling

        @Test func `policy and nice value are those asked for, whoever the user is`() throws {
            let fixture = try RuntimeFixture()
            try fixture.start("c1") { spec in
                spec.process?.user.uid = 1000
                spec.process?.capabilities = nil
                spec.process?.scheduler = SchedulerSpec(policy: "SCHED_BATCH", nice: -5)
            }
            #expect(try Schedule(of: fixture.state("c1").pid) == Schedule(3, nice: -5))
            #expect(try Schedule(of: execute(fixture)) == Schedule(3, nice: -5), "exec starts from config.json")
            let silent = try process(fixture) { _ in }
            #expect(
                try Schedule(of: execute(fixture, ["--process", silent])) == Schedule(3, nice: -5),
                "a process that says nothing has the container's")
            let idle = try process(fixture) { $0.scheduler = SchedulerSpec(policy: "SCHED_IDLE") }
            #expect(try Schedule(of: execute(fixture, ["--process", idle])) == Schedule(5))
        }

        @Test func `children begin anew where the flag says so`() throws {
            let fixture = try RuntimeFixture()
            let output = try fixture.run("cat /proc/self/stat; cat /proc/$$/stat; true") { spec in
                spec.process?.scheduler = SchedulerSpec(
                    policy: "SCHED_OTHER", nice: -7, flags: ["SCHED_FLAG_RESET_ON_FORK"])
            }
            let nice = output.lines.map { $0.split(separator: ") ").last?.split(separator: " ")[19 - 3] }
            #expect(nice == ["0", "-7"], "\(output)")
        }

        @Test func `a real-time policy works in a cgroup with real time, and is explained without`() throws {
            let fixture = try RuntimeFixture()
            let group = fixture.cgroup("cpu")
            let parent = String(group[..<(group.lastIndex(of: "/") ?? group.endIndex)])
            let file = "cpu.rt_runtime_us"
            let isGrouped = File.exists("/sys/fs/cgroup/cpu/\(file)")
            if isGrouped {
                try File.makeDirectories(parent)
                try File.writeControl("\(parent)/\(file)", "20000")
            }
            try fixture.start("c1") { spec in
                spec.process?.scheduler = SchedulerSpec(policy: "SCHED_RR", priority: 7)
                if isGrouped {
                    spec.linux?.resources = ResourcesSpec()
                    spec.linux?.resources?.cpu = CPUSpec()
                    spec.linux?.resources?.cpu?.realtimeRuntime = 10_000
                }
            }
            #expect(try Schedule(of: fixture.state("c1").pid).policy == 2)
            #expect(try Schedule(of: execute(fixture)).priority == 7)
            guard isGrouped else { return }
            let output = try fixture.run("true") {
                $0.process?.scheduler = SchedulerSpec(policy: "SCHED_FIFO", priority: 1)
            }
            #expect(output.code == 1)
            #expect(output.stderr.contains("process.scheduler: sched_setattr SCHED_FIFO"), "\(output)")
            #expect(output.stderr.contains("realtimeRuntime"), "\(output)")
        }

        @Test func `the priority of disk requests is that asked for`() throws {
            let fixture = try RuntimeFixture()
            func priority(_ pid: pid_t) throws -> String {
                let result = try Program("/usr/bin/ionice", ["-p", String(pid)]).run()
                return String(decoding: result.output, as: UTF8.self)
            }
            try fixture.start("c1") { spec in
                spec.process?.user.uid = 1000
                spec.process?.ioPriority = IOPrioritySpec(class: "IOPRIO_CLASS_RT", priority: 3)
            }
            #expect(try priority(fixture.state("c1").pid) == "realtime: prio 3\n")
            #expect(try priority(execute(fixture)) == "realtime: prio 3\n")
            let other = try process(fixture) { $0.ioPriority = IOPrioritySpec(class: "IOPRIO_CLASS_BE", priority: 6) }
            #expect(try priority(execute(fixture, ["--process", other])) == "best-effort: prio 6\n")
        }

        // MARK: Memory

        @Test func `the memory policy holds for every process of the container`() throws {
            let fixture = try RuntimeFixture()
            let show = "cat /proc/self/numa_maps"
            try fixture.start("c1", "\(show) > /tmp/first; sleep 1000") { spec in
                spec.linux?.memoryPolicy = MemoryPolicySpec(
                    mode: "MPOL_BIND", nodes: "0", flags: ["MPOL_F_STATIC_NODES"])
            }
            let file = "\(try fixture.state("c1").bundle)/rootfs/tmp/first"
            #expect(fixture.eventually { (try? File.text(file))?.contains("stack") ?? false })
            let first = try File.text(file).split(separator: "\n").filter { !$0.contains("[v") }
            #expect(!first.isEmpty && first.allSatisfy { $0.contains(" bind=static:0") }, "\(first)")
            let later = try fixture.must("exec", "c1", "cat", "/proc/self/numa_maps").lines
            #expect(later.contains { $0.contains("[heap]") || $0.contains("stack") })
            #expect(later.filter { !$0.contains("[v") }.allSatisfy { $0.contains(" bind=static:0") }, "\(later)")
        }

        // MARK: Processors

        @Test(.enabled(if: sysconf(Int32(_SC_NPROCESSORS_ONLN)) >= 2, "needs two processors"))
        func `exec runs on the processors of its own, the first process on all`() throws {
            let fixture = try RuntimeFixture()
            let show = "grep Cpus_allowed_list /proc/self/status"
            func processors(_ more: [String]) throws -> String? {
                let output = try fixture.call(["exec"] + more + ["c1"] + (more.isEmpty ? ["sh", "-c", show] : []))
                #expect(output.code == 0, "\(output)")
                return output.text.split(separator: "\t").last.map { String($0) }
            }
            let all = try #require(
                try File.text("/proc/self/status").split(separator: "\n").first { $0.hasPrefix("Cpus_allowed_list") })
            try fixture.start("c1") { $0.process?.execCPUAffinity = CPUAffinitySpec(initial: "0", final: "1") }
            let pid = try fixture.state("c1").pid
            #expect(try File.text("/proc/\(pid)/status").contains(all))
            #expect(try processors([]) == "1")
            func spec(_ affinity: CPUAffinitySpec) throws -> [String] {
                let path = try process(fixture) {
                    $0.args = ["/bin/sh", "-c", show]
                    $0.execCPUAffinity = affinity
                }
                return ["--process", path]
            }
            #expect(try processors(spec(CPUAffinitySpec(final: "0"))) == "0")
            #expect(try processors(spec(CPUAffinitySpec(initial: "1", final: "0-1"))) == "0-1")
            // The kernel keeps what a process asked for when it enters a cgroup since Linux 6.2.
            let version = try File.text("/proc/sys/kernel/osrelease").split(separator: ".").prefix(2).compactMap {
                Int($0)
            }
            if version.lexicographicallyPrecedes([6, 2]) == false {
                #expect(try processors(spec(CPUAffinitySpec(initial: "1"))) == "1")
            }
            let none = try fixture.call(["exec"] + spec(CPUAffinitySpec(initial: "8000")) + ["c1"])
            #expect(none.code == 255 && none.stderr.contains("process.execCPUAffinity.initial"), "\(none)")
        }

        // MARK: Personality

        @Test func `exec has the container's personality, and a record of a former version has none`() throws {
            let fixture = try RuntimeFixture()
            try fixture.start("c1") { spec in
                spec.linux?.personality = PersonalitySpec(domain: .linux32)
                spec.linux?.memoryPolicy = MemoryPolicySpec(mode: "MPOL_BIND", nodes: "0")
                spec.process?.capabilities?.bounding.append("CAP_SYS_PTRACE")
                spec.process?.capabilities?.effective.append("CAP_SYS_PTRACE")
                spec.process?.capabilities?.permitted.append("CAP_SYS_PTRACE")
            }
            let show = "cat /proc/self/personality; head -n 1 /proc/self/numa_maps"
            let output = try fixture.must("exec", "c1", "sh", "-c", show)
            #expect(output.lines.first == "00000008" && output.stdout.contains("bind:0"), "\(output)")
            let path = "\(fixture.root)/c1/state.json"
            var record = try #require(try JSONValue.parse(File.read(path)).objectValue)
            for name in ["personality", "memoryPolicy"] {
                #expect(record[name] != nil)
                record[name] = nil
            }
            try File.replace(path, with: JSONValue.object(record).serialized())
            let former = try fixture.must("exec", "c1", "sh", "-c", show)
            #expect(former.lines.first == "00000000" && former.stdout.contains("default"), "\(former)")
        }
    }
}
