import AgentCore
import CKernel
import CNISpec
import Glibc
import Images
import Kernel
import Model
import Networking
import Volumes
import Wire

extension PodExecutor {
    package func prepare(_ assignment: TaskAssignment) async throws(ExecutorFailure) -> PreparedPod {
        try await explaining("cannot prepare container \(assignment.instanceName)") {
            try await pool.run { try self.makePod(assignment) }
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

    /// Volumes, and what is bound from the node, each under a path that nobody else can change.
    private func makeMounts(_ container: Model.ContainerSpec, _ task: TaskPaths) throws -> [PodFile.HostMount] {
        var mounts: [PodFile.HostMount] = []
        for (index, mount) in container.mounts.enumerated() {
            let source: String
            switch mount.source {
            case .tmpfs: continue
            case .volume(let name): source = try volumePath(name)
            case .bind(let path): source = try pin(path, at: "\(task.directory)/mounts/\(index)")
            }
            mounts.append(PodFile.HostMount(source: source, target: mount.target, readOnly: mount.readOnly))
        }
        return mounts
    }

    /// Opens a path of the node once, and mounts what was opened at `place`: a link that changes later leads nowhere else.
    private func pin(_ path: String, at place: String) throws -> String {
        let source = try volumes.openBindSource(path)
        var info = stat()
        let raw = source.raw
        try systemCall("fstat", path) { fstat(raw, &info) }
        if info.st_mode & S_IFMT == S_IFDIR {
            try File.makeDirectories(place)
        } else {
            try File.makeDirectories(String(place[..<(place.lastIndex(of: "/") ?? place.endIndex)]))
            _ = try File.open(place, O_WRONLY | O_CREAT | O_NOFOLLOW)
        }
        try Mounts.attach(try Mounts.clone(of: raw, recursive: true, subject: path), at: place)
        try Mounts.setPropagation(.private, at: place, recursive: true)
        return place
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
