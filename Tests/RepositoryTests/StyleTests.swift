import Glibc
import Kernel
import Testing

@Suite("The style of the house")
struct StyleTests {
    let tree = SourceTree()

    @Test("swift format has nothing to say")
    func formatting() throws {
        let path = try #require(getenv("PATH").flatMap { String(validatingCString: $0) })
        let found = path.split(separator: ":").map { folder -> String in "\(folder)/swift" }.first {
            access($0, X_OK) == 0
        }
        let swift = try #require(found, "no swift on the PATH")
        let folders = ["Sources", "Tests", "plugins", "Fuzz", "Package.swift"].map { "\(tree.root)/\($0)" }
        let lint = Program(
            swift, ["format", "lint", "--strict", "--parallel", "--recursive"] + folders,
            environment: ["PATH=\(path)", "HOME=/root"], timeoutMilliseconds: 300_000)
        let result: ProgramResult = try lint.run()
        #expect(result.status == .exited(0), "run `make format`:\n\(result.errorText)")
    }

    @Test("no drawer for everything")
    func names() throws {
        let drawers = ["Utils", "Util", "Helpers", "Helper", "Common", "Misc"]
        for file in try tree.files("Sources") + tree.files("Tests") {
            let name = String(file.path.split(separator: "/").last ?? "").split(separator: ".")[0]
            #expect(!drawers.contains(String(name)), "\(file.path): name what is in it")
        }
    }

    @Test("what the compiler cannot check has its reason beside it")
    func reasons() throws {
        let marks = ["@unchecked Sendable", "nonisolated(unsafe)", "unsafeBitCast", "unsafelyUnwrapped", "try!"]
        for file in try tree.files("Sources") {
            for (number, line) in file.lines.enumerated() where marks.contains(where: { line.contains($0) }) {
                let before = file.lines[max(0, number - 4)...number].contains { $0.contains("//") }
                #expect(before, "\(file.path):\(number + 1): say why `\(line)` is safe")
            }
        }
    }

    /// The value's type is generic, so each access converts the closure there and back and leaves it wrapped twice more;
    /// after some thousand accesses a call of it overflows the stack.
    @Test("no mutex holds a bare closure")
    func closures() throws {
        for file in try tree.files("Sources") {
            for (number, line) in file.lines.enumerated() {
                #expect(
                    !line.contains(/Mutex<\(.*->/),
                    "\(file.path):\(number + 1): put the closure into a struct, and the struct into the mutex")
            }
        }
    }

    @Test("a file can be read in one go: at most 800 lines")
    func length() throws {
        for file in try tree.files("Sources") + tree.files("Tests") + tree.files("CShims", ending: ".c") {
            #expect(file.lines.count <= 800, "\(file.path) has \(file.lines.count) lines")
        }
    }

    @Test("programs' main.swift holds no logic")
    func mains() throws {
        for file in try tree.files("Sources/Programs") where file.path.hasSuffix("/main.swift") {
            let code = file.lines.filter { !$0.isEmpty && !$0.hasPrefix("import ") && !$0.hasPrefix("//") }
            #expect(code.count <= 3, "\(file.path) has \(code.count) lines of code")
        }
    }
}
