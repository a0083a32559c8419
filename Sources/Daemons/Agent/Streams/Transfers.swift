import Glibc
import HTTPService
import Hummingbird
import Kernel
import NIOCore
import Reactor

/// Joins what is streamed over HTTP with functions that read or write a descriptor and block.
///
/// They run on a pool of their own, so that clients who send slowly never keep containers waiting.
struct Transfers: Sendable {
    let pool: BlockingPool
    /// For looks at logs: short each, and of as many followers at once as the node has.
    let logs: BlockingPool
    let reactor: Reactor

    init(reactor: Reactor) throws {
        pool = try BlockingPool(threads: 8, queue: 32)
        logs = try BlockingPool(threads: 4, queue: 65_536)
        self.reactor = reactor
    }

    /// Bytes moved at a time.
    private static let chunk = 64 << 10

    /// Gives `work` a descriptor that reads the body.
    ///
    /// - Throws: the body's error if the client broke off, else what `work` throws.
    func upload<Result: Sendable>(
        _ body: RequestBody, into work: @escaping @Sendable (Int32) throws -> Result
    ) async throws -> Result {
        let ends = try UnixSocket.pair(.stream)
        let (near, far) = (SharedFD(try ends.near.duplicate()), SharedFD(try ends.far.duplicate()))
        return try await withThrowingTaskGroup(of: Result?.self) { group in
            group.addTask {
                try await pool.run {
                    defer { shutdown(far.raw, Int32(SHUT_RDWR)) }
                    return try work(far.raw)
                }
            }
            group.addTask {
                defer { shutdown(near.raw, Int32(SHUT_WR)) }
                for try await piece in body {
                    // Nobody reads any more: `work` has failed and says why.
                    guard try await send(piece, to: near.raw) else { break }
                }
                return nil
            }
            // The body's failure comes first when both fail, since it makes the work fail.
            var result: Result?
            while let one = try await group.next() { result = one ?? result }
            guard let result else { throw CancellationError() }
            return result
        }
    }

    /// Sends all; false when the other end is closed.
    private func send(_ piece: ByteBuffer, to socket: Int32) async throws -> Bool {
        var piece = piece
        while piece.readableBytes > 0 {
            let count = piece.withUnsafeReadableBytes {
                Glibc.send(socket, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT))
            }
            if count > 0 {
                piece.moveReaderIndex(forwardBy: count)
            } else if errno == EAGAIN {
                try await reactor.waitWritable(socket)
            } else if errno != EINTR {
                return false
            }
        }
        return true
    }

    /// A body of what `work` writes to the descriptor that it is given. If it throws, the connection is cut.
    func download(_ work: @escaping @Sendable (Int32) throws -> Void) -> ResponseBody {
        ResponseBody { writer in
            let ends = try UnixSocket.pair(.stream)
            let (near, far) = (SharedFD(try ends.near.duplicate()), SharedFD(try ends.far.duplicate()))
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask {
                    try await pool.run {
                        defer { shutdown(far.raw, Int32(SHUT_RDWR)) }
                        try work(far.raw)
                    }
                }
                // A client that has gone must not leave the work waiting for its reader.
                defer { shutdown(near.raw, Int32(SHUT_RDWR)) }
                while let piece = try await receive(near.raw) { try await writer.write(piece) }
                try await group.waitForAll()
            }
            try await writer.finish(nil)
        }
    }

    /// What has come; nil at the end.
    private func receive(_ socket: Int32) async throws -> ByteBuffer? {
        while true {
            var piece = ByteBuffer()
            let count = piece.writeWithUnsafeMutableBytes(minimumWritableBytes: Self.chunk) {
                max(0, recv(socket, $0.baseAddress, $0.count, Int32(MSG_DONTWAIT)))
            }
            if count > 0 { return piece }
            // recv(2) answers 0 at the end; errno tells only after -1, which `max` hides.
            if try await isAtEnd(socket) { return nil }
            try await reactor.waitReadable(socket)
        }
    }

    private func isAtEnd(_ socket: Int32) async throws -> Bool {
        var byte: UInt8 = 0
        let flags = Int32(MSG_DONTWAIT) | Int32(MSG_PEEK)
        let count = recv(socket, &byte, 1, flags)
        if count == 0 { return true }
        if count < 0 && errno != EAGAIN && errno != EINTR { throw KernelError("recv", "a transfer", errno: errno) }
        return false
    }
}
