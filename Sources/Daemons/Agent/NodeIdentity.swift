import Glibc
import JSON
import Kernel
import Model

/// Who this node is, for ever: `DATA/agent.json`.
struct NodeIdentity: Sendable, Codable, Equatable {
    var schema = 1
    var node: NodeID
    /// The cluster that it belongs to; nil until it has registered.
    var cluster: String?
    /// The word that the master answered last, and the one that this process shows; see `NodeRegistration`.
    var session: String?
    var nextSession: String?

    /// Reads it, or makes it at the first start. Blocks.
    static func load(_ path: String) throws -> NodeIdentity {
        if File.exists(path) {
            do {
                return try JSONCoding.decode(NodeIdentity.self, from: File.read(path))
            } catch {
                throw AgentError(
                    "\(path) cannot be read: \(error); restore it, or remove the data directory for a new node")
            }
        }
        var random = SystemRandomNumberGenerator()
        let identity = NodeIdentity(node: NodeID.make(&random))
        try identity.save(path)
        return identity
    }

    func save(_ path: String) throws { try File.replace(path, with: JSONCoding.encode(self)) }
}
