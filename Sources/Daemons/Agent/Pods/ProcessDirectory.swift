import AgentCore
import CKernel
import Glibc
import Kernel
import Model
import Wire

/// The first process of a container as procfs shows it. When it has ended, everything in it fails, whoever has its number
/// then.
struct ProcessDirectory: Sendable {
    private let directory: SharedFD
    private let pid: Int

    /// - Parameter parent: the cgroup that holds those of all tasks.
    /// - Throws: `KernelError`; ESRCH or ENOENT when the container has ended.
    init(_ record: TaskRecord, parent: String) throws(KernelError) {
        pid = record.container.pid
        directory = SharedFD(try File.open("/proc/\(pid)", Int32(CK_O_PATH) | O_DIRECTORY))
        // Held open, the directory is this process's and no later one's of its number: it is the container's, or not.
        guard pid > 0, try isIn(cgroup: "/\(parent)/\(record.assignment.task)") else {
            throw KernelError("open", "/proc/\(pid)", errno: ESRCH)
        }
    }

    func open(_ name: String, _ flags: Int32 = O_RDONLY) throws(KernelError) -> SharedFD {
        SharedFD(
            OwnedFD(
                adopting: try systemCall("open", "/proc/\(pid)/\(name)") {
                    ck_openat(directory.raw, name, flags | O_CLOEXEC, 0)
                }))
    }

    private func isIn(cgroup: String) throws(KernelError) -> Bool {
        let file = try open("cgroup")
        let bytes = try withExtendedLifetime(file) { () throws(KernelError) in
            try Descriptor.readAll(file.raw, limit: 1 << 16)
        }
        let text = String(decoding: bytes, as: UTF8.self)
        return text.split(separator: "\n").contains { line in
            line.hasSuffix(cgroup) || line.contains(cgroup + "/")
        }
    }
}

extension KernelError {
    /// Of a process that is not there any more.
    var isOfEnded: Bool { errno == ENOENT || errno == ESRCH }
}
