import Crypto
import FoundationEssentials
import Glibc
import JSON
import Kernel
import SwiftASN1
import X509

/// The authority of one cluster: made at a master's first start, it signs the certificates of masters and nodes.
package final class CertificateAuthority: Sendable {
    /// Its certificate in PEM.
    package let certificate: String
    /// SHA-256 of its certificate (DER) in hexadecimal digits: what tokens pin.
    package let pin: String
    package let cluster: String
    private let issuer: Certificate
    private let key: P256.Signing.PrivateKey

    /// Certificates hold from so many seconds before they are made, for machines whose clock is behind.
    private static let backdating: Int64 = 3600
    private static let years: Int64 = 10

    /// Opens the authority in `directory`, or makes it when there is none. A certificate that is missing beside its key is
    /// made anew with that: what the authority has issued stays good.
    ///
    /// - Throws: `SecurityError`: the key is missing, it is another cluster's, others may read the key;
    ///   `KernelError`.
    package init(directory: String, cluster: String, now: Timestamp) throws {
        let (keyPath, certificatePath) = ("\(directory)/ca.key", "\(directory)/ca.crt")
        try File.makeDirectories(directory, mode: 0o700)
        self.cluster = cluster
        if File.exists(certificatePath) {
            guard File.exists(keyPath) else {
                throw SecurityError(
                    "the authority's key \(keyPath) is missing, its certificate is there: restore the key from a backup"
                )
            }
            try Self.checkMode(keyPath)
            let text = try File.text(certificatePath, limit: 64 << 10)
            do {
                issuer = try Certificate(pemEncoded: text)
                key = try P256.Signing.PrivateKey(pemRepresentation: File.text(keyPath, limit: 64 << 10))
            } catch {
                throw SecurityError("\(directory) has no readable authority: \(error); restore it from a backup")
            }
            guard issuer.publicKey == Certificate.PublicKey(key.publicKey) else {
                throw SecurityError("\(keyPath) is not the key of \(certificatePath): restore both from one backup")
            }
            guard try issuer.subject == Self.subject(cluster) else {
                throw SecurityError(
                    "the authority in \(directory) is of another cluster (\(issuer.subject)), the store is of \(cluster)"
                )
            }
        } else {
            if File.exists(keyPath) {
                try Self.checkMode(keyPath)
                do {
                    key = try P256.Signing.PrivateKey(pemRepresentation: File.text(keyPath, limit: 64 << 10))
                } catch {
                    throw SecurityError("\(keyPath) is no readable key: \(error); restore it from a backup")
                }
            } else {
                key = P256.Signing.PrivateKey()
            }
            issuer = try Self.make(cluster: cluster, key: key, now: now)
            // The key first: a certificate without its key would be taken for a loss.
            try File.replace(keyPath, with: Array(key.pemRepresentation.utf8), mode: 0o600)
            try File.replace(certificatePath, with: Array(issuer.serializeAsPEM().pemString.utf8), mode: 0o644)
        }
        certificate = try issuer.serializeAsPEM().pemString
        pin = try Self.pin(of: issuer)
    }

    private static func checkMode(_ path: String) throws {
        var info = stat()
        try systemCall("lstat", path) { lstat(path, &info) }
        guard info.st_mode & 0o077 == 0, info.st_uid == geteuid() else {
            throw SecurityError(
                "\(path) may be read by others than its owner: `chmod 600 \(path)`, and make a new authority if somebody has"
            )
        }
    }

    private static func subject(_ cluster: String) throws -> DistinguishedName {
        try DistinguishedName {
            OrganizationName("martlet")
            CommonName(cluster)
        }
    }

    private static func make(cluster: String, key: P256.Signing.PrivateKey, now: Timestamp) throws -> Certificate {
        let name = try subject(cluster)
        return try Certificate(
            version: .v3, serialNumber: Certificate.SerialNumber(), publicKey: .init(key.publicKey),
            notValidBefore: now.adding(seconds: -backdating).date,
            notValidAfter: now.adding(seconds: years * 365 * 86_400).date, issuer: name, subject: name,
            signatureAlgorithm: .ecdsaWithSHA256,
            extensions: try Certificate.Extensions {
                Critical(BasicConstraints.isCertificateAuthority(maxPathLength: 0))
                Critical(KeyUsage(keyCertSign: true, cRLSign: true))
            }, issuerPrivateKey: .init(key))
    }

    static func pin(of certificate: Certificate) throws -> String {
        var serializer = DER.Serializer()
        try serializer.serialize(certificate)
        return pin(ofDER: serializer.serializedBytes)
    }

    package static func pin(ofDER bytes: [UInt8]) -> String { hexadecimal(SHA256.hash(data: bytes)) }

    /// A certificate with a new key for the master itself.
    ///
    /// - Parameters:
    ///   - hosts: names and addresses under which clients that check host names reach it.
    ///   - life: seconds.
    package func issueMaster(hosts: [String], life: Int64, now: Timestamp) throws -> Credentials {
        let own = P256.Signing.PrivateKey()
        let certificate = try sign(
            .init(own.publicKey), CertificateName(cluster: cluster, holder: .master), hosts: hosts, life: life, now: now
        )
        return Credentials(certificate: certificate, key: own.pemRepresentation, authority: self.certificate)
    }

    /// A certificate for a node's key.
    ///
    /// - Parameters:
    ///   - request: a signing request in PEM; its names and extensions are not looked at.
    ///   - life: seconds.
    /// - Throws: `SecurityError` for a request that is none, or that was not made by the key's owner.
    package func issueNode(_ node: String, request: String, life: Int64, now: Timestamp) throws(SecurityError) -> String
    {
        do {
            guard request.utf8.count <= 16 << 10 else { throw SecurityError("it is larger than 16 KiB") }
            let parsed = try CertificateSigningRequest(pemEncoded: request)
            guard parsed.publicKey.isValidSignature(parsed.signature, for: parsed) else {
                throw SecurityError("its signature is not that of its key")
            }
            return try sign(
                parsed.publicKey, CertificateName(cluster: cluster, holder: .node(node)), hosts: [], life: life,
                now: now)
        } catch {
            throw SecurityError("the certificate signing request is refused: \(error)")
        }
    }

    private func sign(
        _ publicKey: Certificate.PublicKey, _ name: CertificateName, hosts: [String], life: Int64, now: Timestamp
    ) throws -> String {
        // A short life, as tests have, is not made longer by what lies before it, or renewal would be due at once.
        let before = min(Self.backdating, life / 10)
        var names: [GeneralName] = [.uniformResourceIdentifier("\(name)")]
        for host in hosts {
            names.append(
                Self.address(host).map { .ipAddress(ASN1OctetString(contentBytes: $0[...])) } ?? .dnsName(host))
        }
        let last: String
        switch name.holder {
        case .master: last = "master"
        case .node(let id): last = id
        }
        let certificate = try Certificate(
            version: .v3, serialNumber: Certificate.SerialNumber(), publicKey: publicKey,
            notValidBefore: now.adding(seconds: -before).date, notValidAfter: now.adding(seconds: life).date,
            issuer: issuer.subject,
            subject: try DistinguishedName {
                OrganizationName(cluster)
                CommonName(last)
            },
            signatureAlgorithm: .ecdsaWithSHA256,
            extensions: try Certificate.Extensions {
                Critical(BasicConstraints.notCertificateAuthority)
                Critical(KeyUsage(digitalSignature: true))
                try ExtendedKeyUsage([.serverAuth, .clientAuth])
                SubjectAlternativeNames(names)
            }, issuerPrivateKey: .init(key))
        return try certificate.serializeAsPEM().pemString
    }

    /// The bytes of an IPv4 or IPv6 address; nil for a name.
    static func address(_ text: String) -> [UInt8]? {
        var four = in_addr()
        if inet_pton(AF_INET, text, &four) == 1 { return withUnsafeBytes(of: four) { Array($0) } }
        var six = in6_addr()
        if inet_pton(AF_INET6, text, &six) == 1 { return withUnsafeBytes(of: six) { Array($0) } }
        return nil
    }
}

/// Lower-case hexadecimal digits.
func hexadecimal(_ bytes: some Sequence<UInt8>) -> String {
    let digits = Array("0123456789abcdef".utf8)
    return String(decoding: bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
}
