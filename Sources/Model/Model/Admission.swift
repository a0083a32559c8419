/// Why a request was not admitted: the field, as a path in the body, and a sentence.
package struct AdmissionError: Error, Sendable, Hashable, CustomStringConvertible {
    package enum Kind: Sendable, Hashable {
        /// The value cannot be meant.
        case invalid
        /// No node has the image.
        case unknownImage
        /// The name is known, but this version does not do it.
        case unsupported
        /// The subject may not ask for this.
        case forbidden
    }

    package var kind: Kind
    /// `$.pod.containers[0].image`.
    package var field: String
    package var message: String

    package init(_ field: String, _ message: String, kind: Kind = .invalid) {
        self.kind = kind
        self.field = field
        self.message = message
    }

    package var description: String { "\(field): \(message)" }
}

/// What the subject of a request may ask for. On one machine whoever may open the socket may do all of it; groups
/// and rights narrow it later, for every face at once.
package struct AdmissionPolicy: Sendable {
    package var hostNetwork = true
    package var bindMounts = true
    package var unconfinedSeccomp = true
    package var addedCapabilities = true
    /// Those of the node, and rules for them.
    package var devices = true
    /// Namespaces of the node.
    package var hostNamespaces = true
    package var privileged = true
    /// To be killed later than others when the node's memory runs out.
    package var oomProtection = true
    /// Other paths hidden or read-only than the usual ones.
    package var chosenPaths = true

    package init() {}

    /// What a workload may have that can do nothing to its node or to the others there.
    package static var confined: AdmissionPolicy {
        var policy = AdmissionPolicy()
        policy.hostNetwork = false
        policy.bindMounts = false
        policy.unconfinedSeccomp = false
        policy.addedCapabilities = false
        policy.devices = false
        policy.hostNamespaces = false
        policy.privileged = false
        policy.oomProtection = false
        policy.chosenPaths = false
        return policy
    }
}

/// The one path by which every face's requests become objects: defaults → validation → policy.
package struct Admission: Sendable {
    /// What an image name means now.
    package struct ResolvedImage: Sendable, Hashable {
        /// `sha256:…` of the manifest.
        package var digest: String

        package init(digest: String) { self.digest = digest }
    }

    /// Finds the content that a name means; nil: no node has it.
    package typealias ImageResolver = (_ image: String) -> ResolvedImage?

    package var policy: AdmissionPolicy

    package init(policy: AdmissionPolicy = AdmissionPolicy()) { self.policy = policy }

    /// Checks a pod and fills in what its user left out: the container's name, the digest of its image, the kernel's
    /// spelling of capabilities, the restart policy of a service, which is kept running (`no` becomes `always`), and what
    /// becomes of it when its node is lost.
    ///
    /// - Parameter path: where the pod stands in the body, for messages.
    /// - Throws: `AdmissionError` with the first field that is not accepted.
    package func pod(
        _ asked: PodSpec, kind: Workload.Kind, at path: String = "$.pod", images: ImageResolver
    ) throws(AdmissionError) -> PodSpec {
        var pod = asked
        guard pod.containers.count == 1 else {
            throw AdmissionError(
                "\(path).containers", "this version admits exactly one container in a pod, not \(pod.containers.count)",
                kind: pod.containers.isEmpty ? .invalid : .unsupported)
        }
        if kind == .service, pod.restart.condition == .no { pod.restart.condition = .always }
        try restart(pod.restart, at: "\(path).restart")
        try names(pod, at: path)
        try namespaces(pod, kind: kind, at: path)
        try ports(pod.ports, network: pod.network, at: "\(path).ports")
        try constraints(pod.constraints, at: "\(path).constraints")
        try constraints(pod.affinities, at: "\(path).affinities")
        pod.loss = pod.loss(of: kind)
        try loss(pod, at: "\(path).loss")
        if pod.network == .host, !policy.hostNetwork {
            throw AdmissionError("\(path).network", "the network of the node is not allowed here", kind: .forbidden)
        }
        for index in pod.containers.indices {
            try container(
                &pod.containers[index], of: pod, at: "\(path).containers[\(index)]", images: images)
        }
        return pod
    }

    /// Checks a workload's name: letters, digits, `_`, `.` and `-`, the first a letter or digit, at most 63.
    package func name(_ name: String, at path: String = "$.name") throws(AdmissionError) {
        guard Self.isName(name) else {
            throw AdmissionError(
                path,
                "\(Self.quoted(name)) is no name: use 1 to 63 letters, digits, '_', '.' and '-', first a letter or "
                    + "digit"
            )
        }
    }

    /// Checks a volume's name: as a workload's, at most 128 bytes: those that nobody gave a name have 64.
    package func volumeName(_ name: String, at path: String = "$.name") throws(AdmissionError) {
        guard Self.isVolumeName(name) else {
            throw AdmissionError(
                path,
                "\(Self.quoted(name)) is no name of a volume: use 1 to 128 letters, digits, '_', '.' and '-', first a "
                    + "letter or digit"
            )
        }
    }

    /// Checks labels; those under `martlet.` are the cluster's own.
    package func labels(_ labels: [String: String], at path: String = "$.labels") throws(AdmissionError) {
        try bounded(labels.count, 1024, "labels", at: path)
        for (key, value) in labels.sorted(by: { $0.key < $1.key }) {
            try text(key, atMost: 256, "the key", at: path)
            try text(value, atMost: 64 << 10, "the value of \(key)", at: path)
            if key.isEmpty || key.contains("=") {
                throw AdmissionError(path, "\(Self.quoted(key)) is no label key: it is empty or contains '='")
            }
            if key.hasPrefix("martlet.") {
                throw AdmissionError(path, "the label \(key) is refused: keys under 'martlet.' are the cluster's own")
            }
        }
    }

    /// Checks a service's scale: 0…100,000 instances.
    package func scale(_ scale: Workload.Scale, at path: String = "$.scale") throws(AdmissionError) {
        guard case .replicated(let number) = scale else { return }
        guard (0...100_000).contains(number) else {
            throw AdmissionError("\(path).replicated", "\(number) is not between 0 and 100000")
        }
    }

    /// Checks how a service is updated.
    package func update(_ update: UpdatePolicy, at path: String = "$.update") throws(AdmissionError) {
        try range(update.parallelism, 1...100_000, at: "\(path).parallelism")
        try range(update.delay, 0...86_400, at: "\(path).delay")
        try range(update.monitor, 0...86_400, at: "\(path).monitor")
    }

    /// Checks a stop order: a known signal, a grace of at most a day.
    package func stop(_ order: StopOrder, at path: String = "$") throws(AdmissionError) {
        if let signal = order.signal, SignalName(signal) == nil {
            throw AdmissionError("\(path).signal", "there is no signal \(Self.quoted(signal))")
        }
        if let grace = order.grace { try range(grace, 0...86_400, at: "\(path).grace") }
    }

    /// `rm` after the end and a restart exclude each other.
    package func removeOnExit(_ pod: PodSpec, at path: String = "$.removeOnExit") throws(AdmissionError) {
        guard pod.restart.condition == .no else {
            throw AdmissionError(
                path,
                "a container cannot be both removed at its end and restarted by policy "
                    + "\(pod.restart.condition.rawValue): leave one of them out")
        }
    }
}

extension Admission {
    package func restart(_ policy: RestartPolicy, at path: String) throws(AdmissionError) {
        guard let retries = policy.maximumRetries else { return }
        guard policy.condition == .onFailure else {
            throw AdmissionError("\(path).maximumRetries", "goes only with the condition on-failure")
        }
        try range(retries, 0...1_000_000, at: "\(path).maximumRetries")
    }

    private func constraints(_ constraints: [Constraint], at path: String) throws(AdmissionError) {
        try bounded(constraints.count, 64, "constraints", at: path)
        for (index, constraint) in constraints.enumerated() {
            try text(constraint.label, atMost: 256, "the label", at: "\(path)[\(index)].label")
            try text(constraint.value, atMost: 4096, "the value", at: "\(path)[\(index)].value")
            if constraint.label.isEmpty { throw AdmissionError("\(path)[\(index)].label", "is empty") }
            do {
                _ = try Pattern(constraint.value)
            } catch {
                throw AdmissionError(
                    "\(path)[\(index)].value",
                    "\(Self.quoted(constraint.value)) is no regular expression: \(error)")
            }
        }
    }
}

// MARK: - Checks that the parts share

extension Admission {
    func range(_ value: Int, _ bounds: ClosedRange<Int>, at path: String) throws(AdmissionError) {
        guard bounds.contains(value) else {
            throw AdmissionError(path, "\(value) is not between \(bounds.lowerBound) and \(bounds.upperBound)")
        }
    }

    func bounded(_ count: Int, _ most: Int, _ what: String, at path: String) throws(AdmissionError) {
        guard count <= most else { throw AdmissionError(path, "\(count) \(what) are more than the \(most) allowed") }
    }

    /// No NUL (which would end the text early in the kernel), at most so many bytes.
    func text(_ text: String, atMost bytes: Int, _ what: String, at path: String) throws(AdmissionError) {
        guard text.utf8.count <= bytes else {
            throw AdmissionError(path, "\(what) has \(text.utf8.count) bytes, more than the \(bytes) allowed")
        }
        guard !text.utf8.contains(0) else { throw AdmissionError(path, "\(what) contains a NUL byte") }
    }

    package static func isName(_ text: String) -> Bool { isName(text, atMost: 63) }

    package static func isVolumeName(_ text: String) -> Bool { isName(text, atMost: 128) }

    private static func isName(_ text: String, atMost most: Int) -> Bool {
        let bytes = Array(text.utf8)
        guard (1...most).contains(bytes.count), isAlphanumeric(bytes[0]) else { return false }
        return bytes.allSatisfy {
            isAlphanumeric($0) || $0 == UInt8(ascii: "_") || $0 == UInt8(ascii: ".") || $0 == UInt8(ascii: "-")
        }
    }

    package static func isAlphanumeric(_ byte: UInt8) -> Bool {
        (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
            || (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte | 0x20)
    }

    /// The text in quotes, shortened, without anything that could disturb a terminal.
    package static func quoted(_ text: String) -> String {
        var shown = ""
        for scalar in text.unicodeScalars.prefix(80) {
            shown.unicodeScalars.append(scalar.value < 0x20 || scalar.value == 0x7F ? "?" : scalar)
        }
        return "'\(shown)\(text.unicodeScalars.count > 80 ? "…" : "")'"
    }
}
