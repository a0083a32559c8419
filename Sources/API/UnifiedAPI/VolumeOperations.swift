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
                let node = call.query["node"] == nil ? nil : try await master.node(call.query["node"]).id
                return try .json(try await master.volumes().filter { node == nil || $0.node == node })
            },
            Operation(
                .post, access: .work, Self.path, "Make a volume; 200 when it is there already.",
                query: [Self.nodeParameter],
                body: .json(CreateVolume.self), answer: .json(VolumeView.self),
                statuses: [201, 200, 404, 409, 413, 507]
            ) { call in
                let wish = try await call.body(CreateVolume.self)
                let (view, isNew) = try await master.createVolume(wish, on: call.query["node"])
                return try .json(view, status: isNew ? .created : .ok)
            },
            Operation(
                .get, access: .read, "\(Self.path)/{volume}", "Inspect a volume.", query: [Self.nodeParameter],
                answer: .json(VolumeView.self), statuses: [200, 404, 409]
            ) { call in
                try .json(try await master.volume(try call.name("volume"), on: call.query["node"]).view)
            },
            Operation(
                .delete, access: .work, "\(Self.path)/{volume}", "Remove a volume with what is in it.",
                query: [Self.nodeParameter, .flag("force", "Also when a stopped container uses it.")],
                statuses: [204, 404, 409]
            ) { call in
                let (view, node) = try await master.volume(try call.name("volume"), on: call.query["node"])
                try await master.removeVolume(view, on: node, force: try call.query.flag("force"))
                return Response.empty
            },
        ]
    }
}
