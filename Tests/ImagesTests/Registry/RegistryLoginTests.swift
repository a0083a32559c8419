import Glibc
import JSON
import Kernel
import NIOHTTP1
import Synchronization
import Testing

@testable import Images

/// The token server's flow, and who gets to see credentials.
@Suite(.enabled(if: geteuid() == 0, "needs root to unpack layers"), .serialized) struct RegistryLoginTests {
    /// A token server, and what it gives.
    private static func tokens(_ token: @escaping @Sendable (FaultyServer.Request) -> FaultyServer.Answer) throws
        -> FaultyServer
    {
        try FaultyServer(token)
    }

    private static func guarded(_ image: SampleImage, _ realm: String, token: String = "good") throws -> FaultyRegistry
    {
        try FaultyRegistry(["1": image]) { request in
            request.headers.first(name: "authorization") == "Bearer \(token)"
                ? nil : .init(status: 401, headers: ["www-authenticate": "Bearer realm=\"\(realm)\",service=\"reg\""])
        }
    }

    @Test func aTokenIsFetchedForThePasswordAndUsed() async throws {
        let image = try SampleImage(layers: [10])
        let server = try Self.tokens { _ in .init(body: Array(#"{"token":"good","expires_in":60}"#.utf8)) }
        let registry = try Self.guarded(image, "http://\(server.host)/token")
        let place = try StoreFixture()
        _ = try await place.registry().pull(registry.reference(), credentials: .password(user: "u", password: "p"))
        let request = try #require(server.requests.first)
        #expect(server.requests.count == 1)
        #expect(request.headers.first(name: "authorization") == "Basic " + Base64.encode(Array("u:p".utf8)))
        #expect(request.target == "/token?service=reg&scope=repository%3Ateam%2Fapp%3Apull&account=u")
        // The registry itself sees the token and never the password.
        #expect(
            !registry.server.requests.contains { $0.headers.first(name: "authorization")?.hasPrefix("Basic") == true })
    }

    @Test func withoutALoginATokenIsAskedForAsNobody() async throws {
        let image = try SampleImage(layers: [10])
        let server = try Self.tokens { _ in .init(body: Array(#"{"access_token":"good"}"#.utf8)) }
        let registry = try Self.guarded(image, "http://\(server.host)/token")
        let place = try StoreFixture()
        _ = try await place.registry().pull(registry.reference())
        #expect(server.requests.allSatisfy { !$0.headers.contains(name: "authorization") })
    }

    @Test func anIdentityTokenIsExchanged() async throws {
        let image = try SampleImage(layers: [10])
        let server = try Self.tokens { request in
            let form = String(decoding: request.body, as: UTF8.self)
            return request.method == .POST && form.contains("refresh_token=long%2Blived")
                ? .init(body: Array(#"{"access_token":"good"}"#.utf8)) : .init(status: 401)
        }
        let registry = try Self.guarded(image, "http://\(server.host)/token")
        let place = try StoreFixture()
        _ = try await place.registry().pull(registry.reference(), credentials: .identityToken("long+lived"))
    }

    @Test func aTokenThatRunsOutIsRenewed() async throws {
        let image = try SampleImage(layers: [10, 20])
        let given = Mutex(0)
        let server = try Self.tokens { _ in
            let number = given.withLock { count in
                count += 1
                return count
            }
            return .init(body: Array(#"{"token":"t\#(number)"}"#.utf8))
        }
        let realm = "http://\(server.host)/token"
        // Each token is good for manifests or for blobs, not for both.
        let registry = try FaultyRegistry(["1": image]) { request in
            let wanted = request.path.contains("/manifests/") ? "Bearer t1" : "Bearer t2"
            let has = request.headers.first(name: "authorization") ?? ""
            return has >= wanted ? nil : .init(status: 401, headers: ["www-authenticate": "Bearer realm=\"\(realm)\""])
        }
        let place = try StoreFixture()
        try place.expectWhole(try await place.registry().pull(registry.reference()))
    }

    @Test func aRefusedTokenIsNotAskedForAgainAndAgain() async throws {
        let image = try SampleImage(layers: [10])
        let server = try Self.tokens { _ in .init(body: Array(#"{"token":"bad"}"#.utf8)) }
        let registry = try Self.guarded(image, "http://\(server.host)/token")
        let place = try StoreFixture()
        let message = await expectFailure(.unauthorized) {
            try await place.registry().pull(registry.reference(), credentials: .password(user: "u", password: "hush"))
        }
        #expect(message.contains("'u'") && !message.contains("hush"))
        #expect(server.requests.count == 1)
    }

    @Test(arguments: [
        (401, "", "refused"), (200, "{}", "without a token"), (200, "{\"token\":\"a\\nb\"}", "without a token"),
        (302, "", "not followed"),
    ])
    func whatATokenServerMayAnswer(status: Int, body: String, word: String) async throws {
        let image = try SampleImage(layers: [10])
        let server = try Self.tokens { _ in
            .init(
                status: status, headers: status == 302 ? ["location": "http://127.0.0.1:1/"] : [:],
                body: Array(body.utf8))
        }
        let registry = try Self.guarded(image, "http://\(server.host)/token")
        let place = try StoreFixture()
        do {
            _ = try await place.registry().pull(registry.reference(), credentials: .password(user: "u", password: "p"))
            Issue.record("it was pulled")
        } catch let error as ImageError {
            #expect(error.message.contains(word), "\(error)")
        }
    }

    @Test(arguments: ["http://auth.example.org/token", "nowhere", "file:///etc/passwd", "http://u:p@127.0.0.1/"])
    func aTokenServerThatMayNotBeAskedIsNot(realm: String) async throws {
        let registry = try Self.guarded(SampleImage(layers: [10]), realm)
        let place = try StoreFixture()
        let message = await expectFailure(.unauthorized) { try await place.registry().pull(registry.reference()) }
        #expect(message.contains("cannot be asked"))
    }

    @Test func credentialsThatAreGivenDoNotGoToAMirror() async throws {
        let image = try SampleImage(layers: [10])
        let mirror = try FaultyRegistry([:]) { _ in
            .init(status: 401, headers: ["www-authenticate": "Basic realm=\"x\""])
        }
        let registry = try FaultyRegistry(["1": image])
        let place = try StoreFixture()
        let configuration = RegistryConfiguration(hosts: [registry.server.host: .init(mirrors: [mirror.server.host])])
        let pulled = try await place.registry(configuration).pull(
            registry.reference(), credentials: .password(user: "u", password: "p"))
        try place.expectWhole(pulled)
        #expect(!mirror.server.requests.isEmpty)
        #expect(mirror.server.requests.allSatisfy { !$0.headers.contains(name: "authorization") })
    }

    @Test func aMirrorIsAskedFirstAndTheRegistryHelpsOut() async throws {
        let image = try SampleImage(layers: [1000, 2000])
        let (first, last) = (image.layers[0], image.layers[1])
        let registry = try FaultyRegistry(["1": image])
        let mirror = try FaultyRegistry(["1": image]) { request in
            request.path.hasSuffix("\(last)")
                ? .init(body: [UInt8](repeating: 0, count: image.blobs[last]?.count ?? 0)) : nil
        }
        var settings = TransferSettings.quick
        settings.parallel = 1
        let place = try StoreFixture(settings: settings)
        let configuration = RegistryConfiguration(
            hosts: [registry.server.host: .init(mirrors: ["127.0.0.1:1", "\(mirror.server.host)/cache"])])
        let pulled = try await place.registry(configuration).pull(registry.reference())
        try place.expectWhole(pulled)
        #expect(mirror.server.requests.contains { $0.path == "/v2/cache/team/app/manifests/1" })
        #expect(mirror.fetches(of: first) == 1 && registry.fetches(of: first) == 0)
        #expect(registry.fetches(of: last) == 1)
        #expect(pulled.names == [try registry.reference()])
    }
}
