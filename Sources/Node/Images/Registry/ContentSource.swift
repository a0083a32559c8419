import NIOCore
import Synchronization

/// Bytes of one blob on their way, from some place in it to its end.
package struct ContentStream: Sendable {
    /// Where they begin: the place that was asked for, or 0 from a source that cannot begin in the middle.
    package var offset: UInt64
    /// How many follow, where the source says so.
    package var length: UInt64?
    package var bytes: any AsyncSequence<ByteBuffer, any Error> & Sendable

    package init(offset: UInt64, length: UInt64?, bytes: any AsyncSequence<ByteBuffer, any Error> & Sendable) {
        self.offset = offset
        self.length = length
        self.bytes = bytes
    }
}

/// A manifest or an index as it came.
package struct ContentDocument: Sendable, Equatable {
    package var bytes: [UInt8]
    /// What it was announced as; nil where the source does not say it.
    package var mediaType: String?

    package init(bytes: [UInt8], mediaType: String?) {
        self.bytes = bytes
        self.mediaType = mediaType
    }
}

/// A place that has content by digest: a registry, a mirror, another node.
///
/// Nothing that it says is believed: `ImageFetcher` checks lengths and digests. It tries once; what may pass is thrown as
/// `TransferFailure` and tried again by the fetcher, any other error is final.
package protocol ContentSource: Sendable {
    /// For messages: `registry.lan:5000`, `node n2`.
    var name: String { get }
    /// Begins to read a blob at `offset`, which is smaller than its size.
    func open(_ digest: Digest, from offset: UInt64) async throws -> ContentStream
    /// Reads a manifest or an index of at most `limit` bytes.
    func document(_ digest: Digest, limit: Int) async throws -> ContentDocument
}

extension ContentSource {
    /// For sources where manifests are blobs as others are.
    package func document(_ digest: Digest, limit: Int) async throws -> ContentDocument {
        let stream = try await open(digest, from: 0)
        return ContentDocument(
            bytes: try await stream.collect(limit: limit, "\(digest) from \(name)"), mediaType: nil)
    }
}

extension ContentStream {
    /// Reads a small blob into memory.
    func collect(limit: Int, _ subject: String) async throws -> [UInt8] {
        var result: [UInt8] = []
        do {
            for try await buffer in bytes {
                guard result.count + buffer.readableBytes <= limit else {
                    throw ImageError(.limitExceeded, "\(subject) has more than the \(limit) bytes allowed")
                }
                result.append(contentsOf: buffer.readableBytesView)
            }
        } catch let error as ImageError {
            throw error
        } catch {
            throw try TransferFailure.interrupted(error, subject)
        }
        if let length, length != UInt64(result.count) {
            throw TransferFailure("\(subject) ended after \(result.count) of \(length) bytes")
        }
        return result
    }
}

extension TransferFailure {
    /// What became of a stream that threw: cancelled, or cut.
    static func interrupted(_ error: any Error, _ subject: String) throws -> TransferFailure {
        try Task.checkCancellation()
        if error is CancellationError { throw error }
        if let failure = error as? TransferFailure { return failure }
        return TransferFailure("\(subject) was cut off: \(RegistryClient.explanation(error))")
    }
}

/// Sources of the same content, asked in order. One that failed in any way is left out for the rest of the transfer,
/// unless it is the last.
final class SourceList<Source: Sendable>: Sendable {
    private let sources: [Source]
    private let state = Mutex<[Int: ImageError]>([:])

    init(_ sources: [Source]) { self.sources = sources }

    /// Asks one source after the other until one answers.
    ///
    /// - Parameter body: the source, and whether there is another one after it.
    /// - Throws: the last source's error, with what the others said; cancellation and a full disk at once.
    func first<Result: Sendable>(
        _ body: @Sendable (Source, _ isLast: Bool) async throws -> Result
    ) async throws -> Result {
        for (index, source) in sources.enumerated() {
            let isLast = index == sources.count - 1
            if !isLast, state.withLock({ $0[index] != nil }) { continue }
            do {
                return try await body(source, isLast)
            } catch let error as ImageError where error.kind != .noSpace && error.kind != .system {
                guard isLast else {
                    state.withLock { $0[index] = error }
                    continue
                }
                let others = state.withLock { failures in failures.sorted { $0.key < $1.key }.map(\.value.message) }
                guard !others.isEmpty else { throw error }
                throw ImageError(
                    error.kind, "\(error.message); before it: \(others.prefix(4).joined(separator: "; "))")
            }
        }
        throw ImageError(.unavailable, "there is nowhere to fetch the content from")
    }
}
