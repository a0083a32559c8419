import Glibc
import Kernel
import Model
import Testing
import Wire

extension SystemSuite {
    @Suite("Processors of one's own", .serialized, .enabled(if: sysconf(Int32(_SC_NPROCESSORS_ONLN)) >= 2))
    struct OwnProcessors {
        /// What the container's group may run on.
        private func cpus(_ cluster: TestCluster, _ name: String) throws -> String? {
            let task = try #require(try cluster.inspect(name).task)
            let folder = "\(cluster.cgroupParent)/\(task)"
            for path in ["/sys/fs/cgroup/cpuset/\(folder)", "/sys/fs/cgroup/\(folder)"] {
                if let text = try? File.text("\(path)/cpuset.cpus") { return String(text.prefix { $0 != "\n" }) }
            }
            return nil
        }

        @Test("Nobody else runs there, over an agent's restart, until its end")
        func owned() throws {
            let cluster = try TestCluster()
            defer { cluster.tearDown() }
            try cluster.upAsTwo()
            try cluster.importImage()
            try expectSuccess(cluster.martlet("run", "-d", "--name", "early", "busybox", "sleep", "1000"))
            try eventually("it runs") { try cluster.inspect("early").status.phase == .running }
            let all = try cluster.martlet("exec", "early", "nproc").text
            try expectSuccess(
                cluster.martlet("run", "-d", "--name", "own", "--cpus", "1", "--pin-cpus", "busybox", "sleep", "1000"))
            try eventually("it runs") { try cluster.inspect("own").status.phase == .running }
            let grant = try #require(try cluster.inspect("own").grantedProcessors.first)
            let own = try #require(grant.cpus.numbers.first)
            #expect(grant.cpus.count == 1)
            #expect(try cpus(cluster, "own") == "\(own)")
            #expect(try cluster.martlet("exec", "own", "nproc").text == "1")
            // Who was there went, and who comes later does not go there.
            let shared = try #require(try cpus(cluster, "early"))
            #expect(Int(try cluster.martlet("exec", "early", "nproc").text) == Int(all).map { $0 - 1 })
            try expectSuccess(cluster.martlet("run", "-d", "--name", "late", "busybox", "sleep", "1000"))
            try eventually("it runs") { try cluster.inspect("late").status.phase == .running }
            #expect(try cpus(cluster, "late") == shared && shared != "\(own)")

            try cluster.kill("agent")
            try cluster.startAgent()
            try eventually("the node is there again") {
                try cluster.martlet("exec", "own", "true").code == 0
            }
            #expect(try cluster.inspect("own").grantedProcessors == [grant])
            #expect(try cpus(cluster, "own") == "\(own)" && cpus(cluster, "early") == shared)

            // It ends while no agent is there: the next one gives the others what was its own.
            let pid = try cluster.inspect("own").container.pid
            try cluster.kill("agent")
            Glibc.kill(pid_t(pid), SIGKILL)
            try cluster.startAgent()
            try eventually("the others have all again") {
                try cluster.martlet("exec", "early", "nproc").text == all
                    && cluster.martlet("exec", "late", "nproc").text == all
            }
        }

        /// Of 2 MiB, while there are at least two pages and a controller of them.
        private static let hugepages: Int = {
            let pool = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
            let controllers = (try? File.text("/sys/fs/cgroup/cgroup.controllers")) ?? ""
            guard controllers.contains("hugetlb"), let text = try? File.text(pool) else { return 0 }
            return Int(text.prefix { $0 != "\n" }) ?? 0
        }()

        @Test("Huge pages are counted, and nobody gets more than was asked for", .enabled(if: hugepages >= 2))
        func pages() throws {
            try withCluster { cluster in
                func limit(_ name: String) throws -> String? {
                    let task = try #require(try cluster.inspect(name).task)
                    let text = try? File.text("/sys/fs/cgroup/\(cluster.cgroupParent)/\(task)/hugetlb.2MB.max")
                    return text.map { String($0.prefix { $0 != "\n" }) }
                }
                func run(_ name: String, _ flags: String...) throws {
                    try expectSuccess(
                        cluster.run(["run", "-d", "--name", name] + flags + ["busybox", "sleep", "1000"]))
                    try eventually("it runs") { try cluster.inspect(name).status.phase == .running }
                }
                try run("some", "--hugepages", "2m=2m")
                try run("none")
                #expect(try limit("some") == "2097152")
                #expect(try limit("none") == "0")
                let all = Self.hugepages * 2
                for (name, amount, reason) in [
                    ("rest", all, "hugepages of 2m taken"), ("more", all + 2, "too few hugepages of 2m"),
                ] {
                    try expectSuccess(
                        cluster.martlet("create", "--name", name, "--hugepages", "2m=\(amount)m", "busybox", "true"))
                    #expect(try cluster.inspect(name).unschedulable?.message == "0 of 1 node: \(reason) on 1")
                }
            }
        }

        @Test("A fraction is refused, and what is not there is waited for, each in words")
        func refused() throws {
            try withCluster { cluster in
                let half = try cluster.martlet("create", "--cpus", "1.5", "--pin-cpus", "busybox", "true")
                #expect(half.code != 0 && half.errors.contains("--cpus: 1500000000 nano-cores were given"), "\(half)")
                let both = try cluster.martlet(
                    "create", "--cpus", "1", "--pin-cpus", "--cpuset-cpus", "0", "busybox", "true")
                #expect(both.code != 0 && both.errors.contains("--cpuset-cpus: goes without pinning"), "\(both)")
                let odd = try cluster.martlet("create", "--hugepages", "2m=3m", "busybox", "true")
                #expect(odd.code != 0 && odd.errors.contains("--hugepages: 3145728 bytes are not"), "\(odd)")
                try expectSuccess(
                    cluster.martlet("create", "--name", "huge", "--cpus", "500", "--pin-cpus", "busybox", "true"))
                #expect(
                    try cluster.inspect("huge").unschedulable?.message
                        == "0 of 1 node: fewer than 501 processors (500 to be pinned) on 1")
            }
        }
    }
}
