import CKernel
import Glibc
import Kernel

/// A control group in every hierarchy of the host: made, filled, emptied and removed as one.
///
/// Each controller's limits go to the hierarchy that has it, v1 or v2. Where cgroup2 is mounted the group always has a
/// directory there too, with controllers or without, because killing, freezing and device programs need none.
package struct CgroupManager: Sendable, Equatable {
    /// The hierarchies that the group lives in.
    package let layout: CgroupLayout
    /// Below each hierarchy's mount point, or its `base` there: `/martlet/x`.
    package let path: String

    /// - Parameter path: absolute; relative to the mount point of each hierarchy, wherever this process itself is.
    /// - Throws: `CgroupError` of kind `invalidPath`: not absolute, the root, `.` or `..` in it, a component over 255
    ///   bytes or with a control character, more than 16 components or 2048 bytes.
    package init(layout: CgroupLayout, path: String) throws(CgroupError) {
        func refuse(_ reason: String) -> CgroupError {
            CgroupError(.invalidPath, "path '\(path)'", reason, hint: "name a group such as /martlet/name")
        }
        guard path.isAbsolutePath else { throw refuse("is not absolute") }
        guard path.utf8.count <= 2048 else { throw refuse("is longer than 2048 bytes") }
        let components = path.pathComponents
        guard !components.isEmpty else { throw refuse("is the root group, which belongs to the host") }
        guard components.count <= 16 else { throw refuse("has more than 16 components") }
        for component in components {
            guard component != ".", component != ".." else { throw refuse("contains '\(component)'") }
            guard component.utf8.count <= 255 else { throw refuse("has a component over 255 bytes") }
            guard component.utf8.allSatisfy({ $0 >= 32 && $0 != 127 }) else {
                throw refuse("contains a control character")
            }
        }
        self.layout = layout
        self.path = components.reduce(into: "") { $0 += "/" + String($1) }
    }

    /// A group below this one.
    ///
    /// - Throws: `CgroupError` of kind `invalidPath` when it would lie elsewhere.
    package func child(_ name: String) throws(CgroupError) -> CgroupManager {
        try CgroupManager(layout: layout, path: "\(path)/\(name)")
    }

    /// The group's directory in every hierarchy.
    package var directories: [String] { layout.hierarchies.map { $0.directory(path) } }

    /// Its directory where a controller lives, or nil when the host does not have it.
    package func directory(of controller: CgroupController) -> String? {
        layout.home(of: controller).map { $0.directory(path) }
    }

    /// Its directory in cgroup2, or nil where that is not mounted.
    package var unifiedDirectory: String? { layout.unified.map { $0.directory(path) } }

    /// Whether the group exists in any hierarchy.
    package func exists() -> Bool { directories.contains { access($0, F_OK) == 0 } }

    /// Refuses a group that somebody uses: with a process in it or frozen, where a container's start would hang.
    ///
    /// - Throws: `CgroupError` of kind `busy`.
    package func requireVacant() throws(CgroupError) {
        // The v1 hierarchy among these is that of the freezer, where there is one.
        guard populationRoots.contains(where: { access($0.path, F_OK) == 0 }) else { return }
        let present = try processes()
        guard present.isEmpty else {
            throw CgroupError(
                .busy, path, "has processes already: \(Self.list(present))",
                hint: "choose another cgroup path, or end them")
        }
        guard try !isFrozen() else {
            throw CgroupError(.busy, path, "is frozen", hint: "thaw it or choose another cgroup path")
        }
    }

    /// Makes the group in every hierarchy, or in none: what was made is removed when a step fails. An existing group is
    /// taken as it is.
    ///
    /// v1 cpusets inherit the CPUs and memory nodes of their parents, without which they could hold no process. In v2
    /// every controller there is gets enabled on the way down, as far as the parents allow it.
    /// - Throws: `CgroupError` naming the directory.
    package func create() throws(CgroupError) {
        var made: [String] = []
        do throws(CgroupError) {
            for hierarchy in layout.hierarchies {
                try make(in: hierarchy, recording: &made)
                if hierarchy.controllers.contains(.cpuset) && hierarchy.version == .v1 {
                    try initialiseCpuset(hierarchy, fresh: made)
                }
                if hierarchy.version == .v2 { enableControllers(hierarchy) }
            }
        } catch {
            for directory in made.reversed() { rmdir(directory) }
            throw error
        }
    }

    /// Makes the group's directory in cgroup2 alone, where that is mounted, so that a process can be made in it; `create`
    /// makes the rest.
    ///
    /// - Throws: `CgroupError` naming the directory.
    package func createUnified() throws(CgroupError) {
        guard let unified = layout.unified else { return }
        try CgroupManager(layout: CgroupLayout([unified]), path: path).create()
    }

    /// A descriptor of the cgroup2 directory for CLONE_INTO_CGROUP, or nil where cgroup2 is not mounted.
    ///
    /// - Parameter sibling: a process of the group, when joining a running container: where it moved itself into a
    ///   sub-group (as an init system does), the newcomer goes there, because v2 takes none beside sub-groups.
    /// - Parameter subgroups: where the process goes instead, when something is asked for.
    /// - Throws: `CgroupError` when the group does not exist.
    package func unifiedDescriptor(
        beside sibling: pid_t? = nil, in subgroups: CgroupSubgroups? = nil
    ) throws(CgroupError) -> OwnedFD? {
        guard let home = layout.unified, var directory = unifiedDirectory else { return nil }
        if let subgroups, !subgroups.isEmpty {
            try subgroups.check(against: layout)
            directory += subgroups.path(in: home)
        } else if let sibling, hasInnerGroups(directory), let inner = unifiedGroup(of: sibling) {
            directory = inner
        }
        do {
            return try File.open(directory, O_RDONLY | O_DIRECTORY)
        } catch {
            throw CgroupError(.refused, directory, "cannot be opened", errno: error.errno)
        }
    }

    /// The way into the group's v1 hierarchies for a process that is made later; cgroup2 is entered by
    /// CLONE_INTO_CGROUP.
    ///
    /// - Parameter subgroups: groups below this one to enter instead, which must exist.
    /// - Throws: `CgroupError` naming the controller and the file.
    package func entry(in subgroups: CgroupSubgroups? = nil) throws(CgroupError) -> CgroupEntry {
        try subgroups?.check(against: layout)
        var files: [CgroupEntry.File] = []
        for hierarchy in layout.hierarchies where hierarchy.version == .v1 {
            files.append(try CgroupEntry.File(entrance(to: hierarchy, below: subgroups?.path(in: hierarchy) ?? "")))
        }
        return CgroupEntry(files: files)
    }

    private func entrance(to hierarchy: CgroupHierarchy, below: String = "") -> ControlDirectory {
        ControlDirectory(hierarchy.directory(path) + below, hierarchy.controllers.first?.rawValue ?? "cgroup")
    }

    /// Moves the calling process, which has one thread, into the group in the v1 hierarchies, by what `entry` opened in
    /// another process.
    ///
    /// - Parameter next: the next of the entry's descriptors.
    /// - Throws: `CgroupError` naming the controller and the file; what `next` throws.
    package func enter(receiving next: () throws -> SharedFD) throws {
        for hierarchy in layout.hierarchies where hierarchy.version == .v1 {
            try CgroupEntry.File(entrance(to: hierarchy), opened: next()).enter()
        }
    }

    /// Moves the calling process, which has one thread, into the group in every hierarchy.
    ///
    /// - Throws: `CgroupError` naming the controller and the file.
    package func enter() throws(CgroupError) {
        try entry().enter()
        guard let directory = unifiedDirectory, unifiedGroup(of: getpid()) != directory else { return }
        try ControlDirectory(directory).write("cgroup.procs", "0")
    }

    /// The processes of the group, each once, in no order.
    ///
    /// - Parameter recursive: those of sub-groups too.
    /// - Throws: `CgroupError` when the group cannot be read; a group that does not exist has none.
    package func processes(recursive: Bool = true) throws(CgroupError) -> [pid_t] {
        var found: Set<pid_t> = []
        for root in populationRoots {
            guard access(root.path, F_OK) == 0 else { continue }
            try Self.collect(root, recursive: recursive, into: &found)
        }
        return found.sorted()
    }

    /// Whether no process is left in the group and its sub-groups.
    package func isEmpty() throws(CgroupError) -> Bool {
        if populationRoots.count == 1, let directory = unifiedDirectory,
            let populated = ControlDirectory(directory).table("cgroup.events")["populated"]
        {
            return populated == 0
        }
        return try processes().isEmpty
    }

    /// Removes the group and its sub-groups from every hierarchy; one that is not there is fine.
    ///
    /// The kernel may need a moment after the last process ended: a busy directory is tried again.
    /// - Throws: `CgroupError` of kind `busy` naming the directory and its processes when the time is over.
    package func delete(timeoutMilliseconds: Int = 5000) throws(CgroupError) {
        let deadline = Deadline(milliseconds: timeoutMilliseconds)
        for directory in directories { try Self.remove(ControlDirectory(directory), deadline) }
    }
}

extension CgroupManager {
    /// Where processes are looked for: cgroup2, and one v1 tree, which can hold processes that never were there.
    var populationRoots: [ControlDirectory] {
        let old = layout.hierarchies.filter { $0.version == .v1 }
        let preferred: [CgroupController] = [.freezer, .pids, .memory]
        let chosen =
            preferred.lazy.compactMap { controller in old.first { $0.controllers.contains(controller) } }.first
            ?? old.first
        return [layout.unified, chosen].compactMap { $0 }.map { ControlDirectory($0.directory(path)) }
    }

    /// The first pids of a list, for an error.
    static func list(_ processes: [pid_t]) -> String {
        processes.prefix(8).map { String($0) }.joined(separator: ", ") + (processes.count > 8 ? ", …" : "")
    }

    private static func collect(
        _ directory: ControlDirectory, recursive: Bool, into found: inout Set<pid_t>
    ) throws(CgroupError) {
        found.formUnion(try directory.processes())
        guard recursive else { return }
        do throws(KernelError) {
            // The root of threaded groups lists the processes of those.
            try GroupTree.forEach(below: directory.path) { name, parent throws(KernelError) in
                guard let list = try GroupTree.read("cgroup.procs", of: name, in: parent) else { return }
                found.formUnion(ControlDirectory.processes(list))
            }
        } catch {
            throw CgroupError(
                .refused, directory.path, "its groups cannot be looked at", errno: error.errno,
                hint: "call as root or as the owner of the groups")
        }
    }

    private func make(in hierarchy: CgroupHierarchy, recording made: inout [String]) throws(CgroupError) {
        func attempt(_ directory: String) -> Int32 {
            if mkdir(directory, 0o755) == 0 {
                made.append(directory)
                return 0
            }
            return errno
        }
        let full = hierarchy.directory(path)
        var number = attempt(full)
        if number == ENOENT {
            var directory = hierarchy.directory("")
            for component in path.pathComponents {
                directory += "/" + component
                number = attempt(directory)
                guard number == 0 || number == EEXIST else { break }
            }
        }
        var information = stat()
        if number == EEXIST && (lstat(full, &information) != 0 || information.st_mode & S_IFMT != S_IFDIR) {
            number = ENOTDIR
        }
        guard number == 0 || number == EEXIST else {
            throw CgroupError(
                .refused, controller: hierarchy.controllers.first?.rawValue ?? "cgroup", full, "cannot be made",
                errno: number, hint: number == EROFS ? "the hierarchy is mounted read-only" : "")
        }
    }

    /// Fills empty cpusets from their parents, from the top down. Fresh ones are empty, or have what the parents have
    /// (`cgroup.clone_children`).
    private func initialiseCpuset(_ hierarchy: CgroupHierarchy, fresh: [String]) throws(CgroupError) {
        var parent = ControlDirectory(hierarchy.directory(""), "cpuset")
        for component in path.pathComponents {
            let directory = parent.child(String(component))
            let isFresh = fresh.contains(directory.path)
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if !isFresh, try !directory.read(file).isEmpty { continue }
                try directory.write(file, try parent.read(file))
            }
            parent = directory
        }
    }

    /// Enables in each parent what it has and does not pass on. A refusal is no error here: a limit that needs the
    /// controller says so.
    private func enableControllers(_ hierarchy: CgroupHierarchy) {
        enable(hierarchy.controllers.compactMap(\.unifiedName), in: hierarchy)
    }

    /// Passes controllers of cgroup v2, by name, on to the group, as far as its parents allow it.
    func enable(_ wanted: [String], in hierarchy: CgroupHierarchy) {
        func names(_ text: String?) -> [String] { (text ?? "").split(separator: " ").map { String($0) } }
        let leaf = ControlDirectory(hierarchy.directory(path))
        let present = names(leaf.readIfPresent("cgroup.controllers"))
        if wanted.allSatisfy({ present.contains($0) }) { return }
        var directory = ControlDirectory(hierarchy.mountPoint)
        for component in (hierarchy.base + path).pathComponents {
            let enabled = names(directory.readIfPresent("cgroup.subtree_control"))
            let missing = wanted.filter { !enabled.contains($0) }
            if !missing.isEmpty && !holdsProcesses(directory) {
                let all = missing.map { "+" + $0 }.joined(separator: " ")
                if directory.attempt("cgroup.subtree_control", all) != 0 {
                    for name in missing { _ = directory.attempt("cgroup.subtree_control", "+" + name) }
                }
            }
            directory = directory.child(String(component))
        }
    }

    /// Whether processes live in a group itself, which then passes no domain controller on (cgroups(7), "no internal
    /// processes"). Passing a threaded one on alone would make it a threaded domain, whose sub-groups take no processes.
    /// The host's root, which has no type, may do both.
    private func holdsProcesses(_ directory: ControlDirectory) -> Bool {
        directory.has("cgroup.type") && directory.readIfPresent("cgroup.procs")?.isEmpty == false
    }

    private func hasInnerGroups(_ directory: String) -> Bool {
        ControlDirectory(directory).readIfPresent("cgroup.subtree_control")?.isEmpty == false
    }

    /// The cgroup2 directory of a process, if it lies in this group.
    private func unifiedGroup(of pid: pid_t) -> String? {
        guard let home = layout.unified, let text = try? File.text("/proc/\(pid)/cgroup") else {
            return nil
        }
        for line in text.split(separator: "\n") where line.hasPrefix("0::") {
            let group = String(line.dropFirst(3))
            let shown = home.root == "/" ? "" : home.root
            let own = shown + home.base + path
            let inside = group == own || group.isPath(inside: own)
            guard inside, !group.pathComponents.contains("..") else { return nil }
            return home.mountPoint + String(decoding: group.utf8.dropFirst(shown.utf8.count), as: UTF8.self)
        }
        return nil
    }

    private static func remove(_ directory: ControlDirectory, _ deadline: Deadline) throws(CgroupError) {
        var wait = 1
        while true {
            if rmdir(directory.path) == 0 { return }
            let number = errno
            // Where nothing may be written the kernel does not look whether there is something.
            if number == ENOENT || number == EROFS && access(directory.path, F_OK) != 0 && errno == ENOENT { return }
            guard number == EBUSY || number == ENOTEMPTY else {
                throw CgroupError(.refused, directory.path, "cannot be removed", errno: number)
            }
            var hadGroups = false
            var refusal: Int32?
            do throws(KernelError) {
                try GroupTree.forEach(below: directory.path) { name, parent in
                    hadGroups = true
                    guard ByteName.with(name, { unlinkat(parent, $0, AT_REMOVEDIR) }) != 0 else { return }
                    // One that is still busy is tried again with the whole.
                    if ![EBUSY, ENOTEMPTY, ENOENT].contains(errno) { refusal = refusal ?? errno }
                }
            } catch {
                throw CgroupError(
                    .refused, directory.path, "its groups cannot be looked at", errno: error.errno,
                    hint: "call as root or as the owner of the groups")
            }
            if hadGroups && rmdir(directory.path) == 0 { return }
            if let refusal {
                throw CgroupError(
                    .refused, directory.path, "has a group that cannot be removed", errno: refusal,
                    hint: "remove the groups below it as their owner or root, then delete again")
            }
            guard !deadline.hasPassed else {
                var left: Set<pid_t> = []
                try? collect(directory, recursive: true, into: &left)
                let reason = left.isEmpty ? "is still busy" : "still has processes: \(list(left.sorted()))"
                throw CgroupError(.busy, directory.path, reason, errno: number, hint: "kill them, then delete again")
            }
            deadline.pause(wait)
            wait = min(wait * 2, 50)
        }
    }
}
