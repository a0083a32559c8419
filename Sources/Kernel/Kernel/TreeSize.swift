import CKernel
import Glibc

extension Tree {
    /// Bytes of all files in a tree that somebody else shaped, holes included, each file with several names once.
    ///
    /// Every directory is opened from the top without following a link, so that nobody who changes the tree meanwhile
    /// leads the count out of it; nothing that is mounted below is counted.
    ///
    /// - Parameter limit: the most entries that are looked at.
    /// - Throws: `KernelError`; EFBIG over the limit.
    package static func size(_ path: String, limit: Int = 4_000_000) throws(KernelError) -> UInt64 {
        let top: OwnedFD
        do throws(KernelError) {
            top = try File.open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
        } catch {
            guard error.errno == ENOENT else { throw error }
            return 0
        }
        var whole = stat()
        let number = top.raw
        try systemCall("fstat", path) { fstat(number, &whole) }
        var seen: Set<ino_t> = []
        var sum: UInt64 = 0
        var rest = limit
        var pending: [[UInt8]] = [[]]
        while let place = pending.popLast() {
            let directory: OwnedFD
            do throws(KernelError) {
                directory = try ByteName.open(place, in: top.raw, O_RDONLY | O_DIRECTORY, withoutLinks: true)
            } catch {
                // Removed or replaced since it was seen, or deeper than a path can be.
                if [ENOENT, ENOTDIR, ELOOP, ENAMETOOLONG].contains(error.errno) { continue }
                throw error
            }
            for name in try ByteName.list(directory.raw, limit: rest) {
                rest -= 1
                guard let info = try ByteName.status(name, of: directory.raw), info.st_dev == whole.st_dev else {
                    continue
                }
                if info.isDirectory {
                    pending.append(place.isEmpty ? name : place + [0x2f] + name)
                } else if info.type == S_IFREG, info.st_nlink == 1 || seen.insert(info.st_ino).inserted {
                    sum += UInt64(max(0, info.st_size))
                }
            }
        }
        return sum
    }
}
