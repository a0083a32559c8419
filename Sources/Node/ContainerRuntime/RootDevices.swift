import CKernel
import DeviceNodes
import Glibc
import Kernel

extension RootFilesystem {
    /// Makes device nodes and the usual links of /dev. In a user namespace, where nodes cannot be made, the host's are
    /// bound over empty files.
    ///
    /// Where /dev is a bind mount nothing in it is touched, because it is somebody else's too.
    ///
    /// - Returns: a warning of listed devices that are missing then.
    func populateDev() throws -> String? {
        guard plan.populatesDev else { return try lookForDevices() }
        let dev = try root.makeDirectories("/dev")
        for device in plan.devices { try withContext("linux.devices: \(device.path)") { try make(device, dev) } }
        for (path, target) in DeviceNode.containerLinks {
            try link(String(path.dropFirst("/dev/".utf8.count)), target, in: dev)
        }
        return nil
    }

    /// Looks whether the devices are there. Those that belong elsewhere are not made either: a link of the image may lead
    /// from there into /dev.
    private func lookForDevices() throws -> String? {
        var missing: [String] = []
        for device in plan.devices where try !has(device) { missing.append(device.path) }
        if missing.isEmpty { return nil }
        let more = missing.count > 5 ? " and \(missing.count - 5) more" : ""
        return "linux.devices: not made, because /dev is a bind mount; bind a folder that has them, or leave them out: "
            + missing.prefix(5).joined(separator: ", ") + more
    }

    private func has(_ device: DeviceNode) throws -> Bool {
        guard let node = try openIfPresent(device.path) else { return false }
        if device.kind == .fifo {
            var info = stat()
            try systemCall("fstat", device.path) { fstat(node.raw, &info) }
            return info.st_mode & S_IFMT == S_IFIFO
        }
        return try Self.isNode(node, device)
    }

    private func make(_ device: DeviceNode, _ dev: borrowing OwnedFD) throws {
        let parts = device.path.pathComponents.filter { $0 != "." }
        let isInDev = parts.count == 2 && parts[0] == "dev"
        let elsewhere = isInDev ? nil : SharedFD(try root.makeDirectories(parts.dropLast().joined(separator: "/")))
        if !plan.namespaces.changesUser || device.kind == .fifo {
            do throws(DeviceError) {
                return try device.create(in: elsewhere?.raw ?? dev.raw)
            } catch {
                // The runtime itself may be in a user namespace, where it looks like root.
                guard error.errno == EPERM, Rootless.isInUserNamespace else { throw error }
            }
        }
        let place = Root(adopting: try elsewhere?.duplicate() ?? dev.duplicate(), name: device.path)
        let target = try place.makeFile(String(parts.last ?? ""), mode: 0)
        let tree = try Mounts.clone(device.path, recursive: false)
        // The host may have something else under this name.
        guard try Self.isNode(tree, device) else {
            throw RuntimeError("the host has no such node with number \(device.major):\(device.minor) to bind")
        }
        try Mounts.attach(tree, on: target.raw, subject: device.path)
    }

    private static func isNode(_ file: borrowing OwnedFD, _ device: DeviceNode) throws -> Bool {
        var info = stat()
        let raw = file.raw
        try systemCall("fstat", device.path) { fstat(raw, &info) }
        let numbers = (ck_major(UInt64(info.st_rdev)), ck_minor(UInt64(info.st_rdev)))
        let type = device.kind == .block ? S_IFBLK : S_IFCHR
        return info.st_mode & S_IFMT == type && numbers == (device.major, device.minor)
    }

    /// A symbolic link that replaces whatever file has the name; an image may bring its own.
    private func link(_ name: String, _ target: String, in directory: borrowing OwnedFD) throws {
        if symlinkat(target, directory.raw, name) == 0 { return }
        guard errno == EEXIST else { throw KernelError("symlink", "/dev/\(name)", errno: errno) }
        if name != "ptmx" { return }
        let raw = directory.raw
        try systemCall("unlink", "/dev/\(name)") { unlinkat(raw, name, 0) }
        try systemCall("symlink", "/dev/\(name)") { symlinkat(target, raw, name) }
    }

    // MARK: Masked and read-only paths

    /// Hides paths: files behind the container's null device, directories behind an empty read-only tmpfs. What is not
    /// there is passed over.
    func mask() throws {
        if plan.maskedPaths.isEmpty { return }
        var null: SharedFD?
        var empty: SharedFD?
        for path in plan.maskedPaths {
            try withContext("linux.maskedPaths: \(path)") {
                guard let target = try openIfPresent(path) else { return }
                var info = stat()
                try systemCall("fstat", path) { fstat(target.raw, &info) }
                if info.st_mode & S_IFMT == S_IFDIR {
                    let mount: OwnedFD
                    if let empty {
                        mount = try Mounts.clone(of: empty.raw, recursive: false, subject: path)
                    } else {
                        let context = try FilesystemContext("tmpfs")
                        try context.set("source", "tmpfs")
                        try context.set("nr_blocks", "1")
                        try context.set("nr_inodes", "1")
                        try plan.setLabel(of: context)
                        mount = try context.create([.readOnly, .noDevices, .noSetuid, .noExecution])
                    }
                    try Mounts.attach(mount, on: target.raw, subject: path)
                    if empty == nil { empty = SharedFD(mount) }
                    return
                }
                if null == nil { null = try nullDevice() }
                guard let null else { return }
                let mount = try Mounts.clone(of: null.raw, recursive: false, subject: "/dev/null")
                try Mounts.attach(mount, on: target.raw, subject: path)
            }
        }
    }

    /// Makes paths and what is mounted below them read-only; what is not there is passed over.
    func makeReadOnly() throws {
        for path in plan.readonlyPaths {
            try withContext("linux.readonlyPaths: \(path)") {
                guard let target = try openIfPresent(path) else { return }
                let copy = try Mounts.clone(of: target.raw, recursive: true, subject: path)
                try Mounts.change(copy.raw, set: .readOnly, recursive: true, subject: path)
                try Mounts.attach(copy, on: target.raw, subject: path)
            }
        }
    }

    /// The container's /dev/null, once it is sure to be the null device: another file bound over a masked path would
    /// show through it (CVE-2025-31133).
    private func nullDevice() throws -> SharedFD {
        let file = try root.open("/dev/null", Int32(CK_O_PATH) | O_NOFOLLOW)
        var info = stat()
        try systemCall("fstat", "/dev/null") { fstat(file.raw, &info) }
        let isNull =
            info.st_mode & S_IFMT == S_IFCHR && ck_major(UInt64(info.st_rdev)) == 1
            && ck_minor(UInt64(info.st_rdev)) == 3
        guard isNull else { throw RuntimeError("/dev/null of the container is not the null device") }
        return SharedFD(file)
    }

    private func openIfPresent(_ path: String) throws -> OwnedFD? {
        do throws(KernelError) {
            return try root.open(path, Int32(CK_O_PATH))
        } catch {
            if error.errno == ENOENT || error.errno == ENOTDIR { return nil }
            throw error
        }
    }

    // MARK: Sysctls

    /// Writes sysctls through a procfs of our own, which nothing in the container can have put anything over.
    func writeSysctls() throws {
        if plan.sysctl.isEmpty { return }
        let procfs = try privateProcfs()
        for sysctl in plan.sysctl {
            try withContext("linux.sysctl.\(sysctl.name)") {
                let file = try procfs.open(
                    "sys/\(sysctl.path)", O_WRONLY | O_NOFOLLOW, [.withoutSymlinks, .withoutCrossing])
                try file.writeAll(Array(sysctl.value.utf8), subject: sysctl.path)
            }
        }
    }

    private func privateProcfs() throws -> Root {
        do throws(KernelError) {
            let mount = try FilesystemContext("proc").create([.noSetuid, .noDevices, .noExecution])
            return Root(adopting: mount, name: "procfs")
        } catch {
            // In a user namespace whose pid namespace is somebody else's, no procfs can be made: the container's own,
            // which this runtime has mounted or checked, has to do.
            guard error.errno == EPERM else { throw error }
            let mount = try root.open("/proc", Int32(CK_O_PATH) | O_DIRECTORY, .withoutSymlinks)
            var info = statfs()
            try systemCall("fstatfs", "/proc") { fstatfs(mount.raw, &info) }
            guard info.f_type == CK_PROC_SUPER_MAGIC else { throw RuntimeError("/proc is no procfs") }
            return Root(adopting: mount, name: "procfs")
        }
    }
}
