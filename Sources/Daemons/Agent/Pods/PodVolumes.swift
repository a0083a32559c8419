import AgentCore
import CKernel
import Glibc
import Kernel
import Model
import Reactor
import Volumes
import Wire

extension PodExecutor {
    /// Volumes, and what is bound from the node, each under a path that nobody else can change. Blocks.
    func makeMounts(_ container: Model.ContainerSpec, _ task: TaskPaths) throws -> [PodFile.HostMount] {
        var mounts: [PodFile.HostMount] = []
        for (index, mount) in container.mounts.enumerated() {
            let source: String
            switch mount.source {
            case .tmpfs, .secret, .config: continue
            case .volume(let name): source = try volume(name, for: mount.target, task)
            case .bind(let path): source = try pin(path, at: "\(task.directory)/mounts/\(index)")
            }
            mounts.append(PodFile.HostMount(source: source, target: mount.target, readOnly: mount.readOnly))
        }
        return mounts
    }

    /// A named volume is made at its first use, and gets what the image has at its place.
    private func volume(_ name: String, for target: String, _ task: TaskPaths) throws -> String {
        if (try? volumes.inspect(name)) == nil {
            try volumes.create(name)
            inventoryChanged()
        }
        try volumes.populate(name, fromRoot: task.rootfs, path: target)
        return try volumes.path(name)
    }

    /// Opens a path of the node once, and mounts what was opened at `place`: a link that changes later leads nowhere
    /// else.
    private func pin(_ path: String, at place: String) throws -> String {
        let source = try volumes.openBindSource(path)
        if source.isDirectory {
            try File.makeDirectories(place)
        } else {
            try File.makeDirectories(String(place[..<(place.lastIndex(of: "/") ?? place.endIndex)]))
            _ = try File.open(place, O_WRONLY | O_CREAT | O_NOFOLLOW)
        }
        try Mounts.attach(try Mounts.clone(of: source.descriptor.raw, recursive: true, subject: path), at: place)
        try Mounts.setPropagation(.private, at: place, recursive: true)
        return place
    }

    /// Volumes as the API shows them, with the containers that use them. Blocks.
    func volumeViews(_ records: [TaskRecord]) throws -> [VolumeView] {
        let users = Self.volumeUsers(records)
        return try volumes.list().map { volume in
            VolumeView(
                name: volume.name, node: NodeID(""), path: try volumes.path(volume.name), labels: volume.labels,
                createdAt: volume.created, usedBy: users[volume.name] ?? [])
        }
    }

    /// Names of the containers that have a volume, by its name.
    static func volumeUsers(_ records: [TaskRecord]) -> [String: [String]] {
        var users: [String: [String]] = [:]
        for record in records where !record.removed {
            for mount in record.assignment.pod.containers.flatMap(\.mounts) {
                guard case .volume(let name) = mount.source else { continue }
                users[name, default: []].append(record.assignment.instanceName)
            }
        }
        return users.mapValues { Set($0).sorted() }
    }
}
