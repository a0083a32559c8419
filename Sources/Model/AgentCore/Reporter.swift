import JSON
import Model
import Wire

/// What the master has been told and what it is still to be told; one report is under way at a time.
struct Reporter: Sendable {
    /// Events kept while the master cannot be reached; the oldest go first.
    static let eventLimit = 1000

    private(set) var isConnected = false
    private var needsFull = false
    private var sequence = 0
    private var inFlight: (sequence: Int, full: Bool, tasks: Set<TaskID>, events: [TaskEvent], sent: Timestamp)?
    private var dirty: Set<TaskID> = []
    private var events: [TaskEvent] = []
    private(set) var told: [TaskID: NodeReport.TaskReport] = [:]
    /// When a report that failed is repeated.
    private(set) var retryAt: Timestamp?

    mutating func connect() {
        takeBack()
        isConnected = true
        needsFull = true
        retryAt = nil
    }

    mutating func disconnect() {
        takeBack()
        isConnected = false
        retryAt = nil
    }

    /// Tell of the task again, even if nothing seems to have changed: the master asked.
    mutating func mark(_ task: TaskID) {
        told[task] = nil
        dirty.insert(task)
    }

    mutating func add(_ task: TaskID, _ news: [TaskEvent]) {
        dirty.insert(task)
        events += news
        if events.count > Self.eventLimit { events.removeFirst(events.count - Self.eventLimit) }
    }

    /// - Returns: when the report was given out; nil: another is under way.
    mutating func succeeded(_ number: Int) -> Timestamp? {
        guard let sent = inFlight, sent.sequence == number else { return nil }
        inFlight = nil
        return sent.sent
    }

    mutating func failed(_ number: Int, now: Timestamp, random: inout some RandomNumberGenerator) {
        guard inFlight?.sequence == number else { return }
        takeBack()
        retryAt = now + Pace.retry + Int64.random(in: 0..<Pace.retry, using: &random)
    }

    /// What was under way may or may not have arrived: it is told again.
    private mutating func takeBack() {
        guard let lost = inFlight else { return }
        inFlight = nil
        if lost.full { needsFull = true }
        for task in lost.tasks { mark(task) }
        events = Array((lost.events + events).suffix(Self.eventLimit))
    }

    /// The next report, when one is due.
    mutating func next(
        _ tasks: [TaskID: TaskMachine], _ refused: [TaskID: NodeReport.TaskReport], now: Timestamp
    ) -> AgentEffect? {
        guard isConnected, inFlight == nil else { return nil }
        if let retryAt, retryAt > now {
            self.retryAt = min(retryAt, now + 2 * Pace.retry)
            return nil
        }
        retryAt = nil
        let candidates = needsFull ? Set(tasks.keys).union(refused.keys) : dirty
        dirty = []
        if needsFull { told = [:] }
        var reports: [NodeReport.TaskReport] = []
        for id in candidates.sorted() {
            guard let report = tasks[id]?.report ?? refused[id] else {
                told[id] = nil
                continue
            }
            guard told[id] != report else { continue }
            told[id] = report
            reports.append(report)
        }
        guard needsFull || !reports.isEmpty || !events.isEmpty else { return nil }
        sequence += 1
        inFlight = (sequence, needsFull, Set(reports.map(\.task)), events, now)
        defer {
            needsFull = false
            events = []
        }
        return .report(sequence: sequence, full: needsFull, reports, events: events)
    }
}
