/// What becomes of an instance whose node is not heard of any more. Times in seconds, counted from when the node was
/// last heard of.
package struct LossPolicy: Sendable, Hashable, Codable {
    package enum OnReturn: String, Sendable, Hashable, Codable {
        /// The instance that came back goes on, and its replacement is removed.
        case keepOriginal
        /// The replacement goes on, and what came back is removed.
        case keepReplacement
    }

    /// In JSON `"keep"` or `{"stopAfter": 30}`.
    package enum OnDisconnect: Sendable, Hashable {
        /// The node lets it run while it is cut off.
        case keep
        /// The node ends it when it has been cut off for so long; so that it and a replacement never run at the same
        /// time, `replaceAfter` has to be larger than this and the grace of its stop together.
        case stopAfter(Int)
    }

    /// nil: it is never replaced, and waits for its node.
    package var replaceAfter: Int?
    /// When it is taken for lost, and removed should its node return; nil: never.
    package var giveUpAfter: Int?
    package var onReturn: OnReturn
    package var onDisconnect: OnDisconnect

    package init(
        replaceAfter: Int? = nil, giveUpAfter: Int? = nil, onReturn: OnReturn = .keepReplacement,
        onDisconnect: OnDisconnect = .keep
    ) {
        self.replaceAfter = replaceAfter
        self.giveUpAfter = giveUpAfter
        self.onReturn = onReturn
        self.onDisconnect = onDisconnect
    }

    /// What holds where a user says nothing: a service's instance is replaced after a minute and given up after a day, a
    /// container waits for its node.
    package static func standard(for kind: Workload.Kind) -> LossPolicy {
        switch kind {
        case .service: LossPolicy(replaceAfter: 60, giveUpAfter: 86_400)
        case .container: LossPolicy()
        }
    }

    /// Seconds of silence after which a node counts as unreachable; nothing is replaced before.
    package static let patience = 15

    /// What lies between the last moment at which a container with `stopAfter` may run and its replacement, beside a
    /// twentieth of the whole time: clocks run at nearly the same rate, and heartbeats count from when they were sent.
    package static let margin = 5

    /// The least `replaceAfter` with which a container that stops after `seconds`, within `grace`, never meets its
    /// replacement.
    package static func leastReplaceAfter(stopAfter seconds: Int, grace: Int) -> Int {
        seconds + grace + margin + (seconds + grace + 19) / 20
    }

    /// Seconds without contact after which the node ends it; nil: never.
    package var stopAfter: Int? {
        if case .stopAfter(let seconds) = onDisconnect { seconds } else { nil }
    }

    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        replaceAfter = try values.decodeIfPresent(Int.self, forKey: .replaceAfter)
        giveUpAfter = try values.decodeIfPresent(Int.self, forKey: .giveUpAfter)
        onReturn = try values.decode(.onReturn, or: .keepReplacement)
        onDisconnect = try values.decode(.onDisconnect, or: .keep)
    }
}

extension LossPolicy.OnDisconnect: Codable {
    private enum Alternative: String, CodingKey { case stopAfter }

    package init(from decoder: any Decoder) throws {
        if let word = try? decoder.singleValueContainer().decode(String.self) {
            guard word == "keep" else {
                throw DecodingError.dataCorrupted(
                    .init(
                        codingPath: decoder.codingPath, debugDescription: "'keep' or {\"stopAfter\": seconds} is wanted"
                    ))
            }
            self = .keep
        } else {
            let values = try decoder.container(keyedBy: Alternative.self)
            self = .stopAfter(try values.decode(Int.self, forKey: .stopAfter))
        }
    }

    package func encode(to encoder: any Encoder) throws {
        switch self {
        case .keep:
            var value = encoder.singleValueContainer()
            try value.encode("keep")
        case .stopAfter(let seconds):
            var values = encoder.container(keyedBy: Alternative.self)
            try values.encode(seconds, forKey: .stopAfter)
        }
    }
}

extension PodSpec {
    /// What becomes of its instances when their node is not heard of.
    package func loss(of kind: Workload.Kind) -> LossPolicy { loss ?? .standard(for: kind) }

    /// Names of the volumes that it mounts, each once, in order.
    package var volumes: [String] {
        var names: Set<String> = []
        for container in containers {
            for mount in container.mounts { if case .volume(let name) = mount.source { names.insert(name) } }
        }
        return names.sorted()
    }
}
