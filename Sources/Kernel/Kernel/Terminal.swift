import CKernel
import Glibc

/// Pseudo-terminals and terminal settings, see pty(7) and ioctl_tty(2).
package enum Terminal {
    /// A size in character cells.
    package struct Size: Sendable, Equatable {
        package var columns: UInt16
        package var rows: UInt16
        package init(columns: UInt16, rows: UInt16) {
            self.columns = columns
            self.rows = rows
        }
    }

    /// Settings saved by `makeRaw`.
    package struct Saved: Sendable {
        fileprivate var bytes = [UInt8](repeating: 0, count: Int(CK_TERMIOS_SIZE))
    }

    /// Both ends of a pseudo-terminal.
    package struct Pair: ~Copyable {
        /// The side of whoever relays.
        package let main: OwnedFD
        /// The side of the process, `/dev/pts/N`.
        package let peer: OwnedFD
    }

    /// A pair from the devpts instance whose `ptmx` lies in `directory`. The directory must be the root of a devpts
    /// mount; nothing mounted over its ptmx and no link is followed, so that a container cannot put its own there. The
    /// other end comes from the first one (TIOCGPTPEER), never from a path.
    package static func pair(
        inDevpts directory: Int32, subject: String
    ) throws(KernelError) -> Pair {
        var info = statfs()
        try systemCall("fstatfs", subject) { fstatfs(directory, &info) }
        guard info.f_type == 0x1cd1 else {  // DEVPTS_SUPER_MAGIC
            throw KernelError(
                "open terminal in", subject, errno: EINVAL, hint: "it is not a devpts mount; mount one at /dev/pts")
        }
        var how = ck_open_how(
            flags: UInt64(O_RDWR | O_NOCTTY | O_CLOEXEC), mode: 0,
            resolve: UInt64(CK_RESOLVE_NO_XDEV | CK_RESOLVE_NO_SYMLINKS | CK_RESOLVE_BENEATH))
        let main = OwnedFD(
            adopting: Int32(try systemCall("open", "\(subject)/ptmx") { ck_openat2(directory, "ptmx", &how) }))
        let peer = try peer(of: main)
        return Pair(main: main, peer: peer)
    }

    /// A pair from the host's /dev/ptmx.
    package static func pair() throws(KernelError) -> Pair {
        let main = try File.open("/dev/ptmx", O_RDWR | O_NOCTTY)
        let peer = try peer(of: main)
        return Pair(main: main, peer: peer)
    }

    private static func peer(of main: borrowing OwnedFD) throws(KernelError) -> OwnedFD {
        let raw = main.raw
        try systemCall("ioctl(TIOCSPTLCK)") { ck_pty_unlock(raw) }
        return OwnedFD(
            adopting: try systemCall("ioctl(TIOCGPTPEER)") { ck_pty_peer(raw, O_RDWR | O_NOCTTY | O_CLOEXEC) })
    }

    /// The number N of /dev/pts/N.
    package static func number(of main: Int32) throws(KernelError) -> UInt32 {
        var number: UInt32 = 0
        try systemCall("ioctl(TIOCGPTN)") { ck_pty_number(main, &number) }
        return number
    }

    /// The size that programs see (SIGWINCH tells them of changes).
    package static func size(of terminal: Int32) throws(KernelError) -> Size {
        var size = Size(columns: 0, rows: 0)
        try systemCall("ioctl(TIOCGWINSZ)") { ck_terminal_get_size(terminal, &size.columns, &size.rows) }
        return size
    }

    /// Sets the size, from either side.
    package static func setSize(_ size: Size, of terminal: Int32) throws(KernelError) {
        try systemCall("ioctl(TIOCSWINSZ)") { ck_terminal_set_size(terminal, size.columns, size.rows) }
    }

    /// Raw mode; hand the result to `restore`.
    package static func makeRaw(_ terminal: Int32) throws(KernelError) -> Saved {
        var saved = Saved()
        try systemCall("tcsetattr(raw)") { ck_terminal_raw(terminal, &saved.bytes) }
        return saved
    }

    /// Puts back what `makeRaw` changed.
    package static func restore(_ terminal: Int32, _ saved: Saved) throws(KernelError) {
        try systemCall("tcsetattr") { ck_terminal_restore(terminal, saved.bytes) }
    }
}
