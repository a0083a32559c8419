import CKernel
import Glibc

/// Files by path, for the host side. Paths inside a container's root go through `Root` (openat2) instead.
package enum File {
    /// Opens close-on-exec.
    package static func open(_ path: String, _ flags: Int32, mode: mode_t = 0o600) throws(KernelError) -> OwnedFD {
        OwnedFD(adopting: try systemCall("open", path) { ck_open(path, flags | O_CLOEXEC, mode) })
    }

    /// Reads a whole file of at most `limit` bytes.
    package static func read(_ path: String, limit: Int = 1 << 20) throws(KernelError) -> [UInt8] {
        let file = try open(path, O_RDONLY)
        return try file.readAll(limit: limit, subject: path)
    }

    /// The same for what must be an ordinary file: somebody else's FIFO would hold the caller up for ever, and a device
    /// might have side effects when it is read.
    package static func readRegular(_ path: String, limit: Int = 1 << 20) throws(KernelError) -> [UInt8] {
        // O_NONBLOCK so that opening a FIFO or a terminal returns at once; it means nothing to an ordinary file.
        let file = try open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY)
        var info = stat()
        let raw = file.raw
        try systemCall("fstat", path) { fstat(raw, &info) }
        guard info.st_mode & S_IFMT == S_IFREG else {
            let number = info.st_mode & S_IFMT == S_IFDIR ? EISDIR : EINVAL
            throw KernelError("read", path, errno: number, hint: "it is no ordinary file")
        }
        return try file.readAll(limit: limit, subject: path)
    }

    /// Reads a whole file as text, invalid UTF-8 repaired, trailing white space removed.
    package static func text(_ path: String, limit: Int = 1 << 20) throws(KernelError) -> String {
        var bytes = try read(path, limit: limit)
        while let last = bytes.last, last == 10 || last == 32 || last == 13 || last == 9 { bytes.removeLast() }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Writes to an existing file (proc, sysfs, cgroup) in one write(2).
    package static func writeControl(_ path: String, _ text: String) throws(KernelError) {
        let file = try open(path, O_WRONLY)
        let bytes = Array(text.utf8)
        try systemCall("write '\(text)' to", path) {
            bytes.withUnsafeBytes { Glibc.write(file.raw, $0.baseAddress, $0.count) }
        }
    }

    /// Replaces a file so that a crash leaves the old or the new content: write beside it, fsync, rename, fsync of
    /// the directory.
    package static func replace(_ path: String, with bytes: [UInt8], mode: mode_t = 0o600) throws(KernelError) {
        let temporary = path + ".new"
        do throws(KernelError) {
            let file = try open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, mode: mode)
            try file.writeAll(bytes, subject: temporary)
            try systemCall("fsync", temporary) { fsync(file.raw) }
        } catch {
            unlink(temporary)
            throw error
        }
        try systemCall("rename", path) { rename(temporary, path) }
        try syncDirectory(of: path)
    }

    /// Makes the directory entry of `path` durable.
    package static func syncDirectory(of path: String) throws(KernelError) {
        let parent = String(path[..<(path.lastSlash ?? path.startIndex)])
        let directory = try open(parent.isEmpty ? "/" : parent, O_RDONLY | O_DIRECTORY)
        try systemCall("fsync", parent) { fsync(directory.raw) }
    }

    /// Makes a directory and its missing parents.
    package static func makeDirectories(_ path: String, mode: mode_t = 0o700) throws(KernelError) {
        if mkdir(path, mode) == 0 || errno == EEXIST { return }
        let number = errno
        guard number == ENOENT, let slash = path.lastSlash, slash != path.startIndex else {
            throw KernelError("mkdir", path, errno: number)
        }
        try makeDirectories(String(path[..<slash]), mode: mode)
        if mkdir(path, mode) != 0 && errno != EEXIST { throw KernelError("mkdir", path, errno: errno) }
    }

    /// Whether something is at `path` (symbolic links not followed).
    package static func exists(_ path: String) -> Bool {
        var info = stat()
        return lstat(path, &info) == 0
    }

    /// The names in a directory, without `.` and `..`, in no order.
    package static func list(_ path: String) throws(KernelError) -> [String] {
        guard let directory = opendir(path) else { throw KernelError("opendir", path, errno: errno) }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != "." && name != ".." { names.append(name) }
        }
        return names
    }

    /// Removes a file; one that is not there is no error.
    package static func removeFile(_ path: String) throws(KernelError) {
        if unlink(path) != 0 && errno != ENOENT { throw KernelError("unlink", path, errno: errno) }
    }
}
