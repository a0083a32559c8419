import Glibc
import JSON
import Kernel
import Model
import Synchronization
import Testing
import Wire

/// A cluster of several machines on a switch, made of the real programs: a master, and agents that join it.
final class ClusterFabric: Sendable {
    let folder: String
    let master: Machine
    let nodes: [Machine]
    /// A machine that only has the bridge by which the others reach each other.
    private let `switch`: Machine
    private let plugged = Mutex<[Machine]>([])
    /// Frames from the first port to the second are dropped.
    private let cuts = Mutex<Set<[String]>>([])
    private let joinToken = Mutex<String?>(nil)
    private static let counter = Mutex(0)

    /// Turns on a master's machine and `count` others, `n1` and so on; nothing runs in them yet.
    init(nodes count: Int) throws {
        let number = Self.counter.withLock { value -> Int in
            value += 1
            return value
        }
        folder = "/tmp/martlet-test-\(getpid())-fabric\(number)"
        try File.makeDirectories(folder)
        `switch` = try Machine("switch", in: folder, number: 250)
        master = try Machine("master", in: folder, number: 1)
        nodes = try [Int](1..<(count + 1)).map { [folder] in try Machine("n\($0)", in: folder, number: 10 + $0) }
        do {
            try `switch`.powerOn()
            try expectSuccess(`switch`.run(["ip", "link", "add", "br0", "type", "bridge"]))
            try expectSuccess(`switch`.run(["ip", "link", "set", "br0", "up"]))
            for machine in [master] + nodes { try powerOn(machine) }
        } catch {
            tearDown()
            throw error
        }
    }

    /// Another machine on the same switch, turned on.
    ///
    /// - Parameter number: the last part of its address, above those of the nodes.
    func addMachine(_ name: String, number: Int) throws -> Machine {
        let machine = try Machine(name, in: folder, number: number)
        try powerOn(machine)
        return machine
    }

    /// Turns a machine on and plugs it in.
    func powerOn(_ machine: Machine) throws {
        try machine.powerOn()
        plugged.withLock { if !$0.contains(where: { $0 === machine }) { $0.append(machine) } }
        let registries = machine.registriesFile
        if !File.exists(registries) { try File.replace(registries, with: Array("{}".utf8)) }
        let here = try #require(machine.holder)
        // The kernel takes a namespace's interfaces down some time after its last process.
        _ = try `switch`.run(["ip", "link", "delete", machine.port])
        try expectSuccess(
            `switch`.run([
                "ip", "link", "add", machine.port, "type", "veth", "peer", "name", "eth0", "netns", "\(here)",
            ]))
        try expectSuccess(`switch`.run(["ip", "link", "set", machine.port, "master", "br0", "up"]))
        try expectSuccess(machine.run(["ip", "address", "add", "\(machine.address)/24", "dev", "eth0"]))
        try expectSuccess(machine.run(["ip", "link", "set", "eth0", "up"]))
    }

    /// All of the machine dies at once; then it is turned on with a new boot id and an empty run directory. Its agent is
    /// started with `startAgent`.
    func reboot(_ machine: Machine) throws {
        try machine.powerOff()
        try powerOn(machine)
    }

    // MARK: The network

    /// Drops what `machine` sends to `other`, or to anyone; the other direction is as before.
    func cut(from machine: Machine, to other: Machine? = nil) throws {
        let others = other.map { [$0] } ?? peers(of: machine)
        cuts.withLock { $0.formUnion(others.map { [machine.port, $0.port] }) }
        try applyCuts()
    }

    /// Drops what anyone sends to `machine`; what it sends arrives.
    func cut(to machine: Machine) throws {
        let others = peers(of: machine)
        cuts.withLock { $0.formUnion(others.map { [$0.port, machine.port] }) }
        try applyCuts()
    }

    /// Nothing passes between `machine` and `other`, or anyone: connections stay, and stay silent.
    func partition(_ machine: Machine, from other: Machine? = nil) throws {
        let others = other.map { [$0] } ?? peers(of: machine)
        cuts.withLock {
            $0.formUnion(others.map { [machine.port, $0.port] } + others.map { [$0.port, machine.port] })
        }
        try applyCuts()
    }

    /// Everything of the machine passes again; without one, of all.
    func heal(_ machine: Machine? = nil) throws {
        cuts.withLock { cuts in
            if let machine { cuts = cuts.filter { !$0.contains(machine.port) } } else { cuts = [] }
        }
        try applyCuts()
    }

    /// Machines that were added later.
    var others: [Machine] {
        plugged.withLock { $0 }.filter { machine in machine !== master && !nodes.contains { $0 === machine } }
    }

    private func peers(of machine: Machine) -> [Machine] { plugged.withLock { $0 }.filter { $0 !== machine } }

    /// In one transaction: there is no moment with other rules.
    private func applyCuts() throws {
        let rules = cuts.withLock { $0 }.map { "iifname \($0[0]) oifname \($0[1]) drop" }
        let table = """
            table bridge cuts { }
            delete table bridge cuts
            table bridge cuts { chain forward { type filter hook forward priority 0
            \(rules.joined(separator: "\n"))
            }
            }
            """
        try expectSuccess(`switch`.run(["nft", "-f", "-"], input: Array(table.utf8)))
    }

    // MARK: Daemons

    /// Where the master is reached.
    var url: String { "https://\(master.address):7070" }

    func startMaster(_ flags: [String] = [], environment: [String] = []) throws {
        try expectSuccess(
            master.martlet(
                ["master", "--detach", "--advertise", master.address] + master.placeFlags + flags,
                environment: environment))
    }

    /// Makes a token, and gives its text.
    func token(_ flags: String...) throws -> String {
        let outcome = try run(["token", "create", "-q"] + flags)
        try expectSuccess(outcome)
        return outcome.text
    }

    /// `martlet agent --detach`, whatever comes of it.
    ///
    /// - Parameter token: for joining; nil: none is given, as for a node that has joined.
    func agent(_ node: Machine, token: String?, _ flags: [String] = [], environment: [String] = []) throws -> Outcome {
        try node.martlet(
            ["agent", "--detach", "--master", url, "--node-name", node.name] + node.placeFlags + node.nodeFlags
                + (token.map { ["--join", $0] } ?? []) + flags, environment: environment)
    }

    /// Joins a machine with a token that is good for all of this fabric.
    func join(_ node: Machine, _ flags: [String] = [], environment: [String] = []) throws {
        let known = joinToken.withLock { $0 }
        let token = try known ?? self.token()
        joinToken.withLock { $0 = token }
        try expectSuccess(agent(node, token: token, flags, environment: environment))
    }

    /// Starts the agent of a node that has joined, after its death or a reboot.
    func startAgent(_ node: Machine, _ flags: [String] = [], environment: [String] = []) throws {
        try expectSuccess(agent(node, token: nil, flags, environment: environment))
    }

    /// Makes the image `busybox`, on one node; the cluster copies it to a second by itself.
    func importImage(_ name: String = "busybox", on node: Machine? = nil) throws {
        try #require(
            !TestCluster.rootfs.isEmpty, "MARTLET_ROOTFS names no root file system: run the tests with `make test`")
        try expectSuccess(
            run(["image", "import", "--name", name] + (node.map { ["--node", $0.name] } ?? []) + [TestCluster.rootfs]))
    }

    /// Ends everything, and checks that nothing is left.
    func tearDown(sourceLocation: SourceLocation = #_sourceLocation) {
        let machines = plugged.withLock { $0 } + [`switch`]
        do {
            for machine in machines { try machine.powerOff() }
            try Tree.remove(folder)
            let name = String(folder.dropFirst("/tmp/".count))
            for controller in try File.list("/sys/fs/cgroup") {
                for group in try File.list("/sys/fs/cgroup/\(controller)") where group.hasPrefix("\(name)-") {
                    try Self.removeGroups("/sys/fs/cgroup/\(controller)/\(group)")
                }
            }
            let mounts = try File.text("/proc/self/mountinfo", limit: 16 << 20).split(separator: "\n")
            #expect(!mounts.contains { $0.contains(folder) }, "mounts are left", sourceLocation: sourceLocation)
            #expect(machines.allSatisfy { $0.processes.isEmpty }, "processes are left", sourceLocation: sourceLocation)
        } catch {
            Issue.record("the fabric cannot be taken down: \(error)", sourceLocation: sourceLocation)
        }
    }

    /// The lowest first, as the kernel wants it.
    private static func removeGroups(_ path: String) throws {
        for name in try File.list(path) {
            var info = stat()
            if lstat("\(path)/\(name)", &info) == 0, info.st_mode & S_IFMT == S_IFDIR {
                try removeGroups("\(path)/\(name)")
            }
        }
        // A process that was killed leaves its cgroup a little later.
        try eventually("the cgroup \(path) is empty") { rmdir(path) == 0 || errno == ENOENT }
    }

    // MARK: The command line

    /// Runs the CLI at the master's machine, as root.
    @discardableResult
    func martlet(_ arguments: String..., input: String = "") throws -> Outcome {
        try run(arguments, input: Array(input.utf8))
    }

    @discardableResult
    func run(
        _ arguments: [String], input: [UInt8] = [], environment: [String] = [], timeout seconds: Int = 120
    ) throws -> Outcome {
        // A socket is reached by its path from any namespace.
        var program = Program(TestCluster.martlet, arguments)
        program.environment = Machine.environment + ["MARTLET_HOST=\(master.socket)"] + environment
        program.input = input
        program.timeoutMilliseconds = seconds * 1000
        program.outputLimit = 64 << 20
        let result = try program.run()
        return Outcome(
            code: result.status.shellCode, output: String(decoding: result.output, as: UTF8.self),
            errors: String(decoding: result.errors, as: UTF8.self), what: arguments.joined(separator: " "))
    }

    /// Runs the CLI with a token, over the network from a machine.
    @discardableResult
    func run(_ arguments: [String], as token: String, from machine: Machine, input: [UInt8] = []) throws -> Outcome {
        try machine.martlet(
            arguments, input: input, environment: ["MARTLET_HOST=\(url)", "MARTLET_TOKEN=\(token)"])
    }

    /// Starts the CLI at the master's machine, and does not wait for it; what it prints goes to a file.
    func begin(_ arguments: [String], output: String = "/dev/null") throws -> ChildProcess {
        let null = try File.open("/dev/null", O_RDWR)
        let file = try File.open(output, O_WRONLY | O_CREAT | O_APPEND)
        var spawn = Spawn(TestCluster.martlet, ["martlet"] + arguments)
        spawn.environment = Machine.environment + ["MARTLET_HOST=\(master.socket)"]
        spawn.descriptors = [null.raw, file.raw, file.raw]
        return try spawn.start()
    }

    func inspect(_ container: String) throws -> ContainerView {
        try #require(try decoded([ContainerView].self, ["inspect", container]).first)
    }

    func containers(service: String? = nil) throws -> [ContainerView] {
        try decoded(
            [ContainerView].self,
            ["ps", "-a", "--format", "json"] + (service.map { ["--service", $0] } ?? []))
    }

    func nodeViews() throws -> [NodeView] { try decoded([NodeView].self, ["node", "ls", "--format", "json"]) }

    /// The machine on which a container is.
    func machine(of container: String) throws -> Machine {
        let name = try inspect(container).nodeName
        return try #require(nodes.first { $0.name == name })
    }

    /// What a command prints as JSON.
    func decoded<Value: Decodable & SendableMetatype>(_ type: Value.Type, _ arguments: [String]) throws -> Value {
        let outcome = try run(arguments)
        try expectSuccess(outcome)
        return try JSONCoding.decode(type, from: Array(outcome.output.utf8), limits: JSONLimits(bytes: 64 << 20))
    }
}

/// A cluster of a master and `count` nodes that have joined, with the image, for as long as `body` takes.
///
/// - Parameter image: the node that has the image first; nil: any.
func withFabric(nodes count: Int = 3, image: Int? = nil, _ body: (ClusterFabric) throws -> Void) throws {
    let fabric = try ClusterFabric(nodes: count)
    defer { fabric.tearDown() }
    try fabric.startMaster()
    for node in fabric.nodes { try fabric.join(node) }
    try fabric.importImage(on: image.map { fabric.nodes[$0] })
    try body(fabric)
}
