import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization

/// A connection to a server for one exchange. Nobody else uses it; it is closed when the last reference goes.
final class ClientChannel: Sendable {
    typealias Producer = NIOThrowingAsyncSequenceProducer<
        ByteBuffer, any Error, NIOAsyncSequenceProducerBackPressureStrategies.HighLowWatermark, ReadDelegate
    >

    let channel: any Channel
    let address: ServerAddress
    let role: ServerRole
    private let refusal: TLSRefusal
    /// The body's pieces, or raw bytes after a 101.
    let inbound: Producer
    private let head: EventLoopFuture<HTTPResponseHead>
    private let sender = Mutex<Task<Void, Never>?>(nil)

    private init(
        _ channel: any Channel, _ address: ServerAddress, _ role: ServerRole, _ refusal: TLSRefusal,
        _ inbound: Producer, _ head: EventLoopFuture<HTTPResponseHead>
    ) {
        self.channel = channel
        self.address = address
        self.role = role
        self.refusal = refusal
        self.inbound = inbound
        self.head = head
    }

    deinit {
        sender.withLock { $0 }?.cancel()
        channel.close(promise: nil)
    }

    /// Connects.
    ///
    /// - Throws: `ClientError` with what to do next; `CancellationError`.
    static func connect(
        to address: ServerAddress, role: ServerRole, tls: ClientTLS?
    ) async throws -> ClientChannel {
        let made = Mutex<ClientChannel?>(nil)
        let refusal = TLSRefusal()
        if case .tls = address, tls == nil {
            throw ClientError(
                .permission,
                "\(address) wants a credential: give a token in MARTLET_TOKEN; `martlet token create` on the master's "
                    + "machine makes one")
        }
        let bootstrap = ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .connectTimeout(.seconds(5))
            .channelOption(.allowRemoteHalfClosure, value: true)
            .channelOption(.autoRead, value: false)
            // Grows where much comes; every idle connection keeps the last one.
            .channelOption(
                .recvAllocator, value: AdaptiveRecvByteBufferAllocator(minimum: 256, initial: 512, maximum: 65_536)
            )
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    if case .tls = address, let tls {
                        try channel.pipeline.syncOperations.addHandler(tls.makeHandler(refusal: refusal))
                    }
                    let client = try prepare(channel, address, role, refusal)
                    made.withLock { $0 = client }
                }
            }
        do {
            switch address {
            case .unix(let path): try await connect(bootstrap, unix: path)
            case .tls(let host, let port): _ = try await bootstrap.connect(host: host, port: port).get()
            }
        } catch {
            throw ClientError(connecting: error, to: address, role: role)
        }
        try Task.checkCancellation()
        guard let client = made.withLock({ $0 }) else { throw CancellationError() }
        return client
    }

    /// Connects to a unix socket, and waits while the queue there is full, as a blocking connect(2) does.
    private static func connect(_ bootstrap: ClientBootstrap, unix path: String) async throws {
        let end = ContinuousClock.now + .seconds(5)
        while true {
            do {
                _ = try await bootstrap.connect(unixDomainSocketPath: path).get()
                return
            } catch let error as IOError where error.errnoCode == EAGAIN && ContinuousClock.now < end {
                try await Task.sleep(for: .milliseconds(5))
            }
        }
    }

    private static func prepare(
        _ channel: any Channel, _ address: ServerAddress, _ role: ServerRole, _ refusal: TLSRefusal
    ) throws -> ClientChannel {
        let sequence = Producer.makeSequence(
            backPressureStrategy: .init(lowWatermark: 2, highWatermark: 10), finishOnDeinit: false,
            delegate: ReadDelegate(channel: channel))
        let promise = channel.eventLoop.makePromise(of: HTTPResponseHead.self)
        let inflow = Inflow(source: sequence.source)
        let pipeline = channel.pipeline.syncOperations
        let encoder = HTTPRequestEncoder()
        let decoder = ByteToMessageHandler(HTTPResponseDecoder(leftOverBytesStrategy: .forwardBytes))
        let holder = EndHolder()
        try pipeline.addHandlers([
            holder, encoder, decoder,
            ResponseHandler(inflow: inflow, head: promise, encoder: encoder, decoder: decoder, holder: holder),
        ])
        return ClientChannel(channel, address, role, refusal, sequence.sequence, promise.futureResult)
    }

    /// Sends a request and returns the head of its answer, which may come before all of the request is sent.
    ///
    /// - Throws: `ClientError`; `CancellationError`; what a body's sequence throws.
    func exchange(_ request: HTTPRequestHead, _ body: RequestContent) async throws -> HTTPResponseHead {
        try await withTaskCancellationHandler {
            do {
                send(request, body)
                return try await head.get()
            } catch {
                try Task.checkCancellation()
                if let error = error as? BodyFailure { throw error.cause }
                if let reason = refusal.reason {
                    throw ClientError(.untrusted, "\(address) is not trusted: \(reason)")
                }
                throw ClientError(exchanging: error, with: address, role: role)
            }
        } onCancel: {
            channel.close(promise: nil)
        }
    }

    /// Returns when the connection is closed in both directions, or the calling task is cancelled.
    func untilClosed() async {
        // A future cannot be waited for cancellably; a stream can.
        let (closed, signal) = AsyncStream<Never>.makeStream()
        channel.closeFuture.whenComplete { _ in signal.finish() }
        for await _ in closed {}
    }

    private func send(_ request: HTTPRequestHead, _ body: RequestContent) {
        switch body {
        case .none:
            channel.write(HTTPClientRequestPart.head(request), promise: nil)
            channel.writeAndFlush(HTTPClientRequestPart.end(nil), promise: nil)
        case .bytes(let bytes):
            channel.write(HTTPClientRequestPart.head(request), promise: nil)
            channel.write(HTTPClientRequestPart.body(.byteBuffer(bytes)), promise: nil)
            channel.writeAndFlush(HTTPClientRequestPart.end(nil), promise: nil)
        case .stream(let next):
            channel.writeAndFlush(HTTPClientRequestPart.head(request), promise: nil)
            let task = Task { [channel] in await Self.stream(next, to: channel) }
            sender.withLock { $0 = task }
        }
    }

    /// Sends pieces as the server takes them. A server that answers and closes early is no error here: the answer says
    /// what happened.
    private static func stream(_ next: @Sendable () async throws -> ByteBuffer?, to channel: any Channel) async {
        while true {
            do {
                guard let piece = try await next() else { break }
                guard (try? await channel.writeAndFlush(HTTPClientRequestPart.body(.byteBuffer(piece))).get()) != nil
                else { return }
            } catch {
                channel.pipeline.fireErrorCaught(BodyFailure(cause: error))
                return
            }
        }
        channel.writeAndFlush(HTTPClientRequestPart.end(nil), promise: nil)
    }
}

/// The error of a request body's own sequence.
private struct BodyFailure: Error {
    let cause: any Error
}

/// A request's body, ready to be sent.
enum RequestContent: Sendable {
    case none
    case bytes(ByteBuffer)
    case stream(@Sendable () async throws -> ByteBuffer?)
}

/// Triggered outwards when the reader has taken what there was.
private struct ReaderHasRoom: Sendable {}

/// Lets the socket be read when the reader of the sequence has taken what there was.
struct ReadDelegate: NIOAsyncSequenceProducerDelegate {
    let channel: any Channel

    func produceMore() { channel.triggerUserOutboundEvent(ReaderHasRoom(), promise: nil) }
    func didTerminate() {}
}

/// The connection's end of the sequence; used on its event loop.
private final class Inflow {
    private let source: ClientChannel.Producer.Source
    /// Whether the reader has room.
    private var wanted = true

    init(source: ClientChannel.Producer.Source) {
        self.source = source
    }

    func yield(_ bytes: ByteBuffer) {
        wanted = source.yield(bytes) == .produceMore
    }

    /// Reads on from the socket if there is room; otherwise `triggered` does it later.
    func readDone(_ context: ChannelHandlerContext) {
        if wanted { context.read() }
    }

    /// Takes the event that there is room; passes on any other.
    func triggered(_ context: ChannelHandlerContext, _ event: Any, _ promise: EventLoopPromise<Void>?) {
        guard event is ReaderHasRoom else { return context.triggerUserOutboundEvent(event, promise: promise) }
        wanted = true
        context.read()
        promise?.succeed()
    }

    func finish() { source.finish() }
    func fail(_ error: any Error) { source.finish(error) }
}

/// First handler of the pipeline: holds the end of input back between a 101 and the decoder's removal.
///
/// NIO's decoder forgets bytes that it holds back when it sees the end of input; they may come in one piece with the
/// head, and the end right behind them.
private final class EndHolder: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer

    private var context: ChannelHandlerContext?
    private var isHolding = false
    private var inputClosed = false
    private var inactive = false

    func handlerAdded(context: ChannelHandlerContext) { self.context = context }
    func handlerRemoved(context: ChannelHandlerContext) { self.context = nil }

    func hold() { isHolding = true }

    /// Lets the end pass, should it have come meanwhile.
    func release() {
        isHolding = false
        if inputClosed { context?.fireUserInboundEventTriggered(ChannelEvent.inputClosed) }
        if inactive { context?.fireChannelInactive() }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if isHolding, case .inputClosed? = event as? ChannelEvent {
            inputClosed = true
        } else {
            context.fireUserInboundEventTriggered(event)
        }
    }

    func channelInactive(context: ChannelHandlerContext) {
        if isHolding { inactive = true } else { context.fireChannelInactive() }
    }
}

/// Hands on the answer: its head by a promise, its body by the sequence; after a 101 it leaves the pipeline to raw
/// bytes.
private final class ResponseHandler: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPClientResponsePart
    typealias OutboundIn = HTTPClientRequestPart
    typealias OutboundOut = HTTPClientRequestPart

    private let inflow: Inflow
    private let head: EventLoopPromise<HTTPResponseHead>
    private let encoder: HTTPRequestEncoder
    private let decoder: ByteToMessageHandler<HTTPResponseDecoder>
    private let holder: EndHolder
    /// The head of a 101, until the message's end.
    private var upgrade: HTTPResponseHead?
    private var switched = false
    private var ended = false

    init(
        inflow: Inflow, head: EventLoopPromise<HTTPResponseHead>, encoder: HTTPRequestEncoder,
        decoder: ByteToMessageHandler<HTTPResponseDecoder>, holder: EndHolder
    ) {
        self.inflow = inflow
        self.head = head
        self.encoder = encoder
        self.decoder = decoder
        self.holder = holder
    }

    func channelActive(context: ChannelHandlerContext) {
        context.read()
        context.fireChannelActive()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let response):
            if response.status == .switchingProtocols { upgrade = response } else { head.succeed(response) }
        case .body(let bytes):
            inflow.yield(bytes)
        case .end:
            if let upgrade { return switchToRaw(context, upgrade) }
            ended = true
            inflow.finish()
            // Nothing is asked on this connection again. What the request still sends, nobody wants.
            context.close(promise: nil)
        }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        inflow.readDone(context)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        end(error)
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        end(ChannelError.eof)
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        if !switched { end(ChannelError.eof) }
    }

    func triggerUserOutboundEvent(context: ChannelHandlerContext, event: Any, promise: EventLoopPromise<Void>?) {
        inflow.triggered(context, event, promise)
    }

    private func end(_ error: any Error) {
        head.fail(error)
        if !ended { inflow.fail(error) }
    }

    private func switchToRaw(_ context: ChannelHandlerContext, _ response: HTTPResponseHead) {
        switched = true
        holder.hold()
        let pipeline = context.pipeline.syncOperations
        do {
            try pipeline.addHandler(RawReader(inflow: inflow), position: .after(self))
        } catch {
            return errorCaught(context: context, error: error)
        }
        pipeline.removeHandler(encoder, promise: nil)
        // The decoder hands on what follows the head in the same segment when it goes, and is in the way of writing raw
        // bytes until then.
        let (head, holder) = (head, holder)
        let removed = context.eventLoop.makePromise(of: Void.self)
        removed.futureResult.assumeIsolated().whenComplete { _ in
            head.succeed(response)
            holder.release()
        }
        pipeline.removeHandler(context: context, promise: nil)
        pipeline.removeHandler(decoder, promise: removed)
    }
}

/// Hands on raw bytes.
private final class RawReader: ChannelDuplexHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let inflow: Inflow

    init(inflow: Inflow) {
        self.inflow = inflow
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        inflow.yield(unwrapInboundIn(data))
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        inflow.readDone(context)
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .inputClosed? = event as? ChannelEvent { inflow.finish() }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        inflow.fail(error)
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        inflow.finish()
    }

    func triggerUserOutboundEvent(context: ChannelHandlerContext, event: Any, promise: EventLoopPromise<Void>?) {
        inflow.triggered(context, event, promise)
    }
}
