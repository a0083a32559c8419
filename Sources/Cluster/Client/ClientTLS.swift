import NIOCore
import NIOSSL
import Synchronization

/// The certificate that a client shows to servers on TCP, if it has one. It can be replaced while it is used; new
/// connections take the newest.
package final class ClientIdentity: Sendable {
    private let context: Mutex<NIOSSLContext>

    /// - Parameters:
    ///   - certificate: in PEM; nil: none is shown.
    ///   - key: of the certificate, PKCS #8 in PEM.
    /// - Throws: `ClientError` when certificate or key cannot be read.
    package init(certificate: String? = nil, key: String? = nil) throws(ClientError) {
        context = Mutex(try Self.context(certificate, key))
    }

    package func replace(certificate: String, key: String) throws(ClientError) {
        let fresh = try Self.context(certificate, key)
        context.withLock { $0 = fresh }
    }

    fileprivate var current: NIOSSLContext { context.withLock { $0 } }

    private static func context(_ certificate: String?, _ key: String?) throws(ClientError) -> NIOSSLContext {
        do {
            var configuration = TLSConfiguration.makeClientConfiguration()
            configuration.minimumTLSVersion = .tlsv13
            // Names are of the cluster, not of hosts: the verifier checks them, and all else, in place of the library.
            configuration.certificateVerification = .noHostnameVerification
            // Else the machine's whole bundle is read, for nothing.
            configuration.trustRoots = .certificates([])
            if let certificate, let key {
                configuration.certificateChain = [
                    .certificate(try NIOSSLCertificate(bytes: Array(certificate.utf8), format: .pem))
                ]
                configuration.privateKey = .privateKey(try NIOSSLPrivateKey(bytes: Array(key.utf8), format: .pem))
            }
            return try NIOSSLContext(configuration: configuration)
        } catch {
            throw ClientError(.badAddress, "the client's certificate and key cannot be used: \(error)")
        }
    }
}

/// How a client shows itself to a server on TCP, and knows it.
package struct ClientTLS: Sendable {
    /// Decides about the chain that a server shows (DER, its own certificate first).
    package typealias Verifier = @Sendable (_ chain: [[UInt8]]) async throws -> Void

    package var identity: ClientIdentity
    /// A token that goes along with each request, as RFC 6750 has it.
    package var bearer: String?
    /// Throws when the server is not who it should be.
    package var verify: Verifier

    package init(_ identity: ClientIdentity, bearer: String? = nil, verify: @escaping Verifier) {
        self.identity = identity
        self.bearer = bearer
        self.verify = verify
    }

    /// The handler of one connection. What the verifier refuses is kept in `refusal`, since the handshake's own error
    /// says nothing of it.
    func makeHandler(refusal: TLSRefusal) throws -> NIOSSLClientHandler {
        let verify = verify
        return try NIOSSLClientHandler(
            context: identity.current, serverHostname: nil,
            customVerificationCallback: { certificates, promise in
                promise.completeWithTask {
                    do {
                        try await verify(try certificates.map { try $0.toDERBytes() })
                        return .certificateVerified
                    } catch {
                        refusal.note("\(error)")
                        return .failed
                    }
                }
            })
    }
}

/// Why a server was not trusted.
final class TLSRefusal: Sendable {
    private let text = Mutex<String?>(nil)

    func note(_ reason: String) { text.withLock { $0 = reason } }
    var reason: String? { text.withLock { $0 } }
}
