import HTTPTypes
import Hummingbird
import JSON
import NIOCore
import Synchronization

extension Response {
    /// A value as JSON.
    package static func json(_ value: some Encodable, status: HTTPResponse.Status = .ok) throws -> Response {
        json(bytes: try JSONCoding.encode(value), status: status)
    }

    /// JSON that is at hand as bytes.
    package static func json(bytes: [UInt8], status: HTTPResponse.Status = .ok) -> Response {
        Response(
            status: status, headers: [.contentType: "application/json"],
            body: ResponseBody(byteBuffer: ByteBuffer(bytes: bytes + [UInt8(ascii: "\n")])))
    }

    /// Plain text.
    package static func text(_ text: String, contentType: String = "text/plain; charset=utf-8") -> Response {
        Response(
            status: .ok, headers: [.contentType: contentType],
            body: ResponseBody(byteBuffer: ByteBuffer(string: text)))
    }

    /// Success without a body: 204.
    package static var empty: Response { Response(status: .noContent) }

    /// Bytes as they come: the head leaves at once, every piece when it is there. An error cuts the connection, so that
    /// the client does not take a part for the whole.
    package static func stream<Pieces: AsyncSequence & Sendable>(
        _ pieces: Pieces, contentType: String, headers: HTTPFields = [:]
    ) -> Response where Pieces.Element == ByteBuffer {
        var fields = headers
        fields[.contentType] = contentType
        return Response(
            status: .ok, headers: fields,
            body: ResponseBody { writer in
                for try await piece in pieces { try await writer.write(piece) }
                try await writer.finish(nil)
            })
    }

    /// JSON values, one a line (NDJSON), each sent as soon as it is written.
    ///
    /// `produce` is cancelled when the client goes away and when a shutdown begins; the stream then ends properly. An
    /// error that it throws becomes the stream's last line, `{"error":{"code":…,"message":…}}`. A client that reads
    /// nothing for `ServiceLimits.slowReaderTimeout` is cut off.
    package static func lines(
        _ context: ServiceContext, produce: @escaping @Sendable (LineWriter) async throws -> Void
    ) -> Response {
        let connection = context.connection
        return Response(
            status: .ok, headers: [.contentType: "application/x-ndjson"],
            body: ResponseBody { writer in
                guard let body = writer as? StreamBodyWriter else {
                    throw APIError.internalError("a line stream must not be wrapped by a middleware")
                }
                let lines = LineWriter(body: body)
                do {
                    try await LineStream.run(lines, connection, produce)
                } catch let error where !(error is ClientGone) && !(error is CancellationError) {
                    try await lines.write(bytes: APIError(error).line)
                }
                try await writer.finish(nil)
            })
    }
}

/// Writes the lines of a stream. To be used by one task at a time.
package struct LineWriter: Sendable {
    private let body: StreamBodyWriter
    private let progress = Progress()

    /// When the present write began; nil between writes.
    private final class Progress: Sendable {
        let pendingSince = Mutex<ContinuousClock.Instant?>(nil)
    }

    init(body: StreamBodyWriter) {
        self.body = body
    }

    /// How long the present write has been waiting; nil between writes.
    var waiting: Duration? {
        progress.pendingSince.withLock { $0 }.map { ContinuousClock.now - $0 }
    }

    /// Sends a value as one line, waiting while the client does not read.
    package func write(_ value: some Encodable) async throws {
        try await write(bytes: try JSONCoding.encode(value))
    }

    /// Sends JSON that is at hand as bytes and has no line break in it.
    package func write(bytes: [UInt8]) async throws {
        try await write(lines: [bytes])
    }

    /// Sends several lines together.
    package func write(lines: [[UInt8]]) async throws {
        var buffer = ByteBuffer()
        for line in lines {
            buffer.writeBytes(line)
            buffer.writeInteger(UInt8(ascii: "\n"))
        }
        progress.pendingSince.withLock { $0 = .now }
        defer { progress.pendingSince.withLock { $0 = nil } }
        try await body.write(buffer)
    }
}

/// The life of a line stream.
enum LineStream {
    /// - Throws: what `produce` throws; `ClientGone`. A shutdown ends it without an error.
    static func run(
        _ lines: LineWriter, _ connection: ClientConnection,
        _ produce: @escaping @Sendable (LineWriter) async throws -> Void
    ) async throws {
        let limit = connection.limits.slowReaderTimeout
        let interval = TimeAmount(limit / 4)
        let watch = connection.channel.eventLoop.scheduleRepeatedTask(initialDelay: interval, delay: interval) { _ in
            if let waiting = lines.waiting, waiting > limit { connection.abort() }
        }
        defer { watch.cancel() }
        try await connection.serving { try await produce(lines) }
    }
}
