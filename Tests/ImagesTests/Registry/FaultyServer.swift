import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization

/// An HTTP server on loopback that answers as it is told to, rightly or not.
final class FaultyServer: Sendable {
    struct Request: Sendable {
        var method: HTTPMethod
        /// With its query.
        var target: String
        var headers: HTTPHeaders
        var body: [UInt8]
        /// How many with the same method and target came before.
        var earlier: Int

        var path: String { String(target.prefix { $0 != "?" }) }
    }

    struct Answer: Sendable {
        var status: Int = 200
        var headers: HTTPHeaders = [:]
        var body: [UInt8] = []
        /// The length that is announced, where it is not the body's; -1 announces none.
        var announced: Int?
        /// After so many bytes of the body the connection is closed.
        var cutAfter: Int?
        /// After so many bytes of the body nothing follows any more.
        var stallAfter: Int?
        /// Bytes that are sent at a time, a few milliseconds apart.
        var piece: Int?
    }

    let port: Int
    private let channel: any Channel
    private let log: RequestLog

    init(_ respond: @escaping @Sendable (Request) -> Answer) throws {
        let log = RequestLog()
        self.log = log
        channel = try ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.backlog, value: 64)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let pipeline = channel.pipeline.syncOperations
                    try pipeline.configureHTTPServerPipeline()
                    try pipeline.addHandler(AnswerHandler(log, respond))
                }
            }
            .bind(host: "127.0.0.1", port: 0).wait()
        port = channel.localAddress?.port ?? 0
    }

    deinit { channel.close(promise: nil) }

    var host: String { "127.0.0.1:\(port)" }
    /// All requests so far.
    var requests: [Request] { log.all }
}

private final class RequestLog: Sendable {
    private let state = Mutex<[FaultyServer.Request]>([])
    var all: [FaultyServer.Request] { state.withLock { $0 } }

    func add(_ head: HTTPRequestHead, _ body: [UInt8]) -> FaultyServer.Request {
        state.withLock { log in
            let earlier = log.count { $0.method == head.method && $0.target == head.uri }
            log.append(
                .init(method: head.method, target: head.uri, headers: head.headers, body: body, earlier: earlier))
            return log[log.count - 1]
        }
    }
}

private final class AnswerHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private let log: RequestLog
    private let respond: @Sendable (FaultyServer.Request) -> FaultyServer.Answer
    private var head: HTTPRequestHead?
    private var body: [UInt8] = []

    init(_ log: RequestLog, _ respond: @escaping @Sendable (FaultyServer.Request) -> FaultyServer.Answer) {
        self.log = log
        self.respond = respond
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head):
            self.head = head
            body = []
        case .body(let bytes): body += bytes.readableBytesView
        case .end:
            guard let head else { return }
            let request = log.add(head, body)
            send(respond(request), to: request, context)
        }
    }

    private func send(_ answer: FaultyServer.Answer, to request: FaultyServer.Request, _ context: ChannelHandlerContext)
    {
        var headers = answer.headers
        let length = answer.announced ?? answer.body.count
        if length >= 0 { headers.replaceOrAdd(name: "content-length", value: "\(length)") }
        let head = HTTPResponseHead(version: .http1_1, status: .init(statusCode: answer.status), headers: headers)
        context.writeAndFlush(wrapOutboundOut(.head(head)), promise: nil)
        let sent = request.method == .HEAD ? [] : answer.body.prefix(answer.cutAfter ?? answer.stallAfter ?? .max)
        sendPieces(sent[...], answer, context)
    }

    private func sendPieces(_ bytes: ArraySlice<UInt8>, _ answer: FaultyServer.Answer, _ context: ChannelHandlerContext)
    {
        let piece = bytes.prefix(answer.piece ?? 64 << 10)
        guard !piece.isEmpty else {
            if answer.stallAfter != nil { return }
            guard answer.cutAfter == nil else { return context.close(promise: nil) }
            return context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
        }
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        let rest = bytes[piece.endIndex...]
        context.writeAndFlush(wrapOutboundOut(.body(.byteBuffer(ByteBuffer(bytes: piece))))).whenSuccess {
            let (handler, context) = bound.value
            guard answer.piece != nil else { return handler.sendPieces(rest, answer, context) }
            context.eventLoop.scheduleTask(in: .milliseconds(3)) {
                let (handler, context) = bound.value
                handler.sendPieces(rest, answer, context)
            }
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
