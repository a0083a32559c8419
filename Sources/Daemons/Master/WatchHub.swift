import MasterCore
import Model
import Synchronization
import Wire

/// Hands changes to those who watch. A watcher that does not keep up is cut off, and may begin anew.
final class WatchHub: Sendable {
    /// Lines that wait for a slow watcher.
    private static let buffer = 16_384
    /// The same for batches of lines, each as large as a network may be.
    private static let batches = 256
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
        /// In batches, which all who are told of a change have in common.
        case peers(NodeID, AsyncThrowingStream<[WatchLine<NetworkPeer>], any Error>.Continuation)
        case events(AsyncThrowingStream<Event?, any Error>.Continuation)

        /// nil: it is no agent's.
        var post: Post? {
            switch self {
            case .tasks(let node, _): .tasks(node)
            case .peers(let node, _): .peers(node)
            case .containers, .services, .nodes, .events: nil
            }
        }
    }

    private typealias Stream<Object: Sendable & Codable> = AsyncThrowingStream<WatchLine<Object>, any Error>
        .Continuation

    /// What an agent has one watch of.
    private enum Post: Hashable {
        case tasks(NodeID)
        case peers(NodeID)
    }

    /// People's watches hear of everything and are few; agents' are thousands, and found by their nodes, so that what is
    /// for one of them costs nothing with the others.
    private struct State {
        var people: [Int: Watcher] = [:]
        var agents: [Int: Watcher] = [:]
        var posts: [Post: Int] = [:]
        var next = 0

        mutating func insert(_ kind: Kind) -> Int {
            next += 1
            if let post = kind.post {
                agents[next] = Watcher(kind: kind)
                posts[post] = next
            } else {
                people[next] = Watcher(kind: kind)
            }
            return next
        }

        mutating func remove(_ id: Int) {
            people[id] = nil
            guard let kind = agents.removeValue(forKey: id)?.kind, let post = kind.post, posts[post] == id else {
                return
            }
            posts[post] = nil
        }

        /// An older watch of the same.
        mutating func removeWatcher(of post: Post) -> Kind? {
            posts.removeValue(forKey: post).flatMap { agents.removeValue(forKey: $0)?.kind }
        }

        mutating func removeAgents() -> [Kind] {
            defer { (agents, posts) = ([:], [:]) }
            return agents.values.map(\.kind)
        }

        func agent(_ post: Post) -> (id: Int, kind: Kind)? {
            posts[post].flatMap { id in agents[id].map { (id: id, kind: $0.kind) } }
        }

        mutating func hears(_ id: Int) {
            people[id]?.silent = 0
            agents[id]?.silent = 0
        }
    }

    private let state = Mutex(State())

    var count: Int { state.withLock { $0.people.count + $0.agents.count } }

    var eventListeners: Int {
        state.withLock { $0.people.values.count { if case .events = $0.kind { true } else { false } } }
    }

    // MARK: Joining

    func containers(only id: ContainerID?) -> AsyncThrowingStream<WatchLine<ContainerView>, any Error> {
        join { .containers(only: id, $0) }
    }

    func services() -> AsyncThrowingStream<WatchLine<ServiceView>, any Error> { join { .services($0) } }

    func nodes() -> AsyncThrowingStream<WatchLine<NodeView>, any Error> { join { .nodes($0) } }

    /// A node has one watch: an older one ends.
    func tasks(of node: NodeID) -> AsyncThrowingStream<WatchLine<TaskAssignment>, any Error> {
        endWatch(.tasks(node))
        return join { .tasks(node, $0) }
    }

    /// The same for its peers.
    func peers(of node: NodeID) -> AsyncThrowingStream<[WatchLine<NetworkPeer>], any Error> {
        endWatch(.peers(node))
        return join(buffer: Self.batches) { .peers(node, $0) }
    }

    private func endWatch(_ post: Post) {
        if let older = state.withLock({ $0.removeWatcher(of: post) }) { Self.finish(older, throwing: nil) }
    }

    /// nil elements are signs of life.
    func events() -> AsyncThrowingStream<Event?, any Error> { join { .events($0) } }

    private func join<Element: Sendable>(
        buffer: Int = WatchHub.buffer, _ kind: (AsyncThrowingStream<Element, any Error>.Continuation) -> Kind
    ) -> AsyncThrowingStream<Element, any Error> {
        let (stream, continuation) = AsyncThrowingStream<Element, any Error>.makeStream(
            bufferingPolicy: .bufferingOldest(buffer))
        let kind = kind(continuation)
        let id = state.withLock { $0.insert(kind) }
        continuation.onTermination = { [weak self] _ in self?.state.withLock { $0.remove(id) } }
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
        guard let (id, kind) = state.withLock({ $0.agent(.tasks(node)) }), case .tasks(_, let stream) = kind else {
            return
        }
        for line in lines {
            guard hand(id, kind, { _ in Self.told(stream.yield(line)) }) else { return }
        }
    }

    /// The same lines for all of them: those about itself a node leaves out when it writes them.
    func tellPeers(_ nodes: [NodeID], _ lines: [WatchLine<NetworkPeer>]) {
        let found = state.withLock { state in nodes.compactMap { state.agent(.peers($0)) } }
        for (id, kind) in found {
            guard case .peers(_, let stream) = kind else { continue }
            _ = hand(id, kind) { _ in Self.told(stream.yield(lines)) }
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
            Self.countSilence(&state.people) + Self.countSilence(&state.agents)
        }
        for kind in silent {
            switch kind {
            case .containers(_, let stream): stream.yield(WatchLine(.heartbeat))
            case .services(let stream): stream.yield(WatchLine(.heartbeat))
            case .nodes(let stream): stream.yield(WatchLine(.heartbeat))
            case .tasks(_, let stream): stream.yield(WatchLine(.heartbeat))
            case .peers(_, let stream): stream.yield([WatchLine(.heartbeat)])
            case .events(let stream): stream.yield(nil)
            }
        }
    }

    /// - Returns: those that have heard nothing for long enough.
    private static func countSilence(_ watchers: inout [Int: Watcher]) -> [Kind] {
        var silent: [Kind] = []
        for id in watchers.keys {
            watchers[id]?.silent += 1
            guard let watcher = watchers[id], watcher.silent >= Self.silence else { continue }
            watchers[id]?.silent = 0
            silent.append(watcher.kind)
        }
        return silent
    }

    /// Whether a node's tasks are watched.
    func watchesTasks(of node: NodeID) -> Bool { state.withLock { $0.posts[.tasks(node)] != nil } }

    /// Ends the watches of all agents; they begin anew.
    func endTasks() {
        for kind in state.withLock({ $0.removeAgents() }) { Self.finish(kind, throwing: nil) }
    }

    func endAll() {
        let all = state.withLock { state in
            defer { state.people = [:] }
            return state.people.values.map(\.kind) + state.removeAgents()
        }
        for kind in all { Self.finish(kind, throwing: nil) }
    }

    private enum Outcome { case untouched, told, tooSlow }

    private static func told<Element>(_ result: AsyncThrowingStream<Element, any Error>.Continuation.YieldResult)
        -> Outcome
    {
        if case .dropped = result { .tooSlow } else { .told }
    }

    /// Hands something to everybody but agents. Continuations are called outside the lock: their end comes back here.
    private func each(_ hand: (Kind) -> Outcome) {
        let all = state.withLock { $0.people.map { ($0.key, $0.value.kind) } }
        for (id, kind) in all { _ = self.hand(id, kind, hand) }
    }

    /// - Returns: whether the watcher is still there.
    private func hand(_ id: Int, _ kind: Kind, _ hand: (Kind) -> Outcome) -> Bool {
        switch hand(kind) {
        case .untouched: break
        case .told: state.withLock { $0.hears(id) }
        case .tooSlow:
            state.withLock { $0.remove(id) }
            Self.finish(
                kind,
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
