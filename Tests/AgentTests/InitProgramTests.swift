import Glibc
import Kernel
import Testing

@testable import Agent

@Suite("The init program of containers")
struct InitProgramTests {
    @Test("It is laid down once, and anew when the node's program is another: also an older one of the same size")
    func replaced() throws {
        var template = Array("/tmp/martlet-init.XXXXXX".utf8CString)
        try #require(mkdtemp(&template) != nil)
        let folder = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        defer { _ = try? Tree.remove(folder) }
        let (program, copy) = (folder + "/program", folder + "/init")
        /// Its inode and mode.
        func lay() throws -> String {
            try PodExecutor.copyProgram(program, to: copy)
            return try Self.run("/usr/bin/stat", ["-c", "%i %a", copy])
        }
        try File.replace(program, with: Array("new".utf8), mode: 0o700)
        let first = try lay()
        #expect(first.hasSuffix(" 755\n"))
        #expect(try lay() == first && File.text(copy) == "new")
        try File.replace(program, with: Array("old".utf8), mode: 0o700)
        _ = try Self.run("/usr/bin/touch", ["-d", "@1000.5", program])
        #expect(try lay() != first && File.text(copy) == "old")
    }

    private static func run(_ program: String, _ arguments: [String]) throws -> String {
        let result = try Program(program, arguments).run()
        #expect(result.status == .exited(0), "\(program): \(result.errorText)")
        return String(decoding: result.output, as: UTF8.self)
    }
}
