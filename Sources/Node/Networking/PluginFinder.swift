import CKernel
import CNISpec
import Glibc
import Kernel
import Synchronization

/// Where the programs of plugins are, and which files may be run as such.
///
/// A plugin is found by its type, a plain name, in the plugin directories in their order, and nowhere else. It is an
/// ordinary executable file that not everybody may write; a symbolic link counts when the file that it leads to is in a
/// plugin directory itself (several names of one program), and is passed over when it leads out of them.
struct PluginFinder: Sendable, Equatable {
    /// Absolute paths.
    let directories: [String]
    /// Plugins that are not looked for, with the absolute paths of their programs.
    let own: [String: String]

    /// The path to execute, or one sentence that says why there is none.
    func find(_ type: String) -> Result<String, Missing> {
        guard CNINames.isPluginType(type) else {
            return .failure(Missing("its name is no plain file name, and only files in plugin directories are run"))
        }
        if let path = own[type] {
            if Self.isProgram(path) { return .success(path) }
            return .failure(Missing("there is no program \(path): build or install it with Martlet's others"))
        }
        var reason: String?
        for directory in directories {
            let path = "\(directory)/\(type)"
            guard File.exists(path) else { continue }
            if let problem = problem(path) {
                reason = reason ?? "\(path) is not run: \(problem)"
            } else {
                return .success(path)
            }
        }
        let places = directories.joined(separator: ", ")
        return .failure(
            Missing(
                reason ?? "the plugin is not installed in \(places); Debian has it in containernetworking-plugins"))
    }

    struct Missing: Error, Equatable {
        let reason: String
        init(_ reason: String) { self.reason = reason }
    }

    private func problem(_ path: String) -> String? {
        var info = stat()
        guard stat(path, &info) == 0 else { return "it is a symbolic link that leads nowhere" }
        guard info.st_mode & S_IFMT == S_IFREG else { return "it is no ordinary file" }
        guard access(path, X_OK) == 0 else { return "it is not executable" }
        guard info.st_mode & S_IWOTH == 0 else { return "everybody may write it; take that right away (chmod o-w)" }
        var link = stat()
        guard lstat(path, &link) == 0, link.st_mode & S_IFMT == S_IFLNK else { return nil }
        guard let target = Self.resolved(path), let slash = target.lastSlash else {
            return "it is a symbolic link that leads nowhere"
        }
        let place = String(target[..<slash])
        if directories.contains(where: { Self.resolved($0) == place }) { return nil }
        return "it is a symbolic link to \(target), outside the plugin directories; add that one's directory to them"
    }

    private static func isProgram(_ path: String) -> Bool {
        var info = stat()
        return stat(path, &info) == 0 && info.st_mode & S_IFMT == S_IFREG && access(path, X_OK) == 0
    }

    /// See realpath(3).
    private static func resolved(_ path: String) -> String? {
        guard let result = realpath(path, nil) else { return nil }
        defer { free(result) }
        return String(cString: result)
    }
}

/// What plugins answered to VERSION, by file, so that each is asked once.
enum PluginVersions {
    private struct Key: Hashable {
        let path: String
        let inode: UInt
        let size: Int
        let seconds: Int
        let nanoseconds: Int
    }

    private static let known = Mutex<[Key: [String]]>([:])
    private static let limit = 256

    /// - Parameter ask: what finds out; called without any lock.
    static func of(_ path: String, _ ask: () throws(CNIHostError) -> [String]) throws(CNIHostError) -> [String] {
        var info = stat()
        guard stat(path, &info) == 0 else { return try ask() }
        let key = Key(
            path: path, inode: info.st_ino, size: info.st_size, seconds: info.st_ctim.tv_sec,
            nanoseconds: info.st_ctim.tv_nsec)
        if let answer = known.withLock({ $0[key] }) { return answer }
        let answer = try ask()
        known.withLock { known in
            if known.count >= limit { known = [:] }
            known[key] = answer
        }
        return answer
    }
}
