import CKernel
import Glibc

/// System calls on names that are bytes, relative to open directories.
///
/// Names in images and containers need not be UTF-8, and strings that are canonically equivalent compare as equal in
/// Swift though they name different files.
package enum ByteName {
    /// Calls `body` with the bytes as a C string.
    package static func with<Result>(_ bytes: [UInt8], _ body: (UnsafePointer<CChar>) -> Result) -> Result {
        (bytes + [0]).withUnsafeBytes { raw in
            // SAFETY: the array ends in NUL, so it is not empty and is a C string.
            body(raw.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: CChar.self))
        }
    }

    /// Opens a path inside a root directory: symbolic links and `..` stay in it, magic links of procfs are refused.
    /// The empty path is the root.
    ///
    /// - Parameter withoutLinks: refuse any symbolic link on the way (ELOOP).
    package static func open(
        _ path: [UInt8], in root: Int32, _ flags: Int32, withoutLinks: Bool = false
    ) throws(KernelError) -> OwnedFD {
        let resolve = CK_RESOLVE_IN_ROOT | CK_RESOLVE_NO_MAGICLINKS | (withoutLinks ? CK_RESOLVE_NO_SYMLINKS : 0)
        let how = ck_open_how(
            flags: UInt64(UInt32(bitPattern: flags | O_CLOEXEC)), mode: 0, resolve: UInt64(resolve))
        // The kernel answers EAGAIN when a rename raced with a `..`; a loop without end would be a lever.
        for _ in 0..<128 {
            let raw = with(path.isEmpty ? [0x2e] : path) { name in
                withUnsafePointer(to: how) { ck_openat2(root, name, $0) }
            }
            if raw >= 0 { return OwnedFD(adopting: Int32(raw)) }
            guard errno == EAGAIN || errno == EINTR else { break }
        }
        throw KernelError("openat2", text(path), errno: errno)
    }

    /// Opens one name in a directory, never following a symbolic link.
    package static func openEntry(
        _ name: [UInt8], of directory: Int32, _ flags: Int32, mode: mode_t = 0
    ) throws(KernelError) -> OwnedFD {
        OwnedFD(
            adopting: try systemCall("openat", text(name)) {
                with(name) { ck_openat(directory, $0, flags | O_NOFOLLOW | O_CLOEXEC, mode) }
            })
    }

    /// What a name in a directory is, symbolic links not followed; nil when there is nothing.
    package static func status(_ name: [UInt8], of directory: Int32) throws(KernelError) -> stat? {
        var info = stat()
        if with(name, { fstatat(directory, $0, &info, AT_SYMLINK_NOFOLLOW) }) == 0 { return info }
        if errno == ENOENT { return nil }
        throw KernelError("fstatat", text(name), errno: errno)
    }

    /// The names in an open directory, without `.` and `..`, in no order.
    ///
    /// - Throws: `KernelError`; EFBIG for more than `limit`.
    package static func list(_ directory: Int32, limit: Int) throws(KernelError) -> [[UInt8]] {
        let copy = try systemCall("openat", ".") { ck_openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0) }
        guard let stream = fdopendir(copy) else {
            let number = errno
            close(copy)
            throw KernelError("fdopendir", errno: number)
        }
        defer { closedir(stream) }
        var result: [[UInt8]] = []
        while let entry = readdir(stream) {
            // SAFETY: d_name is a C string inside the entry, which is valid until the next call of readdir.
            let name = UnsafeRawPointer(entry).advanced(by: MemoryLayout<dirent>.offset(of: \.d_name) ?? 19)
            let length = strlen(name.assumingMemoryBound(to: CChar.self))
            let bytes = Array(UnsafeRawBufferPointer(start: name, count: length))
            if bytes == [0x2e] || bytes == [0x2e, 0x2e] { continue }
            result.append(bytes)
            guard result.count <= limit else {
                throw KernelError("readdir", errno: EFBIG, hint: "more than \(limit) names in one directory")
            }
        }
        return result
    }

    /// What a symbolic link that is open with O_PATH says.
    package static func linkTarget(of descriptor: Int32) throws(KernelError) -> [UInt8] {
        var buffer = [CChar](repeating: 0, count: 4096)
        let count = try systemCall("readlinkat") { readlinkat(descriptor, "", &buffer, buffer.count) }
        return buffer[..<count].map { UInt8(bitPattern: $0) }
    }

    /// Bytes from outside as text for a message: control characters and what is not UTF-8 replaced, cut to 128
    /// characters.
    package static func text(_ bytes: some Sequence<UInt8>) -> String {
        let text = String(decoding: Array(bytes.prefix(1024)), as: UTF8.self)
        let clean = text.unicodeScalars.map { $0.value < 0x20 || $0.value == 0x7f ? "\u{fffd}" : String($0) }
        return clean.count > 128 ? clean.prefix(125).joined() + "..." : clean.joined()
    }
}

extension stat {
    /// The S_IF* part of the mode.
    package var type: mode_t { st_mode & S_IFMT }
    package var isDirectory: Bool { type == S_IFDIR }
}
