import Glibc
import Kernel
import Testing

@testable import Images

extension KernelSuite {
    /// Archives of images: those that others write, those that we write, and those that nobody should.
    @Suite(.serialized) struct ImageArchiveTests {
        static let skopeo = "/usr/bin/skopeo"

        static func images(in fixture: ImageFixture) throws -> ImageRecord {
            var config = ImageConfig()
            config.command = ["/bin/sh"]
            config.environment = ["PATH=/bin"]
            let gzip = try runTool(
                "/usr/bin/gzip", ["-c"], input: TarBuilder.make { try $0.add(.regular, "etc/name", data: "packed") })
            try fixture.importTar(gzip, name: "other:9")
            let image = try fixture.importTar(
                TarBuilder.make {
                    try $0.add(.directory, "bin/")
                    try $0.add(.regular, "etc/name", data: "plain")
                }, name: "example.org:5000/team/app:1.0", config: config)
            try fixture.store.tag("example.org:5000/team/app:1.0", as: "app")
            return image
        }

        @Test(arguments: ImageArchiveFormat.allCases) func whatIsSavedIsLoadedAgain(format: ImageArchiveFormat) throws {
            let fixture = try ImageFixture()
            let image = try Self.images(in: fixture)
            let other = try fixture.store.resolve("other:9")
            let path = try fixture.save(["app", "example.org:5000/team/app:1.0", "other:9"], format)
            let second = try ImageFixture()
            let loaded = try second.load(File.read(path, limit: 1 << 24))
            #expect(loaded.map(\.digest) == [image.digest, other.digest])
            #expect(loaded.first?.names.map(\.familiar) == ["app:latest", "example.org:5000/team/app:1.0"])
            #expect(loaded.last?.layers == other.layers)
            #expect(try second.store.inspect("app").config == fixture.store.inspect("app").config)
            #expect(try File.text("\(second.mount(image))/rootfs/etc/name") == "plain")
            // What else an image is called here was not loaded.
            let part = try fixture.save(["app"], format)
            let loadedAgain = try fixture.load(File.read(part, limit: 1 << 24))
            #expect(loadedAgain.map { $0.names.map(\.familiar) } == [["app:latest"]])
            #expect(try fixture.store.resolve("app").names.count == 2)
            // Saving is reproducible.
            let again = try second.save(["app", "example.org:5000/team/app:1.0", "other:9"], format)
            #expect(try File.read(path, limit: 1 << 24) == File.read(again, limit: 1 << 24))
        }

        @Test(.enabled(if: File.exists(skopeo), "skopeo is not installed"))
        func skopeoReadsWhatIsSavedAndItsArchivesAreLoaded() throws {
            let fixture = try ImageFixture()
            let image = try Self.images(in: fixture)
            let docker = try fixture.save(["app", "other:9"], .docker)
            let oci = try fixture.save(["app"], .oci)
            let policy = ["--insecure-policy", "copy"]
            let sources = [
                "docker-archive:\(docker):docker.io/library/app:latest", "oci-archive:\(oci)",
                "oci-archive:\(oci):latest",
            ]
            for source in sources {
                for kind in ["docker-archive", "oci-archive"] {
                    let copy = fixture.path("copy")
                    try runTool(Self.skopeo, policy + [source, "\(kind):\(copy):example.org/copied:3"])
                    let second = try ImageFixture()
                    let loaded = try #require(second.load(File.read(copy, limit: 1 << 24)).first)
                    #expect(loaded.names.map(\.familiar) == ["example.org/copied:3"], "\(source) \(kind)")
                    #expect(loaded.layers.map(\.diffID) == image.layers.map(\.diffID), "\(source) \(kind)")
                    let config = try second.store.inspect("example.org/copied:3").config
                    #expect(config.command == ["/bin/sh"] && config.environment == ["PATH=/bin"])
                    #expect(try File.text("\(second.mount(loaded))/rootfs/etc/name") == "plain")
                }
            }
            let inspected = try runTool(Self.skopeo, ["inspect", "--raw", "oci-archive:\(oci)"])
            #expect(Digest.of(inspected) == image.digest)
        }

        @Test func layersOfOldDockerArchivesMayBeLinks() throws {
            let fixture = try ImageFixture()
            let layer = try TarBuilder.make { try $0.add(.regular, "file", data: "x") }
            let archive = try Self.dockerArchive(layer: layer) { tar in
                try tar.add(.directory, "one/")
                try tar.addFile("one/layer.tar", layer)
                try tar.add(.symbolicLink, "layer.tar", target: "two/layer.tar")
                try tar.add(.symbolicLink, "two/layer.tar", target: "../one/layer.tar")
            }
            #expect(try fixture.load(archive).count == 1)
        }

        /// An archive as docker saves it, whose one layer is the member `layer.tar`.
        static func dockerArchive(
            layer: [UInt8], diffID: Digest? = nil, config: String? = nil, manifest: String? = nil,
            _ members: (inout TarBuilder) throws -> Void
        ) throws -> [UInt8] {
            let id = diffID ?? Digest.of(layer)
            let config =
                config ?? #"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["\#(id)"]}}"#
            let manifest = manifest ?? #"[{"Config":"c.json","RepoTags":["app:1"],"Layers":["layer.tar"]}]"#
            return try TarBuilder.make {
                try members(&$0)
                try $0.addFile("c.json", Array(config.utf8))
                try $0.addFile("manifest.json", Array(manifest.utf8))
            }
        }

        struct Malformed: Sendable, CustomTestStringConvertible {
            let name: String
            var kind = ImageError.Kind.invalidArchive
            var config: String?
            var manifest: String?
            var diffID: Digest?
            var members: @Sendable (inout TarBuilder, [UInt8]) throws -> Void = { try $0.addFile("layer.tar", $1) }
            var testDescription: String { name }
        }

        static let dockerFaults: [Malformed] = [
            Malformed(name: "a layer that is not what the configuration says", diffID: Digest.of([1])),
            Malformed(name: "a layer that is missing", members: { _, _ in }),
            Malformed(name: "a member twice") { tar, layer in
                try tar.addFile("layer.tar", layer)
                try tar.addFile("./layer.tar", [])
            },
            Malformed(
                name: "a layer outside the archive",
                manifest: #"[{"Config":"c.json","RepoTags":["app:1"],"Layers":["../../../etc/passwd"]}]"#),
            Malformed(name: "a loop of links") { tar, _ in
                try tar.add(.symbolicLink, "layer.tar", target: "a")
                try tar.add(.symbolicLink, "a", target: "layer.tar")
            },
            Malformed(name: "a link out of the archive") { tar, _ in
                try tar.add(.symbolicLink, "layer.tar", target: "../../../../etc/passwd")
            },
            Malformed(name: "a FIFO") { tar, layer in
                try tar.add(.fifo, "fifo")
                try tar.addFile("layer.tar", layer)
            },
            Malformed(name: "no images", manifest: "[]"),
            Malformed(name: "an object as manifest", manifest: "{}"),
            Malformed(name: "no JSON", manifest: "[{]"),
            Malformed(name: "a duplicate member in the JSON", manifest: #"[{"Config":"c.json","Config":"d.json"}]"#),
            Malformed(name: "numbers for layers", manifest: #"[{"Config":"c.json","Layers":[1]}]"#),
            Malformed(
                name: "a name that cannot be",
                manifest: #"[{"Config":"c.json","RepoTags":["../../x"],"Layers":["layer.tar"]}]"#),
            Malformed(name: "a configuration with too few layers", config: config(#""diff_ids":[]"#)),
            Malformed(name: "a configuration with a digest that is none", config: config(#""diff_ids":["sha256:ab"]"#)),
            Malformed(
                name: "a configuration with another kind of root",
                config: #"{"architecture":"amd64","os":"linux","rootfs":{"type":"other","diff_ids":[]}}"#),
            Malformed(name: "a configuration that is a list", config: "[]"),
            Malformed(name: "a layer of xz", kind: .unsupported) { tar, layer in
                try tar.addFile("layer.tar", runTool("/usr/bin/xz", ["-c"], input: layer))
            },
        ]

        static func config(_ rest: String) -> String {
            #"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers",\#(rest)}}"#
        }

        @Test(arguments: dockerFaults) func aMalformedDockerArchiveIsRefused(_ fault: Malformed) throws {
            let fixture = try ImageFixture()
            let layer = try TarBuilder.make { try $0.add(.regular, "file", data: "x") }
            let archive = try Self.dockerArchive(
                layer: layer, diffID: fault.diffID, config: fault.config, manifest: fault.manifest
            ) { try fault.members(&$0, layer) }
            let message = expectRefusal(fault.kind) { try fixture.load(archive) }
            #expect(!message.isEmpty && message.count < 600, "\(message)")
            try fixture.expectStoreEmpty()
        }

        @Test(arguments: [
            (#""environment""#, #""Env":["NOEQUALS"]"#), ("a NUL", #""Cmd":["a\u0000b"]"#),
            ("a port", #""ExposedPorts":{"99999/tcp":{}}"#), ("a relative volume", #""Volumes":{"data":{}}"#),
            ("a user of another type", #""User":5"#),
        ])
        func anImpossibleConfigurationIsRefused(name: String, setting: String) throws {
            let fixture = try ImageFixture()
            let layer = try TarBuilder.make { try $0.add(.regular, "file", data: "x") }
            let config = """
                {"architecture":"amd64","os":"linux","config":{\(setting)},
                 "rootfs":{"type":"layers","diff_ids":["\(Digest.of(layer))"]}}
                """
            let archive = try Self.dockerArchive(layer: layer, config: config) { try $0.addFile("layer.tar", layer) }
            expectRefusal(.invalidArchive) { try fixture.load(archive) }
            try fixture.expectStoreEmpty()
        }
    }
}

/// An OCI layout being put together.
struct LayoutBuilder {
    var tar = TarBuilder()
    var blobs: Set<Digest> = []

    /// Adds content and returns a descriptor for it, as JSON without its braces.
    mutating func add(_ bytes: [UInt8], type: String) throws -> String {
        let digest = Digest.of(bytes)
        if blobs.insert(digest).inserted { try tar.addFile("blobs/sha256/\(digest.hex)", bytes) }
        return #""mediaType":"\#(type)","digest":"\#(digest)","size":\#(bytes.count)"#
    }

    /// Adds an image of one layer and returns its manifest's descriptor.
    mutating func addImage(_ text: String, architecture: String, manifestExtra: String = "") throws -> String {
        let layer = try TarBuilder.make { try $0.add(.regular, "file", data: text) }
        let config =
            #"{"architecture":"\#(architecture)","os":"linux","rootfs":{"type":"layers","diff_ids":["\#(Digest.of(layer))"]}}"#
        let configEntry = try add(Array(config.utf8), type: MediaType.config)
        let layerEntry = try add(layer, type: MediaType.layer)
        let manifest = #"{"schemaVersion":2,"config":{\#(configEntry)},"layers":[{\#(layerEntry)}]\#(manifestExtra)}"#
        return try add(Array(manifest.utf8), type: MediaType.manifest)
    }

    mutating func finish(index: String) throws -> [UInt8] {
        try tar.addFile("oci-layout", Array(#"{"imageLayoutVersion":"1.0.0"}"#.utf8))
        try tar.addFile("index.json", Array(index.utf8))
        return tar.finished
    }
}

extension KernelSuite {
    /// OCI layouts that other tools write, or that nobody should.
    @Suite(.serialized) struct ImageLayoutTests {
        static func index(_ manifests: String, extra: String = "") -> String {
            #"{"schemaVersion":2,"manifests":[\#(manifests)]\#(extra)}"#
        }

        @Test func theHostsPlatformIsTakenFromNestedIndexes() throws {
            let fixture = try ImageFixture()
            var layout = LayoutBuilder()
            let arm = try layout.addImage("arm", architecture: "arm64")
            let amd = try layout.addImage("amd", architecture: "amd64")
            let platforms = [(arm, "arm64"), (amd, "amd64")].map {
                #"{\#($0.0),"platform":{"os":"linux","architecture":"\#($0.1)"}}"#
            }
            // As buildx writes them: statements about an image have a platform of their own.
            let attestation = #"{\#(arm),"platform":{"os":"unknown","architecture":"unknown"}}"#
            let inner = Self.index((platforms + [attestation]).joined(separator: ","))
            let nested = try layout.add(Array(inner.utf8), type: MediaType.index)
            let outer = Self.index(
                #"{\#(nested),"annotations":{"io.containerd.image.name":"docker.io/library/multi:1"}}"#)
            let archive = try layout.finish(index: outer)
            let file = try fixture.file(archive)
            let image = try #require(fixture.store.load(file.raw, platform: Platform("linux/amd64")).first)
            #expect(image.names.map(\.familiar) == ["multi:1"])
            #expect(try File.text("\(fixture.mount(image))/rootfs/file") == "amd")
            let again = try fixture.file(archive)
            let message = expectRefusal(.unsupported) {
                try fixture.store.load(again.raw, platform: Platform("linux/riscv64"))
            }
            #expect(message.contains("linux/amd64"), "\(message)")
        }

        @Test(arguments: [
            ("app:1", ["app:1"]), ("example.org/app", ["example.org/app:latest"]), ("latest", []), ("app", []),
        ])
        func oneWordIsNoName(annotation: String, names: [String]) throws {
            let fixture = try ImageFixture()
            var layout = LayoutBuilder()
            let image = try layout.addImage("x", architecture: "amd64")
            let entry = #"{\#(image),"annotations":{"org.opencontainers.image.ref.name":"\#(annotation)"}}"#
            let loaded = try fixture.load(layout.finish(index: Self.index(entry)))
            #expect(loaded.first?.names.map(\.familiar) == names)
        }

        @Test func aConfusedIndexIsRefused() throws {
            let cases: [(ImageError.Kind, (inout LayoutBuilder, String) throws -> String)] = [
                // Both an index and a manifest.
                (.invalidArchive, { _, image in Self.index("{\(image)}", extra: #","layers":[]"#) }),
                (
                    .invalidArchive,
                    { _, image in Self.index("{\(image)}", extra: #","mediaType":"\#(MediaType.manifest)""#) }
                ),
                (.unsupported, { _, image in #"{"schemaVersion":1,"manifests":[{\#(image)}]}"# }),
                (.invalidArchive, { _, _ in #"{"schemaVersion":2}"# }),
                // Something that is no image.
                (
                    .unsupported,
                    { layout, _ in
                        Self.index("{\(try layout.add(Array("{}".utf8), type: "application/json"))}")
                    }
                ),
                // A manifest announced as an index, and the reverse.
                (
                    .invalidArchive,
                    { _, image in
                        Self.index("{\(image)}".replacing(MediaType.manifest, with: MediaType.index))
                    }
                ),
                // Content that is not there, is larger, or is another.
                (
                    .invalidArchive,
                    { _, image in
                        Self.index("{\(image)}".replacing(#""digest":"sha256:"#, with: #""digest":"sha256:00"#))
                    }
                ),
                (
                    .invalidArchive,
                    { _, image in
                        Self.index("{\(image.replacing(#""size":"#, with: #""size":1"#))}")
                    }
                ),
                (
                    .invalidArchive,
                    { layout, _ in
                        let digest = Digest.of([1, 2, 3])
                        try layout.tar.addFile("blobs/sha256/\(digest.hex)", [3, 2, 1])
                        return Self.index(#"{"mediaType":"\#(MediaType.manifest)","digest":"\#(digest)","size":3}"#)
                    }
                ),
                (
                    .invalidArchive,
                    { layout, _ in
                        Self.index(
                            "{\(try layout.addImage("y", architecture: "amd64", manifestExtra: #","manifests":[]"#))}")
                    }
                ),
                (
                    .unsupported,
                    { layout, _ in
                        let config = try layout.add(Array("{}".utf8), type: "application/vnd.example+json")
                        let manifest = #"{"schemaVersion":2,"config":{\#(config)},"layers":[]}"#
                        return Self.index("{\(try layout.add(Array(manifest.utf8), type: MediaType.manifest))}")
                    }
                ),
            ]
            for (number, (kind, build)) in cases.enumerated() {
                let fixture = try ImageFixture()
                var layout = LayoutBuilder()
                let image = try layout.addImage("x", architecture: "amd64")
                let index = try build(&layout, image)
                let message = expectRefusal(kind) { try fixture.load(layout.finish(index: index)) }
                #expect(!message.isEmpty, "case \(number)")
                try fixture.expectStoreEmpty()
            }
        }

        @Test func aLayerAnnouncedWithAnotherCompressionIsRefused() throws {
            let fixture = try ImageFixture()
            var layout = LayoutBuilder()
            let layer = try TarBuilder.make { try $0.add(.regular, "file", data: "x") }
            let config = ImageArchiveTests.config(#""diff_ids":["\#(Digest.of(layer))"]"#)
            let configEntry = try layout.add(Array(config.utf8), type: MediaType.config)
            let layerEntry = try layout.add(layer, type: MediaType.layer + "+gzip")
            let manifest = #"{"schemaVersion":2,"config":{\#(configEntry)},"layers":[{\#(layerEntry)}]}"#
            let entry = try layout.add(Array(manifest.utf8), type: MediaType.manifest)
            expectRefusal(.invalidArchive) { try fixture.load(layout.finish(index: Self.index("{\(entry)}"))) }
            try fixture.expectStoreEmpty()
        }

        @Test func indexesWithoutEndAreRefused() throws {
            let fixture = try ImageFixture()
            var layout = LayoutBuilder()
            var entry = try layout.addImage("x", architecture: "amd64")
            for _ in 0..<10 { entry = try layout.add(Array(Self.index("{\(entry)}").utf8), type: MediaType.index) }
            expectRefusal(.limitExceeded) { try fixture.load(layout.finish(index: Self.index("{\(entry)}"))) }
            try fixture.expectStoreEmpty()
        }

        @Test func aRootFileSystemIsNoArchiveOfImages() throws {
            let fixture = try ImageFixture()
            let tar = try TarBuilder.make { try $0.add(.directory, "bin/") }
            let message = expectRefusal(.invalidArchive) { try fixture.load(tar) }
            #expect(message.contains("imported, not loaded"))
            expectRefusal(.invalidArchive) { try fixture.load([]) }
            try fixture.expectStoreEmpty()
        }
    }
}
