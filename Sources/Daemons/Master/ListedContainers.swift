import MasterCore
import Model
import Wire

/// Containers that are asked for by what they are or have, read in parts: others are answered between them.
extension ClusterMaster {
    /// Containers of a part.
    private static let part = 500

    /// Shows all that are meant one by one, the newest first: of many only a part is held at a time.
    package nonisolated func forEachContainer(
        _ selection: ContainerSelection = ContainerSelection(), _ look: (ContainerSummary) -> Void
    ) async throws(APIProblem) {
        var position: ContainerPosition?
        repeat {
            let page = try await containers(selection, after: position, limit: Self.part)
            for container in page.containers { look(container) }
            position = page.next
        } while position != nil
    }

    /// All that are meant, the newest first.
    package nonisolated func containers(
        _ selection: ContainerSelection
    ) async throws(APIProblem) -> [ContainerSummary] {
        var found: [ContainerSummary] = []
        try await forEachContainer(selection) { found.append($0) }
        return found
    }

    /// Any that is meant.
    package nonisolated func anyContainer(
        _ selection: ContainerSelection
    ) async throws(APIProblem) -> ContainerSummary? {
        var position: ContainerPosition?
        repeat {
            let page = try await containers(selection, after: position, limit: 1)
            if let found = page.containers.first { return found }
            position = page.next
        } while position != nil
        return nil
    }

    /// A part of a list.
    package nonisolated func containers(
        _ selection: ContainerSelection, after position: ContainerPosition?, limit: Int
    ) async throws(APIProblem) -> ContainerPage {
        guard case .containerPage(let page) = try await query(.containerPage(selection, after: position, limit: limit))
        else { throw APIProblem.unexpected }
        return page
    }
}
