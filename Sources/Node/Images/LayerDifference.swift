import CKernel
import Glibc
import Kernel

/// What a container's writable layer says about one path.
package struct LayerChange: Sendable, Equatable {
    package enum Kind: Sendable, Equatable {
        case modified
        case added
        case deleted
    }

    /// Without a slash before it.
    let path: EntryPath
    package let kind: Kind
    /// A directory that hides what lies under it in the layers below.
    let isOpaque: Bool

    /// Absolute, in the container; what is not UTF-8 is replaced.
    package var name: String { "/" + String(decoding: path.bytes, as: UTF8.self) }
}

/// Reads an overlay's upper directory against the layers below it (Linux: Documentation/filesystems/overlayfs.rst):
/// character devices 0/0 are whiteouts, and directories with `trusted.overlay.opaque` hide what is under them.
///
/// A container may write there meanwhile. Every directory is opened from the layer's root without following a link, so
/// that nothing outside of the layer is ever looked at; what goes meanwhile is left out.
struct LayerDifference {
    private let upper: SharedFD
    private let lowers: [SharedFD]
    /// Mount points that the runtime makes: while they are empty they are nobody's change.
    private let places: Set<[UInt8]>
    private let limits: ImageLimits
    private(set) var changes: [LayerChange] = []
    private var entries = 0

    /// Paths, and entries of one walk.
    private static let most = 1_000_000

    /// - Parameters:
    ///   - upper: the open writable layer.
    ///   - lowers: the open layers below, the topmost first.
    ///   - places: absolute paths in the container.
    init(upper: SharedFD, lowers: [SharedFD], places: [String], limits: ImageLimits) {
        self.upper = upper
        self.lowers = lowers
        self.places = Set(places.map { Array($0.utf8.drop { $0 == 0x2f }) })
        self.limits = limits
    }

    /// Fills `changes`, directories before what is in them.
    ///
    /// - Throws: `ImageError` limitExceeded; `KernelError`.
    mutating func run() throws { _ = try walk(.root, Array(lowers.indices), depth: 0) }

    /// What one name in a directory of the upper layer is.
    private struct Entry {
        var name: [UInt8]
        var info: stat
        /// In the topmost layer below that has it.
        var below: stat?
        /// The layers below whose directory shows through it.
        var shining: [Int]
    }

    /// - Parameter visible: the layers below whose directory of this path shows through.
    /// - Returns: whether anything in it is told, and whether a mere mount point was passed over.
    private mutating func walk(
        _ path: EntryPath, _ visible: [Int], depth: Int
    ) throws -> (tells: Bool, passes: Bool) {
        guard depth <= limits.depth else {
            throw ImageError(.limitExceeded, "'\(path)' is deeper than the \(limits.depth) levels allowed")
        }
        var result = (tells: false, passes: false)
        for entry in try list(path, visible) {
            let child = path.appending(entry.name)
            if entry.info.isWhiteout {
                result.tells = true
                try tell(LayerChange(path: child, kind: .deleted, isOpaque: false))
                continue
            }
            let kind: LayerChange.Kind = entry.below == nil ? .added : .modified
            let isPlace = kind == .added && places.contains(child.bytes)
            guard entry.info.isDirectory else {
                if isPlace, entry.info.type == S_IFREG, entry.info.st_size == 0 {
                    result.passes = true
                } else {
                    result.tells = true
                    try tell(LayerChange(path: child, kind: kind, isOpaque: false))
                }
                continue
            }
            let at = changes.count
            let isOpaque = try isOpaque(child)
            let inside = try walk(child, isOpaque ? [] : entry.shining, depth: depth + 1)
            let hidden = isOpaque ? try hiddenNames(child, entry.shining) : []
            let isOurs = kind == .added && !inside.tells && (isPlace || inside.passes)
            let isSame =
                !inside.tells && !isOpaque && kind == .modified
                && Self.isSame(entry.info, entry.below, ignoringTime: inside.passes)
            if isOurs || isSame {
                result.passes = result.passes || isOurs || inside.passes
                continue
            }
            result.tells = true
            changes.insert(LayerChange(path: child, kind: kind, isOpaque: isOpaque && entry.below != nil), at: at)
            for name in hidden {
                try tell(LayerChange(path: child.appending(name), kind: .deleted, isOpaque: false))
            }
        }
        return result
    }

    private mutating func tell(_ change: LayerChange) throws {
        guard changes.count < Self.most else {
            throw ImageError(.limitExceeded, "more than \(Self.most) paths were changed")
        }
        changes.append(change)
    }

    /// What a directory of the upper layer has, by name, with what is below each.
    private mutating func list(_ path: EntryPath, _ visible: [Int]) throws -> [Entry] {
        guard let directory = try Self.open(path, in: upper.raw) else { return [] }
        var below: [(index: Int, directory: SharedFD)] = []
        for index in visible {
            if let found = try Self.open(path, in: lowers[index].raw) { below.append((index, SharedFD(found))) }
        }
        let names = try ByteName.list(directory.raw, limit: limits.layerEntries)
        entries += names.count
        guard entries <= limits.layerEntries else {
            throw ImageError(.limitExceeded, "there are more than the \(limits.layerEntries) entries allowed")
        }
        return try names.sorted { $0.lexicographicallyPrecedes($1) }.compactMap { name in
            guard let info = try ByteName.status(name, of: directory.raw) else { return nil }
            var entry = Entry(name: name, info: info, below: nil, shining: [])
            for layer in below {
                guard let found = try ByteName.status(name, of: layer.directory.raw) else { continue }
                if found.isWhiteout { break }
                if entry.below == nil { entry.below = found }
                guard found.isDirectory else { break }
                entry.shining.append(layer.index)
                if try isOpaque(path.appending(name), in: lowers[layer.index].raw) { break }
            }
            return entry
        }
    }

    private func isOpaque(_ path: EntryPath) throws -> Bool { try isOpaque(path, in: upper.raw) }

    private func isOpaque(_ path: EntryPath, in root: Int32) throws -> Bool {
        guard let directory = try Self.open(path, in: root) else { return false }
        return try ExtendedAttribute.all(of: directory.raw).contains {
            $0.name == Array("trusted.overlay.opaque".utf8) && $0.value == Array("y".utf8)
        }
    }

    /// What an opaque directory hides and has nothing in place of.
    private func hiddenNames(_ path: EntryPath, _ shining: [Int]) throws -> [[UInt8]] {
        guard let own = try Self.open(path, in: upper.raw) else { return [] }
        var decided = Set(try ByteName.list(own.raw, limit: limits.layerEntries))
        var hidden: [[UInt8]] = []
        for index in shining {
            guard let directory = try Self.open(path, in: lowers[index].raw) else { continue }
            for name in try ByteName.list(directory.raw, limit: limits.layerEntries)
            where decided.insert(name).inserted {
                if try ByteName.status(name, of: directory.raw)?.isWhiteout == false { hidden.append(name) }
            }
        }
        return hidden.sorted { $0.lexicographicallyPrecedes($1) }
    }

    /// nil when there is no such directory, or no longer.
    private static func open(_ path: EntryPath, in root: Int32) throws -> OwnedFD? {
        do throws(KernelError) {
            return try ByteName.open(path.bytes, in: root, O_RDONLY | O_DIRECTORY, withoutLinks: true)
        } catch {
            if [ENOENT, ENOTDIR, ELOOP].contains(error.errno) { return nil }
            throw error
        }
    }

    private static func isSame(_ info: stat, _ below: stat?, ignoringTime: Bool) -> Bool {
        guard let below, below.isDirectory else { return false }
        return info.st_mode == below.st_mode && info.st_uid == below.st_uid && info.st_gid == below.st_gid
            && (ignoringTime
                || info.st_mtim.tv_sec == below.st_mtim.tv_sec && info.st_mtim.tv_nsec == below.st_mtim.tv_nsec)
    }
}

extension LayerDifference {
    /// Writes the changes as a layer (OCI image-spec, layer.md): whiteouts are empty files `.wh.NAME`, opaque directories
    /// have a `.wh..wh..opq`.
    ///
    /// - Returns: whether there was anything.
    func write(to target: Int32) throws -> Bool {
        let writer = TarWriter { try writeAll($0, to: target, subject: "the layer") }
        var archiver = TreeArchiver(root: upper.raw, writer: writer, limits: limits) { _ in }
        var opaque: Set<EntryPath> = []
        for change in changes {
            if change.kind == .deleted {
                // The opaque mark of its directory says it already.
                guard !opaque.contains(change.path.parent) else { continue }
                try Self.mark(change.path.parent.appending(Whiteout.prefix + change.path.name), writer)
                continue
            }
            let found: OwnedFD
            do throws(KernelError) {
                let parent = try ByteName.open(
                    change.path.parent.bytes, in: upper.raw, Int32(CK_O_PATH) | O_DIRECTORY, withoutLinks: true)
                found = try ByteName.openEntry(change.path.name, of: parent.raw, Int32(CK_O_PATH))
            } catch {
                if [ENOENT, ENOTDIR, ELOOP].contains(error.errno) { continue }
                throw error
            }
            try archiver.addOne(found.raw, name: change.path.bytes)
            if change.isOpaque {
                opaque.insert(change.path)
                try Self.mark(change.path.appending(Whiteout.opaque), writer)
            }
        }
        try writer.finish()
        return !changes.isEmpty
    }

    /// An empty file that says something about others.
    private static func mark(_ path: EntryPath, _ writer: TarWriter) throws {
        try writer.begin(TarEntry(.regular, path.bytes))
    }
}
