import Model

/// What a container's spec says, as bits: each thing that is said sets two of 64. Where a bit is missing that a thing
/// would set, the spec does not say it; where all are there it may.
struct ContainerFacts: Sendable, Hashable {
    private var labels: UInt64
    /// Images, volumes, places of mounts, and networks.
    private var others: UInt64

    /// Whatever is asked, it may be so.
    static let unknown = ContainerFacts(labels: .max, others: .max)

    private init(labels: UInt64, others: UInt64) {
        self.labels = labels
        self.others = others
    }

    init(
        labels: [String: String], containers: [ContainerSpec], network: PodSpec.Network,
        attachments: [NetworkAttachment]
    ) {
        self.init(labels: 0, others: Self.bits(network.rawValue))
        for attachment in attachments { others |= Self.bits(attachment.network) }
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

    /// What is said of one that has the image, the volume, the place of a mount, the network's id or kind.
    init(_ name: String) { self.init(labels: 0, others: Self.bits(name)) }

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
    private let networks: [ContainerFacts]?

    /// - Parameter names: of all networks; a container is on none but these.
    init(_ selection: ContainerSelection, _ names: [NetworkID: String]) {
        all = selection.labels.map { ContainerFacts($0) }
        images = selection.images.map { $0.map { ContainerFacts($0) } }
        volumes = selection.volumes.map { ContainerFacts($0) }
        networks =
            selection.networks.isEmpty
            ? nil
            : selection.networks.flatMap { network in
                [network] + names.filter { $0.value == network || $0.key.text.hasPrefix(network) }.map(\.key.text)
            }.map { ContainerFacts($0) }
    }

    func mayBeMet(by facts: ContainerFacts) -> Bool {
        all.allSatisfy(facts.mayHave) && images?.contains(where: facts.mayHave) ?? true
            && (volumes.isEmpty || volumes.contains(where: facts.mayHave))
            && networks?.contains(where: facts.mayHave) ?? true
    }
}
