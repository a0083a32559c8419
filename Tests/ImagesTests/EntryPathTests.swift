import Testing

@testable import Images

/// Paths in archives.
@Suite struct EntryPathTests {
    static func plain(_ text: String) throws -> String {
        String(decoding: try EntryPath(Array(text.utf8), limits: .standard).bytes, as: UTF8.self)
    }

    @Test(arguments: [
        ("a", "a"), ("/a", "a"), ("./a", "a"), ("a/", "a"), ("a//b", "a/b"), ("a/./b", "a/b"), ("a/../b", "b"),
        ("a/b/..", "a"),
        ("", ""), (".", ""), ("/", ""), ("a/..", ""), ("...", "..."), ("..a", "..a"), ("a\\..\\b", "a\\..\\b"),
    ])
    func hasAPlainForm(text: String, expected: String) throws { #expect(try Self.plain(text) == expected) }

    @Test(arguments: ["..", "../a", "a/../..", "/..", "a/../../b", "./../x"]) func leadsOut(_ text: String) {
        #expect(throws: ImageError.self) { try Self.plain(text) }
    }

    @Test func parentsAndPrefixesAreThoseOfTheTree() throws {
        let path = try EntryPath(Array("a/b/c".utf8), limits: .standard)
        #expect(path.name == [0x63] && path.parent.name == [0x62] && path.parent.parent.parent.isRoot)
        #expect(path.prefixes.map(\.description) == ["/a", "/a/b", "/a/b/c"])
        #expect(EntryPath.root.prefixes.isEmpty && EntryPath.root.parent.isRoot)
        let base = try EntryPath(Array("x/y".utf8), limits: .standard)
        #expect(path.below(base).description == "/x/y/a/b/c" && EntryPath.root.below(base) == base)
    }

    @Test func messagesAreSafeToPrint() {
        #expect(printable("a\nb\u{1b}[31m\0") == "a\u{fffd}b\u{fffd}[31m\u{fffd}")
        #expect(printable([0x61, 0xff]) == "a\u{fffd}")
        #expect(printable(String(repeating: "x", count: 500)).count == 128)
    }
}
