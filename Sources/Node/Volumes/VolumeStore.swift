import CKernel
import Glibc
import JSON
import Kernel
import Synchronization

/// A named volume of one node.
package struct VolumeRecord: Codable, Sendable, Equatable {
    package var name: String
    package var created: Timestamp
    package var labels: [String: String]
    /// As given when it was made, see `VolumeOptions`.
    package var options: [String: String]
    /// Made for one container, without a name of a user's choice.
    package var anonymous: Bool

    private enum CodingKeys: String, CodingKey { case name, created, labels, options, anonymous }

    init(name: String, labels: [String: String], options: [String: String] = [:], anonymous: Bool) {
        self.name = name
        created = Timestamp.now()
        self.labels = labels
        self.options = options
        self.anonymous = anonymous
    }
}

/// The volumes of one node: `<root>/<name>/_data` is what containers see, `<root>/<name>/volume.json` what is known about
/// it.
///
/// One process at a time has the store open; its operations may be called from several threads. A volume is made beside
/// its place and renamed, and renamed away before it is removed, so that there is all of it or nothing.
package final class VolumeStore: Sendable {
    /// The store's directory.
    package let root: String
    /// What was found damaged when the store was opened, and what became of it.
    package let warnings: [String]
    let refusedSources: [String]
    let volumes: Mutex<[String: VolumeRecord]>
    /// Of who mounts, unmounts or fills a volume.
    let turns = VolumeTurns()
    private let lock: FileLock

    /// The longest name in bytes.
    package static let maximumName = 128
    private static let record = "volume.json"

    /// Opens the store, making it when it is not there, and removes what an interrupted process left.
    ///
    /// - Parameter refusedSources: host directories that no container may have as a bind mount: Martlet's own data and
    ///   run directories.
    /// - Throws: `VolumeError`: inUse when another process has it open; system.
    package init(root: String, refusedSources: [String]) throws {
        self.root = root
        self.refusedSources = refusedSources
        let opened = try VolumeError.explaining("opening the volume store \(root)") {
            try File.makeDirectories(root, mode: 0o700)
            guard let lock = try FileLock("\(root)/.lock") else {
                throw VolumeError(.inUse, "the volume store \(root) is open in another process")
            }
            var warnings: [String] = []
            var records: [String: VolumeRecord] = [:]
            for name in try File.list(root) {
                if name.hasPrefix(".new.") || name.hasPrefix(".removed.") {
                    try Tree.remove("\(root)/\(name)")
                } else if Self.isName(name), File.exists("\(root)/\(name)/_data") {
                    records[name] = try Self.read(name, in: root, warnings: &warnings)
                }
            }
            return (lock: lock, records: records, warnings: warnings)
        }
        lock = opened.lock
        warnings = opened.warnings
        volumes = Mutex(opened.records)
    }

    /// Reads what is known about a volume; a damaged record is put aside and made anew, the data is left alone.
    private static func read(_ name: String, in root: String, warnings: inout [String]) throws -> VolumeRecord {
        let path = "\(root)/\(name)/\(record)"
        do {
            let stored = try JSONCoding.decode(VolumeRecord.self, from: try File.read(path))
            if stored.name == name { return stored }
        } catch {
            // Handled below, as another volume's record is.
        }
        rename(path, path + ".damaged")
        warnings.append("\(path) is damaged; it was moved to \(path).damaged, the volume has lost its labels")
        let fresh = VolumeRecord(name: name, labels: [:], anonymous: false)
        try File.replace(path, with: JSONCoding.encode(fresh, pretty: true))
        return fresh
    }
}

extension VolumeStore {
    /// `[a-zA-Z0-9][a-zA-Z0-9_.-]*`, at most 128 characters.
    package static func isName(_ name: String) -> Bool {
        let bytes = Array(name.utf8)
        let isAlphanumeric = { (byte: UInt8) in
            (0x30...0x39).contains(byte) || (0x41...0x5a).contains(byte) || (0x61...0x7a).contains(byte)
        }
        guard let first = bytes.first, bytes.count <= maximumName, isAlphanumeric(first) else { return false }
        return bytes.allSatisfy { isAlphanumeric($0) || "_.-".utf8.contains($0) }
    }

    private static func check(_ name: String) throws {
        guard isName(name) else {
            throw VolumeError(
                .invalidArgument,
                "'\(ByteName.text(name.utf8))' is no volume name: 1 to \(maximumName) letters, digits and _ . -, "
                    + "the first one a letter or digit")
        }
    }

    /// Makes a volume; one that exists is returned as it is.
    ///
    /// - Parameter options: see `VolumeOptions`; what they name is looked for when a container gets the volume.
    /// - Throws: `VolumeError`: invalidArgument, unsupported, noSpace, system.
    @discardableResult
    package func create(
        _ name: String, labels: [String: String] = [:], options: [String: String] = [:], anonymous: Bool = false
    ) throws -> VolumeRecord {
        try Self.check(name)
        _ = try VolumeOptions(options)
        guard labels.count <= 1024, labels.allSatisfy({ $0.key.utf8.count <= 1024 && $0.value.utf8.count <= 65536 })
        else {
            throw VolumeError(.invalidArgument, "a volume has at most 1,024 labels of at most 64 KiB")
        }
        return try VolumeError.explaining("making the volume \(name)") {
            try volumes.withLock { volumes in
                if let present = volumes[name] { return present }
                let record = VolumeRecord(name: name, labels: labels, options: options, anonymous: anonymous)
                let new = "\(root)/.new.\(name)"
                try Tree.remove(new)
                do {
                    try File.makeDirectories("\(new)/_data", mode: 0o755)
                    try systemCall("chmod", new) { chmod("\(new)/_data", 0o755) }
                    try File.replace("\(new)/\(Self.record)", with: JSONCoding.encode(record, pretty: true))
                    try systemCall("rename", name) {
                        ck_renameat2(AT_FDCWD, new, AT_FDCWD, directory(name), UInt32(CK_RENAME_NOREPLACE))
                    }
                } catch {
                    _ = try? Tree.remove(new)
                    throw error
                }
                try File.syncDirectory(of: "\(root)/.")
                volumes[name] = record
                return record
            }
        }
    }

    /// All volumes, by name.
    package func list() -> [VolumeRecord] {
        volumes.withLock { Array($0.values) }.sorted { $0.name < $1.name }
    }

    /// - Throws: `VolumeError` notFound.
    package func inspect(_ name: String) throws -> VolumeRecord {
        guard let record = volumes.withLock({ $0[name] }) else {
            throw VolumeError(.notFound, "there is no volume '\(ByteName.text(name.utf8))' on this node")
        }
        return record
    }

    /// Removes a volume with its data.
    ///
    /// - Parameter inUse: the names of the volumes that tasks have, running or not. Asked for with the store's lock held:
    ///   a task that is not among them yet finds the volume gone when it looks, and never loses it after that.
    /// - Returns: the bytes that the file system got back.
    /// - Throws: `VolumeError`: notFound, inUse, system.
    @discardableResult
    package func remove(_ name: String, inUse: @autoclosure () -> Set<String>) throws -> UInt64 {
        try unmount(name, inUse: inUse())
        return try VolumeError.explaining("removing the volume \(ByteName.text(name.utf8))") {
            let aside = "\(root)/.removed.\(name)"
            try volumes.withLock { volumes in
                guard volumes[name] != nil else {
                    throw VolumeError(.notFound, "there is no volume '\(ByteName.text(name.utf8))' on this node")
                }
                guard !inUse().contains(name) else {
                    throw VolumeError(.inUse, "the volume '\(name)' is used by a task; remove its tasks first")
                }
                try Tree.remove(aside)
                try systemCall("rename", name) { rename(directory(name), aside) }
                volumes[name] = nil
            }
            return try Tree.remove(aside).bytes
        }
    }

    /// Removes the volumes that no task has.
    ///
    /// - Parameters:
    ///   - inUse: as of `remove`.
    ///   - anonymousOnly: leave those that a user named.
    /// - Returns: the names of those that went, and the bytes that the file system got back.
    package func prune(
        inUse: @autoclosure () -> Set<String>, anonymousOnly: Bool
    ) throws -> (names: [String], bytes: UInt64) {
        var result: (names: [String], bytes: UInt64) = ([], 0)
        let used = inUse()
        for record in list() where !used.contains(record.name) && (record.anonymous || !anonymousOnly) {
            do {
                result.bytes += try remove(record.name, inUse: inUse())
                result.names.append(record.name)
            } catch let error as VolumeError where error.kind == .inUse || error.kind == .notFound {
                // Somebody has taken it meanwhile, or removed it.
            }
        }
        return result
    }

    func directory(_ name: String) -> String { "\(root)/\(name)" }

    /// Where a volume's data lies on the host.
    ///
    /// - Throws: `VolumeError` notFound.
    package func path(_ name: String) throws -> String { "\(directory(try inspect(name).name))/_data" }

    /// Opens a volume's data, or a part of it, as the source of a mount.
    ///
    /// What lies in a volume was made by containers: a symbolic link on the way may lead to another place in the volume,
    /// one that leads out of it is an error.
    ///
    /// - Parameter subpath: relative to the volume's root; empty for all of it.
    /// - Returns: an O_PATH descriptor.
    /// - Throws: `VolumeError`: notFound, invalidArgument, system.
    package func open(_ name: String, subpath: String = "") throws -> OwnedFD {
        let path = try path(name)
        guard subpath.utf8.count <= 4095, !subpath.utf8.contains(0), !subpath.isAbsolutePath else {
            throw VolumeError(
                .invalidArgument, "a path in a volume is relative, without NUL and at most 4,095 bytes long")
        }
        return try VolumeError.explaining("opening the volume \(name)") {
            let data = try File.open(path, Int32(CK_O_PATH) | O_DIRECTORY | O_NOFOLLOW)
            if subpath.isEmpty { return data }
            let how = ck_open_how(
                flags: UInt64(UInt32(bitPattern: Int32(CK_O_PATH) | O_CLOEXEC)), mode: 0,
                resolve: UInt64(CK_RESOLVE_BENEATH | CK_RESOLVE_NO_MAGICLINKS | CK_RESOLVE_NO_XDEV))
            let raw = withUnsafePointer(to: how) { ck_openat2(data.raw, subpath, $0) }
            if raw >= 0 { return OwnedFD(adopting: Int32(raw)) }
            switch errno {
            case ENOENT, ENOTDIR:
                throw VolumeError(.notFound, "there is no '\(ByteName.text(subpath.utf8))' in the volume '\(name)'")
            case EXDEV, ELOOP:
                throw VolumeError(
                    .invalidArgument, "'\(ByteName.text(subpath.utf8))' leads out of the volume '\(name)'")
            default: throw KernelError("openat2", subpath, errno: errno)
            }
        }
    }
}
