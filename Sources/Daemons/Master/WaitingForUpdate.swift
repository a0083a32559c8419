import MasterCore
import Model
import Wire

extension ClusterMaster {
    /// Waits until a container's node has brought about what `view`'s revision of it says.
    ///
    /// - Returns: the container then; a conflict when its node says that it cannot (it tries again all the same).
    /// - Throws: `APIProblem`: the master stopped watching, the container is gone.
    package func waitForUpdate(of view: ContainerView) async throws -> Result<ContainerView, APIProblem> {
        let (present, changes) = try await watchContainer(view.id.text)
        if let result = present.outcome(of: view.revision) { return result }
        for try await line in changes {
            if line.change == .delete { throw APIProblem(.notFound, "the container \(view.name) was removed") }
            if let result = line.object?.outcome(of: view.revision) { return result }
        }
        try Task.checkCancellation()
        throw APIProblem(.unavailable, "the master stopped watching the container \(view.name); ask again")
    }
}

extension ContainerView {
    /// nil: not yet.
    fileprivate func outcome(of revision: Int) -> Result<ContainerView, APIProblem>? {
        // 0: nothing of it is there, or its node is of a version that does not say.
        if task == nil || status.revision == 0 || status.revision >= revision { return .success(self) }
        guard status.message.hasPrefix(TaskStatus.updateFailure) else { return nil }
        return .failure(APIProblem(.conflict, status.message))
    }
}
