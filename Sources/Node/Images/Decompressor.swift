import CArchive
import Glibc

/// How a stream is compressed, told by its first bytes.
enum Compression: String, Sendable {
    case none, gzip, xz, zstd, bzip2

    /// The longest mark in bytes.
    static let markLength = 10

    /// A plain tar begins with a name, so the marks are as long as the formats allow: `BZh` alone may be a name.
    init(prefix: [UInt8]) {
        let marks: [(Compression, [UInt8])] = [
            (.gzip, [0x1f, 0x8b, 0x08]), (.xz, [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]),
            (.zstd, [0x28, 0xb5, 0x2f, 0xfd]),
        ]
        if let mark = marks.first(where: { prefix.starts(with: $0.1) }) {
            self = mark.0
            return
        }
        // BZh, the block size as a digit, then the mark of a block or of an empty stream's end.
        let blocks: [[UInt8]] = [[0x31, 0x41, 0x59, 0x26, 0x53, 0x59], [0x17, 0x72, 0x45, 0x38, 0x50, 0x90]]
        let isBzip2 =
            prefix.starts(with: "BZh".utf8) && prefix.count == Self.markLength
            && (0x31...0x39).contains(prefix[3]) && blocks.contains(Array(prefix[4...]))
        self = isBzip2 ? .bzip2 : .none
    }
}

/// Undoes the compression of a stream with libarchive's filters, inside this process.
///
/// Only the one filter that the first bytes ask for is switched on, and only if libarchive has it built in: it falls
/// back to running a program of that name otherwise, and nothing is executed here. The tar itself is read by
/// `TarReader`; libarchive sees it as raw bytes.
final class Decompressor: ByteSource {
    /// What the stream is compressed with.
    let compression: Compression

    private let upstream: any ByteSource
    /// The bytes that were looked at first and are still to be passed on.
    private(set) var prefix: [UInt8]
    private var chunk = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 << 10, alignment: 16)
    private var archive: OpaquePointer?
    private let subject: String
    private var failure: (any Error)?
    private var ended = false
    /// Of what came out; nil where somebody else checks the content.
    private var checksum: CyclicRedundancyCheck?
    /// The last compressed bytes, as many as a gzip member's trailer has.
    private var tail: [UInt8] = []

    /// Reads the first bytes of `upstream` and decides; nothing more is read before the first `read`.
    ///
    /// - Parameters:
    ///   - subject: what messages call the stream.
    ///   - checksDamage: nobody knows a digest of the content, so the stream's own check sum matters. libarchive checks
    ///     those of all formats but gzip, whose is checked here then.
    init(_ upstream: any ByteSource, subject: String, checksDamage: Bool) throws {
        self.upstream = upstream
        self.subject = subject
        var first = [UInt8](repeating: 0, count: Compression.markLength)
        var filled = 0
        while filled < first.count {
            let from = filled
            let got = try first.withUnsafeMutableBytes { buffer in
                try upstream.read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[from...]))
            }
            if got == 0 { break }
            filled += got
        }
        prefix = Array(first[..<filled])
        compression = Compression(prefix: prefix)
        if checksDamage, compression == .gzip { checksum = CyclicRedundancyCheck() }
    }

    deinit {
        if let archive { archive_read_free(archive) }
        chunk.deallocate()
    }

    func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        if compression == .none { return try pull(into: buffer) }
        if archive == nil { try open() }
        guard let archive, !ended, !buffer.isEmpty else { return 0 }
        let count = archive_read_data(archive, buffer.baseAddress, buffer.count)
        if let failure { throw failure }
        guard count >= 0 else { throw damaged(archive) }
        if count == 0 { ended = true }
        checksum?.update(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
        return count
    }

    /// Reads what is left of the stream, compressed and not, and checks what is to be checked.
    ///
    /// A gzip stream of several members has a check sum for each, and only the last one's can be found; it is known by
    /// the length beside it, which is that of the whole content only if there is one member.
    func finish() throws {
        try drain()
        while try pull(into: chunk) > 0 {}
        guard let checksum, tail.count == 8 else { return }
        let number = { (bytes: ArraySlice<UInt8>) in bytes.reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) } }
        guard number(tail[4...]) == UInt32(truncatingIfNeeded: checksum.count) else { return }
        guard number(tail[..<4]) == checksum.value else {
            throw ImageError(.invalidArchive, "\(subject) is damaged (gzip: its check sum is wrong)")
        }
    }

    private func open() throws {
        guard let archive = archive_read_new() else { throw ImageError(.system, "out of memory") }
        self.archive = archive
        let added =
            switch compression {
            case .gzip: archive_read_support_filter_gzip(archive)
            case .xz: archive_read_support_filter_xz(archive)
            case .zstd: archive_read_support_filter_zstd(archive)
            case .bzip2: archive_read_support_filter_bzip2(archive)
            case .none: archive_read_support_filter_none(archive)
            }
        guard added == ARCHIVE_OK else {
            throw ImageError(
                .unsupported, "\(subject) is compressed with \(compression), which this libarchive is built without")
        }
        archive_read_support_format_raw(archive)
        archive_read_support_format_empty(archive)
        let result = archive_read_open(
            archive, Unmanaged.passUnretained(self).toOpaque(), nil,
            { _, context, data in
                // SAFETY: the context is the decompressor, which frees the archive before it goes away.
                guard let context, let data else { return -1 }
                return Unmanaged<Decompressor>.fromOpaque(context).takeUnretainedValue().feed(data)
            }, nil)
        if let failure { throw failure }
        guard result == ARCHIVE_OK else { throw damaged(archive) }
        var entry: OpaquePointer?
        let header = archive_read_next_header(archive, &entry)
        if let failure { throw failure }
        if header == ARCHIVE_EOF {
            ended = true
        } else if header != ARCHIVE_OK {
            throw damaged(archive)
        }
    }

    /// libarchive's read callback: the next piece of compressed bytes; an error is kept and thrown by `read`.
    private func feed(_ data: UnsafeMutablePointer<UnsafeRawPointer?>) -> Int {
        do {
            data.pointee = UnsafeRawPointer(chunk.baseAddress)
            return try pull(into: chunk)
        } catch {
            failure = error
            return -1
        }
    }

    /// The stream as it comes, the bytes that were looked at first.
    private func pull(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        let count: Int
        if prefix.isEmpty {
            count = try upstream.read(into: buffer)
        } else {
            count = min(prefix.count, buffer.count)
            buffer.copyBytes(from: prefix[..<count])
            prefix.removeFirst(count)
        }
        if checksum != nil { tail = Array((tail + buffer[max(0, count - 8)..<count]).suffix(8)) }
        return count
    }

    private func damaged(_ archive: OpaquePointer) -> ImageError {
        let reason = archive_error_string(archive).map { printable(String(cString: $0)) } ?? "unknown error"
        return ImageError(.invalidArchive, "\(subject) is damaged or truncated (\(compression): \(reason))")
    }
}
