import CDISpec
import CKernel
import Glibc
import OCISpec

extension CDIEdits {
    /// Makes the edits in a container's configuration, with the device nodes of this host.
    ///
    /// - Throws: `CDIError` when a node that has to be looked at is not there, or is of another kind.
    package func apply(to spec: inout OCISpec.ContainerSpec) throws(CDIError) {
        try apply(to: &spec) { (path) throws(CDIError) in try CDIHostNode(of: path) }
    }
}

extension CDIHostNode {
    /// What this host has at a path, see lstat(2): a link is no device, as in the reference implementation.
    package init(of path: String) throws(CDIError) {
        var info = stat()
        guard lstat(path, &info) == 0 else {
            throw CDIError("the device node \(path) cannot be read on this host: \(String(cString: strerror(errno)))")
        }
        let kind: DeviceSpec.Kind
        switch info.st_mode & S_IFMT {
        case S_IFCHR: kind = .character
        case S_IFBLK: kind = .block
        case S_IFIFO: kind = .fifo
        default: throw CDIError("\(path) of this host is no device node")
        }
        self.init(
            kind, major: ck_major(UInt64(info.st_rdev)), minor: ck_minor(UInt64(info.st_rdev)),
            mode: info.st_mode & 0o7777)
    }
}
