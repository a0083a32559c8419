import AgentCore
import CNISpec
import Glibc
import Images
import Kernel
import Model
import Networking
import Reactor
import Wire

extension PodExecutor {
    package func prepare(_ assignment: TaskAssignment) async throws(ExecutorFailure) -> PreparedPod {
        try await explaining("cannot prepare container \(assignment.instanceName)") {
            for container in assignment.pod.containers {
                if try await transfers.ensure(container.imageDigest, name: container.image) { inventoryChanged() }
            }
            return try await pool.run { try self.makePod(assignment) }
        }
    }

    /// Blocks. What an earlier try has left is taken away first.
    private func makePod(_ assignment: TaskAssignment) throws -> PreparedPod {
        let task = paths.task(assignment.task)
        guard let container = assignment.pod.containers.first, let id = assignment.containers.first else {
            throw ExecutorFailure("the task has no container")
        }
        try undoPreparation(task)
        do {
            let image = try mountRoot(container, task)
            let mounts = try makeMounts(container, task)
            let endpoint = try connect(assignment, task)
            failpoint("agent.after_network")
            let hostname = hostname(assignment, id)
            var files = TaskFiles(hostname: hostname)
            files.address = endpoint?.address.address
            files.isHostNetwork = assignment.pod.network == .host
            try files.write(to: task.files)
            try File.makeDirectories(task.logs)
            let pod = PodFile(
                bootID: bootID, image: image, mounts: mounts,
                addresses: [endpoint?.address.address.description].compactMap { $0 }, hostname: hostname)
            try pod.write(task)
            return pod.pod
        } catch {
            // Nothing half-made stays, and what cannot be undone is undone before the next try.
            try? undoPreparation(task)
            throw error
        }
    }

    private func hostname(_ assignment: TaskAssignment, _ id: ContainerID) -> String {
        if !assignment.pod.hostname.isEmpty { return assignment.pod.hostname }
        guard assignment.pod.network == .host else { return String(id.text.prefix(12)) }
        var names = utsname()
        uname(&names)
        return withUnsafeBytes(of: &names.nodename) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }

    /// The pod's network namespace, connected; nil for a pod without an address of its own.
    private func connect(_ assignment: TaskAssignment, _ task: TaskPaths) throws -> EndpointAddresses? {
        guard assignment.pod.network != .host else { return nil }
        try NetworkNamespace.create(at: task.namespace)
        guard assignment.pod.network == .bridge else { return nil }
        return try network.attach(
            task.id.text, namespacePath: task.namespace, ports: try assignment.ports.map { try $0.published() })
    }
}

extension Model.PortMapping {
    /// In the form of the network's plugins.
    fileprivate func published() throws(ExecutorFailure) -> CNISpec.PortMapping {
        guard let host = UInt16(exactly: hostPort), host > 0, let inside = UInt16(exactly: containerPort), inside > 0,
            let transport = CNISpec.PortMapping.Transport(rawValue: transport.rawValue)
        else { throw ExecutorFailure("port \(hostPort) cannot be published as \(containerPort)") }
        var address: IPAddress?
        if !hostAddress.isEmpty {
            guard let given = IPAddress(hostAddress) else {
                throw ExecutorFailure("'\(hostAddress)' is no address to publish port \(hostPort) on")
            }
            address = given
        }
        return CNISpec.PortMapping(hostPort: host, containerPort: inside, transport: transport, hostAddress: address)
    }
}
