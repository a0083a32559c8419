package import JSON

/// The shim's answer to what succeeded; a failure is an error frame.
package struct ShimResponse: Codable, Sendable, Equatable {
    /// Always true.
    package var ok = true
    /// `hello`: the shim's `ShimProtocol.version`.
    package var version: Int?
    /// `hello`: the shim's process.
    package var pid: Int32?
    /// `hello`: the task it was started for.
    package var task: String?
    /// `hello`: the shim's `ShimProtocol.features`; nil: none.
    package var features: [String]?
    /// `state`: all containers.
    package var containers: [ShimContainerState]?
    /// `state`: execs that run, and the latest that ended.
    package var execs: [ShimExecState]?
    /// The container after `create`, `start`, `signal`, `pause`, `resume`, `lease`, `release`, `resize`
    /// and `attach`.
    package var container: ShimContainerState?
    /// The process after `exec`.
    package var exec: ShimExecState?

    package init(
        version: Int? = nil, pid: Int32? = nil, task: String? = nil, features: [String]? = nil,
        containers: [ShimContainerState]? = nil, execs: [ShimExecState]? = nil, container: ShimContainerState? = nil,
        exec: ShimExecState? = nil
    ) {
        self.version = version
        self.pid = pid
        self.task = task
        self.features = features
        self.containers = containers
        self.execs = execs
        self.container = container
        self.exec = exec
    }
}

/// Where a container is in its life.
package enum ShimContainerStatus: String, Codable, Sendable, CaseIterable {
    /// Its process waits for `start`.
    case created
    case running
    case paused
    /// Its process has ended and its exit record is announced.
    case stopped

    /// There is a process.
    package var isAlive: Bool { self != .stopped }
}

/// A container as the shim knows it.
package struct ShimContainerState: Codable, Sendable, Equatable {
    /// The container's id.
    package var container: String
    /// The number of its start within its task.
    package var start: Int
    /// Where it is in its life.
    package var status: ShimContainerStatus
    /// The container's first process, in the shim's pid namespace; the number of a stopped one may be another's by now.
    package var pid: Int32
    /// When the runtime had made it.
    package var createdAt: Timestamp
    /// When its process was let go.
    package var startedAt: Timestamp?
    /// There when it is stopped.
    package var exit: ExitRecord?
    /// When its lease runs out or ran out, in milliseconds of CLOCK_BOOTTIME; nil: it needs none.
    package var leaseUntil: Int64?
    /// Lines of output that could not be logged, since the disk was full, say; absent when there are none.
    package var logLinesLost: UInt64?
    /// Why the exit record is not on disk yet; the shim keeps trying.
    package var recordError: String?

    package init(
        container: String, start: Int, status: ShimContainerStatus, pid: Int32, createdAt: Timestamp,
        startedAt: Timestamp? = nil, exit: ExitRecord? = nil, leaseUntil: Int64? = nil, logLinesLost: UInt64? = nil,
        recordError: String? = nil
    ) {
        self.container = container
        self.start = start
        self.status = status
        self.pid = pid
        self.createdAt = createdAt
        self.startedAt = startedAt
        self.exit = exit
        self.leaseUntil = leaseUntil
        self.logLinesLost = logLinesLost
        self.recordError = recordError
    }
}

/// A further process in a container.
package struct ShimExecState: Codable, Sendable, Equatable {
    /// The container's id.
    package var container: String
    /// The name given at its start.
    package var execID: String
    /// The process, in the shim's pid namespace.
    package var pid: Int32
    /// When it was started.
    package var startedAt: Timestamp
    /// There when it has ended.
    package var finishedAt: Timestamp?
    /// There when it has ended: its code, or 128 and the signal.
    package var exitCode: Int32?

    package init(
        container: String, execID: String, pid: Int32, startedAt: Timestamp, finishedAt: Timestamp? = nil,
        exitCode: Int32? = nil
    ) {
        self.container = container
        self.execID = execID
        self.pid = pid
        self.startedAt = startedAt
        self.finishedAt = finishedAt
        self.exitCode = exitCode
    }
}

/// How one start of a container ended. It is durable at `ShimCreate.exitPath` before anybody is told, unless the disk
/// refuses it (`ShimContainerState.recordError`).
package struct ExitRecord: Codable, Sendable, Equatable {
    /// The container's id.
    package var container: String
    /// The number of its start within its task.
    package var start: Int
    /// The process, in the shim's pid namespace.
    package var pid: Int32
    /// The process's code, or 128 and the signal.
    package var exitCode: Int32
    /// The signal that ended it.
    package var signal: Int32?
    /// The kernel killed a process of the container for lack of memory during this start.
    package var oomKilled: Bool
    /// When its process was let go; when it was created, if it ended before that.
    package var startedAt: Timestamp
    /// When its process was reaped.
    package var finishedAt: Timestamp
    /// What the code does not say, as a sentence; `leaseRanOut` is one.
    package var reason: String?

    /// The reason of a container that its shim ended because its lease ran out, see `ShimLease`.
    package static let leaseRanOut = "its lease ran out"

    package init(
        container: String, start: Int, pid: Int32, exitCode: Int32, signal: Int32? = nil, oomKilled: Bool = false,
        startedAt: Timestamp, finishedAt: Timestamp, reason: String? = nil
    ) {
        self.container = container
        self.start = start
        self.pid = pid
        self.exitCode = exitCode
        self.signal = signal
        self.oomKilled = oomKilled
        self.startedAt = startedAt
        self.finishedAt = finishedAt
        self.reason = reason
    }
}

/// A change, or with kind `state` all there is.
package struct ShimEvent: Codable, Sendable, Equatable {
    /// What happened. An open set: readers ignore kinds they do not know.
    package struct Kind: RawRepresentable, Codable, Sendable, Hashable {
        /// The name on the wire.
        package let rawValue: String
        /// A kind by its name on the wire.
        package init(rawValue: String) { self.rawValue = rawValue }

        /// The first event of a connection; `containers` has them all.
        package static let state = Kind(rawValue: "state")
        /// The runtime has made the container.
        package static let created = Kind(rawValue: "created")
        /// Its process was let go.
        package static let started = Kind(rawValue: "started")
        /// All its processes are frozen.
        package static let paused = Kind(rawValue: "paused")
        /// They go on.
        package static let resumed = Kind(rawValue: "resumed")
        /// Its process has ended and the exit record is written.
        package static let exited = Kind(rawValue: "exited")
        /// It is gone from runtime and shim.
        package static let deleted = Kind(rawValue: "deleted")
        /// A further process; `exec` has it.
        package static let execStarted = Kind(rawValue: "exec_started")
        /// A further process has ended.
        package static let execExited = Kind(rawValue: "exec_exited")
    }

    /// What happened.
    package var event: Kind
    /// When the shim noticed.
    package var at: Timestamp
    /// Of `state`: all containers.
    package var containers: [ShimContainerState]?
    /// The container after the change; of `deleted`, its last state.
    package var container: ShimContainerState?
    /// Of the exec kinds: the process.
    package var exec: ShimExecState?

    package init(
        _ event: Kind, at: Timestamp, containers: [ShimContainerState]? = nil, container: ShimContainerState? = nil,
        exec: ShimExecState? = nil
    ) {
        self.event = event
        self.at = at
        self.containers = containers
        self.container = container
        self.exec = exec
    }
}
