import JSON
import Model
import Wire

/// Something for the shell around the core to do.
///
/// The effects of one task are carried out in the order in which they came, each after the one before it has ended;
/// those of different tasks are independent of each other. Probes and reports wait for nothing and hold nothing up.
package enum AgentEffect: Sendable, Hashable {
    /// Write the record so that it outlives the process, and with `sync` the machine.
    case persist(TaskRecord, sync: Bool)
    /// Drop the record and everything of the task that is still on disk.
    case forget(TaskID)
    /// Make root file system, network and volumes; harmless when they are there. → `prepared`
    case prepare(TaskAssignment)
    /// Start the container unless this start number has been started already. → `started`
    case start(TaskAssignment, start: Int)
    /// Send a signal to the container's first process; empty: its own stop signal. → `signalled`
    case signal(TaskAssignment, start: Int, signal: String)
    /// Send SIGKILL to everything in it. → `killed`
    case kill(TaskAssignment, start: Int)
    /// → `paused`
    case pause(TaskAssignment, start: Int)
    /// → `resumed`
    case resume(TaskAssignment, start: Int)
    /// Bring what is there from what an earlier assignment said to what this one says, see `PodSpec.changesInPlace`.
    /// Harmless when it is so already. → `updated`
    case update(TaskAssignment, previous: TaskAssignment)
    /// Undo everything that prepare and start made; harmless when nothing is there. → `removed`
    case remove(TaskAssignment)
    /// Ask for the container's health. → `probed`
    case probe(TaskAssignment, start: Int, HealthCheck)
    /// Post to the master. → `reported` or `reportFailed`
    case report(sequence: Int, full: Bool, [NodeReport.TaskReport], events: [TaskEvent])
    /// Send `tick` at this time, instead of at the one asked for before.
    case wake(at: Timestamp)

    /// The task whose effects it must stay in order with; nil: none.
    package var task: TaskID? {
        switch self {
        case .persist(let record, _): record.assignment.task
        case .forget(let task): task
        case .prepare(let assignment), .start(let assignment, _), .signal(let assignment, _, _),
            .kill(let assignment, _), .pause(let assignment, _), .resume(let assignment, _),
            .update(let assignment, _), .remove(let assignment):
            assignment.task
        case .probe, .report, .wake: nil
        }
    }
}

/// Something that a user may want to know of a container: `start`, `die`, `oom`, `health_status`, `stop`, `kill`, …
package struct TaskEvent: Sendable, Hashable {
    package var time: Timestamp
    package var action: String
    package var container: ContainerID
    package var name: String
    package var attributes: [String: String]

    /// The event as the API sends it.
    package var event: Event {
        Event(
            time: time, kind: "container", action: action, id: container.text, name: name, attributes: attributes)
    }
}
