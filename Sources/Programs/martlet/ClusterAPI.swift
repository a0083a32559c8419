import Client
import ClusterSecurity
import Glibc
import JSON
import Kernel
import NIOCore
import NIOHTTP1
import NIOPosix
import StreamFrames

/// A cluster's API as the verbs use it.
struct ClusterAPI: Sendable {
    let host: String
    /// `mlt1.…`, for a host on the network: it says who asks, and which cluster is the right one.
    var token: String?

    private func client() throws -> APIClient {
        let address = try ServerAddress(host)
        guard case .tls = address, let token else { return APIClient(address) }
        let text: TokenText
        do {
            text = try TokenText(token)
        } catch {
            throw CommandFailure("MARTLET_TOKEN: \(error)")
        }
        let verification = PeerVerification(.pin(text.pin))
        return APIClient(
            address,
            tls: ClientTLS(try ClientIdentity(), bearer: token) { try await verification.verify(chain: $0) })
    }

    private func target(_ path: String, _ query: [(String, String)]) -> String {
        if query.isEmpty { return path }
        return path + "?" + query.map { "\(escaped($0.0))=\(escaped($0.1))" }.joined(separator: "&")
    }

    func get<T: Decodable>(_ path: String, query: [(String, String)] = []) async throws -> T {
        try await client().json(.GET, target(path, query))
    }

    func send<T: Decodable>(
        _ method: String, _ path: String, query: [(String, String)] = [], body: (any Encodable)? = nil
    ) async throws -> T {
        let content = try body.map { try APIClient.Body.json($0) } ?? .none
        return try await client().json(HTTPMethod(rawValue: method), target(path, query), body: content)
    }

    /// A request whose answer says nothing but its status.
    func perform(
        _ method: String, _ path: String, query: [(String, String)] = [], body: (any Encodable)? = nil
    ) async throws {
        let content = try body.map { try APIClient.Body.json($0) } ?? .none
        let response = try await client().request(HTTPMethod(rawValue: method), target(path, query), body: content)
        // 304: it was so already.
        if response.status != 304 { _ = try await response.checked().bytes() }
    }

    /// Hands each line of an NDJSON answer on as it comes.
    func lines<T: Decodable & Sendable>(
        _ path: String, query: [(String, String)], _ each: (T) throws -> Void
    ) async throws {
        for try await line in try await client().lines(.GET, target(path, query)) {
            try each(JSONCoding.decode(T.self, from: line))
        }
    }

    /// The same for a request with a body.
    func lines<T: Decodable & Sendable>(
        _ method: String, _ path: String, body: some Encodable, _ each: (T) throws -> Void
    ) async throws {
        let content = try APIClient.Body.json(body)
        for try await line in try await client().lines(HTTPMethod(rawValue: method), path, body: content) {
            try each(JSONCoding.decode(T.self, from: line))
        }
    }

    /// Hands each frame of an answer's body on as it comes.
    func frames(_ path: String, query: [(String, String)], _ each: (Frame) throws -> Void) async throws {
        let response = try await client().request(.GET, target(path, query)).checked()
        var decoder = FrameDecoder()
        for try await piece in response.body {
            decoder.append(piece.readableBytesView)
            while let frame = try decoder.next() { try each(frame) }
        }
    }

    func upgrade(_ path: String, query: [(String, String)]) async throws -> FrameStream<ResponseBody> {
        try await client().upgrade(.POST, target(path, query)).frames
    }

    /// One header field of a HEAD request; nil when there is no such thing, or none of that kind.
    func head(_ path: String, query: [(String, String)], header: String) async throws -> String? {
        let response = try await client().request(.HEAD, target(path, query))
        if response.status == 404 || response.status == 400 { return nil }
        // The answer to HEAD has no sentence in it, that to GET has.
        if response.status >= 400 {
            _ = try await client().request(.GET, target(path, query)).checked()
        }
        return try await response.checked().headers.first(name: header)
    }

    /// Sends a file (`-`: standard input) and decodes the answer.
    func upload<T: Decodable>(
        _ method: String, _ path: String, query: [(String, String)], file: String, what: String
    ) async throws -> T {
        let source = try LocalFile(reading: file)
        let body = APIClient.Body.stream(source.pieces(what), contentType: "application/x-tar")
        return try await client().json(HTTPMethod(rawValue: method), target(path, query), body: body)
    }

    /// Sends bytes whose answer says nothing but its status.
    func uploadWithoutAnswer(
        _ method: String, _ path: String, query: [(String, String)], from source: LocalFile, what: String
    ) async throws {
        let body = APIClient.Body.stream(source.pieces(what), contentType: "application/x-tar")
        try await client().send(HTTPMethod(rawValue: method), target(path, query), body: body)
    }

    /// Writes an answer's body to the file that `open` gives; it is asked for when there is something to write.
    func download(
        _ path: String, query: [(String, String)], to open: () throws -> LocalFile, what: String
    ) async throws {
        let response = try await client().request(.GET, target(path, query)).checked()
        let sink = try open()
        do {
            try await write(response, to: sink, what: what)
        } catch {
            // Half an archive is worse than none.
            if let path = sink.madeAt { unlink(path) }
            throw error
        }
    }

    private func write(_ response: Response, to sink: LocalFile, what: String) async throws {
        var progress = Progress(what, total: nil)
        var done: Int64 = 0
        for try await piece in response.body {
            let bytes = Array(piece.readableBytesView)
            try await NIOThreadPool.singleton.runIfActive {
                try Descriptor.writeAll(sink.descriptor.raw, bytes, subject: sink.name)
            }
            done += Int64(bytes.count)
            progress.update(done)
        }
        progress.finish()
    }
}

/// A file or pipe of this machine at one end of a transfer.
struct LocalFile: Sendable {
    let descriptor: SharedFD
    let name: String
    /// Bytes to come; nil when that is not known beforehand.
    let size: Int64?
    /// The path of a file that was made for writing.
    private(set) var madeAt: String?

    init(reading path: String) throws {
        if path == "-" {
            self.init(
                SharedFD(OwnedFD(adopting: try systemCall("dup", "standard input") { dup(0) })), name: "standard input")
            return
        }
        let descriptor = SharedFD(try File.open(path, O_RDONLY))
        var info = stat()
        try systemCall("fstat", path) { fstat(descriptor.raw, &info) }
        guard info.st_mode & S_IFMT != S_IFDIR else { throw CommandFailure("\(path) is a directory, not an archive") }
        self.init(descriptor, name: path, size: info.st_mode & S_IFMT == S_IFREG ? Int64(info.st_size) : nil)
    }

    init(writing path: String) throws {
        if path == "-" {
            guard isatty(1) == 0 else {
                throw CommandFailure("standard output is a terminal: name a file with --output, or redirect")
            }
            self.init(
                SharedFD(OwnedFD(adopting: try systemCall("dup", "standard output") { dup(1) })),
                name: "standard output")
        } else {
            let isNew = !File.exists(path)
            self.init(SharedFD(try File.open(path, O_WRONLY | O_CREAT | O_TRUNC, mode: 0o644)), name: path)
            madeAt = isNew ? path : nil
        }
    }

    init(_ descriptor: SharedFD, name: String, size: Int64? = nil) {
        self.descriptor = descriptor
        self.name = name
        self.size = size
    }

    /// The content as it is asked for, with progress on a terminal.
    func pieces(_ what: String) -> Pieces { Pieces(file: self, what: what) }

    struct Pieces: AsyncSequence, Sendable {
        let file: LocalFile
        let what: String

        func makeAsyncIterator() -> Iterator { Iterator(file: file, progress: Progress(what, total: file.size)) }

        struct Iterator: AsyncIteratorProtocol {
            let file: LocalFile
            var progress: Progress
            var done: Int64 = 0

            mutating func next() async throws -> ByteBuffer? {
                let file = file
                let chunk = try await NIOThreadPool.singleton.runIfActive { () -> [UInt8] in
                    var chunk = [UInt8](repeating: 0, count: 256 << 10)
                    let count = try systemCall("read", file.name) {
                        chunk.withUnsafeMutableBytes { Glibc.read(file.descriptor.raw, $0.baseAddress, $0.count) }
                    }
                    return count == chunk.count ? chunk : Array(chunk[..<count])
                }
                guard !chunk.isEmpty else {
                    progress.finish()
                    return nil
                }
                done += Int64(chunk.count)
                progress.update(done)
                return ByteBuffer(bytes: chunk)
            }
        }
    }
}
