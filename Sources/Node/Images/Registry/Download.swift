import CKernel
import Glibc
import Kernel
import NIOCore
import Synchronization

/// Blobs that are being fetched: `downloads/<64 digits>`, each a beginning of what its name says, or all of it.
///
/// A beginning is kept across errors and restarts, and continued. A whole one leaves by being adopted as a blob.
struct DownloadStore: Sendable {
    let root: String

    private var directory: String { "\(root)/downloads" }

    func prepare() throws { try File.makeDirectories(directory, mode: 0o700) }

    func path(_ digest: Digest) -> String { "\(directory)/\(digest.hex)" }

    func remove(_ digest: Digest) { unlink(path(digest)) }

    /// Moves what nobody wants any more into `trash`.
    ///
    /// - Parameter seconds: what was written to since then is kept.
    func discard(except needed: Set<Digest>, unusedFor seconds: Int, into trash: WorkingDirectory) throws {
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        for name in try File.list(directory) {
            if let digest = Digest(hex: name), needed.contains(digest) { continue }
            let path = "\(directory)/\(name)"
            var info = stat()
            guard lstat(path, &info) == 0, now.tv_sec - info.st_mtim.tv_sec >= seconds else { continue }
            rename(path, trash.newPath())
        }
    }
}

/// The file of one download. Its operations block, and are called one after the other.
final class PartialFile: Sendable {
    private let file: SharedFD
    private let path: String
    private let state: Mutex<DigestState>

    /// Takes the file over, and hashes what is in it already.
    init(_ file: SharedFD, path: String, size: UInt64) throws {
        self.path = path
        self.file = file
        let source = HashingSource(DescriptorSource(file.raw, subject: path))
        try source.drain()
        state = Mutex(source.state)
        if source.count > size { try reset() }
    }

    var count: UInt64 { state.withLock { $0.count } }

    func reset() throws {
        let raw = file.raw
        try systemCall("ftruncate", path) { ftruncate(raw, 0) }
        try systemCall("lseek", path) { lseek(raw, 0, SEEK_SET) }
        state.withLock { $0 = DigestState() }
    }

    func append(_ buffers: [ByteBuffer]) throws {
        try state.withLock { state in
            for buffer in buffers {
                try buffer.withUnsafeReadableBytes { bytes in
                    try writeAll(bytes, to: file.raw, subject: path)
                    state.update(bytes)
                }
            }
        }
    }

    /// The digest of the whole, which is durable then.
    func finish() throws -> Digest {
        let raw = file.raw
        try systemCall("fsync", path) { fsync(raw) }
        return state.withLock { $0.finish() }
    }
}

extension ImageStore {
    /// Opens the file of a download; nil when the blob is in the store. Nobody else may have it open.
    func openDownload(_ digest: Digest, size: UInt64) throws -> PartialFile? {
        let path = downloads.path(digest)
        // With the lock that commits take: a finished download may become a blob at any moment, and a new file in its
        // place would be taken for it by the next commit.
        let file = try state.withLock { _ in
            blobs.contains(digest) ? nil : SharedFD(try File.open(path, O_RDWR | O_CREAT | O_NOFOLLOW))
        }
        return try file.map { try PartialFile($0, path: path, size: size) }
    }
}

/// Fetches one blob into its file among the downloads.
struct Download: Sendable {
    let digest: Digest
    let size: UInt64
    let file: PartialFile
    let work: any BlockingExecutor
    let settings: TransferSettings
    /// Taken while something is received.
    let slots: KeyedLock<Int>
    let progress: TransferProgressHandler?

    /// Bytes that go to the disk at once, and that a try has to bring for not being counted.
    private static let piece = 1 << 20

    /// Fetches what is missing, from one source, and checks the digest of the whole.
    ///
    /// - Throws: `ImageError`: invalidArchive when the source has something else under this digest, and those of the
    ///   source; `KernelError`; `CancellationError`. What came stays in the file, except when it is wrong.
    func run(from source: any ContentSource) async throws {
        // What came in several parts, maybe from several servers, is given a second chance as one.
        var isPatched = file.count > 0
        var attempt = 1
        while true {
            let before = file.count
            do {
                if before < size {
                    try await slots.withLock(0) {
                        try await settings.watching("\(digest) from \(source.name)") { watch in
                            try await receive(from: source, watch)
                        }
                    }
                }
                let actual = try await work.run { [file] in try file.finish() }
                if actual == digest { return }
                try await work.run { [file] in try file.reset() }
                guard isPatched else {
                    throw ImageError(
                        .invalidArchive, "\(source.name) sends something else than \(digest): it is \(actual)")
                }
                isPatched = false
            } catch let failure as TransferFailure {
                if file.count >= before + UInt64(Self.piece) { attempt = 1 }
                try await settings.wait(after: failure, attempt: attempt)
                attempt += 1
                isPatched = file.count > 0
            }
        }
    }

    private func receive(from source: any ContentSource, _ watch: TransferWatch) async throws {
        let subject = "\(digest) from \(source.name)"
        let stream = try await source.open(digest, from: file.count)
        if stream.offset != file.count {
            guard stream.offset == 0 else {
                throw TransferFailure("\(subject) begins at another place than it was asked for")
            }
            try await work.run { [file] in try file.reset() }
        }
        if let length = stream.length, length != size - stream.offset {
            throw ImageError(
                .invalidArchive,
                "\(subject) has \(length + stream.offset) bytes, where the manifest says \(size)")
        }
        do {
            try await copy(stream, subject, watch)
        } catch let error as ImageError {
            throw error
        } catch let error as KernelError {
            throw error
        } catch {
            throw try TransferFailure.interrupted(error, subject)
        }
        guard file.count == size else {
            throw TransferFailure("\(subject) ended after \(file.count) of \(size) bytes")
        }
    }

    /// Writes pieces as they come; what came before a cut is written too.
    private func copy(_ stream: ContentStream, _ subject: String, _ watch: TransferWatch) async throws {
        var buffers: [ByteBuffer] = []
        var gathered = 0
        var failure: (any Error)?
        do {
            watch.wait()
            for try await buffer in stream.bytes {
                watch.got(buffer.readableBytes)
                defer { watch.wait() }
                gathered += buffer.readableBytes
                guard file.count + UInt64(gathered) <= size else {
                    throw ImageError(
                        .invalidArchive, "\(subject) is longer than the \(size) bytes that the manifest says")
                }
                buffers.append(buffer)
                guard gathered >= Self.piece else { continue }
                try await write(&buffers)
                gathered = 0
            }
        } catch {
            failure = error
        }
        if !(failure is ImageError), !(failure is KernelError) { try await write(&buffers) }
        if let failure { throw failure }
    }

    private func write(_ buffers: inout [ByteBuffer]) async throws {
        let batch = buffers
        buffers = []
        if !batch.isEmpty { try await work.run { [file] in try file.append(batch) } }
        progress?(TransferProgress(digest: digest, phase: .downloading, done: file.count, total: size))
    }
}
