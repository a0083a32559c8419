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
    private static let path = APIPaths.devices
    private static let nodeParameter = Operation.Parameter.text("node", "Of this node.")

    /// What nodes report of their devices.
    var deviceOperations: [Operation] {
        [
            Operation(
                .get, access: .read, Self.path, "List devices of nodes, and who has them.",
                query: [Self.nodeParameter], answer: .json([DeviceView].self), statuses: [200, 404, 409]
            ) { call in
                guard case .devices(let views) = try await master.query(.devices(node: call.query["node"])) else {
                    throw APIProblem.unexpected
                }
                return try .json(views)
            },
            Operation(
                .get, access: .read, "\(Self.path)/{device}", "Inspect a device.", query: [Self.nodeParameter],
                answer: .json(DeviceView.self), statuses: [200, 404, 409]
            ) { call in
                let query = MasterQuery.device(try call.name("device"), node: call.query["node"])
                guard case .device(let view) = try await master.query(query) else { throw APIProblem.unexpected }
                return try .json(view)
            },
            Operation(
                .post, access: .operate, "\(APIPaths.nodes)/{node}/devices/{device}/clear",
                "Somebody has seen to a device: forget what its driver told of it, and look at it anew.",
                answer: .json(ClearedDevice.self), statuses: [200, 404, 409]
            ) { call in
                let node = try await master.node(try call.name("node"))
                let query = MasterQuery.device(try call.name("device"), node: node.id.text)
                guard case .device(let view) = try await master.query(query) else { throw APIProblem.unexpected }
                let path = "/devices/\(PercentEncoding.encode(view.device.id))/clear"
                return try .json(try await master.streams(node).json(ClearedDevice.self, .POST, path))
            },
        ]
    }
}
