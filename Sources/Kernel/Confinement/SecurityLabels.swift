import CKernel
import Glibc
import Kernel

/// A security module of the kernel that puts labels on processes.
package enum SecurityModule: String, Sendable, CaseIterable {
    case appArmor = "AppArmor"
    case seLinux = "SELinux"

    /// Whether the running kernel has it and it is on.
    ///
    /// - Parameter sysfs: where sysfs is.
    package func isEnabled(sysfs: String = "/sys") -> Bool {
        switch self {
        case .appArmor: (try? File.text("\(sysfs)/module/apparmor/parameters/enabled", limit: 16)) == "Y"
        case .seLinux: File.exists("\(sysfs)/fs/selinux/enforce")
        }
    }
}

/// The labels that security modules give a process.
package struct SecurityLabels: Sendable, Equatable {
    /// The AppArmor profile of the next program; nil leaves it to the kernel.
    package var appArmorProfile: String?
    /// The SELinux context of the next program.
    package var seLinuxContext: String?

    /// Empty texts count as absent.
    package init(appArmorProfile: String? = nil, seLinuxContext: String? = nil) {
        self.appArmorProfile = appArmorProfile.flatMap { $0.isEmpty ? nil : $0 }
        self.seLinuxContext = seLinuxContext.flatMap { $0.isEmpty ? nil : $0 }
    }

    /// True without any label.
    package var isEmpty: Bool { appArmorProfile == nil && seLinuxContext == nil }

    /// Why a text cannot be a label: the kernel takes a page of it, and no label has control characters.
    ///
    /// - Returns: nil for one that can be.
    package static func objection(to label: String) -> String? {
        if label.utf8.count > 4000 { return "is longer than 4000 bytes" }
        return label.utf8.contains { $0 < 32 || $0 == 127 } ? "has control characters" : nil
    }

    /// Has the calling thread's next execve(2) give these labels.
    ///
    /// - Throws: `KernelError` with the label: ENOENT for a profile that is not loaded, EINVAL for a context that the
    ///   policy does not know, EACCES or EPERM when the policy forbids it.
    package func applyOnExecute(_ attributes: borrowing ProcessAttributeFiles) throws(KernelError) {
        if let appArmorProfile {
            // The module's own file; before Linux 5.8 the modules shared one.
            let text = "exec \(appArmorProfile)"
            do throws(KernelError) {
                try attributes.write(text, to: "apparmor/exec")
            } catch {
                guard error.errno == ENOENT, error.operation == "openat2" else { throw error }
                try attributes.write(text, to: "exec")
            }
        }
        if let seLinuxContext { try attributes.write(seLinuxContext, to: "exec") }
    }

    /// Has keyrings that the calling thread makes in `body` belong to the SELinux context.
    package func withKeyLabel(
        _ attributes: borrowing ProcessAttributeFiles, _ body: () throws -> Void
    ) throws {
        guard let seLinuxContext else { return try body() }
        try attributes.write(seLinuxContext, to: "keycreate")
        try body()
        try attributes.write("", to: "keycreate")
    }
}

/// The files of /proc/<pid>/attr of the calling thread, see proc_pid_attr(5), by way of a procfs that nobody else has
/// (CVE-2019-16884, CVE-2025-52881): what is written there goes to the kernel and nowhere else.
package struct ProcessAttributeFiles: ~Copyable, Sendable {
    private let procfs: Root

    /// Makes a procfs of its own, mounted nowhere, of the caller's pid namespace; children may use it in theirs. A user
    /// who may not make one gets the host's: the root of a procfs, and paths in it are followed through no link or mount.
    ///
    /// - Throws: `KernelError`.
    package static func makePrivate() throws(KernelError) -> OwnedFD {
        let mount = try made()
        var info = statfs()
        var node = stat()
        let raw = mount.raw
        try systemCall("fstatfs", "procfs") { fstatfs(raw, &info) }
        try systemCall("fstat", "procfs") { fstat(raw, &node) }
        // PROC_ROOT_INO
        guard info.f_type == CK_PROC_SUPER_MAGIC, node.st_ino == 1 else {
            throw KernelError("open", "procfs", errno: EPROTO, hint: "what is there is no procfs")
        }
        return mount
    }

    private static func made() throws(KernelError) -> OwnedFD {
        do throws(KernelError) {
            let context = try FilesystemContext("proc")
            // Processes only: nothing else is needed of it.
            try context.set("subset", "pid")
            return try context.create([.noSetuid, .noDevices, .noExecution])
        } catch {
            guard error.errno == EPERM else { throw error }
            return try File.open("/proc", Int32(CK_O_PATH) | O_DIRECTORY | O_NOFOLLOW)
        }
    }

    /// - Parameter procfs: what `makePrivate` returned.
    package init(_ procfs: consuming OwnedFD) { self.procfs = Root(adopting: procfs, name: "a private procfs") }

    /// Writes one of them in one write(2).
    fileprivate borrowing func write(_ text: String, to name: String) throws(KernelError) {
        // Only a thread itself may write them.
        var number = [CChar](repeating: 0, count: 64)
        let directory = procfs.directory.raw
        let length = try systemCall("readlink", "thread-self in a private procfs") {
            readlinkat(directory, "thread-self", &number, number.count - 1)
        }
        let thread = String(decoding: number.prefix(Int(length)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        let file = try procfs.open(
            "\(thread)/attr/\(name)", O_WRONLY | O_NOFOLLOW, [.withoutSymlinks, .withoutCrossing])
        let bytes = Array(text.utf8)
        try systemCall("write '\(text)' to", "/proc/thread-self/attr/\(name)") {
            bytes.withUnsafeBytes { Glibc.write(file.raw, $0.baseAddress, $0.count) }
        }
    }
}
