import Confinement
import Glibc
import Kernel
import Testing

@Suite("Compiled filters that are kept")
struct SeccompCacheTests {
    private static func withFolder(_ body: (String) throws -> Void) throws {
        let folder = "/tmp/martlet-filters-\(getpid())-\(UInt32.random(in: 0 ... .max))"
        try File.makeDirectories(folder)
        defer { _ = try? Tree.remove(folder) }
        try body(folder)
    }

    private static let profile = DefaultSeccompProfile.profile(capabilities: CapabilitySet())

    @Test("the second time the same program comes from the folder")
    func isKept() throws {
        try Self.withFolder { folder in
            let cache = SeccompCache(directory: "\(folder)/filters")
            let compiled = try Self.profile.compile()
            #expect(try cache.program(of: Self.profile) == compiled)
            let kept = try File.list("\(folder)/filters")
            #expect(kept.count == 1)
            let before = try Self.inode("\(folder)/filters/\(kept[0])")
            #expect(try cache.program(of: Self.profile) == compiled)
            #expect(try File.list("\(folder)/filters") == kept)
            #expect(try Self.inode("\(folder)/filters/\(kept[0])") == before, "it was not written again")
        }
    }

    @Test("a file that is damaged, cut off, another's or a link is not loaded")
    func damaged() throws {
        try Self.withFolder { folder in
            let cache = SeccompCache(directory: folder)
            let compiled = try cache.program(of: Self.profile)
            let path = "\(folder)/\(try #require(try File.list(folder).first))"
            let whole = try File.read(path)
            var turned = whole
            turned[whole.count - 16] ^= 1
            var source = whole
            source[0] ^= 1
            for content in [turned, source, Array(whole.dropLast(8)), Array(whole.prefix(20)), whole + whole, []] {
                try File.replace(path, with: content)
                #expect(try cache.program(of: Self.profile) == compiled)
                #expect(try File.read(path) == whole, "it was compiled anew")
            }
            try File.replace("\(folder)/elsewhere", with: whole)
            unlink(path)
            #expect(symlink("\(folder)/elsewhere", path) == 0)
            #expect(try cache.program(of: Self.profile) == compiled)
        }
    }

    @Test("profiles that differ in one detail never share a program")
    func differences() throws {
        try Self.withFolder { folder in
            let cache = SeccompCache(directory: folder)
            let condition = try SeccompComparison(index: 1, .equal, 9)
            let profiles = [
                SeccompProfile(defaultAction: .allow, rules: [SeccompRule(["kill"], .errno(1))]),
                SeccompProfile(defaultAction: .allow, rules: [SeccompRule(["kill"], .errno(2))]),
                SeccompProfile(defaultAction: .log, rules: [SeccompRule(["kill"], .errno(1))]),
                SeccompProfile(defaultAction: .allow, rules: [SeccompRule(["kill", "tkill"], .errno(1))]),
                SeccompProfile(
                    defaultAction: .allow,
                    rules: [SeccompRule(["kill"], .errno(1)), SeccompRule(["tkill"], .errno(1))]),
                SeccompProfile(defaultAction: .allow, rules: [SeccompRule(["kill,tkill"], .errno(1))]),
                SeccompProfile(defaultAction: .allow, rules: [SeccompRule(["kill"], .errno(1), when: [condition])]),
                SeccompProfile(
                    defaultAction: .allow, architectures: [.x86], rules: [SeccompRule(["kill"], .errno(1))]),
            ]
            for profile in profiles { _ = try cache.program(of: profile) }
            #expect(try File.list(folder).count == profiles.count)
            for profile in profiles { #expect(try cache.program(of: profile) == profile.compile()) }
        }
    }

    @Test("flags and unknown names are those of the profile that is asked for")
    func flags() throws {
        try Self.withFolder { folder in
            let cache = SeccompCache(directory: folder)
            let rules = [SeccompRule(["kill", "no_such_call"], .errno(1))]
            for flags in [SeccompFlags.allowSpeculation, [], .log] {
                let program = try cache.program(of: SeccompProfile(defaultAction: .allow, flags: flags, rules: rules))
                #expect(program.flags == flags.rawValue)
                #expect(program.skipped == ["no_such_call"])
            }
        }
    }

    @Test("the folder stays small, and one that cannot be written to keeps nobody from starting")
    func bounds() throws {
        try Self.withFolder { folder in
            let cache = SeccompCache(directory: folder)
            for number in 0..<UInt16(SeccompCache.capacity + 10) {
                _ = try cache.program(
                    of: SeccompProfile(defaultAction: .allow, rules: [SeccompRule(["kill"], .errno(number))]))
            }
            #expect(try File.list(folder).count <= SeccompCache.capacity)
            try File.replace("\(folder)/file", with: [])
            #expect(
                try SeccompCache(directory: "\(folder)/file").program(of: Self.profile) == Self.profile.compile())
        }
    }

    private static func inode(_ path: String) throws -> ino_t {
        var info = stat()
        try systemCall("stat", path) { stat(path, &info) }
        return info.st_ino
    }
}
