import Kernel
import Model
import Wire

/// Docker's request for a container in the cluster's words, with the image's configuration laid under it: list and
/// inspect need no image later.
struct CreateTranslation {
    let request: CreateRequest
    let image: ImageDetails
    /// The containers that VolumesFrom and links name, as they are named there.
    let others: [String: ContainerView]
    var spec: ContainerSpec
    var pod: PodSpec
    var labels: [String: String] = [:]
    var warnings: [String] = []
    /// Warnings of ports with an empty list of bindings, which clients are told since API 1.52.
    var emptyBindings: [String] = []

    var host: HostConfigRequest { request.hostConfig ?? HostConfigRequest() }

    init(_ request: CreateRequest, image: ImageDetails, others: [String: ContainerView] = [:]) {
        self.request = request
        self.image = image
        self.others = others
        spec = ContainerSpec(image: request.image ?? "")
        pod = PodSpec(containers: [])
    }

    /// - Throws: `DockerError` 400 that names what cannot be meant, or is not done.
    mutating func translate(name: String? = nil) throws -> CreateContainer {
        let expressions = try configuration()
        try command()
        spec.healthCheck = try healthCheck()
        try confinement()
        try limits()
        try sharing()
        try network()
        try mounts()
        try logging()
        try restart(expressions)
        pod.containers = [spec]
        return CreateContainer(
            name: name, pod: pod, labels: labels, removeOnExit: host.autoRemove ?? false, start: false)
    }

    // MARK: The image's configuration under the user's

    private mutating func configuration() throws -> SwarmExpressions {
        labels = request.labels ?? [:]
        var own = request.env ?? []
        let expressions = try SwarmExpressions.take(from: &own, labels: &labels)
        pod.constraints = expressions.constraints
        pod.affinities = expressions.affinities
        labels.merge(image.labels) { own, _ in own }
        let keys = Set(own.map { $0.prefix { $0 != "=" } })
        // A variable without a value takes the image's away.
        spec.environment = (own + image.environment.filter { entry in !keys.contains(entry.prefix { $0 != "=" }) })
            .filter { $0.contains("=") }
        spec.environmentIsWhole = true
        spec.user = request.user.flatMap { $0.isEmpty ? nil : $0 } ?? image.user
        let directory = request.workingDir.flatMap { $0.isEmpty ? nil : $0 } ?? image.workingDirectory
        spec.workingDirectory = directory.isEmpty ? "" : PathText.clean(directory) ?? directory
        spec.stopSignal = request.stopSignal.flatMap { $0.isEmpty ? nil : $0 } ?? image.stopSignal
        if let seconds = request.stopTimeout {
            guard seconds >= 0 else {
                throw DockerError.unsupported(
                    "StopTimeout", "\(seconds) would wait for ever: at most 86400 seconds are")
            }
            spec.stopGrace = seconds
        }
        spec.terminal = request.tty ?? false
        spec.stdin = request.openStdin ?? false
        spec.stdinOnce = spec.stdin && request.stdinOnce ?? false
        pod.hostname = request.hostname ?? ""
        pod.domainname = request.domainname ?? ""
        return expressions
    }

    /// A user's entrypoint voids the image's command; one that is an empty word is none at all.
    private mutating func command() throws {
        let entrypoint = request.entrypoint?.list
        var command = request.cmd?.list ?? []
        if (entrypoint ?? []).isEmpty, command.isEmpty { command = image.command }
        spec.entrypoint = entrypoint ?? image.entrypoint
        if spec.entrypoint == [""] { spec.entrypoint = [] }
        spec.command = command
        if (spec.entrypoint ?? []).isEmpty, command.isEmpty { throw DockerError.badRequest("no command specified") }
    }

    private func healthCheck() throws -> HealthCheck? {
        let own = request.healthcheck
        let base = image.healthCheck
        var test = own?.test ?? []
        if test.isEmpty { test = base?.test ?? [] }
        guard let kind = test.first, kind != "NONE" else { return nil }
        let words: [String]
        switch kind {
        case "CMD": words = Array(test.dropFirst())
        case "CMD-SHELL":
            let shell = request.shell ?? []
            words = (shell.isEmpty ? Self.shell : shell) + test.dropFirst()
        default:
            throw DockerError.badRequest(
                "Unknown healthcheck type '\(kind.prefix(40))': Healthcheck.Test begins with NONE, CMD or CMD-SHELL")
        }
        guard test.count > 1 else { throw DockerError.badRequest("Healthcheck.Test has no command after \(kind)") }
        // Zero says nothing.
        func seconds(_ name: String, _ own: Int64?, _ base: Int64?) throws -> Int? {
            guard let value = [own, base].compactMap(\.self).first(where: { $0 != 0 }) else { return nil }
            guard value >= 1_000_000 else {
                throw DockerError.badRequest("\(name) in Healthcheck cannot be less than 1ms")
            }
            // Whole seconds are the finest that is asked for.
            return Int((value - 1) / 1_000_000_000 + 1)
        }
        let retries = [own?.retries, base?.retries].compactMap(\.self).first { $0 != 0 }
        if let retries, !(1...1000).contains(retries) {
            throw DockerError.badRequest("Retries in Healthcheck is \(retries), and has to be from 1 to 1000")
        }
        var check = HealthCheck(
            probe: .command(words), interval: try seconds("Interval", own?.interval, base?.interval),
            timeout: try seconds("Timeout", own?.timeout, base?.timeout), retries: retries.map { Int($0) },
            startPeriod: try seconds("StartPeriod", own?.startPeriod, base?.startPeriod))
        check.startInterval = try seconds("StartInterval", own?.startInterval, base?.startInterval)
        check.onUnhealthy = .tell
        return check
    }

    /// What runs a health check that is given as one text.
    static let shell = ["/bin/sh", "-c"]

    // MARK: What becomes of it

    private mutating func logging() throws {
        let log = host.logConfig
        switch log?.type ?? "" {
        case "", "json-file", "local": break
        case "none": spec.logging.isKept = false
        case let other:
            throw DockerError.unsupported(
                "HostConfig.LogConfig.Type", "\(other.prefix(40)) is not there: json-file, local and none are")
        }
        for (option, value) in (log?.config ?? [:]).sorted(by: { $0.key < $1.key }) where spec.logging.isKept {
            switch option {
            case "max-size":
                guard let bytes = ByteCount.parse(value), bytes > 0 else {
                    throw DockerError.badRequest("HostConfig.LogConfig.Config.max-size: '\(value)' is no size as 10m")
                }
                spec.logging.maximumBytes = bytes
            case "max-file":
                guard let files = Int(value), files >= 1 else {
                    throw DockerError.badRequest(
                        "HostConfig.LogConfig.Config.max-file: '\(value)' is no number from 1 on")
                }
                spec.logging.maximumFiles = files
            default:
                throw DockerError.unsupported(
                    "HostConfig.LogConfig.Config.\(option)", "max-size and max-file are the options of logs")
            }
        }
    }

    /// The restart policy, and with it whether another node takes the container over when its own is lost.
    private mutating func restart(_ expressions: SwarmExpressions) throws {
        let policy = try host.restartPolicy?.policy() ?? RestartPolicy(.no)
        if host.autoRemove == true, policy.condition != .no {
            throw DockerError.badRequest("can't create 'AutoRemove' container with restart policy")
        }
        pod.restart = policy
        if expressions.reschedules ?? (policy.condition != .no) { pod.loss = LossPolicy(replaceAfter: 60) }
    }
}

/// A number of bytes as Docker writes it in options: `10m`, `1.5g`, `512`; a k is 1024.
enum ByteCount {
    /// nil when it is none, or beyond 2^53.
    static func parse(_ text: String) -> Int64? {
        var rest = text.lowercased()[...]
        if rest.hasSuffix("ib") { rest = rest.dropLast(2) } else if rest.hasSuffix("b") { rest = rest.dropLast() }
        var shift = 0
        if let last = rest.last, let place = "kmgt".firstIndex(of: last) {
            shift = 10 * ("kmgt".distance(from: "kmgt".startIndex, to: place) + 1)
            rest = rest.dropLast()
        }
        guard !rest.isEmpty, rest.utf8.allSatisfy({ (0x30...0x39).contains($0) || $0 == UInt8(ascii: ".") }),
            let number = Double(rest)
        else { return nil }
        let bytes = number * Double(Int64(1) << Int64(shift))
        return bytes <= 0x1p53 ? Int64(bytes) : nil
    }
}

/// Absolute paths by their letters alone.
enum PathText {
    /// Without doubled slashes, `.` and `..`, and without a slash at the end; nil when it is not absolute.
    static func clean(_ path: String) -> String? {
        guard path.hasPrefix("/") else { return nil }
        var parts: [Substring] = []
        for part in path.pathComponents where part != "." {
            if part == ".." { _ = parts.popLast() } else { parts.append(part) }
        }
        return "/" + parts.joined(separator: "/")
    }
}
