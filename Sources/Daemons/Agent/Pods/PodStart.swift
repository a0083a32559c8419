import AgentCore
import Cgroups
import Glibc
import Images
import JSON
import Kernel
import Logging
import Model
import OCISpec
import Reactor
import ShimProtocol
import Synchronization
import Wire

extension PodExecutor {
    package func start(
        _ assignment: TaskAssignment, start: Int
    ) async throws(ExecutorFailure) -> StartedContainer {
        let doing = "cannot start container \(assignment.instanceName)"
        do {
            return try await tryStart(assignment, start)
        } catch  where Task.isCancelled {
            // The daemon is ending: what there is lives on, and its successor takes it over.
            throw ExecutorFailure(error, doing)
        } catch {
            // Nothing of a failed start may run on.
            await clearStart(assignment)
            throw ExecutorFailure(error, doing)
        }
    }

    private func tryStart(_ assignment: TaskAssignment, _ start: Int) async throws -> StartedContainer {
        let task = paths.task(assignment.task)
        guard let container = assignment.containers.first, let spec = assignment.pod.containers.first else {
            throw ExecutorFailure("the task has no container")
        }
        if let exit = try await pool.run({ try Self.exitRecord(task, start) }) {
            tell(.exited(assignment.task, ContainerExit(exit)))
            return StartedContainer(pid: Int(exit.pid), startedAt: exit.startedAt)
        }
        try await provideSecrets(assignment, spec)
        // Nobody else runs there any more when it starts.
        if !assignment.grantedProcessors.isEmpty { await alignProcessors { [table] in table.all } }
        let (opened, isOther) = try await pool.run { try self.writeBundle(assignment, spec, task) }
        try await ensureShim(task, leased: assignment.pod.stopAfter != nil)
        failpoint("agent.after_shim")
        let shim = shim(of: assignment.task)
        if isOther, try await (shim.call(.state).containers ?? []).contains(where: { $0.status == .created }) {
            // An agent that was killed had it made, as it was to be then.
            throw ExecutorFailure("it has been changed since it was made", isTransient: true)
        }
        let request = ShimCreate(
            container: container.text, start: start, bundle: task.bundle, terminal: spec.terminal, stdin: spec.stdin,
            stdinOnce: spec.stdinOnce, logPath: spec.logging.isKept ? task.log(container) : nil,
            logMaxBytes: spec.logging.maximumBytes ?? configuration.logMaxBytes,
            logMaxFiles: spec.logging.maximumFiles ?? configuration.logMaxFiles, exitPath: task.exit(start),
            cgroups: try cgroup(of: assignment.task).directories)
        var state = try await shim.call(.create(request)).container
        // The runtime has joined what it was to join, and bound what it was to bind.
        withExtendedLifetime(opened) {}
        failpoint("agent.after_clone")
        adopt(assignment.task, container, start: start)
        if state == nil || state?.status == .created {
            try await alignProcessors(of: assignment, isRestricted: opened.sharedProcessors != nil)
            await gate.open(assignment.task)
            // Last of all: nothing of the lease is spent on waiting, and nothing runs without it.
            try await prepareLease(assignment, state)
            state = try await shim.call(.start(container: container.text)).container
        }
        guard let state else { throw AgentError("the shim does not say what became of the container") }
        return StartedContainer(pid: Int(state.pid), startedAt: state.startedAt ?? state.createdAt)
    }

    /// Notes that a shim has the task's container, and has its events watched.
    func adopt(_ task: TaskID, _ container: ContainerID, start: Int) {
        let isNew = live.withLock { live in
            let known = live[task]
            live[task] = LiveTask(start: start, isWatched: true, isEnding: false)
            return known?.isWatched != true
        }
        if isNew { giveJob.yield(.watch(task, container)) }
    }

    /// Starts the task's shim unless it answers.
    ///
    /// - Parameter leased: it has to hold a lease. One of a version without leases is replaced, as nothing runs in it.
    private func ensureShim(_ task: TaskPaths, leased: Bool) async throws {
        let shim = ShimClient(socket: task.shimSocket)
        let unfit: String?
        do {
            let answer = try await shim.call(.hello, patience: .seconds(10))
            if !leased || answer.has(ShimProtocol.leases) { return }
            unfit = "it is of an older version without leases"
        } catch {
            // Where none listens there is none.
            unfit = error.kind == .unreachable ? nil : error.description
        }
        if let unfit {
            logger.warning("a shim is replaced", metadata: ["task": "\(task.id)", "why": "\(unfit)"])
            try await destroyShim(task)
        }
        let process = try await pool.run { [launcher] in try launcher.launch(task) }
        giveJob.yield(.reap(process))
        if leased, try await !shim.call(.hello, patience: .seconds(10)).has(ShimProtocol.leases) {
            throw ExecutorFailure(
                "onDisconnect: stopAfter is not supported by \(configuration.shimProgram), which is older than this "
                    + "agent: install martlet whole")
        }
    }

    private func clearStart(_ assignment: TaskAssignment) async {
        guard let container = assignment.containers.first else { return }
        do {
            try await shim(of: assignment.task).call(
                .delete(container: container.text, force: true), patience: .seconds(30))
        } catch {
            try? await destroyShim(paths.task(assignment.task))
            try? await killCgroup(assignment.task)
            await deleteRuntimeState(container)
        }
    }

    /// The durable record of how a start ended; nil when it has not. Blocks.
    static func exitRecord(_ task: TaskPaths, _ start: Int) throws -> ExitRecord? {
        let path = task.exit(start)
        guard File.exists(path) else { return nil }
        let record = try JSONCoding.decode(ExitRecord.self, from: File.read(path))
        return record.start == start ? record : nil
    }
}

extension ShimResponse {
    /// Whether the shim that says hello has a feature.
    fileprivate func has(_ feature: String) -> Bool { features?.contains(feature) == true }
}
