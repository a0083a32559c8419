import Kernel

/// The repository as text: found from where this file was compiled.
struct SourceTree {
    struct File {
        /// Relative to the repository.
        let path: String
        let lines: [Substring]
    }

    let root: String

    init(testFile: String = #filePath) {
        // Tests/RepositoryTests/SourceTree.swift, three steps below the root.
        root = testFile.split(separator: "/", omittingEmptySubsequences: false).dropLast(3).joined(separator: "/")
    }

    /// All files under `folder` whose name ends so, in the order of their paths.
    func files(_ folder: String, ending: String = ".swift") throws -> [File] {
        var result: [File] = []
        for name in try KernelFile.list("\(root)/\(folder)").sorted() {
            let path = "\(folder)/\(name)"
            if isDirectory(path) {
                result += try files(path, ending: ending)
            } else if name.hasSuffix(ending) {
                let text = String(decoding: try KernelFile.read("\(root)/\(path)"), as: UTF8.self)
                result.append(File(path: path, lines: text.split(separator: "\n", omittingEmptySubsequences: false)))
            }
        }
        return result
    }

    func directories(_ folder: String) throws -> [String] {
        try KernelFile.list("\(root)/\(folder)").sorted().filter { isDirectory("\(folder)/\($0)") }
    }

    func isDirectory(_ path: String) -> Bool { (try? KernelFile.list("\(root)/\(path)")) != nil }
}

private typealias KernelFile = Kernel.File

extension SourceTree.File {
    /// The modules that the file imports.
    var imports: [String] {
        lines.compactMap { line in
            var words = line.split(separator: " ")[...]
            while let first = words.first,
                ["package", "public", "internal", "private", "@testable", "@preconcurrency"].contains(first)
            {
                words = words.dropFirst()
            }
            guard words.first == "import", words.count >= 2 else { return nil }
            let named =
                words.dropFirst().first == "struct" || words.dropFirst().first == "class"
                ? words.dropFirst(2) : words.dropFirst()
            return named.first.map { String($0.split(separator: ".")[0]) }
        }
    }
}
