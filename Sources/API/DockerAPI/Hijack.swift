import HTTPService
import HTTPTypes
import Hummingbird
import NIOCore
import StreamFrames

/// A client's side of attach and exec: its input, and output in the form that it asked for.
struct DockerStream: Sendable {
    enum Input: Sendable {
        /// The client cannot send any.
        case none
        case raw(RawInbound)
        case body(RequestBody)
        case webSocket(WebSocketReader)
    }

    /// One of the numbers in the header of a frame.
    enum Output: UInt8, Sendable {
        case stdout = 1
        case stderr = 2
    }

    /// 8 bytes before each piece say where it came from: the number, three zeros, and the length, big endian.
    let isMultiplexed: Bool
    let input: Input
    let send: @Sendable (ByteBuffer) async throws -> Void
    /// Returns when the client has gone; nil where that cancels whatever is done for it.
    var closed: (@Sendable () async -> Void)?

    /// Sends output, waiting while the client does not read.
    func write(_ bytes: [UInt8], _ output: Output) async throws {
        guard !bytes.isEmpty else { return }
        var buffer = ByteBuffer()
        if isMultiplexed {
            buffer.reserveCapacity(bytes.count + 8)
            buffer.writeMultipleIntegers(UInt32(output.rawValue) << 24, UInt32(bytes.count))
        }
        buffer.writeBytes(bytes)
        try await send(buffer)
    }

    /// Reads the client's input until it ends or `take` answers false.
    ///
    /// - Returns: whether it ended.
    func read(_ take: (ByteBuffer) async throws -> Bool) async throws -> Bool {
        switch input {
        case .none: break
        case .raw(let inbound):
            while let bytes = try await inbound.next() { guard try await take(bytes) else { return false } }
        case .body(let body):
            for try await bytes in body { guard try await take(bytes) else { return false } }
        case .webSocket(let reader):
            while let bytes = try await reader.next() { guard try await take(bytes) else { return false } }
        }
        return true
    }
}

extension DockerCall {
    static let rawStream = "application/vnd.docker.raw-stream"
    static let multiplexedStream = "application/vnd.docker.multiplexed-stream"

    /// The media type of a stream; older clients know one only.
    func streamType(multiplexed: Bool) -> String {
        multiplexed && version >= .v1_42 ? Self.multiplexedStream : Self.rawStream
    }

    /// Gives the connection to `session`: after 101 to a client that asks for `Upgrade: tcp`; otherwise after 200, with
    /// output as the answer's body and input as the request's.
    func hijack(
        multiplexed: Bool, _ session: @escaping @Sendable (DockerStream) async throws -> Void
    ) throws -> Response {
        if asksFor("tcp") {
            return try context.takeOver(request, as: "tcp", contentType: streamType(multiplexed: multiplexed)) { raw in
                try await session(
                    DockerStream(
                        isMultiplexed: multiplexed, input: .raw(raw.inbound), send: { try await raw.write($0) },
                        closed: { await raw.untilClosed() }))
                raw.finish()
            }
        }
        let length = request.headers[.contentLength] ?? "0"
        let hasBody = length != "0" || request.headers[.transferEncoding] != nil
        let input = hasBody ? DockerStream.Input.body(request.body) : .none
        return .bytes(context, contentType: Self.rawStream) { body in
            try await session(
                DockerStream(isMultiplexed: multiplexed, input: input, send: { try await body.write($0) }))
        }
    }

    /// Whether the client wants the connection to become this.
    func asksFor(_ upgrade: String) -> Bool {
        func names(_ field: HTTPField.Name, _ word: String) -> Bool {
            request.headers[values: field].contains { value in
                value.split(separator: ",").contains { part in
                    part.filter { $0 != " " && $0 != "\t" }.lowercased() == word
                }
            }
        }
        return names(.connection, "upgrade") && names(.upgrade, upgrade)
    }
}
