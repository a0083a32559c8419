import JSON
import NIOCore
import NIOHTTP1

/// Speaks HTTP/1.1 with a master or an agent: one connection for each request.
///
/// All errors are `ClientError`s with a sentence for the user, or `CancellationError`; cancelling a task closes its
/// connection.
package struct APIClient: Sendable {
    package let address: ServerAddress
    /// What is expected at the address.
    package let role: ServerRole
    /// For addresses on TCP.
    package let tls: ClientTLS?

    package init(_ address: ServerAddress, role: ServerRole = .master, tls: ClientTLS? = nil) {
        self.address = address
        self.role = role
        self.tls = tls
    }

    /// The query of a request, in order; keys and values are encoded here.
    package typealias Query = KeyValuePairs<String, String>

    /// What a request carries.
    package struct Body: Sendable {
        let contentType: String?
        let length: Int?
        let content: RequestContent

        /// Nothing.
        package static let none = Body(contentType: nil, length: nil, content: .none)

        /// A value as JSON.
        package static func json(_ value: some Encodable) throws -> Body {
            bytes(try JSONCoding.encode(value), contentType: "application/json")
        }

        /// Bytes at hand.
        package static func bytes(_ bytes: [UInt8], contentType: String = "application/octet-stream") -> Body {
            Body(contentType: contentType, length: bytes.count, content: .bytes(ByteBuffer(bytes: bytes)))
        }

        /// Bytes as they come, sent in chunks; the sequence is asked only when the server takes more. If it throws, the
        /// connection is cut and the request ends with its error.
        package static func stream<Pieces: AsyncSequence & Sendable>(
            _ pieces: Pieces, contentType: String = "application/octet-stream"
        ) -> Body where Pieces.Element == ByteBuffer {
            // One task reads it, so the box is never used by two at once.
            let source = PieceSource(pieces.makeAsyncIterator())
            return Body(contentType: contentType, length: nil, content: .stream { try await source.next() })
        }
    }

    /// Sends a request and returns its answer, of whatever status, when its head is there.
    ///
    /// - Parameter path: percent-encoded; see `PercentEncoding.encode` for names in it.
    package func request(
        _ method: HTTPMethod, _ path: String, query: Query = [:], body: Body = .none, headers: HTTPHeaders = [:]
    ) async throws -> Response {
        var fields = headers
        if body.length == nil, case .stream = body.content {
            fields.replaceOrAdd(name: "Transfer-Encoding", value: "chunked")
        }
        let (connection, head) = try await send(method, path, query, body, fields + [("Connection", "close")])
        return Response(head, connection)
    }

    /// Sends a request and decodes the JSON of its answer.
    ///
    /// - Throws: `ClientError` with the server's sentence, status and code when the status is not 2xx.
    package func json<T: Decodable>(
        _ method: HTTPMethod, _ path: String, query: Query = [:], body: Body = .none, as type: T.Type = T.self
    ) async throws -> T {
        let response = try await request(method, path, query: query, body: body).checked()
        let bytes = try await response.bytes()
        do {
            return try JSONCoding.decode(type, from: bytes)
        } catch let error as JSONError {
            throw ClientError(
                .badAnswer,
                "the answer of the \(role.rawValue) to \(method.rawValue) \(path) is not understood: \(error)",
                status: response.status)
        }
    }

    /// Sends a request whose answer has no content of interest.
    package func send(
        _ method: HTTPMethod, _ path: String, query: Query = [:], body: Body = .none
    ) async throws {
        _ = try await request(method, path, query: query, body: body).checked().bytes()
    }

    /// Asks for a stream of JSON lines.
    package func lines(
        _ method: HTTPMethod, _ path: String, query: Query = [:], body: Body = .none
    ) async throws -> LineSequence {
        LineSequence(try await request(method, path, query: query, body: body).checked().body)
    }

    /// Asks the server to switch the connection to another protocol.
    ///
    /// - Throws: `ClientError`, also when the answer is not 101.
    package func upgrade(
        _ method: HTTPMethod, _ path: String, query: Query = [:], body: Body = .none,
        as upgradeProtocol: String = RawConnection.framesProtocol, headers: HTTPHeaders = [:]
    ) async throws -> RawConnection {
        let (connection, head) = try await send(
            method, path, query, body, headers + [("Connection", "Upgrade"), ("Upgrade", upgradeProtocol)])
        guard head.status == .switchingProtocols else {
            let answer = try await Response(head, connection).checked()
            throw ClientError(
                .badAnswer, "the \(role.rawValue) does not switch to \(upgradeProtocol) on \(path)",
                status: answer.status)
        }
        return RawConnection(connection)
    }

    /// The same with POST and no body.
    package func upgrade(_ path: String, query: Query = [:]) async throws -> RawConnection {
        try await upgrade(.POST, path, query: query)
    }

    private func send(
        _ method: HTTPMethod, _ path: String, _ query: Query, _ body: Body, _ headers: HTTPHeaders
    ) async throws -> (ClientChannel, HTTPResponseHead) {
        var fields = headers
        fields.replaceOrAdd(name: "Host", value: address.authority)
        if case .tls = address, let bearer = tls?.bearer {
            fields.replaceOrAdd(name: "Authorization", value: "Bearer \(bearer)")
        }
        if let length = body.length { fields.replaceOrAdd(name: "Content-Length", value: "\(length)") }
        if let type = body.contentType, !fields.contains(name: "Content-Type") {
            fields.add(name: "Content-Type", value: type)
        }
        let uri = path + PercentEncoding.query(query)
        guard uri.hasPrefix("/"), uri.utf8.allSatisfy({ $0 > 32 && $0 < 127 }) else {
            throw ClientError(.badAddress, "'\(uri)' is no path of a request: encode what is in it")
        }
        let connection = try await ClientChannel.connect(to: address, role: role, tls: tls)
        let head = HTTPRequestHead(version: .http1_1, method: method, uri: uri, headers: fields)
        return (connection, try await connection.exchange(head, body.content))
    }
}

extension HTTPHeaders {
    fileprivate static func + (fields: HTTPHeaders, more: [(String, String)]) -> HTTPHeaders {
        var result = fields
        for (name, value) in more { result.replaceOrAdd(name: name, value: value) }
        return result
    }
}

/// The iterator of a body's sequence.
///
/// `@unchecked Sendable`: only the task that sends the body calls it, one call after another.
private final class PieceSource<Iterator: AsyncIteratorProtocol>: @unchecked Sendable
where Iterator.Element == ByteBuffer {
    private var iterator: Iterator

    init(_ iterator: Iterator) {
        self.iterator = iterator
    }

    func next() async throws -> ByteBuffer? { try await iterator.next() }
}
