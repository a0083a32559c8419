import FoundationEssentials
import JSON
import SwiftASN1
import X509

/// Decides in a TLS handshake whether the other end is who it should be: signed by the cluster's authority, within its
/// time, and a member of the kind that is expected.
package struct PeerVerification: Sendable {
    /// How the authority is known.
    package enum Authority: Sendable, Hashable {
        /// By its certificate in PEM.
        case certificate(String)
        /// By the SHA-256 of its certificate, which the other end has to show along with its own.
        case pin(String)
    }

    package var authority: Authority
    /// Who is expected; nil: any master of whatever cluster the authority is of.
    package var holder: CertificateName.Holder

    package init(_ authority: Authority, expecting holder: CertificateName.Holder = .master) {
        self.authority = authority
        self.holder = holder
    }

    /// Checks a chain as it came, the other end's own certificate first.
    ///
    /// - Returns: the authority's certificate in PEM, which a pin has found.
    /// - Throws: `SecurityError` with what is wrong.
    @discardableResult
    package func verify(chain: [[UInt8]]) async throws(SecurityError) -> String {
        do {
            return try await check(chain)
        } catch let error as SecurityError {
            throw error
        } catch {
            throw SecurityError("a certificate of the other end cannot be read: \(error)")
        }
    }

    private func check(_ chain: [[UInt8]]) async throws -> String {
        guard (1...8).contains(chain.count), let first = chain.first else {
            throw SecurityError("the other end shows \(chain.count) certificates")
        }
        let root: Certificate
        switch authority {
        case .certificate(let text): root = try Certificate(pemEncoded: text)
        case .pin(let pin):
            guard let pinned = chain.first(where: { CertificateAuthority.pin(ofDER: $0) == pin }) else {
                throw SecurityError(
                    "the other end is not of the cluster that the token is for: it does not show the authority that the "
                        + "token pins")
            }
            root = try Certificate(derEncoded: pinned)
        }
        let leaf = try Certificate(derEncoded: first)
        var verifier = Verifier(rootCertificates: CertificateStore([root])) { RFC5280Policy() }
        let result = await verifier.validate(leaf: leaf, intermediates: CertificateStore([]))
        guard case .validCertificate = result else { throw SecurityError(explain(leaf, root)) }
        let name = try CertificateName(leaf)
        guard name.holder == holder else {
            throw SecurityError("the other end is \(name), and \(expected) was expected")
        }
        return try root.serializeAsPEM().pemString
    }

    private var expected: String {
        switch holder {
        case .master: "a master"
        case .node(let id): "the node \(id)"
        }
    }

    private func explain(_ leaf: Certificate, _ root: Certificate) -> String {
        let now = Date()
        if leaf.issuer != root.subject || !root.publicKey.isValidSignature(leaf.signature, for: leaf) {
            return "the other end's certificate is not of this cluster's authority"
        }
        if leaf.notValidAfter < now {
            return
                "the other end's certificate ran out at \(Timestamp(leaf.notValidAfter)), and it is \(Timestamp(now)) here: "
                + "is this machine's clock right?"
        }
        if leaf.notValidBefore > now {
            return
                "the other end's certificate holds from \(Timestamp(leaf.notValidBefore)) on, and it is \(Timestamp(now)) "
                + "here: is this machine's clock right?"
        }
        return "the other end's certificate does not hold"
    }
}
