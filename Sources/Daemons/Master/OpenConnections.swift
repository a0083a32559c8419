import HTTPService
import JSON
import MasterCore
import Model
import Synchronization

/// The connections on which a credential was shown, so that what is streaming ends when the credential does.
final class OpenConnections: Sendable {
    private struct Entry: Sendable {
        let connection: ClientConnection
        /// Who made the newest request; earlier ones are over.
        var subject: Subject
    }

    private let open = Mutex<[ObjectIdentifier: Entry]>([:])

    func note(_ connection: ClientConnection, _ subject: Subject) {
        let id = ObjectIdentifier(connection)
        let isNew = open.withLock { open in
            defer { open[id] = Entry(connection: connection, subject: subject) }
            return open[id] == nil
        }
        // The connection is held here until then, so that its identifier is nobody else's.
        if isNew { connection.whenClosed { _ = self.open.withLock { $0.removeValue(forKey: id) } } }
    }

    /// Cuts those whose credential does not count any more.
    func cut(unless counts: (Subject) -> Bool) {
        for entry in open.withLock({ Array($0.values) }) where !counts(entry.subject) { entry.connection.abort() }
    }
}

extension ClusterMaster {
    /// Cuts connections of tokens that were revoked or have run out, and of nodes that were removed.
    func cutStaleConnections() {
        let (core, now) = (core, Timestamp.now())
        connections.cut { subject in
            switch subject {
            case .user(let id, _, _, _): core.validToken(id, now: now) != nil
            case .node(let id): core.hasNode(id)
            case .master, .local, .anonymous: true
            }
        }
    }
}
