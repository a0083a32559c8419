import Glibc
import Synchronization

/// Keeps the garbage collection of a network apart from its ADD and DEL (CNI specification 1.1, "lifecycle & ordering"):
/// what is just being attached is not among the valid attachments yet.
///
/// There is one for each network of a cache in this process, whoever makes a host for it.
// @unchecked: what the pointer leads to is made for use by many threads, and freed when nobody has the gate any more.
final class NetworkGate: @unchecked Sendable {
    private let lock = UnsafeMutablePointer<pthread_rwlock_t>.allocate(capacity: 1)

    private struct Entry {
        weak var gate: NetworkGate?
    }

    private static let known = Mutex<[String: Entry]>([:])

    /// The gate of a network whose records are in a directory.
    static func of(_ network: String, in directory: String) -> NetworkGate {
        let key = "\(directory)/\(network)"
        return known.withLock { known in
            if let gate = known[key]?.gate { return gate }
            known = known.filter { $0.value.gate != nil }
            let gate = NetworkGate()
            known[key] = Entry(gate: gate)
            return gate
        }
    }

    private init() { pthread_rwlock_init(lock, nil) }

    deinit {
        pthread_rwlock_destroy(lock)
        lock.deallocate()
    }

    /// Runs `body` beside others of this kind. Not from within `body` again.
    func shared<T>(_ body: () throws(CNIHostError) -> T) throws(CNIHostError) -> T {
        pthread_rwlock_rdlock(lock)
        defer { pthread_rwlock_unlock(lock) }
        return try body()
    }

    /// Runs `body` alone.
    func alone<T>(_ body: () throws(CNIHostError) -> T) throws(CNIHostError) -> T {
        pthread_rwlock_wrlock(lock)
        defer { pthread_rwlock_unlock(lock) }
        return try body()
    }
}
