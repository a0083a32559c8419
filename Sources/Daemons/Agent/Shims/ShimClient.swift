import HTTPService
import JSON
import Kernel
import NIOCore
import NIOPosix
import ShimProtocol
import StreamFrames

/// Why a shim did not do something.
struct ShimError: Error, Sendable, Equatable, CustomStringConvertible {
    enum Kind: Sendable, Equatable {
        /// Nobody listens on its socket.
        case unreachable
        /// It answered with an error.
        case refused
        /// It did not answer in time.
        case timeout
        /// The connection broke, or what came makes no sense.
        case broken
    }

    let kind: Kind
    /// A sentence.
    let description: String
}

/// Speaks with the shim behind one socket: one connection for each request.
struct ShimClient: Sendable {
    let socket: String

    /// Longest wait for an answer: the shim gives its runtime two minutes.
    static let patience = Duration.seconds(150)

    /// One request, one answer.
    @discardableResult
    func call(_ request: ShimRequest, patience: Duration = ShimClient.patience) async throws(ShimError) -> ShimResponse
    {
        do {
            return try await session(request, patience: patience) { answer, _ in answer }
        } catch {
            throw Self.explain(error, socket)
        }
    }

    /// Sends a request and, once it is answered, lets `body` use the connection; it is closed afterwards.
    ///
    /// - Parameter patience: how long all of it may take; nil for as long as it takes.
    /// - Throws: `ShimError`; what `body` throws.
    func session<Result: Sendable>(
        _ request: ShimRequest, patience: Duration? = nil,
        _ body: (ShimResponse, ShimConnection) async throws -> Result
    ) async throws -> Result {
        let channel = try await connect()
        let overdue = Signal()
        // A timer of the channel's loop goes when it is cancelled; a task that sleeps keeps one until its time.
        let timer = patience.map { patience in
            channel.channel.eventLoop.scheduleTask(in: TimeAmount(patience)) {
                overdue.fire()
                channel.channel.close(promise: nil)
            }
        }
        defer { timer?.cancel() }
        do {
            return try await exchange(request, channel, body)
        } catch {
            guard overdue.isFired else { throw error }
            throw ShimError(
                kind: .timeout, description: "the shim on \(socket) did not answer \(request.operation) in time")
        }
    }

    private func exchange<Result: Sendable>(
        _ request: ShimRequest, _ channel: NIOAsyncChannel<ByteBuffer, ByteBuffer>,
        _ body: (ShimResponse, ShimConnection) async throws -> Result
    ) async throws -> Result {
        try await channel.executeThenClose { inbound, outbound in
            let connection = ShimConnection(
                frames: inbound.makeAsyncIterator(), outbound: outbound, channel: channel.channel, socket: socket)
            try await connection.send(.control(JSONCoding.encode(request)))
            switch try await connection.next() {
            case .control(let bytes):
                return try await body(try JSONCoding.decode(ShimResponse.self, from: bytes), connection)
            case .error(let text):
                throw ShimError(kind: .refused, description: text)
            case .none:
                throw ShimError(kind: .broken, description: "the shim on \(socket) closed the connection")
            case .some:
                throw ShimError(kind: .broken, description: "the shim on \(socket) does not answer as it should")
            }
        }
    }

    private func connect() async throws(ShimError) -> NIOAsyncChannel<ByteBuffer, ByteBuffer> {
        do {
            return try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .channelOption(.allowRemoteHalfClosure, value: true)
                .connect(unixDomainSocketPath: socket) { channel in
                    channel.eventLoop.makeCompletedFuture {
                        try NIOAsyncChannel(
                            wrappingChannelSynchronously: channel,
                            configuration: .init(isOutboundHalfClosureEnabled: true))
                    }
                }
        } catch {
            throw ShimError(kind: .unreachable, description: "no shim listens on \(socket): \(error)")
        }
    }

    static func explain(_ error: any Error, _ socket: String) -> ShimError {
        if let error = error as? ShimError { return error }
        return ShimError(kind: .broken, description: "the connection to the shim on \(socket) broke: \(error)")
    }
}

/// An answered connection to a shim. To be read by one task at a time; frames may be sent from another.
struct ShimConnection: Sendable {
    private let reader: FrameReader
    let outbound: NIOAsyncChannelOutboundWriter<ByteBuffer>
    private let channel: any Channel

    init(
        frames: NIOAsyncChannelInboundStream<ByteBuffer>.AsyncIterator,
        outbound: NIOAsyncChannelOutboundWriter<ByteBuffer>, channel: any Channel, socket: String
    ) {
        reader = FrameReader(frames, socket: socket)
        self.outbound = outbound
        self.channel = channel
    }

    /// The next frame; nil when the shim has closed.
    func next() async throws -> Frame? { try await reader.next() }

    /// Waits while the shim does not read.
    func send(_ frame: Frame) async throws { try await outbound.write(ByteBuffer(bytes: frame.encoded())) }
}

/// Puts frames together out of what the socket brings.
///
/// `@unchecked Sendable`: only one task at a time reads a connection (see `ShimConnection`).
private final class FrameReader: @unchecked Sendable {
    private var inbound: NIOAsyncChannelInboundStream<ByteBuffer>.AsyncIterator
    private var decoder = FrameDecoder()
    private let socket: String

    init(_ inbound: NIOAsyncChannelInboundStream<ByteBuffer>.AsyncIterator, socket: String) {
        self.inbound = inbound
        self.socket = socket
    }

    func next() async throws -> Frame? {
        while true {
            if let frame = try decoder.next() { return frame }
            guard let bytes = try await inbound.next() else {
                guard decoder.bufferedBytes == 0 else {
                    throw ShimError(kind: .broken, description: "the shim on \(socket) closed in the middle of a frame")
                }
                return nil
            }
            decoder.append(bytes.readableBytesView)
        }
    }
}
