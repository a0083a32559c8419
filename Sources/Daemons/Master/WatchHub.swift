import MasterCore
import Model
import Synchronization
import Wire

/// Hands changes to those who watch. A watcher that does not keep up is cut off, and may begin anew.
final class WatchHub: Sendable {
    /// Lines that wait for a slow watcher.
    private static let buffer = 16_384
    /// Seconds of silence after which a watch says that it is alive.
    private static let silence = 5

    private struct Watcher {
        var kind: Kind
        var silent = 0
    }

    private enum Kind {
        /// `only` nil: all containers.
        case containers(only: ContainerID?, Stream<ContainerView>)
        case services(Stream<ServiceView>)
        case nodes(Stream<NodeView>)
        case tasks(NodeID, Stream<TaskAssignment>)
        case peers(NodeID, Stream<NetworkPeer>)
        case events(AsyncThrowingStream<Event?, any Error>.Continuation)
    }

    private typealias Stream<Object: Sendable & Codable> = AsyncThrowingStream<WatchLine<Object>, any Error>
        .Continuation

    private struct State {
        var watchers: [Int: Watcher] = [:]
        var next = 0
        /// The watch of its peers that a node began last: a change is told to thousands of them.
        var peers: [NodeID: Int] = [:]
    }

    private let state = Mutex(State())

    var count: Int { state.withLock { $0.watchers.count } }

    var eventListeners: Int {
        state.withLock { $0.watchers.values.count { if case .events = $0.kind { true } else { false } } }
    }

    // MARK: Joining

    func containers(only id: ContainerID?) -> AsyncThrowingStream<WatchLine<ContainerView>, any Error> {
        join { .containers(only: id, $0) }
    }

    func services() -> AsyncThrowingStream<WatchLine<ServiceView>, any Error> { join { .services($0) } }

    func nodes() -> AsyncThrowingStream<WatchLine<NodeView>, any Error> { join { .nodes($0) } }

    /// A node has one watch: an older one ends.
    func tasks(of node: NodeID) -> AsyncThrowingStream<WatchLine<TaskAssignment>, any Error> {
        let older = state.withLock { state in
            let found = state.watchers.filter { if case .tasks(node, _) = $0.value.kind { true } else { false } }
            for id in found.keys { state.watchers[id] = nil }
            return found.values.map(\.kind)
        }
        for kind in older { Self.finish(kind, throwing: nil) }
        return join { .tasks(node, $0) }
    }

    /// The same for its peers.
    func peers(of node: NodeID) -> AsyncThrowingStream<WatchLine<NetworkPeer>, any Error> {
        let older = state.withLock { state in
            state.peers.removeValue(forKey: node).flatMap { state.watchers.removeValue(forKey: $0)?.kind }
        }
        if let older { Self.finish(older, throwing: nil) }
        return join { .peers(node, $0) }
    }

    /// nil elements are signs of life.
    func events() -> AsyncThrowingStream<Event?, any Error> { join { .events($0) } }

    private func join<Element: Sendable>(
        _ kind: (AsyncThrowingStream<Element, any Error>.Continuation) -> Kind
    ) -> AsyncThrowingStream<Element, any Error> {
        let (stream, continuation) = AsyncThrowingStream<Element, any Error>.makeStream(
            bufferingPolicy: .bufferingOldest(Self.buffer))
        let id = state.withLock { state in
            state.next += 1
            let kind = kind(continuation)
            state.watchers[state.next] = Watcher(kind: kind)
            if case .peers(let node, _) = kind { state.peers[node] = state.next }
            return state.next
        }
        continuation.onTermination = { [weak self] _ in self?.state.withLock { $0.watchers[id] = nil } }
        return stream
    }

    // MARK: Telling

    func tell(_ change: ObjectChange) {
        each { kind in
            switch (change, kind) {
            case (.container(let line), .containers(let only, let stream)):
                only == nil || only?.text == line.id ? Self.told(stream.yield(line)) : .untouched
            case (.service(let line), .services(let stream)): Self.told(stream.yield(line))
            case (.node(let line), .nodes(let stream)): Self.told(stream.yield(line))
            default: .untouched
            }
        }
    }

    func assign(_ node: NodeID, _ lines: [WatchLine<TaskAssignment>]) {
        for line in lines {
            each { kind in
                guard case .tasks(node, let stream) = kind else { return .untouched }
                return Self.told(stream.yield(line))
            }
        }
    }

    func tellPeers(_ node: NodeID, _ lines: [WatchLine<NetworkPeer>]) {
        let found = state.withLock { state in state.peers[node].flatMap { id in state.watchers[id].map { (id, $0) } } }
        guard let (id, watcher) = found, case .peers(_, let stream) = watcher.kind else { return }
        for line in lines {
            guard hand(id, watcher, { _ in Self.told(stream.yield(line)) }) else { return }
        }
    }

    func tell(_ event: Event) {
        each { kind in
            guard case .events(let stream) = kind else { return .untouched }
            return Self.told(stream.yield(event))
        }
    }

    /// Comes once a second: who has heard nothing for a while gets a sign of life.
    func beat() {
        let silent = state.withLock { state in
            for id in state.watchers.keys { state.watchers[id]?.silent += 1 }
            let silent = state.watchers.filter { $0.value.silent >= Self.silence }
            for id in silent.keys { state.watchers[id]?.silent = 0 }
            return silent.values.map(\.kind)
        }
        for kind in silent {
            switch kind {
            case .containers(_, let stream): stream.yield(WatchLine(.heartbeat))
            case .services(let stream): stream.yield(WatchLine(.heartbeat))
            case .nodes(let stream): stream.yield(WatchLine(.heartbeat))
            case .tasks(_, let stream): stream.yield(WatchLine(.heartbeat))
            case .peers(_, let stream): stream.yield(WatchLine(.heartbeat))
            case .events(let stream): stream.yield(nil)
            }
        }
    }

    /// Whether a node's tasks are watched.
    func watchesTasks(of node: NodeID) -> Bool {
        state.withLock { state in
            state.watchers.values.contains { if case .tasks(node, _) = $0.kind { true } else { false } }
        }
    }

    /// Ends the watches of all agents; they begin anew.
    func endTasks() {
        let found = state.withLock { state in
            let found = state.watchers.filter {
                switch $0.value.kind {
                case .tasks, .peers: true
                case .containers, .services, .nodes, .events: false
                }
            }
            for id in found.keys { state.watchers[id] = nil }
            return found.values.map(\.kind)
        }
        for kind in found { Self.finish(kind, throwing: nil) }
    }

    func endAll() {
        let all = state.withLock { state in
            defer { state.watchers = [:] }
            return state.watchers.values.map(\.kind)
        }
        for kind in all { Self.finish(kind, throwing: nil) }
    }

    private enum Outcome { case untouched, told, tooSlow }

    private static func told<Element>(_ result: AsyncThrowingStream<Element, any Error>.Continuation.YieldResult)
        -> Outcome
    {
        if case .dropped = result { .tooSlow } else { .told }
    }

    /// Hands something to every watcher. Continuations are called outside the lock: their end comes back here.
    private func each(_ hand: (Kind) -> Outcome) {
        let all = state.withLock { $0.watchers }
        for (id, watcher) in all { _ = self.hand(id, watcher, hand) }
    }

    /// - Returns: whether the watcher is still there.
    private func hand(_ id: Int, _ watcher: Watcher, _ hand: (Kind) -> Outcome) -> Bool {
        switch hand(watcher.kind) {
        case .untouched: break
        case .told: state.withLock { $0.watchers[id]?.silent = 0 }
        case .tooSlow:
            state.withLock { $0.watchers[id] = nil }
            Self.finish(
                watcher.kind,
                throwing: APIProblem(.unavailable, "the watch was not read fast enough; begin it anew"))
            return false
        }
        return true
    }

    private static func finish(_ kind: Kind, throwing error: APIProblem?) {
        switch kind {
        case .containers(_, let stream): stream.finish(throwing: error)
        case .services(let stream): stream.finish(throwing: error)
        case .nodes(let stream): stream.finish(throwing: error)
        case .tasks(_, let stream): stream.finish(throwing: error)
        case .peers(_, let stream): stream.finish(throwing: error)
        case .events(let stream): stream.finish(throwing: error)
        }
    }
}
