import Cgroups
import JSON
import Kernel
import OCISpec

extension Verb {
    static let exec = Verb(
        name: "exec",
        usage: "[command options] <container-id> <command> [arguments...] | -p process.json <container-id>",
        summary: "run another process in a container",
        flags: {
            [
                Flag("console-socket", value: "PATH", help: "a unix socket that receives the terminal"),
                Flag("cwd", value: "DIR", help: "the working directory"),
                Flag("env", "e", value: "NAME=VALUE", help: "add to the environment"),
                Flag("tty", "t", help: "give it a terminal"),
                Flag("user", "u", value: "UID[:GID]", help: "run as this user (numbers)"),
                Flag("additional-gids", "g", value: "GID", help: "add a supplementary group"),
                Flag("process", "p", value: "FILE", help: "read the process from a file"),
                Flag("detach", "d", help: "return when the program runs"),
                Flag("pid-file", value: "PATH", help: "write the process id to a file"),
                Flag("process-label", value: "LABEL", help: "run with this SELinux label"),
                Flag("apparmor", value: "PROFILE", help: "run with this AppArmor profile"),
                Flag("no-new-privs", help: "set no_new_privs"),
                Flag("cap", "c", value: "CAP", help: "add a capability"),
                Flag("preserve-fds", value: "N", help: "pass N more descriptors, from 3 on"),
                Flag("pidfd-socket", value: "PATH", help: "a unix socket that receives a pidfd of the process"),
                Flag("cgroup", value: "PATH", help: "a cgroup below the container's: [CONTROLLER,...:]PATH"),
                Flag("ignore-paused", help: "also in a paused container"),
            ]
        },
        failureStatus: 255
    ) { call in
        let arguments = call.arguments
        try arguments.require("exec", atLeast: 1, atMost: .max)
        guard arguments.value("process") != nil || arguments.positional.count > 1 else {
            throw RuntimeError("exec failed: no program is named; exec args cannot be empty")
        }
        try SelfProtection.ensure(call.commandLine)
        let record = try call.store.require(try call.containerID())
        let options = ExecutionOptions(
            id: record.id, process: try ExecArguments.process(arguments, record),
            consoleSocket: arguments.value("console-socket"), pidfdSocket: arguments.value("pidfd-socket"),
            pidFile: arguments.value("pid-file"), detach: arguments.has("detach"),
            ignorePaused: arguments.has("ignore-paused"),
            keptDescriptors: try PassedDescriptors.count(arguments),
            subgroups: try ExecArguments.subgroups(arguments))
        do {
            return try Execution(store: call.store, log: call.log, record: record, options: options).run()
        } catch {
            throw RuntimeError("exec failed", error)
        }
    }
}

extension ProcessSpec {
    /// Takes over what another process of the container has and this one leaves open: a process that says nothing of
    /// its confinement or its priority has that of the container.
    fileprivate mutating func inherit(from other: ProcessSpec) {
        if (apparmorProfile ?? "").isEmpty { apparmorProfile = other.apparmorProfile }
        if (selinuxLabel ?? "").isEmpty { selinuxLabel = other.selinuxLabel }
        scheduler = scheduler ?? other.scheduler
        ioPriority = ioPriority ?? other.ioPriority
        execCPUAffinity = execCPUAffinity ?? other.execCPUAffinity
    }
}

/// The process that `exec` describes.
enum ExecArguments {
    static func process(_ arguments: Arguments, _ record: ContainerRecord) throws -> ProcessSpec {
        var process: ProcessSpec
        if let path = arguments.value("process") {
            process = try withContext(path) { try ProcessSpec(parsing: try File.read(path, limit: 4 << 20)) }
            process.inherit(from: record.process)
        } else {
            process = record.process
            process.args = Array(arguments.positional.dropFirst())
            process.terminal = arguments.has("tty")
            process.consoleSize = nil
        }
        if arguments.has("tty") { process.terminal = true }
        if let label = arguments.value("process-label"), !label.isEmpty { process.selinuxLabel = label }
        if let profile = arguments.value("apparmor"), !profile.isEmpty { process.apparmorProfile = profile }
        if let directory = arguments.value("cwd") { process.cwd = directory }
        process.env += arguments.all("env")
        if arguments.has("no-new-privs") { process.noNewPrivileges = true }
        if let user = arguments.value("user") {
            let (uid, gid) = try parse(user: user)
            process.user.uid = uid
            if let gid { process.user.gid = gid }
        }
        for text in arguments.all("additional-gids") {
            process.user.additionalGids.append(try number(text, "--additional-gids"))
        }
        let added = arguments.all("cap")
        if !added.isEmpty {
            // Neither inheritable nor ambient: a program without file capabilities must not pass them on.
            var capabilities = process.capabilities ?? CapabilitiesSpec()
            capabilities.bounding += added
            capabilities.effective += added
            capabilities.permitted += added
            process.capabilities = capabilities
        }
        try Validation.check(process, path: "process")
        return process
    }

    /// `--cgroup`; nil without it.
    static func subgroups(_ arguments: Arguments) throws -> CgroupSubgroups? {
        let texts = arguments.all("cgroup").filter { !$0.isEmpty }
        return texts.isEmpty ? nil : try withContext("--cgroup") { try CgroupSubgroups(texts) }
    }

    /// `UID` or `UID:GID`, decimal numbers and nothing else: a name, a sign or a number out of range is an error, never
    /// another user.
    static func parse(user text: String) throws -> (uid: UInt32, gid: UInt32?) {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count <= 2 else { throw RuntimeError("--user: '\(text)' is not UID or UID:GID") }
        let uid = try number(String(parts[0]), "--user")
        return (uid, parts.count == 2 ? try number(String(parts[1]), "--user") : nil)
    }

    private static func number(_ text: String, _ flag: String) throws -> UInt32 {
        let digits = text.utf8.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
        guard digits, !text.isEmpty, text == "0" || !text.hasPrefix("0"), let number = UInt32(text), number != .max
        else { throw RuntimeError("\(flag): '\(text)' is no id: a number from 0 to 4294967294 is needed") }
        return number
    }
}
