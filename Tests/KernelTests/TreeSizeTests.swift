import Glibc
import Kernel
import Testing

/// How much a tree holds, whatever is in it.
@Suite struct TreeSizeTests {
    @Test func filesCountOnceAndLinksAreNotFollowed() throws {
        var template = Array("/tmp/martlet-size.XXXXXX".utf8CString)
        try #require(mkdtemp(&template) != nil)
        let top = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        defer { _ = try? Tree.remove(top) }
        try File.makeDirectories("\(top)/a/b")
        try File.replace("\(top)/one", with: [UInt8](repeating: 1, count: 1000))
        try File.replace("\(top)/a/b/two", with: [UInt8](repeating: 1, count: 50))
        #expect(link("\(top)/one", "\(top)/a/again") == 0)
        #expect(symlink("/usr", "\(top)/a/out") == 0)
        #expect(mkfifo("\(top)/a/pipe", 0o600) == 0)
        #expect(try Tree.size(top) == 1050)
        #expect(try Tree.size("\(top)/missing") == 0)
        #expect(throws: KernelError.self) { try Tree.size(top, limit: 3) }
    }
}
