import JSON

/// What martlet-nvml prints: JSON objects, a line each, the first with the protocol's number.
///
/// One call of `inventory` prints one line, `.inventory` or `.failure`. `watch` prints the same first and then events as
/// they come and samples at an interval, until it is ended or prints `.failure`.
package enum NVMLLine: Sendable, Equatable {
    case inventory(NVMLInventory)
    case event(NVMLEvent)
    case sample(NVMLSample)
    case failure(NVMLFailure)

    /// What a line of another number means is not known, and it is refused.
    package static let protocolNumber = 1
    /// Most bytes of a line with its line break.
    package static let limit = 1 << 20
    /// Most GPUs that are told of; a machine has 16 at most today.
    package static let maximumGPUs = 64
    /// Most MIG instances of a GPU; it has 7 at most today.
    package static let maximumInstances = 64
    /// Most processes of a GPU in a sample.
    package static let maximumProcesses = 256

    /// The text with its line break.
    package func encoded() throws -> [UInt8] {
        let (kind, value) =
            switch self {
            case .inventory(let value): ("inventory", try JSONCoding.value(value))
            case .event(let value): ("event", try JSONCoding.value(value))
            case .sample(let value): ("sample", try JSONCoding.value(value))
            case .failure(let value): ("failure", try JSONCoding.value(value))
            }
        let line: JSONValue = ["protocol": .integer(Int64(Self.protocolNumber)), "kind": .string(kind), kind: value]
        return line.serialized() + [UInt8(ascii: "\n")]
    }

    /// Reads one line, without or with its line break. Members that this version does not know are passed over.
    ///
    /// - Throws: `JSONError` for what is no such line, of another protocol's number, or larger than the bounds.
    package init(_ bytes: [UInt8]) throws {
        let limits = JSONLimits(bytes: Self.limit, depth: 16, stringBytes: 4096)
        let value = try JSONValue.parse(bytes, limits: limits)
        let reader = JSONReader(value)
        let number: Int = try reader.required("protocol").integer()
        guard number == Self.protocolNumber else {
            throw reader.error(.type, "protocol", "\(number) is not the protocol's number \(Self.protocolNumber)")
        }
        let kind = try reader.string("kind")
        let member = try reader.required(kind).value
        switch kind {
        case "inventory":
            let inventory = try JSONCoding.decode(NVMLInventory.self, from: member)
            try Self.check(inventory, reader)
            self = .inventory(inventory)
        case "event": self = .event(try JSONCoding.decode(NVMLEvent.self, from: member))
        case "sample":
            let sample = try JSONCoding.decode(NVMLSample.self, from: member)
            guard sample.gpus.count <= Self.maximumGPUs,
                sample.gpus.allSatisfy({
                    $0.processes.count <= Self.maximumProcesses && $0.instances.count <= Self.maximumInstances
                })
            else { throw reader.error(.tooLarge, kind, "more GPUs, instances or processes than are ever told of") }
            self = .sample(sample)
        case "failure": self = .failure(try JSONCoding.decode(NVMLFailure.self, from: member))
        default: throw reader.error(.type, "kind", "\(JSONPathElement.quoted(kind)) is no kind of line")
        }
    }

    private static func check(_ inventory: NVMLInventory, _ reader: JSONReader) throws(JSONError) {
        guard inventory.gpus.count <= maximumGPUs,
            inventory.gpus.allSatisfy({ $0.instances.count <= maximumInstances && $0.links.count <= 64 }),
            inventory.ancestors.count <= maximumGPUs * maximumGPUs
        else { throw reader.error(.tooLarge, "inventory", "more GPUs, instances or links than are ever told of") }
        let indexes = Set(inventory.gpus.map(\.index))
        guard indexes.count == inventory.gpus.count,
            inventory.ancestors.allSatisfy({ indexes.contains($0.first) && indexes.contains($0.second) })
        else { throw reader.error(.type, "inventory", "indexes of GPUs do not fit together") }
    }
}

/// Something happened to a GPU.
package struct NVMLEvent: Codable, Sendable, Equatable {
    package enum Kind: String, Codable, Sendable { case xid, singleBitECC, doubleBitECC, unwatched }

    /// `unwatched`: events of this GPU cannot be had, and `message` says why.
    package var kind: Kind
    /// Whose; absent when the library could not say, and then it may be any.
    package var uuid: String?
    /// The XID's number, 999 when the driver does not know it.
    package var xid: UInt64?
    /// Of a MIG instance.
    package var gpuInstance: UInt32?
    package var computeInstance: UInt32?
    package var message: String?

    package init(_ kind: Kind, uuid: String?) {
        self.kind = kind
        self.uuid = uuid
    }
}

/// How the GPUs are used at one moment.
package struct NVMLSample: Codable, Sendable, Equatable {
    package var gpus: [NVMLUsage]

    package init(_ gpus: [NVMLUsage]) { self.gpus = gpus }
}

/// How one GPU is used. Absent: cannot be read.
package struct NVMLUsage: Codable, Sendable, Equatable {
    package var index: Int
    package var uuid: String?
    /// Percent of the last interval in which a kernel ran, and in which memory was read or written.
    package var utilization: UInt32?
    package var memoryUtilization: UInt32?
    package var memoryUsedBytes: UInt64?
    package var memoryBytes: UInt64?
    package var celsius: Int?
    package var milliwatts: UInt32?
    package var condition = NVMLCondition()
    package var instances: [NVMLInstanceUsage] = []
    /// Those that compute on it, at most `NVMLLine.maximumProcesses`.
    package var processes: [NVMLProcess] = []
    package var isLost = false

    package init(index: Int, uuid: String?) {
        self.index = index
        self.uuid = uuid
    }
}

/// How a MIG instance is used.
package struct NVMLInstanceUsage: Codable, Sendable, Equatable {
    package var uuid: String
    package var memoryUsedBytes: UInt64?
    package var memoryBytes: UInt64?

    package init(uuid: String) { self.uuid = uuid }
}

/// A process on a GPU.
package struct NVMLProcess: Codable, Sendable, Equatable {
    /// In the host's pid namespace.
    package var pid: UInt32
    package var memoryBytes: UInt64?
    package var gpuInstance: UInt32?
    package var computeInstance: UInt32?

    package init(pid: UInt32) { self.pid = pid }
}

/// Why there is no inventory, or no more of it.
package struct NVMLFailure: Codable, Sendable, Equatable, Error, CustomStringConvertible {
    package enum Reason: String, Codable, Sendable {
        /// There is no library: a machine without NVIDIA's driver.
        case libraryMissing
        /// There is one that cannot be used.
        case libraryBroken
        /// The kernel's part of the driver is not loaded.
        case driverNotLoaded
        /// The library is of another version than the kernel's part: an update without a reboot.
        case versionMismatch
        case noPermission
        /// Any other error of the library.
        case other
    }

    package var reason: Reason
    /// What failed, why, and what to do next.
    package var message: String

    package init(_ reason: Reason, _ message: String) {
        self.reason = reason
        self.message = message
    }

    package var description: String { message }
}
