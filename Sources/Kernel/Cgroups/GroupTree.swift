import CKernel
import Glibc
import Kernel

/// The groups below one, whoever made them: any depth, any names.
///
/// A container that may write to its part of the hierarchy can make names that are not UTF-8 and paths that are longer than
/// the kernel takes at once, so the walk goes from one open directory to the next and takes names as bytes.
enum GroupTree {
    /// Calls `body` for every group below the one at `path`, the deeper ones first, with its name and the open directory
    /// that it is in. Groups that go meanwhile are passed over; none is there when the one at `path` is gone. What is below
    /// a group that may not be opened is not looked at.
    ///
    /// - Throws: what `body` throws, but for ENOENT and ENODEV, which end the walk.
    static func forEach(
        below path: String, _ body: (_ name: [UInt8], _ directory: Int32) throws(KernelError) -> Void
    ) throws(KernelError) {
        do throws(KernelError) {
            var here = try File.open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
            var left = [groups(in: here.raw)]
            var names: [[UInt8]] = []
            while !left.isEmpty {
                if let name = left[left.count - 1].popLast() {
                    guard let below = try? ByteName.openEntry(name, of: here.raw, O_RDONLY | O_DIRECTORY) else {
                        try body(name, here.raw)
                        continue
                    }
                    here = below
                    names.append(name)
                    left.append(groups(in: here.raw))
                } else {
                    left.removeLast()
                    guard let name = names.popLast() else { return }
                    here = try ByteName.openEntry([0x2e, 0x2e], of: here.raw, O_RDONLY | O_DIRECTORY)
                    try body(name, here.raw)
                }
            }
        } catch {
            guard error.errno == ENOENT || error.errno == ENODEV else { throw error }
        }
    }

    /// A control file of the group `name` in `directory`; nil when it is not there, or the group gone or a threaded one,
    /// which does not have every file.
    static func read(_ file: String, of name: [UInt8], in directory: Int32) throws(KernelError) -> String? {
        do throws(KernelError) {
            let group = try ByteName.openEntry(name, of: directory, Int32(CK_O_PATH) | O_DIRECTORY)
            let opened = try ByteName.openEntry(Array(file.utf8), of: group.raw, O_RDONLY)
            return String(decoding: try Descriptor.readAll(opened.raw, limit: 4 << 20), as: UTF8.self)
        } catch {
            guard [ENOENT, ENODEV, EOPNOTSUPP].contains(error.errno) else { throw error }
            return nil
        }
    }

    /// The names of the groups in an open directory.
    static func groups(in directory: Int32) -> [[UInt8]] {
        let copy = ck_openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)
        guard copy >= 0, let stream = fdopendir(copy) else {
            if copy >= 0 { close(copy) }
            return []
        }
        defer { closedir(stream) }
        var names: [[UInt8]] = []
        while let entry = readdir(stream) {
            guard entry.pointee.d_type == UInt8(DT_DIR) else { continue }
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { Array($0.prefix { $0 != 0 }) }
            if name != [0x2e] && name != [0x2e, 0x2e] { names.append(name) }
        }
        return names
    }
}
