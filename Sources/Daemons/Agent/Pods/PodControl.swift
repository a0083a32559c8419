import AgentCore
import Cgroups
import Kernel
import Model
import Reactor
import ShimProtocol
import Synchronization
import Wire

extension PodExecutor {
    package func signal(_ assignment: TaskAssignment, signal: String) async throws(ExecutorFailure) {
        try await explaining("cannot signal container \(assignment.instanceName)") {
            let number = try await number(of: signal, assignment)
            let container = try Self.container(of: assignment)
            try await shim(of: assignment.task).call(
                .signal(container: container.text, signal: number, all: false), patience: .seconds(30))
        }
    }

    /// Tells the container's terminal its size.
    func resize(_ assignment: TaskAssignment, columns: UInt16, rows: UInt16) async throws(ExecutorFailure) {
        try await explaining("cannot resize the terminal of container \(assignment.instanceName)") {
            let container = try Self.container(of: assignment)
            try await shim(of: assignment.task).call(
                .resize(container: container.text, columns: columns, rows: rows), patience: .seconds(30))
        }
    }

    /// The signal that was named, or what spec or image choose, or SIGTERM.
    func number(of name: String, _ assignment: TaskAssignment) async throws -> Int32 {
        var text = name
        if text.isEmpty { text = assignment.pod.containers.first?.stopSignal ?? "" }
        if text.isEmpty {
            let task = paths.task(assignment.task)
            text = try await pool.run { try PodFile.read(task)?.image.stopSignal ?? "" }
        }
        if text.isEmpty { return Int32(SignalName.terminate.number) }
        guard let signal = SignalName(text) else {
            // An image may say anything; a user's own word was checked at admission.
            if name.isEmpty { return Int32(SignalName.terminate.number) }
            throw ExecutorFailure("there is no signal \(text)")
        }
        return Int32(signal.number)
    }

    package func kill(_ assignment: TaskAssignment) async throws(ExecutorFailure) {
        try await explaining("cannot kill container \(assignment.instanceName)") {
            try await killCgroup(assignment.task)
        }
    }

    /// Kills everything in the task's cgroup, frozen or not.
    func killCgroup(_ task: TaskID) async throws {
        let group = try cgroup(of: task)
        try await pool.run { if group.exists() { try group.kill() } }
    }

    /// Has a container's processes stand still for an image of it, until all who wanted that have called `letGo`. Blocks.
    ///
    /// - Returns: false where nothing runs.
    func holdStill(_ task: TaskID) throws -> Bool {
        let group = try cgroup(of: task)
        guard group.exists() else { return false }
        frozen.withLock { $0[task, default: 0] += 1 }
        do {
            try group.freeze()
        } catch {
            try? letGo(task)
            throw error
        }
        return true
    }

    /// Blocks. A pause that somebody wanted meanwhile has failed, since it stood still already, and is tried again.
    func letGo(_ task: TaskID) throws {
        let group = try cgroup(of: task)
        try frozen.withLock { frozen in
            let others = (frozen[task] ?? 1) - 1
            frozen[task] = others > 0 ? others : nil
            guard others <= 0, table[task]?.container.state != .paused, group.exists(), try group.isFrozen() else {
                return
            }
            try group.thaw()
        }
    }

    /// Has processes go on that something else than a pause holds.
    func thaw(_ task: TaskID) async throws {
        let group = try cgroup(of: task)
        try await pool.run { if group.exists(), try group.isFrozen() { try group.thaw() } }
    }

    package func pause(_ assignment: TaskAssignment) async throws(ExecutorFailure) {
        try await explaining("cannot pause container \(assignment.instanceName)") {
            let container = try Self.container(of: assignment)
            let answer = try await shim(of: assignment.task).call(.state, patience: .seconds(30))
            if answer.containers?.contains(where: { $0.container == container.text && $0.status == .paused }) == true {
                return
            }
            try await shim(of: assignment.task).call(.pause(container: container.text), patience: .seconds(30))
        }
    }

    package func resume(_ assignment: TaskAssignment) async throws(ExecutorFailure) {
        try await explaining("cannot resume container \(assignment.instanceName)") {
            let container = try Self.container(of: assignment)
            let answer = try await shim(of: assignment.task).call(.state, patience: .seconds(30))
            if answer.containers?.contains(where: { $0.container == container.text && $0.status == .running }) == true {
                return
            }
            try await shim(of: assignment.task).call(.resume(container: container.text), patience: .seconds(30))
        }
    }

    static func container(of assignment: TaskAssignment) throws(ExecutorFailure) -> ContainerID {
        guard let container = assignment.containers.first else { throw ExecutorFailure("the task has no container") }
        return container
    }
}
