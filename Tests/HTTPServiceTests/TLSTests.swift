import ClusterSecurity
import Hummingbird
import JSON
import Kernel
import NIOCore
import Testing

@testable import HTTPService

/// TCP is served with TLS only; who is there is told by the certificate that the listener's authority has signed.
@Suite(.timeLimit(.minutes(2))) struct TLSTests {
    /// A server on a port of the kernel's choice, and files that curl reads.
    struct Fixture {
        let directory: String
        let authority: CertificateAuthority
        let identity: TLSIdentity
        let server: HTTPServer

        var port: Int {
            for case .tls(_, let port, _) in server.endpoints { return port }
            return 0
        }

        func curl(_ arguments: String...) async throws -> (code: Int32, output: String) {
            try await run("/usr/bin/curl", ["-sS", "--max-time", "30"] + arguments)
        }

        /// A node's certificate and key as files.
        func node(_ id: String, of other: CertificateAuthority? = nil, life: Int64 = 3600) throws -> [String] {
            let request = try SigningRequest()
            let certificate = try (other ?? authority).issueNode(id, request: request.text, life: life, now: .now())
            let base = "\(directory)/\(id)"
            try File.replace(base + ".crt", with: Array(certificate.utf8))
            try File.replace(base + ".key", with: Array(request.key.utf8))
            return ["--cert", base + ".crt", "--key", base + ".key"]
        }
    }

    static func withTLS(_ body: (Fixture) async throws -> Void) async throws {
        let directory = try makeDirectory()
        defer { _ = try? Tree.remove(directory) }
        let authority = try CertificateAuthority(directory: "\(directory)/ca", cluster: "c1", now: .now())
        let master = try authority.issueMaster(hosts: ["127.0.0.1", "localhost"], life: 3600, now: .now())
        let identity = try TLSIdentity(
            certificate: master.certificate, key: master.key, authority: master.authority)
        let router = makeRouter()
        router.get("who") { _, context in
            guard let certificate = await context.connection.peerCertificate() else { return Response.text("nobody") }
            return Response.text("\(try CertificateName(certificate: certificate))")
        }
        let server = try await HTTPServer.listen(
            on: [.tls(host: "127.0.0.1", port: 0, identity)], router: router, logger: quiet)
        let running = Task { try await server.run() }
        defer { running.cancel() }
        try await body(Fixture(directory: directory, authority: authority, identity: identity, server: server))
        running.cancel()
        try await running.value
    }

    @Test func aCertificateOfTheAuthorityIsTold() async throws {
        try await Self.withTLS { tls in
            let url = "https://127.0.0.1:\(tls.port)/who"
            let trust = ["--cacert", "\(tls.directory)/ca/ca.crt", url]
            let without = try await run("/usr/bin/curl", ["-sS"] + trust).output
            #expect(without == "nobody")
            let with = try await run("/usr/bin/curl", ["-sS"] + tls.node("n7") + trust).output
            #expect(with == "martlet://c1/node/n7")
        }
    }

    @Test func aCertificateOfAnotherAuthorityIsNotLetIn() async throws {
        try await Self.withTLS { tls in
            let other = try CertificateAuthority(directory: "\(tls.directory)/other", cluster: "c1", now: .now())
            let url = "https://127.0.0.1:\(tls.port)/who"
            let false_ = try tls.node("n7", of: other)
            let result = try await run(
                "/usr/bin/curl", ["-sS", "--cacert", "\(tls.directory)/ca/ca.crt", url] + false_)
            #expect(result.code != 0, "\(result.output)")
            #expect(!result.output.contains("n7"))
        }
    }

    @Test func plainHTTPIsNotAnswered() async throws {
        try await Self.withTLS { tls in
            let result = try await tls.curl("http://127.0.0.1:\(tls.port)/who")
            #expect(result.code != 0)
            #expect(!result.output.contains("nobody"))
        }
    }

    @Test func aReplacedCertificateIsShownToNewConnections() async throws {
        try await Self.withTLS { tls in
            let fresh = try tls.authority.issueMaster(hosts: ["renewed.test"], life: 3600, now: .now())
            try tls.identity.replace(certificate: fresh.certificate, key: fresh.key, authority: fresh.authority)
            let result = try await tls.curl(
                "--cacert", "\(tls.directory)/ca/ca.crt", "--resolve", "renewed.test:\(tls.port):127.0.0.1",
                "https://renewed.test:\(tls.port)/who")
            #expect(result.output == "nobody")
        }
    }

    @Test(arguments: [
        (["-H", "Origin: https://evil.example"], "403"), (["-H", "Origin: null"], "403"), ([], "200"),
        (["-H", "Host: else.example", "-H", "Origin: https://else.example"], "200"),
    ])
    func pagesOfOtherHostsAreRefused(headers: [String], status: String) async throws {
        try await Self.withTLS { tls in
            let result = try await run(
                "/usr/bin/curl",
                ["-sS", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", "\(tls.directory)/ca/ca.crt"]
                    + ["https://127.0.0.1:\(tls.port)/who"] + headers)
            #expect(result.output == status)
        }
    }

    @Test func aPortThatIsTakenIsSaid() async throws {
        try await Self.withTLS { tls in
            let error = await #expect(throws: ListenError.self) {
                _ = try await HTTPServer.listen(
                    on: [.tls(host: "127.0.0.1", port: tls.port, tls.identity)], router: makeRouter(), logger: quiet)
            }
            #expect(error?.description.contains("port \(tls.port) of 127.0.0.1 is taken") == true)
        }
    }
}
