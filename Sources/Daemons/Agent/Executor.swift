import AgentCore
import Model
import StreamFrames
import Wire

/// What runs pods: the seam between an agent's decisions and its machine.
///
/// Everything about one task comes one after another, except probes, streams and statistics. Prepare, start and remove
/// may be repeated after a crash at any point of an earlier try, and leave nothing behind.
package protocol Executor: Sendable {
    /// What it can do, by name; nodes report it, and specs that need more are not placed here.
    var features: [String] { get }

    /// Serves until it is cancelled. `tell` takes the ends of containers, also those that it could not watch.
    func run(tell: @escaping @Sendable (AgentEvent) -> Void) async throws

    /// Finds what is there of each record, and removes whatever belongs to none.
    func recover(_ records: [TaskRecord]) async throws -> [RecoveredTask]

    /// Makes root file system, network and volumes.
    func prepare(_ assignment: TaskAssignment) async throws(ExecutorFailure) -> PreparedPod
    /// Starts the container of a prepared pod, unless this start number has been started already.
    func start(_ assignment: TaskAssignment, start: Int) async throws(ExecutorFailure) -> StartedContainer
    /// Sends a signal to the container's first process; empty: its own stop signal.
    func signal(_ assignment: TaskAssignment, signal: String) async throws(ExecutorFailure)
    /// Sends SIGKILL to all of it, also when it is frozen.
    func kill(_ assignment: TaskAssignment) async throws(ExecutorFailure)
    func pause(_ assignment: TaskAssignment) async throws(ExecutorFailure)
    func resume(_ assignment: TaskAssignment) async throws(ExecutorFailure)
    /// Brings limits and networks of what is there from what an earlier assignment said to what this one says.
    func update(_ assignment: TaskAssignment, previous: TaskAssignment) async throws(ExecutorFailure)
    /// Undoes everything; the logs go too.
    func remove(_ assignment: TaskAssignment) async throws(ExecutorFailure)
    func probe(_ assignment: TaskAssignment, _ check: HealthCheck) async -> ProbeOutcome

    /// Joins the container's stdio until its present start ends; before it is started (`isLive` false), so that the
    /// first byte is seen. The place is taken when this returns.
    func openAttach(
        _ assignment: TaskAssignment, _ options: AttachOptions, isLive: Bool
    ) async throws(ExecutorFailure) -> StreamSession
    /// Runs a further process in the running container.
    func openExec(_ assignment: TaskAssignment, _ request: ExecRequest) async throws(ExecutorFailure) -> StreamSession
    func stats(_ record: TaskRecord) async throws -> ContainerStats
    func processes(_ record: TaskRecord, _ columns: [ProcessColumn]) async throws -> ProcessList
}

/// Which of a container's streams a client joins.
package struct AttachOptions: Sendable, Hashable {
    package var stdin: Bool
    package var stdout: Bool
    package var stderr: Bool
}

/// What goes on over a client's stream, once it is open.
package struct StreamSession: Sendable {
    /// Returns when it is over.
    package let run: @Sendable (any ByteStream) async throws -> Void
}

/// Frames to and from a client.
package protocol ByteStream: Sendable {
    /// The next frame from the client; nil when it has closed its sending side. For one task at a time.
    func receive() async throws -> Frame?
    /// Waits while the client does not read.
    func send(_ frame: Frame) async throws
}
