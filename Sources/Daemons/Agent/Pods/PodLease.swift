import AgentCore
import Model
import Reactor
import ShimProtocol
import Wire

extension PodExecutor {
    /// Serves until it is cancelled: renews the leases of what runs.
    func keepLeases() async {
        await leases.run { assignment, until in
            try await self.giveLease(assignment, until: until, patience: .seconds(10))
        }
    }

    /// Gives the container that is about to be started the lease that its policy asks for, or takes one away that an
    /// earlier policy has left.
    ///
    /// - Throws: `ExecutorFailure`, transient, without contact to the master; `ShimError`.
    func prepareLease(_ assignment: TaskAssignment, _ state: ShimContainerState?) async throws {
        guard let seconds = assignment.pod.stopAfter else {
            if let state, state.leaseUntil != nil {
                try await shim(of: assignment.task).call(.release(container: state.container))
            }
            return
        }
        let until = try await leases.startDeadline(assignment, after: seconds)
        try await giveLease(assignment, until: until, patience: ShimClient.patience)
        leases.gave(assignment.task, until: until)
    }

    private func giveLease(_ assignment: TaskAssignment, until: Int64, patience: Duration) async throws {
        let lease = ShimLease(
            container: try Self.container(of: assignment).text, until: until,
            signal: try await number(of: "", assignment),
            grace: Int64(assignment.pod.containers.first?.stopGrace ?? 10) * 1000)
        try await shim(of: assignment.task).call(.lease(lease), patience: patience)
    }
}
