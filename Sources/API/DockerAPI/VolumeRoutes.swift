import HTTPService
import HTTPTypes
import Hummingbird
import JSON
import Master
import MasterCore
import Model
import Wire

/// Volumes of the local driver. One is a thing of the cluster with a home on one node: all that use it run there.
extension DockerAPI {
    var volumeRoutes: [DockerRoute] {
        [
            DockerRoute(.get, "/volumes", access: .read) { try await listVolumes($0) },
            DockerRoute(.post, "/volumes/create", access: .work) { try await createVolume($0) },
            DockerRoute(.post, "/volumes/prune", access: .work) { try await pruneVolumes($0) },
            DockerRoute(.get, "/volumes/{name...}", access: .read) { call in
                let found = try await volume(call.id)
                return .json(bytes: JSONValue.object(VolumeStyle().volume(found.view)).serialized())
            },
            DockerRoute(.put, "/volumes/{name...}", access: .work) { call in
                _ = try await volume(call.id)
                throw DockerError.badRequest(
                    "volume update is not supported: only cluster volumes of Swarm's CSI drivers can be changed")
            },
            DockerRoute(.delete, "/volumes/{name...}", access: .work) { try await removeVolume($0) },
        ]
    }

    /// A volume by its name, or by `node/name` where several nodes have one.
    ///
    /// - Throws: `DockerError` 404 in Docker's words, 409.
    func volume(_ ref: String) async throws -> (view: VolumeView, node: Node) {
        let parts = ref.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        guard parts.count <= 2, let name = parts.last else { throw Self.noVolume(ref) }
        do {
            return try await master.volume(name, on: parts.count == 2 ? parts[0] : nil)
        } catch {
            throw error.code == .notFound ? Self.noVolume(ref) : error
        }
    }

    private static func noVolume(_ ref: String) -> DockerError {
        .notFound("get \(ref.prefix(300)): no such volume")
    }

    private func listVolumes(_ call: DockerCall) async throws -> Response {
        let filters = try call.filters(["dangling", "driver", "label", "name", "node"])
        let dangling = try filters.flag("dangling")
        let all = try await master.volumes()
        let shown = all.filter { view in
            dangling.map { $0 == view.usedBy.isEmpty } ?? true && filters.allow(labels: view.labels)
                && filters.allow("name", within: [view.name])
                && (filters["driver"].isEmpty || filters["driver"].contains("local"))
                && (filters["node"].isEmpty
                    || filters["node"].contains { $0 == view.nodeName || $0 == view.node.text })
        }
        let style = VolumeStyle(all)
        let answer: JSONValue = [
            "Volumes": .array(shown.map { .object(style.volume($0)) }), "Warnings": .null,
        ]
        return .json(bytes: answer.serialized())
    }

    private struct CreateBody: Decodable, Sendable {
        var name: String?
        var driver: String?
        var options: [String: String]?
        var labels: [String: String]?
        var cluster: JSONValue?

        enum CodingKeys: String, CodingKey {
            case name = "Name"
            case driver = "Driver"
            case options = "DriverOpts"
            case labels = "Labels"
            case cluster = "ClusterVolumeSpec"
        }
    }

    /// The label of a volume whose name nobody has chosen.
    private static let anonymous = "com.docker.volume.anonymous"

    private func createVolume(_ call: DockerCall) async throws -> Response {
        let body = try await call.optionalBody(CreateBody.self) ?? CreateBody()
        if let driver = body.driver, !driver.isEmpty, driver != "local" {
            throw DockerError.notFound(
                "error looking up volume plugin \(driver.prefix(80)): only the driver local is there")
        }
        if let cluster = body.cluster, !cluster.isNull {
            throw DockerError.unsupported("ClusterVolumeSpec", "there are volumes of the driver local only")
        }
        let parts = (body.name ?? "").split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        guard parts.count <= 2 else { throw DockerError.badRequest("'\(body.name ?? "")' is no name of a volume") }
        let options = body.options ?? [:]
        if let name = parts.last, !name.isEmpty, let known = try await existing(name, parts) {
            guard known.options ?? [:] == options else {
                throw DockerError.conflict(
                    "a volume named \(name) already exists with other options: choose another name, or remove it")
            }
            return .json(bytes: JSONValue.object(VolumeStyle().volume(known)).serialized(), status: .created)
        }
        var wish = CreateVolume(name: parts.last ?? "", labels: body.labels ?? [:], options: options)
        if wish.name.isEmpty {
            wish.name = Self.randomName()
            wish.isAnonymous = true
            wish.labels[Self.anonymous] = ""
        }
        let view = try await master.createVolume(wish, on: parts.count == 2 ? parts[0] : nil).view
        return .json(bytes: JSONValue.object(VolumeStyle().volume(view)).serialized(), status: .created)
    }

    private func existing(_ name: String, _ parts: [String]) async throws -> VolumeView? {
        let node = parts.count == 2 ? try await master.node(parts[0]).id : nil
        return try await master.volumes(named: name).first { node == nil || $0.node == node }
    }

    private static func randomName() -> String {
        (0..<4).map { _ in
            let text = String(UInt64.random(in: .min ... .max), radix: 16)
            return String(repeating: "0", count: 16 - text.utf8.count) + text
        }.joined()
    }

    private func removeVolume(_ call: DockerCall) async throws -> Response {
        let force = call.query.flag("force")
        let found: (view: VolumeView, node: Node)
        do {
            found = try await volume(call.id)
        } catch let error as DockerError where error.status == 404 && force {
            return .noContent
        }
        try await refuseUsed(found.view)
        try await master.removeVolume(found.view, on: found.node, force: force)
        return .noContent
    }

    private func refuseUsed(_ view: VolumeView) async throws {
        guard !view.usedBy.isEmpty else { return }
        var selection = ContainerSelection()
        selection.volumes = [view.name]
        selection.nodes = [view.node.text]
        let users = try await master.containers(selection).filter { container in
            // A place in a container may be called so too.
            container.spec.mounts.contains { $0.source == .volume(name: view.name) }
        }
        let ids = users.map(\.id.text).sorted()
        throw DockerError.conflict(
            "remove \(view.name): volume is in use - [\((ids.isEmpty ? view.usedBy : ids).joined(separator: ", "))]")
    }

    private func pruneVolumes(_ call: DockerCall) async throws -> Response {
        let filters = try call.filters(["label", "label!", "all"])
        // Since 1.42 those with names stay, unless all are asked for.
        let all = try filters.flag("all") ?? (call.version < .v1_42)
        let gone = try await master.volumes().filter { view in
            // What is elsewhere and is mounted when it is used holds nothing here that could be freed.
            view.usedBy.isEmpty && (view.options ?? [:]).isEmpty && (all || view.isAnonymous ?? false)
                && filters.allow(labels: view.labels) && !filters.forbids(labels: view.labels)
                && view.unreachableSince == nil
        }
        let sizes = gone.isEmpty ? [:] : try await master.sizes(of: [:], volumes: true)
        var names: [String] = []
        var freed: Int64 = 0
        for view in gone {
            do {
                try await master.removeVolume(view, on: try await master.node(view.node.text), force: false)
                names.append(view.name)
                freed += sizes[view.node]?.volumes[view.name] ?? 0
            } catch  where DockerError(error).status == 409 || DockerError(error).status == 404 {
                // It is used since it was looked for, or somebody else has removed it.
            }
        }
        let answer: JSONValue = [
            "VolumesDeleted": names.isEmpty ? .null : .list(names), "SpaceReclaimed": .integer(freed),
        ]
        return .json(bytes: answer.serialized())
    }
}

/// How volumes are shown, see Volume in Moby's swagger.
struct VolumeStyle: Sendable {
    /// Names that volumes of several nodes have: they are shown as `node/name`.
    private let shared: Set<String>

    init(_ all: [VolumeView] = []) {
        shared = Set(Dictionary(grouping: all, by: \.name).filter { $0.value.count > 1 }.keys)
    }

    func volume(_ view: VolumeView) -> JSONObject {
        let name = shared.contains(view.name) ? "\(view.nodeName ?? view.node.text)/\(view.name)" : view.name
        let options = view.options ?? [:]
        return [
            "CreatedAt": .string("\(view.createdAt)"), "Driver": "local",
            "Labels": view.labels.isEmpty ? .null : .texts(view.labels), "Mountpoint": .string(view.path),
            "Name": .string(name), "Options": options.isEmpty ? .null : .texts(options), "Scope": "local",
            // Martlet's own addition.
            "Status": ["Node": .string(view.nodeName ?? view.node.text)],
        ]
    }
}
