import Glibc
import Kernel
import Testing

@testable import Images

/// What a container's writable layer says, as overlayfs has it on the disk.
@Suite struct LayerDifferenceTests {
    final class Layers {
        let top: String
        private var times = timespec(tv_sec: 1_700_000_000, tv_nsec: 0)

        init() throws {
            var template = Array("/tmp/martlet-layers.XXXXXX".utf8CString)
            guard mkdtemp(&template) != nil else { throw KernelError("mkdtemp", errno: errno) }
            top = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
            for name in ["upper", "lower", "base"] { try File.makeDirectories("\(top)/\(name)", mode: 0o755) }
        }

        deinit { _ = try? Tree.remove(top) }

        func file(_ path: String, _ text: String = "x") throws {
            let place = "\(top)/\(path)"
            try File.makeDirectories(String(place[..<(place.lastIndex(of: "/") ?? place.endIndex)]), mode: 0o755)
            try File.replace(place, with: Array(text.utf8), mode: 0o644)
        }

        /// Directories of equal times are the same.
        func settle(_ paths: String...) {
            for path in paths { utimensat(AT_FDCWD, "\(top)/\(path)", [times, times], 0) }
        }

        func whiteout(_ path: String) -> Bool { mknod("\(top)/\(path)", S_IFCHR, 0) == 0 }

        /// Hides all that the layers below have in the directory.
        func makeOpaque(_ path: String) throws {
            let directory = try File.open(path, O_RDONLY | O_DIRECTORY)
            let name = Array("trusted.overlay.opaque".utf8)
            try ExtendedAttribute(name: name, value: Array("y".utf8)).set(on: directory.raw)
        }

        func difference(_ places: [String] = []) throws -> LayerDifference {
            func open(_ name: String) throws -> SharedFD {
                SharedFD(try File.open("\(top)/\(name)", O_RDONLY | O_DIRECTORY))
            }
            var difference = LayerDifference(
                upper: try open("upper"), lowers: [try open("lower"), try open("base")], places: places,
                limits: .standard)
            try difference.run()
            return difference
        }

        func changes(_ places: [String] = []) throws -> [String] {
            try difference(places).changes.map { change in
                let letter =
                    switch change.kind {
                    case .added: "A"
                    case .modified: "C"
                    case .deleted: "D"
                    }
                return "\(letter) \(change.name)"
            }
        }
    }

    @Test func additionsChangesAndDeletionsAreToldWithTheirDirectories() throws {
        let layers = try Layers()
        try layers.file("base/etc/motd")
        try layers.file("lower/etc/hosts")
        try layers.file("lower/usr/bin/tool")
        try layers.file("upper/etc/motd", "new")
        try layers.file("upper/srv/data/file")
        #expect(layers.whiteout("upper/etc/hosts"))
        #expect(
            try layers.changes() == [
                "C /etc", "D /etc/hosts", "C /etc/motd", "A /srv", "A /srv/data", "A /srv/data/file",
            ])
    }

    @Test func directoriesThatWereOnlyPassedThroughAreNoChange() throws {
        let layers = try Layers()
        try layers.file("base/etc/motd")
        try File.makeDirectories("\(layers.top)/upper/etc", mode: 0o755)
        layers.settle("base/etc", "upper/etc")
        #expect(try layers.changes().isEmpty)
        chmod("\(layers.top)/upper/etc", 0o700)
        #expect(try layers.changes() == ["C /etc"])
    }

    @Test func emptyMountPointsAreNobodysChange() throws {
        let layers = try Layers()
        try layers.file("base/etc/motd")
        try layers.file("upper/etc/hosts", "")
        try File.makeDirectories("\(layers.top)/upper/srv/data", mode: 0o755)
        #expect(try layers.changes(["/etc/hosts", "/srv/data"]).isEmpty)
        try layers.file("upper/srv/data/mine")
        #expect(try layers.changes(["/etc/hosts", "/srv/data"]) == ["A /srv", "A /srv/data", "A /srv/data/mine"])
    }

    @Test func aWhiteoutBelowHidesWhatLiesUnderIt() throws {
        let layers = try Layers()
        try layers.file("base/etc/motd")
        try File.makeDirectories("\(layers.top)/lower/etc", mode: 0o755)
        #expect(layers.whiteout("lower/etc/motd"))
        try layers.file("upper/etc/motd")
        #expect(try layers.changes() == ["C /etc", "A /etc/motd"])
    }

    @Test func linksAreChangesAndLeadNowhere() throws {
        let layers = try Layers()
        try layers.file("base/etc/motd")
        try File.makeDirectories("\(layers.top)/upper", mode: 0o755)
        #expect(symlink("/", "\(layers.top)/upper/etc") == 0)
        #expect(try layers.changes() == ["C /etc"])
    }

    @Test(.enabled(if: geteuid() == 0)) func anOpaqueDirectoryHidesAllBelow() throws {
        let layers = try Layers()
        try layers.file("base/etc/motd")
        try layers.file("lower/etc/hosts")
        try layers.file("upper/etc/hosts")
        let path = "\(layers.top)/upper/etc"
        try layers.makeOpaque(path)
        #expect(try layers.changes() == ["C /etc", "A /etc/hosts", "D /etc/motd"])
    }

    @Test(.enabled(if: geteuid() == 0)) func theLayerHasTheMarksThatOtherEnginesRead() throws {
        let layers = try Layers()
        try layers.file("base/etc/motd")
        try layers.file("base/usr/old")
        try layers.file("upper/etc/hosts")
        try File.makeDirectories("\(layers.top)/upper/usr", mode: 0o755)
        #expect(layers.whiteout("upper/usr/old"))
        try layers.makeOpaque("\(layers.top)/upper/etc")
        let path = "\(layers.top)/layer.tar"
        let file = try File.open(path, O_RDWR | O_CREAT)
        let hasContent = try layers.difference().write(to: file.raw)
        #expect(hasContent)
        let source = try File.open(path, O_RDONLY)
        let reader = TarReader(
            DescriptorSource(source.raw, subject: "the layer"), limits: .standard, needsEndMark: true)
        var names: [String] = []
        while let entry = try reader.next() { names.append(String(decoding: entry.path, as: UTF8.self)) }
        #expect(names == ["etc/", "etc/.wh..wh..opq", "etc/hosts", "usr/", "usr/.wh.old"])
    }
}
