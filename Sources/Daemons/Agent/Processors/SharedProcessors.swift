import AgentCore
import Cgroups
import DeviceDiscovery
import Kernel
import Logging
import Model
import Reactor
import Synchronization
import Wire

/// Keeps containers without processors of their own off those that others have alone.
///
/// Each start gets what is shared then, and whenever somebody's own processors come or go the groups of all others follow.
final class SharedProcessors: Sendable {
    /// Whether somebody may be kept off processors, or may not be where it should. Held while the table is looked at and
    /// groups are changed: who looked later writes later.
    private let isRestricted: Mutex<Bool>
    private let layout: CgroupLayout
    private let parent: String

    /// - Parameter parent: the group that those of tasks are in.
    init(_ layout: CgroupLayout, parent: String) {
        self.layout = layout
        self.parent = parent
        // What an earlier agent has left nobody knows.
        isRestricted = Mutex(true)
    }

    /// What a container may run on that has no processors of its own; nil: as far as its group's parent allows.
    ///
    /// A user's own choice yields to what others have alone; of a choice of which nothing is left nothing remains.
    func list(for limits: Limits, beside records: [TaskRecord]) -> ProcessorSet? {
        let owned = Self.owned(records)
        guard !owned.isEmpty, let allowed = layout.allowedProcessors(parent: parent) else { return nil }
        return Self.list(for: limits, allowed: allowed, owned: owned)
    }

    static func list(for limits: Limits, allowed: ProcessorSet, owned: Set<Int>) -> ProcessorSet {
        let shared = allowed.numbers.filter { !owned.contains($0) }
        let wish = limits.cpus.flatMap { ProcessorSet(list: $0) }.map { Set($0.numbers) }
        let both = wish.map { wish in shared.filter(wish.contains) } ?? shared
        // The master always leaves one; a machine that has lost some since is shared again.
        return both.isEmpty ? (shared.isEmpty ? allowed : ProcessorSet(shared)) : ProcessorSet(both)
    }

    private static func owned(_ records: [TaskRecord]) -> Set<Int> {
        records.reduce(into: Set()) { $0.formUnion($1.ownProcessors) }
    }

    /// Has the groups of all tasks follow. Blocks.
    ///
    /// - Parameters:
    ///   - table: tells of all tasks as they are now; called while nobody else changes groups.
    ///   - group: the group of a task.
    /// - Returns: what could not be changed, in words.
    func align(_ table: () -> [TaskRecord], group: (TaskID) throws -> CgroupManager) -> [String] {
        isRestricted.withLock { isRestricted in
            let records = table()
            let owned = Self.owned(records)
            guard isRestricted || !owned.isEmpty, let allowed = layout.allowedProcessors(parent: parent) else {
                return []
            }
            var problems: [String] = []
            for record in records {
                align(record.assignment, allowed, owned, group, &problems)
            }
            isRestricted = !owned.isEmpty || !problems.isEmpty
            return problems
        }
    }

    /// Whether somebody may be kept off processors. When nobody is, a group that is there by now is looked at by whoever
    /// restricts others next.
    var mayRestrict: Bool { isRestricted.withLock { $0 } }

    /// Has the group of one task follow, whose assignment may be newer than its record. Blocks.
    ///
    /// Also where nobody has any alone: who had some when the task's bundle was written may have gone since.
    func align(
        _ assignment: TaskAssignment, beside table: () -> [TaskRecord], group: (TaskID) throws -> CgroupManager
    ) -> [String] {
        isRestricted.withLock { isRestricted in
            let owned = Self.owned(table())
            guard let allowed = layout.allowedProcessors(parent: parent) else { return [] }
            var problems: [String] = []
            align(assignment, allowed, owned, group, &problems)
            if !owned.isEmpty || !problems.isEmpty { isRestricted = true }
            return problems
        }
    }

    private func align(
        _ assignment: TaskAssignment, _ allowed: ProcessorSet, _ owned: Set<Int>,
        _ group: (TaskID) throws -> CgroupManager, _ problems: inout [String]
    ) {
        guard assignment.grantedProcessors.isEmpty, let limits = assignment.pod.containers.first?.limits else { return }
        do {
            let group = try group(assignment.task)
            guard group.exists() else { return }
            let wanted = Self.list(for: limits, allowed: allowed, owned: owned)
            let present = group.directory(of: .cpuset).flatMap { try? File.text("\($0)/cpuset.cpus", limit: 1 << 16) }
            // One that says nothing follows its parent.
            if let present = present?.prefix(while: { $0 != "\n" }),
                present.isEmpty && owned.isEmpty || present == wanted.description
            {
                return
            }
            var resources = CgroupResources()
            resources.cpu.cpus = wanted.description
            _ = try group.update(resources)
        } catch {
            problems.append(
                "container \(assignment.instanceName) may run on other processors than it should: \(error)")
        }
    }
}

extension PodExecutor {
    /// Has all follow, until it is cancelled. What fails is tried again.
    func keepProcessors() async {
        var told: [String] = []
        var retry: Task<Void, any Error>?
        for await _ in table.processorChanges {
            retry?.cancel()
            let problems = await processorProblems { [table] in table.all }
            if problems != told { warn(problems) }
            told = problems
            retry = problems.isEmpty ? nil : retryProcessors()
        }
        retry?.cancel()
    }

    /// Has the groups of all these tasks follow.
    ///
    /// - Parameter records: tells of the tasks as they are when it is called.
    func alignProcessors(_ records: @escaping @Sendable () -> [TaskRecord]) async {
        let problems = await processorProblems(records)
        warn(problems)
        if !problems.isEmpty { retryProcessors() }
    }

    private func processorProblems(_ records: @escaping @Sendable () -> [TaskRecord]) async -> [String] {
        do {
            let problems = try await pool.run { [sharedProcessors] in
                sharedProcessors.align(records, group: { try self.cgroup(of: $0) })
            }
            return problems.sorted()
        } catch {
            return Task.isCancelled ? [] : ["nobody was looked at: \(error)"]
        }
    }

    private func warn(_ problems: [String]) {
        for problem in problems { logger.warning("processors", metadata: ["what": "\(problem)"]) }
    }

    /// Has all be looked at again after a while.
    @discardableResult
    private func retryProcessors() -> Task<Void, any Error> {
        Task { [table] in
            try await Task.sleep(for: .seconds(10))
            table.signalProcessors()
        }
    }

    /// Has the task's own group follow: it may have been made after the others were changed.
    ///
    /// - Parameter isRestricted: it was kept off some when its bundle was written.
    func alignProcessors(of assignment: TaskAssignment, isRestricted: Bool) async throws {
        guard assignment.grantedProcessors.isEmpty, isRestricted || sharedProcessors.mayRestrict else { return }
        let problems = try await pool.run { [sharedProcessors, table] in
            sharedProcessors.align(assignment, beside: { table.all }, group: { try self.cgroup(of: $0) })
        }
        warn(problems)
        if !problems.isEmpty { retryProcessors() }
    }
}

extension TaskRecord {
    /// Processors that something of the task has alone; none once it has ended for good.
    var ownProcessors: Set<Int> {
        // Most tasks have none.
        if assignment.grantedProcessors.isEmpty, applied == nil { return [] }
        if removed || hasEndedForGood { return [] }
        return Set(assignments.flatMap { $0.grantedProcessors.flatMap(\.cpus.numbers) })
    }
}
