import CKernel
import Glibc
import Kernel

enum ProcessMemory {
    /// Secrets pass through this process, so that nobody shall get to see its memory.
    ///
    /// The kernel writes no core file of it, whatever limits and /proc/sys/kernel/core_pattern say, nor lets others look
    /// into it (PR_SET_DUMPABLE, prctl(2)). What it starts is as ever: the kernel sets this anew at execve(2), and
    /// RLIMIT_CORE is left as it is for the containers, which inherit it. Where there is a Swift toolchain the language's
    /// runtime answers a crash by writing out registers and the memory behind them, and may take for ever: it is told not
    /// to, and a crash ends the process at once.
    static func hide() throws {
        try systemCall("prctl(PR_SET_DUMPABLE)") { ck_prctl(4 /* PR_SET_DUMPABLE */, 0, 0, 0, 0) }
        for number in [SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV] { signal(number, SIG_DFL) }
    }
}
