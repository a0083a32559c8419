import CKernel
import CStage
import Cgroups
import Glibc
import Kernel
import OCISpec

/// What the container's first process does, from its first moment in its namespaces to the program: single-threaded
/// Swift, with the runtime at the other end of a channel.
struct ContainerStage {
    let plan: ContainerPlan
    let channel: Channel
    /// Where `start` will connect; nil when the runtime itself says go (`run`).
    let startListener: Int32?
    /// Where the terminal's main side goes; nil: to the runtime.
    let consoleSocket: Int32?

    /// Does it all; whatever fails is reported to the runtime, or to `start`.
    func run() -> Never {
        do {
            let paths = try prepare()
            try execute(paths)
        } catch {
            try? channel.send(CS_FAILED, "\(error)")
            _exit(1)
        }
    }

    private func prepare() throws -> [String] {
        try plan.namespaces.complete()
        try systemCall("setsid") { setsid() }
        try joinKeyring()
        umask(0)
        if plan.namespaces.makesNetwork { try systemCall("ioctl(SIOCSIFFLAGS)", "lo") { ck_interface_up("lo") } }
        try setNames()

        var filesystem = try RootFilesystem(plan)
        // The runtime still makes the groups, if there are many to make.
        let uncounted = plan.mounts.prefix { !$0.needsGroup }
        try filesystem.mountAll(uncounted)
        try enterGroup()
        try filesystem.mountAll(plan.mounts[uncounted.endIndex...])
        if let missing = try filesystem.populateDev() { try channel.send(CS_WARNING, missing) }
        try makeWorkingDirectory(filesystem)
        if plan.needsRuntime {
            try channel.send(CS_HOOKS)
            try channel.await(CS_HOOKS_DONE)
        }
        var state = plan.hookState
        state.pid = getpid()
        try Hooks.run(plan.hooks.createContainer, .createContainer, state: state)
        if plan.noPivot { try filesystem.moveToRoot() } else { try filesystem.pivot() }
        if plan.terminal {
            try ContainerTerminal.open(
                in: filesystem.root, size: plan.consoleSize, owner: plan.process.uid,
                consoleNode: plan.populatesDev
            ) { main in
                try ContainerTerminal.send(main, to: consoleSocket, or: channel)
            }
        } else {
            ContainerTerminal.giveStandardIO(to: plan.process.uid)
        }
        try filesystem.writeSysctls()
        try filesystem.finish()
        try filesystem.mask()
        try filesystem.makeReadOnly()
        try filesystem.propagateRoot()
        try plan.process.attributes.apply()
        return try ProgramLookup.candidates(
            plan.process.args[0], environment: plan.process.env, directory: plan.process.cwd)
    }

    /// Goes into the container's group, as far as it was not made in it.
    private func enterGroup() throws {
        var entrance: ArraySlice<SharedFD> = []
        try plan.cgroup.manager.enter { () throws -> SharedFD in
            if entrance.isEmpty {
                entrance = try channel.await(CS_GROUPS, most: Int32(CS_MOST_DESCRIPTORS)).descriptors[...]
            }
            guard let file = entrance.popFirst() else {
                throw KernelError("receive", "a group of the container's", errno: EPROTO)
            }
            return file
        }
        if plan.namespaces.makesCgroup {
            // The namespace's root is the group the process is in when it is made.
            try systemCall("unshare", "cgroup namespace") { unshare(Int32(CK_CLONE_NEWCGROUP)) }
        }
        try channel.send(CS_ENTERED)
    }

    /// A session keyring of the container's own, so that it cannot use the caller's keys.
    private func joinKeyring() throws {
        guard let name = plan.keyring else { return }
        try plan.process.attributes.withKeyLabel { try Self.joinKeyring(name) }
    }

    private static func joinKeyring(_ name: String) throws {
        let result = ck_keyctl_join_session(name)
        if result >= 0 { return }
        switch errno {
        case ENOSYS: return
        case EDQUOT:
            throw KernelError(
                "keyctl", "join session keyring", errno: EDQUOT,
                hint: "see /proc/sys/kernel/keys/maxkeys, or use --no-new-keyring")
        default: throw KernelError("keyctl", "join session keyring", errno: errno)
        }
    }

    private func setNames() throws {
        if let name = plan.hostname {
            try systemCall("sethostname", name) { sethostname(name, name.utf8.count) }
        }
        if let name = plan.domainname {
            try systemCall("setdomainname", name) { setdomainname(name, name.utf8.count) }
        }
    }

    /// A working directory that the image does not have is made, as other runtimes do.
    private func makeWorkingDirectory(_ filesystem: borrowing RootFilesystem) throws {
        if plan.process.cwd == "/" { return }
        try withContext("process.cwd") {
            do throws(KernelError) {
                _ = try filesystem.root.makeDirectories(plan.process.cwd)
            } catch {
                // Through a descriptor (/proc/self/fd/7), or where nothing can be made: changing to it will tell.
                guard error.errno == EXDEV || error.errno == ELOOP || error.errno == EROFS || error.errno == EACCES
                else { throw error }
            }
        }
    }

    /// Waits for the word to go, and goes.
    private func execute(_ paths: [String]) throws -> Never {
        var process = plan.process
        if !process.env.contains(where: { $0.hasPrefix("HOME=") }) {
            let home = ProgramLookup.home(of: process.uid, in: try Root("/"))
            process.env.append("HOME=\(home)")
        }
        guard let startListener else {
            process.ignoredSignals = try channel.await(CS_GO).signals
            try runStartHooks(process)
            process.execute(paths, socket: channel.socket)
        }
        Self.endOnSignals()
        try channel.send(CS_READY)
        // Should the runtime be killed before its record tells of this process, nobody would find it.
        process.ignoredSignals = try channel.await(CS_PUBLISHED).signals | Self.polite.reduce(0) { $0 | 1 << ($1 - 1) }
        let connection = try UnixSocket.accept(startListener)
        do {
            try runStartHooks(process)
        } catch {
            try? Channel(socket: connection.raw).send(CS_FAILED, "\(error)")
            _exit(1)
        }
        process.execute(paths, socket: connection.raw)
    }

    /// The first process of a pid namespace is deaf to signals that it does not handle; until the program is there, a
    /// polite request to end shall work.
    private static func endOnSignals() {
        for number in polite { signal(number) { _exit(128 + $0) } }
    }

    private static let polite = [SIGTERM, SIGINT, SIGHUP, SIGQUIT]

    private func runStartHooks(_ process: ProcessPlan) throws {
        if plan.hooks.startContainer.isEmpty { return }
        var state = plan.hookState
        state.status = .created
        state.pid = getpid()
        try Hooks.runInContainer(plan.hooks.startContainer, state: state, process: process)
    }
}
