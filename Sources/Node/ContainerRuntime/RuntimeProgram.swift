import CKernel
import Glibc
import Kernel

/// The program `martlet-runtime`: an OCI runtime with runc's command line.
package enum RuntimeProgram {
    /// Runs one call.
    ///
    /// - Parameter arguments: the program's, its own name first.
    /// - Returns: the exit status: 0; 1 for an error (255 of `exec`), 3 for a verb that there is not; that of the container's process for `run` and
    ///   `exec` in the foreground, 128 + N when signal N ended it.
    package static func run(_ arguments: [String]) -> Int32 {
        if arguments.count > 1, arguments[1] == ContainerInit.word { return ContainerInit.run(arguments.dropFirst(2)) }
        var log = RuntimeLog.standard
        var failure: Int32 = 1
        do {
            try openStandardDescriptors()
            let global = try Arguments(arguments.dropFirst(), flags: globalFlags)
            if global.has("help") || global.positional.first == "help"
                || global.positional.isEmpty && !global.has("version")
            {
                print(Help.overview)
                return 0
            }
            if global.has("version") {
                print(Help.version)
                return 0
            }
            log = try makeLog(global)
            let name = global.positional[0]
            guard let verb = Verb.all.first(where: { $0.name == name }) else { throw unknownVerb(name) }
            failure = verb.failureStatus
            let own = try Arguments(global.positional.dropFirst(), flags: verb.flags() + [helpFlag])
            if own.has("help") {
                print(Help.of(verb))
                return 0
            }
            let store = StateStore(root: try stateRoot(global))
            return try verb.body(
                Invocation(
                    store: store, log: log, arguments: own, commandLine: arguments,
                    systemdCgroup: global.has("systemd-cgroup"), rootless: Rootless(global.value("rootless"))))
        } catch {
            log.fail("\(error)")
            return (error as? UsageError)?.status ?? failure
        }
    }

    /// Where containers are remembered unless `--root` says otherwise; it does not outlive a boot.
    static let defaultRoot = "/run/martlet-runtime"

    static let helpFlag = Flag("help", "h", help: "show this help")
    static let globalFlags = [
        Flag("root", value: "DIR", help: "directory for the state of containers (default: \(defaultRoot))"),
        Flag("log", value: "FILE", help: "append errors and warnings to a file"),
        Flag("log-format", value: "FORMAT", help: "text (default) or json"),
        Flag("debug", help: "log more"),
        Flag("systemd-cgroup", help: "have systemd make the cgroups: cgroupsPath is slice:prefix:name"),
        Flag("rootless", value: "BOOL", help: "do without cgroups that may not be made: auto (default), true or false"),
        Flag("version", "v", help: "print the version"), helpFlag,
    ]

    /// A caller that closed 0, 1 or 2 would have files of ours take their place, in the container too.
    private static func openStandardDescriptors() throws {
        for number: Int32 in 0...2 where ck_fcntl(number, F_GETFD, 0) < 0 {
            let null = ck_open("/dev/null", O_RDWR, 0)
            // The lowest free number is the closed one.
            guard null == number else { throw KernelError("open", "/dev/null", errno: errno) }
        }
    }

    private static func makeLog(_ global: Arguments) throws -> RuntimeLog {
        let format = global.value("log-format") ?? "text"
        guard let known = RuntimeLog.Format(rawValue: format) else {
            throw RuntimeError("unknown log-format '\(format)': text and json are known")
        }
        return try RuntimeLog(path: global.value("log"), format: known, debug: global.has("debug"))
    }

    /// The directory of `--root`; the host's own root is none.
    private static func stateRoot(_ global: Arguments) throws -> String {
        guard let root = global.value("root") else { return Rootless.stateRoot }
        guard !root.isEmpty, !root.pathComponents.isEmpty else {
            throw UsageError("--root: '\(root)' is no directory for the state of containers")
        }
        if root.isAbsolutePath { return root }
        var buffer = [CChar](repeating: 0, count: Int(PATH_MAX))
        guard let here = getcwd(&buffer, buffer.count) else { throw KernelError("getcwd", errno: errno) }
        return "\(String(cString: here))/\(root)"
    }

    private static func unknownVerb(_ name: String) -> UsageError {
        switch name {
        case "checkpoint", "restore":
            UsageError("'\(name)' is not supported: processes are not saved with CRIU; stop and start the container")
        default: UsageError("no such command '\(name)'; 'martlet-runtime --help' lists them", status: 3)
        }
    }
}

/// One call of a verb.
struct Invocation {
    let store: StateStore
    let log: RuntimeLog
    let arguments: Arguments
    /// As the program got it, for executing itself again.
    let commandLine: [String]
    /// `--systemd-cgroup`, which says how containers are made; for others their record does.
    let systemdCgroup: Bool
    let rootless: Rootless

    /// The container id, the first positional argument.
    func containerID() throws -> ContainerID { try ContainerID(arguments.positional[0]) }
}

/// A verb of the command line; each has a file of its own.
struct Verb: Sendable {
    let name: String
    let usage: String
    let summary: String
    /// Made for the verb that is called, not for all of them.
    let flags: @Sendable () -> [Flag]
    /// The exit status of a call that failed.
    var failureStatus: Int32 = 1
    let body: @Sendable (Invocation) throws -> Int32

    static let all = [
        create, delete, events, exec, features, kill, list, pause, ps, resume, run, spec, start, state, update,
    ]
}

/// Help texts.
enum Help {
    static var version: String {
        "martlet-runtime version \(Version.number)\nspec: \(Validation.highestVersion)"
    }

    static var overview: String {
        let verbs = Verb.all.map { "   \($0.name)\(String(repeating: " ", count: 12 - $0.name.count))\($0.summary)" }
        return """
            martlet-runtime - an OCI container runtime

            USAGE:
               martlet-runtime [global options] command [command options] [arguments...]

            COMMANDS:
            \(verbs.joined(separator: "\n"))

            GLOBAL OPTIONS:
            \(RuntimeProgram.globalFlags.map(\.helpLine).joined(separator: "\n"))
            """
    }

    static func of(_ verb: Verb) -> String {
        """
        martlet-runtime \(verb.name) - \(verb.summary)

        USAGE:
           martlet-runtime \(verb.name) \(verb.usage)

        OPTIONS:
        \((verb.flags() + [RuntimeProgram.helpFlag]).map(\.helpLine).joined(separator: "\n"))
        """
    }
}
