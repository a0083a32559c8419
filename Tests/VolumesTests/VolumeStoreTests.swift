import Glibc
import Kernel
import Testing

@testable import Volumes

/// Names, records and the life of volumes.
@Suite struct VolumeStoreTests {
    /// A store in a directory of its own.
    final class Fixture {
        let directory: String
        private(set) var store: VolumeStore

        init() throws {
            var template = Array("/tmp/martlet-volumes.XXXXXX".utf8CString)
            guard mkdtemp(&template) != nil else { throw KernelError("mkdtemp", errno: errno) }
            directory = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
            store = try VolumeStore(root: "\(directory)/volumes", refusedSources: [])
        }

        deinit { _ = try? Tree.remove(directory) }

        func reopen() throws {
            store = try VolumeStore(root: "\(directory)/other", refusedSources: [])
            store = try VolumeStore(root: "\(directory)/volumes", refusedSources: [])
        }
    }

    static func kind(_ body: () throws -> Void) -> VolumeError.Kind? {
        do {
            try body()
            return nil
        } catch {
            return (error as? VolumeError)?.kind
        }
    }

    @Test(arguments: ["a", "0", "data.v1_x-y", "A9", String(repeating: "n", count: 128)])
    func isAName(_ name: String) { #expect(VolumeStore.isName(name)) }

    @Test(arguments: [
        "", ".", "..", ".hidden", "-x", "_x", "a/b", "a b", "a\0b", "ä", "\u{ff11}", "a\n",
        String(repeating: "n", count: 129),
    ])
    func isNoName(_ name: String) throws {
        let fixture = try Fixture()
        #expect(Self.kind { try fixture.store.create(name) } == .invalidArgument)
        #expect(Self.kind { _ = try fixture.store.path(name) } == .notFound)
        #expect(Self.kind { try fixture.store.remove(name, inUse: []) } == .notFound)
    }

    @Test func aVolumeIsMadeOnceAndSurvivesARestart() throws {
        let fixture = try Fixture()
        let made = try fixture.store.create("v", labels: ["a": "b"])
        #expect(try fixture.store.create("v", labels: ["other": "label"]) == made)
        try File.replace(fixture.store.path("v") + "/file", with: Array("x".utf8))
        try fixture.reopen()
        #expect(fixture.store.warnings.isEmpty)
        #expect(fixture.store.list() == [made])
        #expect(try File.text(fixture.store.path("v") + "/file") == "x")
        #expect(Self.kind { try fixture.store.create("w", options: ["type": "ext4"]) } == .unsupported)
    }

    @Test func theStoreOpensAgainAlthoughAForkedChildStillHasItsFiles() throws {
        let fixture = try Fixture()
        let lock = "\(fixture.directory)/volumes/.lock"
        let inherited = try #require(
            try File.list("/proc/self/fd").compactMap { Int32($0) }.first { descriptor in
                var (there, open) = (stat(), stat())
                return stat(lock, &there) == 0 && fstat(descriptor, &open) == 0 && there.st_ino == open.st_ino
                    && there.st_dev == open.st_dev
            })
        // What fork(2) does to each descriptor.
        let copy = dup(inherited)
        defer { close(copy) }
        #expect(Self.kind { _ = try VolumeStore(root: "\(fixture.directory)/volumes", refusedSources: []) } == .inUse)
        try fixture.reopen()
    }

    @Test func aUsedVolumeIsKeptAndAnUnusedOneGoesWhole() throws {
        let fixture = try Fixture()
        try fixture.store.create("used")
        try fixture.store.create("named")
        try fixture.store.create("anonymous", anonymous: true)
        #expect(Self.kind { try fixture.store.remove("used", inUse: ["used"]) } == .inUse)
        #expect(try fixture.store.prune(inUse: ["used"], anonymousOnly: true).names == ["anonymous"])
        #expect(try fixture.store.prune(inUse: ["used"], anonymousOnly: false).names == ["named"])
        #expect(fixture.store.list().map(\.name) == ["used"])
        try fixture.store.remove("used", inUse: [])
        #expect(Self.kind { try fixture.store.remove("used", inUse: []) } == .notFound)
        #expect(try File.list(fixture.store.root) == [".lock"])
    }

    @Test func aDamagedRecordLosesLabelsAndNoData() throws {
        let fixture = try Fixture()
        try fixture.store.create("v", labels: ["a": "b"])
        let data = try fixture.store.path("v")
        try File.replace("\(data)/file", with: Array("x".utf8))
        try File.replace("\(fixture.store.root)/v/volume.json", with: Array("{\"name\":".utf8))
        try fixture.reopen()
        #expect(fixture.store.warnings.count == 1)
        #expect(fixture.store.list().map(\.name) == ["v"])
        #expect(try File.text("\(data)/file") == "x")
        try fixture.reopen()
        #expect(fixture.store.warnings.isEmpty)
    }

    @Test func whatACrashLeftIsGoneAtTheNextStart() throws {
        let fixture = try Fixture()
        for name in [".new.a", ".removed.b"] {
            try File.makeDirectories("\(fixture.store.root)/\(name)/_data/deep")
        }
        try fixture.reopen()
        #expect(try File.list(fixture.store.root) == [".lock"])
        #expect(fixture.store.list().isEmpty)
    }

    @Test func oneProcessHasTheStoreOpen() throws {
        let fixture = try Fixture()
        #expect(Self.kind { _ = try VolumeStore(root: fixture.store.root, refusedSources: []) } == .inUse)
    }
}
