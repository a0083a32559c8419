import Model
import Synchronization
import Wire

/// What the newest probes of this node's containers said. In memory only: after a restart of the agent it begins anew.
final class ProbeLog: Sendable {
    /// Probes of one container that are kept.
    static let depth = 5

    private let results = Mutex<[TaskID: [ProbeResult]]>([:])

    subscript(task: TaskID) -> [ProbeResult] { results.withLock { $0[task] ?? [] } }

    func note(_ result: ProbeResult, of task: TaskID) {
        results.withLock { $0[task] = ($0[task] ?? []).suffix(Self.depth - 1) + [result] }
    }

    func forget(_ task: TaskID) { results.withLock { $0[task] = nil } }
}
