import JSON
import Model
import Wire

/// One write of a transaction. All hold only if each key is still as it was read.
package struct StoreWrite: Sendable, Hashable {
    package var key: String
    /// nil: delete.
    package var value: [UInt8]?
    /// The key's modification revision as it must be now; 0: the key does not exist.
    package var expectedRevision: Int64

    package init(key: String, value: [UInt8]?, expectedRevision: Int64) {
        self.key = key
        self.value = value
        self.expectedRevision = expectedRevision
    }
}

/// One key as it was read from the store.
package struct StoreRecord: Sendable, Hashable {
    package var key: String
    package var value: [UInt8]
    package var modificationRevision: Int64

    package init(key: String, value: [UInt8], modificationRevision: Int64) {
        self.key = key
        self.value = value
        self.modificationRevision = modificationRevision
    }
}

/// Why a transaction was not done.
package enum StoreFailure: Error, Sendable, Hashable, CustomStringConvertible {
    /// The disk is full.
    case full(String)
    case unavailable(String)
    /// Somebody else wrote to the store.
    case conflict(String)

    package var description: String {
        switch self {
        case .full(let text), .unavailable(let text), .conflict(let text): text
        }
    }
}

/// The cluster's own record.
package struct ClusterRecord: Sendable, Hashable, Codable {
    package var id: String
    package var createdAt: Timestamp
    /// nil: other machines cannot join yet.
    package var settings: ClusterSettings?
}

struct RevisionKey: Hashable {
    let workload: WorkloadID
    let number: Int
}

struct VolumeKey: Hashable {
    let node: NodeID
    let name: String
}

/// Where an object is kept; `text` is its key in the store.
enum ObjectKey: Hashable, Sendable {
    case cluster
    case node(NodeID)
    case workload(WorkloadID)
    case revision(RevisionKey)
    case instance(InstanceID)
    case task(TaskID)
    indirect case claim(Claim.Resource)
    case token(TokenID)
    case secret(SecretID)
    case config(ConfigID)
    indirect case volume(VolumeKey)
    case network(NetworkID)

    var isTask: Bool { if case .task = self { true } else { false } }

    var text: String {
        switch self {
        case .cluster: "cluster"
        case .node(let id): "nodes/\(id)"
        case .workload(let id): "workloads/\(id)"
        case .revision(let key): "revisions/\(key.workload)/\(key.number)"
        case .instance(let id): "instances/\(id)"
        case .task(let id): "tasks/\(id)"
        case .token(let id): "tokens/\(id)"
        case .secret(let id): "secrets/\(id)"
        case .config(let id): "configs/\(id)"
        case .volume(let key): "volumes/\(key.node)/\(key.name)"
        case .network(let id): "networks/\(id)"
        case .claim(.port(let node, let transport, let address, let number)):
            "claims/port/\(node)/\(transport.rawValue)/\(address.isEmpty ? "*" : address)/\(number)"
        }
    }
}

/// Anything that the store holds.
enum StoredObject: Hashable, Sendable {
    case cluster(ClusterRecord)
    case node(Node)
    case workload(Workload)
    case revision(Revision)
    case instance(Instance)
    case task(NodeTask)
    case claim(Claim)
    case token(Token)
    case secret(Secret)
    case config(Config)
    case volume(VolumeRecord)
    case network(Network)

    /// `{"schema": 1, "object": {…}}`; members that this version does not know are left alone when reading.
    private struct Envelope<Object: Codable>: Codable {
        var schema: Int
        var object: Object
    }

    private static let schema = 4
    /// What versions understand as well that know nothing of processors of one's own and never change the devices of what runs:
    /// they would give these to others, or back to who has left them.
    private static let deviceSchema = 3
    /// What versions without claims of devices understand as well; they are not to read what would lose its devices by it.
    private static let overlaySchema = 2
    /// What versions without overlays understand as well; they are not to read what would lose its addresses by it.
    private static let firstSchema = 1

    /// Whom it belongs to, when that is to be reconciled after a change of it.
    var workload: WorkloadID? {
        switch self {
        case .workload(let workload): workload.id
        case .instance(let instance): instance.workload
        case .task(let task): task.workload
        case .cluster, .node, .revision, .claim, .token, .secret, .config, .volume, .network: nil
        }
    }

    var key: ObjectKey {
        switch self {
        case .cluster: .cluster
        case .node(let node): .node(node.id)
        case .workload(let workload): .workload(workload.id)
        case .revision(let revision): .revision(RevisionKey(workload: revision.workload, number: revision.number))
        case .instance(let instance): .instance(instance.id)
        case .task(let task): .task(task.id)
        case .claim(let claim): .claim(claim.resource)
        case .token(let token): .token(token.id)
        case .secret(let secret): .secret(secret.id)
        case .config(let config): .config(config.id)
        case .volume(let volume): .volume(VolumeKey(node: volume.node, name: volume.name))
        case .network(let network): .network(network.id)
        }
    }

    func encoded() throws -> [UInt8] {
        switch self {
        case .cluster(let object): try Self.encode(object)
        case .node(let object): try Self.encode(object)
        case .workload(let object): try Self.encode(object)
        case .revision(let object):
            try Self.encode(
                object,
                schema: object.pod.containers.contains { $0.limits.pinning != nil || !$0.limits.hugepages.isEmpty }
                    ? Self.schema
                    : object.pod.containers.allSatisfy(\.deviceClaims.isEmpty) ? Self.firstSchema : Self.deviceSchema)
        case .instance(let object): try Self.encode(object)
        case .task(let object):
            try Self.encode(
                object,
                schema: !object.grantedProcessors.isEmpty || object.grantedDevices.contains { $0.leftAt != nil }
                    ? Self.schema
                    : !object.grantedDevices.isEmpty
                        ? Self.deviceSchema : object.addresses.isEmpty ? Self.firstSchema : Self.overlaySchema)
        case .claim(let object): try Self.encode(object)
        case .token(let object): try Self.encode(object)
        case .secret(let object): try Self.encode(object)
        case .config(let object): try Self.encode(object)
        case .volume(let object): try Self.encode(object)
        case .network(let object):
            try Self.encode(object, schema: object.isOfOneNode ? Self.firstSchema : Self.overlaySchema)
        }
    }

    private static func encode(_ object: some Codable, schema: Int = firstSchema) throws -> [UInt8] {
        try JSONCoding.encode(Envelope(schema: schema, object: object))
    }

    /// Reads a record; nil: a key of another kind.
    ///
    /// - Throws: `UnreadableRecord` for a damaged value or one of a newer schema.
    init?(_ record: StoreRecord) throws(UnreadableRecord) {
        func object<Object: Codable>(_ type: Object.Type) throws(UnreadableRecord) -> Object {
            do {
                let envelope = try JSONCoding.decode(Envelope<Object>.self, from: record.value)
                guard envelope.schema <= Self.schema else {
                    throw UnreadableRecord(
                        key: record.key, reason: "it was written by a newer version (schema \(envelope.schema))")
                }
                return envelope.object
            } catch let error as UnreadableRecord {
                throw error
            } catch {
                throw UnreadableRecord(key: record.key, reason: "\(error)")
            }
        }
        switch record.key.prefix(while: { $0 != "/" }) {
        case "cluster": self = .cluster(try object(ClusterRecord.self))
        case "nodes": self = .node(try object(Node.self))
        case "workloads": self = .workload(try object(Workload.self))
        case "revisions": self = .revision(try object(Revision.self))
        case "instances": self = .instance(try object(Instance.self))
        case "tasks": self = .task(try object(NodeTask.self))
        case "claims": self = .claim(try object(Claim.self))
        case "tokens": self = .token(try object(Token.self))
        case "secrets": self = .secret(try object(Secret.self))
        case "configs": self = .config(try object(Config.self))
        case "volumes": self = .volume(try object(VolumeRecord.self))
        case "networks": self = .network(try object(Network.self))
        default: return nil
        }
    }
}

/// A record of the store that cannot be understood: the master does not start on half of its state.
package struct UnreadableRecord: Error, Sendable, CustomStringConvertible {
    package var key: String
    package var reason: String

    package var description: String {
        "the store's record '\(key)' cannot be read: \(reason); restore the store from a backup or use the version "
            + "that wrote it"
    }
}
