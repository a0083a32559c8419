import JSON
import Model
import Wire

/// Something that happened to an agent.
package enum AgentEvent: Sendable {
    /// The first event of a process: the records found on disk, with what the executor found of each, and the newest
    /// epochs of instances whose tasks were forgotten.
    case recovered([RecoveredTask], bootID: String, epochs: [InstanceID: Int] = [:])
    /// The master's whole list. What the agent has beyond it is removed.
    case assignments([TaskAssignment])
    /// A change of the master's list.
    case assigned(TaskAssignment)
    /// The master has dropped the task from its list.
    case unassigned(TaskID)
    /// The agent is registered with the master; a full report follows.
    case connected
    case disconnected
    /// The master has confirmed something that was sent at this time: a heartbeat, say.
    case contact(at: Timestamp)
    case reported(sequence: Int)
    case reportFailed(sequence: Int)
    case prepared(TaskID, Result<PreparedPod, ExecutorFailure>)
    case started(TaskID, start: Int, Result<StartedContainer, ExecutorFailure>)
    /// A container ended, by itself or not. Where its executor lost sight of it, everything of it has been killed.
    case exited(TaskID, ContainerExit)
    /// A signal was delivered; nil, or why it was not.
    case signalled(TaskID, start: Int, ExecutorFailure?)
    /// All processes were sent SIGKILL; nil, or why not.
    case killed(TaskID, start: Int, ExecutorFailure?)
    case paused(TaskID, start: Int, ExecutorFailure?)
    case resumed(TaskID, start: Int, ExecutorFailure?)
    /// What runs is as its assignment says; nil, or why not.
    case updated(TaskID, ExecutorFailure?)
    /// A pod that is there has other networks or addresses than it had.
    case rewired(TaskID, PreparedPod)
    case removed(TaskID, ExecutorFailure?)
    case probed(TaskID, start: Int, ProbeOutcome)
    /// The task's record cannot be written, as the sentence says, and everything about it waits; nil: it goes on.
    case delayed(TaskID, String?)
    /// Time has passed.
    case tick
}

/// Why an executor could not do something.
package struct ExecutorFailure: Error, Sendable, Hashable, CustomStringConvertible {
    /// A sentence: what failed, on which object, why, what to do.
    package var message: String
    /// What a shell would report: 127 for a program that does not exist, 126 for one that cannot be run, 125 else.
    package var exitCode: Int
    /// It may pass by itself (a full disk, a full queue): retried whatever the restart policy says.
    package var isTransient: Bool

    package init(_ message: String, exitCode: Int = 125, isTransient: Bool = false) {
        self.message = message
        self.exitCode = exitCode
        self.isTransient = isTransient
    }

    package var description: String { message }
}

/// A pod whose root file system, network and volumes are there.
package struct PreparedPod: Sendable, Hashable {
    /// IPv4 first; empty with the host's network or none.
    package var addresses: [String]
    /// Where it is on each of its networks.
    package var endpoints: [NetworkEndpoint]

    package init(addresses: [String] = [], endpoints: [NetworkEndpoint] = []) {
        self.addresses = addresses
        self.endpoints = endpoints
    }
}

package struct StartedContainer: Sendable, Hashable {
    package var pid: Int
    package var startedAt: Timestamp

    package init(pid: Int, startedAt: Timestamp) {
        self.pid = pid
        self.startedAt = startedAt
    }
}

/// How a container ended.
package struct ContainerExit: Sendable, Hashable {
    package var start: Int
    /// 128 and the number when a signal ended it.
    package var exitCode: Int
    package var outOfMemory: Bool
    package var startedAt: Timestamp?
    package var finishedAt: Timestamp
    /// Why, when it was not the container's own doing: `shim lost`, `lease`; else empty.
    package var reason: String

    /// The reason of a container that its shim ended because the contact with the master was lost for longer than its
    /// `onDisconnect: stopAfter` allows.
    package static let lease = "lease"

    package init(
        start: Int, exitCode: Int, outOfMemory: Bool = false, startedAt: Timestamp? = nil, finishedAt: Timestamp,
        reason: String = ""
    ) {
        self.start = start
        self.exitCode = exitCode
        self.outOfMemory = outOfMemory
        self.startedAt = startedAt
        self.finishedAt = finishedAt
        self.reason = reason
    }
}

package enum ProbeOutcome: Sendable, Hashable {
    case success
    /// A sentence for people.
    case failure(String)
}

/// A record from disk and what is really there.
package struct RecoveredTask: Sendable, Hashable {
    package enum Container: Sendable, Hashable {
        /// Not a trace of the newest start.
        case none
        /// Made, but its program has not been started.
        case created(start: Int)
        case running(start: Int, StartedContainer, paused: Bool)
        case exited(ContainerExit)
    }

    package var record: TaskRecord
    /// nil: root file system, network or volumes are not (all) there.
    package var prepared: PreparedPod?
    package var container: Container

    package init(_ record: TaskRecord, prepared: PreparedPod?, container: Container) {
        self.record = record
        self.prepared = prepared
        self.container = container
    }
}
