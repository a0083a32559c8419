import Glibc
import JSON
import Kernel
import Model
import Testing
import Wire

extension SystemSuite {
    @Suite("Limits, measured from inside and against the kernel's counters", .serialized)
    struct LimitsHold {
        @Test("--memory 64m: killed at 64 MiB, reported as out of memory with 137")
        func memory() throws {
            try withCluster { cluster in
                // tail keeps what it reads: a line without end fills the memory.
                let outcome = try cluster.martlet(
                    "run", "--name", "eater", "--memory", "64m", "busybox", "sh", "-c",
                    "head -c 200m /dev/zero | tail >/dev/null; exit $?")
                _ = outcome
                try expectSuccess(
                    cluster.martlet("run", "-d", "--name", "eater2", "--memory", "64m", "busybox", "tail", "/dev/zero"))
                try eventually("it was killed") { try cluster.inspect("eater2").status.phase == .exited }
                let view = try cluster.inspect("eater2")
                #expect(view.container.exitCode == 137 && view.container.outOfMemory)
                #expect(
                    try cluster.martlet(
                        "run", "--rm", "--memory", "64m", "busybox", "sh", "-c", "head -c 20m /dev/zero | md5sum"
                    ).code == 0)
                #expect(
                    try cluster.martlet("events", "--since", "1m", "--until", "0s").output.contains(
                        "container oom eater2"))
            }
        }

        @Test("--cpus 0.5: half a core")
        func processor() throws {
            try withCluster { cluster in
                try expectSuccess(
                    cluster.martlet(
                        "run", "-d", "--name", "busy", "--cpus", "0.5", "busybox", "sh", "-c", "while :; do :; done"))
                try eventually("it runs") { try cluster.inspect("busy").status.phase == .running }
                sleep(1)
                func sample() throws -> ContainerStats {
                    let json = try cluster.martlet("stats", "--no-stream", "--format", "json", "busy").output
                    return try #require(try JSONCoding.decode([ContainerStats].self, from: Array(json.utf8)).first)
                }
                let first = try sample()
                sleep(4)
                let second = try sample()
                let share =
                    Double(second.cpuTotal - first.cpuTotal) / Double(second.time.nanoseconds - first.time.nanoseconds)
                // What the kernel gave, not how long anything took: the quota's own slack is a period.
                #expect(share < 0.56, "it got \(share) cores")
                #expect(second.throttledPeriods > first.throttledPeriods)
            }
        }

        @Test("--pids-limit: the process too many is refused inside")
        func processes() throws {
            try withCluster { cluster in
                let outcome = try cluster.martlet(
                    "run", "--rm", "--pids-limit", "10", "busybox", "sh", "-c",
                    "i=0; while [ $i -lt 30 ]; do sleep 30 & i=$((i+1)); done; ls -d /proc/[0-9]* | wc -l")
                #expect(outcome.output.isEmpty || (Int(outcome.text) ?? 99) <= 11, "\(outcome)")
                #expect(outcome.errors.contains("fork"))
            }
        }

        @Test("stats are within 5 % of the kernel's counters")
        func stats() throws {
            try withCluster { cluster in
                try expectSuccess(
                    cluster.martlet(
                        "run", "-d", "--name", "known", "--memory", "256m", "busybox", "sh", "-c",
                        "head -c 50m /dev/zero >/dev/shm/x; wget -q -O /dev/null http://127.0.0.1/; sleep 1000"))
                try eventually("it runs") { try cluster.inspect("known").status.phase == .running }
                sleep(2)
                let json = try cluster.martlet("stats", "--no-stream", "--format", "json", "known").output
                let stats = try #require(try JSONCoding.decode([ContainerStats].self, from: Array(json.utf8)).first)
                let task = try #require(try cluster.inspect("known").task)
                let folder = "\(cluster.cgroupParent)/\(task)"
                let usage = try kernelNumber("memory", folder, "memory.usage_in_bytes", "memory.current")
                #expect(abs(Double(stats.memoryUsage) - Double(usage)) / Double(usage) < 0.05)
                #expect(stats.memoryUsage > 50 << 20)
                let pids = try kernelNumber("pids", folder, "pids.current", "pids.current")
                #expect(stats.pids == pids)
                #expect(stats.memoryLimit == 256 << 20)
            }
        }

        private func kernelNumber(_ controller: String, _ folder: String, _ one: String, _ two: String) throws -> Int64
        {
            for path in [
                "/sys/fs/cgroup/\(controller)/\(folder)/\(one)", "/sys/fs/cgroup/\(folder)/\(two)",
                "/sys/fs/cgroup/unified/\(folder)/\(two)",
            ] {
                if let text = try? File.text(path), let number = Int64(text) { return number }
            }
            Issue.record("no cgroup of \(folder) for \(controller)")
            return 0
        }

        @Test("a failing health check stops the container, and it starts again as its policy says")
        func health() throws {
            try withCluster { cluster in
                try expectSuccess(
                    cluster.martlet(
                        "run", "-d", "--name", "sick", "--restart", "always", "--stop-timeout", "0", "--health-cmd",
                        "test -e /tmp/well",
                        "--health-interval", "1", "--health-retries", "2", "busybox", "sh", "-c",
                        "touch /tmp/well; sleep 1000"))
                try eventually("it is healthy") { try cluster.inspect("sick").container.health == .healthy }
                #expect(try cluster.martlet("ps").output.contains("(healthy)"))
                let first = try cluster.inspect("sick")
                try expectSuccess(cluster.martlet("exec", "sick", "rm", "/tmp/well"))
                try eventually("it starts again") {
                    let view = try cluster.inspect("sick")
                    return view.container.start > first.container.start && view.container.health == .healthy
                }
                let again = try cluster.inspect("sick")
                #expect(again.task == first.task, "a new start of the same task")
                let events = try cluster.martlet("events", "--since", "2m", "--until", "0s").output
                #expect(events.contains("health_status sick"))
            }
        }
    }
}
