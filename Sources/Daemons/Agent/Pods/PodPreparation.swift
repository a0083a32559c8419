import AgentCore
import CNISpec
import Glibc
import Images
import Kernel
import Model
import Networking
import Reactor
import Synchronization
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
            let endpoints = try connect(assignment, task)
            failpoint("agent.after_network")
            let hostname = hostname(assignment, id)
            try writeFiles(assignment, hostname, endpoints, task) { try $0.write(to: task.files) }
            try File.makeDirectories(task.logs)
            let pod = PodFile(
                bootID: bootID, image: image, mounts: mounts,
                addresses: endpoints.map(\.host), endpoints: endpoints, hostname: hostname)
            try pod.write(task)
            return pod.pod
        } catch {
            // Nothing half-made stays, and what cannot be undone is undone before the next try.
            try? undoPreparation(task)
            throw error
        }
    }

    /// Writes files that tell the pod who and where it is, and others. Blocks.
    func writeFiles(
        _ assignment: TaskAssignment, _ hostname: String, _ endpoints: [NetworkEndpoint], _ task: TaskPaths,
        _ write: (TaskFiles) throws -> Void
    ) throws {
        try hosts.withLock { hosts in
            let files = try files(assignment, hostname, endpoints, among: NetworkMembers(table.all))
            try write(files)
            hosts[task.id] = files
        }
    }

    /// Who and where the pod is.
    func files(
        _ assignment: TaskAssignment, _ hostname: String, _ endpoints: [NetworkEndpoint],
        among members: @autoclosure () -> NetworkMembers
    ) throws(ExecutorFailure) -> TaskFiles {
        var files = TaskFiles(hostname: hostname)
        files.address = endpoints.first.flatMap { IPAddress($0.host) }
        files.isHostNetwork = assignment.pod.network == .host
        try describe(assignment.pod, in: &files)
        files.peers = NetworkMembers.peers(of: assignment, hostname, endpoints, among: members())
        return files
    }

    func hostname(_ assignment: TaskAssignment, _ id: ContainerID) -> String {
        if !assignment.pod.hostname.isEmpty { return assignment.pod.hostname }
        guard assignment.pod.network == .host || assignment.pod.namespaces.uts == .node else {
            return String(id.text.prefix(12))
        }
        var names = utsname()
        uname(&names)
        return withUnsafeBytes(of: &names.nodename) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }

    /// What the user chose of name servers and further hosts.
    private func describe(_ pod: PodSpec, in files: inout TaskFiles) throws(ExecutorFailure) {
        for text in pod.nameService.servers {
            guard let server = IPAddress(text) else {
                throw ExecutorFailure("'\(text)' is no address of a name server")
            }
            files.nameService.servers.append(server)
        }
        files.nameService.search = pod.nameService.search
        files.nameService.options = pod.nameService.options
        for line in pod.extraHosts {
            let parts = line.split(separator: ":", maxSplits: 1).map(String.init)
            let address = parts.count < 2 ? nil : parts[1] == "host-gateway" ? network.gateway : IPAddress(parts[1])
            guard let address else { throw ExecutorFailure("'\(line)' is not name:address") }
            files.extraHosts.append((name: parts[0], address: address))
        }
    }
}

extension Model.PortMapping {
    /// In the form of the network's plugins.
    func published() throws(ExecutorFailure) -> CNISpec.PortMapping {
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
