import NIOCore
import NIOHTTP1
import NIOHTTPTypes
import NIOHTTPTypesHTTP1

/// Fired into every connection when the server begins to shut down.
struct DrainEvent: Sendable {}

/// Stands between the decoder and the translation to HTTP types and watches over the exchanges: keeps bodies off
/// answers to HEAD, closes where the protocol or a shutdown asks for it, and takes the HTTP handlers out of the
/// pipeline when the end of a 101 response passes.
final class ExchangeHandler: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias InboundOut = HTTPServerRequestPart
    typealias OutboundIn = HTTPServerResponsePart
    typealias OutboundOut = HTTPServerResponsePart

    /// Names of the handlers that leave at a takeover.
    enum Name {
        static let encoder = "http-encoder"
        static let decoder = "http-decoder"
        static let types = "http-types"
    }

    /// What is to be remembered of a request until its answer is written.
    private struct Exchange {
        /// HEAD: the answer's body is not sent.
        var headOnly: Bool
        /// HTTP/1.0: no chunks, and the connection ends.
        var oldVersion: Bool
        /// The client wants the connection to end.
        var close: Bool
        /// The decoder stops after this request, whatever the answer.
        var upgrade: Bool
    }

    private enum Switching { case no, atResponseEnd, atRequestEnd }

    private let guardian: ConnectionGuard
    /// Requests read and not answered to the end, oldest first; more than one with pipelining.
    private var exchanges: [Exchange] = []
    private var requestEnded = true
    private var switching = Switching.no
    private var closeAfterResponse = false
    private var draining = false

    init(guardian: ConnectionGuard) {
        self.guardian = guardian
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head):
            let exchange = Exchange(
                headOnly: head.method == .HEAD, oldVersion: head.version != .http1_1,
                close: Self.option("close", in: head.headers), upgrade: Self.stopsDecoder(head))
            exchanges.append(exchange)
            requestEnded = false
            guardian.requestBegan(upgrade: exchange.upgrade)
            context.fireChannelRead(data)
        case .body:
            context.fireChannelRead(data)
        case .end:
            requestEnded = true
            context.fireChannelRead(data)
            if switching == .atRequestEnd { switchToRaw(context) }
        }
    }

    /// Whether NIO's decoder reads nothing after this request: it does so by these rules before the answer is known.
    private static func stopsDecoder(_ head: HTTPRequestHead) -> Bool {
        if head.method == .CONNECT { return true }
        return head.headers.contains(name: "upgrade") && option("upgrade", in: head.headers)
    }

    private static func option(_ word: String, in headers: HTTPHeaders) -> Bool {
        headers[canonicalForm: "connection"].contains { $0.lowercased() == word }
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        switch unwrapOutboundIn(data) {
        case .head(let head): writeHead(context, head, promise)
        case .body where exchanges.first?.headOnly == true: promise?.succeed()
        case .body: context.write(data, promise: promise)
        case .end: writeEnd(context, data, promise)
        }
    }

    private func writeHead(
        _ context: ChannelHandlerContext, _ original: HTTPResponseHead, _ promise: EventLoopPromise<Void>?
    ) {
        var head = original
        let exchange = exchanges.first
        if head.status.code == 101, exchange?.upgrade == true {
            switching = .atResponseEnd
            head.headers.remove(name: "content-length")
        } else if head.status.code >= 200 {
            // A client that is still sending would wait for room that nobody makes: it has to stop, and so the
            // connection cannot go on. The same holds after an upgrade request and without any request.
            let last = exchange.map { $0.upgrade || $0.oldVersion || $0.close } ?? true
            if last || draining || !requestEnded || Self.option("close", in: head.headers) {
                closeAfterResponse = true
                head.headers.replaceOrAdd(name: "connection", value: "close")
            }
            if exchange?.oldVersion == true { head.version = .http1_0 }
        }
        context.write(wrapOutboundOut(.head(head)), promise: promise)
    }

    private func writeEnd(_ context: ChannelHandlerContext, _ data: NIOAny, _ promise: EventLoopPromise<Void>?) {
        if switching == .atResponseEnd {
            context.writeAndFlush(data, promise: promise)
            if requestEnded { switchToRaw(context) } else { switching = .atRequestEnd }
            return
        }
        if exchanges.first?.headOnly == true {
            // The encoder would write the end of a chunked body here.
            context.flush()
            promise?.succeed()
        } else {
            context.writeAndFlush(data, promise: promise)
        }
        if !exchanges.isEmpty { exchanges.removeFirst() }
        if closeAfterResponse {
            guardian.closeSoon()
        } else if exchanges.isEmpty {
            if draining { guardian.closeSoon() } else { guardian.becameIdle() }
        }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        guard event is DrainEvent else { return context.fireUserInboundEventTriggered(event) }
        draining = true
        if exchanges.isEmpty { guardian.closeSoon() }
    }

    private func switchToRaw(_ context: ChannelHandlerContext) {
        switching = .no
        let pipeline = context.pipeline.syncOperations
        do {
            let decoder = try pipeline.handler(type: ByteToMessageHandler<HTTPRequestDecoder>.self)
            try pipeline.addHandler(RawHandler(), position: .after(decoder))
        } catch {
            context.fireErrorCaught(error)
            context.close(promise: nil)
            return
        }
        pipeline.removeHandler(name: Name.types, promise: nil)
        pipeline.removeHandler(name: Name.encoder, promise: nil)
        // Last: removing the decoder hands on the bytes that it held back, and after them the end of input may pass.
        let removed = context.eventLoop.makePromise(of: Void.self)
        let guardian = guardian
        removed.futureResult.assumeIsolated().whenComplete { _ in guardian.becameRaw() }
        pipeline.removeHandler(name: Name.decoder, promise: removed)
        pipeline.removeHandler(self, promise: nil)
    }
}

/// Carries raw bytes as body parts in both directions once a connection is taken over, so that back-pressure and
/// half-close stay those of the connection's asynchronous channel.
private final class RawHandler: ChannelDuplexHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = HTTPRequestPart
    typealias OutboundIn = HTTPResponsePart
    typealias OutboundOut = ByteBuffer

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        context.fireChannelRead(wrapInboundOut(.body(unwrapInboundIn(data))))
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        if case .body(let bytes) = unwrapOutboundIn(data) {
            context.write(wrapOutboundOut(bytes), promise: promise)
        } else {
            promise?.succeed()
        }
    }
}
