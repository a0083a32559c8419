import Glibc
import JSON
import Kernel
import OCISpec
import Testing

extension KernelSuite {
    /// Bundles that are malformed or mean harm: one sentence that names the place, exit code 1, and a host that is as it
    /// was before. What the reader says of each single field is in OCISpecTests.
    @Suite(.serialized) struct RuntimeBundles {
        // MARK: The file

        /// What can be where config.json should be.
        enum Impostor: String, CaseIterable, CustomTestStringConvertible {
            case fifo, directory, socket, endless, nothing, terminal, dangling, loop, empty, huge, deep, binary, mark

            var testDescription: String { rawValue }

            func make(_ path: String) throws {
                switch self {
                case .fifo: try systemCall("mkfifo", path) { mkfifo(path, 0o600) }
                case .directory: try File.makeDirectories(path)
                case .socket: _ = try UnixSocket.listen(path)
                case .endless: try link("/dev/zero", path)
                case .nothing: try link("/dev/null", path)
                case .terminal: try link("/dev/ptmx", path)
                case .dangling: try link("nowhere", path)
                case .loop: try link("config.json", path)
                case .empty: try File.replace(path, with: [])
                case .huge: try File.replace(path, with: [UInt8](repeating: 32, count: 5 << 20))
                case .deep: try File.replace(path, with: [UInt8](repeating: UInt8(ascii: "["), count: 1 << 20))
                case .binary: try File.replace(path, with: [0x7f, 0x45, 0x4c, 0x46, 0, 0xff])
                case .mark: try File.replace(path, with: [0xef, 0xbb, 0xbf] + Array(#"{"ociVersion":"1.0.2"}"#.utf8))
                }
            }

            private func link(_ target: String, _ path: String) throws {
                try systemCall("symlink", path) { symlink(target, path) }
            }
        }

        @Test(arguments: Impostor.allCases)
        func `something else in place of config.json is refused at once`(_ impostor: Impostor) throws {
            let fixture = try RuntimeFixture()
            let bundle = try fixture.bundle()
            unlink("\(bundle)/config.json")
            try impostor.make("\(bundle)/config.json")
            let before = try HostTraces(fixture)
            for verb in ["create", "run"] {
                let output = try fixture.call([verb, "--bundle", bundle, "c1"], seconds: 10)
                #expect(output.code == 1, "\(output)")
                #expect(output.lines == [] && output.stderr.contains("config.json"), "\(output)")
                #expect(output.stderr.split(separator: "\n").count == 1, "\(output.stderr)")
                #expect(output.stderr.utf8.count < 1024, "\(output.stderr.prefix(100))")
            }
            let changes = try HostTraces.changes(fixture, since: before)
            #expect(changes == [])
        }

        @Test func `a configuration is read through a link, as bundles of engines have it`() throws {
            let fixture = try RuntimeFixture()
            let bundle = try fixture.bundle("echo here")
            try systemCall("rename") { rename("\(bundle)/config.json", "\(bundle)/real.json") }
            try systemCall("symlink") { symlink("real.json", "\(bundle)/config.json") }
            #expect(try fixture.call(["run", "--bundle", bundle, "c1"]).text == "here")
        }

        // MARK: Values

        @Test func `types that do not fit reach nothing but the reader`() throws {
            let fixture = try RuntimeFixture()
            let bench = try BundleBench(fixture)
            let before = try HostTraces(fixture)
            let places = [
                "ociVersion", "hostname", "annotations", "process", "process.args", "process.args.0", "process.user",
                "process.user.uid", "process.capabilities.bounding", "process.terminal", "root", "root.readonly",
                "mounts", "mounts.0", "mounts.0.options", "mounts.0.options.0", "hooks", "hooks.prestart", "linux",
                "linux.namespaces", "linux.namespaces.0.type", "linux.maskedPaths", "linux.resources",
                "linux.resources.memory", "linux.resources.memory.limit", "linux.resources.devices", "linux.devices",
                "linux.seccomp", "linux.sysctl", "linux.uidMappings", "linux.cgroupsPath",
                "linux.rootfsPropagation",
            ]
            for place in places {
                // No field is of this type.
                let output = try bench.create([(place, 1.5)])
                #expect(output.code == 1, "\(place): \(output)")
                let name = "$.\(BundleBench.display(place))"
                #expect(output.stderr.contains("\(name): expected "), "\(place): \(output.stderr)")
                #expect(output.stderr.split(separator: "\n").count == 1, "\(output.stderr)")
            }
            let changes = try HostTraces.changes(fixture, since: before)
            #expect(changes == [])
        }

        @Test(arguments: BundleValue.all)
        func `values at and over the edges`(_ value: BundleValue) throws {
            let fixture = try RuntimeFixture()
            let bench = try BundleBench(fixture)
            let before = try HostTraces(fixture)
            for json in value.values {
                let output = try bench.create([(value.place, try JSONValue.parse(json))])
                #expect(output.code == (value.ours == .refused ? 1 : 0), "\(json.prefix(80)): \(output)")
                if output.code == 0 {
                    try fixture.must("delete", "--force", "c1")
                } else {
                    #expect(output.stderr.split(separator: "\n").count == 1, "\(output.stderr)")
                    #expect(output.stderr.contains(value.name), "\(json.prefix(80)): \(output.stderr)")
                }
                fixture.reap()
            }
            let changes = try HostTraces.changes(fixture, since: before)
            #expect(changes == [])
        }

        @Test(arguments: BundleValue.all.filter { $0.runc != nil })
        func `runc takes and refuses the same, where nothing else is said`(_ value: BundleValue) throws {
            let fixture = try RuntimeFixture(.runc)
            let bench = try BundleBench(fixture)
            for json in value.values {
                let output = try bench.create([(value.place, try JSONValue.parse(json))])
                #expect((output.code == 0) == (value.runc == .accepted), "\(json.prefix(80)): \(output)")
                if output.code == 0 { try fixture.must("delete", "--force", "c1") }
                fixture.reap()
            }
        }

        @Test func `a limit that is wrong is not lifted by update`() throws {
            let fixture = try RuntimeFixture()
            try fixture.start("c1") { $0.linux?.resources = ResourcesSpec() }
            for flag in ["--memory", "--memory-reservation", "--memory-swap"] {
                let output = try fixture.call(["update", flag, "-2", "c1"])
                #expect(output.code == 1 && output.stderr.contains(flag), "\(output)")
            }
        }

        /// What is remembered of a configuration has to be read again: a container that only its maker knows could
        /// not even be deleted.
        @Test func `the longest configuration is refused, or can be deleted`() throws {
            let fixture = try RuntimeFixture()
            let bundle = try fixture.bundle { spec in
                spec.mounts = []
                spec.linux?.maskedPaths = []
                spec.linux?.readonlyPaths = []
                spec.process?.capabilities = nil
            }
            var spec = try ContainerSpec(parsing: File.read("\(bundle)/config.json"))
            spec.annotations = ["a": String(repeating: "a", count: 2 << 20), "b": ""]
            let room = (4 << 20) - spec.encoded().count
            spec.annotations["b"] = String(repeating: "b", count: room)
            try File.replace("\(bundle)/config.json", with: spec.encoded())
            let output = try fixture.call(["create", "--bundle", bundle, "c1"])
            if output.code == 0 {
                try fixture.must("delete", "c1")
            } else {
                #expect(output.stderr.contains("config.json: annotations"), "\(output.stderr.prefix(300))")
            }
            fixture.reap()
            #expect(try fixture.traces() == [])
        }

        // MARK: Directories of the image that are links

        @Test(arguments: ["proc", "sys", "dev", "dev/pts", "dev/shm", "tmp"])
        func `directories of the image that are links lead nowhere outside`(_ name: String) throws {
            let fixture = try RuntimeFixture()
            let canary = "\(fixture.directory)/canary"
            try File.makeDirectories("\(canary)/shm", mode: 0o755)
            try File.replace("\(canary)/null", with: Array("canary".utf8), mode: 0o644)
            let up = String(repeating: "../", count: 12)
            for target in [canary, "\(up)\(canary.dropFirst())", "/nowhere", "nowhere", "/", ".", "/etc", name] {
                for hasDevTmpfs in [true, false] where hasDevTmpfs || name.hasPrefix("dev") {
                    let bundle = try fixture.bundle { spec in
                        if !hasDevTmpfs { spec.mounts.removeAll { $0.destination.hasPrefix("/dev") } }
                        spec.mounts.append(MountSpec(destination: "/tmp", type: "tmpfs", source: "tmpfs"))
                    }
                    let path = "\(bundle)/rootfs/\(name)"
                    _ = try Tree.remove(path)
                    try systemCall("symlink", path) { symlink(target, path) }
                    let before = try HostTraces(fixture)
                    let output = try fixture.call(["run", "--bundle", bundle, "c1"])
                    let changes = try HostTraces.changes(fixture, since: before)
                    #expect(changes == [])
                    #expect(try Self.tree(canary) == ["null 644 6", "shm 755"], "\(target)")
                    if name == "proc" || name == "sys" {
                        #expect(output.code == 1, "\(target): \(output)")
                        #expect(output.stderr.contains("/\(name)"), "\(target): \(output.stderr)")
                        #expect(output.stderr.contains("ordinary directory"), "\(target): \(output.stderr)")
                    } else if output.code != 0 {
                        #expect(output.code == 1, "\(target): \(output)")
                        #expect(output.stderr.split(separator: "\n").count == 1, "\(output.stderr)")
                    }
                }
            }
        }

        @Test func `runc 1_1 makes links of dev where the image leads it (CVE-2026-41579): the test above can fail`()
            throws
        {
            let version = try Program("/usr/sbin/runc", ["--version"]).run()
            guard String(decoding: version.output, as: UTF8.self).contains("runc version 1.1.") else { return }
            let fixture = try RuntimeFixture(.runc)
            let canary = "\(fixture.directory)/canary"
            try File.makeDirectories(canary)
            let bundle = try fixture.bundle()
            rmdir("\(bundle)/rootfs/dev")
            try systemCall("symlink") { symlink(canary, "\(bundle)/rootfs/dev") }
            _ = try fixture.call(["run", "--bundle", bundle, "c1"])
            #expect(try File.list(canary).contains("ptmx"))
        }

        /// Names, permissions and sizes of what is in a directory, sorted.
        private static func tree(_ path: String) throws -> [String] {
            try File.list(path).sorted().map { name in
                var info = stat()
                try systemCall("lstat", name) { lstat("\(path)/\(name)", &info) }
                let size = info.st_mode & S_IFMT == S_IFREG ? " \(info.st_size)" : ""
                return "\(name) \(String(info.st_mode & 0o7777, radix: 8))\(size)"
            }
        }
    }
}

/// One bundle whose configuration changes from call to call: making a root filesystem for each would take most of the time.
struct BundleBench {
    private let fixture: RuntimeFixture
    private let bundle: String
    private let base: JSONValue

    init(_ fixture: RuntimeFixture) throws {
        self.fixture = fixture
        bundle = try fixture.bundle("sleep 1000")
        base = try JSONValue.parse(File.read("\(bundle)/config.json"))
    }

    /// Calls `create` for the container `c1` with some values changed. Places are as in `linux.devices.0.path`; what is
    /// missing on the way is made.
    func create(_ changes: [(String, JSONValue)]) throws -> RuntimeOutput {
        let document = changes.reduce(base) { Self.set($0, $1.0.split(separator: "."), $1.1) }
        try File.replace("\(bundle)/config.json", with: document.serialized())
        return try fixture.call(["create", "--bundle", bundle, "c1"], seconds: 20)
    }

    /// `linux.devices.0` as errors have it: `linux.devices[0]`.
    static func display(_ place: String) -> String {
        place.split(separator: ".").reduce("") { text, part in
            Int(part) != nil ? "\(text)[\(part)]" : text.isEmpty ? String(part) : "\(text).\(part)"
        }
    }

    private static func set(_ value: JSONValue?, _ place: [Substring], _ new: JSONValue) -> JSONValue {
        guard let first = place.first else { return new }
        let rest = Array(place.dropFirst())
        if let index = Int(first) {
            var elements = value?.arrayValue ?? []
            if index < elements.count {
                elements[index] = set(elements[index], rest, new)
            } else {
                elements.append(set(nil, rest, new))
            }
            return .array(elements)
        }
        var object = value?.objectValue ?? [:]
        object[String(first)] = set(object[String(first)], rest, new)
        return .object(object)
    }
}

/// What of the host a runtime could leave something in: its state, cgroups, mounts, processes that are ours.
struct HostTraces {
    let traces: [String]
    let mounts: [String]
    let groups: [String]
    let children: [String]

    init(_ fixture: RuntimeFixture) throws {
        fixture.reap()
        traces = try fixture.traces()
        mounts = try MountInfo.read().map(\.mountPoint)
        // Groups above the container's own stay, as with other runtimes; the fixture removes its own.
        groups = try File.list("/sys/fs/cgroup").flatMap { hierarchy in
            ((try? File.list("/sys/fs/cgroup/\(hierarchy)")) ?? [])
                .filter { $0.hasPrefix("martlet-") && !$0.hasPrefix("martlet-rt-") && !$0.hasPrefix("martlet-test-") }
                .map { "\(hierarchy)/\($0)" }
        }.sorted()
        // What the runtime leaves is handed to this process, a subreaper.
        let own = getpid()
        children = try File.list("/proc").compactMap { pid_t($0) }.compactMap { pid -> String? in
            guard let status = try? File.text("/proc/\(pid)/status"), status.contains("\nPPid:\t\(own)\n") else {
                return nil
            }
            return "\(pid) \(status.prefix { $0 != "\n" })"
        }.sorted()
    }

    /// What is there that was not, and the other way round.
    static func changes(_ fixture: RuntimeFixture, since before: HostTraces) throws -> [String] {
        let now = try HostTraces(fixture)
        let pairs = [
            (before.traces, now.traces), (before.mounts, now.mounts), (before.groups, now.groups),
            (before.children, now.children),
        ]
        return pairs.flatMap { old, new in
            new.filter { !old.contains($0) }.map { "new: \($0)" }
                + old.filter { !new.contains($0) }.map { "gone: \($0)" }
        }
    }
}
