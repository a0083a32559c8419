import Client
import HTTPService
import NIOCore
import StreamFrames

/// A client's connection as frames.
struct ClientStream: ByteStream {
    /// The name in `Upgrade`.
    static let upgradeProtocol = RawConnection.framesProtocol

    /// Fit for a header or a query value.
    static func escaped(_ text: String) -> String { Client.PercentEncoding.encode(text) }

    private let reader: Reader
    private let frames: FrameStream<RawInbound>

    init(_ raw: RawStream) {
        frames = FrameStream(
            reading: raw.inbound, write: { try await raw.write($0) }, finish: { raw.finish() })
        reader = Reader(frames.makeAsyncIterator())
    }

    /// `@unchecked Sendable`: one task at a time receives, see `ByteStream`.
    private final class Reader: @unchecked Sendable {
        private var iterator: FrameStream<RawInbound>.Iterator

        init(_ iterator: FrameStream<RawInbound>.Iterator) { self.iterator = iterator }

        func next() async throws -> Frame? { try await iterator.next() }
    }

    func receive() async throws -> Frame? { try await reader.next() }
    func send(_ frame: Frame) async throws { try await frames.send(frame) }
}
