import Glibc
import JSON
import Kernel
import NIOCore
import NIOHTTP1
import Synchronization
import Testing

@testable import Images

/// Transfers that do not get on, and many at once.
@Suite(.enabled(if: geteuid() == 0, "needs root to unpack layers"), .serialized) struct PullPaceTests {
    @Test func aServerThatDripsIsGivenUp() async throws {
        let image = try SampleImage(layers: [300_000])
        let dripping = try FaultyRegistry(["1": image]) { request in
            guard request.path.hasSuffix("\(image.layers[0])") else { return nil }
            return .init(body: image.blobs[image.layers[0]] ?? [], piece: 10)
        }
        var settings = TransferSettings.impatient
        settings.ratePeriod = .milliseconds(300)
        let place = try StoreFixture(settings: settings)
        let message = await expectFailure(.unavailable) { try await place.registry().pull(dripping.reference()) }
        #expect(message.contains("bytes came in") && message.contains("tried 5 times"), "\(message)")
        try place.expectNothingAccepted()
    }

    @Test func patienceIsAskedForInSecondsOrUntilADate() throws {
        let now = try #require(Timestamp(rfc3339: "1994-11-06T08:49:30Z"))
        #expect(RegistrySession.patience("120", now: now) == .seconds(120))
        #expect(RegistrySession.patience("Sun, 06 Nov 1994 08:49:37 GMT", now: now) == .seconds(7))
        #expect(RegistrySession.patience("Sun, 06 Nov 1994 08:49:00 GMT", now: now) == .zero)
        for text in ["", "-1", "soon", "Sun, 06 Nov 1994 08:49:37", "Sun, 06 Foo 1994 08:49:37 GMT"] {
            #expect(RegistrySession.patience(text, now: now) == nil, "\(text)")
        }
    }

    @Test func aManifestThatDripsIsGivenUp() async throws {
        let image = try SampleImage(layers: [10])
        let dripping = try FaultyRegistry(["1": image]) { request in
            guard request.path.contains("/manifests/") else { return nil }
            return .init(
                headers: ["content-type": image.manifestType],
                body: image.manifest + [UInt8](repeating: 0x20, count: 100_000), piece: 10)
        }
        let place = try StoreFixture(settings: .impatient)
        let message = await expectFailure(.unavailable) { try await place.registry().pull(dripping.reference()) }
        #expect(message.contains("was given up"), "\(message)")
    }

    /// A node that died without a word: its connection is there, and stays silent.
    private struct SilentPeer: ContentSource {
        enum Moment: CaseIterable { case head, body }
        let moment: Moment
        let store: ImageStore
        var name: String { "node silent" }

        func open(_ digest: Images.Digest, from offset: UInt64) async throws -> ContentStream {
            let file = try store.openContent(digest)
            if moment == .head { try await Task.sleep(for: .seconds(3600)) }
            let (bytes, continuation) = AsyncThrowingStream<ByteBuffer, any Error>.makeStream()
            // Documents come whole, so that layers are begun.
            let whole = try store.blobs.read(digest, limit: 16 << 20)
            continuation.yield(ByteBuffer(bytes: file.size > 10_000 ? Array(whole.prefix(1000)) : whole))
            if file.size <= 10_000 { continuation.finish() }
            return ContentStream(offset: 0, length: file.size, bytes: bytes)
        }
    }

    @Test(arguments: SilentPeer.Moment.allCases)
    private func aNodeThatFallsSilentIsLeftForTheNextSource(moment: SilentPeer.Moment) async throws {
        let image = try SampleImage(layers: [200_000])
        let registry = try FaultyRegistry(["1": image])
        let (first, second) = (try StoreFixture(), try StoreFixture(settings: .impatient))
        let reference = try registry.reference()
        let pulled = try await first.registry().pull(reference)
        let sources = try await second.registry().sources(reference)
        let fetched = try await second.fetcher.fetch(
            pulled.digest, from: [SilentPeer(moment: moment, store: first.store)] + sources)
        try second.expectWhole(fetched)
    }

    @Test func manyPullsShareABoundedNumberOfDownloads() async throws {
        let images = try (0..<12).map { try SampleImage(layers: [2 * 1000 + $0, 3000 + $0, 4000 + $0]) }
        let named = Dictionary(uniqueKeysWithValues: images.enumerated().map { ("t\($0.offset)", $0.element) })
        let open = Mutex((now: 0, most: 0))
        let registry = try FaultyRegistry(named)
        let place = try StoreFixture()
        let sources: [any ContentSource] = try await place.registry().sources(registry.reference("t0"))
            .map {
                Counting(
                    source: $0,
                    count: { change in
                        open.withLock {
                            $0.now += change; $0.most = max($0.most, $0.now)
                        }
                    })
            }
        try await withThrowingTaskGroup(of: Void.self) { group in
            for image in images {
                group.addTask { _ = try await place.fetcher.fetch(image.digest, from: sources) }
            }
            try await group.waitForAll()
        }
        #expect(place.store.list().count == images.count)
        #expect(open.withLock { $0.most } > 1 && open.withLock { $0.most } <= 16)
    }

    /// Counts the blobs that are open; configurations, which are small, are not counted.
    private struct Counting: ContentSource {
        let source: any ContentSource
        let count: @Sendable (Int) -> Void
        var name: String { source.name }

        func document(_ digest: Images.Digest, limit: Int) async throws -> ContentDocument {
            try await source.document(digest, limit: limit)
        }

        func open(_ digest: Images.Digest, from offset: UInt64) async throws -> ContentStream {
            let stream = try await source.open(digest, from: offset)
            guard let length = stream.length, length > 1500 else { return stream }
            count(1)
            let (bytes, continuation) = AsyncThrowingStream<ByteBuffer, any Error>.makeStream()
            Task {
                try? await Task.sleep(for: .milliseconds(20))
                for try await piece in stream.bytes { continuation.yield(piece) }
                count(-1)
                continuation.finish()
            }
            return ContentStream(offset: stream.offset, length: stream.length, bytes: bytes)
        }
    }

    private final class Finding: Sendable { let isThere = Mutex<Bool?>(nil) }

    @Test func whatIsRemovedIsLookedUpAmongTheTasksOfThatVeryMoment() async throws {
        let image = try SampleImage(layers: [10])
        let registry = try FaultyRegistry(["1": image])
        let place = try StoreFixture()
        let pulled = try await place.registry().pull(registry.reference())
        let store = place.store
        // A task that comes while its image is being removed either is among those in use, or finds the image gone.
        let found = Finding()
        func tasks() -> Set<Images.Digest> {
            let looking = Task.detached {
                let isThere = (try? store.resolve("\(pulled.digest)")) != nil
                found.isThere.withLock { $0 = isThere }
            }
            usleep(50_000)
            withExtendedLifetime(looking) {}
            #expect(found.isThere.withLock { $0 } == nil)
            return []
        }
        try store.remove("\(pulled.digest)", force: true, inUse: tasks())
        while found.isThere.withLock({ $0 }) == nil { await Task.yield() }
        #expect(found.isThere.withLock { $0 } == false)
    }

    @Test func aCopyDoesNotTakeANameThatMeansSomethingElseByNow() async throws {
        let (old, new) = (try SampleImage(layers: [10], salt: "old"), try SampleImage(layers: [10], salt: "new"))
        let registry = try FaultyRegistry(["1": new, "old": old])
        let place = try StoreFixture()
        let name = try registry.reference()
        let current = try await place.registry().pull(name)
        let free = try ImageReference("free:1")
        let copy = try await place.fetcher.fetch(
            old.digest, names: [name, free], takesNames: false, from: try await place.registry().sources(name))
        #expect(copy.names == [free])
        #expect(try place.store.resolve(name.description).digest == current.digest)
    }
}
