import HTTPService
import HTTPTypes
import Hummingbird
import JSON
import Master
import MasterCore
import Model
import Wire

/// Names of images, and the end of images.
extension DockerAPI {
    /// `repo` and `tag` of a query as one name.
    ///
    /// - Throws: `DockerError` 400.
    static func newName(_ call: DockerCall) throws -> String? {
        guard let repository = call.query.text("repo") else { return nil }
        let name = call.query.text("tag").map { "\(repository):\($0)" } ?? repository
        guard let parsed = ImageName(name), parsed.digest == nil else {
            throw DockerError.badRequest("invalid reference format: '\(name.prefix(300))' is no name:tag of an image")
        }
        return name
    }

    func tagImage(_ call: DockerCall) async throws -> Response {
        guard let name = try Self.newName(call) else {
            throw DockerError.badRequest("invalid reference format: repo is missing in the query")
        }
        let view = try await image(call.id)
        _ = try await master.tagImage(Self.reference(call.id, view), as: name)
        return Response(status: .created)
    }

    /// What means an image to the master: its name as it was given, or its digest.
    static func reference(_ given: String, _ view: ImageView) -> String {
        ImageName(given)?.tagged.map { view.names.contains($0) } ?? false ? given : view.digest
    }

    func removeImage(_ call: DockerCall) async throws -> Response {
        let view = try await image(call.id)
        let removal: ImageRemoval
        do {
            removal = try await master.removeImage(
                Self.reference(call.id, view), force: call.query.flag("force"))
        } catch let problem as APIProblem where problem.code == .conflict {
            throw Self.conflict(call.id, view, problem.message)
        } catch let error as APIError where error.status == 409 {
            throw Self.conflict(call.id, view, error.message)
        }
        var lines = removal.untagged.map { name -> JSONValue in ["Untagged": .string(name)] }
        if !removal.deleted.isEmpty {
            lines += (view.repositoryDigests ?? []).map { ["Untagged": .string($0)] }
            lines.append(["Deleted": .string(view.id)])
        }
        return .json(bytes: JSONValue.array(lines).serialized())
    }

    private static func conflict(_ given: String, _ view: ImageView, _ why: String) -> DockerError {
        let isNamed = ImageName(given)?.tagged.map { view.names.contains($0) } ?? false
        let short = view.id.dropFirst(7).prefix(12)
        return .conflict(
            isNamed
                ? "conflict: unable to remove repository reference \"\(given)\" (must force) - \(why)"
                : "conflict: unable to delete \(short) (must be forced) - \(why)")
    }

    /// Without filters: images without a name.
    func pruneImages(_ call: DockerCall) async throws -> Response {
        let filters = try call.filters(["dangling", "until", "label", "label!"])
        let dangling = try filters.flag("dangling") ?? true
        let until = try filters.moment("until")
        let known = try await master.images()
        let removal = try await master.pruneImages(named: !dangling) { image in
            let labels = image.labels ?? [:]
            return until.map { image.createdAt ?? Timestamp(nanoseconds: 0) < $0 } ?? true
                && filters.allow(labels: labels) && !filters.forbids(labels: labels)
        }
        let ids = Dictionary(known.map { ($0.digest, $0.id) }) { first, _ in first }
        let lines =
            removal.untagged.map { name -> JSONValue in ["Untagged": .string(name)] }
            + removal.deleted.map { ["Deleted": .string(ids[$0] ?? $0)] }
        let answer: JSONValue = [
            "ImagesDeleted": lines.isEmpty ? .null : .array(lines), "SpaceReclaimed": .integer(removal.freed),
        ]
        return .json(bytes: answer.serialized())
    }
}

extension DockerFilters {
    /// Whether the labels have one of the `label!`, as `key` or `key=value`.
    func forbids(labels: [String: String]) -> Bool {
        self["label!"].contains { LabelSelector($0).matches(labels) }
    }
}
