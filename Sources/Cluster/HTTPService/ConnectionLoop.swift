import HTTPTypes
import Hummingbird
import Logging
import NIOCore
import NIOHTTP1
import NIOHTTPTypes
import NIOHTTPTypesHTTP1
import Synchronization

/// Serves one connection: requests one after another, or a session that a route has started.
struct ConnectionLoop: Sendable {
    typealias Responder = @Sendable (Request, ServiceContext) async throws -> Response

    let connection: ClientConnection
    let channel: NIOAsyncChannel<HTTPRequestPart, HTTPResponsePart>

    /// Builds the pipeline; to be called on the channel's event loop.
    init(connection: ClientConnection) throws {
        self.connection = connection
        let channel = connection.channel
        var limits = NIOHTTPDecoderLimitConfiguration()
        limits.maxHeaderFieldSize = connection.limits.head
        limits.maxHeaderListSize = connection.limits.head
        limits.maxHeaderFieldCount = connection.limits.headerFields
        let decoder = HTTPRequestDecoder(leftOverBytesStrategy: .forwardBytes, limitConfiguration: limits)
        let guardian = ConnectionGuard(connection: connection)
        let pipeline = channel.pipeline.syncOperations
        try pipeline.addHandler(guardian)
        try pipeline.addHandler(HTTPResponseEncoder(), name: ExchangeHandler.Name.encoder)
        try pipeline.addHandler(ByteToMessageHandler(decoder), name: ExchangeHandler.Name.decoder)
        try pipeline.addHandler(ExchangeHandler(guardian: guardian))
        try pipeline.addHandler(HTTP1ToHTTPServerCodec(secure: false), name: ExchangeHandler.Name.types)
        self.channel = try NIOAsyncChannel(
            wrappingChannelSynchronously: channel, configuration: .init(isOutboundHalfClosureEnabled: false))
    }

    /// Serves until the connection is closed. Cancelling the task closes it.
    func run(respond: @escaping Responder, logger: Logger) async {
        do {
            try await withTaskCancellationHandler {
                try await channel.executeThenClose { inbound, outbound in
                    let parts = InboundParts(inbound.makeAsyncIterator(), outbound: outbound)
                    do {
                        try await serve(parts, outbound, respond, logger)
                    } catch let error as HTTPParserError {
                        let answer = Answer(APIError(error).response, toHead: false, takeover: TakeoverSlot())
                        try await begin(answer, outbound)
                    }
                    connection.channel.triggerUserOutboundEvent(FinishEvent(closing: true), promise: nil)
                    await parts.drain()
                    await connection.closed.wait()
                }
            } onCancel: {
                connection.abort()
            }
        } catch {
            logger.debug("connection ended early", metadata: ["peer": "\(connection.peer)", "error": "\(error)"])
        }
    }

    /// The steps are functions of their own, never inlined: the frame of this one lasts as long as the connection, and its
    /// places would be theirs too.
    private func serve(
        _ parts: InboundParts, _ outbound: NIOAsyncChannelOutboundWriter<HTTPResponsePart>,
        _ respond: @escaping Responder, _ logger: Logger
    ) async throws {
        while let answer = try await nextAnswer(parts, respond, logger) {
            try await begin(answer, outbound)
            if let body = answer.takeBody() { try await write(body) }
            guard try await goesOn(after: answer, parts, logger) else { return }
        }
    }

    /// What is left of an answer while it is given.
    private final class Answer {
        /// nil once it is begun.
        private var response: Response?
        /// What is still to be written, piece by piece.
        private var body: ResponseBody?
        let status: HTTPResponse.Status
        let closes: Bool
        /// The request's method was HEAD.
        let isToHead: Bool
        let takeover: TakeoverSlot

        init(_ response: Response, toHead isToHead: Bool, takeover: TakeoverSlot) {
            self.response = response
            status = response.status
            closes = response.headers[.connection]?.lowercased() == "close"
            self.isToHead = isToHead
            self.takeover = takeover
        }

        func takeResponse() -> Response? {
            defer { response = nil }
            return response
        }

        func leave(_ body: ResponseBody) { self.body = body }

        func takeBody() -> ResponseBody? {
            defer { body = nil }
            return body
        }
    }

    /// After the answer: carries out the session that it has begun, or says whether another request is read.
    @inline(never)
    private func goesOn(after answer: Answer, _ parts: InboundParts, _ logger: Logger) async throws -> Bool {
        try await parts.skipBody()
        if answer.status.code == 101 {
            guard let session = answer.takeover.take() else { return false }
            do {
                try await run(session, parts)
            } catch {
                logger.debug("session ended", metadata: ["peer": "\(connection.peer)", "error": "\(error)"])
            }
            return false
        }
        // What the client has sent behind it is not carried out, when it is told that nothing more will be.
        if answer.closes { return false }
        return try await !endsAfterAnswer()
    }

    /// Reads the next request and finds its answer. Nothing of the request stays while a body is written, which may take
    /// days.
    @inline(never)
    private func nextAnswer(
        _ parts: InboundParts, _ respond: @escaping Responder, _ logger: Logger
    ) async throws -> Answer? {
        guard let (head, body) = try await parts.nextRequest() else { return nil }
        let start = ContinuousClock.now
        let slot = TakeoverSlot()
        let context = ServiceContext(
            source: ServiceContextSource(logger: logger, connection: connection, takeover: slot))
        let request = Request(head: head, body: RequestBody(asyncSequence: body))
        let response = await find(request, context, respond)
        if response.status.code >= 400, Self.mayHaveBody(head) { await skipRest(body) }
        logger.debug(
            "request",
            metadata: [
                "method": "\(head.method.rawValue)", "path": "\(Self.place(head))",
                "status": "\(response.status.code)",
                "seconds": "\(ContinuousClock.now - start)", "peer": "\(connection.peer)",
            ])
        return Answer(response, toHead: head.method == .head, takeover: slot)
    }

    private static func mayHaveBody(_ head: HTTPRequest) -> Bool {
        head.method == .put || head.method == .post || head.method == .patch
    }

    /// Reads what is left of a refused request's body before the refusal is told, where it is little and comes soon: a
    /// client that is told while it writes complains of the connection, as docker does, rather than of what it was told.
    private func skipRest(_ body: BodySequence) async {
        let over = Signal()
        Task {
            await body.skip(upTo: 256 << 10)
            over.fire()
        }
        let timer = connection.channel.eventLoop.scheduleTask(in: .milliseconds(100)) { over.fire() }
        await over.wait()
        timer.cancel()
    }

    /// Whether the pipeline has decided that the answer just written was the last.
    private func endsAfterAnswer() async throws -> Bool {
        // After the write, which goes the same way.
        try await connection.channel.eventLoop.submit { connection.isEnding.load(ordering: .relaxed) }.get()
    }

    /// What a log may say of a request: the query is left out, as users' values are in it.
    private static func place(_ head: HTTPRequest) -> Substring { head.path?.prefix { $0 != "?" } ?? "" }

    /// The answer, found by a task of its own that is gone on return: a task keeps the memory of its deepest call for as
    /// long as anybody refers to it, and a body may be written for days.
    private func find(_ request: Request, _ context: ServiceContext, _ respond: @escaping Responder) async -> Response {
        let finding = Task { await answer(request, context, respond) }
        return await withTaskCancellationHandler {
            await finding.value
        } onCancel: {
            finding.cancel()
        }
    }

    /// The route's response, or the error it ended with.
    private func answer(_ request: Request, _ context: ServiceContext, _ respond: Responder) async -> Response {
        do {
            try Self.checkCoding(request)
            if case .network = connection.peer { try OriginCheck.check(request) }
            return try await respond(request, context)
        } catch {
            return APIError(error).response
        }
    }

    /// A body in another coding than chunks would be taken for something else than the client means.
    private static func checkCoding(_ request: Request) throws(APIError) {
        let codings = request.headers[values: .transferEncoding]
        guard codings.isEmpty || codings.count == 1 && codings[0].lowercased() == "chunked" else {
            throw APIError(
                status: 501, code: "unsupported-transfer-coding",
                message: "a body may come in chunks ('Transfer-Encoding: chunked'), and in no other transfer coding",
                headers: [.connection: "close"])
        }
    }

    /// Writes the head, and the body too where it is small; what is not is left to be written.
    @inline(never)
    private func begin(
        _ answer: Answer, _ outbound: NIOAsyncChannelOutboundWriter<HTTPResponsePart>
    ) async throws {
        guard var response = answer.takeResponse() else { return }
        if response.status.code >= 200 { response.headers[.date] = HTTPDate.now() }
        let body = response.body
        if answer.isToHead {
            // A body of unknown length is not even begun: its closure may run for ever.
            return try await write([.head(response.head), .end(nil)], outbound)
        }
        if let length = body.contentLength, length <= 64 << 10 {
            let collector = BodyCollector()
            try await body.write(collector)
            try await write([.head(response.head)] + collector.parts, outbound)
        } else {
            // The head leaves at once: clients wait for it where the body begins later.
            try await outbound.write(.head(response.head))
            answer.leave(body)
        }
    }

    /// Writes a whole answer. Where it is the last, the pipeline ends the sending side within the write, which then reports
    /// that; the client is still listened to, so that it reads the answer before it learns that nobody takes what it sends.
    private func write(
        _ parts: [HTTPResponsePart], _ outbound: NIOAsyncChannelOutboundWriter<HTTPResponsePart>
    ) async throws {
        do {
            try await outbound.write(contentsOf: parts)
        } catch let error as NIOAsyncWriterError {
            guard connection.isEnding.load(ordering: .relaxed) else { throw error }
        }
    }

    @inline(never)
    private func write(_ body: ResponseBody) async throws {
        try await body.write(StreamBodyWriter(connection: connection))
    }

    /// Runs a session; it is cancelled once its connection is closed and read to the end, or closed for the linger
    /// time without being read.
    @inline(never)
    private func run(_ session: @escaping RawSession, _ parts: InboundParts) async throws {
        let stream = RawStream(inbound: RawInbound(parts: parts), connection: connection)
        let over = Signal()
        let call = connection.closed.whenFired { [connection] in
            let timer = connection.channel.eventLoop.scheduleTask(in: TimeAmount(connection.limits.lingerTimeout)) {
                over.fire()
            }
            parts.drained.whenFired {
                timer.cancel()
                over.fire()
            }
        }
        defer { connection.closed.forget(call) }
        try await Signal.cancelling(at: over, or: over) { try await session(stream) }
    }
}

/// Gathers a small body, so that head and body leave in one piece.
private final class BodyCollector: ResponseBodyWriter {
    private(set) var parts: [HTTPResponsePart] = []

    func write(_ buffer: ByteBuffer) { parts.append(.body(buffer)) }
    func finish(_ trailers: HTTPFields?) { parts.append(.end(trailers)) }
}

/// Writes the body of a response whose length is not known before: every write leaves at once.
struct StreamBodyWriter: ResponseBodyWriter, Sendable {
    let connection: ClientConnection

    func write(_ buffer: ByteBuffer) async throws {
        try await connection.send(.body(buffer))
    }

    consuming func finish(_ trailers: HTTPFields?) async throws {
        try await connection.send(.end(trailers))
    }
}
