import NIOCore
import StreamFrames

/// Frames over raw bytes in both directions: over a `RawConnection`, or over what a server's route has taken over.
///
/// Iterate it once, in one task; `send` may be called from several, and every frame goes out whole.
package struct FrameStream<Inbound: AsyncSequence & Sendable>: AsyncSequence, Sendable
where Inbound.Element == ByteBuffer {
    package typealias Element = Frame
    package typealias Failure = any Error

    private let inbound: Inbound
    private let write: @Sendable (ByteBuffer) async throws -> Void
    private let end: @Sendable () -> Void

    /// - Parameters:
    ///   - inbound: the bytes that come.
    ///   - write: sends bytes, waiting while the peer does not read.
    ///   - finish: closes our sending side.
    package init(
        reading inbound: Inbound, write: @escaping @Sendable (ByteBuffer) async throws -> Void,
        finish: @escaping @Sendable () -> Void
    ) {
        self.inbound = inbound
        self.write = write
        end = finish
    }

    /// Sends one frame, waiting while the peer does not read.
    package func send(_ frame: Frame) async throws {
        try await write(ByteBuffer(bytes: frame.encoded()))
    }

    /// Closes our sending side.
    package func finish() {
        end()
    }

    package func makeAsyncIterator() -> Iterator {
        Iterator(inner: inbound.makeAsyncIterator())
    }

    package struct Iterator: AsyncIteratorProtocol {
        private var inner: Inbound.AsyncIterator
        private var decoder = FrameDecoder()

        init(inner: Inbound.AsyncIterator) {
            self.inner = inner
        }

        /// The next frame; nil when the peer has closed its sending side between frames.
        ///
        /// - Throws: `FrameError`; `ClientError` when the stream ends inside a frame.
        package mutating func next() async throws -> Frame? {
            while true {
                if let frame = try decoder.next() { return frame }
                guard let bytes = try await inner.next() else {
                    if decoder.bufferedBytes == 0 { return nil }
                    throw ClientError(.disconnected, "the stream was cut in the middle of a frame")
                }
                decoder.append(bytes.readableBytesView)
            }
        }
    }
}

extension RawConnection {
    /// The connection as a stream of frames.
    package var frames: FrameStream<ResponseBody> {
        FrameStream(reading: inbound, write: { try await write($0) }, finish: { finish() })
    }
}
