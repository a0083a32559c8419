import Glibc
import JSON
import Kernel
import NIOHTTP1
import Reactor
import Synchronization
import Testing

@testable import Images

extension BlockingPool: BlockingExecutor {}

/// An image store with what fetches into it, in a directory of its own.
final class StoreFixture: Sendable {
    let directory: String
    let store: ImageStore
    let fetcher: ImageFetcher
    private let isBorrowed: Bool

    /// - Parameter place: where an earlier one was, to begin as a new process does.
    init(settings: TransferSettings = .quick, limits: ImageLimits = .standard, place: String? = nil) throws {
        directory = try place ?? Self.newDirectory()
        isBorrowed = place != nil
        store = try Self.open("\(directory)/images", limits)
        fetcher = ImageFetcher(store: store, work: try BlockingPool(threads: 4, queue: 10_000), settings: settings)
    }

    deinit { if !isBorrowed { _ = try? Tree.remove(directory) } }

    /// The store before may be held for a moment by a thread that is about to be done with it.
    private static func open(_ root: String, _ limits: ImageLimits) throws -> ImageStore {
        for _ in 0..<500 {
            do {
                return try ImageStore(root: root, limits: limits)
            } catch let error as ImageError where error.kind == .inUse {
                usleep(10_000)
            }
        }
        return try ImageStore(root: root, limits: limits)
    }

    static func newDirectory() throws -> String {
        var template = Array("/tmp/martlet-registry.XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw KernelError("mkdtemp", errno: errno) }
        return String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    func registry(_ configuration: RegistryConfiguration = RegistryConfiguration()) throws -> Registry {
        try Registry(configuration, fetcher: fetcher)
    }

    func names(_ folder: String) throws -> [String] { try File.list("\(store.root)/\(folder)") }

    /// The catalog, the blobs and the unpacked layers are as those of a new store.
    func expectNothingAccepted(_ location: SourceLocation = #_sourceLocation) throws {
        #expect(store.list().isEmpty, sourceLocation: location)
        #expect(try names("blobs/sha256").isEmpty, sourceLocation: location)
        #expect(try names("tmp").isEmpty, sourceLocation: location)
    }

    /// All blobs of an image are there and are what their names say.
    func expectWhole(_ image: ImageRecord, _ location: SourceLocation = #_sourceLocation) throws {
        for item in try store.content(of: image.digest) {
            let bytes = try File.read(store.blobs.path(item.digest), limit: 1 << 30)
            #expect(Digest.of(bytes) == item.digest, sourceLocation: location)
            #expect(UInt64(bytes.count) == item.size, sourceLocation: location)
        }
        for id in image.chain { #expect(store.snapshots.contains(id), sourceLocation: location) }
    }
}

extension TransferSettings {
    /// Tries as often as always, and waits next to nothing.
    /// Tries again at once, and takes nobody for hung who is only busy with other tests.
    static var quick: TransferSettings {
        var settings = TransferSettings()
        settings.firstDelay = .milliseconds(5)
        settings.longestDelay = .milliseconds(20)
        return settings
    }

    /// The same for servers that are hung.
    static var impatient: TransferSettings {
        var settings = quick
        settings.idleTimeout = .seconds(1)
        return settings
    }
}

/// An image in memory, as a registry has it.
struct SampleImage: Sendable {
    var blobs: [Digest: [UInt8]] = [:]
    var manifest: [UInt8] = []
    var manifestType = MediaType.manifest
    var layers: [Digest] = []

    var digest: Digest { .of(manifest) }

    /// - Parameters:
    ///   - layers: bytes of the one file in each layer.
    ///   - salt: makes images with the same layers differ.
    init(
        layers sizes: [Int], platform: Platform = .host, salt: String = "",
        changing: (inout ImageManifest) -> Void = { _ in }
    )
        throws
    {
        var descriptors: [Images.Descriptor] = []
        for (index, size) in sizes.enumerated() {
            var tar: [UInt8] = []
            let writer = TarWriter { tar += Array($0) }
            try writer.add("file\(index)", Self.noise(size, seed: UInt64(index + 1)))
            try writer.finish()
            let digest = Digest.of(tar)
            blobs[digest] = tar
            layers.append(digest)
            descriptors.append(Images.Descriptor(mediaType: MediaType.layer, digest: digest, size: UInt64(tar.count)))
        }
        var config = ImageConfig()
        config.labels = ["salt": salt]
        let document = ImageConfigDocument(
            created: nil, author: nil, platform: platform, config: config, diffIDs: layers, history: [])
        let bytes = try JSONCoding.encode(document)
        blobs[.of(bytes)] = bytes
        var manifest = ImageManifest(
            config: Images.Descriptor(mediaType: MediaType.config, digest: .of(bytes), size: UInt64(bytes.count)),
            layers: descriptors)
        changing(&manifest)
        self.manifest = try JSONCoding.encode(manifest)
    }

    /// Bytes that do not compress, the same ones each time.
    static func noise(_ count: Int, seed: UInt64) -> [UInt8] {
        var state = seed &* 0x9e37_79b9_7f4a_7c15 | 1
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count + 8)
        while bytes.count < count {
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            withUnsafeBytes(of: state) { bytes.append(contentsOf: $0) }
        }
        return Array(bytes.prefix(count))
    }
}

/// A registry in memory with faults: what a fault answers is sent, and what it leaves is answered as a registry does.
final class FaultyRegistry: Sendable {
    typealias Fault = @Sendable (FaultyServer.Request) -> FaultyServer.Answer?

    let server: FaultyServer
    private let manifests: SharedManifests

    init(_ images: [String: SampleImage], ignoresRange: Bool = false, fault: @escaping Fault = { _ in nil }) throws {
        let blobs = images.values.reduce(into: [:]) { all, image in all.merge(image.blobs) { first, _ in first } }
        let shared = SharedManifests()
        for (tag, image) in images {
            shared.set(tag, image.manifestType, image.manifest)
            shared.set("\(image.digest)", image.manifestType, image.manifest)
        }
        server = try FaultyServer { request in
            fault(request) ?? Self.answer(request, shared, blobs, ignoresRange: ignoresRange)
        }
        manifests = shared
    }

    /// Puts a further manifest or an index there.
    func publish(_ name: String, type: String, _ bytes: [UInt8]) {
        manifests.set(name, type, bytes)
        manifests.set("\(Digest.of(bytes))", type, bytes)
    }

    func reference(_ tag: String = "1") throws -> ImageReference {
        try ImageReference("\(server.host)/team/app:\(tag)")
    }

    /// How often a blob was asked for.
    func fetches(of digest: Digest) -> Int {
        server.requests.count { $0.method == .GET && $0.path.hasSuffix("\(digest)") }
    }

    private static func answer(
        _ request: FaultyServer.Request, _ manifests: SharedManifests, _ blobs: [Digest: [UInt8]], ignoresRange: Bool
    ) -> FaultyServer.Answer {
        if request.path == "/v2/" { return .init(body: Array("{}".utf8)) }
        let parts = request.path.split(separator: "/").map(String.init)
        guard parts.count >= 4, let name = parts.last else { return .init(status: 404) }
        if parts[parts.count - 2] == "manifests", let found = manifests.get(name) {
            return .init(
                headers: ["content-type": found.type, "docker-content-digest": "\(Digest.of(found.bytes))"],
                body: found.bytes)
        }
        guard let digest = Digest(name), let bytes = blobs[digest] else { return .init(status: 404) }
        guard !ignoresRange, let range = request.headers.first(name: "range"),
            let start = Int(range.dropFirst(6).prefix { $0 != "-" })
        else { return .init(body: bytes) }
        guard start < bytes.count else { return .init(status: 416) }
        return .init(
            status: 206, headers: ["content-range": "bytes \(start)-\(bytes.count - 1)/\(bytes.count)"],
            body: Array(bytes[start...]))
    }
}

private final class SharedManifests: Sendable {
    private let state = Mutex<[String: (type: String, bytes: [UInt8])]>([:])
    func get(_ name: String) -> (type: String, bytes: [UInt8])? { state.withLock { $0[name] } }
    func set(_ name: String, _ type: String, _ bytes: [UInt8]) { state.withLock { $0[name] = (type, bytes) } }
}

/// Expects an `ImageError` of one kind and returns its message.
@discardableResult
func expectFailure<Result>(
    _ kind: ImageError.Kind, _ location: SourceLocation = #_sourceLocation, _ body: () async throws -> Result
) async -> String {
    do {
        _ = try await body()
        Issue.record("nothing failed", sourceLocation: location)
        return ""
    } catch let error as ImageError {
        #expect(error.kind == kind, "\(error)", sourceLocation: location)
        return error.message
    } catch {
        Issue.record("another error: \(error)", sourceLocation: location)
        return ""
    }
}
