import CKernel
import CProtect
import CStage
import Cgroups
import Glibc
import JSON
import Kernel
import OCISpec

/// What `exec` is told on the command line.
struct ExecutionOptions {
    var id: ContainerID
    var process: ProcessSpec
    var consoleSocket: String?
    var pidfdSocket: String?
    var pidFile: String?
    var detach: Bool
    var ignorePaused: Bool
    var keptDescriptors: Int32
    /// Where below the container's cgroup the process goes.
    var subgroups: CgroupSubgroups? = nil
}

/// Runs another process in a running container: the runtime's side.
struct Execution {
    let store: StateStore
    let log: RuntimeLog
    let record: ContainerRecord
    let options: ExecutionOptions

    /// - Returns: the exit status for the shell; 0 at once when detached.
    func run() throws -> Int32 {
        let status = try checkState()
        let terminal = options.process.terminal
        if terminal && options.detach && options.consoleSocket == nil {
            throw RuntimeError("a detached process with a terminal needs --console-socket")
        }
        if options.consoleSocket != nil && !(terminal && options.detach) {
            throw RuntimeError("--console-socket needs --tty and --detach")
        }
        var filter = Filter()
        if let flags = record.seccompFlags { filter = Filter(bytes: try store.readFilter(record.id), flags: flags) }
        var plan = try ProcessPlan(
            options.process, filter: filter, personality: record.personality, memoryPolicy: record.memoryPolicy,
            inUserNamespace: record.namespaces.contains(.user), log: log)
        plan.keptDescriptors = options.keptDescriptors
        let size = (options.detach ? nil : TerminalRelay.callersSize()) ?? options.process.consoleSize
        let first = SharedFD(try store.openProcess(record))
        let console = try options.consoleSocket.map { path in
            try withContext("--console-socket") { SharedFD(try UnixSocket.connect(path)) }
        }
        let pidfdSocket = try PidfdSocket(options.pidfdSocket)
        let foreground = options.detach ? nil : try Foreground()
        let manager = record.cgroup.manager
        let cgroup = try SharedFD(optional: manager.unifiedDescriptor(beside: record.pid, in: options.subgroups))
        let cgroupEntry = try manager.entry(in: options.subgroups)
        let sockets = try UnixSocket.pair(.packets)
        let namespaces = NamespacePlan(entering: first, record.namespaces)
        let affinity = try options.process.execCPUAffinity.map { try ProcessorAffinityPlan($0) }
        try affinity?.applyInitial()
        if geteuid() != 0, let score = options.process.oomScoreAdj {
            // The file of a process that may not be dumped is root's: what a user sets beforehand is passed on.
            try Rootless.letMapsBeWritten(true)
            try Launcher.setOOMScore(Int(score), of: getpid())
            try Rootless.letMapsBeWritten(false)
        }
        // The container's processes see this one's from its beginning.
        cp_unmount_program()
        guard let entered = try namespaces.enter(sockets, cgroup: cgroup?.raw ?? -1) else {
            ExecutionStage(
                plan: plan, cgroupEntry: cgroupEntry, affinity: affinity, channel: Channel(socket: sockets.far.raw),
                terminal: terminal, consoleSize: size, consoleSocket: console?.raw
            ).run()
        }
        failpoint("runtime.exec_after_clone")
        let near = SharedFD(try sockets.near.duplicate())
        _ = consume sockets
        let process = ChildProcess(pid: entered.pid, pidfd: try entered.pidfd.duplicate())
        let relayed: SharedFD?
        do {
            try pidfdSocket?.send(process.pidfd.raw, "setns")
            relayed = try accompany(process, plan, Channel(socket: near.raw), status)
        } catch {
            try? process.signal(SIGKILL)
            _ = try? process.wait()
            throw error
        }
        guard let foreground else { return 0 }
        return try foreground.wait(process, terminal: relayed).shellCode
    }

    private func checkState() throws -> RuntimeState.Status {
        let status = try store.status(record)
        switch status {
        case .stopped: throw RuntimeError("cannot exec in a stopped container")
        case .creating: throw RuntimeError("cannot exec in a container that is being created")
        case .paused where !options.ignorePaused:
            throw RuntimeError("cannot exec in a paused container (use --ignore-paused to override)")
        default: return status
        }
    }

    /// - Returns: the main side of the terminal, when it came to us.
    private func accompany(
        _ process: borrowing ChildProcess, _ plan: ProcessPlan, _ channel: Channel, _ status: RuntimeState.Status
    ) throws -> SharedFD? {
        var supervisor = Supervisor(channel: channel, process: plan, log: log)
        supervisor.state = record.state(status)
        supervisor.listener = record.seccompListener
        if geteuid() == 0, let score = options.process.oomScoreAdj {
            try supervisor.explainingEnd(of: process) { try Launcher.setOOMScore(Int(score), of: process.pid) }
        }
        if let control = record.resourceControl {
            try supervisor.explainingEnd(of: process) { try control.add(process.pid) }
        }
        if let path = options.pidFile { try PidFile.write(process.pid, to: path) }
        failpoint("runtime.exec_before_go")
        try supervisor.tellToGo(CS_GO)
        failpoint("runtime.exec_after_go")
        try supervisor.follow(process, until: nil)
        return supervisor.terminal
    }
}

/// What the new process does inside the container's namespaces, up to the program.
private struct ExecutionStage {
    let plan: ProcessPlan
    let cgroupEntry: CgroupEntry
    let affinity: ProcessorAffinityPlan?
    let channel: Channel
    let terminal: Bool
    let consoleSize: ConsoleSize?
    let consoleSocket: Int32?

    func run() -> Never {
        do {
            try cgroupEntry.enter()
            try affinity?.applyFinal()
            try systemCall("setsid") { setsid() }
            let root = try Root("/")
            if terminal {
                try ContainerTerminal.open(
                    in: root, size: consoleSize, owner: plan.uid, consoleNode: false
                ) { main in
                    try ContainerTerminal.send(main, to: consoleSocket, or: channel)
                }
            } else {
                ContainerTerminal.giveStandardIO(to: plan.uid)
            }
            var process = plan
            if !process.env.contains(where: { $0.hasPrefix("HOME=") }) {
                process.env.append("HOME=\(ProgramLookup.home(of: process.uid, in: root))")
            }
            try process.attributes.apply()
            let paths = try ProgramLookup.candidates(
                process.args[0], environment: process.env, directory: process.cwd)
            process.ignoredSignals = try channel.await(CS_GO).signals
            process.execute(paths, socket: channel.socket)
        } catch {
            try? channel.send(CS_FAILED, "\(error)")
            _exit(1)
        }
    }
}
