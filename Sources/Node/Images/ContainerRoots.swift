import Glibc
import Kernel
import Synchronization

/// What became of a root's mount.
package enum UnmountOutcome: Sendable, Equatable {
    case notMounted
    case unmounted
    /// Somebody still used it; it is out of sight and ends with its last user.
    case detached
}

extension ImageStore {
    /// Makes a task's root file system from an image: unpacks layers that are not unpacked, and mounts them with a
    /// writable layer of the task's own at `<taskDirectory>/rootfs` (`upper` and `work` lie beside it).
    ///
    /// Calling it again changes nothing, and mounts again what is not mounted any more.
    ///
    /// - Parameters:
    ///   - readOnly: mount without a writable layer. Mount points that the image lacks cannot be made then; a container
    ///     with a read-only root usually wants a writable one that its runtime makes read-only.
    /// - Returns: what the image says about its containers.
    /// - Throws: `ImageError`: notFound, corrupted, invalidArchive, noSpace, system. What was made is removed.
    package func prepareSnapshot(
        image digest: Digest, taskDirectory: String, readOnly: Bool = false
    ) throws -> ImageConfig {
        try ImageError.explaining("making a root file system from \(digest)") {
            guard let record = state.withLock({ $0.catalog.images[digest] }) else {
                throw ImageError(.notFound, "there is no image \(digest) on this node; pull, import or load it first")
            }
            return try pinning(record.blobs + record.chain) {
                let config = try config(of: record).config
                try unpackMissing(record)
                let isNew = !File.exists("\(taskDirectory)/upper")
                do {
                    try mount(record, taskDirectory: taskDirectory, readOnly: readOnly)
                } catch {
                    if isNew { _ = try? removeSnapshot(taskDirectory: taskDirectory) }
                    throw error
                }
                return config
            }
        }
    }

    /// Mounts a task's root again, after a reboot for instance; its writable layer is as it was left.
    package func mountSnapshot(image digest: Digest, taskDirectory: String, readOnly: Bool = false) throws {
        _ = try prepareSnapshot(image: digest, taskDirectory: taskDirectory, readOnly: readOnly)
    }

    /// Takes the mount of a task's root away; its writable layer stays.
    ///
    /// - Throws: `ImageError` inUse while a process or another mount uses it.
    package func unmountSnapshot(taskDirectory: String) throws -> UnmountOutcome {
        try unmount(taskDirectory, detaching: false)
    }

    /// Takes the mount away, at once even when something still uses it, and removes the task's writable layer. It may be
    /// called again after an error.
    package func removeSnapshot(taskDirectory: String) throws -> UnmountOutcome {
        let outcome = try unmount(taskDirectory, detaching: true)
        try ImageError.explaining("removing the root file system in \(taskDirectory)") {
            for name in ["rootfs", "work", "upper", "upper.new"] { try Tree.remove("\(taskDirectory)/\(name)") }
        }
        return outcome
    }

    private func unmount(_ taskDirectory: String, detaching: Bool) throws -> UnmountOutcome {
        let target = "\(taskDirectory)/rootfs"
        // UMOUNT_NOFOLLOW and MNT_DETACH, see umount(2); Swift's Glibc has them as an enum of another type.
        let (noFollow, detach): (Int32, Int32) = (8, 2)
        var outcome = UnmountOutcome.notMounted
        try ImageError.explaining("unmounting \(target)") {
            // A mount may lie on another one after a crash between two attempts.
            for _ in 0..<16 {
                if umount2(target, noFollow) == 0 {
                    if outcome == .notMounted { outcome = .unmounted }
                } else if errno == EBUSY && detaching {
                    try systemCall("umount", target) { umount2(target, noFollow | detach) }
                    outcome = .detached
                } else if errno == EBUSY {
                    throw ImageError(.inUse, "\(target) is still used by a process or a mount in it")
                } else if errno == EINVAL || errno == ENOENT {
                    return
                } else {
                    throw KernelError("umount", target, errno: errno)
                }
            }
        }
        _ = state.withLock { $0.mounted.removeValue(forKey: taskDirectory) }
        return outcome
    }

    private func mount(_ record: ImageRecord, taskDirectory: String, readOnly: Bool) throws {
        let target = "\(taskDirectory)/rootfs"
        try File.makeDirectories(target, mode: 0o755)
        var lowers = record.chain.reversed().map { snapshots.fileSystem($0) }
        if lowers.isEmpty { lowers.append(snapshots.emptyDirectory) }
        var writable: Overlay.Writable?
        if readOnly {
            lowers.append(snapshots.emptyDirectory)
        } else {
            let paths = Overlay.Writable(upper: "\(taskDirectory)/upper", work: "\(taskDirectory)/work")
            try Self.makeUpper(paths.upper, like: lowers[0])
            try File.makeDirectories(paths.work, mode: 0o700)
            writable = paths
        }
        state.withLock { $0.mounted[taskDirectory] = record.digest }
        do {
            if try !Overlay.isMounted(on: target) { try Overlay.mount(lowers: lowers, writable: writable, on: target) }
        } catch {
            _ = state.withLock { $0.mounted.removeValue(forKey: taskDirectory) }
            throw error
        }
    }

    /// The upper directory shows through as the container's `/`, so it gets mode and owner of the image's.
    private static func makeUpper(_ path: String, like lower: String) throws {
        if File.exists(path) { return }
        let new = path + ".new"
        try Tree.remove(new)
        try File.makeDirectories(new, mode: 0o755)
        do {
            let source = try File.open(lower, O_RDONLY | O_DIRECTORY)
            let target = try File.open(new, O_RDONLY | O_DIRECTORY)
            try FileMetadata.copy(from: source.raw, to: target.raw)
        }
        try systemCall("rename", path) { rename(new, path) }
    }

    /// Unpacks those layers of an image that are not, each checked against both of its digests.
    private func unpackMissing(_ record: ImageRecord) throws {
        let chain = record.chain
        if chain.allSatisfy({ snapshots.contains($0) }) { return }
        try unpacking.withLock { _ in
            for (index, id) in chain.enumerated() where !snapshots.contains(id) {
                let work = try WorkingDirectory(in: blobs.temporaryDirectory)
                let place = work.newPath()
                let below = chain[..<index].reversed().map { snapshots.fileSystem($0) }
                try unpack(record.layers[index], into: place, parents: below)
                try snapshots.adopt(place, as: id)
                try snapshots.synchronize()
            }
        }
    }

    private func unpack(_ layer: ImageRecord.Layer, into place: String, parents: [String]) throws {
        let file = try blobs.open(layer.digest)
        let subject = "layer \(layer.digest)"
        let found: UnpackedLayer
        do {
            found = try snapshots.unpack(
                DescriptorSource(file.raw, subject: subject), into: place, parents: parents, isUnknown: false,
                subject: subject)
        } catch let error as ImageError where error.kind == .invalidArchive || error.kind == .limitExceeded {
            // It was unpacked when it came, so the disk is to be suspected before the image.
            let again = try blobs.open(layer.digest)
            let source = HashingSource(DescriptorSource(again.raw, subject: subject))
            try source.drain()
            if source.digest != layer.digest { throw blobs.quarantine(layer.digest, actual: source.digest) }
            throw error
        }
        guard found.blob == layer.digest else { throw blobs.quarantine(layer.digest, actual: found.blob) }
        guard found.diffID == layer.diffID else {
            throw ImageError(
                .invalidArchive,
                "\(subject) unpacks to \(found.diffID), but the image's configuration says \(layer.diffID)")
        }
    }
}
