import JSON

/// Devices that a container wants of its node, and what they have to be like. The master chooses which, in the
/// transaction that places the task; one that a task has whole is no other's.
package struct DeviceClaim: Sendable, Hashable, Codable {
    /// Whether others may have the same device at the same time.
    package enum Sharing: String, Sendable, Hashable, Codable, CaseIterable {
        /// No.
        case whole
        /// One of the shares that the node declares for it: others have the rest, and nothing parts them.
        case share
    }

    /// What becomes of the container when one of its devices becomes unusable.
    package enum HealthPolicy: String, Sendable, Hashable, Codable, CaseIterable {
        /// It goes on as well as it can.
        case stay
        /// It is replaced, with other devices, as soon as there are some.
        case restart
        /// It is ended, and not started again until somebody wants it.
        case end
    }

    /// `gpu`.
    package var kind: String
    /// How many, 1…64; nil: as many as `ids` has, else 1.
    package var count: Int?
    /// All of the node that are like this; not together with `count` or `ids`.
    package var all: Bool
    /// These and no others, by id or alias; empty: any.
    package var ids: [String]
    /// `nvidia`, `amd`, `intel`; nil: any.
    package var vendor: String?
    /// A pattern for the model's name, see `Pattern`; nil: any.
    package var model: String?
    /// Bytes that each has at least.
    package var memory: Int64?
    /// The least version of the driver.
    package var driver: String?
    /// The least version of CUDA that the driver serves.
    package var runtime: String?
    /// The least compute capability, `8.0`; one that is no version, as AMD's `gfx942`, is meant exactly.
    package var capability: String?
    /// Partitions whose profile is like this pattern; nil: whole devices, unless `ids` names partitions.
    package var profile: String?
    package var sharing: Sharing
    package var onUnhealthy: HealthPolicy
    /// What of the driver is wanted, as Docker's clients say it: `compute`, `utility`, …; empty: all.
    package var driverFeatures: [String]

    package init(
        kind: String = NodeDevice.gpu, count: Int? = nil, all: Bool = false, ids: [String] = [], vendor: String? = nil,
        model: String? = nil, memory: Int64? = nil, driver: String? = nil, runtime: String? = nil,
        capability: String? = nil, profile: String? = nil, sharing: Sharing = .whole,
        onUnhealthy: HealthPolicy = .stay, driverFeatures: [String] = []
    ) {
        self.kind = kind
        self.count = count
        self.all = all
        self.ids = ids
        self.vendor = vendor
        self.model = model
        self.memory = memory
        self.driver = driver
        self.runtime = runtime
        self.capability = capability
        self.profile = profile
        self.sharing = sharing
        self.onUnhealthy = onUnhealthy
        self.driverFeatures = driverFeatures
    }

    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        kind = try values.decode(.kind, or: NodeDevice.gpu)
        count = try values.decodeIfPresent(Int.self, forKey: .count)
        all = try values.decode(.all, or: false)
        ids = try values.decode(.ids, or: [])
        vendor = try values.decodeIfPresent(String.self, forKey: .vendor)
        model = try values.decodeIfPresent(String.self, forKey: .model)
        memory = try values.decodeIfPresent(Int64.self, forKey: .memory)
        driver = try values.decodeIfPresent(String.self, forKey: .driver)
        runtime = try values.decodeIfPresent(String.self, forKey: .runtime)
        capability = try values.decodeIfPresent(String.self, forKey: .capability)
        profile = try values.decodeIfPresent(String.self, forKey: .profile)
        sharing = try values.decode(.sharing, or: .whole)
        onUnhealthy = try values.decode(.onUnhealthy, or: .stay)
        driverFeatures = try values.decode(.driverFeatures, or: [])
    }

    /// How many are wanted; nil: all that there are.
    package var wanted: Int? { all ? nil : count ?? max(1, ids.count) }

    /// Most devices of a claim, and of all claims of a container.
    package static let mostDevices = 64
    /// Most claims of a container.
    package static let mostClaims = 16
}

/// What a claim got: the devices of the task's node that the container may use, and no others.
package struct DeviceGrant: Sendable, Hashable, Codable {
    /// The container's name in its pod.
    package var container: String
    /// Which of the container's claims it is for, from 0 on.
    package var claim: Int
    /// Ids, in the order in which its node reports them.
    package var devices: [String]
    package var sharing: DeviceClaim.Sharing
    /// The container is not to have them any more from this revision on, and may still use them: they are nobody else's until
    /// its node has said that the revision is in force (`TaskStatus.revision`). nil: they are the task's.
    package var leftAt: Int?

    /// What nodes can do whose agents change the devices of containers that run, see `Node.features`.
    package static let changeFeature = "device-changes"

    package init(
        container: String, claim: Int, devices: [String], sharing: DeviceClaim.Sharing = .whole, leftAt: Int? = nil
    ) {
        self.leftAt = leftAt
        self.container = container
        self.claim = claim
        self.devices = devices
        self.sharing = sharing
    }

    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        container = try values.decode(String.self, forKey: .container)
        claim = try values.decode(Int.self, forKey: .claim)
        devices = try values.decode([String].self, forKey: .devices)
        sharing = try values.decode(.sharing, or: .whole)
        leftAt = try values.decodeIfPresent(Int.self, forKey: .leftAt)
    }
}
