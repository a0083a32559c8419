import AgentCore
import Cgroups
import Kernel
import Model
import Reactor
import ShimProtocol
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
