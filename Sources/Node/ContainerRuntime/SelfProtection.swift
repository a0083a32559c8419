import CKernel
import CStage
import Glibc
import Kernel

/// Keeps a container from overwriting the runtime's own program through /proc/<pid>/exe (CVE-2019-5736).
///
/// Before a process of ours comes near a container, it runs from a read-only mount clone of its own file: whoever opens
/// that through procfs, also later through a descriptor, gets EROFS. What was not done at the program's entry already
/// (CProtect) is done here, by executing itself again. A clone costs two system calls; a sealed copy in memory, the
/// fallback where mounts may not be cloned, has to copy the whole program. Our shim starts the runtime from such a clone
/// in the first place.
enum SelfProtection {
    private static let path = "/proc/self/exe"

    /// Returns when this process runs from a file that cannot be written through it; otherwise executes itself again
    /// (and does not return).
    static func ensure(_ arguments: [String]) throws {
        try systemCall("prctl(PR_SET_DUMPABLE)") { ck_prctl(4 /* PR_SET_DUMPABLE */, 0, 0, 0, 0) }
        if try isProtected() { return }
        try execute(try protectedFile(), arguments)
    }

    private static func protectedFile() throws -> OwnedFD {
        do throws(KernelError) {
            return try Mounts.cloneReadOnly(path)
        } catch {
            guard error.errno == EPERM || error.errno == EINVAL || error.errno == ENOSYS else { throw error }
        }
        return try sealedCopy()
    }

    private static func isProtected() throws -> Bool {
        var info = statfs()
        try systemCall("statfs", path) { statfs(path, &info) }
        if info.f_flags & 1 /* ST_RDONLY */ != 0 { return true }
        guard info.f_type == CK_TMPFS_MAGIC else { return false }
        let file = try File.open(path, O_RDONLY)
        let seals = ck_fcntl(file.raw, 1034 /* F_GET_SEALS */, 0)
        return seals >= 0 && seals & allSeals == allSeals
    }

    /// F_SEAL_SEAL, SHRINK, GROW and WRITE.
    private static let allSeals: Int32 = 0xf

    private static func sealedCopy() throws(KernelError) -> OwnedFD {
        let source = try File.open(path, O_RDONLY)
        var info = stat()
        try systemCall("fstat", path) { fstat(source.raw, &info) }
        // MFD_CLOEXEC | MFD_ALLOW_SEALING
        let copy = OwnedFD(
            adopting: try systemCall("memfd_create") { memfd_create("martlet-runtime", 1 | 2) })
        var left = Int(info.st_size)
        while left > 0 {
            let moved = try systemCall("sendfile", path) { sendfile(copy.raw, source.raw, nil, left) }
            guard moved > 0 else { throw KernelError("sendfile", path, errno: EIO) }
            left -= moved
        }
        try systemCall("fcntl(F_ADD_SEALS)") { ck_fcntl(copy.raw, 1033 /* F_ADD_SEALS */, allSeals) }
        return copy
    }

    private static func execute(_ file: borrowing OwnedFD, _ arguments: [String]) throws(KernelError) {
        let raw = file.raw
        withCStrings(arguments) { argv in _ = cs_execute_file(raw, argv, environ) }
        throw KernelError("execveat", path, errno: errno)
    }
}
