import Glibc
import Kernel
import NIOHTTP1
import Synchronization
import Testing

@testable import Images

/// Pushes to a registry that fails in between.
@Suite(.enabled(if: geteuid() == 0, "needs root to unpack layers"), .serialized) struct PushFaultTests {
    /// What a registry takes: one upload at a time for each blob, and manifests.
    private final class Uploads: Sendable {
        struct State: Sendable {
            var parts: [String: [UInt8]] = [:]
            var blobs: [Digest: [UInt8]] = [:]
            var manifest: [UInt8] = []
        }
        let state = Mutex(State())

        func answer(_ request: FaultyServer.Request) -> FaultyServer.Answer {
            state.withLock { state in
                let last = String(request.path.split(separator: "/").last ?? "")
                switch request.method {
                case .GET where request.path == "/v2/": return .init()
                case .HEAD: return .init(status: Digest(last).flatMap { state.blobs[$0] } == nil ? 404 : 200)
                case .POST:
                    let name = "upload\(state.parts.count)"
                    state.parts[name] = []
                    return .init(status: 202, headers: ["location": "/up/\(name)?state=1"])
                case .PATCH:
                    state.parts[last]? += request.body
                    return .init(status: 202, headers: ["location": "/up/\(last)?state=1"])
                case .GET:
                    let count = state.parts[last]?.count ?? 0
                    let range = count == 0 ? "0-0" : "0-\(count - 1)"
                    return .init(status: 204, headers: ["location": "/up/\(last)?state=1", "range": range])
                case .PUT where request.path.contains("/manifests/"):
                    state.manifest = request.body
                    return .init(status: 201)
                case .PUT:
                    let bytes = (state.parts[last] ?? []) + request.body
                    let digest = Digest.of(bytes)
                    guard request.target.hasSuffix("&digest=sha256%3A\(digest.hex)") else { return .init(status: 400) }
                    state.blobs[digest] = bytes
                    return .init(status: 201)
                default: return .init(status: 405)
                }
            }
        }
    }

    private func pulled(_ image: SampleImage, into place: StoreFixture) async throws -> ImageRecord {
        let source = try FaultyRegistry(["1": image])
        return try await place.registry().pull(source.reference())
    }

    @Test func aLargeLayerGoesOnWhereItWasCut() async throws {
        var settings = TransferSettings.quick
        settings.chunkBytes = 100_000
        let place = try StoreFixture(settings: settings)
        let image = try SampleImage(layers: [450_000, 500])
        let record = try await pulled(image, into: place)
        let uploads = Uploads()
        let failures = Mutex(0)
        let target = try FaultyServer { request in
            // The second piece is lost, and of the third only the answer.
            if request.method == .PATCH {
                let number = failures.withLock { count in
                    count += 1
                    return count
                }
                if number == 2 { return .init(status: 500) }
                if number == 4 {
                    _ = uploads.answer(request)
                    return .init(status: 502)
                }
            }
            return uploads.answer(request)
        }
        let reference = try ImageReference("\(target.host)/team/app:1")
        let digest = try await place.registry().push("\(record.digest)", to: reference)
        #expect(digest == image.digest)
        let state = uploads.state.withLock { $0 }
        #expect(state.manifest == image.manifest)
        #expect(state.blobs == image.blobs)
        // Five pieces of which one was sent twice; the whole was begun once.
        #expect(target.requests.count { $0.method == .PATCH } == 5)
        #expect(target.requests.count { $0.method == .POST } == image.blobs.count)
    }

    @Test(arguments: [401, 403, 413, 503])
    func aRefusedPushIsSaidAndBounded(status: Int) async throws {
        let place = try StoreFixture()
        let record = try await pulled(SampleImage(layers: [500]), into: place)
        let target = try FaultyServer { request in
            switch request.method {
            case .HEAD: .init(status: 404)
            case .POST: .init(status: status, headers: ["www-authenticate": "Basic realm=\"x\""])
            default: .init()
            }
        }
        let reference = try ImageReference("\(target.host)/team/app:1")
        let kind: ImageError.Kind = status < 404 ? .unauthorized : .unavailable
        await expectFailure(kind) { try await place.registry().push("\(record.digest)", to: reference) }
        #expect(!target.requests.contains { $0.path.contains("/manifests/") })
        #expect(target.requests.count < 20)
    }

    @Test func anUploadIsNotLedIntoPlainHTTPOrNowhere() async throws {
        let place = try StoreFixture()
        let record = try await pulled(SampleImage(layers: [500]), into: place)
        for location in ["http://storage.example.org/x", "nowhere", "ftp://127.0.0.1/x"] {
            let target = try FaultyServer { request in
                request.method == .POST
                    ? .init(status: 202, headers: ["location": location])
                    : .init(status: request.method == .HEAD ? 404 : 200)
            }
            let reference = try ImageReference("\(target.host)/team/app:1")
            await expectFailure(.unavailable) { try await place.registry().push("\(record.digest)", to: reference) }
            #expect(!target.requests.contains { $0.method == .PUT })
        }
        let byDigest = try ImageReference("127.0.0.1:1/a@\(record.digest)")
        await expectFailure(.invalidArgument) { try await place.registry().push("\(record.digest)", to: byDigest) }
    }
}
