import Crypto
import FoundationEssentials
import JSON
import Kernel
import SwiftASN1
import X509

/// What a program shows of itself in a TLS handshake, and what it trusts: texts in PEM.
package struct Credentials: Sendable, Hashable {
    /// The program's own certificate.
    package var certificate: String
    /// Its private key, PKCS #8.
    package var key: String
    /// The certificate of the cluster's authority.
    package var authority: String

    package init(certificate: String, key: String, authority: String) {
        self.certificate = certificate
        self.key = key
        self.authority = authority
    }

    /// The times between which the certificate holds.
    ///
    /// - Throws: `SecurityError` for a text that is no certificate.
    package func validity() throws(SecurityError) -> (from: Timestamp, until: Timestamp) {
        do {
            let certificate = try Certificate(pemEncoded: certificate)
            return (Timestamp(certificate.notValidBefore), Timestamp(certificate.notValidAfter))
        } catch {
            throw SecurityError("the certificate cannot be read: \(error)")
        }
    }

    /// When a new certificate is to be asked for: at two thirds of this one's life.
    package func renewal() throws(SecurityError) -> Timestamp {
        let (from, until) = try validity()
        return from + (until - from) / 3 * 2
    }
}

extension Timestamp {
    init(_ date: Date) { self.init(nanoseconds: Int64(date.timeIntervalSince1970 * 1e9)) }

    var date: Date { Date(timeIntervalSince1970: Double(nanoseconds) / 1e9) }
}

/// A key that does not leave its machine, and the request for a certificate to it (RFC 2986).
package struct SigningRequest: Sendable {
    /// The private key, PKCS #8 in PEM.
    package let key: String
    /// The request in PEM.
    package let text: String

    /// Makes a new key and a request signed with it. The authority decides what name the certificate has.
    package init() throws(SecurityError) {
        do {
            let key = P256.Signing.PrivateKey()
            let request = try CertificateSigningRequest(
                version: .v1, subject: DistinguishedName { CommonName("martlet node") }, privateKey: .init(key),
                attributes: CertificateSigningRequest.Attributes([]), signatureAlgorithm: .ecdsaWithSHA256)
            self.key = key.pemRepresentation
            text = try request.serializeAsPEM().pemString
        } catch {
            throw SecurityError("no certificate can be asked for: \(error)")
        }
    }
}
