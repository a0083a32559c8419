import HTTPTypes
import Hummingbird
import NIOCore

/// Writes the body of an answer as it comes. May be used by several tasks: every call's bytes stay together.
package struct BodyStream: Sendable {
    let body: StreamBodyWriter

    /// Sends bytes, waiting while the client does not read.
    ///
    /// - Throws: an I/O error when the connection is gone; `CancellationError`, with the connection cut.
    package func write(_ bytes: ByteBuffer) async throws { try await body.write(bytes) }
}

extension Response {
    /// Bytes as `produce` writes them; the head leaves at once.
    ///
    /// `produce` is cancelled when the client goes away and when a shutdown begins; then, and when it returns, the body
    /// ends properly. An error that it throws cuts the connection, so that the client does not take a part for the
    /// whole.
    package static func bytes(
        _ context: ServiceContext, contentType: String, headers: HTTPFields = [:],
        produce: @escaping @Sendable (BodyStream) async throws -> Void
    ) -> Response {
        let connection = context.connection
        var fields = headers
        fields[.contentType] = contentType
        return Response(
            status: .ok, headers: fields,
            body: ResponseBody { writer in
                guard let body = writer as? StreamBodyWriter else {
                    throw APIError.internalError("a byte stream must not be wrapped by a middleware")
                }
                try await connection.serving { try await produce(BodyStream(body: body)) }
                try await writer.finish(nil)
            })
    }
}
