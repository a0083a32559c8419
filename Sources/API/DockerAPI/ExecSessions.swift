import Model
import Synchronization

/// The execs that were made and not forgotten yet; bounded in number and in bytes.
///
/// They live in this process's memory, as Docker's do. One that was never started is forgotten after ten minutes, one
/// that has ended after an hour or with its container.
final class ExecSessions: Sendable {
    private struct State: Sendable {
        var sessions: [String: ExecSession] = [:]
        var bytes = 0
        var swept = ContinuousClock.now
    }

    static let limit = 4096
    /// Of all commands and variables together.
    static let byteLimit = 64 << 20
    private static let unstartedLife = Duration.seconds(600)
    private static let endedLife = Duration.seconds(3600)

    private let state = Mutex(State())

    subscript(id: String) -> ExecSession? { state.withLock { $0.sessions[id] } }

    /// Those of a container that have not ended.
    func running(in container: ContainerID) -> [String] {
        state.withLock { $0.sessions.values.filter { $0.container == container && !$0.isOver }.map(\.id).sorted() }
    }

    /// - Throws: `DockerError` 503 when too many run.
    func add(_ session: ExecSession) throws(DockerError) {
        let fits = state.withLock { state in
            let now = ContinuousClock.now
            if now - state.swept > .seconds(60) || !Self.fits(session, state) { Self.sweep(&state, now) }
            while !Self.fits(session, state) {
                guard let oldest = Self.dispensable(state) else { return false }
                Self.remove(oldest, &state)
            }
            state.sessions[session.id] = session
            state.bytes += session.bytes
            return true
        }
        guard fits else {
            throw DockerError(
                503,
                "no room for another exec: \(Self.limit) that run, or \(Self.byteLimit >> 20) MiB of their commands and "
                    + "variables, are the limit; end some first")
        }
    }

    func remove(_ id: String) { state.withLock { Self.remove(id, &$0) } }

    private static func fits(_ session: ExecSession, _ state: State) -> Bool {
        state.sessions.count < limit && state.bytes + session.bytes <= byteLimit
    }

    private static func remove(_ id: String, _ state: inout State) {
        if let old = state.sessions.removeValue(forKey: id) { state.bytes -= old.bytes }
    }

    private static func sweep(_ state: inout State, _ now: ContinuousClock.Instant) {
        state.swept = now
        for session in state.sessions.values {
            let (phase, since) = session.phase
            let life: Duration? =
                switch phase {
                case .made, .starting: unstartedLife
                case .running: nil
                case .ended: endedLife
                }
            if let life, now - since > life { remove(session.id, &state) }
        }
    }

    /// What goes first when there is no room: what ended longest ago, then what waits longest for its start.
    private static func dispensable(_ state: State) -> String? {
        var ended: (id: String, since: ContinuousClock.Instant)?
        var made: (id: String, since: ContinuousClock.Instant)?
        for session in state.sessions.values {
            let (phase, since) = session.phase
            switch phase {
            case .ended: if ended.map({ since < $0.since }) ?? true { ended = (session.id, since) }
            case .made: if made.map({ since < $0.since }) ?? true { made = (session.id, since) }
            case .starting, .running: break
            }
        }
        return ended?.id ?? made?.id
    }
}
