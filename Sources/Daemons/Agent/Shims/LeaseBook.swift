import AgentCore
import Model
import Wire

/// What is known of the contact with the master, and of the leases that follow from it. A value without clock or I/O;
/// moments are milliseconds of CLOCK_BOOTTIME.
///
/// A container with `onDisconnect: stopAfter(t)` may run until t seconds after the sending of the newest post that the
/// master has answered: whatever the master has heard of this node, it heard it at that moment or later.
struct LeaseBook: Sendable {
    /// A lease that is to be renewed.
    struct Renewal: Sendable, Equatable {
        var assignment: TaskAssignment
        var until: Int64
    }

    /// When the newest post that was answered was sent; nil: none yet in this process.
    private(set) var contact: Int64?
    /// Until when the shims' leases last, as far as this process has set them.
    private(set) var held: [TaskID: Int64] = [:]
    /// Tasks whose shims are being asked.
    private(set) var underWay: Set<TaskID> = []
    private var failing: Set<TaskID> = []

    /// The master has answered a post that was sent at this moment.
    mutating func confirm(sentAt moment: Int64) { contact = max(contact ?? moment, moment) }

    /// Until when a container may run that ends `seconds` after the contact does; nil when there has been none.
    func deadline(after seconds: Int) -> Int64? { contact.map { $0 + Int64(seconds) * 1000 } }

    /// The same for a start: nil also when less than half of the time is left, which is no contact to begin with.
    func startDeadline(after seconds: Int, now: Int64) -> Int64? {
        guard let until = deadline(after: seconds), until - now >= Int64(seconds) * 500 else { return nil }
        return until
    }

    /// The leases that follow from the present contact and have not been given yet; each is then under way until
    /// `renewed` or `failed` is called. What moves a lease by less than a tenth of its time is not worth asking a shim.
    mutating func renewals(_ records: [TaskRecord]) -> [Renewal] {
        let leased = records.filter { !$0.removed && ($0.isLive || $0.startPending) }
        let tasks = Set(leased.map(\.assignment.task))
        held = held.filter { tasks.contains($0.key) }
        failing.formIntersection(tasks)
        var renewals: [Renewal] = []
        for record in leased {
            let assignment = record.assignment
            guard let seconds = assignment.pod.stopAfter, let until = deadline(after: seconds) else { continue }
            // Before its first lease a start has nothing to renew; after a restart of the agent what runs has one.
            guard record.isLive || held[assignment.task] != nil else { continue }
            if let present = held[assignment.task], until - present < Int64(seconds) * 100 { continue }
            guard underWay.insert(assignment.task).inserted else { continue }
            renewals.append(Renewal(assignment: assignment, until: until))
        }
        return renewals
    }

    /// A shim has taken a lease.
    mutating func renewed(_ task: TaskID, until: Int64) {
        underWay.remove(task)
        failing.remove(task)
        held[task] = until
    }

    /// A shim has not taken a lease: it is tried again with the next contact.
    ///
    /// - Returns: whether this is news.
    mutating func failed(_ task: TaskID) -> Bool {
        underWay.remove(task)
        return failing.insert(task).inserted
    }

    /// A start has given a lease.
    mutating func gave(_ task: TaskID, until: Int64) { held[task] = until }

    /// The longest pause between two posts: a third of the shortest time that a container may run without contact, so
    /// that one lost post ends none; 5 s at most.
    static func period(_ records: [TaskRecord]) -> Duration {
        let shortest = records.filter { !$0.removed }.compactMap(\.assignment.pod.stopAfter).min() ?? 15
        return .milliseconds(min(5000, max(1, shortest) * 1000 / 3))
    }
}

extension PodSpec {
    /// Seconds that it may run without contact to the master; nil: for ever.
    var stopAfter: Int? { loss?.stopAfter }
}
