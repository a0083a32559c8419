import JSON
import Model
import Wire

/// Names a request that waits for its reply; the shell chooses it.
package typealias RequestID = Int
/// Numbers the transactions of one master process.
package typealias TransactionNumber = Int

/// What happens to the core.
package enum MasterEvent: Sendable {
    /// The first event: the store has been read. Makes the cluster's record if there is none.
    case start
    case command(RequestID, MasterCommand, by: Subject = .master)
    /// Answered from committed state, after everything that came before it.
    case query(RequestID, MasterQuery, by: Subject = .master)
    /// The transaction is durable, at this revision of the store.
    case committed(TransactionNumber, revision: Int64)
    /// Nothing of the transaction is in the store.
    case commitFailed(TransactionNumber, StoreFailure)
    /// A node's watch of its tasks ended.
    case nodeDisconnected(NodeID)
    /// A `replicate` has ended; `failure` says why the node does not have the image.
    case replicated(digest: String, to: NodeID, failure: String?)
    /// The removal of an image begins, or has ended and its nodes have told what they have since: no copies of it are
    /// made meanwhile.
    case removingImage(digest: String, isUnderway: Bool)
    /// Comes at least once a second, and when a `wake` asked for it.
    case tick
}

/// What somebody wants changed.
package enum MasterCommand: Sendable {
    case createContainer(CreateContainer)
    case createService(CreateService)
    case updateService(String, UpdateService)
    case removeService(String, force: Bool)
    case act(String, ContainerAction.Verb, ContainerAction)
    /// With `volumes`, those that belong to it alone go too.
    case removeContainer(String, force: Bool, volumes: Bool = false)
    /// → `container`
    case updateContainer(String, UpdateContainer)
    case createToken(NewToken)
    case revokeToken(String)
    case configureCluster(ClusterSettings)
    case registerNode(NodeRegistration)
    /// The same for a machine that is not a node yet.
    case joinNode(NodeRegistration)
    /// A node begins to watch its tasks; the reply is `assignments`, and `assign` effects follow.
    case connectNode(String)
    case report(String, NodeReport)
    case updateNode(String, UpdateNode)
    case removeNode(String, force: Bool)
    /// The shell has asked the node itself, after a change that went through the master.
    case inventory(NodeID, images: [ImageView]?, volumes: [VolumeView]?)
    /// Somebody makes a volume on a node; nil: in its own group.
    case expectVolume(String, on: NodeID, group: String?)
    /// Sealed by the shell already.
    case createSecret(Secret)
    case removeSecret(String)
    case createConfig(Config)
    case removeConfig(String)
    case createNetwork(CreateNetwork)
    case removeNetwork(String)
    /// Removes the networks that nothing is attached to; the reply is `removed`.
    case pruneNetworks(PruneNetworks)
    /// By the network's name or id.
    case connect(String, ConnectNetwork)
    case disconnect(String, DisconnectNetwork)
    /// Something that the shell did and users may want to know.
    case note(Event)
}

/// What somebody wants to know.
package enum MasterQuery: Sendable {
    case containers(ContainerFilter)
    case container(String)
    /// A part of a list: those older than `after` (nil: the first part), at most `limit`.
    case containerPage(ContainerSelection, after: ContainerPosition?, limit: Int)
    /// Ids that begin so, at most `limit`.
    case containersBeginning(String, limit: Int)
    case services
    case service(String)
    /// The containers of a service.
    case serviceContainers(String)
    case revisions(String)
    case nodes
    case node(String)
    case assignments(String)
    /// Of a node, or of all.
    case devices(node: String?)
    case device(String, node: String?)
    /// How devices are used, by node and id, as nodes told it lately.
    case deviceUsage
    /// What other nodes have of the overlays that a node is on.
    case peers(String)
    case images
    /// What an image's name, digest or the beginning of its id means now, with the nodes that have it.
    case image(String)
    /// Nodes that have the image, by any of its names.
    case imageNodes(String)
    case volumes
    case secrets
    case secret(String)
    /// With its sealed value, for the shell.
    case sealedSecret(String)
    case configs
    case config(String)
    /// Without members.
    case networks
    /// With those of its members whose names come after `after`, see `NetworkView.mostMembers`.
    case network(String, after: String = "")
    /// What the containers of a task are given, for the node that has the task.
    case filesForTask(TaskID, on: NodeID)
    case events(since: Timestamp?, until: Timestamp?)
    case cluster
    /// → `counts`
    case counts
    case tokens
    /// Where the container's task is, for streams.
    case location(String)
}

/// What the shell is to do, in this order.
package enum MasterEffect: Sendable {
    /// Write all of it or nothing, and answer with `committed` or `commitFailed`. At most one is outstanding.
    case commit(TransactionNumber, [StoreWrite])
    case changed([ObjectChange])
    /// Lines for the node's watch, if it has one.
    case assign(NodeID, [WatchLine<TaskAssignment>])
    /// The same lines for the watches of peers of all of these nodes; each leaves out those of itself, see `PeerList`.
    case peers([NodeID], [WatchLine<NetworkPeer>])
    case event(Event)
    case reply(RequestID, Result<MasterReply, APIProblem>)
    /// Have a node fetch an image's content from another, and give it these names there. → `replicated`
    case replicate(digest: String, names: [String: Timestamp], from: NodeID, to: NodeID)
    /// Have a node take names from an image: other nodes have given them to other content since.
    case untag(NodeID, digest: String, names: [String])
    /// Send a `tick` at this time.
    case wake(at: Timestamp)
}

package enum MasterReply: Sendable {
    case done
    /// It was so already.
    case alreadySo
    case container(ContainerView)
    case containers([ContainerView])
    case containerPage(ContainerPage)
    case containerIDs([ContainerID])
    case service(ServiceView)
    case services([ServiceView])
    case revisions([Revision])
    case node(NodeView)
    case nodes([NodeView])
    case registered(NodeRegistered)
    case token(TokenView)
    case tokens([TokenView])
    case assignments(NodeID, [TaskAssignment])
    case peers(PeerList)
    case image(ImageView)
    case images([ImageView])
    case volumes([VolumeView])
    case device(DeviceView)
    case devices([DeviceView])
    case deviceUsage([NodeID: [String: DeviceUsage]])
    case secret(SecretView)
    case sealedSecret(Secret)
    case secrets([SecretView])
    case config(ConfigView)
    case configs([ConfigView])
    case network(NetworkView)
    case networks([NetworkView])
    /// Names of what was removed.
    case removed([String])
    /// Secrets as they are stored, sealed.
    case taskFiles(secrets: [Secret], configs: [Config])
    case events([Event])
    case cluster(ClusterView)
    case counts(ClusterCounts)
    case location(TaskLocation)
    /// The signal is not the master's business: hand it to the node.
    case passThrough(TaskLocation, signal: SignalName)
}

/// Where a container's streams are.
package struct TaskLocation: Sendable, Hashable {
    package var container: ContainerID
    package var name: String
    /// nil while no node has been chosen.
    package var task: TaskID?
    package var node: NodeID?
    package var nodeName: String
    package var streamEndpoint: String
    package var status: TaskStatus
    /// Why no node fits; empty when one was found.
    package var waiting: String
}

package enum ObjectChange: Sendable {
    case container(WatchLine<ContainerView>)
    case service(WatchLine<ServiceView>)
    case node(WatchLine<NodeView>)
}

/// What a node has to know of others that are on its overlays, in no order.
///
/// The lists are the master's own, and one in memory for all nodes that ask; the node itself is in each of them and is
/// left out on the way.
package struct PeerList: Sendable, Sequence {
    package let node: NodeID
    let networks: [[NetworkPeer]]

    init(node: NodeID, networks: [[NetworkPeer]]) {
        self.node = node
        self.networks = networks
    }

    package func makeIterator() -> some IteratorProtocol<NetworkPeer> {
        networks.lazy.joined().filter { [node] in $0.node != node }.makeIterator()
    }
}
