import Logging
import NIOCore
import NIOPosix
import Synchronization

/// Takes connections from all listeners of a server, up to the limit, and knows those that are open.
final class Acceptor: Sendable {
    /// The connections to serve; ends when `stop` or `drain` is called.
    let accepted: AsyncStream<ConnectionLoop>
    /// Fires when connections are to be cut.
    let cut = Signal()

    private let limits: ServiceLimits
    private let logger: Logger
    private let arrivals: AsyncStream<ConnectionLoop>.Continuation
    private let draining = Signal()
    private let strangers = Strangers()
    /// When the last warning was logged.
    private let warned = Mutex<ContinuousClock.Instant?>(nil)
    private let open = Mutex<[ObjectIdentifier: any Channel]>([:])

    /// How many may wait to be accepted: a burst of clients is no error. The kernel takes less where
    /// /proc/sys/net/core/somaxconn says so.
    static let backlog: Int32 = 4096

    init(limits: ServiceLimits, logger: Logger) {
        self.limits = limits
        self.logger = logger
        (accepted, arrivals) = AsyncStream.makeStream()
    }

    /// A bootstrap whose connections come here.
    ///
    /// - Parameter tls: nil on a unix socket.
    func bootstrap(tls: TLSIdentity?) -> ServerBootstrap {
        ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.backlog, value: Self.backlog)
            .serverChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    // Without it the lack of descriptors would make the listener spin.
                    try channel.pipeline.syncOperations.addHandler(
                        AcceptBackoffHandler(shouldForwardIOErrorCaught: false))
                }
            }
            .childChannelOption(.allowRemoteHalfClosure, value: true)
            // Grows for those that send much; every idle connection keeps the last one.
            .childChannelOption(
                .recvAllocator, value: AdaptiveRecvByteBufferAllocator(minimum: 256, initial: 512, maximum: 65_536)
            )
            .childChannelInitializer { channel in
                self.accept(channel, tls)
            }
    }

    private func accept(_ channel: any Channel, _ tls: TLSIdentity?) -> EventLoopFuture<Void> {
        let id = ObjectIdentifier(channel)
        let count = open.withLock { open in
            open[id] = channel
            return open.count
        }
        channel.closeFuture.whenComplete { _ in _ = self.open.withLock { $0.removeValue(forKey: id) } }
        guard count <= limits.connections else {
            warn("too many connections: some were refused", limits.connections)
            // Each of those refused waits for its peer a moment; under a flood that is too many too.
            guard count <= limits.connections + 512, tls == nil else { return channel.close() }
            return channel.eventLoop.makeCompletedFuture {
                try channel.pipeline.syncOperations.addHandler(RefusalHandler(limits: self.limits))
            }
        }
        return peer(of: channel, local: tls == nil).flatMap { peer in
            if case .network(let address) = peer, !self.admits(address, channel) { return channel.close() }
            return channel.eventLoop.makeCompletedFuture {
                if let tls { try channel.pipeline.syncOperations.addHandler(tls.makeHandler()) }
                let connection = ClientConnection(
                    channel: channel, peer: peer, limits: self.limits, draining: self.draining,
                    strangers: self.strangers)
                let loop = try ConnectionLoop(connection: connection)
                if case .terminated = self.arrivals.yield(loop) { throw ChannelError.ioOnClosedChannel }
            }
        }
    }

    private func admits(_ address: String, _ channel: any Channel) -> Bool {
        let count = strangers.enter(address, channel)
        channel.closeFuture.whenComplete { _ in self.strangers.leave(address, channel) }
        guard count > limits.strangers else { return true }
        warn("too many connections of \(address) without a credential: some were closed", limits.strangers)
        return false
    }

    /// Whoever floods a listener must not flood its log.
    private func warn(_ text: String, _ limit: Int) {
        let isDue = warned.withLock { last in
            if let last, ContinuousClock.now - last < .seconds(10) { return false }
            last = .now
            return true
        }
        if isDue { logger.warning("\(text)", metadata: ["limit": "\(limit)"]) }
    }

    private func peer(of channel: any Channel, local: Bool) -> EventLoopFuture<Peer> {
        guard local else {
            let name = channel.remoteAddress?.ipAddress ?? "unknown"
            return channel.setOption(.socketOption(.so_keepalive), value: 1).map { .network(name) }
        }
        guard let options = channel as? any SocketOptionProvider else {
            return channel.eventLoop.makeFailedFuture(ChannelError.operationUnsupported)
        }
        // SAFETY: SO_PEERCRED fills a struct ucred, three 32-bit numbers in this order; see unix(7).
        let credentials: EventLoopFuture<PeerCredentials> = options.unsafeGetSocketOption(
            level: .socket, name: NIOBSDSocket.Option(rawValue: PeerCredentials.option))
        return credentials.map { .local(pid: $0.pid, uid: $0.uid, gid: $0.gid) }
    }

    /// Takes no more connections.
    func stop() {
        arrivals.finish()
    }

    /// Takes no more connections, and tells those open to end when they can.
    func drain() {
        arrivals.finish()
        draining.fire()
        for channel in open.withLock({ Array($0.values) }) {
            channel.pipeline.fireUserInboundEventTriggered(DrainEvent())
        }
    }

    /// Closes what is still open.
    func abortAll() {
        for channel in open.withLock({ Array($0.values) }) { channel.close(promise: nil) }
    }
}

/// `struct ucred` of unix(7), which Swift's Glibc module does not show.
private struct PeerCredentials: Sendable {
    static let option: Int32 = 17

    var pid: Int32
    var uid: UInt32
    var gid: UInt32
}

/// Answers 503 to a connection that is one too many, whatever it asks.
private final class RefusalHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let limits: ServiceLimits

    init(limits: ServiceLimits) {
        self.limits = limits
    }

    func channelActive(context: ChannelHandlerContext) {
        let error = APIError.unavailable(
            "\(limits.connections) clients are connected, which is the limit: close some or try again later",
            code: "too-many-connections")
        context.writeAndFlush(wrapOutboundOut(RawResponse.bytes(error)), promise: nil)
        context.close(mode: .output, promise: nil)
        // The peer may still be sending its request: closing now could destroy the answer on its way.
        let channel = context.channel
        context.eventLoop.scheduleTask(in: TimeAmount(limits.lingerTimeout)) { channel.close(promise: nil) }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {}
}
