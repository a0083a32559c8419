import HTTPService
import HTTPTypes
import Hummingbird
import JSON
import Master
import MasterCore
import Model
import Wire

/// rename, update, remove, prune.
extension DockerAPI {
    func rename(_ call: DockerCall) async throws -> Response {
        let view = try await container(call.id)
        let text = call.query.text("name") ?? ""
        let name = text.hasPrefix("/") ? String(text.dropFirst()) : text
        guard !name.isEmpty else { throw DockerError.badRequest("Neither old nor new names may be empty") }
        guard name != view.name else {
            throw DockerError.badRequest("Renaming a container with the same name as its current name")
        }
        var change = UpdateContainer()
        change.name = name
        do {
            _ = try await master.perform(.updateContainer(view.id.text, change))
        } catch {
            guard error.code == .conflict else { throw error }
            throw await taken(name, or: error)
        }
        return .noContent
    }

    func update(_ call: DockerCall) async throws -> Response {
        let view = try await container(call.id)
        let wish = try UpdateRequest(try await call.body(JSONValue.self), version: call.version)
        let reply = try await master.perform(.updateContainer(view.id.text, try wish.change()))
        guard case .container(let changed) = reply else { throw APIProblem.unexpected }
        try await untilDone(changed, call)
        return try .docker(UpdateAnswer(warnings: []))
    }

    /// Returns when the container's node has done what it was told, or says why it has not.
    private func untilDone(_ view: ContainerView, _ call: DockerCall) async throws {
        guard view.unreachableSince == nil else {
            throw APIProblem(
                .timeout,
                "the node \(view.nodeName) of the container \(view.name) is away: the change is noted, and made when it "
                    + "is back")
        }
        let outcome = try await call.context.untilPeerCloses {
            try await within(Self.updatePatience) { try await master.waitForUpdate(of: view) }
        }
        guard let outcome else {
            throw APIProblem(
                .timeout,
                "the node \(view.nodeName) has not changed the container \(view.name) yet: it goes on, look again with "
                    + "`docker inspect`")
        }
        _ = try outcome.get()
    }

    private static let updatePatience = Duration.seconds(30)

    private struct UpdateAnswer: Encodable {
        let warnings: [String]
        enum CodingKeys: String, CodingKey { case warnings = "Warnings" }
    }

    func remove(_ call: DockerCall) async throws -> Response {
        guard !call.query.flag("link") else {
            throw DockerError.unsupported("link", "links are names on networks here: disconnect the network")
        }
        let view = try await container(call.id)
        let (force, volumes) = (call.query.flag("force"), call.query.flag("v"))
        if !force {
            switch view.summaryState {
            case .paused:
                throw DockerError.conflict(
                    "You cannot remove a paused container \(view.id). Unpause and then stop it first, or force it")
            case .running, .restarting:
                throw DockerError.conflict(
                    "You cannot remove a running container \(view.id). Stop the container before attempting removal "
                        + "or force remove")
            case .created, .removing, .exited, .dead: break
            }
        }
        try await remove(view, force: force, volumes: volumes, call, until: .now + Self.removalPatience)
        return .noContent
    }

    /// Removes it, and returns when nothing is left of it.
    ///
    /// - Throws: `DockerError` 409 when its node has not said so by `deadline`.
    func remove(
        _ view: ContainerView, force: Bool, volumes: Bool, _ call: DockerCall,
        until deadline: ContinuousClock.Instant
    ) async throws {
        _ = try await master.perform(.removeContainer(view.id.text, force: force, volumes: volumes))
        let gone: Void? = try await call.context.untilPeerCloses {
            try await within(ContinuousClock.now.duration(to: deadline)) {
                do {
                    _ = try await master.wait(for: view.id.text, .removed)
                } catch let problem as APIProblem where problem.code == .notFound {
                    // It had gone before the wait began.
                }
            }
        }
        guard gone != nil else {
            throw DockerError.conflict(
                "removal of container \(view.name) is already in progress: its node \(view.nodeName) has not done it yet"
            )
        }
    }

    static let removalPatience = Duration.seconds(120)

    func pruneContainers(_ call: DockerCall) async throws -> Response {
        let filters = try call.filters(["until", "label", "label!"])
        var selection = ContainerSelection()
        selection.states = [.created, .exited, .dead]
        selection.ofServices = false
        selection.labels = filters["label"].map { LabelSelector($0) }
        selection.absentLabels = filters["label!"].map { LabelSelector($0) }
        selection.createdBefore = try filters.moment("until")
        // Of nodes that are away nothing can be removed now.
        let found = try await master.containers(selection).filter { $0.unreachableSince == nil }
        let sizes = (try? await sizes(of: found, if: true)) ?? [:]
        let removed = try await removeAll(found, call)
        return try .docker(
            PruneAnswer(
                containersDeleted: removed.map(\.text),
                spaceReclaimed: removed.reduce(0) { $0 + (sizes[$1] ?? 0) }))
    }

    private struct PruneAnswer: Encodable {
        let containersDeleted: [String]
        let spaceReclaimed: Int64
        enum CodingKeys: String, CodingKey {
            case containersDeleted = "ContainersDeleted"
            case spaceReclaimed = "SpaceReclaimed"
        }
    }

    /// Removes some at a time; what cannot go, as it runs by now, stays.
    ///
    /// - Returns: what is gone; a node that does not get to it in time does not hold up the answer for ever.
    private func removeAll(_ containers: [ContainerSummary], _ call: DockerCall) async throws -> [ContainerID] {
        var rest = containers[...]
        let deadline = ContinuousClock.now + Self.removalPatience
        return try await withThrowingTaskGroup(of: ContainerID?.self) { group in
            func next() {
                guard let summary = rest.popFirst() else { return }
                group.addTask {
                    do {
                        guard case .container(let view) = try await master.query(.container(summary.id.text)) else {
                            return nil
                        }
                        guard !view.summaryState.isActive else { return nil }
                        try await remove(view, force: false, volumes: false, call, until: deadline)
                        return summary.id
                    } catch is APIProblem {
                        return nil
                    } catch is DockerError {
                        return nil
                    }
                }
            }
            for _ in 0..<16 { next() }
            var removed: [ContainerID] = []
            while let done = try await group.next() {
                if let done { removed.append(done) }
                next()
            }
            return removed
        }
    }
}
