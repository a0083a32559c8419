import Glibc
import Kernel
import Model
import Testing
import Wire

/// What a process holds of the machine.
private struct Holding: CustomStringConvertible {
    let descriptors: Int
    let threads: Int
    /// Resident, in MiB.
    let memory: Int

    init(_ pid: pid_t) throws {
        descriptors = try File.list("/proc/\(pid)/fd").count
        threads = try File.list("/proc/\(pid)/task").count
        let status = try File.text("/proc/\(pid)/status").split(separator: "\n")
        let resident = status.first { $0.hasPrefix("VmRSS:") }?.split(separator: " ").dropFirst().first
        memory = (resident.flatMap { Int($0) } ?? 0) >> 10
    }

    var description: String { "\(descriptors) descriptors, \(threads) threads, \(memory) MiB" }
}

extension SystemSuite {
    @Suite(
        "Hostile requests to the Docker API", .serialized,
        .disabled(if: access("/usr/bin/python3", X_OK) != 0, "needs python3: scripts/setup.sh test installs it"))
    struct DockerHostile {
        @Test(
            """
            malformed, oversized, smuggled, half-open, closed early, archives against swapped links: clean refusals, \
            nothing touched, descriptors, threads and memory as before
            """)
        func requests() throws {
            try withCluster { cluster in
                let canary = cluster.folder + "/canary"
                try File.makeDirectories(canary)
                try File.replace(canary + "/secret", with: Array("from the host".utf8))
                func attack(_ count: Int) throws -> Program {
                    var program = Program(
                        "/usr/bin/python3",
                        ["\(DockerSession.folder)/hostile.py", "\(cluster.runDirectory)/martlet.sock", "\(count)"])
                    program.environment = Machine.environment + ["CANARY=\(canary)"]
                    program.timeoutMilliseconds = 1_800_000
                    return program
                }
                // The first time fills what is kept for ever: pools, caches, the allocator.
                var before: [Holding] = []
                let pids = try ["master", "agent"].compactMap { role in
                    File.exists("\(cluster.runDirectory)/\(role).pid") ? try cluster.pid(of: role) : nil
                }
                for (round, count) in [loops(400), loops(10_000)].enumerated() {
                    let result = try attack(count).run()
                    let parts = String(decoding: result.output, as: UTF8.self).split(separator: "\n")
                    try #require(
                        result.status == .exited(0), "after \(parts.joined(separator: " ")): \(result.errorText)")
                    if round == 0 {
                        sleep(2)
                        before = try pids.map { try Holding($0) }
                    }
                }
                for (pid, before) in zip(pids, before) {
                    func after() throws -> Holding { try Holding(pid) }
                    try eventually("descriptors are back: \(before), now \(try after())") {
                        try after().descriptors <= before.descriptors + 8
                    }
                    let now = try after()
                    #expect(now.threads <= before.threads + 8, "\(before), now \(now)")
                    #expect(now.memory <= before.memory + 64, "\(before), now \(now)")
                }
                try expectSuccess(cluster.martlet("run", "--rm", "busybox", "true"))
                #expect(try File.list(canary) == ["secret"])
            }
        }

        @Test("the same over TLS with a token: master and agent hold no more afterwards")
        func sealed() throws {
            try withFabric(nodes: 1) { fabric in
                let canary = fabric.folder + "/canary"
                try File.makeDirectories(canary)
                try File.replace(canary + "/secret", with: Array("from the host".utf8))
                let token = try fabric.token("--role", "admin")
                func attack(_ count: Int) throws {
                    let outcome = try fabric.nodes[0].run(
                        [
                            "env", "CANARY=\(canary)", "/usr/bin/python3", "\(DockerSession.folder)/hostile.py",
                            "\(fabric.master.address):7070", "\(count)", token,
                        ], timeout: 1800)
                    try #require(outcome.code == 0, "\(outcome)")
                }
                try attack(loops(100))
                sleep(2)
                let pids = try [
                    "\(fabric.master.runDirectory)/master.pid", "\(fabric.nodes[0].runDirectory)/agent.pid",
                ].map { path in
                    try #require(try File.text(path).split(whereSeparator: \.isWhitespace).first.flatMap { pid_t($0) })
                }
                let before = try pids.map { try Holding($0) }
                try attack(loops(1_000))
                for (pid, before) in zip(pids, before) {
                    func after() throws -> Holding { try Holding(pid) }
                    try eventually("descriptors are back: \(before), now \(try after())") {
                        try after().descriptors <= before.descriptors + 8
                    }
                    let now = try after()
                    #expect(now.threads <= before.threads + 8, "\(before), now \(now)")
                    #expect(now.memory <= before.memory + 64, "\(before), now \(now)")
                }
                #expect(try File.list(canary) == ["secret"])
            }
        }

        @Test("a token that may only look may only look, however the request is written")
        func authority() throws {
            try withFabric(nodes: 1) { fabric in
                try expectSuccess(fabric.martlet("run", "-d", "--name", "victim", "busybox", "sleep", "10000"))
                let token = try fabric.token("--role", "viewer")
                let outcome = try fabric.nodes[0].run([
                    "/usr/bin/python3", "\(DockerSession.folder)/authority.py", "\(fabric.master.address):7070", token,
                ])
                #expect(outcome.output == "nothing was done\n", "\(outcome)")
                #expect(try fabric.inspect("victim").status.phase == .running)
            }
        }
    }
}
