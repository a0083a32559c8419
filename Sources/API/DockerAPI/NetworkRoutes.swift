import HTTPTypes
import Hummingbird
import JSON
import Master
import MasterCore
import Model
import Wire

/// Networks: those that users made, and `bridge`, `host` and `none`, which are always there.
extension DockerAPI {
    var networkRoutes: [DockerRoute] {
        [
            DockerRoute(.get, "/networks", access: .read) { call in try await listNetworks(call) },
            DockerRoute(.get, "/networks/{id}", access: .read) { call in
                let network = try await shown(call.id)
                guard call.query.text("scope").map({ $0 == network.scope }) ?? true else {
                    throw Self.noNetwork(call.id)
                }
                return try .docker(network.json(call.version, isAlone: true))
            },
            DockerRoute(.post, "/networks/create", access: .work) { call in try await createNetwork(call) },
            DockerRoute(.post, "/networks/prune", access: .work) { call in try await pruneNetworks(call) },
            DockerRoute(.delete, "/networks/{id}", access: .work) { call in try await removeNetwork(call.id) },
            DockerRoute(.post, "/networks/{id}/connect", access: .work) { call in
                let body = try NetworkConnectRequest(try await call.body(JSONValue.self))
                let reference = try await reference(call.id)
                let container = try await container(body.name).id.text
                _ = try await master.perform(.connect(reference, try body.connection(of: container)))
                return Response(status: .ok)
            },
            DockerRoute(.post, "/networks/{id}/disconnect", access: .work) { call in
                let body = try NetworkConnectRequest(try await call.body(JSONValue.self))
                let reference = try await reference(call.id)
                let container = try await container(body.name).id.text
                _ = try await master.perform(.disconnect(reference, DisconnectNetwork(container: container)))
                return Response(status: .ok)
            },
        ]
    }

    static func noNetwork(_ ref: String) -> DockerError { .notFound("network \(ref) not found") }

    /// Finds a network that users made, by name, id or the beginning of its id.
    func network(_ ref: String) async throws -> NetworkView {
        guard case .network(let view) = try await master.query(.network(ref)) else { throw APIProblem.unexpected }
        return view
    }

    /// Containers of one network that are shown: what clients of this API read, they read at once.
    private static let mostContainers = 10_000

    private func whole(_ ref: String) async throws -> NetworkView {
        var view = try await network(ref)
        while let next = view.next, view.members.count < Self.mostContainers {
            let query = MasterQuery.network(view.network.id.text, after: next)
            guard case .network(let more) = try await master.query(query) else { throw APIProblem.unexpected }
            view.members += more.members
            view.next = more.next
        }
        return view
    }

    private func networks() async throws -> [NetworkView] {
        guard case .networks(let views) = try await master.query(.networks) else { throw APIProblem.unexpected }
        return views
    }

    private func shown(_ predefined: PredefinedNetwork) async throws -> ShownNetwork {
        var selection = ContainerSelection()
        selection.networks = [predefined.rawValue]
        selection.states = [.running, .paused]
        return ShownNetwork(predefined, try await master.containers(selection))
    }

    /// What the core is to be told: predefined networks have ids in this API alone.
    private func reference(_ ref: String) async throws -> String {
        if let predefined = PredefinedNetwork(ref) { return predefined.rawValue }
        return try await network(ref).network.id.text
    }

    private func shown(_ ref: String) async throws -> ShownNetwork {
        if let predefined = PredefinedNetwork(ref) { return try await shown(predefined) }
        do {
            return ShownNetwork(try await whole(ref))
        } catch let problem as APIProblem where problem.code == .notFound {
            guard let predefined = PredefinedNetwork(idPrefix: ref) else { throw Self.noNetwork(ref) }
            return try await shown(predefined)
        }
    }

    private func listNetworks(_ call: DockerCall) async throws -> Response {
        let filters = try call.filters(["driver", "id", "label", "name", "scope", "type", "dangling"])
        for type in filters["type"] where type != "custom" && type != "builtin" {
            throw DockerError.badRequest("invalid filter 'type=[\(type)]': it is custom or builtin")
        }
        let isDangling = try filters.flag("dangling")
        let all =
            PredefinedNetwork.allCases.map { ShownNetwork($0, []) } + (try await networks()).map { ShownNetwork($0) }
        let shown = all.filter { network in
            filters.allow("id", within: [network.id]) && filters.allow("name", within: [network.name])
                && (!filters.has("driver") || filters["driver"].contains(network.driver))
                && (!filters.has("scope") || filters["scope"].contains(network.scope))
                && (!filters.has("type") || filters["type"].contains(network.isPredefined ? "builtin" : "custom"))
                && filters.allow(labels: network.labels)
                && (isDangling.map { $0 == (!network.isPredefined && !network.isUsed) } ?? true)
        }
        return try .docker(JSONValue.array(shown.map { $0.json(call.version, isAlone: false) }))
    }

    private func createNetwork(_ call: DockerCall) async throws -> Response {
        let wish = try await call.body(NetworkCreateRequest.self).wish()
        guard case .network(let view) = try await master.perform(.createNetwork(wish)) else {
            throw APIProblem.unexpected
        }
        let answer: JSONValue = ["Id": .string(view.network.id.text), "Warning": ""]
        return try .docker(answer, status: .created)
    }

    private func removeNetwork(_ ref: String) async throws -> Response {
        do {
            _ = try await master.perform(.removeNetwork(reference(ref)))
        } catch let problem as APIProblem where problem.code == .conflict {
            throw DockerError(403, problem.message)
        }
        return .noContent
    }

    private func pruneNetworks(_ call: DockerCall) async throws -> Response {
        let filters = try call.filters(["until", "label", "label!"])
        let body = PruneNetworks(
            until: try filters.moment("until"), labels: filters["label"],
            withoutLabels: filters["label!"])
        guard case .removed(let names) = try await master.perform(.pruneNetworks(body)) else {
            throw APIProblem.unexpected
        }
        let answer: JSONValue = ["NetworksDeleted": .listOrNull(names)]
        return try .docker(answer)
    }
}
