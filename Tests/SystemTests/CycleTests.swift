import Glibc
import Kernel
import Model
import Testing
import Wire

extension SystemSuite {
    @Suite("Cycles: what was before is after", .serialized)
    struct Cycles {
        /// Everything that a run can leave behind, counted.
        struct Traces: Equatable, CustomStringConvertible {
            var mounts = 0
            var cgroups = 0
            var namespaces = 0
            var links = 0
            var leases = 0
            var processes = 0
            var sockets = 0
            var tasks = 0
            var descriptors = 0

            var description: String {
                "mounts \(mounts), cgroups \(cgroups), namespaces \(namespaces), links \(links), leases \(leases), "
                    + "processes \(processes), sockets \(sockets), tasks \(tasks), descriptors \(descriptors)"
            }

            init(_ cluster: TestCluster) throws {
                mounts = try File.text("/proc/self/mountinfo").split(separator: "\n").filter {
                    $0.contains(cluster.folder)
                }.count
                for controller in try File.list("/sys/fs/cgroup") {
                    cgroups += Self.folders("/sys/fs/cgroup/\(controller)/\(cluster.cgroupParent)")
                }
                namespaces = (try? File.list(cluster.runDirectory + "/netns").count) ?? 0
                links = try File.list("/sys/class/net").count
                leases = Self.files(cluster.runDirectory, "10.")
                sockets = (try? File.list(cluster.runDirectory + "/shims").count) ?? 0
                tasks = (try? File.list(cluster.dataDirectory + "/tasks").count) ?? 0
                let daemon = try cluster.pid(of: "up")
                descriptors = try File.list("/proc/\(daemon)/fd").count
                for pid in try File.list("/proc").compactMap({ pid_t($0) }) {
                    guard let stat = try Proc.stat(pid), !stat.hasEnded, pid != daemon,
                        let line = try? File.read("/proc/\(pid)/cmdline"),
                        String(decoding: line, as: UTF8.self).contains(cluster.runDirectory)
                    else { continue }
                    processes += 1
                }
            }

            private static func folders(_ path: String) -> Int {
                guard let names = try? File.list(path) else { return 0 }
                return names.map { name in
                    let inside = "\(path)/\(name)"
                    return (try? File.list(inside)) == nil ? 0 : 1 + folders(inside)
                }.reduce(0, +)
            }

            private static func files(_ path: String, _ prefix: String) -> Int {
                guard let names = try? File.list(path) else { return 0 }
                return names.map { ($0.hasPrefix(prefix) ? 1 : 0) + files("\(path)/\($0)", prefix) }.reduce(0, +)
            }
        }

        private func resident(_ pid: pid_t) throws -> Int {
            Int(try #require(try Proc.stat(pid)).residentPages) * 4096
        }

        /// Bytes that the deepest stack of the process's threads has ever needed: what was touched stays in memory.
        private func deepestStack(_ pid: pid_t) throws -> Int {
            var limit = rlimit()
            try #require(getrlimit(__rlimit_resource_t(UInt32(RLIMIT_STACK.rawValue)), &limit) == 0)
            let size = "Size: \(limit.rlim_cur / 1024) kB"
            var (deepest, isStack) = (0, false)
            for line in try File.text("/proc/\(pid)/smaps", limit: 8 << 20).split(separator: "\n") {
                let words = line.split(separator: " ")
                switch words.first {
                case "Size:": isStack = words.joined(separator: " ") == size
                case "Rss:" where isStack:
                    deepest = max(deepest, (words.dropFirst().first.flatMap { Int($0) } ?? 0) * 1024)
                default: break
                }
            }
            return try #require(deepest > 0 ? deepest : nil, "no thread's stack has the default size")
        }

        @Test("run --rm, a tenth killed at a random moment: nothing accumulates")
        func runCycles() throws {
            let cluster = try TestCluster()
            defer { cluster.tearDown() }
            try cluster.up()
            try cluster.importImage()
            // The first runs make what stays: the bridge, the unpacked image, caches.
            for _ in 0..<5 { try expectSuccess(cluster.martlet("run", "--rm", "busybox", "true")) }
            try eventually("the first are gone") { try cluster.containers().isEmpty }
            sleep(1)
            let before = try Traces(cluster)
            let daemon = try cluster.pid(of: "up")
            let memory = try resident(daemon)
            let stack = try deepestStack(daemon)
            let count = loops(1000)
            for round in 0..<count {
                if round % 10 == 9 {
                    try killedRun(cluster, after: UInt32.random(in: 0..<150_000))
                } else {
                    try expectSuccess(cluster.martlet("run", "--rm", "busybox", "true"))
                }
            }
            try eventually("all are removed", within: 60) {
                for view in try cluster.containers() { _ = try cluster.martlet("rm", "-f", view.name) }
                return try cluster.containers().isEmpty
            }
            try eventually("everything is as before (\(before))", within: 30) { try Traces(cluster) == before }
            #expect(try cluster.pid(of: "up") == daemon)
            let growth = try resident(daemon) - memory
            #expect(growth < 8 << 20 + count * 4096, "the daemon grew by \(growth) bytes in \(count) runs")
            // A call that gets deeper with each run ends in an overflow after some thousand.
            let deeper = try deepestStack(daemon) - stack
            #expect(deeper < 96 << 10, "a thread's stack grew by \(deeper) bytes in \(count) runs, from \(stack)")
        }

        /// Starts a run, and kills its client or the container's shim at some moment.
        private func killedRun(_ cluster: TestCluster, after microseconds: UInt32) throws {
            var spawn = Spawn(TestCluster.martlet, ["martlet", "run", "--rm", "busybox", "sleep", "0.05"])
            spawn.environment = ["MARTLET_HOST=\(cluster.host)", "PATH=/usr/bin:/bin"]
            let child = try spawn.start()
            usleep(microseconds)
            try child.signal(SIGKILL)
            _ = try child.wait()
        }
    }
}
