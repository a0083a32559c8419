import NIOCore
import Synchronization

/// Triggered outwards to end the sending side once everything written before has left.
///
/// `ChannelEvent` has no such thing, and `close(mode: .output)` throws away what is not written yet when the peer has
/// closed its own sending side already.
struct FinishEvent: Sendable {
    /// Whether the whole connection is to end, at the latest after the linger time.
    let closing: Bool
}

/// First handler of a connection's pipeline; sees bytes. It bounds time and size of request heads, tells when the
/// client has gone, and holds back the end of input while an upgrade is being decided.
///
/// The last is needed because NIO's decoder forgets bytes that it holds back when it sees the end of input.
final class ConnectionGuard: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer
    typealias OutboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private enum Phase {
        /// No byte of a request has come.
        case idle
        /// A request's head is coming; so many bytes so far.
        case head(Int)
        /// At least one request is complete up to its body and not answered to the end.
        case exchange
        /// Taken over: bytes pass, nothing is timed.
        case raw
        /// Refused: nothing more is read.
        case refused
    }

    private let connection: ClientConnection
    private var phase = Phase.idle
    private var timer: Scheduled<Void>?
    private var context: ChannelHandlerContext?
    private var holding = false
    private var inputClosedHeld = false
    private var closing = false
    private var finished = false
    private var flushed = false

    init(connection: ClientConnection) {
        self.connection = connection
    }

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        timer?.cancel()
        self.context = nil
    }

    func channelActive(context: ChannelHandlerContext) {
        schedule(connection.limits.headTimeout)
        context.fireChannelActive()
    }

    func channelInactive(context: ChannelHandlerContext) {
        timer?.cancel()
        connection.peerClosed.fire()
        connection.closed.fire()
        context.fireChannelInactive()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch phase {
        case .refused:
            return
        case .exchange, .raw:
            context.fireChannelRead(data)
        case .idle:
            phase = .head(0)
            schedule(connection.limits.headTimeout)
            readHead(context, data, before: 0)
        case .head(let count):
            readHead(context, data, before: count)
        }
    }

    private func readHead(_ context: ChannelHandlerContext, _ data: NIOAny, before: Int) {
        let count = before + unwrapInboundIn(data).readableBytes
        phase = .head(count)
        context.fireChannelRead(data)
        // Unless the head was complete with these bytes, `requestBegan` has not been called.
        if case .head = phase, count > connection.limits.head {
            refuse(
                APIError(
                    status: 431, code: "headers-too-large",
                    message: "the request line and header fields are larger than \(connection.limits.head) bytes"))
        }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .inputClosed? = event as? ChannelEvent {
            connection.peerClosed.fire()
            if holding {
                inputClosedHeld = true
                return
            }
        }
        context.fireUserInboundEventTriggered(event)
    }

    /// A request's head has been decoded; `upgrade` when the decoder stops after this request.
    func requestBegan(upgrade: Bool) {
        timer?.cancel()
        phase = .exchange
        if upgrade { holding = true }
    }

    /// All requests so far are answered.
    func becameIdle() {
        guard case .exchange = phase, !closing else { return }
        phase = .idle
        schedule(connection.limits.idleTimeout)
    }

    /// The connection carries raw bytes from here on. What was held back goes on to the next handler.
    func becameRaw() {
        timer?.cancel()
        phase = .raw
        // The bytes that the decoder had held back came outside of any read.
        context?.fireChannelReadComplete()
        release()
    }

    /// Lets the end of input pass, should it have come meanwhile.
    private func release() {
        holding = false
        guard inputClosedHeld, let context else { return }
        inputClosedHeld = false
        context.fireUserInboundEventTriggered(ChannelEvent.inputClosed)
    }

    func triggerUserOutboundEvent(context: ChannelHandlerContext, event: Any, promise: EventLoopPromise<Void>?) {
        guard let event = event as? FinishEvent else {
            return context.triggerUserOutboundEvent(event, promise: promise)
        }
        promise?.succeed()
        if event.closing { closeSoon() } else { finishOutput() }
    }

    /// Ends the sending side when all is written, and the connection when the peer closes its own, at the latest after
    /// the linger time.
    func closeSoon() {
        guard !closing else { return }
        closing = true
        connection.isEnding.store(true, ordering: .relaxed)
        release()
        finishOutput()
        watchFlush(remaining: .max)
    }

    private func finishOutput() {
        guard let context, !finished else { return }
        finished = true
        context.writeAndFlush(wrapOutboundOut(ByteBuffer())).assumeIsolated().whenComplete { [self] result in
            flushed = true
            guard let context = self.context, case .success = result else { return }
            context.close(mode: .output, promise: nil)
            if closing { schedule(connection.limits.lingerTimeout) }
        }
    }

    /// Cuts a connection that is to end but whose peer does not take what is left for it.
    private func watchFlush(remaining: Int) {
        guard let context, !flushed else { return }
        timer?.cancel()
        timer = context.eventLoop.assumeIsolated().scheduleTask(in: TimeAmount(connection.limits.slowReaderTimeout)) {
            let now = try? context.channel.syncOptions?.getOption(.bufferedWritableBytes)
            guard let now, now < remaining else { return context.close(promise: nil) }
            self.watchFlush(remaining: now)
        }
    }

    /// Answers in place of the handlers that did not get a whole request, and closes.
    private func refuse(_ error: APIError) {
        guard let context else { return }
        phase = .refused
        context.writeAndFlush(wrapOutboundOut(RawResponse.bytes(error)), promise: nil)
        closeSoon()
    }

    private func schedule(_ delay: Duration) {
        timer?.cancel()
        guard let context else { return }
        timer = context.eventLoop.assumeIsolated().scheduleTask(in: TimeAmount(delay)) { self.timeUp() }
    }

    private func timeUp() {
        guard let context else { return }
        if case .head = phase, !closing {
            let seconds = connection.limits.headTimeout.components.seconds
            refuse(.requestTimeout("the request's header was not complete within \(seconds) s"))
        } else {
            context.close(promise: nil)
        }
    }
}

/// A response written without the HTTP handlers, where they are not there or not in a state to do it.
enum RawResponse {
    static func bytes(_ error: APIError) -> ByteBuffer {
        let body = error.body
        let head = """
            HTTP/1.1 \(error.status) \(reason(error.status))\r\nContent-Type: application/json\r\n\
            Content-Length: \(body.count)\r\nConnection: close\r\n\r\n
            """
        var buffer = ByteBuffer(string: head)
        buffer.writeBytes(body)
        return buffer
    }

    private static func reason(_ status: Int) -> String {
        switch status {
        case 408: "Request Timeout"
        case 431: "Request Header Fields Too Large"
        default: "Service Unavailable"
        }
    }
}
