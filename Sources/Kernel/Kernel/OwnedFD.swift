import CKernel
import Glibc

/// A file descriptor with one owner: closed when the owner goes away.
package struct OwnedFD: ~Copyable, Sendable {
    /// The number; valid as long as this value lives. Pass it on only for the length of a call.
    package let raw: Int32

    /// Takes over a descriptor that nobody else closes.
    package init(adopting raw: Int32) { self.raw = raw }

    deinit { _ = Glibc.close(raw) }

    /// Gives the descriptor to someone else, who closes it.
    package consuming func release() -> Int32 {
        let number = raw
        discard self
        return number
    }

    /// A second descriptor of the same open file, close-on-exec.
    package borrowing func duplicate() throws(KernelError) -> OwnedFD {
        let number = raw
        return OwnedFD(
            adopting: try systemCall("fcntl(F_DUPFD_CLOEXEC)") { ck_fcntl(number, F_DUPFD_CLOEXEC, 3) })
    }

    /// Writes all of `bytes`, waiting on a blocking descriptor as long as it takes.
    package borrowing func writeAll(_ bytes: some Collection<UInt8>, subject: String = "") throws(KernelError) {
        try Descriptor.writeAll(raw, Array(bytes), subject: subject)
    }

    /// Reads up to `limit` bytes until end of file.
    ///
    /// - Throws: `KernelError` with EFBIG when there is more than `limit`.
    package borrowing func readAll(limit: Int, subject: String = "") throws(KernelError) -> [UInt8] {
        try Descriptor.readAll(raw, limit: limit, subject: subject)
    }
}

/// A shared owner, for tables and closures: closes the descriptor when the last reference goes.
package final class SharedFD: Sendable {
    package let raw: Int32
    package init(_ descriptor: consuming OwnedFD) { raw = descriptor.release() }

    /// nil for nil: `map` of an optional cannot take over what has one owner.
    package convenience init?(optional descriptor: consuming OwnedFD?) {
        guard let descriptor else { return nil }
        self.init(descriptor)
    }

    deinit { _ = Glibc.close(raw) }
}

/// Reading and writing raw descriptors; a name space so that methods can call the free forms.
package enum Descriptor {
    package static func writeAll(_ fd: Int32, _ bytes: [UInt8], subject: String = "") throws(KernelError) {
        var offset = 0
        while offset < bytes.count {
            let from = offset
            offset += try systemCall("write", subject) {
                bytes.withUnsafeBytes { Glibc.write(fd, $0.baseAddress.map { $0 + from }, bytes.count - from) }
            }
        }
    }

    package static func readAll(_ fd: Int32, limit: Int, subject: String = "") throws(KernelError) -> [UInt8] {
        var result: [UInt8] = []
        // Not an array, which would be filled with zeros first.
        let chunk = UnsafeMutableRawBufferPointer.allocate(byteCount: 16384, alignment: 16)
        defer { chunk.deallocate() }
        while true {
            let count = try systemCall("read", subject) { Glibc.read(fd, chunk.baseAddress, chunk.count) }
            if count == 0 { return result }
            guard result.count + count <= limit else {
                throw KernelError("read", subject, errno: EFBIG, hint: "larger than \(limit) bytes")
            }
            result.append(contentsOf: chunk[..<count])
        }
    }
}
