import Glibc
import JSON
import Kernel
import Testing

/// A `docker` of the PATH.
struct DockerClient: Sendable, CustomTestStringConvertible {
    let path: String
    /// `20.10.24`.
    let version: String

    var major: Int { version.split(separator: ".").first.flatMap { Int($0) } ?? 0 }
    var testDescription: String { "docker \(version)" }

    /// All that there are, the oldest first, each version once.
    static let all: [DockerClient] = {
        let path = getenv("PATH").map { String(cString: $0) } ?? "/usr/local/bin:/usr/bin:/bin"
        var found: [DockerClient] = []
        for folder in path.split(separator: ":") where access("\(folder)/docker", X_OK) == 0 {
            guard let result = try? Program("\(folder)/docker", ["--version"]).run(), result.status == .exited(0),
                let version = String(decoding: result.output, as: UTF8.self)
                    .firstMatch(of: /version (\d+\.\d+\.\d+)/)?.output.1,
                !found.contains(where: { $0.version == version })
            else { continue }
            found.append(DockerClient(path: "\(folder)/docker", version: String(version)))
        }
        return found.sorted { ($0.major, $0.version) < ($1.major, $1.version) }
    }()

    /// For sessions in which clients of all versions send much the same: in `make test` the oldest or the newest, in
    /// `make soak` all.
    enum Choice { case oldest, newest }

    static func only(_ choice: Choice) -> [DockerClient] {
        if getenv("MARTLET_SOAK") != nil { return all }
        return [choice == .oldest ? all.first : all.last].compactMap { $0 }
    }

    /// Why tests with dockerd are skipped; nil: they are not.
    static let isMissing = all.isEmpty || access("/usr/sbin/dockerd", X_OK) != 0
}

/// One of the two that are compared: what a `docker` talks to, and where it runs.
struct DockerSide {
    let host: String
    /// Files of its sessions.
    let folder: String
    /// Namespaces to run in; nil: the test's own.
    let machine: Machine?

    /// Starts `sh -c COMMAND`, with standard output and error in files.
    func begin(
        _ command: String, client: DockerClient, version: String? = nil, seconds: Int = 60
    ) throws -> ChildProcess {
        try File.makeDirectories("\(folder)/bin")
        try File.makeDirectories("\(folder)/home")
        try Tree.remove("\(folder)/bin/docker")
        try systemCall("symlink") { symlink(client.path, "\(folder)/bin/docker") }
        var environment = [
            "PATH=\(folder)/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME=\(folder)/home", "DOCKER_CONFIG=\(folder)/home/.docker", "DOCKER_HOST=\(host)", "W=\(folder)",
            "LC_ALL=C", "TZ=UTC",
        ]
        if let version { environment.append("DOCKER_API_VERSION=\(version)") }
        try File.replace("\(folder)/command", with: Array("cd \"$W\"\n\(command)\n".utf8))
        let arguments = [
            "/usr/bin/timeout", "--kill-after=5", "\(seconds)", "/bin/sh", "-c",
            "exec /bin/sh \"$W/command\" >\"$W/out\" 2>\"$W/err\" </dev/null",
        ]
        if let machine { return try machine.begin(arguments, environment: environment) }
        let null = try File.open("/dev/null", O_RDWR)
        var spawn = Spawn(arguments[0], arguments)
        spawn.environment = environment
        spawn.descriptors = [null.raw, null.raw, null.raw]
        spawn.newSession = true
        return try spawn.start()
    }

    /// What the command that ended left.
    func outcome(code: Int32) throws -> DockerOutcome {
        func text(_ name: String) throws -> String {
            String(decoding: try File.read("\(folder)/\(name)", limit: 64 << 20), as: UTF8.self)
                .replacing(folder, with: "WORK").replacing(host, with: "HOST")
        }
        return DockerOutcome(code: code, output: try text("out"), errors: try text("err"))
    }

    /// Runs a command to its end.
    @discardableResult
    func run(_ command: String, client: DockerClient, seconds: Int = 60) throws -> DockerOutcome {
        let process = try begin(command, client: client, seconds: seconds)
        return try outcome(code: process.wait().shellCode)
    }
}

/// Debian's dockerd in network and mount namespaces of its own, and a Martlet cluster, both with the image `busybox`.
final class DockerPair: Sendable {
    let cluster: TestCluster
    private let machine: Machine
    /// Instead of Martlet, when sessions are tried: two of a kind have no differences.
    private let other: Machine?

    var reference: DockerSide { Self.side(of: machine) }
    var ours: DockerSide {
        if let other { return Self.side(of: other) }
        return DockerSide(
            host: "unix://\(cluster.runDirectory)/martlet.sock", folder: cluster.folder + "/session", machine: nil)
    }

    init() throws {
        cluster = try TestCluster()
        machine = try Machine("dockerd", in: cluster.folder, number: 201)
        other = getenv("MARTLET_DOCKER_TWICE") == nil ? nil : try Machine("again", in: cluster.folder, number: 202)
    }

    func start() throws {
        let client = try #require(DockerClient.all.first)
        try Self.startDaemon(machine)
        if let other {
            try Self.startDaemon(other)
        } else {
            try cluster.up()
        }
        try #require(
            !TestCluster.rootfs.isEmpty, "MARTLET_ROOTFS names no root file system: run the tests with `make test`")
        let archive = cluster.folder + "/busybox.tar"
        func expectDone(_ side: DockerSide, _ command: String) throws {
            let outcome = try side.run(command, client: client)
            try #require(outcome.code == 0, "\(command): \(outcome)")
        }
        for machine in [machine, other].compactMap({ $0 }) {
            let side = Self.side(of: machine)
            try eventually("dockerd answers") { try side.run("docker version", client: client).code == 0 }
        }
        try expectDone(
            reference,
            """
            docker import -c 'CMD ["sh"]' -c 'ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin' '\(TestCluster.rootfs)' busybox &&
            docker save -o '\(archive)' busybox
            """)
        if other == nil {
            try expectSuccess(cluster.run(["image", "load", "-i", archive]))
        } else {
            try expectDone(ours, "docker load -i '\(archive)'")
        }
    }

    func tearDown() {
        for machine in [machine, other].compactMap({ $0 }) {
            do {
                try machine.powerOff()
            } catch {
                Issue.record("dockerd cannot be taken down: \(error)")
            }
            for controller in (try? File.list("/sys/fs/cgroup")) ?? [] {
                _ = rmdir("/sys/fs/cgroup/\(controller)/\(machine.cgroupParent)")
            }
        }
        cluster.tearDown()
    }

    private static func side(of machine: Machine) -> DockerSide {
        DockerSide(host: "unix://\(machine.folder)/docker.sock", folder: machine.folder + "/session", machine: machine)
    }

    private static func startDaemon(_ machine: Machine) throws {
        try machine.powerOn()
        _ = try machine.begin(
            [
                "dockerd", "--data-root", "\(machine.folder)/data", "--exec-root", "\(machine.folder)/run", "--host",
                "unix://\(machine.folder)/docker.sock", "--pidfile", "\(machine.folder)/pid", "--storage-driver",
                "overlay2", "--bip", "10.97.0.1/16", "--cgroup-parent", "/\(machine.cgroupParent)",
            ], output: "\(machine.folder)/dockerd.log")
    }

    /// Runs a session on both sides at once, step by step, and records what differs and is not known to.
    func compare(_ name: String, client: DockerClient) throws {
        let session = try DockerSession(name)
        let (reference, ours) = (reference, ours)
        for step in session.steps where step.versions.contains(client.major) {
            // Shapes are compared at one version, which dockerd's newest is.
            let version = step.kind == .json ? "1.41" : nil
            let running = try reference.begin(step.command, client: client, version: version)
            let second = try ours.begin(step.command, client: client, version: version)
            let there = try reference.outcome(code: running.wait().shellCode)
            let here = try ours.outcome(code: second.wait().shellCode)
            let place = "\(name).session:\(step.line): \(step.command)"
            if step.kind == .setup, there.code != 0 {
                Issue.record("\(place)\nfails with dockerd: \(there.errors)\(there.output)")
            }
            let differences = DockerComparison(kind: step.kind, ignored: session.ignored).differences(there, here)
            if other != nil || step.difference == nil {
                if !differences.isEmpty {
                    Issue.record("\(place)\n\(differences.joined(separator: "\n"))\nhere: \(here.errors.prefix(300))")
                }
            } else if differences.isEmpty {
                Issue.record("\(place)\nno longer differs: '\(step.difference ?? "")' does not hold")
            }
        }
    }
}

/// Both daemons, for as long as `body` takes.
func withDockerPair(_ body: (DockerPair) throws -> Void) throws {
    let pair = try DockerPair()
    defer { pair.tearDown() }
    try pair.start()
    try body(pair)
}
