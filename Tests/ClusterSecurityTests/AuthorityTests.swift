import Glibc
import JSON
import Kernel
import Testing

@testable import ClusterSecurity

/// The authority of a cluster, and what members check of each other.
@Suite final class AuthorityTests {
    let directory: String
    let now = Timestamp.now()

    init() throws {
        var name = Array("/tmp/martlet-security-XXXXXX".utf8CString)
        try #require(mkdtemp(&name) != nil)
        directory = String(decoding: name.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    func authority(_ name: String = "a", cluster: String = "c1") throws -> CertificateAuthority {
        try CertificateAuthority(directory: "\(directory)/\(name)", cluster: cluster, now: now)
    }

    /// A chain as a handshake shows it.
    func chain(_ certificate: String, _ authority: CertificateAuthority) throws -> [[UInt8]] {
        [try PEM.bytes(certificate), try PEM.bytes(authority.certificate)]
    }

    deinit { _ = try? Tree.remove(directory) }

    @Test func theAuthorityIsMadeOnceAndItsKeyIsForItsOwnerOnly() throws {
        let first = try authority()
        #expect(try authority().pin == first.pin)
        var info = stat()
        #expect(lstat("\(directory)/a/ca.key", &info) == 0)
        #expect(info.st_mode & 0o777 == 0o600)
        chmod("\(directory)/a/ca.key", 0o640)
        let error = #expect(throws: SecurityError.self) { try authority() }
        #expect(error?.description.contains("may be read by others") == true)
    }

    @Test func anAuthorityWithoutItsKeyOrOfAnotherClusterIsRefused() throws {
        _ = try authority()
        let other = #expect(throws: SecurityError.self) { try authority(cluster: "c2") }
        #expect(other?.description.contains("of another cluster") == true)
        unlink("\(directory)/a/ca.key")
        let missing = #expect(throws: SecurityError.self) { try authority() }
        #expect(missing?.description.contains("key") == true)
    }

    @Test func aLostCertificateIsMadeAnewWithTheKeySoThatWhatWasIssuedStaysGood() async throws {
        let before = try authority()
        let master = try before.issueMaster(hosts: ["10.0.0.1"], life: 600, now: now)
        let key = try File.text("\(directory)/a/ca.key")
        unlink("\(directory)/a/ca.crt")
        let after = try authority()
        #expect(try File.text("\(directory)/a/ca.key") == key)
        let chain = try chain(master.certificate, after)
        try await PeerVerification(.certificate(before.certificate)).verify(chain: chain)
        try await PeerVerification(.certificate(after.certificate)).verify(chain: chain)
    }

    @Test func aMasterIsKnownByCertificateAndByPin() async throws {
        let ca = try authority()
        let master = try ca.issueMaster(hosts: ["10.0.0.1", "::1", "m.test"], life: 600, now: now)
        let chain = try chain(master.certificate, ca)
        try await PeerVerification(.certificate(ca.certificate)).verify(chain: chain)
        #expect(try await PeerVerification(.pin(ca.pin)).verify(chain: chain) == ca.certificate)
    }

    @Test func othersAreNotTakenForAMaster() async throws {
        let (ca, other) = (try authority(), try authority("b"))
        let request = try SigningRequest()
        let node = try ca.issueNode("n1", request: request.text, life: 600, now: now)
        let false_ = try other.issueMaster(hosts: [], life: 600, now: now)
        let old = try ca.issueMaster(hosts: [], life: 600, now: now.adding(seconds: -7200))
        let cases: [(PeerVerification, [[UInt8]], String)] = [
            (PeerVerification(.certificate(ca.certificate)), try chain(node, ca), "a master was expected"),
            (
                PeerVerification(.certificate(ca.certificate)), try chain(false_.certificate, other),
                "not of this cluster's authority"
            ),
            (PeerVerification(.pin(ca.pin)), try chain(false_.certificate, other), "does not show the authority"),
            // The pinned authority is shown, but has not signed.
            (PeerVerification(.pin(ca.pin)), try chain(false_.certificate, ca), "not of this cluster's authority"),
            (PeerVerification(.certificate(ca.certificate)), try chain(old.certificate, ca), "ran out"),
            (PeerVerification(.pin(ca.pin)), [], "0 certificates"),
            (PeerVerification(.pin(ca.pin)), [[1, 2, 3]], "does not show the authority"),
        ]
        for (verification, chain, text) in cases {
            let error = await #expect(throws: SecurityError.self) { try await verification.verify(chain: chain) }
            #expect(error?.description.contains(text) == true, "\(error?.description ?? "")")
        }
    }

    @Test func aNodeIsKnownByItsOwnNameOnly() async throws {
        let ca = try authority()
        let request = try SigningRequest()
        let certificate = try ca.issueNode("n1", request: request.text, life: 600, now: now)
        let chain = try chain(certificate, ca)
        #expect(try CertificateName(certificate: chain[0], now: now).holder == .node("n1"))
        // Also on a connection that is older than that.
        for later in [601, -3600] as [Int64] {
            #expect(throws: SecurityError.self) {
                try CertificateName(certificate: chain[0], now: now.adding(seconds: later))
            }
        }
        try await PeerVerification(.certificate(ca.certificate), expecting: .node("n1")).verify(chain: chain)
        await #expect(throws: SecurityError.self) {
            try await PeerVerification(.certificate(ca.certificate), expecting: .node("n2")).verify(chain: chain)
        }
    }

    @Test func aRequestThatWasChangedIsNotSigned() throws {
        let ca = try authority()
        let text = try SigningRequest().text
        for bad in ["", "no PEM", ca.certificate, String(repeating: "A", count: 20_000), try tampered(text)] {
            #expect(throws: SecurityError.self) { try ca.issueNode("n1", request: bad, life: 600, now: now) }
        }
    }

    /// The same request with one bit of its signature turned over.
    func tampered(_ text: String) throws -> String {
        var bytes = try PEM.bytes(text)
        bytes[bytes.count - 3] ^= 1
        return PEM.text(bytes, "CERTIFICATE REQUEST")
    }

    @Test func certificatesAreRenewedAtTwoThirdsOfTheirLife() throws {
        let ca = try authority()
        let master = try ca.issueMaster(hosts: [], life: 900, now: now)
        let (from, until) = try master.validity()
        let renewal = try master.renewal()
        #expect(from <= now && now < renewal && renewal < until)
        #expect(abs((renewal - from) - (until - from) / 3 * 2) < 2_000_000_000)
    }

    @Test func tokensAreReadAsTheyWereWritten() throws {
        let made = TokenText(id: String(repeating: "a", count: 25), pin: String(repeating: "0", count: 64))
        #expect(try TokenText("\(made)") == made)
        #expect(made.secret != TokenText(id: made.id, pin: made.pin).secret)
        #expect(made.secretDigest != made.secret && made.secretDigest.count == 64)
    }

    @Test(arguments: ["", "mlt1", "mlt1.a.b.c", "mlt2." + String(repeating: "a", count: 139), "ghp_secret"])
    func whatIsNoTokenIsNotRepeated(text: String) {
        let error = #expect(throws: SecurityError.self) { try TokenText(text) }
        #expect(text.isEmpty || error?.description.contains(text + " ") == false)
    }
}

/// RFC 7468 by hand, so that tests can break what is inside.
enum PEM {
    private static let digits = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)

    static func bytes(_ text: String) throws -> [UInt8] {
        let body = text.split(separator: "\n").filter { !$0.hasPrefix("-----") }.joined()
        var result: [UInt8] = []
        var value: UInt32 = 0
        var count = 0
        for byte in body.utf8 {
            guard let digit = digits.firstIndex(of: byte) else { continue }
            value = value << 6 | UInt32(digit)
            count += 6
            if count >= 8 {
                count -= 8
                result.append(UInt8(truncatingIfNeeded: value >> UInt32(count)))
            }
        }
        return result
    }

    static func text(_ bytes: [UInt8], _ label: String) -> String {
        var body = ""
        for start in stride(from: 0, to: bytes.count, by: 3) {
            let group = Array(bytes[start..<min(start + 3, bytes.count)])
            let value =
                UInt32(group[0]) << 16 | UInt32(group.count > 1 ? group[1] : 0) << 8
                | UInt32(group.count > 2 ? group[2] : 0)
            for index in 0..<4 {
                body +=
                    index <= group.count
                    ? String(UnicodeScalar(digits[Int(value >> UInt32(18 - 6 * index)) & 63])) : "="
            }
        }
        return "-----BEGIN \(label)-----\n\(body)\n-----END \(label)-----\n"
    }
}
