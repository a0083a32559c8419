import ArgumentParser
import Model

/// What a container has of its node and of other containers.
struct IsolationOptions: ParsableArguments {
    @Flag(help: "All capabilities and devices, nothing hidden, no seccomp filter.")
    var privileged = false

    @Option(help: "A further group of the program, name or number.")
    var groupAdd: [String] = []

    @Flag(name: .customLong("init"), help: "A small init is the first process: it passes signals on and reaps orphans.")
    var wantsInit = false

    @Option(parsing: .unconditional, help: "-1000 to 1000: how soon it is killed when memory runs out.")
    var oomScoreAdj: Int?

    @Flag(help: "Out of memory, it is stopped instead of killed (cgroup v1).")
    var oomKillDisable = false

    @Option(parsing: .unconditional, help: "0 to 100: how readily it is swapped out (cgroup v1).")
    var memorySwappiness: Int64?

    @Option(help: "A rule for devices, such as 'c 10:229 rwm'.")
    var deviceCgroupRule: [String] = []

    @Option(help: "KEY=value, handed on to the runtime.")
    var annotation: [LabelArgument] = []

    @Option(help: "json-file, or none: nothing that it writes is kept.", completion: .list(["json-file", "none"]))
    var logDriver: String?

    @Option(help: "max-size=10m or max-file=3.")
    var logOpt: [LabelArgument] = []

    @Option(help: "host, or container:NAME: whose processes it sees.")
    var pid: NamespaceArgument?

    @Option(help: "private, host, or container:NAME: whose shared memory and queues it has.")
    var ipc: NamespaceArgument?

    @Option(help: "host: it has the node's names.")
    var uts: NamespaceArgument?

    @Option(help: "private or host: what it sees of control groups.")
    var cgroupns: NamespaceArgument?

    /// Changes in `container` and `pod` what was given.
    func apply(to container: inout ContainerSpec, _ pod: inout PodSpec) throws {
        if privileged { container.privileged = true }
        container.groups += groupAdd
        if wantsInit { container.initProcess = true }
        if let oomScoreAdj { container.oomScoreAdjust = oomScoreAdj }
        if oomKillDisable { container.limits.disableOOMKill = true }
        // -1 is the docker CLI's word for the kernel's own.
        if let memorySwappiness { container.limits.swappiness = memorySwappiness == -1 ? nil : memorySwappiness }
        container.deviceRules += deviceCgroupRule
        container.annotations.merge(annotation.dictionary) { $1 }
        try applyLog(to: &container.logging)
        if let pid { pod.namespaces.pid = pid.source }
        if let ipc { pod.namespaces.ipc = ipc.source }
        if let uts { pod.namespaces.uts = uts.source }
        if let cgroupns { pod.namespaces.cgroup = cgroupns.source }
    }

    private func applyLog(to policy: inout LogPolicy) throws {
        switch logDriver {
        case nil: break
        case "none": policy.isKept = false
        case "json-file": policy.isKept = true
        case let other?: throw ValidationError("--log-driver \(other) is not supported: use json-file or none")
        }
        for (key, value) in logOpt.dictionary.sorted(by: { $0.key < $1.key }) {
            switch key {
            case "max-size":
                guard let size = ByteSize(argument: value) else {
                    throw ValidationError("--log-opt max-size=\(value) is no size such as 10m")
                }
                policy.maximumBytes = size.bytes == -1 ? nil : size.bytes
            case "max-file":
                guard let count = Int(value) else {
                    throw ValidationError("--log-opt max-file=\(value) is no number")
                }
                policy.maximumFiles = count
            default: throw ValidationError("--log-opt \(key) is not supported: max-size and max-file are")
            }
        }
    }
}

/// `host`, `private` or `container:NAME`.
struct NamespaceArgument: ExpressibleByArgument {
    let source: Namespaces.Source

    init?(argument: String) {
        switch argument {
        case "host": source = .node
        case "private", "shareable", "": source = .own
        default:
            guard argument.hasPrefix("container:"), argument.utf8.count > 10 else { return nil }
            source = .container(String(argument.dropFirst(10)))
        }
    }
}
