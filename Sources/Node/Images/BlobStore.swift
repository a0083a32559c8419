import CKernel
import Glibc
import Kernel

/// Content by digest: `blobs/sha256/<64 digits>`, each file complete or not there.
///
/// Content is written under `tmp/` while it is hashed, made durable and renamed. What is found to be something else than
/// its name says is moved to `quarantine/`.
struct BlobStore: Sendable {
    /// The image store's directory.
    let root: String

    private var directory: String { "\(root)/blobs/sha256" }
    private var quarantineDirectory: String { "\(root)/quarantine" }
    var temporaryDirectory: String { "\(root)/tmp" }

    /// Makes the directories and removes what an interrupted process left under `tmp/`.
    func prepare() throws {
        for path in [root, "\(root)/blobs", directory, temporaryDirectory, quarantineDirectory] {
            try File.makeDirectories(path, mode: 0o700)
        }
        for name in try File.list(temporaryDirectory) { try Tree.remove("\(temporaryDirectory)/\(name)") }
    }

    func path(_ digest: Digest) -> String { "\(directory)/\(digest.hex)" }

    func contains(_ digest: Digest) -> Bool { File.exists(path(digest)) }

    /// The digests of all blobs; files with other names are passed over.
    func list() throws -> [Digest] { try File.list(directory).compactMap { Digest(hex: $0) } }

    /// Reads a small blob and checks its digest.
    ///
    /// - Throws: `ImageError`: notFound, or corrupted (the blob is in quarantine then).
    func read(_ digest: Digest, limit: Int) throws -> [UInt8] {
        let file = try open(digest)
        let bytes = try file.readAll(limit: limit, subject: path(digest))
        let actual = Digest.of(bytes)
        guard actual == digest else { throw quarantine(digest, actual: actual) }
        return bytes
    }

    /// Opens a blob for reading; its content is not checked yet.
    func open(_ digest: Digest) throws -> OwnedFD {
        do throws(KernelError) {
            return try File.open(path(digest), O_RDONLY | O_NOFOLLOW)
        } catch {
            guard error.errno == ENOENT else { throw error }
            throw ImageError(
                .notFound, "the content \(digest) is not in the store; pull, load or import the image again")
        }
    }

    /// Moves a blob that is not what it should be out of the way and says so.
    func quarantine(_ digest: Digest, actual: Digest) -> ImageError {
        let place = "\(quarantineDirectory)/\(digest.hex)"
        if rename(path(digest), place) != 0 { unlink(path(digest)) }
        return ImageError(
            .corrupted,
            "the content \(digest) is damaged on disk (it reads as \(actual)); it was moved to \(place), "
                + "pull, load or import the image again")
    }

    /// Removes what is in quarantine.
    func emptyQuarantine() throws {
        for name in try File.list(quarantineDirectory) { try File.removeFile("\(quarantineDirectory)/\(name)") }
    }

    /// Takes a complete, durable file of the same file system over as the blob of its digest. A blob that is there
    /// already is replaced: the new content has just been hashed. A file that another operation has brought here
    /// meanwhile, as happens to downloads that two share, is here already.
    func adopt(_ file: String, as digest: Digest) throws {
        let target = path(digest)
        if rename(file, target) == 0 { return }
        let number = errno
        guard number == ENOENT, contains(digest) else { throw KernelError("rename", target, errno: number) }
    }

    /// Makes all adopted names durable.
    func synchronize() throws {
        try File.syncDirectory(of: "\(directory)/.")
    }
}

/// A directory under `tmp/` for one operation; removed with all its content when the operation is over.
final class WorkingDirectory {
    let path: String
    private var counter = 0

    init(in parent: String) throws {
        var template = Array("\(parent)/operation.XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else {
            throw KernelError("mkdtemp", parent, errno: errno)
        }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit { _ = try? Tree.remove(path) }

    /// A path inside that nothing uses yet.
    func newPath() -> String {
        counter += 1
        return "\(path)/\(counter)"
    }

    /// Creates a file at a new path.
    static func create(_ path: String) throws(KernelError) -> OwnedFD {
        try File.open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW)
    }
}
