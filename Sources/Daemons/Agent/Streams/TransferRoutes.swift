import Glibc
import HTTPService
import HTTPTypes
import Hummingbird
import Images
import JSON
import Kernel
import Model
import NIOCore
import Reactor
import Wire

extension StreamPort {
    /// Pull, push, copies for other nodes, and content that other nodes fetch.
    func addTransfers(to group: RouterGroup<ServiceContext>) {
        group.post("images/pull") { request, context in
            let wish = try await request.json(PullImage.self, context)
            return lines(context) { images, progress in
                let image = try await images.pull(wish, progress: progress)
                inventoryChanged()
                return image.view
            }
        }
        group.post("images/{image}/push") { request, context in
            let name = try context.pathParameter("image")
            let wish = try await request.json(PushImage.self, context)
            return lines(context) { images, progress in
                try await images.push(name, wish, progress: progress)
                let (store, pool) = (executor.images, executor.pool)
                return try await pool.run {
                    let image = try store.resolve(name)
                    var view = image.view
                    view.manifestSize = Int64(clamping: try store.openContent(image.digest).size)
                    return view
                }
            }
        }
        group.post("images/fetch") { request, context in
            let wish = try await request.json(FetchImage.self, context)
            let image = try await explainingImages {
                // The master hangs up when nobody wants the copy any more.
                try await context.untilPeerCloses { try await executor.transfers.replicate(wish) }
            }
            inventoryChanged()
            return try Response.json(image.view)
        }
        group.post("registries/login") { request, context in
            let wish = try await request.json(CheckLogin.self, context)
            try await explainingImages { try await executor.transfers.login(wish) }
            return Response.empty
        }
        group.post("registries/resolve") { request, context in
            let wish = try await request.json(ResolveImage.self, context)
            return try Response.json(
                try await explainingImages {
                    try await context.untilPeerCloses { try await executor.transfers.resolve(wish) }
                })
        }
        group.post("registries/tags") { request, context in
            let wish = try await request.json(ResolveImage.self, context)
            return try Response.json(
                try await explainingImages {
                    try await context.untilPeerCloses { try await executor.transfers.tags(wish) }
                })
        }
        group.post("registries/search") { request, context in
            let wish = try await request.json(SearchRegistry.self, context)
            guard (1...100).contains(wish.limit) else {
                throw APIError.badRequest("$.limit is 1 to 100, not \(wish.limit)")
            }
            return try Response.json(
                try await explainingImages {
                    try await context.untilPeerCloses { try await executor.transfers.search(wish) }
                })
        }
        group.get("content/blobs/{digest}") { request, context in
            let text = try context.pathParameter("digest")
            guard let digest = Digest(text) else {
                throw APIError.badRequest("'\(text)' in the path is no digest: it has to be sha256:…")
            }
            return try await content(digest, request)
        }
    }

    /// A transfer whose progress is told line by line; its last line is the image, or the error.
    private func lines(
        _ context: ServiceContext,
        _ work: @escaping @Sendable (ImageTransfers, @escaping TransferProgressHandler) async throws -> ImageView
    ) -> Response {
        .lines(context) { writer in
            let (progress, tell) = AsyncStream<TransferProgress>.makeStream(bufferingPolicy: .bufferingNewest(256))
            try await withThrowingTaskGroup(of: ImageView?.self) { group in
                group.addTask {
                    defer { tell.finish() }
                    return try await explainingImages { try await work(executor.transfers) { tell.yield($0) } }
                }
                for await step in progress { try await writer.write(TransferLine(step)) }
                guard let image = try await group.next() ?? nil else { return }
                try await writer.write(TransferLine(image: image))
            }
        }
    }

    /// A blob, or the rest of it from an offset on.
    private func content(_ digest: Images.Digest, _ request: Request) async throws -> Response {
        let images = executor.images
        let content = try await explainingImages { try await executor.pool.run { try images.openContent(digest) } }
        var offset: UInt64 = 0
        if let range = request.headers[.range] {
            let text = range.hasPrefix("bytes=") && range.hasSuffix("-") ? range.dropFirst(6).dropLast() : ""
            guard let from = UInt64(text), from < content.size else {
                throw APIError(
                    status: 416, code: "range", message: "'\(range)' is not bytes=FIRST- within \(content.size) bytes")
            }
            offset = from
        }
        let (first, length) = (offset, content.size - offset)
        var headers: HTTPFields = [.contentType: "application/octet-stream"]
        if request.headers[.range] != nil {
            headers[.contentRange] = "bytes \(first)-\(content.size - 1)/\(content.size)"
        }
        // Not the transfers' pool: its short queue would refuse what many nodes fetch at once.
        let pool = executor.pool
        return Response(
            status: request.headers[.range] == nil ? .ok : .partialContent, headers: headers,
            body: ResponseBody(contentLength: Int(clamping: length)) { writer in
                var position = first
                while position < content.size {
                    let from = position
                    let piece = try await pool.run { try content.read(at: from, atMost: 512 << 10) }
                    guard piece.readableBytes > 0 else {
                        throw APIError.internalError("the content \(digest) is shorter than it was")
                    }
                    position += UInt64(piece.readableBytes)
                    try await writer.write(piece)
                }
                try await writer.finish(nil)
            })
    }
}

extension StoredContent {
    /// Blocks.
    fileprivate func read(at offset: UInt64, atMost count: Int) throws -> ByteBuffer {
        var buffer = ByteBufferAllocator().buffer(capacity: count)
        let descriptor = file.raw
        try buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: count) { bytes in
            try systemCall("pread", "content of an image") {
                pread(descriptor, bytes.baseAddress, min(bytes.count, count), off_t(offset))
            }
        }
        return buffer
    }
}
