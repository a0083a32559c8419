import Glibc
import JSON
import Kernel
import Synchronization
import Testing

@testable import Images

/// Against Debian's registry, with images that skopeo brought there and takes from there.
@Suite(.enabled(if: DebianRegistry.isInstalled, "needs root, docker-registry and skopeo"), .serialized)
struct DebianRegistryTests {
    /// bcrypt of `secret`.
    private static let password = "$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a"

    @Test(arguments: ["oci", "v2s2"])
    func whatSkopeoPushedIsPulled(format: String) async throws {
        let registry = try DebianRegistry()
        let image = try SampleImage(layers: [1000, 2_000_000])
        try registry.fill("team/app:1", image, format: format)
        let place = try StoreFixture()
        let client = try place.registry()
        let reference = try registry.reference("team/app:1")
        let pulled = try await client.pull(reference)
        try place.expectWhole(pulled)
        #expect(pulled.layers.map(\.diffID) == image.layers)
        let resolved = try await client.resolve(reference)
        #expect(resolved.digest == pulled.digest)
        #expect(resolved.mediaType.map(MediaType.manifests.contains) == true)

        let byDigest = try ImageReference("\(reference.repository)@\(pulled.digest)")
        let other = try StoreFixture()
        let second = try await other.registry().pull(byDigest)
        #expect(second.digest == pulled.digest && second.names.isEmpty)
        #expect(try other.store.resolve(byDigest.description) == second)
        await expectFailure(.notFound) { try await client.pull(registry.reference("team/app:2")) }
        await expectFailure(.notFound) { try await client.pull(registry.reference("team/none:1")) }
    }

    @Test func whatIsPushedIsReadBySkopeoAndPulledAgain() async throws {
        let registry = try DebianRegistry()
        let image = try SampleImage(layers: [1000, 3_000_000])
        try registry.fill("team/app:1", image)
        var settings = TransferSettings.quick
        settings.chunkBytes = 1 << 20
        let place = try StoreFixture(settings: settings)
        let client = try place.registry()
        let pulled = try await client.pull(registry.reference("team/app:1"))
        // To another registry: everything is sent, the large layer in pieces.
        let target = try DebianRegistry()
        let seen = Mutex<[TransferProgress]>([])
        let digest = try await client.push("\(pulled.digest)", to: target.reference("copy/app:2")) { step in
            seen.withLock { $0.append(step) }
        }
        #expect(digest == pulled.digest)
        #expect(seen.withLock { $0.count { $0.phase == .done } } == 3)
        try registry.skopeo([
            "copy", "--src-tls-verify=false", "docker://\(target.host)/copy/app:2", "oci:\(target.directory)/taken:1",
        ])
        let other = try StoreFixture()
        let again = try await other.registry().pull(target.reference("copy/app:2"))
        #expect(again.digest == pulled.digest)
        try other.expectWhole(again)

        // To another repository of the same registry: nothing is sent.
        seen.withLock { $0 = [] }
        try await client.push("\(pulled.digest)", to: registry.reference("other/app:1")) { step in
            seen.withLock { $0.append(step) }
        }
        #expect(seen.withLock { all in all.count == 3 && all.allSatisfy { $0.phase == .present } })
        #expect(try await client.resolve(registry.reference("other/app:1")).digest == pulled.digest)
    }

    @Test func aLoginIsTakenFromDockersFileOrFromTheCaller() async throws {
        let registry = try DebianRegistry(.init(password: Self.password))
        let (right, wrong) = (
            RegistryCredentials.password(user: "tester", password: "secret"),
            RegistryCredentials.password(user: "tester", password: "guess")
        )
        let place = try StoreFixture()
        let client = try place.registry()
        let message = await expectFailure(.unauthorized) { try await client.login(registry.host) }
        #expect(message.contains("login"))
        let refused = await expectFailure(.unauthorized) { try await client.login(registry.host, credentials: wrong) }
        #expect(refused.contains("tester") && !refused.contains("guess"))
        try await client.login(registry.host, credentials: right)

        let file = "\(place.directory)/config.json"
        let auth = Base64.encode(Array("tester:secret".utf8))
        try File.replace(file, with: Array(#"{"auths":{"\#(registry.host)":{"auth":"\#(auth)"}}}"#.utf8))
        let image = try SampleImage(layers: [5000])
        let source = try DebianRegistry()
        try source.fill("app:1", image)
        let loggedIn = try place.registry(RegistryConfiguration(dockerConfig: file))
        let pulled = try await loggedIn.pull(source.reference("app:1"))
        try await loggedIn.push("\(pulled.digest)", to: registry.reference("app:1"))
        let other = try StoreFixture()
        await expectFailure(.unauthorized) { try await other.registry().pull(registry.reference("app:1")) }
        let taken = try await other.registry().pull(registry.reference("app:1"), credentials: right)
        #expect(taken.digest == pulled.digest)
    }

    @Test func anOwnAuthorityIsTrustedWhereItIsNamed() async throws {
        let registry = try DebianRegistry(.init(hasTLS: true))
        let place = try StoreFixture()
        let message = await expectFailure(.unavailable) { try await place.registry().login(registry.host) }
        #expect(message.contains("not trusted"))
        let known = RegistryConfiguration(hosts: [registry.host: .init(ca: registry.authority)])
        try await place.registry(known).login(registry.host)
        let file = try #require(registry.authority)
        try File.replace(file, with: Array("no certificate".utf8))
        await expectFailure(.invalidArgument) { try await place.registry(known).login(registry.host) }
    }

    @Test func fiftyPullsBesideGarbageCollectionLoseNothing() async throws {
        let registry = try DebianRegistry()
        let base = [300_000, 700_000]
        var expected: [String: Int] = [:]
        for number in 0..<10 {
            // Two layers that all have, one that two have, and a configuration of its own.
            let image = try SampleImage(layers: base + [1000 * (number / 2 + 1)], salt: "\(number)")
            try registry.fill("app:\(number)", image)
            expected["app:\(number)"] = image.layers.count
        }
        let place = try StoreFixture()
        let client = try place.registry()
        let isOver = Mutex(false)
        let rounds = Mutex(0)
        let collector = Task {
            while !isOver.withLock({ $0 }) {
                try await place.fetcher.work.run {
                    _ = try place.store.collectGarbage(inUse: [], downloadsUnusedFor: 0)
                }
                rounds.withLock { $0 += 1 }
                try await Task.sleep(for: .milliseconds(1))
            }
        }
        try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 0..<50 {
                group.addTask {
                    let name = try registry.reference("app:\(number % 10)")
                    let image = try await client.pull(name)
                    if number % 10 >= 8 {
                        // Two are removed again and again, so that there is garbage and shared layers lose users.
                        _ = try? place.store.remove("\(image.digest)", force: true, inUse: [])
                    } else {
                        try place.expectWhole(image)
                    }
                }
            }
            try await group.waitForAll()
        }
        isOver.withLock { $0 = true }
        try await collector.value
        #expect(rounds.withLock { $0 } > 0)
        for image in place.store.list() { try place.expectWhole(image) }
        for number in 0..<10 {
            let image = try await client.pull(registry.reference("app:\(number)"))
            #expect(image.layers.count == expected["app:\(number)"])
            try place.expectWhole(image)
        }
        #expect(place.store.list().count == 10)
        #expect(try place.names("downloads").isEmpty && place.names("tmp").isEmpty)
    }
}
