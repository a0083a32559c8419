/// The unit of placement: containers that share a network namespace and volumes. This version admits exactly one
/// container in a pod.
package struct PodSpec: Sendable, Hashable, Codable {
    package enum Network: String, Sendable, Hashable, Codable {
        /// An address of its own on the node's bridge.
        case bridge
        /// The node's own network.
        case host
        /// Loopback only.
        case none
        /// The networks of `attachments` and no other.
        case attached
        /// That of the container which `namespaces.network` names.
        case container
    }

    package var containers: [ContainerSpec]
    package var network: Network
    /// Networks that users made; with `bridge` beside the node's own. The first is the way out.
    package var attachments: [NetworkAttachment]
    package var namespaces: Namespaces
    package var ports: [PortMapping]
    /// Empty: the first 12 digits of the container's id.
    package var hostname: String
    /// NIS domain name, see setdomainname(2); empty: none.
    package var domainname: String
    package var nameService: NameService
    /// Further lines of /etc/hosts: `name:address`, or `name:host-gateway` for the node itself.
    package var extraHosts: [String]
    package var restart: RestartPolicy
    package var constraints: [Constraint]
    /// Which containers it wants on its node, or not: the label is `container` (name or id), `image`, or a label of
    /// containers.
    package var affinities: [Constraint]
    /// nil: the cluster's default, `spread`.
    package var strategy: PlacementStrategy?
    /// nil: what admission sets for the workload's kind.
    package var loss: LossPolicy?

    package init(
        containers: [ContainerSpec], network: Network = .bridge, attachments: [NetworkAttachment] = [],
        ports: [PortMapping] = [], hostname: String = "", restart: RestartPolicy = RestartPolicy(),
        constraints: [Constraint] = [], affinities: [Constraint] = [], strategy: PlacementStrategy? = nil,
        loss: LossPolicy? = nil
    ) {
        self.containers = containers
        self.network = network
        self.attachments = attachments
        namespaces = Namespaces()
        self.ports = ports
        self.hostname = hostname
        domainname = ""
        nameService = NameService()
        extraHosts = []
        self.restart = restart
        self.constraints = constraints
        self.affinities = affinities
        self.strategy = strategy
        self.loss = loss
    }

    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        containers = try values.decode([ContainerSpec].self, forKey: .containers)
        network = try values.decode(.network, or: .bridge)
        attachments = try values.decode(.attachments, or: [])
        namespaces = try values.decode(.namespaces, or: Namespaces())
        ports = try values.decode(.ports, or: [])
        hostname = try values.decode(.hostname, or: "")
        domainname = try values.decode(.domainname, or: "")
        nameService = try values.decode(.nameService, or: NameService())
        extraHosts = try values.decode(.extraHosts, or: [])
        restart = try values.decode(.restart, or: RestartPolicy())
        constraints = try values.decode(.constraints, or: [])
        affinities = try values.decode(.affinities, or: [])
        strategy = try values.decodeIfPresent(PlacementStrategy.self, forKey: .strategy)
        loss = try values.decodeIfPresent(LossPolicy.self, forKey: .loss)
    }

    /// What the scheduler reserves for the pod.
    package var resources: Resources {
        containers.reduce(Resources()) {
            $0
                + Resources(
                    cpu: $1.limits.cpu, memory: $1.limits.reservedMemory,
                    hugepages: $1.limits.hugepages)
        }
    }
}

/// One container of a pod, as its user asked for it.
package struct ContainerSpec: Sendable, Hashable, Codable {
    /// Unique in the pod; empty is taken for `main`.
    package var name: String
    /// As the user wrote it.
    package var image: String
    /// `sha256:…` of the image's manifest; set at admission, so that replicas never differ.
    package var imageDigest: String
    /// Replaces the image's entrypoint; nil: the image's own; empty list: none.
    package var entrypoint: [String]?
    /// Replaces the image's command; nil: the image's own (unless an entrypoint is given).
    package var command: [String]?
    /// `KEY=value`, after the image's own.
    package var environment: [String]
    /// `environment` has what is wanted of the image's own already: nothing of it is added.
    package var environmentIsWhole: Bool
    package var workingDirectory: String
    /// `user[:group]`, names or numbers; empty: the image's own.
    package var user: String
    /// Further groups of the process, names or numbers.
    package var groups: [String]
    /// A pseudo-terminal instead of pipes.
    package var terminal: Bool
    /// Standard input stays open for attach.
    package var stdin: Bool
    /// Standard input ends when the first client that attached to it leaves.
    package var stdinOnce: Bool
    /// A small init is the first process, which reaps orphans and passes signals on.
    package var initProcess: Bool
    package var readOnlyRoot: Bool
    /// All capabilities and devices, no seccomp filter, nothing masked or read-only.
    package var privileged: Bool
    package var mounts: [Mount]
    package var capabilitiesAdded: [String]
    package var capabilitiesDropped: [String]
    /// On unless the user turns it off, see no_new_privs in prctl(2).
    package var noNewPrivileges: Bool
    package var seccomp: Seccomp
    /// Paths that are hidden; nil: the usual ones.
    package var maskedPaths: [String]?
    /// Paths that cannot be written to; nil: the usual ones.
    package var readOnlyPaths: [String]?
    package var limits: Limits
    /// -1000…1000, see proc(5); nil: as its shim's.
    package var oomScoreAdjust: Int?
    package var labels: [String: String]
    /// Handed on to the runtime, and not looked at.
    package var annotations: [String: String]
    /// `80/tcp`: what the program listens on, for people and for publishing all of them.
    package var exposedPorts: [String]
    package var logging: LogPolicy
    package var healthCheck: HealthCheck?
    /// Name (`SIGTERM`) or number; empty: the image's, else SIGTERM.
    package var stopSignal: String
    /// Seconds between the stop signal and SIGKILL.
    package var stopGrace: Int
    /// Devices of the node: `/dev/x[:/dev/y[:rwm]]`, or by the name in its CDI specifications, `vendor.com/class=name`.
    package var devices: [String]
    /// Further rules of the device cgroup: `c 10:229 rwm`, `a *:* rwm`.
    package var deviceRules: [String]
    /// Devices that the cluster chooses and nobody else has, unless they are shared.
    package var deviceClaims: [DeviceClaim]
    /// Kernel parameters of the container's own namespaces.
    package var sysctls: [String: String]
    /// Name (`nofile`) to soft and hard limit.
    package var rlimits: [RLimit]

    package init(name: String = "main", image: String) {
        self.name = name
        self.image = image
        imageDigest = ""
        environment = []
        environmentIsWhole = false
        workingDirectory = ""
        user = ""
        groups = []
        terminal = false
        stdin = false
        stdinOnce = false
        initProcess = false
        readOnlyRoot = false
        privileged = false
        mounts = []
        capabilitiesAdded = []
        capabilitiesDropped = []
        noNewPrivileges = true
        seccomp = .default
        limits = Limits()
        labels = [:]
        annotations = [:]
        exposedPorts = []
        logging = LogPolicy()
        stopSignal = ""
        stopGrace = 10
        devices = []
        deviceRules = []
        deviceClaims = []
        sysctls = [:]
        rlimits = []
    }

    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        name = try values.decode(.name, or: "main")
        image = try values.decode(String.self, forKey: .image)
        imageDigest = try values.decode(.imageDigest, or: "")
        entrypoint = try values.decodeIfPresent([String].self, forKey: .entrypoint)
        command = try values.decodeIfPresent([String].self, forKey: .command)
        environment = try values.decode(.environment, or: [])
        environmentIsWhole = try values.decode(.environmentIsWhole, or: false)
        workingDirectory = try values.decode(.workingDirectory, or: "")
        user = try values.decode(.user, or: "")
        groups = try values.decode(.groups, or: [])
        terminal = try values.decode(.terminal, or: false)
        stdin = try values.decode(.stdin, or: false)
        stdinOnce = try values.decode(.stdinOnce, or: false)
        initProcess = try values.decode(.initProcess, or: false)
        readOnlyRoot = try values.decode(.readOnlyRoot, or: false)
        privileged = try values.decode(.privileged, or: false)
        mounts = try values.decode(.mounts, or: [])
        capabilitiesAdded = try values.decode(.capabilitiesAdded, or: [])
        capabilitiesDropped = try values.decode(.capabilitiesDropped, or: [])
        noNewPrivileges = try values.decode(.noNewPrivileges, or: true)
        seccomp = try values.decode(.seccomp, or: .default)
        maskedPaths = try values.decodeIfPresent([String].self, forKey: .maskedPaths)
        readOnlyPaths = try values.decodeIfPresent([String].self, forKey: .readOnlyPaths)
        limits = try values.decode(.limits, or: Limits())
        oomScoreAdjust = try values.decodeIfPresent(Int.self, forKey: .oomScoreAdjust)
        labels = try values.decode(.labels, or: [:])
        annotations = try values.decode(.annotations, or: [:])
        exposedPorts = try values.decode(.exposedPorts, or: [])
        logging = try values.decode(.logging, or: LogPolicy())
        healthCheck = try values.decodeIfPresent(HealthCheck.self, forKey: .healthCheck)
        stopSignal = try values.decode(.stopSignal, or: "")
        stopGrace = try values.decode(.stopGrace, or: 10)
        devices = try values.decode(.devices, or: [])
        deviceRules = try values.decode(.deviceRules, or: [])
        deviceClaims = try values.decode(.deviceClaims, or: [])
        sysctls = try values.decode(.sysctls, or: [:])
        rlimits = try values.decode(.rlimits, or: [])
    }
}

/// Whether a container has processors of its own.
package enum ProcessorPinning: String, Sendable, Hashable, Codable {
    /// As many as `Limits.cpu` says, whole cores where it can be; nobody else's containers run on them.
    case cores
}

/// A container's limits; zero or nil means unlimited.
package struct Limits: Sendable, Hashable, Codable {
    /// Nano-cores.
    package var cpu: Int64
    /// Bytes.
    package var memory: Int64?
    /// Bytes of memory plus swap; nil: the same as `memory`; -1: unlimited swap.
    package var memorySwap: Int64?
    /// Bytes; what the scheduler reserves when it is less than the limit.
    package var memoryReservation: Int64?
    package var pids: Int64?
    /// Relative weight among its neighbours, 2…262144; nil: 1024.
    package var cpuShares: Int64?
    /// Microseconds in which `cpuQuota` is counted; nil: 100,000.
    package var cpuPeriod: Int64?
    /// Microseconds of processor time in each period, in place of `cpu`, which the scheduler counts; nil: by `cpu`.
    package var cpuQuota: Int64?
    /// Processors that it may run on: `0-3,7`; nil: all.
    package var cpus: String?
    /// Memory nodes that it may use: `0-1`; nil: all.
    package var memoryNodes: String?
    /// nil: it runs on all processors that nobody has alone.
    package var pinning: ProcessorPinning?
    /// Bytes of huge pages by the size of a page, see `HugepageSize`; of sizes that are not named none.
    package var hugepages: [String: Int64]
    /// 0…100, cgroup v1 only; nil: the kernel's.
    package var swappiness: Int64?
    /// 10…1000; nil: the kernel's.
    package var blockWeight: Int64?
    /// The kernel stops it instead of killing in it, cgroup v1 only.
    package var disableOOMKill: Bool
    /// Bytes of /dev/shm; nil: 64 MiB.
    package var sharedMemory: Int64?

    package init(
        cpu: Int64 = 0, memory: Int64? = nil, memorySwap: Int64? = nil, memoryReservation: Int64? = nil,
        pids: Int64? = nil, cpuShares: Int64? = nil, sharedMemory: Int64? = nil
    ) {
        disableOOMKill = false
        hugepages = [:]
        self.cpu = cpu
        self.memory = memory
        self.memorySwap = memorySwap
        self.memoryReservation = memoryReservation
        self.pids = pids
        self.cpuShares = cpuShares
        self.sharedMemory = sharedMemory
    }

    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        cpu = try values.decode(.cpu, or: 0)
        memory = try values.decodeIfPresent(Int64.self, forKey: .memory)
        memorySwap = try values.decodeIfPresent(Int64.self, forKey: .memorySwap)
        memoryReservation = try values.decodeIfPresent(Int64.self, forKey: .memoryReservation)
        pids = try values.decodeIfPresent(Int64.self, forKey: .pids)
        cpuShares = try values.decodeIfPresent(Int64.self, forKey: .cpuShares)
        cpuPeriod = try values.decodeIfPresent(Int64.self, forKey: .cpuPeriod)
        cpuQuota = try values.decodeIfPresent(Int64.self, forKey: .cpuQuota)
        cpus = try values.decodeIfPresent(String.self, forKey: .cpus)
        memoryNodes = try values.decodeIfPresent(String.self, forKey: .memoryNodes)
        pinning = try values.decodeIfPresent(ProcessorPinning.self, forKey: .pinning)
        hugepages = try values.decode(.hugepages, or: [:])
        swappiness = try values.decodeIfPresent(Int64.self, forKey: .swappiness)
        blockWeight = try values.decodeIfPresent(Int64.self, forKey: .blockWeight)
        disableOOMKill = try values.decode(.disableOOMKill, or: false)
        sharedMemory = try values.decodeIfPresent(Int64.self, forKey: .sharedMemory)
    }
}

extension Limits {
    /// Bytes that the scheduler sets aside.
    package var reservedMemory: Int64 { memoryReservation ?? memory ?? 0 }
}

package struct RLimit: Sendable, Hashable, Codable {
    /// As in `ulimit`: `nofile`, `nproc`, `core`, …
    package var name: String
    package var soft: UInt64
    package var hard: UInt64

    package init(name: String, soft: UInt64, hard: UInt64) {
        self.name = name
        self.soft = soft
        self.hard = hard
    }
}

package enum Seccomp: Sendable, Hashable, Codable {
    /// Martlet's own profile for the container's capabilities.
    case `default`
    case unconfined
    /// An OCI seccomp object as JSON text.
    case profile(json: String)
}

/// Something of the host, of the cluster or of memory that appears in the container.
package struct Mount: Sendable, Hashable, Codable {
    package enum Source: Sendable, Hashable, Codable {
        /// An absolute path of the node.
        case bind(path: String)
        /// A named volume; made on first use.
        case volume(name: String)
        /// Memory: size in bytes (nil: half of the machine's), mode as four octal digits.
        case tmpfs(size: Int64?, mode: String?)
        /// A secret's value as a file, in memory only.
        case secret(name: String)
        case config(name: String)
    }

    package var source: Source
    /// Absolute path in the container.
    package var target: String
    package var readOnly: Bool
    /// Permissions of a secret's or config's file, three or four octal digits; nil: 0400, for a config 0444.
    package var mode: String?
    /// The file's owner; nil: 0.
    package var uid: Int?
    package var gid: Int?
    /// Of a bind: `private`, `rprivate`, `shared`, `rshared`, `slave`, `rslave`; nil: `rprivate`.
    package var propagation: String?
    /// A bind brings what is mounted below its path.
    package var recursive: Bool
    /// A bind's path is made, as a directory, when it is missing.
    package var createSource: Bool
    /// A volume's directory that is mounted in place of its root; nil: the root.
    package var subpath: String?
    /// An empty volume gets what the image has at its place.
    package var copyUp: Bool
    /// The volume belongs to this container alone: it may be removed with it.
    package var isAnonymous: Bool
    /// Flags: `noexec`, `exec`, `nosuid`, `suid`, `nodev`, `dev`, `noatime`, …
    package var options: [String]

    package init(
        _ source: Source, target: String, readOnly: Bool = false, mode: String? = nil, uid: Int? = nil, gid: Int? = nil
    ) {
        recursive = true
        createSource = false
        copyUp = true
        isAnonymous = false
        options = []
        self.source = source
        self.target = target
        self.readOnly = readOnly
        self.mode = mode
        self.uid = uid
        self.gid = gid
    }

    /// Whether it is a secret or config.
    package var isFile: Bool {
        switch source {
        case .secret, .config: true
        case .bind, .volume, .tmpfs: false
        }
    }

    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        source = try values.decode(Source.self, forKey: .source)
        target = try values.decode(String.self, forKey: .target)
        readOnly = try values.decode(.readOnly, or: false)
        mode = try values.decodeIfPresent(String.self, forKey: .mode)
        uid = try values.decodeIfPresent(Int.self, forKey: .uid)
        gid = try values.decodeIfPresent(Int.self, forKey: .gid)
        propagation = try values.decodeIfPresent(String.self, forKey: .propagation)
        recursive = try values.decode(.recursive, or: true)
        createSource = try values.decode(.createSource, or: false)
        subpath = try values.decodeIfPresent(String.self, forKey: .subpath)
        copyUp = try values.decode(.copyUp, or: true)
        isAnonymous = try values.decode(.isAnonymous, or: false)
        options = try values.decode(.options, or: [])
    }
}

/// A port of the pod that the node publishes.
package struct PortMapping: Sendable, Hashable, Codable {
    package enum Transport: String, Sendable, Hashable, Codable { case tcp, udp, sctp }

    /// Empty: all addresses, of each family that the pod has where it is published; `0.0.0.0` or `::`: all of one family.
    package var hostAddress: String
    /// The first port that may be used on the node; 0: any free port from 30000 on.
    package var hostPort: Int
    /// The last of the range; an instance takes the next free one.
    package var hostPortEnd: Int
    package var containerPort: Int
    package var transport: Transport

    package init(
        hostAddress: String = "", hostPort: Int, hostPortEnd: Int? = nil, containerPort: Int,
        transport: Transport = .tcp
    ) {
        self.hostAddress = hostAddress
        self.hostPort = hostPort
        self.hostPortEnd = hostPortEnd ?? hostPort
        self.containerPort = containerPort
        self.transport = transport
    }

    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        hostAddress = try values.decode(.hostAddress, or: "")
        hostPort = try values.decode(.hostPort, or: 0)
        hostPortEnd = try values.decode(.hostPortEnd, or: hostPort)
        containerPort = try values.decode(Int.self, forKey: .containerPort)
        transport = try values.decode(.transport, or: .tcp)
    }
}

/// How a container's health is asked for; times in seconds.
package struct HealthCheck: Sendable, Hashable, Codable {
    /// In JSON `{"command": ["/bin/check"]}`, `{"tcp": {"port": 80}}` or `{"http": {"port": 80, "path": "/"}}`.
    package enum Probe: Sendable, Hashable, Codable {
        /// Exit code 0 is healthy; run in the container.
        case command([String])
        /// A connection to the pod's address succeeds.
        case tcp(port: Int)
        /// A status of 200…399 from the pod's address.
        case http(port: Int, path: String)
    }

    package var probe: Probe
    /// nil: `standardInterval`.
    package var interval: Int?
    /// nil: `standardTimeout`.
    package var timeout: Int?
    /// Failures in a row that make the container unhealthy; nil: `standardRetries`.
    package var retries: Int?
    /// Failures within this time of the start do not count; nil: all do.
    package var startPeriod: Int?
    /// The interval within the start period; nil: 5, where the other is not shorter.
    package var startInterval: Int?
    package var onUnhealthy: OnUnhealthy

    package enum OnUnhealthy: String, Sendable, Hashable, Codable {
        /// It is stopped, and its restart policy decides.
        case stop
        /// It goes on; that it is unhealthy is told.
        case tell
    }

    package static let standardInterval = 30
    package static let standardTimeout = 30
    package static let standardRetries = 3

    /// Seconds from one probe to the next.
    ///
    /// - Parameter isStarting: within the start period.
    package func pause(isStarting: Bool = false) -> Int {
        let usual = interval ?? Self.standardInterval
        return isStarting ? startInterval ?? min(5, usual) : usual
    }

    /// Seconds after which a probe counts as failed.
    package var patience: Int { timeout ?? Self.standardTimeout }

    package init(
        probe: Probe, interval: Int? = nil, timeout: Int? = nil, retries: Int? = nil, startPeriod: Int? = nil
    ) {
        onUnhealthy = .stop
        self.probe = probe
        self.interval = interval
        self.timeout = timeout
        self.retries = retries
        self.startPeriod = startPeriod
    }

    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        probe = try values.decode(Probe.self, forKey: .probe)
        interval = try values.decodeIfPresent(Int.self, forKey: .interval)
        timeout = try values.decodeIfPresent(Int.self, forKey: .timeout)
        retries = try values.decodeIfPresent(Int.self, forKey: .retries)
        startPeriod = try values.decodeIfPresent(Int.self, forKey: .startPeriod)
        startInterval = try values.decodeIfPresent(Int.self, forKey: .startInterval)
        onUnhealthy = try values.decode(.onUnhealthy, or: .stop)
    }
}

/// When a container that ended starts again (a new start of the same task), with a growing delay.
package struct RestartPolicy: Sendable, Hashable, Codable {
    package enum Condition: String, Sendable, Hashable, Codable {
        case no
        case onFailure = "on-failure"
        case always
        /// Like always, but a user's stop holds over a restart of the agent.
        case unlessStopped = "unless-stopped"
    }

    package var condition: Condition
    /// Restarts in a row before it is given up; nil: no limit.
    package var maximumRetries: Int?

    package init(_ condition: Condition = .no, maximumRetries: Int? = nil) {
        self.condition = condition
        self.maximumRetries = maximumRetries
    }

    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        condition = try values.decode(.condition, or: .no)
        maximumRetries = try values.decodeIfPresent(Int.self, forKey: .maximumRetries)
    }
}

package enum PlacementStrategy: String, Sendable, Hashable, Codable {
    /// The fullest node that fits.
    case binpack
    /// The node with the fewest instances of the workload, then the emptiest.
    case spread
    case random
}
