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
            var made = PodFile.HostMount(
                source: "", target: mount.target, readOnly: mount.readOnly, options: mount.bindOptions)
            switch mount.source {
            case .tmpfs, .secret, .config: continue
            case .volume(let name):
                made.source = try volume(name, mount, task, at: "\(task.directory)/mounts/\(index)")
            case .bind(let path):
                made.source = try bindSource(path, mount, at: "\(task.directory)/mounts/\(index)")
                if mount.isConnected { made.isOpenedByStart = true }
            }
            mounts.append(made)
        }
        return mounts
    }

    /// A named volume is made at its first use, and gets what the image has at its place.
    private func volume(_ name: String, _ mount: Mount, _ task: TaskPaths, at place: String) throws -> String {
        if (try? volumes.inspect(name)) == nil {
            try volumes.create(name, anonymous: mount.isAnonymous)
            inventoryChanged()
        }
        let subpath = mount.subpath ?? ""
        if try volumes.mount(name), mount.copyUp, subpath.isEmpty {
            try volumes.populate(name, fromRoot: task.rootfs, path: mount.target)
        }
        guard !subpath.isEmpty else { return try volumes.path(name) }
        return try attach(try volumes.open(name, subpath: subpath), isRecursive: false, at: place, subpath)
    }

    /// Has volumes go that belonged to a removed task alone, and what is mounted for volumes end with the last task that
    /// has them. Blocks.
    func releaseVolumes(of assignment: TaskAssignment) throws {
        // Looked at anew for each, when nobody can mount it: its next user is in the table before it mounts.
        func users() -> Set<String> {
            Set(Self.volumeUsers(table.all.filter { $0.assignment.task != assignment.task }).keys)
        }
        var isChanged = false
        for mount in assignment.pod.containers.flatMap(\.mounts) {
            guard case .volume(let name) = mount.source else { continue }
            try volumes.unmount(name, inUse: users())
            guard assignment.removeVolumes, mount.isAnonymous else { continue }
            do {
                try volumes.remove(name, inUse: users())
                isChanged = true
            } catch let error as VolumeError where error.kind == .notFound || error.kind == .inUse {
                // Gone already, or another's as well.
            }
        }
        if isChanged { inventoryChanged() }
    }

    /// A path of the node, from where it is bound.
    private func bindSource(_ path: String, _ mount: Mount, at place: String) throws -> String {
        if mount.createSource, !File.exists(path) { try File.makeDirectories(path, mode: 0o755) }
        guard mount.isConnected else { return try pin(path, isRecursive: mount.recursive, at: place) }
        // A copy would be a peer of the original, and what is unmounted in it with the task would go there too: it is
        // opened by each start.
        return try volumes.openBindSource(path).path
    }

    /// Opens a path of the node once, and mounts what was opened at `place`: a link that changes later leads nowhere
    /// else.
    private func pin(_ path: String, isRecursive: Bool, at place: String) throws -> String {
        let source = try volumes.openBindSource(path)
        return try attach(try source.descriptor.duplicate(), isRecursive: isRecursive, at: place, path)
    }

    /// Mounts what is open at a place that is made for it.
    private func attach(
        _ source: consuming OwnedFD, isRecursive: Bool, at place: String, _ subject: String
    ) throws -> String {
        var info = stat()
        let number = source.raw
        try systemCall("fstat", subject) { fstat(number, &info) }
        if info.isDirectory {
            try File.makeDirectories(place)
        } else {
            try File.makeDirectories(String(place[..<(place.lastSlash ?? place.endIndex)]))
            _ = try File.open(place, O_WRONLY | O_CREAT | O_NOFOLLOW)
        }
        try Mounts.attach(try Mounts.clone(of: source.raw, recursive: isRecursive, subject: subject), at: place)
        try Mounts.setPropagation(.private, at: place, recursive: true)
        return place
    }

    /// Volumes as the API shows them, with the containers that use them. Blocks.
    func volumeViews(_ records: [TaskRecord]) throws -> [VolumeView] {
        let users = Self.volumeUsers(records)
        return try volumes.list().map { volume in
            var view = VolumeView(
                name: volume.name, node: NodeID(""), path: try volumes.path(volume.name), labels: volume.labels,
                createdAt: volume.created, usedBy: users[volume.name] ?? [])
            view.options = volume.options
            view.isAnonymous = volume.anonymous
            return view
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

extension Mount {
    /// Mounts made later below it are passed on, by the node, by the container or by both.
    fileprivate var isConnected: Bool {
        propagation.map { $0.hasSuffix("shared") || $0.hasSuffix("slave") } ?? false
    }

    /// In the words of the runtime's configuration; the user's come last and win.
    fileprivate var bindOptions: [String] {
        [recursive ? "rbind" : "bind", propagation ?? "rprivate", readOnly ? "ro" : "rw"] + options
    }
}
