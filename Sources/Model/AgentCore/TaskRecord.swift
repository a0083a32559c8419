import JSON
import Model
import Wire

/// What an agent keeps of a task on disk, so that it knows after a crash what it was about.
///
/// It is written before the step that it announces: a start number stands here before that start may run, and a stop's
/// deadline before its signal is sent.
package struct TaskRecord: Sendable, Hashable, Codable {
    /// A stop that has begun and is not finished; it is carried on after a restart of the agent.
    package struct Stop: Sendable, Hashable, Codable {
        package enum Cause: String, Sendable, Hashable, Codable {
            /// A user wants it stopped.
            case user
            /// A user wants a new start.
            case restart
            /// Health checks failed.
            case unhealthy
            /// The task is to go.
            case removal
            /// There is no contact with the master.
            case lease
        }

        package var cause: Cause
        /// Name or number; empty: the container's own stop signal.
        package var signal: String
        /// Nanoseconds between the signal and SIGKILL.
        package var grace: Int64
        package var deadline: Timestamp
        /// The order that this stop carries out.
        package var order: StopOrder?
    }

    /// The version of this format: a newer one is refused.
    package static let currentSchema = 1

    package var schema: Int
    /// The last that the master said; its epoch guards against older ones.
    package var assignment: TaskAssignment
    /// What the pod that is there was made from, where `assignment` says something else since; nil: `assignment`.
    package var applied: TaskAssignment?
    /// What was tried since, and may be there in part.
    package var attempted: [TaskAssignment]?
    /// The boot of the machine in which `prepared` and the container are true.
    package var bootID: String
    /// Root file system, network and volumes are there.
    package var prepared: Bool
    /// The number of the newest start, from 1 on; 0: none yet.
    package var start: Int
    /// `start` has been given out and its outcome is not known yet.
    package var startPending: Bool
    /// The newest of the user's generations that was acted on.
    package var generation: Int
    package var stop: Stop?
    /// When the next attempt to start is due; nil: none is wanted.
    package var restartAt: Timestamp?
    /// Nanoseconds from the last end or failure to `restartAt`.
    package var delay: Int64
    /// Automatic restarts and failed attempts since it last ran for ten seconds.
    package var streak: Int
    /// It ended, or was never started, because a user wanted it stopped; when one wants it running again, it starts
    /// whatever its restart policy says.
    package var userStopped: Bool
    /// The last attempt to prepare or start failed.
    package var failed: Bool
    package var message: String
    package var addresses: [String]
    /// nil: of an earlier version, which had none.
    package var endpoints: [NetworkEndpoint]?
    /// This version's pods have one container.
    package var container: ContainerStatus
    package var servingSince: Timestamp?
    /// Nothing of the task is left on the node; kept until the master has taken note.
    package var removed: Bool

    /// The record of a task that has just been assigned.
    package init(_ assignment: TaskAssignment, bootID: String) {
        schema = Self.currentSchema
        self.assignment = assignment
        self.bootID = bootID
        prepared = false
        start = 0
        startPending = false
        generation = 0
        delay = 0
        streak = 0
        userStopped = false
        failed = false
        message = ""
        addresses = []
        container = ContainerStatus(
            name: assignment.pod.containers.first?.name ?? "main", id: assignment.containers.first ?? ContainerID(""))
        removed = false
    }

    /// Whether a container of it runs or is frozen.
    package var isLive: Bool { container.state == .running || container.state == .paused }
}

extension TaskRecord {
    /// What may be there of the pod while a change is under way: the newest attempt last but for what was before all of them.
    var changed: [TaskAssignment] { (attempted ?? []) + [applied].compactMap(\.self) }

    /// All that something of the pod may have been made from.
    package var assignments: [TaskAssignment] { [assignment] + changed }
}
