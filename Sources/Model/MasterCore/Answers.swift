import JSON
import Model
import Wire

/// Replies, put into words from committed state.
extension MasterCore {
    func answer(_ reply: PendingReply, now: Timestamp) -> Result<MasterReply, APIProblem> {
        do {
            return .success(try answerOrThrow(reply, now: now))
        } catch {
            return .failure(error)
        }
    }

    private func answerOrThrow(_ reply: PendingReply, now: Timestamp) throws(APIProblem) -> MasterReply {
        switch reply {
        case .done: return .done
        case .alreadySo: return .alreadySo
        case .problem(let problem): throw problem
        case .query(let query): return try answer(query, now: now)
        case .containerOf(let workload):
            guard let view = state.instances(of: workload).first.flatMap({ containerView($0) }) else { throw Self.gone }
            return .container(view)
        case .service(let id):
            guard let view = state.workloads[id].flatMap({ serviceView($0) }) else { throw Self.gone }
            return .service(view)
        case .node(let id):
            guard let node = state.nodes[id] else { throw Self.gone }
            return .node(nodeView(node, now: now))
        case .registered(let id):
            guard let node = state.nodes[id], let cluster = state.cluster else { throw Self.gone }
            return .registered(NodeRegistered(node: node, clusterID: cluster.id))
        case .assignments(let id):
            return .assignments(id, state.tasks(on: id).compactMap { assignment(of: $0) })
        case .passThrough(let id, let signal):
            guard let location = state.instances[id].flatMap({ location(of: $0) }) else { throw Self.gone }
            return .passThrough(location, signal: signal)
        }
    }

    /// Removed by somebody else in the same transaction.
    private static let gone = APIProblem(.notFound, "it was removed in the meantime")

    private func answer(_ query: MasterQuery, now: Timestamp) throws(APIProblem) -> MasterReply {
        switch query {
        case .containers(let filter): return .containers(containers(filter))
        case .container(let ref):
            guard let view = containerView(try instance(ref)) else { throw Self.gone }
            return .container(view)
        case .services:
            let services = state.workloads.values.filter { $0.kind == .service }.sorted { $0.name < $1.name }
            return .services(services.compactMap { serviceView($0) })
        case .service(let ref):
            guard let view = serviceView(try service(ref)) else { throw Self.gone }
            return .service(view)
        case .serviceContainers(let ref):
            return .containers(state.instances(of: try service(ref).id).compactMap { containerView($0) })
        case .revisions(let ref):
            let id = try service(ref).id
            let numbers = (state.indexes.revisionsByWorkload[id] ?? []).sorted(by: >)
            return .revisions(numbers.compactMap { state.revisions[RevisionKey(workload: id, number: $0)] })
        case .nodes:
            return .nodes(state.nodes.values.sorted { $0.name < $1.name }.map { nodeView($0, now: now) })
        case .node(let ref): return .node(nodeView(try node(ref), now: now))
        case .assignments(let ref):
            let id = try node(ref).id
            return .assignments(id, state.tasks(on: id).compactMap { assignment(of: $0) })
        case .images: return .images(imageViews())
        case .imageNodes(let name): return .nodes(try nodes(having: name).map { nodeView($0, now: now) })
        case .volumes:
            let all = memory.sorted { $0.key < $1.key }.flatMap { $0.value.volumes }
            return .volumes(all.sorted { ($0.name, $0.node) < ($1.name, $1.node) })
        case .events(let since, let until):
            return .events(history.filter { $0.time >= since ?? $0.time && $0.time <= until ?? $0.time })
        case .cluster:
            guard let record = state.cluster else { throw APIProblem(.unavailable, "the cluster is being made") }
            return .cluster(clusterView(record))
        case .location(let ref):
            guard let location = location(of: try instance(ref)) else { throw Self.gone }
            return .location(location)
        }
    }

    private func containers(_ filter: ContainerFilter) -> [ContainerView] {
        state.instances.values.compactMap { containerView($0) }.filter(filter.shows)
            .sorted { ($1.createdAt, $0.name) < ($0.createdAt, $1.name) }
    }
}
