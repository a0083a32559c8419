import CKernel
import Glibc
import Kernel
import Testing

@testable import Images

extension KernelSuite {
    /// What layers look like on disk and through overlayfs.
    @Suite(.serialized) struct ImageLayerTests {
        /// An image of several layers, each given as a tar, loaded as docker would save it.
        static func load(_ layers: [[UInt8]], into fixture: ImageFixture) throws -> ImageRecord {
            let ids = layers.map { "\"\(Digest.of($0))\"" }.joined(separator: ",")
            let config =
                #"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[\#(ids)]},"config":{}}"#
            let archive = try TarBuilder.make {
                for (index, layer) in layers.enumerated() { try $0.addFile("\(index)/layer.tar", layer) }
                let names = layers.indices.map { "\"\($0)/layer.tar\"" }.joined(separator: ",")
                try $0.addFile("config.json", Array(config.utf8))
                try $0.addFile(
                    "manifest.json",
                    Array(#"[{"Config":"config.json","RepoTags":["layers:1"],"Layers":[\#(names)]}]"#.utf8))
            }
            return try #require(fixture.load(archive).first)
        }

        @Test func metadataIsKept() throws {
            let fixture = try ImageFixture()
            // VFS_CAP_REVISION_2 with CAP_NET_RAW, as setcap writes it.
            let capability: [UInt8] = [1, 0, 0, 2, 0, 32, 0, 0] + [UInt8](repeating: 0, count: 12)
            let tar = try TarBuilder.make {
                try $0.add(.directory, "./", mode: 0o711, uid: 5, gid: 6, modified: 1111)
                try $0.add(.directory, "dir/", mode: 0o1777, uid: 1, gid: 2, modified: 2222)
                try $0.add(
                    .regular, "dir/suid", data: "x", mode: 0o6755, uid: 1000, gid: 1001, modified: 3333,
                    attributes: [
                        ("security.capability", capability), ("user.note", Array("kept".utf8)),
                        ("security.selinux", Array("dropped".utf8)), ("trusted.other", Array("dropped".utf8)),
                    ])
                try $0.add(.symbolicLink, "dir/link", target: "suid", uid: 3, gid: 4, modified: 4444)
                try $0.add(.fifo, "fifo", mode: 0o620, uid: 9)
                try $0.add(.characterDevice, "null", mode: 0o666, device: (1, 3))
                try $0.add(.blockDevice, "disk", mode: 0o660, gid: 6, device: (259, 70_000))
                try $0.add(.hardLink, "dir/again", target: "dir/suid")
            }
            let layer = try fixture.layer(try fixture.importTar(tar))
            let root = try statusOf(layer)
            #expect(root.st_mode & 0o7777 == 0o711 && root.st_uid == 5 && root.st_gid == 6)
            #expect(root.st_mtim.tv_sec == 1111)
            let dir = try statusOf("\(layer)/dir")
            #expect(dir.st_mode & 0o7777 == 0o1777 && dir.st_uid == 1 && dir.st_gid == 2)
            #expect(dir.st_mtim.tv_sec == 2222)
            let suid = try statusOf("\(layer)/dir/suid")
            #expect(suid.st_mode & 0o7777 == 0o6755 && suid.st_uid == 1000 && suid.st_gid == 1001 && suid.st_nlink == 2)
            #expect(suid.st_mtim.tv_sec == 3333)
            let link = try statusOf("\(layer)/dir/link")
            #expect(link.type == S_IFLNK && link.st_uid == 3 && link.st_gid == 4 && link.st_mtim.tv_sec == 4444)
            let fifo = try statusOf("\(layer)/fifo")
            #expect(fifo.type == S_IFIFO && fifo.st_mode & 0o7777 == 0o620 && fifo.st_uid == 9)
            let null = try statusOf("\(layer)/null")
            #expect(null.type == S_IFCHR && null.st_mode & 0o7777 == 0o666)
            #expect(ck_major(UInt64(null.st_rdev)) == 1 && ck_minor(UInt64(null.st_rdev)) == 3)
            let disk = try statusOf("\(layer)/disk")
            #expect(ck_major(UInt64(disk.st_rdev)) == 259 && ck_minor(UInt64(disk.st_rdev)) == 70_000)
            let file = try File.open("\(layer)/dir/suid", O_RDONLY)
            let attributes = try ExtendedAttribute.all(of: file.raw).map { String(decoding: $0.name, as: UTF8.self) }
            #expect(Set(attributes) == ["security.capability", "user.note"])
        }

        @Test func namesAreBytes() throws {
            let fixture = try ImageFixture()
            let composed = "caf\u{e9}"
            let decomposed = "cafe\u{301}"
            var invalid = TarEntry(.regular, [0x62, 0xff, 0xfe])
            invalid.size = 1
            let tar = try TarBuilder.make {
                try $0.add(.regular, composed, data: "one")
                try $0.add(.regular, decomposed, data: "two")
                try $0.add(invalid, [0x78])
                try $0.add(
                    .regular, String(repeating: "d/", count: 80) + String(repeating: "n", count: 255), data: "deep")
            }
            let layer = try fixture.layer(try fixture.importTar(tar))
            let directory = try File.open(layer, O_RDONLY | O_DIRECTORY)
            let names = try ByteName.list(directory.raw, limit: 10)
            #expect(Set(names) == [Array(composed.utf8), Array(decomposed.utf8), invalid.path, [0x64]])
            #expect(try File.text("\(layer)/\(composed)") == "one")
            #expect(try File.text("\(layer)/\(decomposed)") == "two")
        }

        @Test func sparseFilesStaySparse() throws {
            let fixture = try ImageFixture()
            let place = fixture.path("sparse")
            try File.makeDirectories(place)
            let script = """
                import sys
                with open(sys.argv[1] + "/holes", "wb") as f:
                    for i in range(60):
                        f.seek(i * 1048576 + 65536); f.write(b"data%d" % i)
                    f.truncate(64 * 1048576)
                """
            try runTool("/usr/bin/python3", ["-c", script, place])
            for format in ["gnu", "pax", "pax --sparse-version=0.0", "pax --sparse-version=0.1"] {
                let options =
                    ["-cS", "-C", place, "-f", "-"] + "--format=\(format)".split(separator: " ").map(String.init)
                let tar = try runTool("/usr/bin/tar", options + ["holes"])
                #expect(tar.count < 4 << 20, "\(format) is not sparse")
                let layer = try fixture.layer(try fixture.importTar(tar, name: "sparse"))
                try runTool("/usr/bin/cmp", ["\(place)/holes", "\(layer)/holes"])
                #expect(try statusOf("\(layer)/holes").st_blocks < 8192, "\(format) fills the holes")
            }
        }

        @Test func whiteoutsHideWhatLiesBelow() throws {
            let fixture = try ImageFixture()
            let below = try TarBuilder.make {
                for name in ["kept", "gone", "opaque/old", "again/old", "late/old"] {
                    try $0.add(.regular, name, data: "below")
                }
                try $0.add(.directory, "gonedir/")
                try $0.add(.regular, "gonedir/file", data: "below")
            }
            let above = try TarBuilder.make {
                try $0.add(.regular, ".wh.gone")
                try $0.add(.regular, ".wh.gonedir")
                try $0.add(.regular, ".wh..wh.plnk")
                try $0.add(.directory, "opaque/")
                try $0.add(.regular, "opaque/.wh..wh..opq")
                try $0.add(.regular, "opaque/new", data: "above")
                try $0.add(.regular, ".wh.again")
                try $0.add(.regular, "again/new", data: "above")
                try $0.add(.directory, "late/")
                try $0.add(.regular, "late/new", data: "above")
                try $0.add(.regular, ".wh.late")
                // In its own layer a whiteout hides nothing.
                try $0.add(.regular, "own", data: "above")
                try $0.add(.regular, ".wh.own")
            }
            let image = try Self.load([below, above], into: fixture)
            let root = try fixture.mount(image) + "/rootfs"
            #expect(Set(try File.list(root)) == ["kept", "opaque", "again", "late", "own"])
            for name in ["opaque", "again", "late"] { #expect(try File.list("\(root)/\(name)") == ["new"], "\(name)") }
            #expect(try File.text("\(root)/own") == "above")
        }

        @Test func directoriesThatALayerDoesNotMentionKeepTheirModeAndOwner() throws {
            let fixture = try ImageFixture()
            let below = try TarBuilder.make {
                try $0.add(.directory, "./", mode: 0o750)
                try $0.add(.directory, "tmp/", mode: 0o1777, uid: 12, gid: 13, modified: 5000)
                try $0.add(.directory, "tmp/private/", mode: 0o700, uid: 14)
            }
            let above = try TarBuilder.make {
                try $0.add(.regular, "tmp/private/file", data: "x")
                try $0.add(.regular, "fresh/file", data: "x")
            }
            let image = try Self.load([below, above], into: fixture)
            let root = try fixture.mount(image) + "/rootfs"
            #expect(try statusOf(root).st_mode & 0o7777 == 0o750)
            let tmp = try statusOf("\(root)/tmp")
            #expect(
                tmp.st_mode & 0o7777 == 0o1777 && tmp.st_uid == 12 && tmp.st_gid == 13 && tmp.st_mtim.tv_sec == 5000)
            #expect(try statusOf("\(root)/tmp/private").st_mode & 0o7777 == 0o700)
            #expect(try statusOf("\(root)/fresh").st_mode & 0o7777 == 0o755)
        }

        @Test func aHundredAndTwentyLayersAreMounted() throws {
            let fixture = try ImageFixture()
            let layers = try (0..<120).map { index in
                try TarBuilder.make {
                    try $0.add(.regular, "layer\(index)", data: "\(index)")
                    try $0.add(.regular, "top", data: "\(index)")
                }
            }
            let image = try Self.load(layers, into: fixture)
            let root = try fixture.mount(image) + "/rootfs"
            #expect(try File.list(root).count == 121)
            #expect(try File.text("\(root)/top") == "119")
            #expect(try File.text("\(root)/layer0") == "0")
            // The way of kernels before 6.8 carries them as well.
            let lowers = image.chain.reversed().map { fixture.store.snapshots.fileSystem($0) }
            let other = fixture.path("other")
            for name in ["rootfs", "upper", "work"] { try File.makeDirectories("\(other)/\(name)") }
            try Overlay.mountThroughDescriptors(
                lowers: lowers, writable: .init(upper: "\(other)/upper", work: "\(other)/work"), on: "\(other)/rootfs")
            #expect(try File.text("\(other)/rootfs/top") == "119")
            #expect(try File.list("\(other)/rootfs").count == 121)
        }

        @Test func writesStayInTheTaskAndSurviveAnUnmount() throws {
            let fixture = try ImageFixture()
            let image = try fixture.importTar(try TarBuilder.make { try $0.add(.regular, "file", data: "image") })
            let task = try fixture.mount(image)
            try File.replace("\(task)/rootfs/file", with: Array("task".utf8))
            let other = try fixture.mount(image)
            #expect(try File.text("\(other)/rootfs/file") == "image")
            #expect(try fixture.store.unmountSnapshot(taskDirectory: task) == .unmounted)
            #expect(try File.list("\(task)/rootfs").isEmpty)
            #expect(try fixture.store.unmountSnapshot(taskDirectory: task) == .notMounted)
            let store = try fixture.reopen()
            try store.mountSnapshot(image: image.digest, taskDirectory: task)
            try store.mountSnapshot(image: image.digest, taskDirectory: task)
            #expect(try File.text("\(task)/rootfs/file") == "task")
            #expect(try MountInfo.read().count { $0.mountPoint == "\(task)/rootfs" } == 1)
            #expect(try store.removeSnapshot(taskDirectory: task) == .unmounted)
            #expect(try File.list(task).isEmpty)
        }

        @Test func aBusyRootIsDetachedOnlyByRemoval() throws {
            let fixture = try ImageFixture()
            let image = try fixture.importTar(try TarBuilder.make { try $0.add(.regular, "file", data: "x") })
            let task = try fixture.mount(image)
            let open = try File.open("\(task)/rootfs/file", O_RDONLY)
            expectRefusal(.inUse) { try fixture.store.unmountSnapshot(taskDirectory: task) }
            #expect(try fixture.store.removeSnapshot(taskDirectory: task) == .detached)
            #expect(try !MountInfo.read().contains { $0.mountPoint.hasPrefix(task) })
            #expect(try open.readAll(limit: 10) == Array("x".utf8))
            #expect(try fixture.store.removeSnapshot(taskDirectory: task) == .notMounted)
        }

        @Test func aReadOnlyRootAndOneWithoutLayersAreMounted() throws {
            let fixture = try ImageFixture()
            let image = try fixture.importTar(try TarBuilder.make { try $0.add(.regular, "file", data: "x") })
            let task = try fixture.mount(image, readOnly: true)
            #expect(try File.text("\(task)/rootfs/file") == "x")
            #expect(throws: KernelError("open", "\(task)/rootfs/new", errno: EROFS)) {
                _ = try File.open("\(task)/rootfs/new", O_WRONLY | O_CREAT)
            }
            let empty = try Self.load([], into: fixture)
            let scratch = try fixture.mount(empty)
            #expect(try File.list("\(scratch)/rootfs").isEmpty)
            try File.replace("\(scratch)/rootfs/new", with: [])
        }

        @Test func aDataDirectoryOnOverlayIsRefusedWithAReason() throws {
            let fixture = try ImageFixture()
            let image = try fixture.importTar(try TarBuilder.make { try $0.add(.regular, "file", data: "x") })
            let outer = try fixture.mount(image) + "/rootfs"
            let inner = try ImageFixture(place: outer)
            let nested = try inner.importTar(try TarBuilder.make { try $0.add(.regular, "file", data: "x") })
            let message = expectRefusal(.system) { try inner.mount(nested) }
            #expect(message.contains("not on overlayfs itself"), "\(message)")
        }
    }
}
