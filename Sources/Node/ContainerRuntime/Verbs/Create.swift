import Glibc
import Kernel

extension Verb {
    static let create = Verb(
        name: "create", usage: "[command options] <container-id>", summary: "create a container",
        flags: LaunchArguments.flags
    ) { call in
        try call.arguments.require("create", atLeast: 1, atMost: 1)
        try SelfProtection.ensure(call.commandLine)
        let options = try LaunchArguments.options(call, startsAtOnce: false, foreground: false)
        _ = try Launcher(store: call.store, log: call.log, options: options).launch()
        return 0
    }
}

/// What `create` and `run` have in common.
enum LaunchArguments {
    static let flags = [
        Flag("bundle", "b", value: "DIR", help: "the bundle (default: the current directory)"),
        Flag("console-socket", value: "PATH", help: "a unix socket that receives the terminal"),
        Flag("pid-file", value: "PATH", help: "write the process id to a file"),
        Flag("no-pivot", help: "not supported"),
        Flag("no-new-keyring", help: "keep the caller's session keyring"),
        Flag("preserve-fds", value: "N", help: "pass N more descriptors, from 3 on (after $LISTEN_FDS)"),
    ]

    static func options(_ call: Invocation, startsAtOnce: Bool, foreground: Bool) throws -> LaunchOptions {
        let arguments = call.arguments
        if arguments.has("no-pivot") {
            throw RuntimeError("--no-pivot is not supported: the root could be left again; put it on a real filesystem")
        }
        let bundle = arguments.value("bundle") ?? "."
        guard let resolved = realpath(bundle, nil) else { throw KernelError("bundle", bundle, errno: errno) }
        defer { free(resolved) }
        return LaunchOptions(
            id: try call.containerID(), bundle: String(cString: resolved),
            consoleSocket: arguments.value("console-socket"), pidFile: arguments.value("pid-file"),
            newKeyring: !arguments.has("no-new-keyring"), keptDescriptors: try keptDescriptors(arguments),
            activation: activationEnvironment, startsAtOnce: startsAtOnce, foreground: foreground,
            systemdCgroup: call.systemdCgroup)
    }

    /// What tells a program about descriptors of socket activation, see sd_listen_fds(3).
    static var activationEnvironment: [String] {
        guard let text = getenv("LISTEN_FDS").map({ String(cString: $0) }), let number = Int32(text), number > 0
        else { return [] }
        return ["LISTEN_FDS=\(number)", "LISTEN_PID=1"]
    }

    /// `--preserve-fds`, and the descriptors of socket activation (sd_listen_fds(3)) before them.
    static func keptDescriptors(_ arguments: Arguments) throws -> Int32 {
        var count: Int32 = 0
        if let text = getenv("LISTEN_FDS").map({ String(cString: $0) }), let number = Int32(text), number > 0 {
            count = number
        }
        if let text = arguments.value("preserve-fds") {
            guard let number = Int32(text), number >= 0 else {
                throw RuntimeError("--preserve-fds: '\(text)' is no count")
            }
            count += number
        }
        guard count <= 1024 else { throw RuntimeError("--preserve-fds: more than 1024 descriptors") }
        return count
    }
}
