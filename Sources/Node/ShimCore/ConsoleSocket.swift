import CKernel
import Glibc
import Kernel

/// Where a runtime sends the terminal that it made for a process.
final class ConsoleSocket {
    /// What the runtime gets as `--console-socket`; short enough for sun_path.
    let pathForRuntime: String
    private let path: String
    private let listener: SharedFD
    /// Keeps `pathForRuntime` valid where it goes through /proc.
    private let directory: SharedFD?

    init(directory: String, number: Int) throws(KernelError) {
        let name = "console-\(number).sock"
        path = "\(directory)/\(name)"
        listener = SharedFD(try UnixSocket.listen(path))
        try ContainerStdio.setNonBlocking(listener.raw)
        if path.utf8.count > 107 {
            let opened = SharedFD(try File.open(directory, O_RDONLY | O_DIRECTORY))
            pathForRuntime = "/proc/\(getpid())/fd/\(opened.raw)/\(name)"
            self.directory = opened
        } else {
            pathForRuntime = path
            self.directory = nil
        }
    }

    deinit { unlink(path) }

    /// The terminal, after the runtime has ended: the message is there or will never come.
    ///
    /// - Throws: `KernelError` with EAGAIN when the runtime has sent none.
    func receive() throws(KernelError) -> SharedFD {
        let connection = try UnixSocket.accept(listener.raw)
        try ContainerStdio.setNonBlocking(connection.raw)
        let peer = try UnixSocket.peer(connection.raw)
        guard peer.uid == 0 else {
            throw KernelError("receive the terminal", errno: EPERM, hint: "it came from uid \(peer.uid)")
        }
        let message = try UnixSocket.receive(connection.raw, limit: 4096, maximumDescriptors: 1)
        guard let terminal = message.descriptors.first else {
            throw KernelError("receive the terminal", errno: EPROTO, hint: "the runtime sent no descriptor")
        }
        // Nothing but a terminal answers this.
        _ = try Terminal.size(of: terminal.raw)
        return terminal
    }
}
