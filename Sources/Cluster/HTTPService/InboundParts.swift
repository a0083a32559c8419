import HTTPTypes
import NIOCore
import NIOHTTPTypes

/// The parts that a connection reads, handed out as heads, bodies or raw bytes.
///
/// `@unchecked Sendable`: there is one reader at a time: the connection's loop between requests, the route during one,
/// the session after a takeover; each waits for the one before.
final class InboundParts: @unchecked Sendable {
    private var iterator: NIOAsyncChannelInboundStream<HTTPRequestPart>.AsyncIterator
    private let outbound: NIOAsyncChannelOutboundWriter<HTTPResponsePart>
    private var inRequest = false
    private var continueAwaited = false
    /// Fires when all that the peer sent has been read.
    let drained = Signal()

    init(
        _ iterator: NIOAsyncChannelInboundStream<HTTPRequestPart>.AsyncIterator,
        outbound: NIOAsyncChannelOutboundWriter<HTTPResponsePart>
    ) {
        self.iterator = iterator
        self.outbound = outbound
    }

    /// The next request; nil when the client sends no more.
    func nextHead() async throws -> HTTPRequest? {
        guard case .head(let head)? = try await iterator.next() else { return nil }
        inRequest = true
        continueAwaited = head.headerFields[.expect]?.lowercased() == "100-continue"
        return head
    }

    /// The next piece of the present request's body; nil at its end, also when asked again.
    func nextBody() async throws -> ByteBuffer? {
        guard inRequest else { return nil }
        if continueAwaited {
            continueAwaited = false
            try await outbound.write(.head(HTTPResponse(status: .continue)))
        }
        switch try await iterator.next() {
        case .body(let bytes):
            return bytes
        case .end:
            inRequest = false
            return nil
        case .head, nil:
            inRequest = false
            throw APIError.badRequest("the connection ended before the body was complete", code: "invalid-http")
        }
    }

    /// Reads past what the route left of the body.
    func skipBody() async throws {
        continueAwaited = false
        while try await nextBody() != nil {}
    }

    /// The next bytes after a takeover; nil when the client has closed its sending side.
    func nextRaw() async throws -> ByteBuffer? {
        do {
            if case .body(let bytes)? = try await iterator.next() { return bytes }
        } catch {
            drained.fire()
            throw error
        }
        drained.fire()
        return nil
    }

    /// Reads until nothing more comes, and forgets it.
    func drain() async {
        while let part = try? await iterator.next() { _ = part }
        drained.fire()
    }
}

/// A request's body as it comes from the connection; nothing is read ahead of its reader but a few pieces.
struct BodySequence: AsyncSequence, AsyncIteratorProtocol, Sendable {
    let parts: InboundParts

    func makeAsyncIterator() -> BodySequence { self }
    func next() async throws -> ByteBuffer? { try await parts.nextBody() }
}
