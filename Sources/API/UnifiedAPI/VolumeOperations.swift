import Client
import HTTPService
import HTTPTypes
import Hummingbird
import JSON
import Master
import MasterCore
import Model
import NIOHTTP1
import Wire

extension UnifiedAPI {
    private static let path = APIPaths.volumes
    private static let nodeParameter = Operation.Parameter.text("node", "On this node.")

    var volumeOperations: [Operation] {
        [
            Operation(
                .get, access: .read, Self.path, "List volumes.", query: [Self.nodeParameter],
                answer: .json([VolumeView].self),
                statuses: [200, 404]
            ) { call in
                let node = call.query["node"] == nil ? nil : try await node(call.query["node"]).id
                return try .json(try await volumes().filter { node == nil || $0.node == node })
            },
            Operation(
                .post, access: .work, Self.path, "Make a volume; 200 when it is there already.",
                query: [Self.nodeParameter],
                body: .json(CreateVolume.self), answer: .json(VolumeView.self),
                statuses: [201, 200, 404, 409, 413, 507]
            ) { call in
                var wish = try await call.body(CreateVolume.self)
                let node = try await node(call.query["node"])
                _ = try await master.perform(.expectVolume(wish.name, on: node.id, group: wish.group))
                wish.group = nil
                let present = try await volumes().contains { $0.name == wish.name && $0.node == node.id }
                var view = try await master.streams(node).json(VolumeView.self, .POST, "/volumes", body: .json(wish))
                view.node = node.id
                try await refreshVolumes(of: node)
                if !present { try await note("volume", "create", wish.name) }
                view = try await volumes().first { $0.name == wish.name && $0.node == node.id } ?? view
                return try .json(view, status: present ? .ok : .created)
            },
            Operation(
                .get, access: .read, "\(Self.path)/{volume}", "Inspect a volume.", query: [Self.nodeParameter],
                answer: .json(VolumeView.self), statuses: [200, 404, 409]
            ) { call in
                try .json(try await volume(call).view)
            },
            Operation(
                .delete, access: .work, "\(Self.path)/{volume}", "Remove a volume with what is in it.",
                query: [Self.nodeParameter, .flag("force", "Also when a stopped container uses it.")],
                statuses: [204, 404, 409]
            ) { call in
                let (view, node) = try await volume(call)
                let force = try call.query.flag("force")
                try await master.streams(node).perform(
                    .DELETE, "/volumes/\(PercentEncoding.encode(view.name))", query: "force=\(force)")
                try await refreshVolumes(of: node)
                try await note("volume", "remove", view.name)
                return Response.empty
            },
        ]
    }

    private func volumes() async throws -> [VolumeView] {
        guard case .volumes(let views) = try await master.query(.volumes),
            case .containers(let containers) = try await master.query(.containers(ContainerFilter(all: true)))
        else { throw APIProblem.unexpected }
        // A node reports its volumes now and then; who uses them is known here at any time.
        return views.map { view in
            var view = view
            let users = containers.filter { container in
                container.node == view.node && container.spec.mounts.contains { $0.source == .volume(name: view.name) }
            }
            view.usedBy = users.map(\.name).sorted()
            return view
        }
    }

    private func volume(_ call: Call) async throws -> (view: VolumeView, node: Node) {
        let name = try call.name("volume")
        var found = try await volumes().filter { $0.name == name }
        if let wanted = call.query["node"] {
            let id = try await node(wanted).id
            found = found.filter { $0.node == id }
        }
        guard let view = found.first else {
            throw APIProblem(.notFound, "there is no volume '\(name)'; see `martlet volume ls`")
        }
        guard found.count == 1 else {
            throw APIProblem(
                .conflict, "the volume '\(name)' is on \(found.count) nodes: name one with node= (`--node`)")
        }
        return (view, try await node(view.node.text))
    }

    private func refreshVolumes(of node: Node) async throws {
        let volumes = try await master.streams(node).json([VolumeView].self, .GET, "/volumes")
        _ = try await master.perform(.inventory(node.id, images: nil, volumes: volumes))
    }
}
