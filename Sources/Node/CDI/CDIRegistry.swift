import CDISpec
import Glibc
import Kernel
import Reactor
import Synchronization

/// The CDI specifications of a node: files `*.json` and `*.yaml` in directories, of which a later one goes before an
/// earlier one.
///
/// A device that two files of one directory have cannot be asked for. A file that is not valid, or not whole yet, takes
/// its own devices away, those that it had when it was valid last: they are not found in a directory of lower priority
/// meanwhile, which might mean other hardware. All others go on.
///
/// Bounds: 256 files of 1 MiB each in a directory, 16 MiB and 16384 devices together. Looking costs a few system calls
/// for each file, and only those that changed are read.
package final class CDIRegistry: Sendable {
    /// Those of the specification: what an administrator or a package wrote, and what programs write at run time.
    package static let standardDirectories = ["/etc/cdi", "/var/run/cdi"]
    static let fileLimit = 256
    static let byteLimit = 16 << 20
    static let deviceLimit = 16384

    /// Absolute paths, lowest priority first.
    package let directories: [String]
    private let state = Mutex(State())

    private struct State {
        /// By path.
        var files: [String: Known] = [:]
        var inventory = CDIInventory()
    }

    private struct Known {
        var stamp: FileStamp?
        var source: CDIInventory.Source
    }

    /// What one look has seen so far.
    private struct Look {
        let now = FileStamp.now
        var bytes = 0
        var devices = 0
        var files: [(String, Known)] = []
        var warnings: [String] = []
    }

    /// - Parameter directories: absolute paths, lowest priority first; they need not be there.
    package init(_ directories: [String] = standardDirectories) { self.directories = directories }

    /// Looks at the directories again. Never fails: what cannot be read is a warning.
    @discardableResult
    package func refresh() -> CDIInventory {
        state.withLock { state in
            var look = Look()
            for (priority, directory) in directories.enumerated() {
                self.look(at: directory, priority, state.files, &look)
            }
            state.files = Dictionary(look.files) { $1 }
            let inventory = CDIInventory(look.files.map(\.1.source), warnings: look.warnings)
            // An equal one as it was: its parts are the same memory.
            if inventory != state.inventory { state.inventory = inventory }
            return state.inventory
        }
    }

    /// The edits of devices, from what the files say now.
    ///
    /// - Throws: `CDIError` that names what is not there.
    package func edits(of names: [CDIName]) throws(CDIError) -> CDIEdits {
        // A directory that hangs is to keep nobody who wants nothing of it.
        names.isEmpty ? CDIEdits() : try refresh().edits(of: names)
    }

    private func look(at directory: String, _ priority: Int, _ before: [String: Known], _ look: inout Look) {
        let files: [String]
        do throws(KernelError) {
            files = try File.list(directory)
        } catch {
            guard error.errno != ENOENT else { return }
            look.warnings.append("the CDI specifications in \(directory) cannot be looked at: \(error)")
            return keep(directory, before, &look)
        }
        guard let stamp = FileStamp(directory, now: look.now) else { return }
        if let mistrust = Self.mistrust(stamp) {
            look.warnings.append("the CDI specifications in \(directory) are not used: \(mistrust)")
            return
        }
        let names = files.filter(CDIFile.isName).sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
        for name in names.prefix(Self.fileLimit) {
            let path = "\(directory)/\(name)"
            guard let known = file(path, priority, before[path], &look) else { continue }
            look.files.append((path, known))
        }
        if names.count > Self.fileLimit {
            look.warnings.append(
                "the CDI specification \(CDIFile.line(names[Self.fileLimit])) and all behind it in \(directory) are not "
                    + "read: there are \(names.count) files, and \(Self.fileLimit) is the limit")
        }
    }

    /// A directory that cannot be listed has what it had.
    private func keep(_ directory: String, _ before: [String: Known], _ look: inout Look) {
        for (path, known) in before.sorted(by: { $0.key < $1.key }) {
            guard path.hasPrefix("\(directory)/"), !path.dropFirst(directory.count + 1).contains("/") else { continue }
            look.files.append((path, known))
        }
    }

    /// nil: it is none, or it went while we looked.
    private func file(_ path: String, _ priority: Int, _ before: Known?, _ look: inout Look) -> Known? {
        func unusable(_ problem: String, _ stamp: FileStamp? = nil) -> Known {
            Known(
                stamp: stamp,
                source: CDIInventory.Source(
                    path: path, priority: priority, specification: nil, names: before?.source.names ?? [],
                    problem: problem))
        }
        guard let stamp = FileStamp(path, now: look.now) else {
            return File.exists(path) ? unusable("it is a symbolic link that leads nowhere") : nil
        }
        if isDirectory(path) { return nil }
        look.bytes += min(max(stamp.size, 0), CDILimits.bytes)
        guard look.bytes <= Self.byteLimit else {
            return unusable("the files together are larger than the \(Self.byteLimit >> 20) MiB allowed")
        }
        if let mistrust = Self.mistrust(stamp) { return unusable(mistrust, stamp) }
        var known: Known
        if let before, before.stamp == stamp, !stamp.isFresh {
            known = before
        } else {
            do throws(CDIError) {
                let specification = try CDIFile.read(path)
                known = Known(
                    stamp: stamp,
                    source: CDIInventory.Source(
                        path: path, priority: priority, specification: specification,
                        names: Set(specification.devices.map(specification.name(of:))), problem: nil))
            } catch {
                return unusable(error.description, stamp)
            }
        }
        look.devices += known.source.names.count
        guard look.devices <= Self.deviceLimit else {
            return unusable("there are more than the \(Self.deviceLimit) devices allowed")
        }
        return known
    }

    /// Why hooks are not taken from there: they are run as root.
    static func mistrust(_ stamp: FileStamp) -> String? {
        if stamp.mode & S_IWOTH != 0 { return "anybody may write to it; run chmod o-w" }
        if stamp.owner != 0 && stamp.owner != geteuid() {
            return "it belongs to the user \(stamp.owner) and not to root; run chown root"
        }
        return nil
    }

    private func isDirectory(_ path: String) -> Bool {
        var info = stat()
        return stat(path, &info) == 0 && info.st_mode & S_IFMT == S_IFDIR
    }
}

/// Tells when the devices of a registry have changed, see `DirectoryWatch`. Ends with this value.
package final class CDIWatch: Sendable {
    private let watch: DirectoryWatch

    /// - Parameter changed: called on a thread of its own, first with what is there now, then after each change of
    ///   devices or warnings.
    /// - Throws: `KernelError` when inotify, the wake-up descriptor or the thread cannot be made.
    package init(
        _ registry: CDIRegistry, _ changed: @escaping @Sendable (CDIInventory) -> Void
    ) throws(KernelError) {
        // Of one thread alone: the lock is never waited for.
        let last = Mutex<CDIInventory?>(nil)
        watch = try DirectoryWatch(registry.directories, thread: "cdi-devices") {
            let inventory = registry.refresh()
            if last.withLock({ $0 != inventory }) { changed(inventory) }
            last.withLock { $0 = inventory }
            // Where a directory is not there, the one that it will be made in says when.
            return registry.directories.filter { !File.exists($0) }.compactMap { directory in
                directory.lastIndex(of: "/").map { String(directory[..<$0]) }
            }.filter { !$0.isEmpty }
        }
    }
}
