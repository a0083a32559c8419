import CKernel
import Glibc
import Kernel
import Testing

@testable import Volumes

extension KernelSuite {
    /// Volumes on a real file system: first use, sources of mounts, removal.
    @Suite(.serialized) struct VolumeTests {
        /// A store beside a container's root and a canary.
        final class Fixture {
            let directory: String
            let store: VolumeStore
            var root: String { "\(directory)/root" }
            var canary: String { "\(directory)/canary" }

            init() throws {
                var template = Array("/tmp/martlet-volumes.XXXXXX".utf8CString)
                guard mkdtemp(&template) != nil else { throw KernelError("mkdtemp", errno: errno) }
                directory = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
                try File.makeDirectories("\(directory)/root/data/sub", mode: 0o755)
                try File.makeDirectories("\(directory)/canary/secret", mode: 0o755)
                try File.makeDirectories("\(directory)/run")
                store = try VolumeStore(
                    root: "\(directory)/martlet/volumes", refusedSources: ["\(directory)/martlet", "\(directory)/run"])
            }

            deinit {
                umount2("\(directory)/elsewhere", 2)
                _ = try? Tree.remove(directory)
            }
        }

        @Test func theFirstUseCopiesWhatTheImageHas() throws {
            let fixture = try Fixture()
            let data = "\(fixture.root)/data"
            try File.replace("\(data)/file", with: Array("content".utf8), mode: 0o640)
            chown("\(data)/file", 10, 11)
            link("\(data)/file", "\(data)/again")
            symlink("/etc/passwd", "\(data)/link")
            mkfifo("\(data)/fifo", 0o600)
            chmod("\(data)/fifo", 0o620)
            try File.replace("\(data)/sub/deep", with: [])
            try runTool("/usr/bin/truncate", ["-s", "64M", "\(data)/sparse"])
            setxattr("\(data)/file", "user.note", "kept", 4, 0)
            chmod(data, 0o1770)
            chown(data, 20, 21)
            let past = [timespec(tv_sec: 1000, tv_nsec: 5), timespec(tv_sec: 2000, tv_nsec: 6)]
            utimensat(AT_FDCWD, "\(data)/sub", past, 0)
            try fixture.store.create("v")
            #expect(try fixture.store.populate("v", fromRoot: fixture.root, path: "/data"))
            let volume = try fixture.store.path("v")
            #expect(Set(try File.list(volume)) == ["file", "again", "link", "fifo", "sub", "sparse"])
            let file = try statusOf("\(volume)/file")
            #expect(file.st_uid == 10 && file.st_gid == 11 && file.st_mode & 0o777 == 0o640 && file.st_nlink == 2)
            #expect(try statusOf("\(volume)/again").st_ino == file.st_ino)
            #expect(try statusOf("\(volume)/link").type == S_IFLNK)
            #expect(try statusOf("\(volume)/fifo").st_mode & 0o777 == 0o620)
            #expect(try statusOf("\(volume)/sub").st_mtim.tv_sec == 2000)
            let sparse = try statusOf("\(volume)/sparse")
            #expect(sparse.st_size == 64 << 20 && sparse.st_blocks < 100)
            let root = try statusOf(volume)
            #expect(root.st_mode & 0o7777 == 0o1770 && root.st_uid == 20 && root.st_gid == 21)
            let open = try File.open("\(volume)/file", O_RDONLY)
            #expect(try ExtendedAttribute.all(of: open.raw).map(\.value) == [Array("kept".utf8)])
            // Once only: what a container removed does not come back, and other content is left alone.
            unlink("\(volume)/link")
            #expect(try !fixture.store.populate("v", fromRoot: fixture.root, path: "/data"))
            #expect(!File.exists("\(volume)/link"))
        }

        @Test(arguments: ["/../../canary", "/..//../../../canary", "/out", "/climb", "/nothing", "/data/file", "/loop"])
        func anImageCannotPointOutOfItself(path: String) throws {
            let fixture = try Fixture()
            symlink(fixture.canary, "\(fixture.root)/out")
            symlink("../../../../../../..\(fixture.canary)", "\(fixture.root)/climb")
            symlink("loop", "\(fixture.root)/loop")
            try File.replace("\(fixture.root)/data/file", with: [])
            try fixture.store.create("v")
            #expect(try !fixture.store.populate("v", fromRoot: fixture.root, path: path))
            #expect(try File.list(fixture.store.path("v")).isEmpty)
        }

        @Test func aCopyThatWasCutOffIsDoneAgain() throws {
            let fixture = try Fixture()
            try File.replace("\(fixture.root)/data/file", with: Array("x".utf8))
            try fixture.store.create("v")
            let place = "\(fixture.store.root)/v"
            try File.makeDirectories("\(place)/_data.copying/half")
            #expect(try fixture.store.populate("v", fromRoot: fixture.root, path: "/data"))
            #expect(Set(try File.list("\(place)/_data")) == ["file", "sub"])
            // Cut off between two moves: the rest comes, and what a container made stays.
            try File.makeDirectories("\(place)/_data.ready")
            try File.replace("\(place)/_data.ready/late", with: Array("image".utf8))
            try File.replace("\(place)/_data.ready/file", with: Array("image".utf8))
            #expect(try fixture.store.populate("v", fromRoot: fixture.root, path: "/data"))
            #expect(try File.text("\(place)/_data/late") == "image")
            #expect(try File.text("\(place)/_data/file") == "x")
            #expect(Set(try File.list(place)) == ["_data", "volume.json"])
        }

        @Test func aSubpathStaysInItsVolume() throws {
            let fixture = try Fixture()
            try fixture.store.create("v")
            let volume = try fixture.store.path("v")
            try File.makeDirectories("\(volume)/a/b")
            symlink("a/b", "\(volume)/inside")
            symlink("../../..", "\(volume)/climb")
            symlink(fixture.canary, "\(volume)/out")
            symlink("/proc/self/root", "\(volume)/magic")
            var info = stat()
            let inside = try fixture.store.open("v", subpath: "inside")
            try systemCall("fstat") { fstat(inside.raw, &info) }
            #expect(try info.st_ino == statusOf("\(volume)/a/b").st_ino)
            for path in ["climb", "out", "../x", "a/../../x", "magic", "out/secret"] {
                #expect(throws: VolumeError.self, "\(path)") { _ = try fixture.store.open("v", subpath: path).raw }
            }
            #expect(throws: VolumeError.self) { _ = try fixture.store.open("v", subpath: "/a").raw }
            #expect(throws: VolumeError.self) { _ = try fixture.store.open("other").raw }
        }

        @Test func bindSourcesAreOpenedOnceAndOurOwnAreRefused() throws {
            let fixture = try Fixture()
            let directory = fixture.directory
            symlink("canary", "\(directory)/link")
            let source = try fixture.store.openBindSource("\(directory)/link/secret")
            #expect(source.path == "\(directory)/canary/secret" && source.isDirectory)
            #expect(try source.inode == UInt64(statusOf("\(directory)/canary/secret").st_ino))
            // The name may change its meaning afterwards; the descriptor does not.
            try systemCall("rename") { rename("\(directory)/canary", "\(directory)/moved") }
            var info = stat()
            let raw = source.descriptor.raw
            try systemCall("fstat") { fstat(raw, &info) }
            #expect(UInt64(info.st_ino) == source.inode)

            try fixture.store.create("v")
            symlink("martlet", "\(directory)/alias")
            try File.makeDirectories("\(directory)/elsewhere")
            try systemCall("mount") {
                mount("\(directory)/martlet", "\(directory)/elsewhere", nil, UInt(MS_BIND), nil)
            }
            try File.replace("\(directory)/martlet/file", with: [])
            try File.replace("\(directory)/run/agent.sock", with: [])
            let own = [
                "martlet", "martlet/volumes", "martlet/volumes/v/_data", "alias/volumes", "run", "run/agent.sock",
                "elsewhere/volumes", "elsewhere", "elsewhere/file", "moved/../martlet",
            ]
            for path in own {
                let kind = Self.refusal { _ = try fixture.store.openBindSource("\(directory)/\(path)").path }
                #expect(kind == .refused, "\(path)")
            }
            #expect(Self.refusal { _ = try fixture.store.openBindSource("\(directory)/missing").path } == .notFound)
            #expect(!File.exists("\(directory)/missing"))
            #expect(Self.refusal { _ = try fixture.store.openBindSource("relative").path } == .invalidArgument)
            #expect(Self.refusal { _ = try fixture.store.openBindSource("/proc/self/cwd").path } == .invalidArgument)
            #expect(try fixture.store.openBindSource("/").isDirectory)
        }

        private static func refusal(_ body: () throws -> Void) -> VolumeError.Kind? {
            do {
                try body()
                return nil
            } catch {
                return (error as? VolumeError)?.kind
            }
        }

        @Test func whoHasAMountedVolumeKeepsIt() throws {
            let fixture = try Fixture()
            try fixture.store.create("v", options: ["type": "tmpfs", "o": "size=1m"])
            #expect(try !fixture.store.mount("v"))
            let note = try fixture.store.path("v") + "/note"
            try File.replace(note, with: [])
            // The list is asked for when nobody else can mount it.
            try fixture.store.unmount("v", inUse: ["v"])
            #expect(File.exists(note))
            #expect(throws: VolumeError.self) { try fixture.store.remove("v", inUse: ["v"]) }
            #expect(File.exists(note))
            #expect(try fixture.store.prune(inUse: ["v"], anonymousOnly: false).names.isEmpty)
            try fixture.store.unmount("v")
            #expect(!File.exists(note))
            try fixture.store.remove("v", inUse: [])
        }

        @Test func removalStopsAtAMount() throws {
            let fixture = try Fixture()
            try fixture.store.create("v")
            let inner = try fixture.store.path("v") + "/mounted"
            try File.makeDirectories(inner)
            try systemCall("mount") { mount("\(fixture.canary)", inner, nil, UInt(MS_BIND), nil) }
            defer { umount2("\(fixture.store.root)/.removed.v/_data/mounted", 2) }
            #expect(throws: VolumeError.self) { try fixture.store.remove("v", inUse: []) }
            #expect(File.exists("\(fixture.canary)/secret"))
        }
    }
}
