import Glibc
import Kernel
import Model
import Testing
import Wire

/// Who dies when a marked point is passed.
enum Victims: CaseIterable {
    /// The process that passes the point; master and agent are two.
    case alone
    /// Master and agent, two processes, at the same time.
    case both
    /// `martlet up`, which is both.
    case up
}

/// A cluster whose processes are killed at marked points, beside a container that must notice nothing.
final class CrashCluster {
    let cluster: TestCluster
    private var victims = Victims.up
    private var point = ""
    private var bystander: Bystander?

    private var trigger: String { cluster.folder + "/crash" }
    private var roles: [String] { victims == .up ? ["up"] : ["master", "agent"] }

    /// The daemon that passes the point; nil when it is the shim or the runtime, which a restart does not bring back.
    private var dying: String? {
        if point.hasPrefix("shim.") || point.hasPrefix("runtime.") { return nil }
        if victims == .up { return "up" }
        return point.hasPrefix("master.") ? "master" : "agent"
    }

    /// - Parameter gpus: of the node, faked.
    init(gpus: Int = 0) throws {
        cluster = try TestCluster()
        do {
            if gpus > 0 { _ = try FakeGPUs(gpus, of: cluster) }
            try cluster.up()
            try cluster.importImage()
            bystander = try Bystander(cluster)
        } catch {
            cluster.tearDown()
            throw error
        }
    }

    /// Restarts the daemons so that one of them, or what they start, dies once it passes the point after `pull()`.
    func arm(_ point: String, _ victims: Victims) throws {
        for role in roles { try cluster.kill(role) }
        self.point = point
        self.victims = victims
        try start(roles, environment: ["MARTLET_FAILPOINT=\(point)@\(trigger)"])
    }

    /// From now on passing the point is deadly.
    func pull() throws { _ = try File.open(trigger, O_WRONLY | O_CREAT, mode: 0o600) }

    /// Waits until somebody has died at the point, and takes the other victims along.
    func untilDeath() throws {
        try eventually("somebody dies at \(point)") { !File.exists(trigger) }
        if let dying {
            let pid = try cluster.pid(of: dying)
            try eventually("the \(dying) has died at \(point)") { try Proc.stat(pid)?.hasEnded ?? true }
        }
        if victims != .alone {
            for role in roles where role != dying { try cluster.kill(role) }
        }
    }

    /// Starts what has died, without any mark, and checks that the bystander is as before.
    func recover() throws {
        try start(
            try roles.filter { role in
                let pid = try cluster.pid(of: role)
                return try Proc.stat(pid)?.hasEnded ?? true
            })
        try bystander?.check()
    }

    private func start(_ roles: [String], environment: [String] = []) throws {
        for role in roles {
            switch role {
            case "up": try cluster.up(environment: environment)
            case "master": try cluster.startMaster(environment: environment)
            default: try cluster.startAgent(environment: environment)
            }
        }
    }

    /// The exit code of a client, which must end by itself.
    func exitCode(_ client: borrowing ChildProcess) throws -> Int32 {
        let deadline = ContinuousClock.now + .seconds(60)
        while true {
            if let status = try client.poll() { return status.shellCode }
            guard ContinuousClock.now < deadline else {
                try client.signal(SIGKILL)
                _ = try client.wait()
                try #require(Bool(false), "a client still waits a minute after the recovery from \(point)")
                return -1
            }
            usleep(20_000)
        }
    }

    /// The processes in the cluster's cgroups whose command line names the marker.
    func processes(_ marker: String) throws -> [pid_t] {
        try File.list("/proc").compactMap { pid_t($0) }.filter { pid in
            guard let line = try? File.read("/proc/\(pid)/cmdline"), let group = try? File.text("/proc/\(pid)/cgroup")
            else { return false }
            return String(decoding: line, as: UTF8.self).contains(marker)
                && group.contains(cluster.cgroupParent + "/")
        }
    }

    func tearDown() { cluster.tearDown() }
}

/// A container that runs through every crash, with a connection through its published port that stays open.
private struct Bystander: ~Copyable {
    private static let name = "bystander"
    private let cluster: TestCluster
    private let pid: Int
    private let connection: OwnedFD

    init(_ cluster: TestCluster) throws {
        try expectSuccess(
            cluster.martlet(
                "run", "-d", "--name", Self.name, "--stop-timeout", "0", "-p", "7700:7", "busybox", "nc", "-ll", "-p",
                "7", "-e", "cat"))
        try eventually("the bystander runs") { try cluster.inspect(Self.name).status.phase == .running }
        let pid = try cluster.inspect(Self.name).container.pid
        var connected: Int32 = -1
        try eventually("the bystander listens") {
            connected = Self.connect(port: 7700)
            return connected >= 0
        }
        self.cluster = cluster
        self.pid = pid
        connection = OwnedFD(adopting: connected)
    }

    /// Same process, same start, and the connection carries bytes both ways.
    borrowing func check() throws {
        let pid = pid
        let view = try cluster.inspect(Self.name)
        #expect(view.container.pid == pid && view.container.start == 1)
        let text = Array("still there\n".utf8)
        #expect(send(connection.raw, text, text.count, Int32(MSG_NOSIGNAL)) == text.count)
        var answer = [UInt8](repeating: 0, count: text.count)
        #expect(recv(connection.raw, &answer, answer.count, Int32(MSG_WAITALL)) == text.count)
        #expect(answer == text)
    }

    /// A connection to this machine whose reads end after five seconds; -1 where nobody listens.
    private static func connect(port: UInt16) -> Int32 {
        let socket = Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        var limit = timeval(tv_sec: 5, tv_usec: 0)
        setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        var name = sockaddr_in()
        name.sin_family = sa_family_t(AF_INET)
        name.sin_port = port.bigEndian
        name.sin_addr = in_addr(s_addr: UInt32(0x7f00_0001).bigEndian)
        let result = withUnsafePointer(to: name) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Glibc.connect(socket, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        if result == 0 { return socket }
        close(socket)
        return -1
    }
}
