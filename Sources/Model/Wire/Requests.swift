import JSON
import Model

/// `POST /containers`: what `martlet run` and `martlet create` ask for.
package struct CreateContainer: Sendable, Codable {
    /// nil: the cluster makes one.
    package var name: String?
    package var pod: PodSpec
    package var labels: [String: String]
    package var removeOnExit: Bool
    /// false: prepared, not started, until `start`.
    package var start: Bool
    /// The path that it lives under; nil: the caller's own group, or `/`.
    package var group: String?
    /// When a registry is asked for the image; nil: when no node has it.
    package var pull: PullPolicy?
    /// The secret that holds the registry's login, instead of those that the nodes have stored.
    package var loginSecret: String?
    /// The login itself; it is not kept.
    package var login: RegistryLogin?

    package init(
        name: String? = nil, pod: PodSpec, labels: [String: String] = [:], removeOnExit: Bool = false,
        start: Bool = true, group: String? = nil, pull: PullPolicy? = nil
    ) {
        self.name = name
        self.pod = pod
        self.labels = labels
        self.removeOnExit = removeOnExit
        self.start = start
        self.group = group
        self.pull = pull
    }

    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        name = try values.decodeIfPresent(String.self, forKey: .name)
        pod = try values.decode(PodSpec.self, forKey: .pod)
        labels = try values.decode(.labels, or: [:])
        removeOnExit = try values.decode(.removeOnExit, or: false)
        start = try values.decode(.start, or: true)
        group = try values.decodeIfPresent(String.self, forKey: .group)
        pull = try values.decodeIfPresent(PullPolicy.self, forKey: .pull)
        loginSecret = try values.decodeIfPresent(String.self, forKey: .loginSecret)
        login = try values.decodeIfPresent(RegistryLogin.self, forKey: .login)
    }
}

/// `POST /services`.
package struct CreateService: Sendable, Codable {
    package var name: String
    package var pod: PodSpec
    package var labels: [String: String]
    package var scale: Workload.Scale
    package var update: UpdatePolicy
    /// The path that it lives under; nil: the caller's own group, or `/`.
    package var group: String?
    /// When a registry is asked for the image; nil: when no node has it.
    package var pull: PullPolicy?
    /// The secret that holds the registry's login, instead of those that the nodes have stored.
    package var loginSecret: String?
    /// The login itself; it is not kept.
    package var login: RegistryLogin?

    package init(
        name: String, pod: PodSpec, labels: [String: String] = [:], scale: Workload.Scale = .replicated(1),
        update: UpdatePolicy = UpdatePolicy(), group: String? = nil, pull: PullPolicy? = nil
    ) {
        self.name = name
        self.pod = pod
        self.labels = labels
        self.scale = scale
        self.update = update
        self.group = group
        self.pull = pull
    }

    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        name = try values.decode(String.self, forKey: .name)
        pod = try values.decode(PodSpec.self, forKey: .pod)
        labels = try values.decode(.labels, or: [:])
        scale = try values.decode(.scale, or: .replicated(1))
        update = try values.decode(.update, or: UpdatePolicy())
        group = try values.decodeIfPresent(String.self, forKey: .group)
        pull = try values.decodeIfPresent(PullPolicy.self, forKey: .pull)
        loginSecret = try values.decodeIfPresent(String.self, forKey: .loginSecret)
        login = try values.decodeIfPresent(RegistryLogin.self, forKey: .login)
    }
}

/// `PATCH /services/{service}`: what is given changes; a new pod makes a new revision and starts an update.
package struct UpdateService: Sendable, Codable {
    package var pod: PodSpec?
    package var labels: [String: String]?
    package var scale: Workload.Scale?
    package var update: UpdatePolicy?
    /// Refused with 409 unless this is the present revision; nil: not checked.
    package var ifRevision: Int?
    /// Start a paused update again.
    package var resume: Bool?
    /// When a registry is asked for the image; nil: when no node has it.
    package var pull: PullPolicy?
    /// The secret that holds the registry's login, instead of those that the nodes have stored.
    package var loginSecret: String?
    /// The login itself; it is not kept.
    package var login: RegistryLogin?

    package init(
        pod: PodSpec? = nil, labels: [String: String]? = nil, scale: Workload.Scale? = nil,
        update: UpdatePolicy? = nil, ifRevision: Int? = nil, resume: Bool? = nil, pull: PullPolicy? = nil
    ) {
        self.pod = pod
        self.labels = labels
        self.scale = scale
        self.update = update
        self.ifRevision = ifRevision
        self.resume = resume
        self.pull = pull
    }
}

/// `POST /containers/{container}/{action}`: the body of stop, restart and kill.
package struct ContainerAction: Sendable, Codable {
    package enum Verb: String, Sendable, Codable, CaseIterable { case start, stop, restart, kill, pause, unpause }
    /// Name or number; nil: the spec's (stop, restart), SIGKILL (kill).
    package var signal: String?
    /// Seconds until SIGKILL; nil: the spec's.
    package var grace: Int?

    package init(signal: String? = nil, grace: Int? = nil) {
        self.signal = signal
        self.grace = grace
    }
}

/// `PATCH /containers/{container}`: what is given changes, without a restart.
package struct UpdateContainer: Sendable, Codable {
    package var name: String?
    /// Nano-cores; 0: unlimited.
    package var cpu: Int64?
    package var cpuShares: Int64?
    package var cpuPeriod: Int64?
    package var cpuQuota: Int64?
    package var cpus: String?
    package var memoryNodes: String?
    /// Bytes; 0: unlimited.
    package var memory: Int64?
    package var memorySwap: Int64?
    package var memoryReservation: Int64?
    /// 0 or less: unlimited.
    package var pids: Int64?
    package var blockWeight: Int64?
    package var restart: RestartPolicy?
    /// All that it claims from now on; empty: none.
    package var deviceClaims: [DeviceClaim]?

    package init() {}
}

/// `PATCH /nodes/{node}`.
package struct UpdateNode: Sendable, Codable {
    package var setLabels: [String: String]?
    package var removeLabels: [String]?
    package var availability: Node.Availability?
    /// Drains the node so; goes with availability `drained` or none, or changes a drain that is under way.
    package var drain: DrainOrder?

    package init(
        setLabels: [String: String]? = nil, removeLabels: [String]? = nil, availability: Node.Availability? = nil,
        drain: DrainOrder? = nil
    ) {
        self.drain = drain
        self.setLabels = setLabels
        self.removeLabels = removeLabels
        self.availability = availability
    }
}

/// How a node is emptied of what belongs to services.
package struct DrainOrder: Sendable, Codable {
    /// Seconds until what is left is removed whatever it takes; nil: never.
    package var deadline: Int?
    /// Per cent of each service's instances that serve all the time: 0…100.
    package var minimumAvailable: Int

    package init(deadline: Int? = nil, minimumAvailable: Int = 100) {
        self.deadline = deadline
        self.minimumAvailable = minimumAvailable
    }

    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        deadline = try values.decodeIfPresent(Int.self, forKey: .deadline)
        minimumAvailable = try values.decode(.minimumAvailable, or: 100)
    }
}

/// `POST /containers/{container}/exec` (with an upgrade to the stream of frames); sent as the query `spec`'s JSON.
package struct ExecRequest: Sendable, Codable {
    package var command: [String]
    package var environment: [String]
    package var workingDirectory: String
    package var user: String
    package var terminal: Bool
    package var stdin: Bool
    package var columns: UInt16
    package var rows: UInt16
    /// With all capabilities.
    package var privileged: Bool
    /// Frames of its standard output, and of its terminal, are wanted.
    package var stdout: Bool
    /// Frames of its standard error are wanted.
    package var stderr: Bool
    /// The first frame says, as an `ExecStarted` in a control frame, that the program runs.
    package var announced: Bool

    package init(
        command: [String], environment: [String] = [], workingDirectory: String = "", user: String = "",
        terminal: Bool = false, stdin: Bool = false, columns: UInt16 = 0, rows: UInt16 = 0, privileged: Bool = false,
        stdout: Bool = true, stderr: Bool = true, announced: Bool = false
    ) {
        self.privileged = privileged
        self.stdout = stdout
        self.stderr = stderr
        self.announced = announced
        self.command = command
        self.environment = environment
        self.workingDirectory = workingDirectory
        self.user = user
        self.terminal = terminal
        self.stdin = stdin
        self.columns = columns
        self.rows = rows
    }

    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        command = try values.decode([String].self, forKey: .command)
        environment = try values.decode(.environment, or: [])
        workingDirectory = try values.decode(.workingDirectory, or: "")
        user = try values.decode(.user, or: "")
        terminal = try values.decode(.terminal, or: false)
        stdin = try values.decode(.stdin, or: false)
        columns = try values.decode(.columns, or: 0)
        rows = try values.decode(.rows, or: 0)
        privileged = try values.decode(.privileged, or: false)
        stdout = try values.decode(.stdout, or: true)
        stderr = try values.decode(.stderr, or: true)
        announced = try values.decode(.announced, or: false)
    }

    /// Refuses what the caller's programs may not have.
    package func admit(by subject: Subject) throws(APIProblem) {
        guard !privileged || subject.policy.privileged else {
            throw APIProblem(.forbidden, "\(subject.title) may not run privileged programs")
        }
    }
}

/// A program that was asked for by `ExecRequest` runs.
package struct ExecStarted: Sendable, Codable {
    /// On its node.
    package var pid: Int

    package init(pid: Int) { self.pid = pid }
}

/// `POST /volumes`.
package struct CreateVolume: Sendable, Codable {
    package var name: String
    package var labels: [String: String]
    /// How it is mounted: `type`, `device`, `o`, see mount(8); empty: a directory.
    package var options: [String: String]
    package var isAnonymous: Bool
    /// Whose it is; the caller's own, or `/`, by default. Agents are not told.
    package var group: String?

    package init(
        name: String, labels: [String: String] = [:], options: [String: String] = [:], isAnonymous: Bool = false,
        group: String? = nil
    ) {
        self.options = options
        self.isAnonymous = isAnonymous
        self.name = name
        self.labels = labels
        self.group = group
    }

    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        name = try values.decode(String.self, forKey: .name)
        labels = try values.decode(.labels, or: [:])
        options = try values.decode(.options, or: [:])
        isAnonymous = try values.decode(.isAnonymous, or: false)
        group = try values.decodeIfPresent(String.self, forKey: .group)
    }
}
