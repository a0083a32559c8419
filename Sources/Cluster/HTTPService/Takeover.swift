import HTTPTypes
import Hummingbird
import NIOCore
import NIOHTTPTypes
import Synchronization

/// A connection that a route has taken over: bytes in both directions, nothing in between.
package struct RawStream: Sendable {
    /// What the client sends; ends when it closes its sending side.
    package let inbound: RawInbound
    let connection: ClientConnection

    /// Sends bytes, waiting while the client does not read. May be called from several tasks; every call's bytes stay
    /// together.
    ///
    /// - Throws: an I/O error when the connection is gone; `CancellationError`. A write that is cancelled while it
    ///   waits cuts the connection.
    package func write(_ bytes: ByteBuffer) async throws {
        try await connection.send(.body(bytes))
    }

    /// The same for bytes at hand as an array.
    package func write(_ bytes: [UInt8]) async throws {
        try await write(ByteBuffer(bytes: bytes))
    }

    /// Closes our sending side: the client reads the end when it has read all that was written. Reading goes on.
    package func finish() {
        connection.channel.triggerUserOutboundEvent(FinishEvent(closing: false), promise: nil)
    }

    /// Returns when the connection is closed in both directions, or the calling task is cancelled.
    package func untilClosed() async {
        await connection.closed.wait()
    }
}

/// The bytes a client sends on a taken-over connection. To be read by one task at a time.
package struct RawInbound: AsyncSequence, AsyncIteratorProtocol, Sendable {
    package typealias Failure = any Error
    let parts: InboundParts

    package func makeAsyncIterator() -> RawInbound { self }
    package func next() async throws -> ByteBuffer? { try await parts.nextRaw() }
}

/// What a route does with a connection it has taken over. The connection ends when it returns.
package typealias RawSession = @Sendable (RawStream) async throws -> Void

/// Where a route leaves its session until the 101 response is written.
final class TakeoverSlot: Sendable {
    private let session = Mutex<RawSession?>(nil)

    func put(_ new: @escaping RawSession) {
        session.withLock { $0 = new }
    }

    func take() -> RawSession? {
        session.withLock { session in
            defer { session = nil }
            return session
        }
    }
}

extension ServiceContext {
    /// Answers 101 and gives the connection to `session` afterwards.
    ///
    /// Bytes that the client sent together with its request are the first that the session reads. The session is
    /// cancelled when the connection is closed and all is read, and when a shutdown's time is over.
    ///
    /// - Parameters:
    ///   - upgradeProtocol: what the client must name in `Upgrade`.
    ///   - contentType: of the response, for clients that read the form of the stream from it.
    /// - Throws: `APIError` 426 when the request does not ask for this upgrade.
    package func takeOver(
        _ request: Request, as upgradeProtocol: String, contentType: String? = nil, _ session: @escaping RawSession
    ) throws(APIError) -> Response {
        let asked = request.headers[values: .upgrade].flatMap { $0.split(separator: ",") }
        let options = request.headers[values: .connection].flatMap { $0.split(separator: ",") }
        guard asked.contains(where: { $0.matches(upgradeProtocol) }), options.contains(where: { $0.matches("upgrade") })
        else {
            throw APIError(
                status: 426, code: "upgrade-required",
                message: "this path needs 'Connection: Upgrade' and 'Upgrade: \(upgradeProtocol)'",
                headers: [.upgrade: upgradeProtocol])
        }
        takeover.put(session)
        var headers: HTTPFields = [.connection: "Upgrade", .upgrade: upgradeProtocol]
        headers[.contentType] = contentType
        return Response(status: .switchingProtocols, headers: headers)
    }
}

extension Substring {
    /// Whether this element of a header's list is `word`, white space and case aside.
    fileprivate func matches(_ word: String) -> Bool {
        let trimmed = drop { $0 == " " || $0 == "\t" }
        let end = trimmed.lastIndex { $0 != " " && $0 != "\t" }.map { trimmed.index(after: $0) } ?? trimmed.startIndex
        return trimmed[..<end].lowercased() == word.lowercased()
    }
}
