import CKernel
import CProtect
import CStage
import Cgroups
import Confinement
import DeviceNodes
import Glibc
import JSON
import Kernel
import OCISpec

/// What `create` and `run` are told on the command line.
struct LaunchOptions {
    var id: ContainerID
    /// Absolute.
    var bundle: String
    var consoleSocket: String?
    var pidfdSocket: String?
    var pidFile: String?
    var newKeyring: Bool
    var noPivot: Bool
    var keptDescriptors: Int32
    /// Environment for the first process that tells it about passed descriptors.
    var activation: [String]
    /// Execute the program at once (`run`) instead of waiting for `start`.
    var startsAtOnce: Bool
    /// The caller stays and relays a terminal.
    var foreground: Bool
    /// systemd makes the cgroup.
    var systemdCgroup = false
    var rootless: Rootless
}

/// A container whose process exists.
struct LaunchedContainer: ~Copyable {
    let process: ChildProcess
    let record: ContainerRecord
    /// The main side of its terminal, unless it went to a console socket.
    let terminal: SharedFD?
    /// What the container says to `$NOTIFY_SOCKET`; nil without that, and until it is started.
    let notify: NotifyRelay?
}

/// Makes containers: the runtime's side.
struct Launcher {
    let store: StateStore
    let log: RuntimeLog
    let options: LaunchOptions

    /// Makes the container; with `startsAtOnce` its program runs on return.
    ///
    /// Nothing is left behind when it fails.
    func launch() throws -> LaunchedContainer {
        var spec = try loadSpec()
        let notify = NotifySocket(store, options.id)
        if let notify { spec.mounts.append(notify.mount) }
        try checkTerminal(spec)
        try options.rootless.check(spec)
        let cgroup = try options.rootless.cgroup(spec, id: options.id, systemd: options.systemdCgroup)
        var filter = Filter()
        if let seccomp = spec.linux?.seccomp { filter = try Filter(seccomp, cache: store.filters, log: log) }
        let rules = try DeviceRules.of(spec.linux?.resources)
        var plan = try ContainerPlan(
            spec,
            ContainerPlan.Request(
                id: options.id, bundle: options.bundle, cgroup: cgroup, newKeyring: options.newKeyring,
                noPivot: options.noPivot, keptDescriptors: options.keptDescriptors),
            filter: filter, log: log)
        let control = try spec.linux?.intelRdt.map { try ContainerResourceControl($0, id: options.id) }
        plan.process.env += options.activation
        if notify != nil { plan.process.env += NotifySocket.environment }
        if options.foreground, plan.terminal { plan.consoleSize = TerminalRelay.callersSize() ?? plan.consoleSize }
        try cgroup.manager.requireVacant()

        let listener = try spec.linux?.seccomp.flatMap { try SeccompListener($0) }
        let lock = try store.create(options.id)
        var record = self.record(spec, plan, filter, listener)
        record.resourceControl = control
        var cleanup = Cleanup(store: store, record: record)
        var holder: ScopeHolder?
        do {
            failpoint("runtime.after_directory")
            try store.write(record)
            try notify?.prepare()
            let relay = try options.startsAtOnce ? notify?.listen() : nil
            if !filter.bytes.isEmpty { try store.write(filter: filter.bytes, of: options.id) }
            failpoint("runtime.before_cgroup")
            if let scope = cgroup.scope {
                let limits = spec.linux?.resources.map { CgroupResources($0) }
                holder = try ScopeHolder(
                    scope, id: options.id, annotations: spec.annotations,
                    oomPolicy: limits.flatMap { SystemdScope.OOMPolicy($0) }, lock: lock.raw)
            }
            let group = ContainerGroup(record: cgroup, spec: spec, rules: rules, log: log)
            try group.prepare(&cleanup.hasCgroup)
            if let control {
                try control.create()
                cleanup.resourceControl = control
            }
            return try start(plan, &record, &cleanup, lock, relay, group) {
                guard let holder else { return }
                // Where it counted, a group of one process would have no place for the container's.
                holder.end()
                try group.limitProcesses()
            }
        } catch {
            holder?.end()
            cleanup.run(log: log)
            throw error
        }
    }

    private func loadSpec() throws -> ContainerSpec {
        let path = "\(options.bundle)/config.json"
        let bytes: [UInt8]
        do throws(KernelError) {
            bytes = try File.readRegular(path, limit: JSONLimits.standard.bytes)
        } catch {
            guard error.errno == ENOENT else { throw error }
            throw RuntimeError("JSON specification file \(path) not found; make one with 'martlet-runtime spec'")
        }
        let spec = try withContext(path) { try ContainerSpec(parsing: bytes) }
        try Validation.check(spec)
        return spec
    }

    private func checkTerminal(_ spec: ContainerSpec) throws {
        let terminal = spec.process?.terminal ?? false
        if terminal && !options.foreground && options.consoleSocket == nil {
            throw RuntimeError("process.terminal is true: a detached container needs --console-socket")
        }
        if options.consoleSocket != nil && (!terminal || options.foreground) {
            throw RuntimeError("--console-socket needs process.terminal, and 'create' or 'run --detach'")
        }
    }

    private func record(
        _ spec: ContainerSpec, _ plan: ContainerPlan, _ filter: Filter, _ listener: SeccompListener?
    ) -> ContainerRecord {
        ContainerRecord(
            ociVersion: spec.ociVersion, id: options.id, bundle: options.bundle, rootfs: plan.rootfs,
            created: .now(), annotations: spec.annotations, cgroup: plan.cgroup,
            namespaces: (spec.linux?.namespaces.map(\.type) ?? [])
                .filter { $0 != .user || plan.namespaces.changesUser },
            ownsPids: spec.linux?.namespace(.pid).map { $0.path == nil } ?? false,
            process: spec.process ?? ProcessSpec(args: []),
            poststart: plan.hooks.poststart, poststop: plan.hooks.poststop,
            seccompFlags: filter.bytes.isEmpty ? nil : filter.flags, seccompListener: listener,
            personality: spec.linux?.personality, memoryPolicy: spec.linux?.memoryPolicy)
    }

    private func start(
        _ plan: ContainerPlan, _ record: inout ContainerRecord, _ cleanup: inout Cleanup,
        _ lock: borrowing StateLock, _ relay: NotifyRelay?, _ group: ContainerGroup,
        entered afterEntry: () throws -> Void
    ) throws -> LaunchedContainer {
        var plan = plan
        try plan.openBindSources()
        let listener =
            options.startsAtOnce
            ? nil : SharedFD(try UnixSocket.listen(store.startSocket(options.id), kind: .packets, backlog: 1))
        let console = try options.consoleSocket.map { path in
            try withContext("--console-socket") { SharedFD(try UnixSocket.connect(path)) }
        }
        let pidfdSocket = try PidfdSocket(options.pidfdSocket)
        let cgroupFile = try SharedFD(optional: plan.cgroup.manager.unifiedDescriptor())
        let sockets = try UnixSocket.pair(.packets)
        try Rootless.letMapsBeWritten(true)
        // Others in a pid namespace would see the process from its beginning.
        if !plan.namespaces.makesPids { cp_unmount_program() }
        guard let entered = try plan.namespaces.enter(sockets, cgroup: cgroupFile?.raw ?? -1) else {
            close(lock.raw)
            cp_unmount_program()
            ContainerStage(
                plan: plan, channel: Channel(socket: sockets.far.raw), startListener: listener?.raw,
                consoleSocket: console?.raw
            ).run()
        }
        // The two have as much to do until they meet at the groups.
        if group.isWaitedFor { cs_leave_processor(entered.pid) }
        cleanup.pidfd = SharedFD(try entered.pidfd.duplicate())
        cleanup.isSettingUp = !group.isWaitedFor
        failpoint("runtime.after_clone")
        try afterEntry()
        let near = SharedFD(try sockets.near.duplicate())
        _ = consume sockets
        return try accompany(
            entered, plan, &record, &cleanup, Channel(socket: near.raw), near, relay, group, pidfdSocket)
    }

    /// Does the runtime's part while the child does its own, until the child is ready (or the program runs).
    private func accompany(
        _ entered: consuming EnteredProcess, _ plan: ContainerPlan, _ record: inout ContainerRecord,
        _ cleanup: inout Cleanup, _ channel: Channel, _ socket: SharedFD, _ relay: NotifyRelay?,
        _ group: ContainerGroup, _ pidfdSocket: PidfdSocket?
    ) throws -> LaunchedContainer {
        let process = ChildProcess(pid: entered.pid, pidfd: entered.pidfd)
        var supervisor = Supervisor(channel: channel, plan: plan, log: log)
        record.pid = process.pid
        try supervisor.explainingEnd(of: process) {
            guard let stat = try Proc.stat(process.pid) else {
                throw RuntimeError("the container's process is gone")
            }
            record.startTime = stat.startTime
        }
        if plan.namespaces.makesUser {
            try plan.namespaces.idMap.write(to: process.pid)
        }
        if let score = record.process.oomScoreAdj {
            try supervisor.explainingEnd(of: process) { try Self.setOOMScore(Int(score), of: process.pid) }
        }
        try Rootless.letMapsBeWritten(false)
        if let control = record.resourceControl {
            try supervisor.explainingEnd(of: process) { try control.add(process.pid) }
        }
        if plan.namespaces.makesUser { try supervisor.tell(CS_MAPPED) }
        try group.complete(&cleanup.hasCgroup)
        failpoint("runtime.after_cgroup")
        let entrance = try group.entrance()
        for first in stride(from: 0, to: entrance.count, by: Int(CS_MOST_DESCRIPTORS)) {
            try supervisor.tell(
                CS_GROUPS, descriptors: entrance[first...].prefix(Int(CS_MOST_DESCRIPTORS)).map(\.raw))
        }
        cs_use_all_processors()
        cleanup.isSettingUp = true
        cp_unmount_program()
        // Nobody learns of a process that is still in namespaces of the host's.
        try supervisor.follow(process, until: CS_ENTERED)
        try pidfdSocket?.send(process.pidfd.raw, "standard")
        supervisor.state = record.state(.creating)
        supervisor.listener = record.seccompListener
        failpoint("runtime.after_maps")
        if options.startsAtOnce {
            if supervisor.isNeeded { try supervisor.follow(process, until: CS_HOOKS) }
            try publish(record)
            failpoint("runtime.published")
            try supervisor.tellToGo(CS_GO)
            try supervisor.follow(process, until: nil)
            try Hooks.run(plan.hooks.poststart, .poststart, state: record.state(.running))
        } else {
            try supervisor.follow(process, until: CS_READY)
            failpoint("runtime.before_publish")
            try publish(record)
            failpoint("runtime.published")
            try supervisor.tellToGo(CS_PUBLISHED)
        }
        failpoint("runtime.created")
        return LaunchedContainer(
            process: process, record: record, terminal: supervisor.terminal, notify: relay)
    }

    private func publish(_ record: ContainerRecord) throws {
        try store.write(record)
        if let path = options.pidFile { try PidFile.write(record.pid, to: path) }
    }

    static func setOOMScore(_ score: Int, of pid: pid_t) throws {
        let procfs = try File.open("/proc", Int32(CK_O_PATH) | O_DIRECTORY)
        try withContext("process.oomScoreAdj") {
            try OOMScoreAdjustment.set(score, of: String(pid), procfs: procfs.raw)
        }
    }
}

/// Undoes a launch that failed.
private struct Cleanup {
    let store: StateStore
    let record: ContainerRecord
    var hasCgroup = false
    var resourceControl: ContainerResourceControl?
    var pidfd: SharedFD?
    /// The container's groups are there, and its process makes the rest.
    var isSettingUp = false

    /// Also runs the poststop hooks, once the process sets the container up: other hooks may have run, and what they made
    /// has to be undone (the specification's lifecycle, which goes on with them when a hook fails).
    func run(log: RuntimeLog) {
        // What could not be removed is `delete`'s, which runs them then.
        if undo(log), isSettingUp { record.runPoststop(log) }
    }

    private func undo(_ log: RuntimeLog) -> Bool {
        cs_use_all_processors()
        do {
            if let pidfd {
                _ = ck_pidfd_send_signal(pidfd.raw, SIGKILL)
                var code: Int32 = 0
                var status: Int32 = 0
                _ = ck_waitid_pidfd(pidfd.raw, WEXITED, &code, &status)
            }
            let manager = record.cgroup.manager
            if hasCgroup && !record.ownsPids { try manager.kill() }
            if hasCgroup { try record.cgroup.remove() }
            try resourceControl?.remove()
            try store.remove(record.id)
            return true
        } catch {
            log.write(.warning, "cleaning up after a failure: \(error)")
            return false
        }
    }
}

/// The file that `--pid-file` names: it appears with its content.
enum PidFile {
    static func write(_ pid: pid_t, to path: String) throws {
        let slash = path.lastSlash
        let directory = slash.map { String(path[...$0]) } ?? ""
        let name = slash.map { String(path[path.utf8.index(after: $0)...]) } ?? path
        let temporary = "\(directory).\(name)"
        let file = try File.open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, mode: 0o666)
        try file.writeAll(Array(String(pid).utf8), subject: temporary)
        try systemCall("rename", path) { rename(temporary, path) }
    }
}
