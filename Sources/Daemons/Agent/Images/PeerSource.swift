import Client
import Images
import NIOCore
import NIOHTTP1
import Wire

/// Another node's agent as a source of content: `GET /node/v1/content/blobs/{digest}`.
struct PeerSource: ContentSource {
    let client: APIClient
    let node: String

    var name: String { "node \(node)" }

    func open(_ digest: Images.Digest, from offset: UInt64) async throws -> ContentStream {
        let response: Response
        do {
            response = try await client.request(
                .GET, "\(StreamPort.prefix)/content/blobs/\(digest)",
                headers: offset > 0 ? ["Range": "bytes=\(offset)-"] : [:]
            ).checked()
        } catch let error as ClientError {
            guard let status = error.status else { throw TransferFailure("\(name): \(error.message)") }
            if status == 404 { throw ImageError(.notFound, "\(name): \(error.message)") }
            if status == 401 || status == 403 { throw ImageError(.unauthorized, "\(name): \(error.message)") }
            throw TransferFailure("\(name): \(error.message)")
        }
        let length = response.headers.first(name: "Content-Length").flatMap { UInt64($0) }
        return ContentStream(
            offset: response.status == 206 ? offset : 0, length: length, bytes: Pieces(response: response))
    }

    /// The body, which keeps its connection.
    private struct Pieces: AsyncSequence, Sendable {
        typealias Element = ByteBuffer
        typealias Failure = any Error
        let response: Response

        func makeAsyncIterator() -> Iterator { Iterator(response: response, inner: response.body.makeAsyncIterator()) }

        struct Iterator: AsyncIteratorProtocol {
            let response: Response
            let inner: ResponseBody.Iterator

            func next() async throws -> ByteBuffer? { try await inner.next() }
        }
    }
}
