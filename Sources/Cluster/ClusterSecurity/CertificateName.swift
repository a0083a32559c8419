import FoundationEssentials
import JSON
import SwiftASN1
import X509

/// Who a certificate speaks for: its one URI among the subject's alternative names (RFC 5280, section 4.2.1.6),
/// `martlet://<cluster>/master` or `martlet://<cluster>/node/<node>`.
///
/// Programs of a cluster know each other by these, not by host names, so that addresses may change.
package struct CertificateName: Sendable, Hashable, CustomStringConvertible {
    package enum Holder: Sendable, Hashable {
        case master
        case node(String)
    }

    package var cluster: String
    package var holder: Holder

    package init(cluster: String, holder: Holder) {
        self.cluster = cluster
        self.holder = holder
    }

    package init?(_ text: String) {
        guard text.utf8.count <= 512, text.hasPrefix("martlet://") else { return nil }
        let parts = text.dropFirst("martlet://".count).split(separator: "/", omittingEmptySubsequences: false)
        switch parts.count {
        case 2 where parts[1] == "master": holder = .master
        case 3 where parts[1] == "node" && !parts[2].isEmpty: holder = .node(String(parts[2]))
        default: return nil
        }
        guard !parts[0].isEmpty else { return nil }
        cluster = String(parts[0])
    }

    package var description: String {
        switch holder {
        case .master: "martlet://\(cluster)/master"
        case .node(let id): "martlet://\(cluster)/node/\(id)"
        }
    }

    /// The name in a certificate that is known to come from the cluster's authority.
    ///
    /// A connection may outlive the certificate that it began with, so that its time is looked at here too.
    ///
    /// - Throws: `SecurityError` when it has none, or several, or does not hold at this time.
    package init(certificate der: [UInt8], now: Timestamp = .now()) throws(SecurityError) {
        do {
            let certificate = try Certificate(derEncoded: der)
            try self.init(certificate)
            guard certificate.notValidBefore <= now.date, now.date <= certificate.notValidAfter else {
                throw SecurityError("the certificate of \(self) ran out at \(Timestamp(certificate.notValidAfter))")
            }
        } catch let error as SecurityError {
            throw error
        } catch {
            throw SecurityError("the certificate cannot be read: \(error)")
        }
    }

    init(_ certificate: Certificate) throws {
        let names = try certificate.extensions.subjectAlternativeNames ?? SubjectAlternativeNames([])
        let found = names.compactMap { name -> CertificateName? in
            if case .uniformResourceIdentifier(let text) = name { CertificateName(text) } else { nil }
        }
        guard found.count == 1 else {
            throw SecurityError("the certificate has \(found.count) names of a cluster's member instead of one")
        }
        self = found[0]
    }
}
