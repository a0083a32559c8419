import NIOCore
import Synchronization

/// Counts connections from the network that have shown no credential yet, by address, so that nobody without one can
/// take all connections that a listener has room for.
final class Strangers: Sendable {
    private let open = Mutex<[String: Set<ObjectIdentifier>]>([:])

    /// - Returns: how many there are of this address, with the new one.
    func enter(_ address: String, _ channel: any Channel) -> Int {
        open.withLock { open in
            open[address, default: []].insert(ObjectIdentifier(channel))
            return open[address]?.count ?? 0
        }
    }

    /// It has shown a credential, or is closed; again does nothing.
    func leave(_ address: String, _ channel: any Channel) {
        open.withLock { open in
            open[address]?.remove(ObjectIdentifier(channel))
            if open[address]?.isEmpty == true { open[address] = nil }
        }
    }
}
