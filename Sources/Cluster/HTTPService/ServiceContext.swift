import Hummingbird
import JSON
import Logging
import NIOCore
import Synchronization

/// What a request context is made from.
package struct ServiceContextSource: RequestContextSource {
    package let logger: Logger
    let connection: ClientConnection
    let takeover: TakeoverSlot
}

/// The context of every request: the caller's connection, and our JSON rules for decoding and encoding.
package struct ServiceContext: RequestContext {
    package typealias Source = ServiceContextSource

    package var coreContext: CoreRequestContextStorage
    package let connection: ClientConnection
    let takeover: TakeoverSlot

    package init(source: ServiceContextSource) {
        coreContext = CoreRequestContextStorage(source: source)
        connection = source.connection
        takeover = source.takeover
    }

    package var requestDecoder: StrictJSON { StrictJSON() }
    package var responseEncoder: StrictJSON { StrictJSON() }
    package var maxUploadSize: Int { connection.limits.jsonBody }

    /// The part of the path that matched `{name}` in the route, percent-decoded.
    ///
    /// - Throws: `APIError` 400 when it is not percent-encoded UTF-8.
    package func pathParameter(_ name: String) throws(APIError) -> String {
        guard let raw = parameters.get(name) else {
            throw .internalError("the route has no parameter {\(name)}")
        }
        guard let text = PercentEncoding.decode(raw), !text.isEmpty else {
            throw .badRequest("'\(raw)' in the path is not percent-encoded UTF-8")
        }
        return text
    }

    /// Does `work`, and cancels it when the client goes away or the server shuts down.
    ///
    /// For everything that may wait long: wait, watches, `logs -f`.
    ///
    /// - Throws: what `work` throws; `ClientGone`; `APIError` 503 at a shutdown.
    package func untilPeerCloses<Result: Sendable>(
        _ work: @escaping @Sendable () async throws -> Result
    ) async throws -> Result {
        guard let result = try await connection.serving(work) else { throw APIError.shuttingDown }
        return result
    }
}

/// Decodes request bodies and encodes responses by the rules of the unified API: strict, bounded, no Foundation.
package struct StrictJSON: RequestDecoder, ResponseEncoder {
    package func decode<T: Decodable>(
        _ type: T.Type, from request: Request, context: some RequestContext
    ) async throws -> T {
        let body = try await request.body.collect(upTo: context.maxUploadSize)
        return try JSONCoding.decode(type, from: Array(body.readableBytesView), strict: true)
    }

    package func encode(
        _ value: some Encodable, from request: Request, context: some RequestContext
    ) throws -> Response {
        try .json(value)
    }
}
