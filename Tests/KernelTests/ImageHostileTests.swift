import CKernel
import Glibc
import Kernel
import Testing

@testable import Images

extension KernelSuite {
    /// Archives made to harm: each is refused with nothing left behind, or unpacked with nothing outside touched.
    @Suite(.serialized) struct ImageHostileTests {
        struct Attack: Sendable, CustomTestStringConvertible {
            let name: String
            let kind: ImageError.Kind
            let build: @Sendable (inout TarBuilder, _ canary: String) throws -> Void
            var testDescription: String { name }
        }

        static let refused: [Attack] = [
            Attack(name: "a path that climbs out", kind: .invalidArchive) { tar, canary in
                try tar.add(.regular, "../../../../../../../../../..\(canary)/new", data: "x")
            },
            Attack(name: "a path that climbs out in its middle", kind: .invalidArchive) { tar, canary in
                try tar.add(.directory, "a/")
                try tar.add(.regular, "a/../..\(canary)/new", data: "x")
            },
            Attack(name: "a file through a symbolic link that climbs out", kind: .invalidArchive) { tar, canary in
                try tar.add(.symbolicLink, "door", target: "../../../../../../../../../../../..\(canary)")
                try tar.add(.regular, "door/new", data: "x")
            },
            Attack(name: "a file through an absolute symbolic link", kind: .invalidArchive) { tar, canary in
                try tar.add(.symbolicLink, "door", target: canary)
                try tar.add(.regular, "door/new", data: "x")
            },
            Attack(name: "a directory through a chain of links", kind: .invalidArchive) { tar, canary in
                try tar.add(.symbolicLink, "a", target: "b")
                try tar.add(.symbolicLink, "b", target: "c/..")
                try tar.add(.symbolicLink, "c", target: canary)
                try tar.add(.directory, "a/sub/new/")
            },
            Attack(name: "a directory replaced by a link", kind: .invalidArchive) { tar, canary in
                try tar.add(.directory, "dir/")
                try tar.add(.symbolicLink, "dir", target: canary)
                try tar.add(.regular, "dir/new", data: "x")
            },
            Attack(name: "a loop of links", kind: .invalidArchive) { tar, _ in
                try tar.add(.symbolicLink, "a", target: "b")
                try tar.add(.symbolicLink, "b", target: "a")
                try tar.add(.regular, "a/new", data: "x")
            },
            Attack(name: "a magic link of procfs", kind: .invalidArchive) { tar, _ in
                try tar.add(.symbolicLink, "cwd", target: "/proc/self/cwd")
                try tar.add(.regular, "cwd/new", data: "x")
            },
            Attack(name: "a hard link to a host file", kind: .invalidArchive) { tar, canary in
                try tar.add(.hardLink, "stolen", target: "\(canary)/file")
            },
            Attack(name: "a hard link that climbs out", kind: .invalidArchive) { tar, canary in
                try tar.add(.hardLink, "stolen", target: "../../../../../../../../../../../..\(canary)/file")
            },
            Attack(name: "a hard link through a symbolic link", kind: .invalidArchive) { tar, canary in
                try tar.add(.symbolicLink, "door", target: canary)
                try tar.add(.hardLink, "stolen", target: "door/file")
            },
            Attack(name: "a hard link to a directory", kind: .invalidArchive) { tar, _ in
                try tar.add(.directory, "dir/")
                try tar.add(.hardLink, "again", target: "dir")
            },
            Attack(name: "a whiteout of the parent", kind: .invalidArchive) { tar, _ in
                try tar.add(.regular, ".wh...", data: "")
            },
            Attack(name: "a whiteout of the directory itself", kind: .invalidArchive) { tar, _ in
                try tar.add(.regular, "a/.wh..", data: "")
            },
            Attack(name: "a whiteout of nothing", kind: .invalidArchive) { tar, _ in
                try tar.add(.regular, "a/.wh.", data: "")
            },
            Attack(name: "a whiteout that climbs out", kind: .invalidArchive) { tar, canary in
                try tar.add(.regular, "../../../../../../../..\(canary)/.wh.file", data: "")
            },
            Attack(name: "an opaque mark through a link", kind: .invalidArchive) { tar, canary in
                try tar.add(.symbolicLink, "door", target: canary)
                try tar.add(.regular, "door/.wh..wh..opq", data: "")
            },
            Attack(name: "a file below a reserved name", kind: .invalidArchive) { tar, _ in
                try tar.add(.regular, ".wh.dir/file", data: "")
            },
            Attack(name: "a file below a file", kind: .invalidArchive) { tar, _ in
                try tar.add(.regular, "a", data: "x")
                try tar.add(.regular, "a/b", data: "x")
            },
            Attack(name: "overlayfs's own attributes", kind: .invalidArchive) { tar, _ in
                try tar.add(.directory, "dir/", attributes: [("trusted.overlay.redirect", Array("/etc".utf8))])
            },
            Attack(name: "an entry without a name", kind: .invalidArchive) { tar, _ in
                try tar.add(.regular, "./", data: "x")
            },
            Attack(name: "a name over 255 bytes", kind: .limitExceeded) { tar, _ in
                try tar.add(.regular, String(repeating: "n", count: 256), data: "x")
            },
            Attack(name: "a path over 4,095 bytes", kind: .limitExceeded) { tar, _ in
                try tar.add(.regular, String(repeating: "longname/", count: 600), data: "x")
            },
            Attack(name: "directories without end", kind: .limitExceeded) { tar, _ in
                try tar.add(.directory, String(repeating: "d/", count: 600))
            },
            Attack(name: "a file of an exabyte", kind: .limitExceeded) { tar, _ in
                var entry = TarEntry(.regular, Array("huge".utf8))
                entry.size = 1 << 60
                try tar.addHeader(entry)
            },
            Attack(name: "an attribute of a megabyte", kind: .limitExceeded) { tar, _ in
                try tar.add(.regular, "f", attributes: [("user.big", [UInt8](repeating: 1, count: 200_000))])
            },
            Attack(name: "text that is no tar", kind: .invalidArchive) { tar, _ in
                tar.addRaw(Array(String(repeating: "this is no archive ", count: 100).utf8))
            },
        ]

        @Test(arguments: refused) func isRefused(_ attack: Attack) throws {
            let fixture = try ImageFixture()
            let tar = try TarBuilder.make { try attack.build(&$0, fixture.canaryPath) }
            let message = expectRefusal(attack.kind) { try fixture.importTar(tar) }
            #expect(!message.isEmpty && message.count < 600 && !message.contains("\n"), "\(message)")
            try fixture.expectCanaryUntouched()
            try fixture.expectStoreEmpty()
        }

        /// Shows that the attacks are some: an extractor that trusts its archive is led out by each of these.
        @Test(
            arguments: [
                "a path that climbs out", "a file through a symbolic link that climbs out",
                "a file through an absolute symbolic link", "a directory replaced by a link",
            ])
        func leadsATrustingExtractorOut(_ name: String) throws {
            let fixture = try ImageFixture()
            let attack = try #require(Self.refused.first { $0.name == name })
            let archive = fixture.path("hostile.tar")
            try File.replace(archive, with: TarBuilder.make { try attack.build(&$0, fixture.canaryPath) })
            let target = fixture.path("extracted")
            try File.makeDirectories(target)
            let script = """
                import os, sys, tarfile
                for member in tarfile.open(sys.argv[1]):
                    path = os.path.join(sys.argv[2], member.name)
                    if member.issym():
                        if os.path.isdir(path): os.rmdir(path)
                        os.symlink(member.linkname, path)
                    elif member.isdir(): os.makedirs(path, exist_ok=True)
                    else: open(path, "w").write("led astray")
                """
            try runTool("/usr/bin/python3", ["-c", script, archive, target])
            #expect(File.exists("\(fixture.canaryPath)/new"))
        }

        @Test func absolutePathsStayInside() throws {
            let fixture = try ImageFixture()
            let target = "\(fixture.canaryPath)/file"
            let tar = try TarBuilder.make { try $0.add(.regular, target, data: "inside") }
            let image = try fixture.importTar(tar)
            #expect(try File.text(fixture.layer(image) + target) == "inside")
            try fixture.expectCanaryUntouched()
        }

        @Test func linksLeadToTheSamePlaceInsideTheRoot() throws {
            let fixture = try ImageFixture()
            let canary = fixture.canaryPath
            let tar = try TarBuilder.make {
                try $0.add(.directory, canary + "/")
                try $0.add(.symbolicLink, "door", target: canary)
                try $0.add(.symbolicLink, "climb", target: "../../../../../../../../../../..\(canary)")
                try $0.add(.regular, "door/one", data: "1")
                try $0.add(.regular, "climb/two", data: "2")
                try $0.add(.regular, "\(canary)/file", data: "inside")
                try $0.add(.hardLink, "three", target: "door/file")
            }
            let layer = try fixture.layer(try fixture.importTar(tar))
            #expect(try File.text("\(layer)\(canary)/one") == "1")
            #expect(try File.text("\(layer)\(canary)/two") == "2")
            #expect(try File.text("\(layer)/three") == "inside")
            try fixture.expectCanaryUntouched()
        }

        @Test func aFileReplacesALinkAndNotItsTarget() throws {
            let fixture = try ImageFixture()
            let tar = try TarBuilder.make {
                try $0.add(.symbolicLink, "link", target: "\(fixture.canaryPath)/file")
                try $0.add(.regular, "link", data: "a file of its own")
                try $0.add(.symbolicLink, "other", target: fixture.canaryPath)
                try $0.add(.directory, "other/", mode: 0o700, uid: 7)
            }
            let layer = try fixture.layer(try fixture.importTar(tar))
            #expect(try File.text("\(layer)/link") == "a file of its own")
            #expect(try statusOf("\(layer)/other").isDirectory)
            try fixture.expectCanaryUntouched()
        }

        @Test func aHardLinkToASymbolicLinkNamesTheLink() throws {
            let fixture = try ImageFixture()
            let tar = try TarBuilder.make {
                try $0.add(.symbolicLink, "link", target: "\(fixture.canaryPath)/file")
                try $0.add(.hardLink, "again", target: "link")
                try $0.add(.hardLink, "again", target: "again")
                try $0.add(.regular, "again", data: "written")
            }
            let layer = try fixture.layer(try fixture.importTar(tar))
            #expect(try statusOf("\(layer)/link").type == S_IFLNK)
            #expect(try File.text("\(layer)/again") == "written")
            try fixture.expectCanaryUntouched()
        }

        @Test func theLastOfSeveralEntriesOfOneNameHolds() throws {
            let fixture = try ImageFixture()
            let tar = try TarBuilder.make {
                try $0.add(.regular, "a", data: "first")
                try $0.add(.directory, "a/")
                try $0.add(.directory, "a/b/c/")
                try $0.add(.regular, "a/b/c/file", data: "x")
                try $0.add(.regular, "a", data: "last", mode: 0o4755)
            }
            let layer = try fixture.layer(try fixture.importTar(tar))
            #expect(try File.text("\(layer)/a") == "last")
            #expect(try statusOf("\(layer)/a").st_mode & 0o7777 == 0o4755)
        }

        @Test func aPaxHeaderCannotSmuggleAPath() throws {
            let fixture = try ImageFixture()
            var builder = TarBuilder()
            var header = TarEntry(.regular, Array("PaxHeader".utf8))
            let record = Array("34 path=../../../../../canary/new\n".utf8)
            #expect(record.count == 34)
            header.size = UInt64(record.count)
            try builder.add(header, record)
            builder.retype("x")
            try builder.add(.regular, "harmless", data: "x")
            expectRefusal(.invalidArchive) { try fixture.importTar(builder.finished) }
            try fixture.expectCanaryUntouched()
            try fixture.expectStoreEmpty()
        }

        @Test(arguments: [1, 100, 511, 512, 700, 1024, 1536, 1537, 2048]) func aTruncatedArchiveIsRefused(
            length: Int
        ) throws {
            let fixture = try ImageFixture()
            let tar = try TarBuilder.make {
                try $0.add(.directory, "d/")
                try $0.add(.regular, "d/f", data: String(repeating: "x", count: 600))
            }
            #expect(tar.count > 2048)
            expectRefusal(.invalidArchive) { try fixture.importTar(Array(tar[..<length])) }
            try fixture.expectStoreEmpty()
        }

        @Test(arguments: ["gzip", "xz", "zstd", "bzip2"]) func aDamagedCompressedArchiveIsRefused(tool: String) throws {
            let fixture = try ImageFixture()
            let noise = try runTool("/usr/bin/head", ["-c", "200000", "/dev/urandom"])
            let tar = try TarBuilder.make { try $0.addFile("noise", noise) }
            let options = tool == "zstd" ? ["-c", "--check"] : ["-c"]
            var packed = try runTool("/usr/bin/\(tool)", options, input: tar)
            packed[packed.count / 2] ^= 1
            expectRefusal(.invalidArchive) { try fixture.importTar(packed) }
            try fixture.expectStoreEmpty()
        }

        @Test func aGzipStreamOfSeveralMembersIsRead() throws {
            let fixture = try ImageFixture()
            let tar = try TarBuilder.make { try $0.addFile("file", [UInt8](repeating: 5, count: 100_000)) }
            let parts = [Array(tar[..<50_000]), [], Array(tar[50_000...])]
            let packed = try parts.flatMap { try runTool("/usr/bin/gzip", ["-c"], input: $0) }
            #expect(try statusOf("\(fixture.layer(fixture.importTar(packed)))/file").st_size == 100_000)
        }

        @Test(arguments: ["gzip", "xz", "zstd", "bzip2"]) func aTruncatedCompressedArchiveIsRefused(tool: String) throws
        {
            let fixture = try ImageFixture()
            var random = SystemRandomNumberGenerator()
            let noise = (0..<200_000).map { _ in UInt8.random(in: 0...255, using: &random) }
            let tar = try TarBuilder.make { try $0.addFile("noise", noise) }
            let packed = try runTool("/usr/bin/\(tool)", ["-c"], input: tar)
            try fixture.importTar(packed)
            _ = try fixture.store.remove("test:1", force: false, inUse: [])
            expectRefusal(.invalidArchive) { try fixture.importTar(Array(packed[..<(packed.count / 2)])) }
            try fixture.expectStoreEmpty()
        }
    }
}

extension TarBuilder {
    /// A header alone, its body missing.
    mutating func addHeader(_ entry: TarEntry) throws {
        var new: [UInt8] = []
        try TarWriter { new += Array($0) }.begin(entry)
        addRaw(new)
    }

    /// Gives the last entry's header block, which has a body of one block, another type.
    mutating func retype(_ type: Character) {
        var all = bytes
        let start = all.count - 1024
        all[start + 156] = type.asciiValue ?? 0
        for index in 148..<156 { all[start + index] = 0x20 }
        let sum = all[start..<(start + 512)].reduce(0) { $0 + Int($1) }
        let digits = Array(String(sum, radix: 8).utf8)
        let field = [UInt8](repeating: 0x30, count: 6 - digits.count) + digits + [0, 0x20]
        for (index, byte) in field.enumerated() { all[start + 148 + index] = byte }
        self = TarBuilder()
        addRaw(all)
    }
}
