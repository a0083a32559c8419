import JSON
import Kernel
import NIOHTTP1
import Testing

@testable import Images

/// What is read without a network: the configuration, stored logins, challenges, and URLs.
@Suite struct RegistryConfigurationTests {
    private func reading(_ text: String) throws -> RegistryConfiguration {
        try withFile(text) { try RegistryConfiguration(reading: $0) }
    }

    private func withFile<Result>(_ text: String, _ body: (String) throws -> Result) throws -> Result {
        let directory = try StoreFixture.newDirectory()
        defer { _ = try? Tree.remove(directory) }
        try File.replace("\(directory)/file.json", with: Array(text.utf8))
        return try body("\(directory)/file.json")
    }

    @Test func aConfigurationIsRead() throws {
        let configuration = try reading(
            """
            {"dockerConfig": "/root/.docker/config.json", "parallel": 5, "idleTimeout": 60, "hosts": {
              "docker.io": {"mirrors": ["mirror.lan:5000", "cache.lan/hub"]},
              "mirror.lan:5000": {"plainHTTP": true}, "own.lan": {"ca": "/etc/martlet/own.pem"}}}
            """)
        let endpoints = try configuration.endpoints(of: "docker.io")
        #expect(endpoints.map(\.host) == ["mirror.lan", "cache.lan", "registry-1.docker.io"])
        #expect(endpoints.map(\.prefix) == ["", "hub/", ""])
        #expect(endpoints.map(\.name) == ["mirror.lan:5000", "cache.lan", "docker.io"])
        #expect(configuration.allowsPlain("mirror.lan", 5000))
        #expect(!configuration.allowsPlain("mirror.lan", 5001) && !configuration.allowsPlain("mirror.lan", nil))
        #expect(configuration.authorities("own.lan", 443) == "/etc/martlet/own.pem")
        #expect(configuration.authorities("own.lan", 5000) == nil)
        let settings = TransferSettings().with(configuration)
        #expect(settings.parallel == 5 && settings.idleTimeout == .seconds(60))
    }

    @Test func thisMachineMayBePlainAndNobodyElse() {
        let configuration = RegistryConfiguration(hosts: ["127.0.0.2:5000": .init(plainHTTP: false)])
        for host in ["localhost", "127.0.0.1", "127.9.9.9", "[::1]"] { #expect(configuration.allowsPlain(host, 5000)) }
        for host in ["10.0.0.1", "127.0.0.1.example.org", "localhost.example.org", "127.1", "registry.lan"] {
            #expect(!configuration.allowsPlain(host, 5000))
        }
        #expect(!configuration.allowsPlain("127.0.0.2", 5000))
    }

    @Test(arguments: [
        ("[]", "object"), (#"{"mirors": {}}"#, "mirors"), (#"{"hosts": {"a/b": {}}}"#, "a/b"),
        (#"{"hosts": {"a": {"mirrors": ["https://b"]}}}"#, "https://b"),
        (#"{"hosts": {"a": {"mirrors": ["b/../c"]}}}"#, "b/../c"),
        (#"{"hosts": {"a": {"ca": "own.pem"}}}"#, "absolute"),
        (#"{"hosts": {"a": {"ca": "/x", "plainHTTP": true}}}"#, "both"),
        (#"{"hosts": {"a": {"insecure": true}}}"#, "insecure"),
        (#"{"parallel": 0}"#, "parallel"), (#"{"idleTimeout": 100000}"#, "idleTimeout"),
        (#"{"dockerConfig": "x"}"#, "absolute"),
    ])
    func aConfigurationThatIsWrongIsRefused(text: String, word: String) throws {
        do {
            _ = try reading(text)
            Issue.record("\(text) was taken")
        } catch let error as ImageError {
            #expect(error.kind == .invalidArgument && error.message.contains(word), "\(error)")
        }
    }

    @Test func loginsAreFoundUnderAllSpellings() throws {
        let auth = Base64.encode(Array("user:pass:word".utf8))
        let text = """
            {"auths": {"https://index.docker.io/v1/": {"auth": "\(auth)"}, "https://a.lan": {"username": "u", "password": "p"},
              "b.lan:5000": {"identitytoken": "tok", "auth": "\(auth)"}, "stored.lan": {}, "bad.lan": {"auth": "!"}},
             "credHelpers": {"helped.lan": "pass", "a.lan": "pass"}, "credsStore": "desktop", "HttpHeaders": {}}
            """
        try withFile(text) { path in
            let logins = try DockerLogins(reading: path)
            let password = RegistryCredentials.password(user: "user", password: "pass:word")
            #expect(try logins.credentials(for: "docker.io") == password)
            #expect(try logins.credentials(for: "a.lan") == .password(user: "u", password: "p"))
            #expect(try logins.credentials(for: "b.lan:5000") == .identityToken("tok"))
            #expect(try logins.credentials(for: "b.lan") == nil)
            for (host, kind, word) in [
                ("helped.lan", ImageError.Kind.unsupported, "docker-credential-pass"),
                ("stored.lan", .unsupported, "docker-credential-desktop"), ("bad.lan", .invalidArgument, "base64"),
            ] {
                do {
                    _ = try logins.credentials(for: host)
                    Issue.record("\(host) has a login")
                } catch let error as ImageError {
                    #expect(error.kind == kind && error.message.contains(word) && error.message.contains(host))
                }
            }
            #expect(!"\(password) \(String(reflecting: password))".contains("pass:word"))
        }
        #expect(try DockerLogins(reading: "/nonexistent/config.json").credentials(for: "docker.io") == nil)
        #expect(throws: ImageError.self) { try withFile("{") { try DockerLogins(reading: $0) } }
    }

    @Test func challengesAreTakenApart() {
        let text = """
            Basic realm="a \\"quoted\\", one", Bearer realm="https://auth.lan/token",service="r.lan" , scope="repository:a/b:pull,push"
            """
        #expect(
            AuthChallenge.parse(text) == [
                AuthChallenge(scheme: "basic", parameters: ["realm": "a \"quoted\", one"]),
                AuthChallenge(
                    scheme: "bearer",
                    parameters: [
                        "realm": "https://auth.lan/token", "service": "r.lan", "scope": "repository:a/b:pull,push",
                    ]),
            ])
        #expect(AuthChallenge.parse("BEARER Realm = \"x\"").first?.parameters == ["realm": "x"])
        #expect(AuthChallenge.parse("Negotiate").map(\.scheme) == ["negotiate"])
        for broken in ["", ",,,", "=", "Bearer realm=\"open", "Bearer realm=", "\"x\""] {
            #expect(AuthChallenge.parse(broken).allSatisfy { $0.parameters.isEmpty })
        }
        #expect(AuthChallenge.parse(String(repeating: "a ", count: 100_000)).isEmpty)
    }

    @Test func urlsAreReadStrictly() throws {
        let url = try #require(RegistryURL("HTTPS://Registry.LAN:443/v2/a?b=c#d"))
        #expect(url.description == "https://registry.lan/v2/a?b=c")
        #expect(url.resolving("/x")?.description == "https://registry.lan/x")
        #expect(url.resolving("//other.lan/x")?.description == "https://other.lan/x")
        #expect(url.resolving("http://other.lan:80")?.description == "http://other.lan/")
        #expect(RegistryURL("http://[::1]:5000/")?.authority == "[::1]:5000")
        #expect(url.adding("digest", "sha256:a b").target == "/v2/a?b=c&digest=sha256%3Aa%20b")
        for wrong in [
            "", "registry.lan", "ftp://a/", "https://", "https://user@host/", "https://user:pass@host/", "https://a b/",
            "https://a:0/", "https://a:99999/", "https://a\\@b/", "https://ho%73t/", "file:///etc/passwd",
        ] {
            #expect(RegistryURL(wrong) == nil, "\(wrong)")
        }
        #expect(url.resolving("relative") == nil)
    }

    @Test func delaysGrowAndEnd() {
        let settings = TransferSettings()
        #expect(settings.delay(1) < .milliseconds(650))
        #expect(settings.delay(3) > .milliseconds(1500))
        #expect(settings.delay(1000) <= settings.longestDelay * 1.2)
    }

    @Test func aKeyIsHeldByAsManyAsItMayBe() async throws {
        let lock = KeyedLock<Int>(holders: 3)
        let counter = Counter()
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<50 { group.addTask { try await lock.withLock(1) { try await counter.enterAndLeave() } } }
            try await group.waitForAll()
        }
        #expect(await counter.most <= 3)
    }

    @Test func aKeyIsHeldByOneAtATimeAndWaitingForItEndsWithTheTask() async throws {
        let lock = KeyedLock<Int>()
        let counter = Counter()
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<50 { group.addTask { try await lock.withLock(1) { try await counter.enterAndLeave() } } }
            try await group.waitForAll()
        }
        #expect(await counter.most == 1)
        try await lock.withLock(1) {
            let waiter = Task { try await lock.withLock(1) {} }
            waiter.cancel()
            await #expect(throws: CancellationError.self) { try await waiter.value }
            try await lock.withLock(2) {}
        }
        try await lock.withLock(1) {}
    }
}

private actor Counter {
    private var inside = 0
    private(set) var most = 0

    func enterAndLeave() async throws {
        inside += 1
        most = max(most, inside)
        await Task.yield()
        inside -= 1
    }
}
