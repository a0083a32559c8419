import Glibc
import Kernel

/// What reaches the files of the resctrl filesystem; tests put one in memory in its place. Paths are relative to its root.
package protocol ResourceControlFiles: Sendable {
    func exists(_ path: String) -> Bool
    func text(_ path: String) throws(KernelError) -> String
    /// One write(2) to a file that is there.
    func write(_ path: String, _ text: String) throws(KernelError)
    func makeDirectory(_ path: String) throws(KernelError)
    /// - Throws: `KernelError`; what is not there is no error.
    func removeDirectory(_ path: String) throws(KernelError)
}

/// A mounted resctrl filesystem: Intel's and AMD's control of caches and memory bandwidth (the kernel's
/// Documentation/filesystems/resctrl.rst).
package struct ResourceControlMount: ResourceControlFiles, Equatable {
    package let root: String

    package init(root: String) { self.root = root }

    /// Where the caller's mount namespace has one; nil where it has none.
    package static func find() throws(KernelError) -> ResourceControlMount? {
        try MountInfo.read().first { $0.type == "resctrl" && $0.root == "/" }.map {
            ResourceControlMount(root: $0.mountPoint)
        }
    }

    package func exists(_ path: String) -> Bool { File.exists("\(root)/\(path)") }

    package func text(_ path: String) throws(KernelError) -> String { try File.text("\(root)/\(path)") }

    package func write(_ path: String, _ text: String) throws(KernelError) {
        try File.writeControl("\(root)/\(path)", text)
    }

    package func makeDirectory(_ path: String) throws(KernelError) {
        let place = "\(root)/\(path)"
        try systemCall("mkdir", place) { mkdir(place, 0o755) }
    }

    package func removeDirectory(_ path: String) throws(KernelError) {
        let place = "\(root)/\(path)"
        guard rmdir(place) != 0, errno != ENOENT else { return }
        throw KernelError("rmdir", place, errno: errno)
    }
}

/// A container's group of the resctrl filesystem: a class of service with a share of caches and memory bandwidth, and
/// perhaps a monitoring group in it.
package struct ResourceControlGroup: Sendable, Equatable {
    /// The class's directory below the root; empty for the root, the default class.
    package let path: String
    /// The monitoring group's directory below the root; nil without monitoring.
    package let monitoring: String?
    /// Whether the class is made for this container and goes with it.
    package let isOwn: Bool

    package init(path: String, monitoring: String?, isOwn: Bool) {
        self.path = path
        self.monitoring = monitoring
        self.isOwn = isOwn
    }

    /// The first directories of the filesystem itself.
    private static let reserved: Set<String> = ["info", "mon_groups", "mon_data"]

    /// Decides where a container goes; changes nothing.
    ///
    /// - Parameters:
    ///   - closID: the class's name, `/` for the default one, nil or empty for one of the container's own.
    ///   - container: the container's id.
    ///   - monitored: it gets a monitoring group of its name.
    /// - Throws: `ProcessAttributeError` for names that are none of a class.
    package init(
        closID: String?, container: String, monitored: Bool, in files: some ResourceControlFiles
    ) throws(ProcessAttributeError) {
        let wanted = closID ?? ""
        let name = wanted.isEmpty ? container : wanted == "/" ? "" : wanted
        guard name.isEmpty || Self.isName(name) else {
            throw ProcessAttributeError("closID", "'\(name.prefix(64))' cannot be the name of a class of service")
        }
        path = name
        monitoring = monitored ? (name.isEmpty ? "" : name + "/") + "mon_groups/\(container)" : nil
        isOwn = wanted.isEmpty && !files.exists(name)
    }

    private static func isName(_ name: String) -> Bool {
        name.utf8.count <= 255 && name != "." && name != ".." && !reserved.contains(name)
            && name.utf8.allSatisfy { $0 > 32 && $0 != 127 && $0 != UInt8(ascii: "/") }
    }

    private func file(_ name: String) -> String { path.isEmpty ? name : "\(path)/\(name)" }

    /// Makes the class unless it is there, gives it its shares, and makes the monitoring group.
    ///
    /// A class that was named and is there must have the very shares already: others use it. What fails leaves nothing behind.
    ///
    /// - Parameters:
    ///   - schemata: lines such as `L3:0=7f0;1=1f`; none leaves the shares alone.
    ///   - named: the configuration named the class.
    /// - Throws: `ProcessAttributeError` when a class that is there has other shares or one that shall be there is
    ///   not; `KernelError`, with what the kernel noted about it.
    package func create(schemata: [String], named: Bool, in files: some ResourceControlFiles) throws {
        let existed = path.isEmpty || files.exists(path)
        if !existed && named && schemata.isEmpty {
            throw ProcessAttributeError(
                "closID", "there is no class of service '\(path)', and without a schema none is made")
        }
        if !existed { try explained(files) { () throws(KernelError) in try files.makeDirectory(path) } }
        do {
            if existed && named {
                try compare(schemata, files)
            } else if !schemata.isEmpty {
                try update(schemata: schemata, in: files)
            }
            if let monitoring, !files.exists(monitoring) {
                try explained(files) { () throws(KernelError) in try files.makeDirectory(monitoring) }
            }
        } catch {
            if !existed { try? files.removeDirectory(path) }
            throw error
        }
    }

    /// Gives the class other shares. Resources without a line keep theirs.
    ///
    /// - Parameter schemata: lines such as `L3:0=7f0;1=1f`.
    package func update(schemata: [String], in files: some ResourceControlFiles) throws(KernelError) {
        let text = schemata.map { $0 + "\n" }.joined()
        try explained(files) { () throws(KernelError) in try files.write(file("schemata"), text) }
    }

    /// Puts a process that has one thread into the class and the monitoring group.
    package func add(_ process: Int32, in files: some ResourceControlFiles) throws(KernelError) {
        try explained(files) { () throws(KernelError) in
            try files.write(file("tasks"), String(process))
            if let monitoring, files.exists(monitoring) { try files.write("\(monitoring)/tasks", String(process)) }
        }
    }

    /// Whether the class is still there.
    package func exists(in files: some ResourceControlFiles) -> Bool { path.isEmpty || files.exists(path) }

    /// Removes what was made for the container; what is gone already is no error.
    package func remove(in files: some ResourceControlFiles) throws(KernelError) {
        if let monitoring { try files.removeDirectory(monitoring) }
        if isOwn { try files.removeDirectory(path) }
    }

    // MARK: Schemata

    /// Every share that is asked for must be there, compared as numbers: the kernel writes them in its own way.
    private func compare(_ schemata: [String], _ files: some ResourceControlFiles) throws {
        if schemata.isEmpty { return }
        var present: [String: [String: UInt64]] = [:]
        for line in try files.text(file("schemata")).split(separator: "\n") {
            guard let schema = Schema(line) else { continue }
            present[schema.resource] = schema.shares
        }
        for line in schemata {
            guard let wanted = Schema(Substring(line)) else {
                throw ProcessAttributeError("schemata", "'\(line.prefix(64))' is no line such as L3:0=7f0;1=1f")
            }
            let shares = present[wanted.resource] ?? [:]
            for (domain, share) in wanted.shares where shares[domain] != share {
                throw ProcessAttributeError(
                    "closID", "the class of service '\(path)' is there with other shares than '\(line.prefix(64))'")
            }
        }
    }

    /// A line of the file `schemata`.
    private struct Schema {
        let resource: String
        /// By the number of the cache or node.
        let shares: [String: UInt64]

        /// nil for what is none.
        init?(_ line: Substring) {
            guard let colon = line.firstIndex(of: ":") else { return nil }
            resource = String(line[..<colon].filter { $0 != " " })
            // Caches have bit masks, written in hexadecimal digits; bandwidth is a number.
            let radix = resource.hasPrefix("L") ? 16 : 10
            var shares: [String: UInt64] = [:]
            for part in line[line.index(after: colon)...].split(separator: ";") {
                let sides = part.split(separator: "=").map { $0.filter { $0 != " " && $0 != "\n" } }
                guard sides.count == 2, let domain = UInt32(sides[0]), let share = UInt64(sides[1], radix: radix) else {
                    return nil
                }
                shares[String(domain)] = share
            }
            self.shares = shares
        }
    }

    /// The kernel's error number says little; its own words are in a file.
    private func explained(
        _ files: some ResourceControlFiles, _ body: () throws(KernelError) -> Void
    ) throws(KernelError) {
        do throws(KernelError) {
            try body()
        } catch {
            let words = (try? files.text("info/last_cmd_status")) ?? ""
            throw KernelError(
                error.operation, error.subject, errno: error.errno, hint: words.isEmpty || words == "ok" ? "" : words)
        }
    }
}
