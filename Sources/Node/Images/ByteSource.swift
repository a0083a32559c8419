import Glibc
import Kernel

/// Bytes that are read once, front to back, on one thread.
protocol ByteSource: AnyObject {
    /// Reads up to `buffer.count` bytes; 0 only at the end.
    func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int
}

extension ByteSource {
    /// Reads to the end and drops what comes.
    func drain() throws {
        var buffer = [UInt8](repeating: 0, count: 64 << 10)
        while try buffer.withUnsafeMutableBytes({ try read(into: $0) }) > 0 {}
    }
}

/// An open file, pipe or socket. The descriptor belongs to the caller.
final class DescriptorSource: ByteSource {
    private let descriptor: Int32
    private let subject: String
    private let limit: UInt64
    private let progress: ((UInt64) -> Void)?
    private var announced: UInt64 = 0
    private(set) var count: UInt64 = 0

    /// - Parameters:
    ///   - limit: more bytes are an error.
    ///   - progress: called with the bytes read so far, once for a mebibyte.
    init(_ descriptor: Int32, subject: String, limit: UInt64 = .max, progress: ((UInt64) -> Void)? = nil) {
        self.descriptor = descriptor
        self.subject = subject
        self.limit = limit
        self.progress = progress
    }

    func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        let got = try waiting(descriptor, for: POLLIN, "read", subject) {
            Glibc.read(descriptor, buffer.baseAddress, buffer.count)
        }
        count += UInt64(got)
        guard count <= limit else {
            throw ImageError(.limitExceeded, "\(subject) is larger than the \(limit) bytes allowed")
        }
        if let progress, count - announced >= 1 << 20 || got == 0 {
            announced = count
            progress(count)
        }
        return got
    }
}

/// Bytes in memory.
final class MemorySource: ByteSource {
    private let bytes: [UInt8]
    private var offset = 0

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    func read(into buffer: UnsafeMutableRawBufferPointer) -> Int {
        let count = min(buffer.count, bytes.count - offset)
        buffer.copyBytes(from: bytes[offset..<(offset + count)])
        offset += count
        return count
    }
}

/// Passes bytes on and computes their digest; writes a copy of them where one is wanted.
final class HashingSource: ByteSource {
    private let upstream: any ByteSource
    /// Of the bytes so far, to go on with.
    private(set) var state = DigestState()
    private let subject: String
    /// A descriptor that all bytes from now on are written to as well; it belongs to the caller.
    var copy: Int32?

    init(_ upstream: any ByteSource, subject: String = "") {
        self.upstream = upstream
        self.subject = subject
    }

    /// Bytes so far.
    var count: UInt64 { state.count }
    /// The digest of the bytes so far; the whole digest once the source is drained.
    var digest: Digest { state.finish() }

    func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        let got = try upstream.read(into: buffer)
        let bytes = UnsafeRawBufferPointer(rebasing: buffer[..<got])
        state.update(bytes)
        if let copy { try writeAll(bytes, to: copy, subject: subject) }
        return got
    }
}

/// Stops a stream that grows beyond a bound, absolute or in proportion to what it is made from.
final class BoundedSource: ByteSource {
    private let upstream: any ByteSource
    private let compressed: () -> UInt64
    private let limits: ImageLimits
    private let subject: String
    private(set) var count: UInt64 = 0

    /// - Parameter compressed: how many bytes went into the decompressor so far.
    init(
        _ upstream: any ByteSource, compressed: @escaping () -> UInt64, limits: ImageLimits, subject: String
    ) {
        self.upstream = upstream
        self.compressed = compressed
        self.limits = limits
        self.subject = subject
    }

    func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        let got = try upstream.read(into: buffer)
        count += UInt64(got)
        guard count <= limits.layerBytes else {
            throw ImageError(
                .limitExceeded, "\(subject) unpacks to more than the \(limits.layerBytes) bytes allowed")
        }
        if count > limits.compressionFloor, count / limits.compressionRatio > compressed() {
            throw ImageError(
                .limitExceeded,
                "\(subject) unpacks to more than \(limits.compressionRatio) times its size: it looks like a bomb")
        }
        return got
    }
}

/// Writes all bytes, waiting as long as it takes.
func writeAll(_ bytes: UnsafeRawBufferPointer, to descriptor: Int32, subject: @autoclosure () -> String) throws {
    var rest = bytes
    while !rest.isEmpty {
        let count = try waiting(descriptor, for: POLLOUT, "write", subject()) {
            Glibc.write(descriptor, rest.baseAddress, rest.count)
        }
        rest = UnsafeRawBufferPointer(rebasing: rest[count...])
    }
}

/// Repeats a call on a descriptor that may be non-blocking once it is ready; see poll(2).
private func waiting(
    _ descriptor: Int32, for events: Int32, _ operation: String, _ subject: @autoclosure () -> String,
    _ body: () -> Int
) throws(KernelError) -> Int {
    while true {
        do throws(KernelError) {
            return try systemCall(operation, subject(), body)
        } catch {
            guard error.errno == EAGAIN else { throw error }
            var ready = pollfd(fd: descriptor, events: Int16(events), revents: 0)
            try systemCall("poll", subject()) { poll(&ready, 1, -1) }
        }
    }
}
