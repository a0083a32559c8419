import Glibc
import Kernel
import Synchronization

/// One thing that a removal did.
package enum ImageRemoval: Sendable, Equatable {
    /// The image no longer has this name.
    case untagged(ImageReference)
    /// The image with this digest is gone, with all content that no other image needs.
    case deleted(Digest)
}

/// What garbage collection removed.
package struct ImageGarbage: Sendable, Equatable {
    package var images: [Digest] = []
    package var blobs = 0
    package var snapshots = 0
    /// Bytes that the file system got back.
    package var bytes: UInt64 = 0
}

extension ImageStore {
    /// Takes a name away from the image that has it, and leaves the image, whether it has others or not.
    ///
    /// - Parameter digest: nothing is done when the name means another image by now.
    /// - Throws: `ImageError`: invalidArgument, noSpace, system.
    package func untag(_ name: String, from digest: Digest) throws {
        let name = try Self.newName(name)
        try ImageError.explaining("untagging an image") {
            try state.withLock { state in
                guard state.catalog.named(name)?.digest == digest else { return }
                var catalog = state.catalog
                catalog.untag(name)
                try catalog.write(to: catalogPath)
                state.catalog = catalog
            }
        }
    }

    /// Removes a name, or an image.
    ///
    /// A name among several is only taken away. The last one, a digest or an id stands for the image: it is deleted, with
    /// the content that no other image has. `force` allows to delete an image with several names by its digest, and to
    /// take the last names from an image that is used; its content stays until nothing uses it (`collectGarbage`).
    ///
    /// - Parameter inUse: the digests of the images that tasks have, running or not. Asked for with the store's lock held:
    ///   a task that is not among them yet finds the image gone when it looks, and never loses it after that.
    /// - Returns: what was done, and the bytes that the file system got back.
    /// - Throws: `ImageError`: notFound, ambiguous, inUse.
    @discardableResult
    package func remove(
        _ reference: String, force: Bool, inUse: @autoclosure () -> Set<Digest>
    ) throws -> (steps: [ImageRemoval], bytes: UInt64) {
        try freeing("removing an image") {
            let trash = try WorkingDirectory(in: blobs.temporaryDirectory)
            let steps: [ImageRemoval] = try state.withLock { state in
                let inUse = inUse()
                let image = try Self.resolve(reference, in: state.catalog)
                let name = try? ImageReference(reference)
                let isByName = name.map { image.names.contains($0) } ?? false
                let isUsed = inUse.contains(image.digest) || state.mounted.values.contains(image.digest)
                var catalog = state.catalog
                if isByName, let name, image.names.count > 1 || isUsed {
                    guard image.names.count > 1 || force else {
                        throw Self.used(reference, "remove its tasks first, or force")
                    }
                    catalog.untag(name)
                    try catalog.write(to: catalogPath)
                    state.catalog = catalog
                    return [.untagged(name)]
                }
                if isUsed, force, !image.names.isEmpty {
                    for name in image.names { catalog.untag(name) }
                    try catalog.write(to: catalogPath)
                    state.catalog = catalog
                    return image.names.map { .untagged($0) }
                }
                guard !isUsed else { throw Self.used(reference, "remove its tasks first") }
                guard image.names.count <= 1 || force else {
                    throw ImageError(
                        .inUse,
                        "the image \(reference) has \(image.names.count) names; remove them one by one, or force")
                }
                catalog.remove(image.digest)
                try catalog.write(to: catalogPath)
                state.catalog = catalog
                failpoint("images.before_discard")
                try discard(blobs: image.blobs, chains: image.chain, inUse: inUse, state: state, into: trash)
                return image.names.map { .untagged($0) } + [.deleted(image.digest)]
            }
            return (steps, try Tree.remove(trash.path).bytes)
        }
    }

    private static func used(_ reference: String, _ advice: String) -> ImageError {
        ImageError(.inUse, "the image \(printable(reference)) is used by a task; \(advice)")
    }

    /// Removes blobs and snapshots that no image has and no running operation needs, and what is in quarantine.
    ///
    /// - Parameters:
    ///   - inUse: the digests of the images that tasks have; asked for as by `remove`.
    ///   - untagged: remove images without a name that are not in use as well.
    ///   - seconds: begun downloads that nobody has gone on with for so long are removed too.
    package func collectGarbage(
        inUse: @autoclosure () -> Set<Digest>, untagged: Bool = false, downloadsUnusedFor seconds: Int = 24 * 3600
    ) throws -> ImageGarbage {
        try freeing("collecting garbage") {
            let trash = try WorkingDirectory(in: blobs.temporaryDirectory)
            var garbage = ImageGarbage()
            try state.withLock { state in
                let used = inUse().union(state.mounted.values)
                var catalog = state.catalog
                if untagged {
                    garbage.images = catalog.images.values.filter { $0.names.isEmpty && !used.contains($0.digest) }
                        .map(\.digest).sorted()
                    for digest in garbage.images { catalog.remove(digest) }
                }
                if !garbage.images.isEmpty { try catalog.write(to: catalogPath) }
                state.catalog = catalog
                let moved = try discard(
                    blobs: blobs.list(), chains: snapshots.list(), inUse: used, state: state, into: trash)
                garbage.blobs = moved.blobs
                garbage.snapshots = moved.snapshots
                try downloads.discard(except: Set(state.pins.keys), unusedFor: seconds, into: trash)
            }
            try blobs.emptyQuarantine()
            garbage.bytes = try Tree.remove(trash.path).bytes
            return garbage
        }
    }

    /// Runs something that frees space; when the disk is too full even for that, the reserve is given up and it runs
    /// again.
    private func freeing<Result>(_ operation: String, _ body: () throws -> Result) throws -> Result {
        defer { reserve.fill() }
        do {
            return try ImageError.explaining(operation, body)
        } catch let error as ImageError where error.kind == .noSpace {
            reserve.release()
            return try ImageError.explaining(operation, body)
        }
    }

    /// Moves those of the given blobs and snapshots that nothing needs into `trash`, which removes them once the store's
    /// lock is free again: renames are quick, and whoever has a blob open keeps it.
    @discardableResult
    func discard(
        blobs candidates: [Digest], chains: [Digest], inUse: Set<Digest>, state: State, into trash: WorkingDirectory
    ) throws -> (blobs: Int, snapshots: Int) {
        var needed = Set(state.pins.keys)
        var needsChain = needed
        for image in state.catalog.images.values {
            needed.formUnion(image.blobs)
            needsChain.formUnion(image.chain)
        }
        for digest in inUse.union(state.mounted.values) where state.catalog.images[digest] == nil {
            // Taken out of the catalog by damage, not by us: what its task is mounted from must stay.
            guard let image = ImageRecord(rebuiltFrom: digest, blobs: blobs, limits: limits) else { continue }
            needed.formUnion(image.blobs)
            needsChain.formUnion(image.chain)
        }
        var moved = (blobs: 0, snapshots: 0)
        for digest in Set(candidates).subtracting(needed) where rename(blobs.path(digest), trash.newPath()) == 0 {
            moved.blobs += 1
        }
        for chain in Set(chains).subtracting(needsChain) where rename(snapshots.path(chain), trash.newPath()) == 0 {
            moved.snapshots += 1
        }
        return moved
    }
}

/// A file that holds some space back, so that something can be removed when the file system is full: that too needs a few
/// blocks.
struct SpaceReserve: Sendable {
    let path: String
    private static let size = 256 << 10

    /// Takes the space, where it is not taken and there is enough.
    func fill() {
        guard !File.exists(path), let file = try? File.open(path, O_WRONLY | O_CREAT | O_EXCL) else { return }
        if posix_fallocate(file.raw, 0, off_t(Self.size)) != 0 { unlink(path) }
    }

    func release() { unlink(path) }
}
