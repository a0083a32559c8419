import JSON
import MasterCore
import Model
import Wire

/// What there is now, and every change after it, without a gap or a repetition.
package struct Watch<Object: Sendable & Codable>: Sendable {
    package let present: [Object]
    package let changes: AsyncThrowingStream<WatchLine<Object>, any Error>
}

/// What a node hears of others on its overlays: all, and every change after it. Lines come in the batches in which they
/// were told, which all who hear them have in common.
package struct PeerWatch: Sendable {
    package let present: PeerList
    package let changes: AsyncThrowingStream<[WatchLine<NetworkPeer>], any Error>
}

extension ClusterMaster {
    package func watchContainers() async throws(APIProblem) -> Watch<ContainerView> {
        let watches = watches
        return try await ask({ .query($0, .containers(ContainerFilter()), by: Subject.current) }) { reply in
            guard case .containers(let views) = reply else { return .failure(.unexpected) }
            return .success(Watch(present: views, changes: watches.containers(only: nil)))
        }
    }

    package func watchServices() async throws(APIProblem) -> Watch<ServiceView> {
        let watches = watches
        return try await ask({ .query($0, .services, by: Subject.current) }) { reply in
            guard case .services(let views) = reply else { return .failure(.unexpected) }
            return .success(Watch(present: views, changes: watches.services()))
        }
    }

    package func watchNodes() async throws(APIProblem) -> Watch<NodeView> {
        let watches = watches
        return try await ask({ .query($0, .nodes, by: Subject.current) }) { reply in
            guard case .nodes(let views) = reply else { return .failure(.unexpected) }
            return .success(Watch(present: views, changes: watches.nodes()))
        }
    }

    /// One container by its reference.
    func watchContainer(_ ref: String) async throws(APIProblem) -> (
        present: ContainerView, changes: AsyncThrowingStream<WatchLine<ContainerView>, any Error>
    ) {
        let watches = watches
        return try await ask({ .query($0, .container(ref), by: Subject.current) }) { reply in
            guard case .container(let view) = reply else { return .failure(.unexpected) }
            return .success((view, watches.containers(only: view.id)))
        }
    }

    /// A node's tasks, for its agent; the node counts as connected until `nodeLeft`.
    package func watchTasks(of node: String) async throws(APIProblem) -> (node: NodeID, watch: Watch<TaskAssignment>) {
        let watches = watches
        return try await ask({ .command($0, .connectNode(node), by: Subject.current) }) { reply in
            guard case .assignments(let id, let list) = reply else { return .failure(.unexpected) }
            return .success((id, Watch(present: list, changes: watches.tasks(of: id))))
        }
    }

    /// What other nodes have of a node's overlays, for its agent.
    package func watchPeers(of node: String) async throws(APIProblem) -> PeerWatch {
        let watches = watches
        return try await ask({ .query($0, .peers(node), by: Subject.current) }) { reply in
            guard case .peers(let list) = reply else { return .failure(.unexpected) }
            return .success(PeerWatch(present: list, changes: watches.peers(of: list.node)))
        }
    }

    /// The watch of a node's tasks has ended.
    package func nodeLeft(_ node: NodeID) {
        // A newer watch may have ended this one.
        if !watches.watchesTasks(of: node) { step(.nodeDisconnected(node)) }
    }

    /// How many follow the events.
    package nonisolated var eventListeners: Int { watches.eventListeners }

    /// The history since `since`, and what happens after it; nil elements are signs of life.
    package func followEvents(
        since: Timestamp?
    ) async throws(APIProblem) -> (history: [Event], following: AsyncThrowingStream<Event?, any Error>) {
        let watches = watches
        return try await ask({ .query($0, .events(since: since, until: nil), by: Subject.current) }) { reply in
            guard case .events(let history) = reply else { return .failure(.unexpected) }
            return .success((history, watches.events()))
        }
    }
}

extension APIProblem {
    /// A reply of another kind than the question's: a mistake of ours.
    package static let unexpected = APIProblem(.internal, "the master answered something else than it was asked")
}
