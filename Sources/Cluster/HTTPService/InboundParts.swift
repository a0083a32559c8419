import HTTPTypes
import NIOCore
import NIOHTTPTypes
import Synchronization

/// The parts that a connection reads, handed out as heads, bodies or raw bytes.
///
/// Its readers follow one another: the connection's loop between requests, the route during one, the session after a
/// takeover. A route may have answered while a task of its is still reading the body (a relay that was refused half
/// way), so each read has its turn, and a body's reader is turned away once its request is over.
///
/// `@unchecked Sendable`: only who has the turn touches the variables.
final class InboundParts: @unchecked Sendable {
    private var iterator: NIOAsyncChannelInboundStream<HTTPRequestPart>.AsyncIterator
    private let outbound: NIOAsyncChannelOutboundWriter<HTTPResponsePart>
    private let turn = ReadTurn()
    private var inRequest = false
    private var continueAwaited = false
    /// Counts what bodies are handed out for.
    private var exchange = 0
    /// Fires when all that the peer sent has been read.
    let drained = Signal()

    init(
        _ iterator: NIOAsyncChannelInboundStream<HTTPRequestPart>.AsyncIterator,
        outbound: NIOAsyncChannelOutboundWriter<HTTPResponsePart>
    ) {
        self.iterator = iterator
        self.outbound = outbound
    }

    /// The next request with its body; nil when the client sends no more.
    func nextRequest() async throws -> (head: HTTPRequest, body: BodySequence)? {
        await turn.take()
        defer { turn.give() }
        guard case .head(let head)? = try await iterator.next() else { return nil }
        inRequest = true
        continueAwaited = head.headerFields[.expect]?.lowercased() == "100-continue"
        exchange += 1
        return (head, BodySequence(parts: self, exchange: exchange))
    }

    /// The next piece of a request's body; nil at its end, also when asked again.
    ///
    /// - Throws: `CancellationError` when the request is over.
    fileprivate func nextBody(of exchange: Int) async throws -> ByteBuffer? {
        await turn.take()
        defer { turn.give() }
        guard exchange == self.exchange else { throw CancellationError() }
        return try await readBody()
    }

    private func readBody() async throws -> ByteBuffer? {
        guard inRequest else { return nil }
        if continueAwaited {
            continueAwaited = false
            try await outbound.write(.head(HTTPResponse(status: .continue)))
        }
        // Over, unless there is more.
        inRequest = false
        switch try await iterator.next() {
        case .body(let bytes):
            inRequest = true
            return bytes
        case .end:
            return nil
        case .head, nil:
            throw APIError.badRequest("the connection ended before the body was complete", code: "invalid-http")
        }
    }

    /// Ends the request for whoever still reads its body, and reads past what is left of it.
    func skipBody() async throws {
        await turn.take()
        defer { turn.give() }
        exchange += 1
        continueAwaited = false
        while try await readBody() != nil {}
    }

    /// Reads past so many bytes of what is left of the request's body, for whoever still reads it too. A client that waits
    /// to be told to send it is not.
    fileprivate func skipBody(of exchange: Int, upTo bytes: Int) async {
        await turn.take()
        defer { turn.give() }
        // Nobody may have waited for this: by then another request's body may be read.
        guard exchange == self.exchange else { return }
        self.exchange += 1
        guard inRequest, !continueAwaited else { return }
        var left = bytes
        while left > 0, let piece = try? await readBody() { left -= piece.readableBytes }
    }

    /// The next bytes after a takeover; nil when the client has closed its sending side.
    func nextRaw() async throws -> ByteBuffer? {
        await turn.take()
        defer { turn.give() }
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
        await turn.take()
        defer { turn.give() }
        exchange += 1
        while let part = try? await iterator.next() { _ = part }
        drained.fire()
    }
}

/// A request's body as it comes from the connection; nothing is read ahead of its reader but a few pieces.
struct BodySequence: AsyncSequence, AsyncIteratorProtocol, Sendable {
    let parts: InboundParts
    fileprivate let exchange: Int

    func makeAsyncIterator() -> BodySequence { self }
    func next() async throws -> ByteBuffer? { try await parts.nextBody(of: exchange) }

    /// Reads past so many bytes of what is left, for whoever still reads it too; see `InboundParts`.
    func skip(upTo bytes: Int) async { await parts.skipBody(of: exchange, upTo: bytes) }
}

/// Lets one reader in after another, in the order in which they came.
private final class ReadTurn: Sendable {
    private struct State {
        var taken = false
        var waiting: [CheckedContinuation<Void, Never>] = []
    }

    private let state = Mutex(State())

    func take() async {
        await withCheckedContinuation { continuation in
            let free = state.withLock { state in
                if state.taken {
                    state.waiting.append(continuation)
                    return false
                }
                state.taken = true
                return true
            }
            if free { continuation.resume() }
        }
    }

    func give() {
        let next = state.withLock { state -> CheckedContinuation<Void, Never>? in
            if !state.waiting.isEmpty { return state.waiting.removeFirst() }
            state.taken = false
            return nil
        }
        next?.resume()
    }
}
