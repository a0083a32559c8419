import Glibc
import Kernel

extension Verb {
    static let create = Verb(
        name: "create", usage: "[command options] <container-id>", summary: "create a container",
        flags: { LaunchArguments.flags }
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
        Flag("pidfd-socket", value: "PATH", help: "a unix socket that receives a pidfd of the first process"),
        Flag("no-pivot", help: "move the root instead of pivoting: for a root filesystem on the first ramfs"),
        Flag("no-new-keyring", help: "keep the caller's session keyring"),
        Flag("preserve-fds", value: "N", help: "pass N more descriptors, from 3 on (after $LISTEN_FDS)"),
    ]

    static func options(_ call: Invocation, startsAtOnce: Bool, foreground: Bool) throws -> LaunchOptions {
        let arguments = call.arguments
        let activation = SocketActivation()
        let bundle = arguments.value("bundle") ?? "."
        guard let resolved = realpath(bundle, nil) else { throw KernelError("bundle", bundle, errno: errno) }
        defer { free(resolved) }
        return LaunchOptions(
            id: try call.containerID(), bundle: String(cString: resolved),
            consoleSocket: arguments.value("console-socket"), pidfdSocket: arguments.value("pidfd-socket"),
            pidFile: arguments.value("pid-file"), newKeyring: !arguments.has("no-new-keyring"),
            noPivot: arguments.has("no-pivot"),
            keptDescriptors: try PassedDescriptors.count(arguments, after: activation.count),
            activation: activation.environment, startsAtOnce: startsAtOnce, foreground: foreground,
            systemdCgroup: call.systemdCgroup, rootless: call.rootless)
    }
}
