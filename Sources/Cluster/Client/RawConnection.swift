import NIOCore

/// A connection after a 101: bytes in both directions.
package struct RawConnection: Sendable {
    /// The name in `Upgrade` of the framed streams between master, agent and CLI.
    package static let framesProtocol = "martlet-frames"

    private let connection: ClientChannel

    init(_ connection: ClientChannel) {
        self.connection = connection
    }

    /// What the server sends; ends when it closes its sending side. To be read once, by one task.
    package var inbound: ResponseBody { ResponseBody(connection: connection) }

    /// Sends bytes; returns when the kernel has taken them, so a server that does not read holds the caller back.
    ///
    /// - Throws: `ClientError` when the connection is gone; `CancellationError`, with the connection closed.
    package func write(_ bytes: ByteBuffer) async throws {
        try await withTaskCancellationHandler {
            do {
                try await connection.channel.writeAndFlush(bytes)
            } catch {
                try Task.checkCancellation()
                throw ClientError(exchanging: error, with: connection.address, role: connection.role)
            }
        } onCancel: {
            connection.channel.close(promise: nil)
        }
    }

    /// Closes our sending side: the server reads the end of input; reading goes on.
    package func finish() {
        connection.channel.close(mode: .output, promise: nil)
    }

    /// Closes both directions at once.
    package func close() {
        connection.channel.close(promise: nil)
    }

    /// Returns when the connection is closed in both directions, or the calling task is cancelled.
    package func untilClosed() async {
        await connection.untilClosed()
    }

    /// Joins this connection with another stream: bytes pass both ways until both ends have closed their sending side.
    ///
    /// A half-close of one side is passed on. When one side is closed whole, what it sent still arrives at the other.
    /// This connection is closed in the end, whatever happens.
    ///
    /// - Parameters:
    ///   - inbound: what the other side sends.
    ///   - write: sends to the other side, waiting while it does not read.
    ///   - finish: closes the sending side towards it.
    ///   - closed: returns when the other side is closed in both directions, or on cancellation.
    /// - Throws: the first I/O error; `CancellationError`.
    package func relay<Inbound: AsyncSequence & Sendable>(
        from inbound: Inbound, write: @escaping @Sendable (ByteBuffer) async throws -> Void,
        finish: @escaping @Sendable () -> Void, closed: @escaping @Sendable () async -> Void
    ) async throws where Inbound.Element == ByteBuffer {
        defer { close() }
        try await withThrowingTaskGroup(of: RelayEnd.self) { group in
            defer { group.cancelAll() }
            group.addTask {
                for try await bytes in self.inbound { try await write(bytes) }
                finish()
                return .fromServer
            }
            group.addTask {
                // Nobody reads at the server any more once it has closed: waiting for the other side would be for ever.
                try await Self.first {
                    for try await bytes in inbound { try await self.write(bytes) }
                    self.finish()
                } or: {
                    await self.connection.untilClosed()
                }
                return .fromOther
            }
            group.addTask {
                await closed()
                return .otherClosed
            }
            var ended: Set<RelayEnd> = []
            while let end = try await group.next() {
                ended.insert(end)
                // Once the other side is closed whole, the server's bytes have no reader; what it sent before still
                // reaches the server.
                if ended.contains(.fromOther), ended.contains(.fromServer) || ended.contains(.otherClosed) { return }
            }
        }
    }

    private enum RelayEnd { case fromServer, fromOther, otherClosed }

    /// Does `work` until it ends or `other` does.
    private static func first(
        _ work: @escaping @Sendable () async throws -> Void, or other: @escaping @Sendable () async -> Void
    ) async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            defer { group.cancelAll() }
            group.addTask { try await work() }
            group.addTask { await other() }
            try await group.next()
        }
    }
}
