import ArgumentParser
import Kernel
import Model

/// The flags that describe a container, shared by `run`, `create` and the `service` verbs.
struct PodOptions: ParsableArguments {
    @OptionGroup var variables: EnvironmentOptions
    @OptionGroup var files: FileMountOptions
    @OptionGroup var loss: LossOptions
    @OptionGroup var limits: LimitOptions
    @OptionGroup var isolation: IsolationOptions
    @OptionGroup var names: NameOptions

    @Option(
        name: .shortAndLong, help: "SOURCE:TARGET[:ro,…]: a path of the node, or a named volume.",
        transform: VolumeArgument.init(parsing:))
    var volume: [VolumeArgument] = []

    @Option(help: "/TARGET[:size=64m,mode=1777,…]: memory.", transform: TmpfsArgument.init(parsing:))
    var tmpfs: [TmpfsArgument] = []

    @Option(name: .shortAndLong, help: "The directory that the program starts in.")
    var workdir = ""

    @Option(name: .shortAndLong, help: "USER[:GROUP], names or numbers.")
    var user = ""

    @Option(
        name: .shortAndLong, help: "[ADDRESS:][PORT[-LAST]:]CONTAINERPORT[/udp]: publish a port of the container.",
        transform: PublishedPort.init(parsing:))
    var publish: [PublishedPort] = []

    @Option(help: "no, on-failure[:N], always, unless-stopped.")
    var restart: RestartArgument?

    @Flag(help: "The root file system cannot be written.")
    var readOnly = false

    @Option(help: "A capability to add, or ALL.")
    var capAdd: [String] = []

    @Option(help: "A capability to drop, or ALL.")
    var capDrop: [String] = []

    @Option(help: "no-new-privileges[=false], seccomp=unconfined, seccomp=FILE.")
    var securityOpt: [String] = []

    @Option(help: "Size of /dev/shm.")
    var shmSize: ByteSize?

    @Option(name: .shortAndLong, help: "KEY=value.")
    var label: [LabelArgument] = []

    @Option(
        help: "LABEL==VALUE or LABEL!=VALUE: on which nodes; VALUE may be abc* or /expression/, with ~ a wish.")
    var constraint: [ConstraintArgument] = []

    @Option(help: "The same for what is on them: container==NAME, image==NAME, or a label of containers.")
    var affinity: [ConstraintArgument] = []

    @Option(help: "The group that it lives under, such as /team/web (its maker's own, else /).")
    var group: String?

    @Option(help: "binpack, spread or random.")
    var strategy: PlacementStrategy?

    @Option(help: "The container's own host name.")
    var hostname = ""

    @Option(help: "Replaces the image's entrypoint; '' for none.")
    var entrypoint: String?

    @Option(help: "The signal that stops it.")
    var stopSignal = ""

    @Option(parsing: .unconditional, help: "Seconds between the stop signal and SIGKILL.")
    var stopTimeout: Int?

    @Option(help: "A device of the node: /dev/x[:/dev/y[:rwm]], or by its CDI name, vendor.com/class=name.")
    var device: [String] = []

    @OptionGroup var claims: ClaimOptions

    @Flag(
        inversion: .prefixedNo, exclusivity: .chooseLast,
        help: "Processors of its own, as many as --cpus says: see docs/processors.md.")
    var pinCpus: Bool?

    @Option(help: "Huge pages, SIZE=AMOUNT: 2m=512m.", transform: HugepagesArgument.init(parsing:))
    var hugepages: [HugepagesArgument] = []

    @Option(help: "A kernel parameter of the container's namespaces: KEY=value.")
    var sysctl: [LabelArgument] = []

    @Option(help: "NAME=SOFT[:HARD].")
    var ulimit: [RLimitArgument] = []

    @Option(help: "A shell command; exit code 0 means healthy.")
    var healthCmd: String?

    @Option(help: "A port of the container; a connection means healthy.")
    var healthTcp: Int?

    @Option(help: "PORT/PATH; an HTTP status from 200 to 399 means healthy.")
    var healthHttp: String?

    @Option(help: "Between two checks (30s).")
    var healthInterval: Seconds?

    @Option(help: "For one check (30s).")
    var healthTimeout: Seconds?

    @Option(help: "Failures in a row that stop the container (3).")
    var healthRetries: Int?

    @Option(help: "Failures within this time of the start do not count.")
    var healthStartPeriod: Seconds?

    @Option(help: "Between two checks within the start period.")
    var healthStartInterval: Seconds?

    /// What was given on the command line, over `base` (an existing spec when updating).
    func pod(
        _ kind: Workload.Kind, image: String, command: [String], terminal: Bool = false, stdin: Bool = false
    ) throws -> PodSpec {
        var container = ContainerSpec(image: image)
        container.terminal = terminal
        container.stdin = stdin
        container.stdinOnce = stdin
        container.command = command.isEmpty ? nil : command
        var pod = PodSpec(containers: [container])
        try apply(to: &pod, of: kind)
        return pod
    }

    /// Changes in `pod` what was given.
    func apply(to pod: inout PodSpec, of kind: Workload.Kind) throws {
        var container = pod.containers[0]
        container.environment = merge(container.environment, try variables.entries())
        container.mounts += volume.map(\.mount) + tmpfs.map(\.mount) + files.mounts
        if !workdir.isEmpty { container.workingDirectory = workdir }
        if !user.isEmpty { container.user = user }
        if readOnly { container.readOnlyRoot = true }
        container.capabilitiesAdded += capAdd
        container.capabilitiesDropped += capDrop
        try applySecurity(to: &container)
        limits.apply(to: &container.limits)
        if let shmSize { container.limits.sharedMemory = shmSize.bytes }
        if let pinCpus { container.limits.pinning = pinCpus ? .cores : nil }
        // 0 takes back what was there.
        for pages in hugepages { container.limits.hugepages[pages.size] = pages.bytes == 0 ? nil : pages.bytes }
        try isolation.apply(to: &container, &pod)
        container.labels.merge(label.dictionary) { $1 }
        if let entrypoint { container.entrypoint = entrypoint.isEmpty ? [] : [entrypoint] }
        if !stopSignal.isEmpty { container.stopSignal = stopSignal }
        if let stopTimeout { container.stopGrace = stopTimeout }
        container.devices += device
        // What an update names takes the place of what was there.
        if let claims = try claims.claims { container.deviceClaims = claims }
        container.sysctls.merge(sysctl.dictionary) { $1 }
        container.rlimits += ulimit.map(\.limit)
        if let check = try healthCheck() { container.healthCheck = check }
        pod.containers[0] = container
        try names.apply(to: &pod)
        pod.ports += publish.flatMap(\.mappings)
        if !hostname.isEmpty { pod.hostname = hostname }
        if let restart { pod.restart = restart.policy }
        pod.constraints += constraint.map(\.constraint)
        pod.affinities += affinity.map(\.constraint)
        if let strategy { pod.strategy = strategy }
        pod.loss = loss.policy(over: pod.loss, for: kind)
    }

    /// Later entries of the same key win.
    private func merge(_ old: [String], _ new: [String]) -> [String] {
        func key(_ entry: String) -> Substring { entry.prefix { $0 != "=" } }
        let replaced = Set(new.map(key))
        return old.filter { !replaced.contains(key($0)) } + new
    }

    private func applySecurity(to container: inout ContainerSpec) throws {
        for option in securityOpt {
            let words = option.split(separator: "=", maxSplits: 1).map(String.init)
            switch (words.first ?? "", words.count == 2 ? words[1] : nil) {
            case ("no-new-privileges", nil), ("no-new-privileges", "true"): container.noNewPrivileges = true
            case ("no-new-privileges", "false"): container.noNewPrivileges = false
            case ("seccomp", "unconfined"): container.seccomp = .unconfined
            case ("seccomp", let path?):
                do {
                    container.seccomp = .profile(json: try File.text(path))
                } catch {
                    throw ValidationError("--security-opt seccomp=\(path): the profile cannot be read: \(error)")
                }
            default:
                throw ValidationError(
                    "--security-opt \(option) is not supported: use no-new-privileges[=false] or seccomp=unconfined|FILE"
                )
            }
        }
    }

    private func healthCheck() throws -> HealthCheck? {
        var probes: [HealthCheck.Probe] = []
        if let healthCmd { probes.append(.command(["/bin/sh", "-c", healthCmd])) }
        if let healthTcp { probes.append(.tcp(port: healthTcp)) }
        if let healthHttp {
            let words = healthHttp.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false).map(
                String.init)
            guard let port = Int(words[0]) else {
                throw ValidationError("--health-http takes PORT/PATH, not '\(healthHttp)'")
            }
            probes.append(.http(port: port, path: "/" + (words.count == 2 ? words[1] : "")))
        }
        guard probes.count <= 1 else {
            throw ValidationError("give one of --health-cmd, --health-tcp and --health-http")
        }
        guard let probe = probes.first else {
            if healthInterval != nil || healthTimeout != nil || healthRetries != nil || healthStartPeriod != nil
                || healthStartInterval != nil
            {
                throw ValidationError("health options need --health-cmd, --health-tcp or --health-http")
            }
            return nil
        }
        var check = HealthCheck(
            probe: probe, interval: healthInterval?.whole, timeout: healthTimeout?.whole, retries: healthRetries,
            startPeriod: healthStartPeriod?.whole)
        check.startInterval = healthStartInterval?.whole
        return check
    }
}

extension PlacementStrategy: ExpressibleByArgument {}
