import AgentCore
import Cgroups
import JSON
import Kernel
import Logging
import Model
import Networking
import Reactor
import ShimProtocol
import Wire

extension PodExecutor {
    package func recover(_ records: [TaskRecord]) async throws -> [RecoveredTask] {
        await removeLeftovers(keeping: records)
        var found: [RecoveredTask] = []
        for record in records {
            found.append(try await recover(record))
        }
        // Who had processors alone may have gone while no agent was there.
        let recovered = found.map(\.record)
        await alignProcessors { recovered }
        return found
    }

    private func recover(_ record: TaskRecord) async throws -> RecoveredTask {
        let task = paths.task(record.assignment.task)
        guard !record.removed else { return RecoveredTask(record, prepared: nil, container: .none) }
        guard record.bootID == bootID else {
            // Of another boot nothing is left that could run, nothing is mounted, and ends are known from the disk only.
            let exit = try await pool.run { try? Self.exitRecord(task, record.start) }
            return RecoveredTask(record, prepared: nil, container: exit.map { .exited(ContainerExit($0)) } ?? .none)
        }
        let prepared = try await pool.run { try self.checkPreparation(record.assignment, task) }
        return RecoveredTask(record, prepared: prepared, container: try await recoverContainer(record, task))
    }

    /// What preparation made, if all of it is still there. Blocks.
    private func checkPreparation(_ assignment: TaskAssignment, _ task: TaskPaths) throws -> PreparedPod? {
        guard let pod = try? PodFile.read(task), pod.bootID == bootID else { return nil }
        let mounted = Set(try MountInfo.read().map(\.mountPoint))
        guard mounted.contains(task.rootfs) else { return nil }
        let hasNamespace = assignment.pod.network != .host && assignment.pod.network != .container
        if hasNamespace, !mounted.contains(task.namespace) { return nil }
        return pod.pod
    }

    private func recoverContainer(_ record: TaskRecord, _ task: TaskPaths) async throws -> RecoveredTask.Container {
        let container = record.container.id
        do {
            let answer = try await shim(of: task.id).call(.state, patience: .seconds(10))
            guard let state = answer.containers?.first(where: { $0.container == container.text }) else {
                let exit = try await pool.run { try? Self.exitRecord(task, record.start) }
                return exit.map { .exited(ContainerExit($0)) } ?? .none
            }
            adopt(task.id, container, start: state.start)
            // What its shim has not paused was frozen by an agent that died while it made an image of it.
            if state.status == .running {
                do {
                    try await thaw(task.id)
                } catch {
                    logger.error("a container stays frozen", metadata: ["task": "\(task.id)", "error": "\(error)"])
                }
            }
            return RecoveredTask.Container(state)
        } catch is ShimError {
            return try await recoverLost(record, task)
        }
    }

    /// The shim is gone: nothing of the container may run on, and its end is on record or unknown.
    private func recoverLost(_ record: TaskRecord, _ task: TaskPaths) async throws -> RecoveredTask.Container {
        let container = record.container.id
        let leftTrace = File.exists("\(paths.runtime)/\(container)")
        try await destroyShim(task)
        try await killCgroup(task.id)
        await deleteRuntimeState(container)
        if let exit = try await pool.run({ try? Self.exitRecord(task, record.start) }) {
            return .exited(ContainerExit(exit))
        }
        guard leftTrace else { return .none }
        return .exited(
            ContainerExit(start: record.start, exitCode: 137, finishedAt: Timestamp.now(), reason: "shim lost"))
    }

    // MARK: Leftovers

    /// Removes what belongs to no record. What cannot be removed is logged; the agent starts all the same.
    private func removeLeftovers(keeping records: [TaskRecord]) async {
        let tasks = Set(records.map(\.assignment.task))
        let containers = Set(records.flatMap(\.assignment.containers).map(\.text))
        await removing("shims") {
            for task in try Self.names(paths.shims).map({ TaskID($0) }) where !tasks.contains(task) {
                try await destroyShim(paths.task(task))
            }
        }
        await removing("cgroups") {
            for task in try taskCgroups() where !tasks.contains(task) {
                let group = try cgroup(of: task)
                try await pool.run {
                    try group.kill()
                    try group.delete()
                }
            }
        }
        await removing("runtime states") {
            for container in try Self.names(paths.runtime) where !containers.contains(container) {
                await deleteRuntimeState(ContainerID(container))
            }
        }
        let living = Set(records.filter { !$0.removed }.map(\.assignment.task.text))
        await removing("networks") {
            let problems = try await pool.run { self.collectNetworkGarbage(living: living) }
            for problem in problems {
                logger.warning("a network's leftover stays", metadata: ["error": "\(problem)"])
            }
        }
        await removing("secrets") {
            try await pool.run { try self.removeSecrets(exceptOf: Set(living.map { TaskID($0) })) }
        }
        await removing("directories") {
            for task in try Self.names(paths.tasks).map({ TaskID($0) }) where !tasks.contains(task) {
                let directory = paths.task(task).directory
                try await pool.run {
                    try Mounts.detachAll(below: [directory])
                    try Tree.remove(directory)
                }
            }
        }
    }

    private func removing(_ what: String, _ body: () async throws -> Void) async {
        do {
            try await body()
        } catch {
            logger.error("leftovers stay behind", metadata: ["what": "\(what)", "error": "\(error)"])
        }
    }

    private static func names(_ directory: String) throws -> [String] {
        File.exists(directory) ? try File.list(directory).sorted() : []
    }

    /// Tasks that have a cgroup in some hierarchy.
    private func taskCgroups() throws -> Set<TaskID> {
        var tasks: Set<TaskID> = []
        for hierarchy in cgroups.hierarchies {
            let parent = "\(hierarchy.mountPoint)/\(configuration.cgroupParent)"
            for name in try Self.names(parent) where name != "shims" && !name.contains(".") && Self.isTask(name) {
                tasks.insert(TaskID(name))
            }
        }
        return tasks
    }

    /// Ids are 25 lower-case letters and digits: control files and groups of others are left alone.
    private static func isTask(_ name: String) -> Bool {
        name.utf8.count == 25
            && name.utf8.allSatisfy {
                (UInt8(ascii: "a")...UInt8(ascii: "z")).contains($0)
                    || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0)
            }
    }
}

extension RecoveredTask.Container {
    init(_ state: ShimContainerState) {
        let started = StartedContainer(pid: Int(state.pid), startedAt: state.startedAt ?? state.createdAt)
        switch state.status {
        case .created: self = .created(start: state.start)
        case .running: self = .running(start: state.start, started, paused: false)
        case .paused: self = .running(start: state.start, started, paused: true)
        case .stopped:
            self = state.exit.map { .exited(ContainerExit($0)) } ?? .none
        }
    }
}
