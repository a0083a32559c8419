import NIOSSL
import Synchronization

/// What a listener shows in TLS handshakes: its certificate and key, and the authority whose members may come. It can
/// be replaced while the listener is open; connections that are there go on with what they began with.
package final class TLSIdentity: Sendable, Equatable {
    private let context: Mutex<NIOSSLContext>

    /// - Parameters: texts in PEM; the private key in PKCS #8.
    /// - Throws: `ListenError` when one of them cannot be read or they do not belong together.
    package init(certificate: String, key: String, authority: String) throws(ListenError) {
        context = Mutex(try Self.context(certificate, key, authority))
    }

    package func replace(certificate: String, key: String, authority: String) throws(ListenError) {
        let fresh = try Self.context(certificate, key, authority)
        context.withLock { $0 = fresh }
    }

    /// The handler of one connection.
    ///
    /// A client without a certificate comes through: it may have another credential. One with a false certificate does
    /// not.
    func makeHandler() -> NIOSSLServerHandler { NIOSSLServerHandler(context: context.withLock { $0 }) }

    private static func context(
        _ certificate: String, _ key: String, _ authority: String
    ) throws(ListenError) -> NIOSSLContext {
        do {
            let root = try NIOSSLCertificate(bytes: Array(authority.utf8), format: .pem)
            // The authority goes along, for clients that know it by its digest.
            let chain = [try NIOSSLCertificate(bytes: Array(certificate.utf8), format: .pem), root]
            var configuration = TLSConfiguration.makeServerConfiguration(
                certificateChain: chain.map { .certificate($0) },
                privateKey: .privateKey(try NIOSSLPrivateKey(bytes: Array(key.utf8), format: .pem)))
            configuration.minimumTLSVersion = .tlsv12
            configuration.trustRoots = .certificates([root])
            configuration.certificateVerification = .optionalVerification
            return try NIOSSLContext(configuration: configuration)
        } catch {
            throw ListenError(description: "certificate, key and authority cannot be used for TLS: \(error)")
        }
    }

    package static func == (left: TLSIdentity, right: TLSIdentity) -> Bool { left === right }
}
