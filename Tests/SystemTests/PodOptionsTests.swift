import Glibc
import JSON
import Kernel
import Model
import Testing
import Wire

extension SystemSuite {
    @Suite("What `run` can ask of a container, seen from inside and in the kernel's files", .serialized)
    struct PodOptionsHold {
        /// What a shell in a new container prints.
        private func sh(_ cluster: TestCluster, _ options: [String], _ script: String) throws -> String {
            let outcome = try cluster.run(["run", "--rm"] + options + ["busybox", "sh", "-c", script])
            try expectSuccess(outcome)
            return outcome.text
        }

        @Test("--privileged: all that the agent has, all devices, nothing hidden, no filter")
        func privileged() throws {
            try withCluster { cluster in
                let script = """
                    grep CapEff /proc/self/status; grep Seccomp: /proc/self/status
                    ( : >>/proc/sys/kernel/core_pattern ) 2>/dev/null && echo sys
                    grep ' /sys ' /proc/mounts | grep -q '[ ,]rw[, ]' && echo writable
                    grep -c ' /proc/kcore ' /proc/mounts
                    ls -l /dev | grep -c '^[bc]'
                    """
                let lines = try sh(cluster, ["--privileged"], script).split(separator: "\n").map(String.init)
                let own = try File.text("/proc/self/status").split(separator: "\n")
                let mine = own.first { $0.hasPrefix("CapEff") }.map { String($0.split(separator: "\t")[1]) }
                #expect(lines.first?.split(separator: "\t").last.map(String.init) == mine)
                #expect(lines.contains("Seccomp:\t0") && lines.contains("sys") && lines.contains("writable"))
                #expect(lines.dropLast().last == "0")
                let plain = try sh(cluster, [], script).split(separator: "\n").map(String.init)
                #expect(plain.contains("Seccomp:\t2") && !plain.contains("sys") && !plain.contains("writable"))
                #expect((Int(lines.last ?? "") ?? 0) > (Int(plain.last ?? "") ?? 0))
            }
        }

        @Test("--init: signals are passed on, orphans are waited for, the exit code is the program's")
        func initProcess() throws {
            try withCluster { cluster in
                let first = try sh(cluster, ["--init"], "cat /proc/1/cmdline | tr '\\0' ' '; echo; echo $$")
                #expect(first.hasPrefix("/dev/init init -- sh -c"))
                #expect(!first.hasSuffix("\n1"))
                #expect(try cluster.martlet("run", "--rm", "--init", "busybox", "sh", "-c", "exit 42").code == 42)
                #expect(try cluster.martlet("run", "--rm", "--init", "busybox", "sh", "-c", "kill -9 $$").code == 137)
                #expect(try cluster.martlet("run", "--rm", "--init", "busybox", "nothing-there").code == 127)
                let orphans = try sh(
                    cluster, ["--init"],
                    "sh -c 'sleep 0.1 & exit 0'; sleep 0.6; grep -l '^State:.Z' /proc/[0-9]*/status | wc -l")
                #expect(orphans == "0")
                try expectSuccess(
                    cluster.martlet(
                        "run", "-d", "--name", "obedient", "--init", "busybox", "sh", "-c",
                        "trap 'exit 7' TERM; while :; do sleep 0.1; done"))
                try eventually("it runs") { try cluster.inspect("obedient").status.phase == .running }
                usleep(300_000)
                try expectSuccess(cluster.martlet("stop", "obedient"))
                #expect(try cluster.inspect("obedient").container.exitCode == 7)
                // What a container has is a copy, and not to be written.
                let write = try cluster.martlet(
                    "run", "--rm", "--init", "busybox", "sh", "-c", "echo x >>/dev/init; echo $?")
                #expect(write.output.hasSuffix("1\n"))
            }
        }

        @Test("Groups, OOM score, domain name, name servers and hosts")
        func identity() throws {
            try withCluster { cluster in
                #expect(
                    try sh(cluster, ["--group-add", "1234", "--group-add", "root"], "id -G").split(separator: " ")
                        .contains("1234"))
                let unknown = try cluster.martlet("run", "--rm", "--group-add", "nosuch", "busybox", "true")
                #expect(unknown.code == 125 && unknown.errors.contains("nosuch"))
                #expect(try sh(cluster, ["--oom-score-adj", "321"], "cat /proc/1/oom_score_adj") == "321")
                #expect(try sh(cluster, ["--domainname", "example"], "cat /proc/sys/kernel/domainname") == "example")
                let hosts = try sh(
                    cluster, ["--add-host", "db:10.9.8.7", "--add-host", "node:host-gateway", "--hostname", "me"],
                    "cat /etc/hosts; hostname")
                #expect(hosts.contains("10.9.8.7\tdb") && hosts.contains("\tnode") && hosts.hasSuffix("me"))
                let resolver = try sh(
                    cluster, ["--dns", "10.1.1.1", "--dns-search", "a.example", "--dns-option", "ndots:3"],
                    "cat /etc/resolv.conf")
                #expect(resolver == "nameserver 10.1.1.1\nsearch a.example\noptions ndots:3")
            }
        }

        @Test("Processor limits are in the container's control group")
        func processors() throws {
            try withCluster { cluster in
                try expectSuccess(
                    cluster.martlet(
                        "run", "-d", "--name", "p", "--cpu-period", "50000", "--cpu-quota", "20000", "--cpuset-cpus",
                        "0", "busybox", "sleep", "1000"))
                try eventually("it runs") { try cluster.inspect("p").status.phase == .running }
                let group = try ControlGroup(cluster, "p")
                #expect(group.value("cpu", "cpu.cfs_quota_us") ?? group.value("cpu", "cpu.max") != nil)
                if let quota = group.value("cpu", "cpu.cfs_quota_us") {
                    #expect(quota == "20000" && group.value("cpu", "cpu.cfs_period_us") == "50000")
                } else {
                    #expect(group.value("cpu", "cpu.max") == "20000 50000")
                }
                #expect(group.value("cpuset", "cpuset.cpus") == "0")
                #expect(try cluster.martlet("exec", "p", "nproc").text == "1")
                let swappiness = try cluster.martlet(
                    "run", "--rm", "--memory", "64m", "--memory-swappiness", "10", "busybox", "true")
                // Where the kernel has no such limit, it is named.
                #expect(swappiness.code == 0 || swappiness.errors.contains("swappiness"), "\(swappiness)")
            }
        }

        @Test("Namespaces of the node and of other containers")
        func namespaces() throws {
            try withCluster { cluster in
                func own(_ kind: String) -> String { (try? link("/proc/self/ns/\(kind)")) ?? "" }
                for (option, kind) in [("--pid", "pid"), ("--ipc", "ipc"), ("--uts", "uts")] {
                    #expect(
                        try sh(cluster, [option, "host"], "readlink /proc/self/ns/\(kind)") == own(kind), "\(kind)")
                    #expect(try sh(cluster, [], "readlink /proc/self/ns/\(kind)") != own(kind), "\(kind)")
                }
                try expectSuccess(
                    cluster.martlet(
                        "run", "-d", "--name", "base", "--hostname", "base-host", "busybox", "sh", "-c",
                        "echo shared >/dev/shm/note; sleep 1000"))
                try eventually("it runs") { try cluster.inspect("base").status.phase == .running }
                let pid = try cluster.inspect("base").container.pid
                func base(_ kind: String) throws -> String { try link("/proc/\(pid)/ns/\(kind)") }
                #expect(
                    try sh(cluster, ["--pid", "container:base"], "readlink /proc/self/ns/pid; ps")
                        .hasPrefix(base("pid")))
                #expect(
                    try sh(cluster, ["--ipc", "container:base"], "readlink /proc/self/ns/ipc; cat /dev/shm/note")
                        == base("ipc") + "\nshared")
                let network = try sh(
                    cluster, ["--network", "container:base"], "readlink /proc/self/ns/net; cat /etc/hosts")
                #expect(network.hasPrefix(try base("net")) && network.contains("base-host"))
                // A probe over the network goes to the one that it shares.
                try expectSuccess(
                    cluster.martlet(
                        "run", "-d", "--name", "probed", "--network", "container:base", "--stop-timeout", "0",
                        "--health-tcp", "7", "--health-interval", "1", "busybox", "nc", "-ll", "-p", "7", "-e", "cat"))
                try eventually("it is healthy") { try cluster.inspect("probed").container.health == .healthy }
                try expectSuccess(cluster.martlet("rm", "-f", "probed"))
                // One that sits in another's process namespace can be stopped, and leaves nothing there.
                try expectSuccess(
                    cluster.martlet(
                        "run", "-d", "--name", "side", "--pid", "container:base", "busybox", "sh", "-c",
                        "sleep 1000 & sleep 1000"))
                try eventually("it runs") { try cluster.inspect("side").status.phase == .running }
                try expectSuccess(cluster.martlet("stop", "-t", "0", "side"))
                #expect(!(try cluster.martlet("exec", "base", "ps").output.contains("sleep 1000 &")))
                try expectSuccess(cluster.martlet("stop", "-t", "0", "base"))
                let late = try cluster.martlet("run", "--rm", "--network", "container:base", "busybox", "true")
                #expect(late.code != 0 && late.errors.contains("is not running"), "\(late)")
                let lost = try cluster.martlet("run", "--rm", "--network", "container:nobody", "busybox", "true")
                #expect(lost.errors.contains("there is no container 'nobody'"))
            }
        }

        @Test("Ways of mounting: options of tmpfs, flags and propagation of binds, a source that is made")
        func mounts() throws {
            try withCluster { cluster in
                let memory = try sh(
                    cluster, ["--tmpfs", "/t:size=1m,mode=0750,uid=1000,exec"],
                    "stat -c '%a %u' /t; grep ' /t ' /proc/mounts | grep -c noexec; true")
                #expect(memory == "750 1000\n0")
                let folder = cluster.folder + "/bound"
                try File.makeDirectories(folder + "/below", mode: 0o755)
                try Mounts.mount(type: "tmpfs", source: "tmpfs", at: folder + "/below")
                defer { try? Mounts.detachAll(below: [folder]) }
                _ = try File.open(folder + "/below/deep", O_WRONLY | O_CREAT)
                let deep = try sh(cluster, ["-v", "\(folder):/b:noexec"], "ls /b/below; grep ' /b ' /proc/mounts")
                #expect(deep.hasPrefix("deep\n") && deep.contains("noexec"))
                #expect(try sh(cluster, ["-v", "\(folder):/b:nonrecursive"], "ls /b/below").isEmpty)
                // A mount that the node makes later is seen by a slave, and by nobody else.
                try Mounts.setPropagation(.shared, at: folder + "/below", recursive: false)
                for (name, option) in [("slave", "rslave"), ("private", "rprivate")] {
                    try expectSuccess(
                        cluster.martlet(
                            "run", "-d", "--name", name, "-v", "\(folder)/below:/b:\(option)", "busybox", "sleep",
                            "1000"))
                    try eventually("it runs") { try cluster.inspect(name).status.phase == .running }
                }
                try File.makeDirectories(folder + "/below/late", mode: 0o755)
                try Mounts.mount(type: "tmpfs", source: "tmpfs", at: folder + "/below/late")
                _ = try File.open(folder + "/below/late/seen", O_WRONLY | O_CREAT)
                #expect(try cluster.martlet("exec", "slave", "ls", "/b/late").text == "seen")
                #expect(try cluster.martlet("exec", "private", "ls", "/b/late").text.isEmpty)
                // The task takes nothing of the node's along when it goes.
                try expectSuccess(cluster.martlet("rm", "-f", "slave"))
                #expect(File.exists(folder + "/below/late/seen"))
            }
        }

        @Test("Device rules: what they allow can be used, what they do not cannot")
        func devices() throws {
            try withCluster { cluster in
                let script = "mknod /tmp/loop b 7 200 && head -c 0 /tmp/loop 2>&1"
                let refused = try cluster.martlet(
                    "run", "--rm", "busybox", "sh", "-c", "\(script); echo $?")
                #expect(refused.output.contains("not permitted"), "\(refused)")
                let allowed = try cluster.martlet(
                    "run", "--rm", "--device-cgroup-rule", "b 7:* rwm", "busybox", "sh", "-c", "\(script); echo $?")
                #expect(!allowed.output.contains("not permitted"), "\(allowed)")
            }
        }

        @Test("--log-driver none: nothing is kept; --log-opt bounds what is")
        func logs() throws {
            try withCluster { cluster in
                try expectSuccess(
                    cluster.martlet("run", "--name", "quiet", "--log-driver", "none", "busybox", "echo", "hello"))
                #expect(!(try cluster.martlet("logs", "quiet").output.contains("hello")))
                try expectSuccess(
                    cluster.martlet(
                        "run", "--name", "loud", "--log-opt", "max-size=4k", "--log-opt", "max-file=2", "busybox", "sh",
                        "-c", "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done"))
                let task = try #require(try cluster.inspect("loud").task)
                let folder = "\(cluster.dataDirectory)/tasks/\(task)/logs"
                let names = try File.list(folder)
                #expect(names.count == 2)
                for name in names {
                    var information = stat()
                    #expect(stat("\(folder)/\(name)", &information) == 0 && information.st_size <= 4096)
                }
            }
        }

        @Test("What cannot be executed ends with 127 or 126 and says why")
        func programs() throws {
            try withCluster { cluster in
                let missing = try cluster.martlet("run", "--rm", "busybox", "no-such-program")
                #expect(missing.code == 127)
                #expect(missing.errors.contains("exec: \"no-such-program\": executable file not found in $PATH"))
                let path = try cluster.martlet("run", "--rm", "busybox", "/no/such")
                #expect(path.code == 127 && path.errors.contains("no such file or directory"), "\(path)")
                let denied = try cluster.martlet("run", "--rm", "busybox", "/etc/passwd")
                #expect(denied.code == 126 && denied.errors.contains("permission denied"), "\(denied)")
            }
        }

        @Test("`update` changes what runs, and what it says holds over a new start")
        func update() throws {
            try withCluster { cluster in
                try expectSuccess(
                    cluster.martlet("run", "-d", "--name", "u", "--memory", "64m", "busybox", "sleep", "1000"))
                try eventually("it runs") { try cluster.inspect("u").status.phase == .running }
                let pid = try cluster.inspect("u").container.pid
                let group = try ControlGroup(cluster, "u")
                try expectSuccess(
                    cluster.martlet(
                        "update", "--memory", "128m", "--cpus", "0.5", "--pids-limit", "20", "--cpu-shares", "512",
                        "--restart", "always", "u"))
                func limit() -> String? {
                    group.value("memory", "memory.limit_in_bytes") ?? group.value("memory", "memory.max")
                }
                #expect(limit() == "\(128 << 20)")
                #expect(group.value("pids", "pids.max") == "20")
                if let quota = group.value("cpu", "cpu.cfs_quota_us") { #expect(quota == "50000") }
                try expectSuccess(cluster.martlet("update", "--memory", "32m", "u"))
                #expect(limit() == "\(32 << 20)")
                try expectSuccess(cluster.martlet("update", "--memory", "0", "--pids-limit", "-1", "--cpus", "0", "u"))
                #expect(group.value("pids", "pids.max") == "max")
                #expect(limit() != "\(32 << 20)")
                #expect(try cluster.inspect("u").container.pid == pid, "it ran all the time")
                #expect(try cluster.inspect("u").pod.restart.condition == .always)
                try expectSuccess(cluster.martlet("update", "--memory", "48m", "u"))
                try expectSuccess(cluster.martlet("restart", "-t", "0", "u"))
                try eventually("it runs again") { try cluster.inspect("u").container.pid != pid }
                #expect(limit() == "\(48 << 20)")
                try expectSuccess(cluster.martlet("rename", "u", "renamed"))
                #expect(try cluster.inspect("renamed").status.phase == .running)
                let much = try cluster.martlet("update", "--memory", "900t", "renamed")
                #expect(much.code != 0)
            }
        }

        private func link(_ path: String) throws -> String {
            var buffer = [CChar](repeating: 0, count: 256)
            let count = readlink(path, &buffer, buffer.count - 1)
            try #require(count > 0, "\(path)")
            return String(decoding: buffer.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        }
    }
}

/// The files of a container's control group, v1 or v2.
private struct ControlGroup {
    private let folder: String

    init(_ cluster: TestCluster, _ container: String) throws {
        let task = try #require(try cluster.inspect(container).task)
        folder = "\(cluster.cgroupParent)/\(task)"
    }

    /// nil: there is no such file.
    func value(_ controller: String, _ file: String) -> String? {
        let roots = ["/sys/fs/cgroup/\(controller)", "/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        return roots.lazy.compactMap { try? File.text("\($0)/\(folder)/\(file)") }.first.map {
            $0.hasSuffix("\n") ? String($0.dropLast()) : $0
        }
    }
}

extension Mounts {
    fileprivate static func mount(type: String, source: String, at path: String) throws {
        let place = try File.open(path, O_RDONLY | O_DIRECTORY)
        try mount(type: type, source: source, on: place.raw, flags: 0, data: "", subject: path)
    }
}
