import CKernel
import Glibc
import Kernel

/// Finding what to execute, in the container's root.
enum ProgramLookup {
    /// The absolute paths to try, all of executable files that are there now.
    ///
    /// - Throws: `RuntimeError` in the words that engines look for to tell 127 (not found) from 126 (not executable).
    static func candidates(_ name: String, environment: [String], directory: String) throws -> [String] {
        if name.utf8.contains(UInt8(ascii: "/")) {
            let path = name.isAbsolutePath ? name : "\(directory)/\(name)"
            var info = stat()
            guard stat(path, &info) == 0 else {
                throw RuntimeError("exec: \"\(name)\": stat \(path): \(String(errno: errno).lowercased())")
            }
            guard isExecutable(info) else { throw RuntimeError("exec: \"\(name)\": permission denied") }
            return [path]
        }
        let search = environment.last { $0.hasPrefix("PATH=") }.map { String($0.dropFirst(5)) }
        var found: [String] = []
        for part in (search ?? defaultSearch).split(separator: ":") where part.isAbsolutePath {
            let path = "\(part)/\(name)"
            var info = stat()
            if stat(path, &info) == 0, isExecutable(info) { found.append(path) }
        }
        guard !found.isEmpty else { throw RuntimeError("exec: \"\(name)\": executable file not found in $PATH") }
        return found
    }

    private static let defaultSearch = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

    private static func isExecutable(_ info: stat) -> Bool {
        info.st_mode & S_IFMT == S_IFREG && info.st_mode & 0o111 != 0
    }

    /// The largest /etc/passwd that is read.
    private static let passwordLimit = 10 << 20

    /// HOME for a process whose environment has none: the user's directory in the container's /etc/passwd, or `/`.
    static func home(of uid: UInt32, in root: borrowing Root) -> String {
        guard let bytes = try? root.read("/etc/passwd", limit: passwordLimit) else { return "/" }
        let wanted = Array(String(uid).utf8)
        var line = bytes[...]
        while !line.isEmpty {
            let end = line.firstIndex(of: UInt8(ascii: "\n")) ?? line.endIndex
            if let home = home(line[..<end], of: wanted) {
                return home.isAbsolutePath && !home.utf8.contains(0) ? home : "/"
            }
            line = line[end...].dropFirst()
        }
        return "/"
    }

    /// The sixth field of a line, passwd(5), when the third is the one that is wanted; nil too for a line with fewer.
    private static func home(_ line: ArraySlice<UInt8>, of wanted: [UInt8]) -> String? {
        var rest = line
        var isWanted = false
        for number in 0..<6 {
            let end = rest.firstIndex(of: UInt8(ascii: ":")) ?? rest.endIndex
            if number == 2 { isWanted = rest[..<end].elementsEqual(wanted) }
            if number == 5 { return isWanted ? String(decoding: rest[..<end], as: UTF8.self) : nil }
            if end == rest.endIndex { return nil }
            rest = rest[end...].dropFirst()
        }
        return nil
    }
}
