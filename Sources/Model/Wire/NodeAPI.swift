import JSON
import Model

/// `POST /nodes`: an agent says who and what it is; repeated at every start and reconnect. The answer is the stored
/// node. Unknown fields are kept out of strictness so that versions can mix.
package struct NodeRegistration: Sendable, Codable {
    package var node: Node
    /// The cluster that the agent belongs to; nil at its first start. Another cluster's agent is refused.
    package var clusterID: String?
    /// What the master was told at the last registration of an agent process that it answered; nil: none.
    package var session: String?
    /// A random word that this agent process has made and kept: the next registration of the next process shows it as
    /// `session`. Of two copies of one data directory only one can go on so.
    package var nextSession: String?

    package init(node: Node, clusterID: String? = nil, session: String? = nil, nextSession: String? = nil) {
        self.node = node
        self.clusterID = clusterID
        self.session = session
        self.nextSession = nextSession
    }
}

package struct NodeRegistered: Sendable, Codable {
    package var node: Node
    package var clusterID: String
    /// nil: the cluster has one machine and is reached on its unix socket only.
    package var settings: ClusterSettings?

    package init(node: Node, clusterID: String, settings: ClusterSettings? = nil) {
        self.node = node
        self.clusterID = clusterID
        self.settings = settings
    }
}

/// A task as its node needs it: `GET /nodes/{node}/tasks?watch=true` sends them as `WatchLine<TaskAssignment>`, first
/// all (then `synced`: what the agent has beyond them is to be removed), then the changes. A `delete` line says that
/// the master has taken note of `removed`, and the agent may forget the task.
package struct TaskAssignment: Sendable, Hashable, Codable {
    package var task: TaskID
    package var instance: InstanceID
    package var instanceName: String
    package var containers: [ContainerID]
    package var workload: WorkloadID
    package var workloadName: String
    package var kind: Workload.Kind
    package var labels: [String: String]
    package var revision: Int
    package var epoch: Int
    package var desired: DesiredState
    package var generation: Int
    package var stop: StopOrder?
    package var pod: PodSpec
    package var ports: [PortMapping]
    /// The networks of the pod's attachments, in their order.
    package var networks: [Network]
    /// The task's addresses on those of them that are overlays, in their order.
    package var addresses: [AssignedAddress]
    /// The devices of the node that its containers have, one for each claim: these, and no others. They may be others at a
    /// new start (a new `generation`), never while the task runs.
    package var grantedDevices: [DeviceGrant]
    /// The processors of the node that its containers have alone; the same holds for them.
    package var grantedProcessors: [ProcessorGrant]
    /// Volumes that belong to its containers alone go with the task.
    package var removeVolumes: Bool

    package init(
        task: TaskID, instance: InstanceID, instanceName: String, containers: [ContainerID], workload: WorkloadID,
        workloadName: String, kind: Workload.Kind, labels: [String: String], revision: Int, epoch: Int,
        desired: DesiredState, generation: Int, stop: StopOrder?, pod: PodSpec, ports: [PortMapping],
        networks: [Network] = [], addresses: [AssignedAddress] = [], grantedDevices: [DeviceGrant] = [],
        grantedProcessors: [ProcessorGrant] = [], removeVolumes: Bool = false
    ) {
        self.grantedProcessors = grantedProcessors
        self.grantedDevices = grantedDevices
        self.networks = networks
        self.addresses = addresses
        self.removeVolumes = removeVolumes
        self.task = task
        self.instance = instance
        self.instanceName = instanceName
        self.containers = containers
        self.workload = workload
        self.workloadName = workloadName
        self.kind = kind
        self.labels = labels
        self.revision = revision
        self.epoch = epoch
        self.desired = desired
        self.generation = generation
        self.stop = stop
        self.pod = pod
        self.ports = ports
    }
}

extension TaskAssignment {
    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        task = try values.decode(TaskID.self, forKey: .task)
        instance = try values.decode(InstanceID.self, forKey: .instance)
        instanceName = try values.decode(String.self, forKey: .instanceName)
        containers = try values.decode([ContainerID].self, forKey: .containers)
        workload = try values.decode(WorkloadID.self, forKey: .workload)
        workloadName = try values.decode(String.self, forKey: .workloadName)
        kind = try values.decode(Workload.Kind.self, forKey: .kind)
        labels = try values.decode([String: String].self, forKey: .labels)
        revision = try values.decode(Int.self, forKey: .revision)
        epoch = try values.decode(Int.self, forKey: .epoch)
        desired = try values.decode(DesiredState.self, forKey: .desired)
        generation = try values.decode(Int.self, forKey: .generation)
        stop = try values.decodeIfPresent(StopOrder.self, forKey: .stop)
        pod = try values.decode(PodSpec.self, forKey: .pod)
        ports = try values.decode([PortMapping].self, forKey: .ports)
        networks = try values.decode(.networks, or: [])
        addresses = try values.decode(.addresses, or: [])
        grantedDevices = try values.decode(.grantedDevices, or: [])
        grantedProcessors = try values.decode(.grantedProcessors, or: [])
        removeVolumes = try values.decode(.removeVolumes, or: false)
    }
}

/// What a node has of an overlay that another node is on too: `GET /nodes/{node}/peers?watch=true` sends them as
/// `WatchLine<NetworkPeer>`, first all (then `synced`), then the changes.
package struct NetworkPeer: Sendable, Hashable, Codable {
    package var network: NetworkID
    package var node: NodeID
    /// The node's address, which VXLAN packets to it go to.
    package var underlay: String
    /// CIDRs of both families: everything in them is at the node, unless it is an exception of another.
    package var blocks: [String]
    /// Single addresses of both families that are at the node although the blocks that they are in are not its own.
    package var addresses: [String]
    /// See `Node.overlayKey`.
    package var overlayKey: String?

    package init(
        network: NetworkID, node: NodeID, underlay: String, blocks: [String] = [], addresses: [String] = [],
        overlayKey: String? = nil
    ) {
        self.network = network
        self.node = node
        self.underlay = underlay
        self.blocks = blocks
        self.addresses = addresses
        self.overlayKey = overlayKey
    }

    /// What a line of the watch calls it: `<network>/<node>`.
    package var id: String { Self.id(network, node) }

    package static func id(_ network: NetworkID, _ node: NodeID) -> String { "\(network)/\(node)" }

    /// Whether a line of the watch is about the node.
    package static func isAbout(_ node: NodeID, _ line: WatchLine<NetworkPeer>) -> Bool {
        if let peer = line.object { return peer.node == node }
        // A node's id has no '/'.
        return line.id.hasSuffix("/\(node)")
    }
}

/// `POST /nodes/{node}/network-check`: compare what a node's kernel has of networks with what it should have.
package struct NetworkCheckRequest: Sendable, Codable {
    /// Mend what differs.
    package var repair: Bool

    package init(repair: Bool = false) { self.repair = repair }

    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        repair = try values.decode(.repair, or: false)
    }
}

package struct NetworkCheck: Sendable, Codable, Hashable {
    /// One sentence each; empty: all is as it should be.
    package var differences: [String]
    /// Whether all of them were mended.
    package var repaired: Bool

    package init(differences: [String], repaired: Bool) {
        self.differences = differences
        self.repaired = repaired
    }
}

/// `POST /nodes/{node}/devices/{device}/clear`: somebody has seen to a device. What its driver told of it is forgotten,
/// and it was looked at anew.
package struct ClearedDevice: Sendable, Codable, Hashable {
    package var id: String
    /// What was forgotten, in words.
    package var forgotten: [String]
    /// How the look found it: what still fails makes it sick again.
    package var health: NodeDevice.Health

    package init(id: String, forgotten: [String], health: NodeDevice.Health) {
        self.id = id
        self.forgotten = forgotten
        self.health = health
    }
}

/// `POST /nodes/{node}/status`: what changed since the last report; `full` after a (re)connect names everything.
/// An empty one is a heartbeat.
package struct NodeReport: Sendable, Codable {
    package struct TaskReport: Sendable, Codable, Hashable {
        package var task: TaskID
        package var instance: InstanceID
        package var epoch: Int
        package var status: TaskStatus

        package init(task: TaskID, instance: InstanceID, epoch: Int, status: TaskStatus) {
            self.task = task
            self.instance = instance
            self.epoch = epoch
            self.status = status
        }
    }

    package var full: Bool
    package var tasks: [TaskReport]
    /// All images of the node, when they changed.
    package var images: [ImageView]?
    /// All volumes of the node, when they changed.
    package var volumes: [VolumeView]?
    /// All devices of the node, when something about them changed: with those that are gone, and who holds which.
    package var devices: [NodeDevice]?
    /// How devices are used, of which that is known; nil: nothing new.
    package var deviceUsage: [DeviceUsage]?
    /// What the agent did and a user may want to know: health changes, OOM, restarts.
    package var events: [Event]

    package init(
        full: Bool = false, tasks: [TaskReport] = [], images: [ImageView]? = nil, volumes: [VolumeView]? = nil,
        devices: [NodeDevice]? = nil, deviceUsage: [DeviceUsage]? = nil, events: [Event] = []
    ) {
        self.devices = devices
        self.deviceUsage = deviceUsage
        self.full = full
        self.tasks = tasks
        self.images = images
        self.volumes = volumes
        self.events = events
    }
}
