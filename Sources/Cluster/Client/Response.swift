import JSON
import NIOCore
import NIOHTTP1

/// A server's answer. Its connection is closed when the body is read to the end, or when nobody holds it any more.
package struct Response: Sendable {
    /// The HTTP status.
    package let status: Int
    package let headers: HTTPHeaders
    package let body: ResponseBody
    private let connection: ClientChannel

    init(_ head: HTTPResponseHead, _ connection: ClientChannel) {
        status = Int(head.status.code)
        headers = head.headers
        body = ResponseBody(connection: connection)
        self.connection = connection
    }

    /// This answer, if its status is 2xx.
    ///
    /// - Throws: `ClientError` with what the server said otherwise.
    package func checked() async throws -> Response {
        if (200..<300).contains(status) { return self }
        let bytes = try await bytes(limit: 64 << 10)
        throw ClientError(status: status, body: bytes, role: connection.role)
    }

    /// The whole body.
    ///
    /// - Parameter limit: in bytes.
    /// - Throws: `ClientError` when it is larger.
    package func bytes(limit: Int = 16 << 20) async throws -> [UInt8] {
        var bytes: [UInt8] = []
        for try await piece in body {
            guard bytes.count + piece.readableBytes <= limit else {
                throw ClientError(
                    .badAnswer, "the answer of the \(connection.role.rawValue) is larger than \(limit) bytes")
            }
            bytes.append(contentsOf: piece.readableBytesView)
        }
        return bytes
    }
}

/// The pieces of an answer's body as they come; to be read once. What is not read is not taken from the connection.
package struct ResponseBody: AsyncSequence, Sendable {
    package typealias Element = ByteBuffer
    package typealias Failure = any Error
    let connection: ClientChannel

    package func makeAsyncIterator() -> Iterator {
        Iterator(connection: connection, inner: connection.inbound.makeAsyncIterator())
    }

    package struct Iterator: AsyncIteratorProtocol {
        let connection: ClientChannel
        let inner: ClientChannel.Producer.AsyncIterator

        package func next() async throws -> ByteBuffer? {
            try await withTaskCancellationHandler {
                do {
                    let piece = try await inner.next()
                    if piece == nil { try Task.checkCancellation() }
                    return piece
                } catch {
                    try Task.checkCancellation()
                    throw ClientError(exchanging: error, with: connection.address, role: connection.role)
                }
            } onCancel: { [connection] in
                connection.channel.close(promise: nil)
            }
        }
    }
}

/// The lines of a body, without their line breaks.
///
/// A last line `{"error":{"code":…,"message":…}}` is the server's error and is thrown.
package struct LineSequence: AsyncSequence, Sendable {
    package typealias Element = [UInt8]
    package typealias Failure = any Error
    /// The longest line in bytes.
    package static let limit = 4 << 20

    private let body: ResponseBody

    init(_ body: ResponseBody) {
        self.body = body
    }

    package func makeAsyncIterator() -> Iterator {
        Iterator(body: body.makeAsyncIterator())
    }

    /// The same lines, decoded.
    package func decoded<T: Decodable & Sendable>(
        as type: T.Type
    ) -> AsyncThrowingMapSequence<LineSequence, T> {
        map { line in
            do {
                return try JSONCoding.decode(type, from: line)
            } catch let error as JSONError {
                throw ClientError(.badAnswer, "a line of the answer is not understood: \(error)")
            }
        }
    }

    package struct Iterator: AsyncIteratorProtocol {
        private let body: ResponseBody.Iterator
        private var buffer = ByteBuffer()
        /// How much of the buffer is known to hold no line break.
        private var searched = 0

        init(body: ResponseBody.Iterator) {
            self.body = body
        }

        package mutating func next() async throws -> [UInt8]? {
            while true {
                if let line = takeLine() {
                    if line.isEmpty { continue }
                    try check(line)
                    return line
                }
                guard buffer.readableBytes <= LineSequence.limit else {
                    throw ClientError(.badAnswer, "a line of the answer is longer than \(LineSequence.limit) bytes")
                }
                guard let piece = try await body.next() else {
                    if buffer.readableBytes == 0 { return nil }
                    throw ClientError(.disconnected, "the answer ended in the middle of a line")
                }
                if buffer.readableBytes == 0 { buffer.clear() } else { buffer.discardReadBytes() }
                buffer.writeImmutableBuffer(piece)
            }
        }

        private mutating func takeLine() -> [UInt8]? {
            let view = buffer.readableBytesView
            guard let end = view.dropFirst(searched).firstIndex(of: UInt8(ascii: "\n")) else {
                searched = view.count
                return nil
            }
            searched = 0
            let length = end - view.startIndex
            let line = buffer.readBytes(length: length)
            buffer.moveReaderIndex(forwardBy: 1)
            return line
        }

        private func check(_ line: [UInt8]) throws(ClientError) {
            guard line.starts(with: #"{"error":{"#.utf8), let value = try? JSONValue.parse(line),
                value.objectValue?.count == 1, let error = value["error"], let message = error["message"]?.stringValue
            else { return }
            throw ClientError(.refused, message, code: error["code"]?.stringValue)
        }
    }
}
