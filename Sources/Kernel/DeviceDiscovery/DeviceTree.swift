import CKernel
import Glibc
import Kernel

/// One of the roots, open: small files are read and folders listed inside it, whatever links are in it.
///
/// What is not there is nil, since drivers come in many versions. What is there and cannot be read is nil too, and noted:
/// discovery goes on with what it has, and says what it lacks.
package struct DeviceTree: ~Copyable {
    private let root: Root?
    /// Sentences on what could not be read, at most `problemLimit` of them.
    package private(set) var problems: [String] = []

    /// Problems that are kept; a tree that is broken as a whole does not fill the log.
    package static let problemLimit = 32
    /// Most names in one folder.
    package static let listLimit = 16384

    /// Opens a root; one that is not there is empty.
    package init(_ path: String) {
        do throws(KernelError) {
            root = try Root(path)
        } catch {
            root = nil
            note(error)
        }
    }

    /// A file's text without white space around it; nil when it is not there, empty, or cannot be read.
    ///
    /// - Parameter limit: most bytes; a larger file is a problem.
    package mutating func text(_ path: String, limit: Int = 4096) -> String? {
        guard let bytes = bytes(path, limit: limit) else { return nil }
        let text = String(decoding: bytes, as: UTF8.self).trimmedBlanks
        return text.isEmpty ? nil : text
    }

    /// A file's bytes, with the same bounds.
    package mutating func bytes(_ path: String, limit: Int) -> [UInt8]? {
        do throws(KernelError) {
            return try root?.read(path, limit: limit)
        } catch {
            note(error)
            return nil
        }
    }

    /// An unsigned number, decimal or with 0x; something else is a problem.
    package mutating func number(_ path: String) -> UInt64? {
        guard let text = text(path, limit: 64) else { return nil }
        let number = text.hasPrefix("0x") ? UInt64(text.dropFirst(2), radix: 16) : UInt64(text)
        if number == nil { note("\(path) is '\(text.cleaned)', which is no number") }
        return number
    }

    /// The names in a folder in their order; empty when it is not there. Names that are not UTF-8 are left out.
    package mutating func list(_ path: String) -> [String] {
        do throws(KernelError) {
            guard let folder = try root?.open(path, O_RDONLY | O_DIRECTORY | O_NONBLOCK) else { return [] }
            return try ByteName.list(folder.raw, limit: Self.listLimit)
                .compactMap { String(validating: $0, as: UTF8.self) }.sorted {
                    $0.utf8.lexicographicallyPrecedes($1.utf8)
                }
        } catch {
            note(error)
            return []
        }
    }

    /// The last component of what a symbolic link says: `nvidia` of `driver -> ../../bus/pci/drivers/nvidia`.
    package mutating func linkName(_ path: String) -> String? {
        do throws(KernelError) {
            guard let link = try root?.open(path, Int32(CK_O_PATH) | O_NOFOLLOW) else { return nil }
            let target = String(decoding: try ByteName.linkTarget(of: link.raw), as: UTF8.self)
            return target.pathComponents.last.map { String($0) }
        } catch {
            // A file that is no link says ENOENT too, see readlinkat(2) on an empty path.
            note(error)
            return nil
        }
    }

    /// Adds a problem.
    package mutating func note(_ problem: String) {
        if problems.count < Self.problemLimit { problems.append(problem) }
    }

    private mutating func note(_ error: KernelError) {
        // ENODEV, ENXIO: the device went between the listing and the reading. EOPNOTSUPP: this model has no such thing.
        if [ENOENT, ENOTDIR, ENODEV, ENXIO, EOPNOTSUPP].contains(error.errno) { return }
        note("\(error)")
    }
}

extension StringProtocol {
    /// Without blanks, tabs and line breaks at both ends.
    var trimmedBlanks: String {
        let isBlank = { (byte: UInt8) in byte == 32 || (9...13).contains(byte) }
        let utf8 = Substring(self).utf8.drop(while: isBlank)
        guard let last = utf8.lastIndex(where: { !isBlank($0) }) else { return "" }
        return String(Substring(utf8[...last]))
    }

    /// For a message: without control characters and cut.
    var cleaned: String { ByteName.text(utf8) }
}
