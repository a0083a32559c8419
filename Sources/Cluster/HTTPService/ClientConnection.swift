import NIOCore
import NIOHTTPTypes
import NIOSSL
import Synchronization

/// Who is at the other end of a connection.
package enum Peer: Sendable, Equatable, CustomStringConvertible {
    /// A process on this machine, as the kernel recorded it at connect(2); see SO_PEERCRED in unix(7). The user and
    /// group are what rights may be checked against; the process may have ended since.
    case local(pid: Int32, uid: UInt32, gid: UInt32)
    /// An address, over TLS; who is there is told by a certificate or another credential.
    case network(String)

    package var description: String {
        switch self {
        case .local(let pid, let uid, let gid): "uid \(uid) gid \(gid) pid \(pid)"
        case .network(let address): address
        }
    }
}

/// A client's connection, as far as handlers may know it.
package final class ClientConnection: Sendable {
    package let peer: Peer
    /// Fires when the client has closed its sending side or the whole connection.
    package let peerClosed = Signal()
    /// Fires when the connection is closed in both directions.
    package let closed = Signal()
    /// Whether no request is taken on it any more.
    let isEnding = Atomic(false)
    /// Fires when the server begins to shut down.
    package let draining: Signal
    let limits: ServiceLimits
    let channel: any Channel
    private let strangers: Strangers

    init(
        channel: any Channel, peer: Peer, limits: ServiceLimits, draining: Signal, strangers: Strangers
    ) {
        self.channel = channel
        self.peer = peer
        self.limits = limits
        self.draining = draining
        self.strangers = strangers
    }

    /// A credential that counts was shown: the connection is no stranger's any more, see `ServiceLimits.strangers`.
    package func recognize() {
        if case .network(let address) = peer { strangers.leave(address, channel) }
    }

    /// Calls `body` once, when the connection is closed in both directions.
    package func whenClosed(_ body: @escaping @Sendable () -> Void) {
        channel.closeFuture.whenComplete { _ in body() }
    }

    /// The certificate (DER) that the client has shown and that the listener's authority has signed; nil: none, or no
    /// TLS.
    package func peerCertificate() async -> [UInt8]? {
        guard case .network = peer else { return nil }
        return try? await channel.nioSSL_peerCertificate().get()?.toDERBytes()
    }

    /// Writes a part and returns when the kernel has taken it, so that no more than one part of a stream waits here for
    /// a client that does not read.
    ///
    /// - Throws: an I/O error; `CancellationError`. A write that is cancelled while it waits cuts the connection, since
    ///   nobody knows how much of it has left.
    func send(_ part: HTTPResponsePart) async throws {
        try Task.checkCancellation()
        try await withTaskCancellationHandler {
            do {
                try await channel.writeAndFlush(part)
            } catch {
                try Task.checkCancellation()
                throw error
            }
        } onCancel: {
            abort()
        }
    }

    /// Does `work`, and cancels it when the client goes away or the server shuts down.
    ///
    /// - Returns: nil when it ended because a shutdown has begun.
    /// - Throws: what `work` throws; `ClientGone`.
    func serving<Result: Sendable>(
        _ work: @escaping @Sendable () async throws -> Result
    ) async throws -> Result? {
        do {
            return try await Signal.cancelling(at: peerClosed, or: draining, work)
        } catch {
            try Task.checkCancellation()
            if peerClosed.isFired { throw ClientGone() }
            if draining.isFired { return nil }
            throw error
        }
    }

    /// Closes the connection at once, whatever is going on on it.
    package func abort() {
        channel.close(promise: nil)
    }
}
