import Glibc
import Kernel
import Testing

@testable import Images

extension KernelSuite {
    /// Archives that are small where they come from and large where they are unpacked.
    @Suite(.serialized) struct ImageBombTests {
        /// 10 GiB of zeros in one file, as many compressed members of a mebibyte.
        static func bomb(_ tool: String) throws -> [UInt8] {
            var entry = TarEntry(.regular, Array("zeros".utf8))
            entry.size = 10 << 30
            var builder = TarBuilder()
            try builder.addHeader(entry)
            let head = try runTool("/usr/bin/\(tool)", ["-c"], input: builder.bytes)
            let piece = try runTool("/usr/bin/\(tool)", ["-c"], input: [UInt8](repeating: 0, count: 1 << 20))
            var archive = head
            archive.reserveCapacity(head.count + 10240 * piece.count)
            for _ in 0..<10240 { archive += piece }
            return archive
        }

        static var modestLimits: ImageLimits {
            var limits = ImageLimits()
            limits.compressionFloor = 64 << 20
            return limits
        }

        /// Largest resident memory while `body` runs, beyond what there was before, in bytes.
        static func peakMemory(_ body: () throws -> Void) throws -> Int {
            // Resets the peak, see proc_pid_clear_refs(5).
            try File.writeControl("/proc/self/clear_refs", "5")
            let before = try status("VmRSS:")
            try body()
            return try max(0, status("VmHWM:") - before) << 10
        }

        static func status(_ key: String) throws -> Int {
            let line = try File.text("/proc/self/status").split(separator: "\n").first { $0.hasPrefix(key) }
            return try #require(line?.split(separator: " ").compactMap { Int($0) }.first)
        }

        @Test(arguments: ["gzip", "zstd", "bzip2", "xz"]) func aBombIsStoppedEarly(tool: String) throws {
            let fixture = try ImageFixture(limits: Self.modestLimits)
            let archive = try fixture.file(Self.bomb(tool))
            let peak = try Self.peakMemory {
                let message = expectRefusal(.limitExceeded) { try fixture.store.importTar(archive.raw, name: "bomb") }
                #expect(message.contains("200 times"), "\(message)")
            }
            #expect(peak < 64 << 20, "\(peak) bytes more at the peak")
            try fixture.expectStoreEmpty()
        }

        @Test func aBombInsideAnArchiveOfImagesIsStopped() throws {
            let fixture = try ImageFixture(limits: Self.modestLimits)
            let bomb = try Self.bomb("gzip")
            let config = """
                {"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["\(Digest.of([]))"]}}
                """
            let archive = try TarBuilder.make {
                try $0.addFile("layer.tar", bomb)
                try $0.addFile("config.json", Array(config.utf8))
                try $0.addFile(
                    "manifest.json", Array(#"[{"Config":"config.json","RepoTags":null,"Layers":["layer.tar"]}]"#.utf8))
            }
            expectRefusal(.limitExceeded) { try fixture.load(archive) }
            try fixture.expectStoreEmpty()
            // And as a whole: an archive that is compressed around it.
            let packed = try runTool("/usr/bin/gzip", ["-c"], input: archive)
            expectRefusal(.limitExceeded) { try fixture.load(packed) }
            try fixture.expectStoreEmpty()
        }

        @Test func aLayerOverItsSizeIsRefused() throws {
            var limits = ImageLimits()
            limits.layerBytes = 1 << 20
            let fixture = try ImageFixture(limits: limits)
            let tar = try TarBuilder.make {
                for index in 0..<20 { try $0.addFile("file\(index)", [UInt8](repeating: 7, count: 100_000)) }
            }
            expectRefusal(.limitExceeded) { try fixture.importTar(tar) }
            try fixture.expectStoreEmpty()
        }

        @Test func anArchiveOverItsSizeIsRefused() throws {
            var limits = ImageLimits()
            limits.archiveBytes = 1 << 20
            let fixture = try ImageFixture(limits: limits)
            let tar = try TarBuilder.make { try $0.addFile("file", [UInt8](repeating: 7, count: 2 << 20)) }
            expectRefusal(.limitExceeded) { try fixture.importTar(tar) }
            expectRefusal(.limitExceeded) { try fixture.load(tar) }
            try fixture.expectStoreEmpty()
        }

        @Test func aMillionEntriesAreStoppedAtTheLimit() throws {
            var limits = ImageLimits()
            limits.layerEntries = 20_000
            limits.compressionRatio = 100_000
            let fixture = try ImageFixture(limits: limits)
            var builder = TarBuilder()
            for index in 0..<1000 { try builder.add(.directory, "d\(index)/") }
            let piece = try runTool("/usr/bin/gzip", ["-c"], input: builder.bytes)
            var archive: [UInt8] = []
            for _ in 0..<1000 { archive += piece }
            let file = try fixture.file(archive)
            let peak = try Self.peakMemory {
                expectRefusal(.limitExceeded) { try fixture.store.importTar(file.raw, name: "many") }
            }
            #expect(peak < 64 << 20, "\(peak) bytes more at the peak")
            try fixture.expectStoreEmpty()
        }

        @Test func manyEntriesWithinTheLimitCostNoMemory() throws {
            let fixture = try ImageFixture()
            var builder = TarBuilder()
            for index in 0..<20_000 {
                if index % 100 == 0 { try builder.add(.directory, "directory\(index / 100)/", modified: 1_234_567_890) }
                try builder.add(.regular, "directory\(index / 100)/file\(index)")
            }
            let file = try fixture.file(builder.finished)
            let peak = try Self.peakMemory { _ = try fixture.store.importTar(file.raw, name: "many") }
            #expect(peak < 32 << 20, "\(peak) bytes more at the peak")
            let image = try fixture.store.resolve("many")
            #expect(try statusOf("\(fixture.layer(image))/directory7").st_mtim.tv_sec == 1_234_567_890)
            #expect(try File.list("\(fixture.layer(image))/directory7").count == 100)
        }

        @Test func aSparseFileOfManySegmentsIsRefused() throws {
            var limits = ImageLimits()
            limits.sparseSegments = 1000
            let fixture = try ImageFixture(limits: limits)
            let map = Array(("2000\n" + String(repeating: "0\n", count: 4000)).utf8)
            var builder = TarBuilder()
            let records = ["22 GNU.sparse.major=1\n", "22 GNU.sparse.minor=0\n", "25 GNU.sparse.realsize=0\n"].joined()
            var header = TarEntry(.regular, Array("PaxHeader".utf8))
            header.size = UInt64(records.utf8.count)
            try builder.add(header, Array(records.utf8))
            builder.retype("x")
            try builder.addFile("sparse", map + [UInt8](repeating: 0, count: 512 - map.count % 512))
            expectRefusal(.limitExceeded) { try fixture.importTar(builder.finished) }
            try fixture.expectStoreEmpty()
        }

        @Test func aTreeOfTwentyThousandLevelsIsRemoved() throws {
            let fixture = try ImageFixture()
            let top = fixture.path("deep")
            // Made from the inside out, since no path is that long.
            let script = """
                import os, sys
                os.mkdir(sys.argv[1]); os.chdir(sys.argv[1])
                for i in range(20000):
                    os.mkdir("d"); os.chdir("d")
                open(b"\\xff\\xfe", "w").close()
                """
            try runTool("/usr/bin/python3", ["-c", script, top])
            let removed = try Tree.remove(top)
            #expect(!File.exists(top))
            #expect(removed.entries >= 20_000)
        }
    }
}
