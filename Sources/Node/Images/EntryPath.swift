/// A path from an archive in its plain form: no empty component, no `.` and no `..`, relative to the root that the
/// archive is unpacked into. The empty path is that root.
struct EntryPath: Hashable, Sendable {
    /// Components with a slash between each two.
    let bytes: [UInt8]

    /// - Throws: `ImageError` for a path that climbs above the root, or is longer or deeper than allowed.
    init(_ path: [UInt8], limits: ImageLimits) throws {
        guard path.count <= limits.pathBytes else {
            throw ImageError(
                .limitExceeded,
                "the path '\(printable(path))' has \(path.count) bytes, over the \(limits.pathBytes) allowed")
        }
        var components: [ArraySlice<UInt8>] = []
        for component in path.split(separator: UInt8(ascii: "/")) {
            if component.elementsEqual([0x2e]) { continue }
            if component.elementsEqual([0x2e, 0x2e]) {
                guard !components.isEmpty else {
                    throw ImageError(.invalidArchive, "the path '\(printable(path))' leads out of the archive's root")
                }
                components.removeLast()
                continue
            }
            guard component.count <= limits.nameBytes, !component.contains(0) else {
                throw ImageError(
                    .limitExceeded, "the path '\(printable(path))' has a name over \(limits.nameBytes) bytes")
            }
            components.append(component)
        }
        guard components.count <= limits.depth else {
            throw ImageError(
                .limitExceeded, "the path '\(printable(path))' is deeper than the \(limits.depth) levels allowed")
        }
        bytes = Array(components.joined(separator: [0x2f]))
    }

    private init(plain bytes: [UInt8]) { self.bytes = bytes }

    /// The root itself.
    static let root = EntryPath(plain: [])

    var isRoot: Bool { bytes.isEmpty }

    /// The directory that this lies in; the root's is the root.
    var parent: EntryPath {
        guard let slash = bytes.lastIndex(of: 0x2f) else { return .root }
        return EntryPath(plain: Array(bytes[..<slash]))
    }

    /// The last component; empty for the root.
    var name: [UInt8] {
        guard let slash = bytes.lastIndex(of: 0x2f) else { return bytes }
        return Array(bytes[(slash + 1)...])
    }

    /// This path and every directory above it, the outermost first, without the root.
    var prefixes: [EntryPath] {
        var result = bytes.indices.filter { bytes[$0] == 0x2f }.map { EntryPath(plain: Array(bytes[..<$0])) }
        if !isRoot { result.append(self) }
        return result
    }

    /// The entry `name` in this directory.
    func appending(_ name: [UInt8]) -> EntryPath {
        EntryPath(plain: isRoot ? name : bytes + [0x2f] + name)
    }

    /// This path seen from a root in which it lies below `base`.
    func below(_ base: EntryPath) -> EntryPath {
        if base.isRoot { return self }
        return isRoot ? base : EntryPath(plain: base.bytes + [0x2f] + bytes)
    }
}

extension EntryPath: CustomStringConvertible {
    var description: String { "/\(printable(bytes))" }
}
