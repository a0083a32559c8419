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
            guard let view = state.instances(of: workload).first.flatMap({ containerView($0, now: now) }) else {
                throw Self.gone
            }
            return .container(view)
        case .service(let id):
            guard let view = state.workloads[id].flatMap({ serviceView($0, now: now) }) else { throw Self.gone }
            return .service(view)
        case .node(let id):
            guard let node = state.nodes[id] else { throw Self.gone }
            return .node(nodeView(node, explained: true, now: now))
        case .registered(let id):
            guard let node = state.nodes[id], let cluster = state.cluster else { throw Self.gone }
            return .registered(NodeRegistered(node: node, clusterID: cluster.id, settings: cluster.settings))
        case .token(let id):
            guard let token = state.tokens[id] else { throw Self.gone }
            return .token(TokenView(token))
        case .assignments(let id):
            return .assignments(id, state.tasks(on: id).compactMap { assignment(of: $0) })
        case .secret(let id):
            guard let secret = state.secrets[id] else { throw Self.gone }
            return .secret(secretView(secret))
        case .config(let id):
            guard let config = state.configs[id] else { throw Self.gone }
            return .config(configView(config))
        case .network(let id):
            guard let network = state.networks[id] else { throw Self.gone }
            return .network(networkView(network))
        case .removed(let names): return .removed(names)
        case .passThrough(let id, let signal):
            guard let location = state.instances[id].flatMap({ location(of: $0) }) else { throw Self.gone }
            return .passThrough(location, signal: signal)
        }
    }

    /// Removed by somebody else in the same transaction.
    private static let gone = APIProblem(.notFound, "it was removed in the meantime")

    private func answer(_ query: MasterQuery, now: Timestamp) throws(APIProblem) -> MasterReply {
        switch query {
        case .containers(let filter): return .containers(containers(filter, now: now))
        case .container(let ref):
            guard let view = containerView(try instance(ref), now: now) else { throw Self.gone }
            return .container(view)
        case .containerPage(let selection, let position, let limit):
            return .containerPage(page(selection, after: position, limit: limit, now: now))
        case .containersBeginning(let text, let limit):
            return .containerIDs(containers(beginning: text, limit: limit))
        case .services:
            let services = state.workloads.values.filter { $0.kind == .service && sees($0) }.sorted {
                $0.name < $1.name
            }
            return .services(services.compactMap { serviceView($0, now: now) })
        case .service(let ref):
            guard let view = serviceView(try service(ref), now: now) else { throw Self.gone }
            return .service(view)
        case .serviceContainers(let ref):
            return .containers(state.instances(of: try service(ref).id).compactMap { containerView($0, now: now) })
        case .revisions(let ref):
            let id = try service(ref).id
            let numbers = (state.indexes.revisionsByWorkload[id] ?? []).sorted(by: >)
            return .revisions(numbers.compactMap { state.revisions[RevisionKey(workload: id, number: $0)] })
        case .nodes:
            return .nodes(state.nodes.values.sorted { $0.name < $1.name }.map { nodeView($0, now: now) })
        case .node(let ref): return .node(nodeView(try node(ref), explained: true, now: now))
        case .assignments(let ref):
            let id = try node(ref).id
            return .assignments(id, state.tasks(on: id).compactMap { assignment(of: $0) })
        case .devices(let ref): return .devices(try deviceViews(of: ref))
        case .device(let id, let ref): return .device(try deviceView(id, on: ref))
        case .deviceUsage: return .deviceUsage(memory.mapValues { $0.usage(at: steady) })
        case .peers(let ref): return .peers(peers(of: try node(ref).id))
        case .images: return .images(imageViews())
        case .image(let name): return .image(try imageView(name))
        case .imageNodes(let name): return .nodes(try nodes(having: name).map { nodeView($0, now: now) })
        case .volumes: return .volumes(volumeViews(now: now))
        case .secrets: return .secrets(secretViews())
        case .secret(let ref): return .secret(secretView(try secret(ref)))
        case .sealedSecret(let ref): return .sealedSecret(try secret(ref))
        case .configs: return .configs(configViews())
        case .config(let ref): return .config(configView(try config(ref)))
        case .networks: return .networks(networkViews())
        case .network(let ref, let name): return .network(networkView(try network(ref), after: name))
        case .filesForTask(let task, let node): return try filesForTask(task, on: node)
        case .events(let since, let until):
            return .events(history.filter { $0.time >= since ?? $0.time && $0.time <= until ?? $0.time })
        case .cluster:
            guard let record = state.cluster else { throw APIProblem(.unavailable, "the cluster is being made") }
            return .cluster(clusterView(record))
        case .counts: return .counts(counts)
        case .tokens:
            return .tokens(
                state.tokens.values.sorted { ($0.createdAt, $0.id) < ($1.createdAt, $1.id) }.map(TokenView.init))
        case .location(let ref):
            guard let location = location(of: try instance(ref)) else { throw Self.gone }
            return .location(location)
        }
    }

    private func containers(_ filter: ContainerFilter, now: Timestamp) -> [ContainerView] {
        state.indexes.containers.older(than: nil, newerThan: nil).lazy.map(\.container).filter(filter.admits)
            .compactMap { state.instances[$0.position.instance] }.filter { sees($0) }
            .compactMap { containerView($0, now: now) }.filter(filter.shows)
            .sorted { ($1.createdAt, $0.name) < ($0.createdAt, $1.name) }
    }
}
