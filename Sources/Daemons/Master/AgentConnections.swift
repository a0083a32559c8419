import Client
import ClusterSecurity
import MasterCore
import Model
import Synchronization
import Wire

/// How the master shows itself to agents on other machines, and knows them.
final class AgentConnections: Sendable {
    private struct Keys: Sendable {
        var identity: ClientIdentity
        var authority: String
    }

    private let keys = Mutex<Keys?>(nil)

    func use(_ credentials: Credentials) throws {
        let identity = try ClientIdentity(certificate: credentials.certificate, key: credentials.key)
        keys.withLock { $0 = Keys(identity: identity, authority: credentials.authority) }
    }

    /// - Throws: `ClientError` for an address that cannot be understood, `APIProblem` while there is no certificate yet.
    func client(_ endpoint: String, node: NodeID) throws -> APIClient {
        let address = try ServerAddress(endpoint)
        guard case .tls = address else { return APIClient(address, role: .agent) }
        guard let keys = keys.withLock({ $0 }) else {
            throw APIProblem(.unavailable, "the master has no certificate for other machines yet; try again")
        }
        let verification = PeerVerification(.certificate(keys.authority), expecting: .node(node.text))
        return APIClient(
            address, role: .agent, tls: ClientTLS(keys.identity) { try await verification.verify(chain: $0) })
    }
}

extension ClusterMaster {
    /// The streams of a node's agent.
    package nonisolated func streams(_ node: Node) throws(APIProblem) -> NodeStreams {
        try streams(endpoint: node.streamEndpoint, node: node.id, name: node.name)
    }

    /// The streams of the agent that has a container.
    package nonisolated func streams(_ location: TaskLocation) throws(APIProblem) -> NodeStreams {
        guard let node = location.node else {
            throw APIProblem(.conflict, "the container \(location.name) has no node")
        }
        return try streams(endpoint: location.streamEndpoint, node: node, name: location.nodeName)
    }

    private nonisolated func streams(endpoint: String, node: NodeID, name: String) throws(APIProblem) -> NodeStreams {
        do {
            return NodeStreams(try agents.client(endpoint, node: node), nodeName: name)
        } catch let problem as APIProblem {
            throw problem
        } catch {
            throw APIProblem(.unavailable, "the node \(name) cannot be reached at '\(endpoint)': \(error)")
        }
    }
}
