import CKernel
import Glibc
import Kernel

/// File systems whose files are the kernel's own state: they are no content of a container, their sizes are not those of
/// what is read, and writing them does something.
enum KernelFileSystem {
    /// proc, sysfs, cgroup, cgroup2, debugfs, tracefs, securityfs, bpf, configfs, devpts (linux/magic.h).
    private static let kinds: [Int] = [
        0x9fa0, 0x6265_6572, 0x27_e0eb, 0x6367_7270, 0x6462_6720, 0x7472_6163, 0x7363_6673, 0xcafe_4a11, 0x6265_6570,
        0x1cd1,
    ]

    /// Refuses to copy what the descriptor is of out of one.
    static func refuse(_ descriptor: Int32, _ path: some CustomStringConvertible) throws {
        guard try holds(descriptor, path) else { return }
        throw ImageError(.unsupported, "'\(path)' lies in a file system of the kernel; nothing is copied from there")
    }

    /// Whether what the descriptor is of lies in one.
    static func holds(_ descriptor: Int32, _ path: some CustomStringConvertible) throws -> Bool {
        var info = statfs()
        try systemCall("fstatfs", path.description) { fstatfs(descriptor, &info) }
        return kinds.contains(Int(info.f_type))
    }
}
