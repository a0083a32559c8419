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
        let wish = try await call.body(UpdateRequest.self)
        _ = try await master.perform(.updateContainer(view.id.text, try wish.change()))
        return try .docker(UpdateAnswer(warnings: []))
    }

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
        try await remove(view, force: force, volumes: volumes, call)
        return .noContent
    }

    /// Removes it, and returns when nothing is left of it.
    ///
    /// - Throws: `DockerError` 409 when its node is not there to say so.
    func remove(_ view: ContainerView, force: Bool, volumes: Bool, _ call: DockerCall) async throws {
        _ = try await master.perform(.removeContainer(view.id.text, force: force, volumes: volumes))
        let id = view.id.text
        let isGone = try await call.context.untilPeerCloses {
            try await withThrowingTaskGroup(of: Bool.self) { group in
                defer { group.cancelAll() }
                group.addTask {
                    do {
                        _ = try await master.wait(for: id, .removed)
                    } catch let problem as APIProblem where problem.code == .notFound {
                        // It had gone before the wait began.
                    }
                    return true
                }
                group.addTask {
                    try await Task.sleep(for: Self.removalPatience)
                    return false
                }
                return try await group.next() ?? false
            }
        }
        guard isGone else {
            throw DockerError.conflict(
                "removal of container \(view.name) is already in progress: its node \(view.nodeName) has not done it yet"
            )
        }
    }

    private static let removalPatience = Duration.seconds(120)

    func pruneContainers(_ call: DockerCall) async throws -> Response {
        let filters = try call.filters(["until", "label", "label!"])
        var selection = ContainerSelection()
        selection.states = [.created, .exited, .dead]
        selection.ofServices = false
        selection.labels = filters["label"].map { LabelSelector($0) }
        selection.absentLabels = filters["label!"].map { LabelSelector($0) }
        if let until = filters["until"].first {
            guard filters["until"].count == 1 else {
                throw DockerError.badRequest("more than one until filter specified")
            }
            selection.createdBefore = try Self.moment(until)
        }
        var found: [ContainerSummary] = []
        var position: ContainerPosition?
        repeat {
            let query = MasterQuery.containerPage(selection, after: position, limit: 500)
            guard case .containerPage(let page) = try await master.query(query) else { throw APIProblem.unexpected }
            found += page.containers
            position = page.next
        } while position != nil
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
    private func removeAll(_ containers: [ContainerSummary], _ call: DockerCall) async throws -> [ContainerID] {
        var rest = containers[...]
        return try await withThrowingTaskGroup(of: ContainerID?.self) { group in
            func next() {
                guard let summary = rest.popFirst() else { return }
                group.addTask {
                    do {
                        guard case .container(let view) = try await master.query(.container(summary.id.text)) else {
                            return nil
                        }
                        guard !view.summaryState.isActive else { return nil }
                        try await remove(view, force: false, volumes: false, call)
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

    /// A moment (RFC 3339, seconds since 1970), or how long ago: `10m`, `1h30m`, `24h`.
    static func moment(_ text: String) throws -> Timestamp {
        if let time = Timestamp(rfc3339: text) { return time }
        if let seconds = Int64(text), (-8_999_999_999...8_999_999_999).contains(seconds) {
            return Timestamp(nanoseconds: seconds * 1_000_000_000)
        }
        let units: [Character: Int64] = ["h": 3600, "m": 60, "s": 1]
        var (total, number) = (Int64(0), "")
        for character in text {
            if character.isASCII, character.isNumber, number.count < 9 {
                number.append(character)
            } else if let unit = units[character], let count = Int64(number) {
                total += count * unit
                number = ""
            } else {
                throw invalid("until", text)
            }
        }
        guard number.isEmpty, !text.isEmpty else { throw invalid("until", text) }
        return Timestamp.now().adding(seconds: -total)
    }
}
