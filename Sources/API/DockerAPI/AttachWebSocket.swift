import Crypto
import HTTPService
import HTTPTypes
import Hummingbird
import JSON
import NIOCore
import Synchronization

extension DockerCall {
    /// Answers a WebSocket's handshake (RFC 6455, section 4.2) and gives the connection to `session`: output as binary
    /// messages, input from messages of either kind.
    ///
    /// - Parameter key: as the client sent it.
    func takeWebSocket(
        _ key: String, _ session: @escaping @Sendable (DockerStream) async throws -> Void
    ) throws -> Response {
        let opcode: WebSocketFrame.Opcode = version >= .v1_28 ? .binary : .text
        var response = try context.takeOver(request, as: "websocket") { raw in
            let send: @Sendable (WebSocketFrame) async throws -> Void = { try await raw.write($0.encoded()) }
            let reader = WebSocketReader(raw.inbound, answer: send)
            try await session(
                DockerStream(
                    isMultiplexed: false, input: .webSocket(reader),
                    send: { try await send(WebSocketFrame(opcode, Array(buffer: $0))) },
                    closed: { await raw.untilClosed() }))
            try await reader.close(.normal)
            raw.finish()
        }
        let digest = Insecure.SHA1.hash(data: Array("\(key)258EAFA5-E914-47DA-95CA-C5AB0DC85B11".utf8))
        response.headers[.secWebSocketAccept] = Base64.encode(Array(digest))
        return response
    }
}

/// One frame of RFC 6455, section 5.2.
struct WebSocketFrame: Sendable, Equatable {
    enum Opcode: UInt8, Sendable {
        case continuation = 0
        case text = 1
        case binary = 2
        case close = 8
        case ping = 9
        case pong = 10

        var isControl: Bool { rawValue >= 8 }
    }

    /// Why a connection ends, see section 7.4.1.
    enum Status: UInt16, Sendable {
        case normal = 1000
        case protocolError = 1002
        case tooLarge = 1009
    }

    var opcode: Opcode
    var payload: [UInt8]

    init(_ opcode: Opcode, _ payload: [UInt8]) {
        self.opcode = opcode
        self.payload = payload
    }

    /// As a server sends it: whole and without a mask.
    func encoded() -> [UInt8] {
        var bytes: [UInt8] = [0x80 | opcode.rawValue]
        switch payload.count {
        case 0...125: bytes.append(UInt8(payload.count))
        case 126...65535: bytes += [126] + Self.bigEndian(UInt64(payload.count), 2)
        default: bytes += [127] + Self.bigEndian(UInt64(payload.count), 8)
        }
        return bytes + payload
    }

    static func bigEndian(_ number: UInt64, _ count: Int) -> [UInt8] {
        (0..<count).reversed().map { UInt8(truncatingIfNeeded: number >> (8 * UInt64($0))) }
    }
}

/// What is wrong with a client's frames.
struct WebSocketError: Error, Equatable {
    let status: WebSocketFrame.Status
}

/// Cuts a client's bytes into frames; holds no more than one.
struct WebSocketDecoder: Sendable {
    /// The longest payload.
    static let limit = 1 << 20

    private var buffer = ByteBuffer()

    mutating func append(_ bytes: ByteBuffer) {
        if buffer.readableBytes == 0 { buffer = bytes } else { buffer.writeImmutableBuffer(bytes) }
    }

    /// The next frame with its mask taken off; nil until more bytes are there.
    ///
    /// - Throws: `WebSocketError` for reserved bits and opcodes, a missing mask, too long or fragmented control frames.
    mutating func next() throws(WebSocketError) -> WebSocketFrame? {
        let start = buffer.readerIndex
        guard let first = buffer.getInteger(at: start, as: UInt8.self),
            let second = buffer.getInteger(at: start + 1, as: UInt8.self)
        else { return nil }
        guard first & 0x70 == 0, let opcode = WebSocketFrame.Opcode(rawValue: first & 0x0F), second & 0x80 != 0 else {
            throw WebSocketError(status: .protocolError)
        }
        var length = UInt64(second & 0x7F)
        var header = 2
        if opcode.isControl, length > 125 || first & 0x80 == 0 { throw WebSocketError(status: .protocolError) }
        if length == 126 {
            guard let long = buffer.getInteger(at: start + 2, as: UInt16.self) else { return nil }
            (length, header) = (UInt64(long), 4)
        } else if length == 127 {
            guard let long = buffer.getInteger(at: start + 2, as: UInt64.self) else { return nil }
            (length, header) = (long, 10)
        }
        guard length <= UInt64(Self.limit) else { throw WebSocketError(status: .tooLarge) }
        let count = Int(length)
        guard buffer.readableBytes >= header + 4 + count,
            let mask = buffer.getBytes(at: start + header, length: 4),
            var payload = buffer.getBytes(at: start + header + 4, length: count)
        else { return nil }
        for index in payload.indices { payload[index] ^= mask[index & 3] }
        buffer.moveReaderIndex(forwardBy: header + 4 + count)
        if buffer.readableBytes == 0 { buffer.clear() } else { buffer.discardReadBytes() }
        return WebSocketFrame(opcode, payload)
    }
}

/// Reads the messages of a WebSocket's client as one stream of bytes, and answers what is not for the container.
///
/// `@unchecked Sendable`: one task at a time calls `next`; the rest is in the mutex.
final class WebSocketReader: @unchecked Sendable {
    private let inbound: RawInbound
    private let answer: @Sendable (WebSocketFrame) async throws -> Void
    private var decoder = WebSocketDecoder()
    private let closed = Mutex(false)

    init(_ inbound: RawInbound, answer: @escaping @Sendable (WebSocketFrame) async throws -> Void) {
        self.inbound = inbound
        self.answer = answer
    }

    /// The key of a request that opens a WebSocket.
    ///
    /// - Throws: `DockerError` 400 when it is none.
    static func key(_ call: DockerCall) throws -> String {
        guard call.asksFor("websocket"), let key = call.request.headers[.secWebSocketKey],
            Base64.decode(key)?.count == 16, call.request.headers[.secWebSocketVersion] == "13"
        else { throw DockerError.badRequest("this path is for WebSockets of version 13 only") }
        return key
    }

    /// The bytes of the next frame with data; nil when the client has closed.
    func next() async throws -> ByteBuffer? {
        do {
            while true {
                guard let frame = try decoder.next() else {
                    guard let bytes = try await inbound.next() else { return nil }
                    decoder.append(bytes)
                    continue
                }
                switch frame.opcode {
                case .continuation, .text, .binary: return ByteBuffer(bytes: frame.payload)
                case .ping: try await answer(WebSocketFrame(.pong, frame.payload))
                case .pong: break
                case .close:
                    try await close(.normal)
                    return nil
                }
            }
        } catch let error as WebSocketError {
            try await close(error.status)
            throw error
        }
    }

    /// Says the reason why nothing follows, once.
    func close(_ status: WebSocketFrame.Status) async throws {
        let isFirst = closed.withLock { closed in
            defer { closed = true }
            return !closed
        }
        guard isFirst else { return }
        try await answer(WebSocketFrame(.close, WebSocketFrame.bigEndian(UInt64(status.rawValue), 2)))
    }
}
