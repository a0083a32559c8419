import CKernel
import Glibc

/// An extended attribute of a file, see xattr(7).
package struct ExtendedAttribute: Sendable, Equatable {
    /// With its name space: `user.x`.
    package var name: [UInt8]
    package var value: [UInt8]

    package init(name: [UInt8], value: [UInt8]) {
        self.name = name
        self.value = value
    }

    /// All that the caller may see, of an open file; none where the file system has none.
    package static func all(of descriptor: Int32) throws(KernelError) -> [ExtendedAttribute] {
        if flistxattr(descriptor, nil, 0) == 0 { return [] }
        // XATTR_LIST_MAX and XATTR_SIZE_MAX, the kernel's bounds.
        var names = [CChar](repeating: 0, count: 65536)
        let size = flistxattr(descriptor, &names, names.count)
        if size <= 0 {
            if size == 0 || errno == EOPNOTSUPP { return [] }
            throw KernelError("flistxattr", errno: errno)
        }
        var result: [ExtendedAttribute] = []
        var value = [UInt8](repeating: 0, count: 65536)
        for name in names[..<size].split(separator: 0) {
            let bytes = name.map { UInt8(bitPattern: $0) }
            let count = ByteName.with(bytes) { fgetxattr(descriptor, $0, &value, value.count) }
            if count < 0 {
                if errno == ENODATA || errno == EOPNOTSUPP { continue }
                throw KernelError("fgetxattr", ByteName.text(bytes), errno: errno)
            }
            result.append(ExtendedAttribute(name: bytes, value: Array(value[..<count])))
        }
        return result
    }

    /// Sets it on an open file.
    package func set(on descriptor: Int32) throws(KernelError) {
        let result = ByteName.with(name) { key in
            value.withUnsafeBytes { fsetxattr(descriptor, key, $0.baseAddress, $0.count, 0) }
        }
        if result != 0 { throw KernelError("fsetxattr", ByteName.text(name), errno: errno) }
    }
}

/// Owner, mode, extended attributes and times of an open file given to another.
package enum FileMetadata {
    /// In the order that keeps all: a change of owner clears setuid and capabilities. Attributes of the name space
    /// `trusted`, where overlayfs keeps its own, are left out, and so are those that the target's file system has no
    /// room in kind for.
    ///
    /// - Parameter asFarAsPermitted: so are attributes that are not for this user namespace to set.
    package static func copy(
        from source: Int32, to target: Int32, asFarAsPermitted: Bool = false
    ) throws(KernelError) {
        var info = stat()
        try systemCall("fstat") { fstat(source, &info) }
        try systemCall("fchown") { fchown(target, info.st_uid, info.st_gid) }
        try systemCall("fchmod") { fchmod(target, info.st_mode & 0o7777) }
        for attribute in try ExtendedAttribute.all(of: source) where !attribute.name.starts(with: "trusted.".utf8) {
            do throws(KernelError) {
                try attribute.set(on: target)
            } catch {
                guard error.errno == EOPNOTSUPP || asFarAsPermitted && error.errno == EPERM else { throw error }
            }
        }
        let times = [info.st_atim, info.st_mtim]
        try systemCall("futimens") { futimens(target, times) }
    }
}
