import Client
import Hummingbird
import Master
import MasterCore
import Model
import NIOCore
import NIOHTTP1
import StreamFrames
import Wire

/// The logs of all instances of a service side by side, each whole line with the instance's name before it.
struct ServiceLogs: Sendable {
    let master: ClusterMaster
    /// For each instance's agent.
    let query: String

    func response(_ views: [ContainerView]) async -> Hummingbird.Response {
        Hummingbird.Response(
            status: .ok, headers: [.contentType: UnifiedAPI.frames],
            body: ResponseBody { writer in
                let (pieces, feed) = AsyncStream<Piece>.makeStream()
                try await withThrowingTaskGroup(of: Void.self) { group in
                    defer { group.cancelAll() }
                    group.addTask {
                        await withTaskGroup(of: Void.self) { readers in
                            for view in views where view.task != nil {
                                readers.addTask { await read(view, feed) }
                            }
                        }
                        feed.finish()
                    }
                    for await piece in pieces {
                        try await writer.write(piece.bytes)
                        piece.written.resume()
                    }
                }
                try await writer.finish(nil)
            })
    }

    /// Bytes on their way to the client; their reader goes on when they are written, so that nothing piles up here.
    private struct Piece: Sendable {
        let bytes: ByteBuffer
        let written: CheckedContinuation<Void, Never>
    }

    private func read(_ view: ContainerView, _ feed: AsyncStream<Piece>.Continuation) async {
        var prefixes = [LinePrefix(view.name), LinePrefix(view.name)]
        func send(_ bytes: [UInt8], _ stream: Int, end: Bool = false) async {
            let text = prefixes[stream].apply(bytes, end: end)
            guard !text.isEmpty else { return }
            let frame: Frame = stream == 0 ? .stdout(text) : .stderr(text)
            await withCheckedContinuation { written in
                let piece = Piece(bytes: ByteBuffer(bytes: frame.encoded()), written: written)
                if case .enqueued = feed.yield(piece) {} else { written.resume() }
            }
        }
        do {
            guard let task = view.task else { return }
            let location = try await master.locate(view.id.text)
            let answer = try await master.streams(location).open(.GET, NodeStreams.path(task, "logs"), query: query)
            var decoder = FrameDecoder()
            for try await piece in answer.body {
                decoder.append(piece.readableBytesView)
                while let frame = try decoder.next() {
                    switch frame {
                    case .stdout(let bytes): await send(bytes, 0)
                    case .stderr(let bytes): await send(bytes, 1)
                    default: break
                    }
                }
            }
            await send([], 0, end: true)
            await send([], 1, end: true)
        } catch {
            // One instance that goes must not end the others' logs; the client reads why in its place.
            if !Task.isCancelled { await send(Array("martlet: its log ended: \(error)\n".utf8), 1) }
        }
    }
}

/// Puts a name before each whole line; a line that is not complete yet is kept back.
struct LinePrefix {
    /// Bytes after which a line without end is cut.
    private static let longest = 32 << 10

    private let prefix: [UInt8]
    private var rest: [UInt8] = []

    init(_ name: String) { prefix = Array("\(name) | ".utf8) }

    /// - Parameter end: nothing follows; what was kept back is given out.
    mutating func apply(_ bytes: [UInt8], end: Bool = false) -> [UInt8] {
        var result: [UInt8] = []
        for byte in bytes {
            rest.append(byte)
            guard byte == UInt8(ascii: "\n") || rest.count >= Self.longest else { continue }
            result += prefix + rest
            rest = []
        }
        if end, !rest.isEmpty {
            result += prefix + rest
            rest = []
        }
        return result
    }
}
