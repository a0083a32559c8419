import CKernel
import Glibc
import Kernel
import Testing

@testable import Images

extension KernelSuite {
    /// Names, content and what happens to them when things go wrong.
    @Suite(.serialized) struct ImageStoreTests {
        static func tar(_ text: String) throws -> [UInt8] {
            try TarBuilder.make { try $0.add(.regular, "file", data: text) }
        }

        @Test(arguments: ["none", "gzip", "xz", "zstd", "bzip2"]) func anImportCanBeInspectedAndMounted(tool: String)
            throws
        {
            let fixture = try ImageFixture()
            let tar = try Self.tar("hello")
            let archive = tool == "none" ? tar : try runTool("/usr/bin/\(tool)", ["-c"], input: tar)
            var config = ImageConfig()
            config.command = ["/bin/sh", "-c", "true"]
            config.entrypoint = []
            config.environment = ["PATH=/bin", "EMPTY="]
            config.workingDirectory = "/srv"
            config.user = "1000:1000"
            config.exposedPorts = ["80/tcp", "9000-9010/udp"]
            config.labels = ["a": "b"]
            config.volumes = ["/data"]
            config.stopSignal = "SIGINT"
            config.healthCheck = .init(test: ["CMD", "true"])
            let image = try fixture.importTar(archive, name: "example.org/team/app:2", config: config)
            let details = try fixture.store.inspect("example.org/team/app:2")
            #expect(details.config == config)
            #expect(details.record == image)
            #expect(details.history.count == 1 && details.history.first?.layer == image.layers.first)
            #expect(image.platform == .host && image.created != nil)
            let layer = try #require(image.layers.first)
            #expect(layer.diffID == Digest.of(tar) && layer.unpackedSize == UInt64(tar.count))
            // What OCI has no media type for is kept plain.
            #expect(layer.digest == Digest.of(["xz", "bzip2"].contains(tool) ? tar : archive))
            let task = fixture.path("task")
            #expect(try fixture.store.prepareSnapshot(image: image.digest, taskDirectory: task) == config)
            #expect(try File.text("\(task)/rootfs/file") == "hello")
        }

        @Test func imagesAreFoundByNameDigestAndId() throws {
            let fixture = try ImageFixture()
            let image = try fixture.importTar(Self.tar("a"), name: "busybox")
            let store = fixture.store
            let hex = image.digest.hex
            for reference in [
                "busybox", "busybox:latest", "docker.io/busybox", "docker.io/library/busybox:latest",
                "busybox@\(image.digest)", image.digest.description, image.configDigest.description, hex,
                String(hex.prefix(12)), String(image.configDigest.hex.prefix(20)),
            ] {
                #expect(try store.resolve(reference).digest == image.digest, "\(reference)")
            }
            for reference in ["busybox:1", "other@\(image.digest)", String(repeating: "0", count: 12), "nothing"] {
                expectRefusal(.notFound) { try store.resolve(reference) }
            }
            for reference in ["", "UPPER", "a b", "-x", "a/../b", "x:\u{ff11}", String(hex.prefix(63)) + "g"] {
                #expect(throws: ImageError.self, "\(reference)") { try store.resolve(reference) }
            }
        }

        @Test func aNameMovesToTheNewestImage() throws {
            let fixture = try ImageFixture()
            let first = try fixture.importTar(Self.tar("1"), name: "app")
            let second = try fixture.importTar(Self.tar("2"), name: "app")
            #expect(try fixture.store.resolve("app").digest == second.digest)
            #expect(try fixture.store.resolve(first.digest.description).names.isEmpty)
            try fixture.store.tag(first.digest.description, as: "app:old")
            try fixture.store.tag("app:old", as: "app")
            #expect(try fixture.store.resolve("app").digest == first.digest)
            #expect(
                try fixture.store.resolve(first.digest.description).names.map(\.familiar) == ["app:latest", "app:old"])
            let reopened = try fixture.reopen()
            #expect(try reopened.resolve("app").digest == first.digest)
            #expect(reopened.list().count == 2)
        }

        @Test func removalTakesNamesThenTheImageAndKeepsWhatIsShared() throws {
            let fixture = try ImageFixture()
            let store = fixture.store
            let image = try fixture.importTar(Self.tar("1"), name: "app")
            try store.tag("app", as: "app:2")
            // The same layer under another configuration.
            var config = ImageConfig()
            config.command = ["other"]
            let sibling = try fixture.importTar(Self.tar("1"), name: "sibling", config: config)
            #expect(sibling.chain == image.chain && sibling.digest != image.digest)

            #expect(try store.remove("app", force: false, inUse: []).steps == [.untagged(ImageReference("app"))])
            try store.tag("app:2", as: "app:3")
            expectRefusal(.inUse) { try store.remove(image.digest.description, force: false, inUse: []) }
            let removed = try store.remove(image.digest.description, force: true, inUse: [])
            #expect(removed.bytes > 0)
            #expect(
                try removed.steps
                    == [.untagged(ImageReference("app:2")), .untagged(ImageReference("app:3")), .deleted(image.digest)])
            let task = try fixture.mount(sibling)
            #expect(try File.text("\(task)/rootfs/file") == "1")
            // The store knows what it mounted itself, whatever the caller's list says.
            expectRefusal(.inUse) { try store.remove("sibling", force: false, inUse: []) }
            for reference in ["sibling", sibling.digest.description] {
                #expect(
                    try store.remove(reference, force: true, inUse: []).steps == [.untagged(ImageReference("sibling"))])
                try store.tag(sibling.digest.description, as: "sibling")
            }
            try store.untag("sibling", from: sibling.digest)
            expectRefusal(.inUse) { try store.remove(sibling.digest.description, force: true, inUse: []) }
            #expect(try store.collectGarbage(inUse: [], untagged: true).images.isEmpty)
            _ = try store.removeSnapshot(taskDirectory: task)
            #expect(try store.collectGarbage(inUse: [], untagged: false).images.isEmpty)
            #expect(try store.collectGarbage(inUse: [sibling.digest], untagged: true).images.isEmpty)
            #expect(try store.collectGarbage(inUse: [], untagged: true).images == [sibling.digest])
            try fixture.expectStoreEmpty()
        }

        @Test func oneProcessHasTheStoreOpen() throws {
            let fixture = try ImageFixture()
            expectRefusal(.inUse) { try ImageStore(root: fixture.store.root) }
            #expect(try statusOf(fixture.store.root).st_mode & 0o777 == 0o700)
        }

        @Test func aDamagedLayerIsNoticedWhenItIsUnpackedAndPutAside() throws {
            let fixture = try ImageFixture()
            let store = fixture.store
            let tar = try Self.tar("precious")
            let image = try fixture.importTar(tar)
            let blob = store.blobs.path(try #require(image.layers.first).digest)
            var bytes = try File.read(blob)
            bytes[520] ^= 1
            try File.replace(blob, with: bytes)
            // What is unpacked already goes on to work.
            _ = try fixture.mount(image)
            try Tree.remove(store.snapshots.path(try #require(image.chain.last)))
            let message = expectRefusal(.corrupted) { try fixture.mount(image) }
            #expect(message.contains("quarantine") && message.contains("import"), "\(message)")
            #expect(!File.exists(blob))
            expectRefusal(.notFound) { try fixture.mount(image) }
            // Importing it again heals it.
            let again = try fixture.importTar(tar, name: "again")
            #expect(again.layers == image.layers)
            _ = try fixture.mount(image)
        }

        @Test func damagedDocumentsAreNoticedWhenTheyAreRead() throws {
            let fixture = try ImageFixture()
            let store = fixture.store
            let image = try fixture.importTar(Self.tar("x"))
            let config = store.blobs.path(image.configDigest)
            try File.replace(config, with: File.read(config) + [0x20])
            expectRefusal(.corrupted) { try store.inspect("test:1") }
            expectRefusal(.notFound) { try store.inspect("test:1") }
            _ = try store.collectGarbage(inUse: [])
            #expect(try File.list("\(store.root)/quarantine").isEmpty)
        }

        @Test func aDamagedCatalogIsReplacedByTheOneBeforeOrRebuilt() throws {
            let fixture = try ImageFixture()
            let first = try fixture.importTar(Self.tar("1"), name: "one")
            let second = try fixture.importTar(Self.tar("2"), name: "two")
            let path = fixture.store.catalogPath
            var bytes = try File.read(path)
            let digit = try #require(bytes.lastIndex(of: UInt8(ascii: "2")))
            bytes[digit] = UInt8(ascii: "3")
            try File.replace(path, with: bytes)
            var warnings = try fixture.reopen().warnings
            #expect(warnings.count == 1 && warnings[0].contains("damaged"), "\(warnings)")
            #expect(try fixture.store.resolve("one").digest == first.digest)

            try File.replace(path, with: [])
            try File.replace(path + ".old", with: Array("{".utf8))
            warnings = try fixture.reopen().warnings
            #expect(warnings.count == 3, "\(warnings)")
            #expect(Set(fixture.store.list().map(\.digest)) == [first.digest, second.digest])
            #expect(fixture.store.list().allSatisfy { $0.names.isEmpty })
            _ = try fixture.mount(second)
            #expect(try fixture.reopen().warnings.isEmpty)
        }

        @Test func whatACrashLeftIsGoneAtTheNextStart() throws {
            let fixture = try ImageFixture()
            let image = try fixture.importTar(Self.tar("x"))
            let root = fixture.store.root
            try File.makeDirectories("\(root)/tmp/operation.abc/1/fs")
            try File.replace("\(root)/tmp/operation.abc/2", with: Array("half".utf8))
            let orphan = Array("orphan".utf8)
            try File.replace(fixture.store.blobs.path(.of(orphan)), with: orphan)
            try File.makeDirectories(fixture.store.snapshots.fileSystem(.of(orphan)))
            let store = try fixture.reopen()
            #expect(try File.list("\(root)/tmp").isEmpty)
            #expect(Set(try store.blobs.list()) == Set(image.blobs))
            #expect(try store.snapshots.list() == image.chain)
        }

        /// Killed for good at each marked point: the image is there as a whole, or not at all.
        @Test(arguments: [
            ("images.before_commit", 0), ("images.before_catalog", 0), ("images.after_catalog", 1),
            ("images.before_discard", 0),
        ])
        func aKillLeavesAllOrNothing(point: String, images: Int) async throws {
            let fixture = try ImageFixture()
            let archive = fixture.path("archive")
            try File.replace(archive, with: Self.tar("x"))
            let root = "\(fixture.directory)/killed"
            // Read once here, so that only the child is armed.
            failpoint("images.none")
            setenv("MARTLET_FAILPOINT", point, 1)
            defer { unsetenv("MARTLET_FAILPOINT") }
            await #expect(processExitsWith: .signal(SIGKILL)) { [archive = archive as String, root = root as String] in
                let store = try ImageStore(root: root)
                let file = try File.open(archive, O_RDONLY)
                _ = try store.importTar(file.raw, name: "app")
                _ = try store.remove("app", force: false, inUse: [])
            }
            let store = try ImageStore(root: root)
            #expect(store.warnings.isEmpty)
            #expect(store.list().count == images)
            #expect(try store.blobs.list().count == images * 3)
            #expect(try store.snapshots.list().count == images)
            #expect(try File.list("\(root)/tmp").isEmpty)
            let file = try File.open(archive, O_RDONLY)
            let image = try store.importTar(file.raw, name: "app")
            // Made at another time, it is another image, which now has the name.
            #expect(store.list().count == images + 1)
            #expect(try store.resolve("app").digest == image.digest)
        }

        @Test func aFullDiskKeepsNothingAndGivesEverythingBack() throws {
            let small = "/tmp/martlet-small.\(getpid())"
            try File.makeDirectories(small)
            defer { rmdir(small) }
            try systemCall("mount", small) { mount("tmpfs", small, "tmpfs", 0, "size=24m") }
            defer { umount2(small, 2) }
            let fixture = try ImageFixture(place: small)
            let image = try fixture.importTar(Self.tar("kept"), name: "kept")
            let used = try Self.free(small)
            let noise = try runTool("/usr/bin/head", ["-c", "\(15 << 20)", "/dev/urandom"])
            let path = "/tmp/martlet-large.\(getpid())"
            defer { unlink(path) }
            try File.replace(path, with: TarBuilder.make { try $0.addFile("noise", noise) })
            let large = try File.open(path, O_RDONLY)
            // Blob and unpacked layer do not fit together.
            let message = expectRefusal(.noSpace) { try fixture.store.importTar(large.raw, name: "large") }
            #expect(message.contains("free some space"), "\(message)")
            #expect(try Self.free(small) >= used)
            #expect(fixture.store.list().map(\.digest) == [image.digest])
            #expect(try File.text("\(fixture.mount(image))/rootfs/file") == "kept")

            // To the last byte: reading works, nothing new is taken, removal works and frees.
            let filler = "\(fixture.directory)/filler"
            try Self.fill(filler)
            expectRefusal(.noSpace) { try fixture.store.tag("kept", as: "other") }
            let archive = try File.open(path, O_RDONLY)
            expectRefusal(.noSpace) { try fixture.store.load(archive.raw) }
            #expect(try fixture.store.resolve("kept").names.count == 1)
            #expect(try fixture.store.inspect("kept").record.digest == image.digest)
            for task in try File.list(fixture.directory) where task.hasPrefix("task") {
                _ = try fixture.store.removeSnapshot(taskDirectory: "\(fixture.directory)/\(task)")
            }
            _ = try fixture.store.remove("kept", force: false, inUse: [])
            try fixture.expectStoreEmpty()
            unlink(filler)
            try fixture.importTar(Self.tar("again"), name: "again")
        }

        private static func fill(_ path: String) throws {
            let file = try File.open(path, O_WRONLY | O_CREAT)
            let block = [UInt8](repeating: 1, count: 4096)
            while write(file.raw, block, block.count) > 0 {}
        }

        private static func free(_ path: String) throws -> UInt {
            var info = statfs()
            try systemCall("statfs", path) { statfs(path, &info) }
            return UInt(info.f_bfree)
        }

        @Test func progressIsTold() throws {
            let fixture = try ImageFixture()
            let tar = try TarBuilder.make { try $0.addFile("file", [UInt8](repeating: 1, count: 5 << 20)) }
            let file = try fixture.file(tar)
            var seen: [ImageProgress] = []
            _ = try fixture.store.importTar(file.raw, name: "a", totalBytes: UInt64(tar.count)) { seen.append($0) }
            #expect(seen.count >= 5 && seen.allSatisfy { $0.total == UInt64(tar.count) })
            #expect(seen.last?.done == UInt64(tar.count))
            #expect(zip(seen, seen.dropFirst()).allSatisfy { $0.done <= $1.done })
        }

        @Test func aSlowNonBlockingPipeIsWaitedFor() async throws {
            let fixture = try ImageFixture()
            let tar = try TarBuilder.make { try $0.addFile("file", [UInt8](repeating: 1, count: 300_000)) }
            var ends: [Int32] = [0, 0]
            try systemCall("pipe2") { pipe2(&ends, O_NONBLOCK | O_CLOEXEC) }
            let input = OwnedFD(adopting: ends[0])
            let output = ends[1]
            let writer = Task.detached {
                var rest = tar[...]
                while !rest.isEmpty {
                    let piece = Array(rest.prefix(10_000))
                    let count = write(output, piece, piece.count)
                    if count > 0 { rest = rest.dropFirst(count) }
                    usleep(200)
                }
                close(output)
            }
            let image = try fixture.store.importTar(input.raw, name: "slow")
            await writer.value
            #expect(image.layers.first?.diffID == Digest.of(tar))
        }

        @Test func importsCollectionsAndMountsMayRunAtTheSameTime() async throws {
            let fixture = try ImageFixture()
            let store = fixture.store
            let directory = fixture.directory
            let archives = try (0..<8).map { index in
                let path = fixture.path("archive")
                try File.replace(path, with: Self.tar("\(index % 4)"))
                return path
            }
            try await withThrowingTaskGroup(of: Void.self) { group in
                for (index, archive) in archives.enumerated() {
                    group.addTask {
                        for round in 0..<10 {
                            let file = try File.open(archive, O_RDONLY)
                            let name = "app\(index):\(round)"
                            let image = try store.importTar(file.raw, name: name)
                            let task = "\(directory)/task-\(index)-\(round)"
                            _ = try store.prepareSnapshot(image: image.digest, taskDirectory: task)
                            #expect(try File.text("\(task)/rootfs/file") == "\(index % 4)")
                            _ = try store.removeSnapshot(taskDirectory: task)
                            _ = try store.remove(name, force: false, inUse: [])
                        }
                    }
                }
                group.addTask {
                    for _ in 0..<50 { _ = try store.collectGarbage(inUse: [], untagged: false) }
                }
                try await group.waitForAll()
            }
            try fixture.expectStoreEmpty()
        }
    }
}
