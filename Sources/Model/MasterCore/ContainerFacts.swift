import Model

/// What a container's spec says, as bits: each thing that is said sets two of 64. Where a bit is missing that a thing
/// would set, the spec does not say it; where all are there it may.
struct ContainerFacts: Sendable, Hashable {
    private var labels: UInt64
    /// Images, volumes and places of mounts.
    private var others: UInt64

    /// Whatever is asked, it may be so.
    static let unknown = ContainerFacts(labels: .max, others: .max)

    private init(labels: UInt64, others: UInt64) {
        self.labels = labels
        self.others = others
    }

    init(labels: [String: String], containers: [ContainerSpec]) {
        self.init(labels: 0, others: 0)
        for (key, value) in labels { self.labels |= Self.bits(key) | Self.bits(key, value) }
        for container in containers {
            others |= Self.bits(container.imageDigest) | Self.bits(container.image)
            for mount in container.mounts {
                others |= Self.bits(mount.target)
                switch mount.source {
                case .volume(let name): others |= Self.bits(name)
                case .bind(let path): others |= Self.bits(path)
                case .tmpfs, .secret, .config: break
                }
            }
        }
    }

    /// What is said of one that has the label.
    init(_ label: LabelSelector) {
        self.init(labels: Self.bits(label.key) | (label.value.map { Self.bits(label.key, $0) } ?? 0), others: 0)
    }

    /// What is said of one that has the image, the volume or the place of a mount.
    init(image: String) { self.init(labels: 0, others: Self.bits(image)) }
    init(mount: String) { self.init(labels: 0, others: Self.bits(mount)) }

    func mayHave(_ other: Self) -> Bool {
        labels & other.labels == other.labels && others & other.others == other.others
    }

    private static func bits(_ text: String, _ value: String? = nil) -> UInt64 {
        var hasher = Hasher()
        hasher.combine(text)
        if let value { hasher.combine(value) }
        let hash = hasher.finalize()
        return 1 << (hash & 63) | 1 << (hash >> 6 & 63)
    }
}

/// What a selection asks of facts.
struct AskedFacts: Sendable {
    private let all: [ContainerFacts]
    /// Of each, one; empty: nothing is asked.
    private let images: [ContainerFacts]?
    private let volumes: [ContainerFacts]

    init(_ selection: ContainerSelection) {
        all = selection.labels.map { ContainerFacts($0) }
        images = selection.images.map { $0.map { ContainerFacts(image: $0) } }
        volumes = selection.volumes.map { ContainerFacts(mount: $0) }
    }

    func mayBeMet(by facts: ContainerFacts) -> Bool {
        all.allSatisfy(facts.mayHave) && images?.contains(where: facts.mayHave) ?? true
            && (volumes.isEmpty || volumes.contains(where: facts.mayHave))
    }
}
