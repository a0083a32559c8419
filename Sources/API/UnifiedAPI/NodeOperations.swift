import Client
import HTTPService
import HTTPTypes
import Hummingbird
import JSON
import Master
import MasterCore
import Model
import NIOHTTP1
import Synchronization
import Wire

extension UnifiedAPI {
    private static let path = APIPaths.nodes

    /// What operators do with nodes.
    var nodeOperations: [Operation] {
        [
            Operation(
                .get, access: .read, Self.path, "List nodes; with `watch`, follow them as lines.",
                query: [.flag("watch", "First all, then every change.")], answer: .json([NodeView].self),
                statuses: [200]
            ) { call in
                let subject = Subject.current
                guard try call.query.flag("watch") else {
                    return try .json(try await nodeViews().map { Self.shown($0, to: subject) })
                }
                let watch = try await master.watchNodes()
                return .lines(call.context) { writer in
                    try await follow(watch, writer, id: { $0.node.id.text }, as: { Self.shown($0, to: subject) })
                }
            },
            Operation(
                .get, access: .read, "\(Self.path)/{node}", "Inspect a node.", answer: .json(NodeView.self),
                statuses: [200, 404, 409]
            ) { call in
                let reply = try await master.query(.node(call.name("node")))
                guard case .node(let view) = reply else { throw APIProblem.unexpected }
                return try .json(Self.shown(view, to: .current))
            },
            Operation(
                .patch, access: .operate, "\(Self.path)/{node}", "Set labels and availability.",
                body: .json(UpdateNode.self),
                answer: .json(NodeView.self), statuses: [200, 404, 409, 413, 507]
            ) { call in
                let wish = try await call.body(UpdateNode.self)
                let reply = try await master.perform(.updateNode(call.name("node"), wish))
                guard case .node(let view) = reply else { throw APIProblem.unexpected }
                return try .json(view)
            },
            Operation(
                .delete, access: .operate, "\(Self.path)/{node}", "Forget a node that is gone.",
                query: [.flag("force", "Give its tasks up.")], statuses: [204, 404, 409, 507]
            ) { call in
                _ = try await master.perform(
                    .removeNode(call.name("node"), force: try call.query.flag("force")))
                return Response.empty
            },
            Operation(
                .post, access: .operate, "\(Self.path)/{node}/network-check",
                "Compare what a node's kernel has of networks with what it should have, and mend it if asked to.",
                body: .optionalJSON(NetworkCheckRequest.self), answer: .json(NetworkCheck.self),
                statuses: [200, 404, 409, 413, 501]
            ) { call in
                let wish = try await call.request.optionalJSON(NetworkCheckRequest.self, call.context)
                let node = try await master.node(try call.name("node"))
                let check = try await master.streams(node).json(
                    NetworkCheck.self, .POST, "/network-check", body: .json(wish ?? NetworkCheckRequest()))
                return try .json(check)
            },
        ]
    }

    /// What stays on a node that is drained may be other groups'.
    private static func shown(_ view: NodeView, to subject: Subject) -> NodeView {
        guard subject.confinement != nil else { return view }
        var view = view
        view.drain?.staying = []
        return view
    }

    /// What agents do. Their bodies are read leniently, so that versions can mix.
    var agentOperations: [Operation] {
        [
            Operation(
                .post, access: .node, Self.path, "An agent says who and what it is.",
                body: .json(NodeRegistration.self),
                answer: .json(NodeRegistered.self), statuses: [200, 409, 413, 507]
            ) { call in
                let wish = try JSONCoding.decode(
                    NodeRegistration.self, from: await call.request.jsonBytes(call.context))
                guard case .registered(let node) = try await master.perform(.registerNode(wish)) else {
                    throw APIProblem.unexpected
                }
                return try .json(node)
            },
            Operation(
                .get, access: .node, "\(Self.path)/{node}/tasks",
                "What the node is to run; with `watch`, its agent's desired state as lines.",
                query: [
                    .flag("watch", "First all, then every change; ends an older watch of this node."),
                    .text("task", "Only this one; not with `watch`."),
                ],
                answer: .json([TaskAssignment].self), statuses: [200, 404, 409]
            ) { call in
                try await tasks(call)
            },
            Operation(
                .get, access: .node, "\(Self.path)/{node}/peers",
                "What other nodes have of the overlays that the node is on; with `watch`, followed as lines.",
                query: [.flag("watch", "First all, then every change; ends an older watch of this node.")],
                answer: .json([NetworkPeer].self), statuses: [200, 404, 409]
            ) { call in
                let name = try call.name("node")
                guard try call.query.flag("watch") else {
                    guard case .peers(let list) = try await master.query(.peers(name)) else {
                        throw APIProblem.unexpected
                    }
                    return try .json(list.sorted { ($0.network, $0.node) < ($1.network, $1.node) })
                }
                return try await peers(of: name, call)
            },
            Operation(
                .post, access: .node, "\(Self.path)/{node}/status", "An agent reports what it observed.",
                body: .json(NodeReport.self),
                statuses: [204, 404, 413, 507]
            ) { call in
                let report = try JSONCoding.decode(NodeReport.self, from: await call.request.jsonBytes(call.context))
                _ = try await master.perform(.report(call.name("node"), report))
                return Response.empty
            },
        ]
    }

    /// Nothing is remembered of what was told: that would be a product of nodes in memory.
    private func peers(of name: String, _ call: Call) async throws -> Response {
        let watch = try await master.watchPeers(of: name)
        let (node, changes) = (watch.present.node, watch.changes)
        // Goes when all of it is told: while the watch lasts, the master's list becomes another.
        let present = Mutex<PeerList?>(watch.present)
        return .lines(call.context) { writer in
            if let list = present.withLock({ $0.take() }) {
                for peer in list { try await writer.write(WatchLine(.put, id: peer.id, object: peer)) }
            }
            try await writer.write(WatchLine<NetworkPeer>(.synced))
            do {
                for try await lines in changes {
                    for line in lines where !NetworkPeer.isAbout(node, line) { try await writer.write(line) }
                }
            } catch let problem as APIProblem {
                throw APIError(problem)
            }
        }
    }

    private func tasks(_ call: Call) async throws -> Response {
        let name = try call.name("node")
        guard try call.query.flag("watch") else {
            guard case .assignments(_, let list) = try await master.query(.assignments(name)) else {
                throw APIProblem.unexpected
            }
            guard let task = call.query["task"] else { return try .json(list) }
            return try .json(list.filter { $0.task.text == task })
        }
        guard call.query["task"] == nil else {
            throw APIProblem(.badRequest, "task: does not go with watch")
        }
        let (node, watch) = try await master.watchTasks(of: name)
        return .lines(call.context) { writer in
            do {
                try await follow(watch, writer, id: { $0.task.text })
                await master.nodeLeft(node)
            } catch {
                await master.nodeLeft(node)
                throw error
            }
        }
    }
}
