import Glibc
import JSON
import Kernel
import NIOHTTP1
import Synchronization
import Testing

@testable import Images

/// Pulls from registries that are cut, slow, wrong or hostile.
@Suite(.enabled(if: geteuid() == 0, "needs root to unpack layers"), .serialized) struct PullFaultTests {
    private static let megabyte = 1 << 20

    @Test func anImageIsPulledAndTheSecondTimeNothingIsFetched() async throws {
        let image = try SampleImage(layers: [100, 3 * Self.megabyte, 10])
        let registry = try FaultyRegistry(["1": image])
        let place = try StoreFixture()
        let reference = try registry.reference()
        let seen = Mutex<[TransferProgress]>([])
        let pulled = try await place.registry().pull(reference) { step in seen.withLock { $0.append(step) } }
        #expect(pulled.digest == image.digest)
        #expect(pulled.names == [reference])
        #expect(pulled.layers.map(\.digest) == image.layers)
        try place.expectWhole(pulled)
        #expect(try place.names("downloads").isEmpty && place.names("tmp").isEmpty)
        for layer in image.layers {
            let phases = seen.withLock { all in all.filter { $0.digest == layer }.map(\.phase) }
            #expect(phases.contains(.downloaded) && phases.last == .done)
        }
        let byDigest = try place.store.resolve("\(reference.repository)@\(image.digest)")
        #expect(byDigest == pulled)

        let before = image.layers.map { registry.fetches(of: $0) }
        _ = try await place.registry().pull(registry.reference())
        #expect(image.layers.map { registry.fetches(of: $0) } == before)
        #expect(place.store.list().count == 1)
    }

    @Test func aCutDownloadIsContinuedWhereItEnded() async throws {
        let image = try SampleImage(layers: [3 * Self.megabyte])
        let registry = try FaultyRegistry(["1": image]) { request in
            guard request.path.hasSuffix("\(image.layers[0])"), request.earlier < 2 else { return nil }
            let start = request.headers.first(name: "range").flatMap { Int($0.dropFirst(6).dropLast()) } ?? 0
            let bytes = image.blobs[image.layers[0]] ?? []
            return .init(
                status: start == 0 ? 200 : 206,
                headers: ["content-range": "bytes \(start)-\(bytes.count - 1)/\(bytes.count)"],
                body: Array(bytes[start...]), cutAfter: Self.megabyte)
        }
        let place = try StoreFixture()
        let pulled = try await place.registry().pull(registry.reference())
        try place.expectWhole(pulled)
        let ranges = registry.server.requests.filter { $0.path.hasSuffix("\(image.layers[0])") }
            .map { $0.headers.first(name: "range") }
        #expect(ranges.count == 3 && ranges[0] == nil)
        #expect(ranges.dropFirst().allSatisfy { $0?.hasPrefix("bytes=") == true })
    }

    @Test func aNewProcessContinuesWhatTheOneBeforeLeft() async throws {
        let image = try SampleImage(layers: [2 * Self.megabyte])
        let isBroken = Mutex(true)
        let registry = try FaultyRegistry(["1": image]) { request in
            guard request.path.hasSuffix("\(image.layers[0])"), isBroken.withLock({ $0 }) else { return nil }
            if request.headers.contains(name: "range") { return .init(status: 503) }
            return .init(body: image.blobs[image.layers[0]] ?? [], cutAfter: Self.megabyte)
        }
        let directory = try StoreFixture.newDirectory()
        defer { _ = try? Tree.remove(directory) }
        do {
            let place = try StoreFixture(place: directory)
            let message = await expectFailure(.unavailable) { try await place.registry().pull(registry.reference()) }
            #expect(message.contains("503"))
            try place.expectNothingAccepted()
            #expect(try place.names("downloads") == [image.layers[0].hex])
        }
        isBroken.withLock { $0 = false }
        let place = try StoreFixture(place: directory)
        let pulled = try await place.registry().pull(registry.reference())
        try place.expectWhole(pulled)
        let last = try #require(registry.server.requests.last { $0.path.hasSuffix("\(image.layers[0])") })
        let start = try #require(last.headers.first(name: "range").flatMap { Int($0.dropFirst(6).dropLast()) })
        #expect(start > 0)
    }

    @Test func aServerWithoutRangesIsReadFromTheBeginning() async throws {
        let image = try SampleImage(layers: [2 * Self.megabyte])
        let registry = try FaultyRegistry(["1": image], ignoresRange: true) { request in
            guard request.path.hasSuffix("\(image.layers[0])"), request.earlier == 0 else { return nil }
            return .init(body: image.blobs[image.layers[0]] ?? [], cutAfter: Self.megabyte)
        }
        let place = try StoreFixture()
        try place.expectWhole(try await place.registry().pull(registry.reference()))
    }

    @Test func aDamagedBeginningIsThrownAwayAndFetchedAgain() async throws {
        let image = try SampleImage(layers: [Self.megabyte])
        let registry = try FaultyRegistry(["1": image])
        let place = try StoreFixture()
        try File.replace(place.store.downloads.path(image.layers[0]), with: [UInt8](repeating: 7, count: 4096))
        try place.expectWhole(try await place.registry().pull(registry.reference()))
        #expect(registry.fetches(of: image.layers[0]) == 2)
    }

    @Test func aSlowServerIsWaitedForAndAHungOneIsNot() async throws {
        let image = try SampleImage(layers: [200_000])
        let slow = try FaultyRegistry(["1": image]) { request in
            guard request.path.hasSuffix("\(image.layers[0])") else { return nil }
            return .init(body: image.blobs[image.layers[0]] ?? [], piece: 2000)
        }
        let place = try StoreFixture()
        try place.expectWhole(try await place.registry().pull(slow.reference()))

        let hung = try FaultyRegistry(["1": image]) { request in
            guard request.path.hasSuffix("\(image.layers[0])") else { return nil }
            return .init(
                body: image.blobs[image.layers[0]] ?? [], stallAfter: request.headers.contains(name: "range") ? 0 : 10)
        }
        let other = try StoreFixture(settings: .impatient)
        let message = await expectFailure(.unavailable) { try await other.registry().pull(hung.reference()) }
        #expect(message.contains("no byte came in time"))
        try other.expectNothingAccepted()
    }

    /// What a server says wrongly about a layer, with the kind of error and a word of its message.
    enum Lie: CaseIterable, Sendable {
        case otherBytes, tooLong, tooLongUnannounced, tooShort, notThere

        func answer(_ bytes: [UInt8]) -> FaultyServer.Answer {
            var other = bytes
            other[other.count / 2] ^= 1
            return switch self {
            case .otherBytes: .init(body: other)
            case .tooLong: .init(body: bytes + [0])
            case .tooLongUnannounced: .init(body: bytes + bytes, announced: -1)
            case .tooShort: .init(body: Array(bytes.dropLast()))
            case .notThere: .init(status: 404)
            }
        }

        var expected: (kind: ImageError.Kind, words: String) {
            switch self {
            case .otherBytes: (.invalidArchive, "something else")
            case .tooLong, .tooShort: (.invalidArchive, "where the manifest says")
            case .tooLongUnannounced: (.invalidArchive, "is longer than")
            case .notThere: (.notFound, "404")
            }
        }
    }

    @Test(arguments: Lie.allCases)
    func aWrongLayerIsRefusedAndNothingOfItIsAccepted(lie: Lie) async throws {
        let image = try SampleImage(layers: [50, Self.megabyte])
        let registry = try FaultyRegistry(["1": image]) { request in
            guard request.method == .GET, request.path.hasSuffix("\(image.layers[1])") else { return nil }
            return lie.answer(image.blobs[image.layers[1]] ?? [])
        }
        let place = try StoreFixture()
        let message = await expectFailure(lie.expected.kind) { try await place.registry().pull(registry.reference()) }
        #expect(message.contains(lie.expected.words), "\(message)")
        try place.expectNothingAccepted()
        // It is bounded: neither endless tries nor a second opinion from the same server.
        #expect(registry.fetches(of: image.layers[1]) <= 2)
    }

    @Test func aTooLongAnswerIsLeftAtOnce() async throws {
        let image = try SampleImage(layers: [1000])
        let registry = try FaultyRegistry(["1": image]) { request in
            guard request.path.hasSuffix("\(image.layers[0])") else { return nil }
            return .init(body: [UInt8](repeating: 1, count: 64 * Self.megabyte), announced: -1)
        }
        let place = try StoreFixture()
        await expectFailure(.invalidArchive) { try await place.registry().pull(registry.reference()) }
        var info = stat()
        let path = place.store.downloads.path(image.layers[0])
        #expect(lstat(path, &info) != 0 || info.st_size <= image.blobs[image.layers[0]]?.count ?? 0)
    }

    @Test func redirectsAreFollowedButNotForEver() async throws {
        let image = try SampleImage(layers: [1000])
        let storage = try FaultyServer { request in
            request.headers.contains(name: "authorization")
                ? .init(status: 400) : .init(body: image.blobs[image.layers[0]] ?? [])
        }
        let (login, storageHost) = ("Basic " + Base64.encode(Array("u:p".utf8)), storage.host)
        let registry = try FaultyRegistry(["1": image]) { request in
            guard request.headers.first(name: "authorization") == login else {
                return .init(status: 401, headers: ["www-authenticate": "Basic realm=\"x\""])
            }
            guard request.path.hasSuffix("\(image.layers[0])") else { return nil }
            return .init(status: 307, headers: ["location": "http://\(storageHost)/somewhere?signed=1"])
        }
        let place = try StoreFixture()
        let pulled = try await place.registry().pull(
            registry.reference(), credentials: .password(user: "u", password: "p"))
        try place.expectWhole(pulled)
        // The login stays with the registry.
        #expect(!storage.requests.isEmpty)
        #expect(storage.requests.allSatisfy { !$0.headers.contains(name: "authorization") })

        let loop = try FaultyRegistry(["1": image]) { request in
            request.path.contains("/blobs/") ? .init(status: 302, headers: ["location": request.target]) : nil
        }
        let other = try StoreFixture()
        let message = await expectFailure(.unavailable) { try await other.registry().pull(loop.reference()) }
        #expect(message.contains("redirects"))
        #expect(loop.server.requests.count < 20)
        try other.expectNothingAccepted()
    }

    @Test(arguments: [429, 500, 502, 503, 504])
    func whatPassesIsTriedAgainAndWhatStaysIsSaid(status: Int) async throws {
        let image = try SampleImage(layers: [1000])
        let passing = try FaultyRegistry(["1": image]) { request in
            request.path != "/v2/" && request.earlier < 2
                ? .init(status: status, headers: status == 429 ? ["retry-after": "0"] : [:]) : nil
        }
        let place = try StoreFixture()
        try place.expectWhole(try await place.registry().pull(passing.reference()))

        let staying = try FaultyRegistry(["1": image]) { request in
            request.path.contains("/blobs/") ? .init(status: status) : nil
        }
        let other = try StoreFixture()
        let message = await expectFailure(.unavailable) { try await other.registry().pull(staying.reference()) }
        #expect(message.contains("\(status)") && message.contains("tried 5 times"))
        #expect(staying.server.requests.count <= 12)
        try other.expectNothingAccepted()
    }

    @Test func aServerThatWantsTooMuchPatienceIsGivenUp() async throws {
        let image = try SampleImage(layers: [10])
        let registry = try FaultyRegistry(["1": image]) { request in
            request.path.contains("/manifests/") ? .init(status: 429, headers: ["retry-after": "86400"]) : nil
        }
        let place = try StoreFixture()
        let message = await expectFailure(.unavailable) { try await place.registry().pull(registry.reference()) }
        #expect(message.contains("86400 s"))
        #expect(registry.server.requests.count { $0.path.contains("/manifests/") } == 1)
    }

    @Test func aServerThatIsNotThereIsNamed() async throws {
        let server = try FaultyServer { _ in .init() }
        let host = server.host
        withExtendedLifetime(server) {}
        let place = try StoreFixture()
        let closed = try ImageReference("127.0.0.1:1/team/app:1")
        let message = await expectFailure(.unavailable) { try await place.registry().pull(closed) }
        #expect(message.contains("127.0.0.1:1") && message.contains("efused"), "\(message) \(host)")
    }

    @Test func aFullDiskIsSaidAndTheSpaceIsGivenBack() async throws {
        let image = try SampleImage(layers: [3 * Self.megabyte, 6 * Self.megabyte])
        let registry = try FaultyRegistry(["1": image])
        let directory = try StoreFixture.newDirectory()
        defer { _ = try? Tree.remove(directory) }
        #expect(mount("tmpfs", directory, "tmpfs", 0, "size=8m") == 0)
        defer { umount2(directory, 2) }
        do {
            let place = try StoreFixture(place: directory)
            // What an earlier pull has left of something else.
            let leftover = Digest.of([1])
            try File.replace(place.store.downloads.path(leftover), with: [UInt8](repeating: 7, count: 1000))
            let message = await expectFailure(.noSpace) { try await place.registry().pull(registry.reference()) }
            #expect(message.contains("no space left"))
            #expect(place.store.list().isEmpty)
            #expect(try place.names("downloads").isEmpty && place.names("tmp").isEmpty)
            #expect(try place.names("snapshots").isEmpty && place.names("blobs/sha256").isEmpty)
        }
        #expect(mount("tmpfs", directory, "tmpfs", 32, "size=64m") == 0)
        let place = try StoreFixture(place: directory)
        try place.expectWhole(try await place.registry().pull(registry.reference()))
    }

    @Test func aCancelledPullEndsAndIsContinued() async throws {
        let image = try SampleImage(layers: [4 * Self.megabyte])
        let begun = Mutex(false)
        let isSlow = Mutex(true)
        let registry = try FaultyRegistry(["1": image]) { request in
            guard request.path.hasSuffix("\(image.layers[0])"), isSlow.withLock({ $0 }) else { return nil }
            begun.withLock { $0 = true }
            return .init(body: image.blobs[image.layers[0]] ?? [], stallAfter: 2 * Self.megabyte)
        }
        var settings = TransferSettings.quick
        settings.idleTimeout = .seconds(600)
        let place = try StoreFixture(settings: settings)
        let client = try place.registry()
        let reference = try registry.reference()
        let pull = Task { try await client.pull(reference) }
        while !begun.withLock({ $0 }) || place.size(image.layers[0]) < Self.megabyte {
            try await Task.sleep(for: .milliseconds(5))
        }
        pull.cancel()
        await #expect(throws: CancellationError.self) { try await pull.value }
        try place.expectNothingAccepted()
        isSlow.withLock { $0 = false }
        try place.expectWhole(try await client.pull(reference))
    }
}

extension StoreFixture {
    /// Bytes of a begun download.
    func size(_ digest: Digest) -> Int {
        var info = stat()
        return lstat(store.downloads.path(digest), &info) == 0 ? Int(info.st_size) : 0
    }
}
