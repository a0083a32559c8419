import CKernel
import Glibc
import Kernel

/// Mode, owner, times and attributes of one directory given to another.
enum DirectoryMetadata {
    static func copy(from source: Int32, to target: Int32) throws(KernelError) {
        var info = stat()
        try systemCall("fstat") { fstat(source, &info) }
        try systemCall("fchown") { fchown(target, info.st_uid, info.st_gid) }
        try systemCall("fchmod") { fchmod(target, info.st_mode & 0o7777) }
        for attribute in try ExtendedAttributes.read(source) where !attribute.name.starts(with: "trusted.".utf8) {
            let result = ByteName.with(attribute.name) { key in
                attribute.value.withUnsafeBytes { fsetxattr(target, key, $0.baseAddress, $0.count, 0) }
            }
            if result != 0 && errno != EOPNOTSUPP { throw KernelError("fsetxattr", errno: errno) }
        }
        let times = [info.st_atim, info.st_mtim]
        try systemCall("futimens") { futimens(target, times) }
    }
}

/// Reading extended attributes, see xattr(7).
enum ExtendedAttributes {
    /// All that the caller may see, of an open file; none where the file system has none.
    static func read(_ descriptor: Int32) throws(KernelError) -> [TarEntry.Attribute] {
        var names = [CChar](repeating: 0, count: 65536)
        let size = flistxattr(descriptor, &names, names.count)
        if size <= 0 {
            if size == 0 || errno == EOPNOTSUPP { return [] }
            throw KernelError("flistxattr", errno: errno)
        }
        var result: [TarEntry.Attribute] = []
        for name in names[..<size].split(separator: 0) {
            let bytes = name.map { UInt8(bitPattern: $0) }
            var value = [UInt8](repeating: 0, count: 65536)
            let count = ByteName.with(bytes) { fgetxattr(descriptor, $0, &value, value.count) }
            if count < 0 {
                if errno == ENODATA || errno == EOPNOTSUPP { continue }
                throw KernelError("fgetxattr", printable(bytes), errno: errno)
            }
            result.append(TarEntry.Attribute(name: bytes, value: Array(value[..<count])))
        }
        return result
    }
}
