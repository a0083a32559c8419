import ArgumentParser
import Model
import Wire

/// `martlet service …`
struct Service: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "service", abstract: "Keep programs running: several instances, updates one after another.",
        subcommands: [
            ServiceCreate.self, ServiceList.self, ServicePS.self, ServiceInspect.self, ServiceScale.self,
            ServiceUpdate.self,
            ServiceWait.self, ServiceLogs.self, ServiceRemove.self,
        ])
}

struct UpdateOptions: ParsableArguments {
    @Option(help: "Instances replaced at the same time (1).") var updateParallelism: Int?
    @Option(help: "Between one batch and the next (0s).") var updateDelay: Seconds?
    @Option(help: "How long a new instance must serve before it counts (1s).") var updateMonitor: Seconds?
    @Option(help: "When a new instance fails: pause, continue or rollback.") var updateFailureAction:
        UpdatePolicy.FailureAction?

    /// nil when nothing was given.
    func policy(over base: UpdatePolicy) -> UpdatePolicy? {
        guard updateParallelism != nil || updateDelay != nil || updateMonitor != nil || updateFailureAction != nil
        else { return nil }
        return UpdatePolicy(
            parallelism: updateParallelism ?? base.parallelism, delay: updateDelay?.whole ?? base.delay,
            monitor: updateMonitor?.whole ?? base.monitor, onFailure: updateFailureAction ?? base.onFailure)
    }
}

extension UpdatePolicy.FailureAction: ExpressibleByArgument {}

struct ServiceCreate: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "create", abstract: "Create a service.",
        discussion: "Example: martlet service create --name web --replicas 2 -p 8080-8081:80 busybox httpd -f")
    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var options: PodOptions
    @OptionGroup var update: UpdateOptions
    @OptionGroup var images: PullOptions
    @Option(help: "Unique in the cluster.") var name: String
    @Option(parsing: .unconditional, help: "Instances.") var replicas = 1
    @Option(help: "replicated, or global: one on every node.") var mode = "replicated"
    @Argument(completion: .images) var image: String
    @Argument(parsing: .captureForPassthrough) var command: [String] = []

    func run() async throws {
        guard mode == "replicated" || mode == "global" else {
            throw ValidationError("--mode is replicated or global, not '\(mode)'")
        }
        var pod = try options.pod(.service, image: image, command: command)
        if options.restart == nil { pod.restart = RestartPolicy(.always) }
        let wish = CreateService(
            name: name, pod: pod, labels: options.label.dictionary,
            scale: mode == "global" ? .global : .replicated(replicas),
            update: update.policy(over: UpdatePolicy()) ?? UpdatePolicy(), group: options.group, pull: .never)
        let view: ServiceView = try await images.pulling(image, connection.cluster) {
            try await connection.cluster.send("POST", APIPaths.services, body: wish)
        }
        Output.line(view.service.id.text)
    }
}

struct ServiceList: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "ls", abstract: "List services.")
    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var format: FormatOptions

    func run() async throws {
        let views: [ServiceView] = try await connection.cluster.get(APIPaths.services)
        var table = Table("Id", "Name", "Mode", "Serving", "Image", "Revision", "Update", key: 1)
        for view in views.sorted(by: { $0.service.name < $1.service.name }) {
            let service = view.service
            let mode = if case .global = service.scale { "global" } else { "replicated" }
            let update = service.updateState.message.isEmpty ? "" : ": \(service.updateState.message)"
            try table.add(
                view, String(service.id.text.prefix(12)), service.name, mode, "\(view.serving)/\(view.wanted)",
                view.pod.containers.first?.image ?? "", "\(service.revision)",
                service.updateState.phase.rawValue + update)
        }
        try table.print(format)
    }
}

struct ServicePS: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "ps", abstract: "List the instances of a service.")
    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var format: FormatOptions
    @Argument(completion: .services) var service: String

    func run() async throws {
        // A name that does not exist is an error, not an empty table.
        let _: ServiceView = try await connection.cluster.get("\(APIPaths.services)/\(escaped(service))")
        let views: [ContainerView] = try await connection.cluster.get(
            APIPaths.containers, query: [("all", "true"), ("service", service)])
        var table = Table("Name", "Slot", "Node", "Revision", "Status", "Address", "Ports")
        for view in views.sorted(by: { ($0.slot, $0.name) < ($1.slot, $1.name) }) {
            try table.add(
                view, view.name, "\(view.slot)", view.nodeName, "\(view.revision)", view.statusText,
                view.status.addresses.first ?? "", view.portsText)
        }
        try table.print(format)
    }
}

struct ServiceInspect: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inspect", abstract: "Show everything about services, as JSON.")
    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var format: InspectOptions
    @Argument(completion: .services) var services: [String]

    func run() async throws {
        try await format.print(services) { service -> ServiceView in
            try await connection.cluster.get("\(APIPaths.services)/\(escaped(service))")
        }
    }
}

struct ServiceScale: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "scale", abstract: "Change the number of instances.",
        discussion: "Example: martlet service scale web=3")
    @OptionGroup var connection: ConnectionOptions
    @Argument(help: "SERVICE=NUMBER.") var services: [LabelArgument]

    func validate() throws {
        for item in services where Int(item.value).map({ $0 < 0 }) ?? true {
            throw ValidationError("'\(item.key)=\(item.value)' is not SERVICE=NUMBER")
        }
    }

    func run() async throws {
        let numbers = services.map { ($0.key, Int($0.value) ?? 0) }
        try await forEach(numbers.map(\.0)) { name in
            let number = numbers.last { $0.0 == name }?.1 ?? 0
            let view: ServiceView = try await connection.cluster.send(
                "PATCH", "\(APIPaths.services)/\(escaped(name))", body: UpdateService(scale: .replicated(number)))
            Output.line("\(view.service.name) scaled to \(number)")
        }
    }
}

struct ServiceUpdate: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "update", abstract: "Change a service: its instances are replaced one after another.",
        discussion:
            "What is given is added to or replaces what there is. Example: martlet service update web --image app:2 -- /bin/app -v"
    )
    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var options: PodOptions
    @OptionGroup var update: UpdateOptions
    @OptionGroup var images: PullOptions
    @Option(help: "Another image.") var image: String?
    @Option(parsing: .unconditional, help: "Instances.") var replicas: Int?
    @Option(help: "Remove this environment variable.") var envRm: [String] = []
    @Option(help: "Remove this constraint.") var constraintRm: [ConstraintArgument] = []
    @Flag(help: "Replace the instances although nothing changed.") var force = false
    @Flag(help: "Go on with an update that paused.") var resume = false
    @Argument(completion: .services) var service: String
    @Argument(parsing: .postTerminator, help: "After --: another program with its arguments.")
    var command: [String] = []

    func run() async throws {
        let cluster = connection.cluster
        let path = "\(APIPaths.services)/\(escaped(service))"
        let view: ServiceView = try await cluster.get(path)
        var pod = view.pod
        try options.apply(to: &pod, of: .service)
        if let image {
            pod.containers[0].image = image
            pod.containers[0].imageDigest = ""
        }
        if !command.isEmpty { pod.containers[0].command = command }
        pod.containers[0].environment.removeAll { entry in envRm.contains(String(entry.prefix { $0 != "=" })) }
        let gone = Set(constraintRm.map(\.constraint))
        pod.constraints.removeAll { gone.contains($0) }
        let changed = pod != view.pod || force
        if options.group != nil { throw ValidationError("--group: a service stays in the group that it was made in") }
        let wish = UpdateService(
            pod: changed ? pod : nil, labels: options.label.isEmpty ? nil : options.label.dictionary,
            scale: replicas.map { .replicated($0) }, update: update.policy(over: view.service.update),
            ifRevision: view.service.revision, resume: resume ? true : nil, pull: .never)
        let _: ServiceView = try await images.pulling(pod.containers[0].image, cluster) {
            try await cluster.send("PATCH", path, body: wish)
        }
        Output.line(view.service.name)
    }
}

struct ServiceWait: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "wait", abstract: "Wait until all instances of the newest revision serve.")
    @OptionGroup var connection: ConnectionOptions
    @Option(help: "Give up after this time (120s).") var timeout: Seconds?
    @Argument(completion: .services) var service: String

    func run() async throws {
        let deadline = ContinuousClock.now + .seconds(timeout?.value ?? 120)
        while true {
            let view: ServiceView = try await connection.cluster.get("\(APIPaths.services)/\(escaped(service))")
            if view.serving == view.wanted && view.updated == view.wanted && view.service.updateState.phase == .settled
            {
                return
            }
            if view.service.updateState.phase == .paused {
                throw CommandFailure("the update of service \(service) paused: \(view.service.updateState.message)")
            }
            guard ContinuousClock.now < deadline else {
                let why = view.waiting.isEmpty ? "see `martlet service ps \(service)`" : view.waiting
                throw CommandFailure("service \(service): \(view.serving) of \(view.wanted) instances serve; \(why)")
            }
            try await Task.sleep(for: .milliseconds(100))
        }
    }
}

struct ServiceLogs: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "logs", abstract: "Print what the instances of a service wrote.")
    @OptionGroup var connection: ConnectionOptions
    @OptionGroup var options: LogOptions
    @Argument(completion: .services) var service: String

    func run() async throws {
        try await options.print(connection.cluster, "\(APIPaths.services)/\(escaped(service))/logs")
    }
}

struct ServiceRemove: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "rm", abstract: "Remove services and their instances.")
    @OptionGroup var connection: ConnectionOptions
    @Flag(name: .shortAndLong, help: "Kill the instances instead of stopping them.") var force = false
    @Argument(completion: .services) var services: [String]

    func run() async throws {
        try await forEach(services) { service in
            try await connection.cluster.delete(APIPaths.services, service, query: [("force", "\(force)")])
            Output.line(service)
        }
    }
}
