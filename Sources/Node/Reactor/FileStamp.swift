import Glibc

/// What changes whenever a file is written, or another comes in its place: two that are equal, and not fresh, are of
/// the same content.
package struct FileStamp: Sendable, Equatable {
    private let device: UInt
    private let inode: UInt
    /// Bytes.
    package let size: Int
    /// Permission bits.
    package let mode: mode_t
    /// The user whose it is.
    package let owner: uid_t
    private let written: [Int]
    /// Written so recently that a further change might leave the same time.
    package let isFresh: Bool

    /// - Parameters:
    ///   - path: a symbolic link is followed.
    ///   - now: seconds since 1970.
    /// - Returns: nil when nothing can be found there.
    package init?(_ path: String, now: Int) {
        var info = stat()
        guard stat(path, &info) == 0 else { return nil }
        (device, inode, size) = (info.st_dev, info.st_ino, info.st_size)
        mode = info.st_mode & 0o7777
        owner = info.st_uid
        written = [info.st_mtim.tv_sec, info.st_mtim.tv_nsec, info.st_ctim.tv_sec, info.st_ctim.tv_nsec]
        isFresh = abs(now - info.st_ctim.tv_sec) < 2
    }

    /// Seconds since 1970, for stamps of one look.
    package static var now: Int {
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        return now.tv_sec
    }
}
