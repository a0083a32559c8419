import CKernel
import Glibc
import Kernel
import Testing

@testable import Images

extension KernelSuite {
    /// Copying in and out of containers' roots.
    @Suite(.serialized) struct ContainerFilesTests {
        /// A container's root beside the canary.
        static func root(_ fixture: ImageFixture) throws -> String {
            let root = fixture.path("root")
            try File.makeDirectories("\(root)/etc/sub", mode: 0o755)
            try File.makeDirectories("\(root)/proc", mode: 0o755)
            try File.replace("\(root)/etc/file", with: Array("content".utf8), mode: 0o640)
            symlink("/etc", "\(root)/abs")
            symlink(fixture.canaryPath, "\(root)/out")
            symlink("../../../../../../..\(fixture.canaryPath)", "\(root)/climb")
            link("\(root)/etc/file", "\(root)/etc/second")
            mkfifo("\(root)/etc/fifo", 0o600)
            return root
        }

        static func archive(_ files: ContainerFiles, _ path: String, _ fixture: ImageFixture) throws -> String {
            let place = fixture.path("out")
            let file = try File.open(place, O_WRONLY | O_CREAT)
            try files.archive(path, to: file.raw)
            return place
        }

        @Test func statusIsWhatDockerShows() throws {
            let fixture = try ImageFixture()
            let files = try ContainerFiles(root: Self.root(fixture))
            let file = try files.status("/etc/file")
            #expect(file.name == "file" && file.kind == .file && file.size == 7 && file.mode == 0o640)
            let link = try files.status("/abs")
            #expect(link.kind == .link && link.linkTarget == "/etc" && link.name == "abs")
            #expect(try files.status("/abs/").kind == .directory)
            #expect(try files.status("/etc/fifo").kind == .fifo)
            #expect(try files.status("/").name == "/")
            #expect(try files.status("../../../etc/file").size == 7)
            expectRefusal(.notFound) { try files.status("/out/file") }
            expectRefusal(.notFound) { try files.status("/nothing") }
            expectRefusal(.invalidArgument) { try files.status("/etc/file/x") }
            expectRefusal(.invalidArgument) { try files.status("") }
            expectRefusal(.invalidArgument) { try files.status("/etc\0") }
        }

        @Test func placesAreToldWithTheirMounts() throws {
            let fixture = try ImageFixture()
            let root = try Self.root(fixture)
            let files = try ContainerFiles(root: root)
            #expect(try files.place(of: "/abs/sub", directory: false) == ("/etc/sub", false))
            #expect(try files.place(of: "/abs", directory: true) == ("/etc", false))
            #expect(try files.place(of: "/abs", directory: false) == ("/abs", false))
            #expect(try files.place(of: "/", directory: true) == ("/", false))
            expectRefusal(.notFound) { try files.place(of: "/out", directory: true) }
            try #require(mount("none", "\(root)/etc/sub", "tmpfs", UInt(MS_RDONLY), nil) == 0)
            defer { umount2("\(root)/etc/sub", 2) }
            #expect(try files.place(of: "/abs/sub", directory: true) == ("/etc/sub", true))
            #expect(try files.place(of: "/abs", directory: true) == ("/etc", false))
        }

        @Test func aTreeComesOutAsItIsAndGoesInAgain() throws {
            let fixture = try ImageFixture()
            let root = try Self.root(fixture)
            let files = try ContainerFiles(root: root)
            chown("\(root)/etc/file", 7, 8)
            let place = try Self.archive(files, "/etc", fixture)
            let listing = String(decoding: try runTool("/usr/bin/tar", ["-tf", place]), as: UTF8.self)
            #expect(Set(listing.split(separator: "\n")) == ["etc/", "etc/fifo", "etc/file", "etc/second", "etc/sub/"])
            let other = fixture.path("other")
            try File.makeDirectories("\(other)/srv")
            let tar = try File.open(place, O_RDONLY)
            try ContainerFiles(root: other).extract(tar.raw, into: "/srv")
            let copied = try statusOf("\(other)/srv/etc/file")
            #expect(copied.st_uid == 7 && copied.st_gid == 8 && copied.st_mode & 0o777 == 0o640 && copied.st_nlink == 2)
            #expect(try File.text("\(other)/srv/etc/second") == "content")
            #expect(try statusOf("\(other)/srv/etc/fifo").type == S_IFIFO)
            // Again, over what is there, with an owner of the caller's choice.
            let again = try File.open(place, O_RDONLY)
            try ContainerFiles(root: other).extract(again.raw, into: "/srv", owner: (0, 0))
            #expect(try statusOf("\(other)/srv/etc/file").st_uid == 0)
            // The content alone.
            let content = try Self.archive(files, "/etc/.", fixture)
            let names = String(decoding: try runTool("/usr/bin/tar", ["-tf", content]), as: UTF8.self)
            #expect(names.hasPrefix("./\n"))
        }

        @Test func linksAreFollowedInsideTheRootOnly() throws {
            let fixture = try ImageFixture()
            let root = try Self.root(fixture)
            let files = try ContainerFiles(root: root)
            let tar = try TarBuilder.make { try $0.add(.regular, "new", data: "x") }
            for path in ["/out", "/climb"] {
                let file = try fixture.file(tar)
                expectRefusal(.notFound) { try files.extract(file.raw, into: path) }
                expectRefusal(.notFound) { try Self.archive(files, path + "/.", fixture) }
            }
            let file = try fixture.file(tar)
            try files.extract(file.raw, into: "/abs")
            #expect(try File.text("\(root)/etc/new") == "x")
            let through = try TarBuilder.make {
                try $0.add(.regular, "climb/new", data: "x")
            }
            let second = try fixture.file(through)
            expectRefusal(.invalidArchive) { try files.extract(second.raw, into: "/") }
            try fixture.expectCanaryUntouched()
        }

        @Test func hostileArchivesAreRefused() throws {
            let fixture = try ImageFixture()
            let root = try Self.root(fixture)
            let files = try ContainerFiles(root: root)
            let cases: [(ImageError.Kind, (inout TarBuilder) throws -> Void)] = [
                (.invalidArchive, { try $0.add(.regular, "../../new", data: "x") }),
                (.invalidArchive, { try $0.add(.hardLink, "new", target: "\(fixture.canaryPath)/file") }),
                (.unsupported, { try $0.add(.characterDevice, "null", device: (1, 3)) }),
                (.invalidArchive, { try $0.add(.directory, "d", attributes: [("trusted.overlay.opaque", [0x79])]) }),
                // A directory does not give way to a file, nor the reverse.
                (.invalidArgument, { try $0.add(.regular, "etc", data: "x") }),
                (.invalidArgument, { try $0.add(.directory, "etc/file") }),
            ]
            for (kind, build) in cases {
                let file = try fixture.file(TarBuilder.make(build))
                expectRefusal(kind) { try files.extract(file.raw, into: "/") }
            }
            // Whiteouts mean nothing here.
            let file = try fixture.file(TarBuilder.make { try $0.add(.regular, ".wh.etc", data: "x") })
            try files.extract(file.raw, into: "/")
            #expect(try File.text("\(root)/.wh.etc") == "x")
            #expect(try File.text("\(root)/etc/file") == "content")
            try fixture.expectCanaryUntouched()
        }

        @Test func aCopyIntoProcfsIsRefused() throws {
            let fixture = try ImageFixture()
            let root = try Self.root(fixture)
            try systemCall("mount", root) { mount("proc", "\(root)/proc", "proc", 0, nil) }
            defer { umount2("\(root)/proc", 2) }
            symlink("/proc/sys/kernel", "\(root)/innocent")
            let before = try File.read("/proc/sys/kernel/core_pattern")
            let files = try ContainerFiles(root: root)
            let tar = try TarBuilder.make { try $0.add(.regular, "core_pattern", data: "|/evil") }
            for path in ["/innocent", "/proc/sys/kernel", "/proc/self"] {
                let file = try fixture.file(tar)
                expectRefusal(.unsupported) { try files.extract(file.raw, into: path) }
            }
            let magic = try fixture.file(tar)
            #expect(throws: ImageError.self) {
                try files.extract(magic.raw, into: "/proc/self/root/\(fixture.canaryPath)")
            }
            #expect(try File.read("/proc/sys/kernel/core_pattern") == before)
            try fixture.expectCanaryUntouched()
        }

        @Test func programsOfTheContainerAreNotRun() throws {
            let fixture = try ImageFixture()
            let root = try Self.root(fixture)
            try File.makeDirectories("\(root)/usr/bin", mode: 0o755)
            for name in ["xz", "unpigz", "gzip", "zstd", "tar", "bzip2"] {
                let script = "#!/bin/sh\ntouch \(fixture.canaryPath)/ran\n"
                try File.replace("\(root)/usr/bin/\(name)", with: Array(script.utf8), mode: 0o755)
            }
            let tar = try TarBuilder.make { try $0.add(.regular, "new", data: "x") }
            for tool in ["xz", "gzip", "zstd", "bzip2"] {
                let file = try fixture.file(runTool("/usr/bin/\(tool)", ["-c"], input: tar))
                try ContainerFiles(root: root).extract(file.raw, into: "/etc")
            }
            #expect(try File.text("\(root)/etc/new") == "x")
            try fixture.expectCanaryUntouched()
        }

        /// A container that swaps a directory and a link to the canary as fast as it can, under copies in both
        /// directions, exports and images made of it.
        @Test func aRaceOfNamesLeadsNobodyOut() throws {
            let fixture = try ImageFixture()
            let root = try Self.root(fixture)
            try File.makeDirectories("\(root)/race/sub", mode: 0o777)
            symlink("../../../../../../../..\(fixture.canaryPath)", "\(root)/door")
            // renameat2(RENAME_EXCHANGE) without end; the number counts them, and is never half written.
            let script = """
                import ctypes, os, sys
                libc = ctypes.CDLL(None); os.chdir(sys.argv[1]); count = 0
                while True:
                    libc.renameat2(-100, b"race", -100, b"door", 2); count += 1
                    if count % 1000 == 0:
                        with open("next", "w") as file: file.write(str(count))
                        os.rename("next", "count")
                """
            let swapper = try Spawn("/usr/bin/python3", ["python3", "-c", script, root]).start()
            defer {
                try? swapper.signal(SIGKILL)
                _ = try? swapper.wait()
            }
            func swaps() throws -> Int { try Int(File.text("\(root)/count")) ?? 0 }
            while !File.exists("\(root)/count") { usleep(1000) }
            let before = try swaps()
            let files = try ContainerFiles(root: root)
            let tar = try fixture.file(
                TarBuilder.make {
                    try $0.add(.regular, "race/new", data: "x")
                    try $0.add(.directory, "race/sub/made/")
                    try $0.add(.hardLink, "race/again", target: "race/new")
                })
            for _ in 0..<300 {
                // Entries fail while the link is there; none may get into the canary.
                lseek(tar.raw, 0, SEEK_SET)
                _ = try? files.extract(tar.raw, into: "/")
                lseek(tar.raw, 0, SEEK_SET)
                _ = try? files.extract(tar.raw, into: "/race")
                let place = fixture.path("out")
                let output = try File.open(place, O_WRONLY | O_CREAT)
                if (try? files.archive("/race/.", to: output.raw)) != nil {
                    #expect(try !File.text(place).contains("untouched"), "the canary was read")
                }
                unlink(place)
            }
            var wholes = 0
            for _ in 0..<300 {
                for isExport in [true, false] {
                    let place = fixture.path("out")
                    let output = try File.open(place, O_WRONLY | O_CREAT)
                    let isWritten: Bool
                    if isExport {
                        isWritten = (try? files.export(to: output.raw)) != nil
                    } else {
                        // Its whole root as what it has written.
                        var difference = LayerDifference(
                            upper: SharedFD(try File.open(root, O_RDONLY | O_DIRECTORY)), lowers: [], places: [],
                            limits: .standard)
                        isWritten =
                            (try? difference.run()) != nil && (try? difference.write(to: output.raw)) != nil
                    }
                    if isWritten { wholes += 1 }
                    let bytes = try File.read(place, limit: 1 << 24)
                    #expect(!String(decoding: bytes, as: UTF8.self).contains("untouched"), "the canary was read")
                    unlink(place)
                }
            }
            #expect(wholes > 0)
            #expect(try swaps() > before, "names were swapped meanwhile")
            try fixture.expectCanaryUntouched()
        }
    }
}
