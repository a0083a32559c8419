import CKernel
import Glibc

/// The terminal that the program runs in.
enum Terminal {
    /// The window's size; nil when standard input is no terminal.
    static func size() -> (columns: UInt16, rows: UInt16)? {
        var size = winsize()
        guard ck_ioctl(0, UInt(TIOCGWINSZ), &size) == 0 else { return nil }
        return (size.ws_col, size.ws_row)
    }

    /// Passes every key on, as the container's terminal wants it; nil when standard input is no terminal.
    static func makeRaw() -> termios? {
        var settings = termios()
        guard isatty(0) == 1, tcgetattr(0, &settings) == 0 else { return nil }
        let saved = settings
        cfmakeraw(&settings)
        return tcsetattr(0, TCSANOW, &settings) == 0 ? saved : nil
    }

    static func restore(_ saved: termios?) {
        guard var settings = saved else { return }
        tcsetattr(0, TCSANOW, &settings)
    }
}
