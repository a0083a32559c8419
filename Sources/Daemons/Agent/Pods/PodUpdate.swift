import AgentCore
import Cgroups
import Logging
import Model
import Reactor
import Wire

extension PodExecutor {
    package func update(
        _ assignment: TaskAssignment, previous: TaskAssignment
    ) async throws(ExecutorFailure) {
        try await explaining(TaskStatus.updateFailure + assignment.instanceName) {
            // First of all, and whatever becomes of the rest: others wait for what is given back.
            try await updateDevices(assignment, previous)
            try await updateLimits(assignment, previous)
            try await updateNetworks(assignment, previous)
        }
    }

    /// Where no group is, nothing runs: the next start brings the new limits.
    private func updateLimits(_ assignment: TaskAssignment, _ previous: TaskAssignment) async throws {
        guard let new = assignment.pod.containers.first?.limits, let old = previous.pod.containers.first?.limits,
            new != old
        else { return }
        let group = try cgroup(of: assignment.task)
        let notices = try await pool.run { [sharedProcessors, table] () throws -> [CgroupNotice] in
            guard group.exists() else { return [] }
            var resources = try LimitChange(from: old, to: new).resources(for: group)
            // Not for a moment on what others have alone.
            if new.cpus != old.cpus, let shared = sharedProcessors.list(for: new, beside: table.all) {
                resources.cpu.cpus = shared.description
            }
            return try group.update(resources)
        }
        if new.cpus != old.cpus { try await alignProcessors(of: assignment, isRestricted: true) }
        for notice in notices {
            logger.warning(
                "a limit holds only in part", metadata: ["task": "\(assignment.task)", "notice": "\(notice)"])
        }
    }
}
