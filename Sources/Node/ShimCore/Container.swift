import Glibc
import JSON
import Kernel
import ShimProtocol
import StreamFrames

/// One start of a container: its stdio, its state, and what happens when its process ends.
final class Container {
    let spec: ShimCreate
    let io: ProcessIO
    let pid: pid_t
    private let loop: EventLoop
    private let announce: (ShimEvent.Kind, Container) -> Void
    private let createdAt = Timestamp.now()
    private let oomKillsBefore: UInt64
    private var startedAt: Timestamp?
    private var status = ShimContainerStatus.created
    /// Set while the runtime's `start` runs: an end is announced after the start that it follows.
    private var isStarting = false
    private var ended: (status: ExitStatus, at: Timestamp)?
    private var isClosing = false
    private var exit: ExitRecord?
    private var startFailure: String?
    private var recordError: String?
    private var recordTimer: Int?
    private var waiters: [() -> Void] = []
    /// When its lease runs out, for whoever asks.
    var leaseUntil: Int64?
    /// Set when its lease has run out: when it gets SIGKILL (again), in milliseconds of CLOCK_BOOTTIME.
    private(set) var killAt: Int64?
    /// A runtime is at it.
    var isBeingKilled = false

    /// A container that the runtime has created; `announce` is called for every change but the creation.
    init(
        _ spec: ShimCreate, pid: pid_t, io: ProcessIO, loop: EventLoop,
        announce: @escaping (ShimEvent.Kind, Container) -> Void
    ) {
        self.spec = spec
        self.pid = pid
        self.io = io
        self.loop = loop
        self.announce = announce
        oomKillsBefore = OOMKills.count(in: spec.cgroups)
    }

    deinit { loop.cancel(recordTimer) }

    var state: ShimContainerState {
        ShimContainerState(
            container: spec.container, start: spec.start, status: status, pid: pid, createdAt: createdAt,
            startedAt: startedAt, exit: exit, leaseUntil: leaseUntil,
            logLinesLost: io.log.flatMap { $0.recordsLost == 0 ? nil : $0.recordsLost }, recordError: recordError)
    }

    /// There is a process, or its end is not announced yet.
    var isAlive: Bool { status.isAlive }
    var isCreated: Bool { status == .created && ended == nil }
    var isRunning: Bool { status == .running && ended == nil }
    var isPaused: Bool { status == .paused && ended == nil }
    var exitCode: Int32? { exit?.exitCode }
    /// Its program runs or is about to, frozen or not.
    var mayRun: Bool { isRunning || isPaused || isCreated && isStarting }
    var leaseRanOut: Bool { killAt != nil }

    /// Calls `body` once the exit is announced; at once if it is.
    func whenStopped(_ body: @escaping () -> Void) {
        if status == .stopped { body() } else { waiters.append(body) }
    }

    // MARK: Changes

    func startBegins() {
        isStarting = true
        startedAt = .now()
    }

    /// The runtime's `start` has come back, with its words if it failed.
    func startEnds(failure: String?) {
        isStarting = false
        if let failure {
            startedAt = nil
            startFailure = failure
        } else {
            status = .running
            announce(.started, self)
        }
        closeIfEnded()
    }

    func pauseEnds() {
        guard isRunning else { return }
        status = .paused
        announce(.paused, self)
    }

    func resumeEnds() {
        guard isPaused else { return }
        status = .running
        announce(.resumed, self)
    }

    /// It is being ended, and nothing changes that.
    func leaseEnds(killAt: Int64) { self.killAt = killAt }

    /// The process was reaped.
    func processEnded(_ exitStatus: ExitStatus) {
        ended = (exitStatus, .now())
        closeIfEnded()
    }

    /// Collects what the process left, makes it durable, then tells everybody.
    private func closeIfEnded() {
        guard let ended, !isStarting, !isClosing else { return }
        isClosing = true
        io.drain { [unowned self] in close(ended.status, at: ended.at) }
    }

    private func close(_ exitStatus: ExitStatus, at finishedAt: Timestamp) {
        var reason = startFailure.map { "it was not started: \($0)" }
        if leaseRanOut { reason = ExitRecord.leaseRanOut }
        if reason == nil, startedAt == nil { reason = "it ended before it was started" }
        let record = ExitRecord(
            container: spec.container, start: spec.start, pid: pid, exitCode: exitStatus.shellCode,
            signal: exitStatus.signal, oomKilled: OOMKills.count(in: spec.cgroups) > oomKillsBefore,
            startedAt: startedAt ?? createdAt, finishedAt: finishedAt, reason: reason)
        exit = record
        failpoint("shim.before_exit_record")
        write(record)
        failpoint("shim.after_exit_record")
        status = .stopped
        announce(.exited, self)
        for connection in io.detachAll() {
            connection.send(.exit(record.exitCode))
            connection.finish()
        }
        let waiting = waiters
        waiters = []
        for body in waiting { body() }
    }

    /// Puts the record on disk. While the disk refuses it, it lives here, and is tried again.
    private func write(_ record: ExitRecord) {
        do {
            try File.replace(spec.exitPath, with: JSONCoding.encode(record))
            recordError = nil
        } catch {
            recordError = "\(error)"
            recordTimer = loop.after(milliseconds: ShimLimits.recordRetryMilliseconds) { [unowned self] in
                write(record)
            }
        }
    }
}

/// The kernel's count of processes killed for lack of memory in a cgroup.
enum OOMKills {
    /// The largest count found in any of the directories, on v2 in memory.events and on v1 in memory.oom_control; 0
    /// where there is none.
    static func count(in directories: [String]) -> UInt64 {
        var result: UInt64 = 0
        for directory in directories {
            for file in ["memory.events", "memory.oom_control"] {
                guard let text = try? File.text("\(directory)/\(file)") else { continue }
                for line in text.split(separator: "\n") where line.hasPrefix("oom_kill ") {
                    result = max(result, UInt64(line.dropFirst("oom_kill ".utf8.count)) ?? 0)
                }
            }
        }
        return result
    }
}

/// The place of a container in the shim, through all its starts. Operations that change it run one after another.
final class ContainerSlot {
    var container: Container? { didSet { container?.leaseUntil = lease?.until } }
    var lease: ShimLease? { didSet { container?.leaseUntil = lease?.until } }
    private var waiting: [(@escaping () -> Void) -> Void] = []
    private var isBusy = false

    /// Nothing is there and nothing is under way.
    var isVacant: Bool { container == nil && !isBusy && waiting.isEmpty }

    /// Runs `operation` after those before it; it calls the closure it gets when it is done.
    func perform(_ operation: @escaping (_ done: @escaping () -> Void) -> Void) {
        waiting.append(operation)
        next()
    }

    private func next() {
        guard !isBusy, !waiting.isEmpty else { return }
        isBusy = true
        waiting.removeFirst()({ [self] in
            isBusy = false
            next()
        })
    }
}
