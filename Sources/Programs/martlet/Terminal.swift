import CKernel
import Glibc
import Synchronization

/// The terminal that the program runs in.
enum Terminal {
    /// Its settings before it was made raw.
    private static let saved = Mutex<termios?>(nil)

    /// The window's size; nil when standard input is no terminal.
    static func size() -> (columns: UInt16, rows: UInt16)? {
        var size = winsize()
        guard ck_ioctl(0, UInt(TIOCGWINSZ), &size) == 0 else { return nil }
        return (size.ws_col, size.ws_row)
    }

    /// Passes every key on, as the container's terminal wants it, until `restore` or the program's end, whichever way
    /// it ends; nothing when standard input is no terminal.
    static func makeRaw() {
        var settings = termios()
        guard isatty(0) == 1, tcgetattr(0, &settings) == 0 else { return }
        let before = settings
        let isFirst = saved.withLock { saved in
            defer { saved = saved ?? before }
            return saved == nil
        }
        if isFirst { atexit { Terminal.restore() } }
        cfmakeraw(&settings)
        tcsetattr(0, TCSANOW, &settings)
    }

    static func restore() {
        guard var settings = saved.withLock({ $0 }) else { return }
        tcsetattr(0, TCSANOW, &settings)
    }
}
