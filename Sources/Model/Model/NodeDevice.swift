import JSON

/// A device of a node that tasks can claim, as its agent reports it: a GPU, or a part of one that is granted by itself.
///
/// It says nothing of device files: what a container needs to use it is the node's own business. Members that a later
/// agent adds are passed over, and words that this version does not know become the most careful one.
package struct NodeDevice: Sendable, Hashable, Codable {
    /// A way to another device of the same node.
    package struct Link: Sendable, Hashable, Codable {
        /// From the best to the worst; those of PCI say where the ways of the two meet.
        package enum Kind: String, Sendable, Hashable, Codable, CaseIterable {
            /// NVLinks straight to it; `amount` is how many.
            case nvlink
            /// Both are on NVSwitches; `amount` is how many NVLinks each has there at least.
            case nvswitch
            /// AMD's fabric; `amount` is the topology's weight: less is nearer.
            case xgmi
            case board, singleSwitch, switches, hostBridge, node, system

            package init(from decoder: any Decoder) throws {
                self = Self(rawValue: try decoder.singleValueContainer().decode(String.self)) ?? .system
            }
        }

        /// The other device's id.
        package var to: String
        package var kind: Kind
        /// See `Kind`; 0 for those of PCI.
        package var amount: Int

        package init(to: String, _ kind: Kind, amount: Int = 0) {
            self.to = to
            self.kind = kind
            self.amount = amount
        }

        package init(from decoder: any Decoder) throws {
            let values = try decoder.container(keyedBy: CodingKeys.self)
            to = try values.decode(String.self, forKey: .to)
            kind = try values.decode(Kind.self, forKey: .kind)
            amount = try values.decode(.amount, or: 0)
        }
    }

    /// How it is.
    package struct Health: Sendable, Hashable, Codable {
        package enum State: String, Sendable, Hashable, Codable, CaseIterable {
            case healthy
            /// Nobody can say.
            case unknown
            /// It works, and an operator should look at it.
            case degraded
            /// No new work may be given to it.
            case unusable

            package init(from decoder: any Decoder) throws {
                self = Self(rawValue: try decoder.singleValueContainer().decode(String.self)) ?? .unusable
            }
        }

        package var state: State
        /// In words; empty while it is healthy.
        package var reasons: [String]

        package init(_ state: State = .healthy, reasons: [String] = []) {
            self.state = state
            self.reasons = reasons
        }

        package init(from decoder: any Decoder) throws {
            let values = try decoder.container(keyedBy: CodingKeys.self)
            state = try values.decode(State.self, forKey: .state)
            reasons = try values.decode(.reasons, or: [])
        }
    }

    /// Unique on its node, and the same from boot to boot: NVIDIA's uuid, `amd-<unique id>`, `intel-<PCI address>`.
    package var id: String
    /// Further names that a claim may have for it: its index as its vendor's tools count, `0`, or `0:1` for a partition.
    package var aliases: [String]
    /// `nvidia`, `amd`, `intel`.
    package var vendor: String
    /// `gpu`; there is no other kind.
    package var kind: String
    /// `NVIDIA H200`; nil: not known.
    package var model: String?
    package var memoryBytes: Int64?
    /// The version of its driver, `550.54.15`.
    package var driverVersion: String?
    /// The newest version of the vendor's run-time library that the driver serves: CUDA's, `12.4`.
    package var runtimeVersion: String?
    /// NVIDIA's compute capability, `9.0`, or AMD's architecture, `gfx942`.
    package var computeCapability: String?
    package var numaNode: Int?
    /// `0000:3b:00.0`.
    package var pciAddress: String?
    /// Of a partition: the id of the whole device.
    package var parent: String?
    /// Of a partition: how large it is, `1g.18gb`.
    package var profile: String?
    /// It is divided, and granted by its partitions only.
    package var isDivided: Bool
    /// To other devices of the node; one that is missing is as far as can be.
    package var links: [Link]
    package var health: Health
    /// It was pulled out, has fallen off the bus, or its partition was taken apart. It may return.
    package var isGone: Bool
    /// Nobody can say at present whether it is there: it gets no new work, and whoever has it is left alone.
    package var isUnconfirmed: Bool
    /// How many tasks may have it at the same time, as its node declares; 1: it is not shared.
    package var shares: Int
    /// Tasks of which the node has something left that uses the device: those that the master has forgotten, too.
    package var heldBy: [TaskID]

    package static let gpu = "gpu"

    package init(
        id: String, aliases: [String] = [], vendor: String, kind: String = gpu, model: String? = nil,
        memoryBytes: Int64? = nil, driverVersion: String? = nil, runtimeVersion: String? = nil,
        computeCapability: String? = nil, numaNode: Int? = nil, pciAddress: String? = nil, parent: String? = nil,
        profile: String? = nil, isDivided: Bool = false, links: [Link] = [], health: Health = Health(),
        isGone: Bool = false, isUnconfirmed: Bool = false, shares: Int = 1, heldBy: [TaskID] = []
    ) {
        self.id = id
        self.aliases = aliases
        self.vendor = vendor
        self.kind = kind
        self.model = model
        self.memoryBytes = memoryBytes
        self.driverVersion = driverVersion
        self.runtimeVersion = runtimeVersion
        self.computeCapability = computeCapability
        self.numaNode = numaNode
        self.pciAddress = pciAddress
        self.parent = parent
        self.profile = profile
        self.isDivided = isDivided
        self.links = links
        self.health = health
        self.isGone = isGone
        self.isUnconfirmed = isUnconfirmed
        self.shares = shares
        self.heldBy = heldBy
    }

    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        id = try values.decode(String.self, forKey: .id)
        aliases = try values.decode(.aliases, or: [])
        vendor = try values.decode(String.self, forKey: .vendor)
        kind = try values.decode(String.self, forKey: .kind)
        model = try values.decodeIfPresent(String.self, forKey: .model)
        memoryBytes = try values.decodeIfPresent(Int64.self, forKey: .memoryBytes)
        driverVersion = try values.decodeIfPresent(String.self, forKey: .driverVersion)
        runtimeVersion = try values.decodeIfPresent(String.self, forKey: .runtimeVersion)
        computeCapability = try values.decodeIfPresent(String.self, forKey: .computeCapability)
        numaNode = try values.decodeIfPresent(Int.self, forKey: .numaNode)
        pciAddress = try values.decodeIfPresent(String.self, forKey: .pciAddress)
        parent = try values.decodeIfPresent(String.self, forKey: .parent)
        profile = try values.decodeIfPresent(String.self, forKey: .profile)
        isDivided = try values.decode(.isDivided, or: false)
        links = try values.decode(.links, or: [])
        health = try values.decode(.health, or: Health())
        isGone = try values.decode(.isGone, or: false)
        isUnconfirmed = try values.decode(.isUnconfirmed, or: false)
        shares = try values.decode(.shares, or: 1)
        heldBy = try values.decode(.heldBy, or: [])
    }

    /// Whether it may be given to new work when nobody has it.
    package var isGrantable: Bool { !isDivided && !isGone && health.state != .unusable }

    /// Why whoever has it can do nothing with it any more, `is gone`; nil: for all that is known it can be used.
    package var trouble: String? {
        if isGone { return "is gone" }
        guard health.state == .unusable, !isUnconfirmed else { return nil }
        return "is unusable" + (health.reasons.isEmpty ? "" : ": " + health.reasons.joined(separator: "; "))
    }

    /// Whether it is so scarce that work without claims is kept off its node: a GPU with memory of its own. What a
    /// processor brings along is not.
    package var isScarce: Bool {
        kind == Self.gpu && !isGone && (memoryBytes.map { $0 >= 4 << 30 } ?? (vendor != "intel"))
    }
}

extension NodeDevice {
    /// Most devices of a node, and shares of one device: eight GPUs in seven parts are 64.
    package static let limit = 512
    package static let mostShares = 64

    /// What the master keeps of a node's report: within bounds, each id once. A device whose id or name of a vendor is no
    /// name is left out; texts that are too long are cut, since people read them only.
    package static func bounded(_ reported: [NodeDevice]) -> [NodeDevice] {
        var seen: Set<String> = []
        return reported.prefix(limit).filter { isName($0.id) && isName($0.vendor) && isName($0.kind) }
            .filter { seen.insert($0.id).inserted }.map(\.bounded)
    }

    private var bounded: NodeDevice {
        var device = self
        device.aliases = aliases.filter(Self.isName).prefix(4).map(\.self)
        device.model = model.map { Self.cut($0) }
        device.memoryBytes = memoryBytes.map { min(max(0, $0), 1 << 60) }
        device.driverVersion = driverVersion.map { Self.cut($0) }
        device.runtimeVersion = runtimeVersion.map { Self.cut($0) }
        device.computeCapability = computeCapability.map { Self.cut($0) }
        device.pciAddress = pciAddress.map { Self.cut($0) }
        device.parent = parent.map { Self.cut($0) }
        device.profile = profile.map { Self.cut($0) }
        device.links = links.prefix(256).filter { Self.isName($0.to) }.map { link in
            var link = link
            link.amount = min(max(0, link.amount), 1 << 20)
            return link
        }
        device.health.reasons = health.reasons.prefix(16).map { Self.cut($0, to: 400) }
        device.shares = min(max(1, shares), Self.mostShares)
        device.heldBy = heldBy.prefix(256).filter { $0.text.utf8.count <= 64 }
        return device
    }

    /// 1 to 128 printable characters without spaces, commas and quotation marks: they are written in lists.
    static func isName(_ text: String) -> Bool {
        (1...128).contains(text.utf8.count)
            && text.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F && $0 != 0x22 && $0 != 0x27 && $0 != 0x2C }
    }

    private static func cut(_ text: String, to bytes: Int = 128) -> String {
        guard text.utf8.count > bytes else { return text }
        return String(text.unicodeScalars.prefix(bytes / 4)) + "…"
    }
}

/// A version as devices and their drivers have it, `550.54.15`: numbers between dots, compared one after another.
package struct DeviceVersion: Sendable, Hashable, Comparable {
    private let numbers: [Int]

    /// - Returns: nil when it is no version: 1 to 6 numbers of at most 9 digits.
    package init?(_ text: String) {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        guard (1...6).contains(parts.count) else { return nil }
        var numbers: [Int] = []
        for part in parts {
            guard (1...9).contains(part.utf8.count), part.utf8.allSatisfy({ (0x30...0x39).contains($0) }),
                let number = Int(part)
            else { return nil }
            numbers.append(number)
        }
        // 550 and 550.0 are the same.
        while numbers.last == 0, numbers.count > 1 { numbers.removeLast() }
        self.numbers = numbers
    }

    package static func < (left: Self, right: Self) -> Bool { left.numbers.lexicographicallyPrecedes(right.numbers) }
}
