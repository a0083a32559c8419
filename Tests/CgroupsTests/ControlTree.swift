import Cgroups
import Glibc

/// A directory tree with plain files in place of the kernel's: what is written can be read again. It shows which files
/// are written with what; that the kernel takes it is shown in KernelTests.
final class ControlTree {
    let root: String
    let manager: CgroupManager

    /// - Parameters:
    ///   - hierarchies: the layout, by directory name; mount points are made below a temporary directory.
    ///   - files: the group's files by hierarchy, with their content before.
    init(_ hierarchies: [(name: String, hierarchy: (String) -> CgroupHierarchy)], files: [String: [String: String]])
        throws
    {
        var template = Array("/tmp/martlet-cgroups-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw TreeError() }
        let root = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        self.root = root
        let layout = CgroupLayout(hierarchies.map { $0.hierarchy("\(root)/\($0.name)") })
        manager = try CgroupManager(layout: layout, path: "/martlet/x")
        for (name, _) in hierarchies {
            for directory in ["\(root)/\(name)", "\(root)/\(name)/martlet", "\(root)/\(name)/martlet/x"] {
                mkdir(directory, 0o755)
            }
            for (file, text) in files[name] ?? [:] { write("\(name)/martlet/x/\(file)", text) }
        }
    }

    deinit { remove(root) }

    /// cgroup2 with all controllers.
    static func unified(_ files: [String: String]) throws -> ControlTree {
        let controllers: [CgroupController] = [.cpu, .cpuset, .blkio, .memory, .pids, .hugetlb, .rdma]
        return try ControlTree(
            [("unified", { CgroupHierarchy(mountPoint: $0, version: .v2, controllers: controllers) })],
            files: ["unified": files])
    }

    /// One v1 hierarchy for each controller named.
    static func old(_ files: [CgroupController: [String: String]]) throws -> ControlTree {
        try ControlTree(
            files.keys.map { controller in
                (
                    controller.rawValue,
                    { CgroupHierarchy(mountPoint: $0, version: .v1, controllers: [controller]) }
                )
            }, files: Dictionary(uniqueKeysWithValues: files.map { ($0.key.rawValue, $0.value) }))
    }

    /// The content of a file of the group, such as `memory/memory.limit_in_bytes`.
    subscript(path: String) -> String? {
        guard let slash = path.firstIndex(of: "/") else { return nil }
        let full = "\(root)/\(path[..<slash])/martlet/x\(path[slash...])"
        guard let file = fopen(full, "r") else { return nil }
        defer { fclose(file) }
        var buffer = [UInt8](repeating: 0, count: 8192)
        let count = fread(&buffer, 1, buffer.count, file)
        return String(decoding: buffer[..<count], as: UTF8.self)
    }

    func write(_ path: String, _ text: String) {
        guard let file = fopen("\(root)/\(path)", "w") else { return }
        fputs(text, file)
        fclose(file)
    }

    private func remove(_ path: String) {
        if let directory = opendir(path) {
            while let entry = readdir(directory) {
                let name = withUnsafePointer(to: &entry.pointee.d_name) {
                    $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
                }
                if name != "." && name != ".." { remove("\(path)/\(name)") }
            }
            closedir(directory)
            rmdir(path)
        } else {
            unlink(path)
        }
    }

    struct TreeError: Error {}
}
