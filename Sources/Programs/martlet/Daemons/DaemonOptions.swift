import Agent
import ArgumentParser
import CDI
import DeviceDiscovery
import Glibc
import JSON
import Kernel
import Model

/// Where a cluster keeps things; several can live on one machine when these differ.
struct PlaceOptions: ParsableArguments {
    @Option(help: "State that outlives a reboot.") var dataDir = "/var/lib/martlet"
    @Option(help: "Sockets and what a reboot may take.") var runDir = "/run/martlet"

    mutating func validate() throws {
        dataDir = try Self.resolve(dataDir, "--data-dir")
        runDir = try Self.resolve(runDir, "--run-dir")
    }

    /// The path as the kernel's mount table names it, without symbolic links; what does not exist yet is kept as given.
    private static func resolve(_ path: String, _ option: String) throws -> String {
        guard path.hasPrefix("/") else {
            throw ValidationError("\(option) '\(path)' is not absolute: a daemon has a working directory of its own")
        }
        var names = path.split(separator: "/").filter { $0 != "." }
        guard !names.isEmpty, !names.contains("..") else {
            throw ValidationError("\(option) '\(path)' must name a folder below / and have no '..' in it")
        }
        var missing: [Substring] = []
        while !names.isEmpty {
            if let found = realpath("/" + names.joined(separator: "/"), nil) {
                defer { free(found) }
                guard String(cString: found) != "/" || !missing.isEmpty else {
                    throw ValidationError("\(option) '\(path)' leads to /: choose a folder below it")
                }
                return ([String(cString: found)] + missing.map(String.init)).joined(separator: "/")
            }
            missing.insert(names.removeLast(), at: 0)
        }
        return "/" + missing.joined(separator: "/")
    }

    var socket: String { "\(runDir)/martlet.sock" }

    /// The file that names a daemon's process.
    func pidFile(_ role: DaemonRole) -> String { "\(runDir)/\(role.rawValue).pid" }
}

enum DaemonRole: String, CaseIterable {
    /// Master and agent in one process.
    case up
    case master
    case agent
}

/// What an agent needs to know about its machine.
struct NodeOptions: ParsableArguments {
    @Option(help: "The node's name (the machine's host name).") var nodeName: String?
    @Option(help: "A label of the node, KEY=value; set at its first start.") var nodeLabel: [LabelArgument] = []
    @Option(help: "The bridge that pods hang on.") var bridge = "martlet0"
    @Option(help: "The pods' addresses.") var subnet = "10.213.0.0/16"
    @Option(help: "The parent of all pods' cgroups.") var cgroupParent = "martlet"
    @Option(help: "Where streams are served to other machines of a cluster, ADDRESS:PORT.")
    var streamListen: HostPort = HostPort(host: "0.0.0.0", port: 7071)
    @Option(help: "The address under which others reach this machine (discovered).") var nodeAddress: String?
    @Option(help: "Where CNI configuration lists of networks with the driver cni are; see docs/networks.md.")
    var cniLists = "/etc/cni/net.d"
    @Option(
        help: "A directory with CDI specifications of devices; of several a later one goes first; see docs/devices.md.")
    var cdiSpecDir = CDIRegistry.standardDirectories
    @Option(help: "A folder with proc, sys, dev, lib and bin that devices are looked for in, not this machine's.")
    var deviceRoot: String?
    @Option(help: "Shares of a GPU for claims with sharing=share, DEVICE=N; DEVICE is an id, a number or all.")
    var deviceShares: [DeviceShares] = []
    @Option(help: "What is particular about registries, a JSON file; see docs/registries.md.")
    var registries = "/etc/martlet/registries.json"
}

/// `DEVICE=N`.
struct DeviceShares: ExpressibleByArgument {
    let device: String
    let count: Int

    init?(argument: String) {
        guard let equals = argument.lastIndex(of: "="), equals != argument.startIndex,
            let count = Int(argument[argument.index(after: equals)...]), (1...NodeDevice.mostShares).contains(count)
        else { return nil }
        device = String(argument[..<equals])
        self.count = count
    }
}

/// `address:port` or `[v6]:port`.
struct HostPort: ExpressibleByArgument {
    var host: String
    var port: Int

    init(host: String, port: Int) {
        self.host = host
        self.port = port
    }

    init?(argument: String) {
        guard let colon = argument.lastIndex(of: ":"), let number = UInt16(argument[argument.index(after: colon)...]),
            number > 0
        else { return nil }
        let text = argument[..<colon]
        let bare = text.hasPrefix("[") && text.hasSuffix("]") ? text.dropFirst().dropLast() : text
        guard !bare.isEmpty, bare != text || !text.contains(":") else { return nil }
        host = String(bare)
        port = Int(number)
    }

    var defaultValueDescription: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}

extension PlaceOptions {
    /// Makes the process known, refusing a second one of the same place.
    func claim(_ role: DaemonRole) throws {
        try File.makeDirectories(runDir)
        for other in DaemonRole.allCases {
            guard let pid = runningDaemon(other) else { continue }
            if other == role || other == .up || role == .up {
                throw CommandFailure(
                    "`martlet \(other.rawValue)` already runs as process \(pid) on \(runDir); end it with `martlet down`, "
                        + "or give another --run-dir and --data-dir")
            }
        }
        try File.replace(pidFile(role), with: Array("\(getpid()) \(try Proc.stat(getpid())?.startTime ?? 0)\n".utf8))
    }

    private var daemonFiles: [String] { DaemonRole.allCases.flatMap { ["\($0).pid", "\($0).pid.new", "\($0).log"] } }

    /// Before anything in them is removed: a slip of the pen in a flag must not cost somebody's files. Names such as
    /// `images` or `runtime` prove nothing.
    func refuseWhatIsNotOurs() throws {
        let hasData = ["node.json", "store/martlet.db"].contains { File.exists("\(dataDir)/\($0)") }
        let hasRun = (["martlet.sock", "agent.sock"] + daemonFiles).contains { File.exists("\(runDir)/\($0)") }
        for (folder, option, isOurs) in [(dataDir, "--data-dir", hasData), (runDir, "--run-dir", hasRun)] {
            guard !isOurs, File.exists(folder) else { continue }
            // What a daemon in the foreground left when it ended, or an agent that was killed.
            let left = hasData && folder == runDir ? ["shims", "runtime", "netns", "cni"] : []
            guard try File.list(folder).allSatisfy({ left.contains($0) || $0.hasSuffix(".sock.lock") }) else {
                throw CommandFailure(
                    "\(option) \(folder) is not known as martlet's: nothing was removed; give the folder that "
                        + "`martlet up` was given")
            }
        }
    }

    /// Removes the daemons' own files, and the folders once they are empty.
    ///
    /// - Returns: the folders that stay, because there are others' files in them.
    func removeFiles() throws -> [String] {
        let run = daemonFiles + ["martlet.sock", "martlet.sock.lock"]
        for name in run { try Tree.remove("\(runDir)/\(name)") }
        // What says whose the folder is goes last.
        for name in [
            "store", "authority", "audit.log", "audit.log.1", "audit.log.2", "audit.log.3", "audit.log.4", "master",
            "master.new",
            "node.json.new", "node.json",
        ] { try Tree.remove("\(dataDir)/\(name)") }
        // Where attachments by CNI lists were on record; one that is there yet keeps them.
        for name in ["networks/cni", "networks"] { rmdir("\(dataDir)/\(name)") }
        return try [runDir, dataDir].filter { folder in
            // A folder that is a file system of its own stays, empty: whoever mounted it may unmount it.
            if rmdir(folder) == 0 || errno == ENOENT || errno == EBUSY { return false }
            guard errno == ENOTEMPTY else { throw KernelError("rmdir", folder, errno: errno) }
            return true
        }
    }

    /// The living process that the file names: number and start time must both fit, since numbers are used again.
    func runningDaemon(_ role: DaemonRole) -> pid_t? {
        guard let words = try? File.text(pidFile(role)).split(separator: " "), words.count == 2,
            let pid = pid_t(words[0]),
            let process = try? Proc.stat(pid), !process.hasEnded, "\(process.startTime)" == words[1]
        else { return nil }
        return pid
    }
}

extension NodeOptions {
    /// What is kept beside the state, so that `down` needs no flags.
    private struct Remembered: Codable {
        var bridge: String
        var subnet: String
        var cgroupParent: String
        /// Where specifications of the node's own devices are; nil: of a version that did not say.
        var cdiSpecDir: [String]?
    }

    private static func file(_ place: PlaceOptions) -> String { "\(place.dataDir)/node.json" }

    func remember(in place: PlaceOptions) throws {
        try File.makeDirectories(place.dataDir)
        let options = Remembered(
            bridge: bridge, subnet: subnet, cgroupParent: cgroupParent, cdiSpecDir: cdiSpecDir)
        let bytes = try JSONCoding.encode(options)
        // Unchanged it is not written, so that a daemon starts again on a disk that is full.
        if let present = try? File.read(Self.file(place)), present == bytes { return }
        try File.replace(Self.file(place), with: bytes)
    }

    /// The last ones used on this place; nil when no agent was there.
    static func remembered(in place: PlaceOptions) throws -> NodeOptions? {
        guard File.exists(file(place)) else { return nil }
        var options = try NodeOptions.parse([])
        let remembered = try JSONCoding.decode(Remembered.self, from: File.read(file(place)))
        options.bridge = remembered.bridge
        options.subnet = remembered.subnet
        options.cgroupParent = remembered.cgroupParent
        if let directories = remembered.cdiSpecDir { options.cdiSpecDir = directories }
        return options
    }

    /// Without the paths of the small programs, which only a running agent needs.
    func agentConfiguration(_ place: PlaceOptions) -> AgentConfiguration {
        var configuration = AgentConfiguration()
        configuration.dataDirectory = place.dataDir
        configuration.runDirectory = place.runDir
        configuration.masterEndpoint = "unix:\(place.socket)"
        configuration.nodeName = nodeName ?? ""
        configuration.cgroupParent = cgroupParent
        configuration.bridge = bridge
        configuration.overlayProgram = SmallProgram.place(of: "martlet-overlay")
        configuration.portmapProgram = SmallProgram.place(of: "portmap")
        configuration.subnet = subnet
        configuration.labels = nodeLabel.dictionary
        configuration.listen = (streamListen.host, streamListen.port)
        configuration.address = nodeAddress ?? ""
        configuration.registries = registries
        configuration.cniDirectory = cniLists
        configuration.cdiDirectories = cdiSpecDir
        configuration.deviceShares = Dictionary(deviceShares.map { ($0.device, $0.count) }) { $1 }
        if let deviceRoot { configuration.deviceRoots = DeviceRoots(below: deviceRoot) }
        return configuration
    }
}
