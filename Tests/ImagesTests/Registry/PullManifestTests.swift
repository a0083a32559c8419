import Glibc
import JSON
import Kernel
import NIOCore
import NIOHTTP1
import Testing

@testable import Images

/// Indexes, manifests that are refused, and content that another node has.
@Suite(.enabled(if: geteuid() == 0, "needs root to unpack layers"), .serialized) struct PullManifestTests {
    private static let foreign = Platform(architecture: "s390x")

    /// An index of descriptors with platforms.
    private static func index(_ entries: [(type: String, bytes: [UInt8], platform: Platform?)]) throws -> [UInt8] {
        let manifests = entries.map { entry in
            var descriptor = Images.Descriptor(
                mediaType: entry.type, digest: .of(entry.bytes), size: UInt64(entry.bytes.count))
            descriptor.platform = entry.platform.map {
                .init(architecture: $0.architecture, os: $0.os, variant: $0.variant)
            }
            return descriptor
        }
        return try JSONCoding.encode(ImageIndexDocument(manifests: manifests))
    }

    @Test func thePlatformOfAnIndexIsPulledAndTheIndexStandsForIt() async throws {
        let own = try SampleImage(layers: [10])
        let other = try SampleImage(layers: [20], platform: Self.foreign)
        let registry = try FaultyRegistry(["own": own, "other": other])
        let inner = try Self.index([(MediaType.manifest, own.manifest, .host)])
        let outer = try Self.index([
            (MediaType.manifest, other.manifest, Self.foreign), ("application/vnd.example.signature", [1], nil),
            (MediaType.index, inner, nil),
        ])
        registry.publish("inner", type: MediaType.index, inner)
        registry.publish("all", type: MediaType.index, outer)
        let place = try StoreFixture()
        let client = try place.registry()
        let reference = try registry.reference("all")
        let pulled = try await client.pull(reference)
        #expect(pulled.digest == own.digest && pulled.platform == .host)
        let byIndex = "\(reference.repository)@\(Digest.of(outer))"
        #expect(try place.store.resolve(byIndex).digest == own.digest)
        #expect(try place.store.resolve("\(reference.repository)@\(own.digest)").digest == own.digest)
        #expect(throws: ImageError.self) { try place.store.resolve("elsewhere/app@\(Digest.of(outer))") }

        let foreign = try await client.pull(reference, platform: Self.foreign)
        #expect(foreign.digest == other.digest && foreign.names == [reference])
        let message = await expectFailure(.unsupported) {
            try await client.pull(reference, platform: Platform(architecture: "riscv64"))
        }
        #expect(message.contains("linux/s390x"))
        await expectFailure(.unsupported) {
            try await client.pull(registry.reference("other"), platform: Platform(architecture: "riscv64"))
        }
        #expect(try await client.pull(try ImageReference(byIndex)).digest == own.digest)
    }

    @Test func indexesWithinEachOtherHaveABound() async throws {
        let registry = try FaultyRegistry([:])
        var bytes = try SampleImage(layers: []).manifest
        var type = MediaType.manifest
        registry.publish("0", type: type, bytes)
        for level in 1...6 {
            bytes = try Self.index([(type, bytes, nil)])
            type = MediaType.index
            registry.publish("\(level)", type: type, bytes)
        }
        let place = try StoreFixture()
        await expectFailure(.limitExceeded) { try await place.registry().pull(registry.reference("6")) }
        try place.expectNothingAccepted()
    }

    /// What is wrong with a manifest, the error's kind and a word of its message.
    @Test(arguments: [
        ("schema1", ImageError.Kind.unsupported, "schema 1"), ("digest", .invalidArchive, "announced as"),
        ("huge", .limitExceeded, "bytes allowed"), ("json", .invalidArchive, "JSON"),
        ("artifact", .unsupported, "no image"),
        ("type", .invalidArchive, "ambiguous"), ("layers", .invalidArchive, "names"), ("none", .notFound, "404"),
        ("big", .limitExceeded, "bytes allowed"),
    ])
    func aManifestIsRefused(fault: String, kind: ImageError.Kind, word: String) async throws {
        let image = try SampleImage(layers: [10]) { manifest in
            switch fault {
            case "artifact": manifest.config.mediaType = "application/vnd.example.config"
            case "layers": manifest.layers.append(manifest.layers[0])
            case "big": manifest.layers[0].size = 1 << 50
            default: break
            }
        }
        let registry = try FaultyRegistry(["1": image]) { request in
            guard request.path.contains("/manifests/") else { return nil }
            return switch fault {
            case "schema1":
                .init(
                    headers: ["content-type": "application/vnd.docker.distribution.manifest.v1+prettyjws"],
                    body: Array("{}".utf8))
            case "digest":
                .init(
                    headers: ["content-type": MediaType.manifest, "docker-content-digest": "\(Digest.of([]))"],
                    body: image.manifest)
            case "huge": .init(body: [UInt8](repeating: 0x20, count: 5 << 20))
            case "json": .init(headers: ["content-type": MediaType.manifest], body: Array("{".utf8))
            case "type": .init(headers: ["content-type": MediaType.index], body: image.manifest)
            case "none": .init(status: 404, body: Array(#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#.utf8))
            default: nil
            }
        }
        let place = try StoreFixture()
        let message = await expectFailure(kind) { try await place.registry().pull(registry.reference()) }
        #expect(message.contains(word), "\(message)")
        try place.expectNothingAccepted()
    }

    @Test func aLayerThatIsNotWhatTheConfigurationSaysIsRefused() async throws {
        var image = try SampleImage(layers: [10, 20])
        // The layers are right by their digests, but stand in another order than the configuration has them.
        var manifest = try ImageManifest(image.manifest, announced: nil, digest: image.digest, limits: .standard)
        manifest.layers.reverse()
        image.manifest = try JSONCoding.encode(manifest)
        let registry = try FaultyRegistry(["1": image])
        let place = try StoreFixture()
        let message = await expectFailure(.invalidArchive) { try await place.registry().pull(registry.reference()) }
        #expect(message.contains("unpacks to"))
        try place.expectNothingAccepted()
    }

    /// Another node, reduced to what it has to offer.
    private struct Peer: ContentSource {
        let store: ImageStore
        var name: String { "node n2" }

        func open(_ digest: Digest, from offset: UInt64) async throws -> ContentStream {
            let content = try store.openContent(digest)
            let bytes = try Descriptor.readAll(content.file.raw, limit: 1 << 30).dropFirst(Int(offset))
            let stream = AsyncThrowingStream<ByteBuffer, any Error> { continuation in
                continuation.yield(ByteBuffer(bytes: bytes))
                continuation.finish()
            }
            return ContentStream(offset: offset, length: content.size - offset, bytes: stream)
        }

        private typealias Descriptor = Kernel.Descriptor
    }

    @Test func anImageIsFetchedFromAnotherNodeAndFromTheRegistryWhatThatLacks() async throws {
        let image = try SampleImage(layers: [1000, 2000])
        let registry = try FaultyRegistry(["1": image])
        let (first, second) = (try StoreFixture(), try StoreFixture())
        let reference = try registry.reference()
        let pulled = try await first.registry().pull(reference)
        let items = try first.store.content(of: pulled.digest)
        #expect(items.map(\.digest) == [pulled.digest, pulled.configDigest] + image.layers)
        let before = registry.server.requests.count
        let peer = Peer(store: first.store)
        let fetched = try await second.fetcher.fetch(
            pulled.digest, names: pulled.names, origins: pulled.origins ?? [], from: [peer])
        #expect(fetched.digest == pulled.digest && fetched.names == pulled.names && fetched.origins == pulled.origins)
        try second.expectWhole(fetched)
        #expect(registry.server.requests.count == before)

        // Content that belongs to no image of the catalog is not given out.
        try first.store.remove("\(pulled.digest)", force: true, inUse: [])
        #expect(throws: ImageError.self) { try first.store.openContent(pulled.digest) }
        let third = try StoreFixture()
        let sources = try await third.registry().sources(reference)
        let helped = try await third.fetcher.fetch(pulled.digest, from: [peer] + sources)
        try third.expectWhole(helped)
        #expect(helped.names.isEmpty)
    }

    @Test func pullsOfTheSameImageShareTheWork() async throws {
        let image = try SampleImage(layers: [3 << 20, 100_000])
        let registry = try FaultyRegistry(["1": image])
        let place = try StoreFixture()
        let client = try place.registry()
        let reference = try registry.reference()
        try await withThrowingTaskGroup(of: ImageRecord.self) { group in
            for _ in 0..<10 { group.addTask { try await client.pull(reference) } }
            for try await pulled in group { try place.expectWhole(pulled) }
        }
        for layer in image.layers { #expect(registry.fetches(of: layer) == 1) }
        #expect(place.store.list().count == 1)
        #expect(try place.names("downloads").isEmpty && place.names("tmp").isEmpty)
    }
}
