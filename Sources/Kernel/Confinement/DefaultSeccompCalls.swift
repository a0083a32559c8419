extension DefaultSeccompProfile {
    // The system calls that every container may use, by what they are for. Names that exist on some architectures only
    // stand with the others: where a name has no number its rule has no effect.

    /// Files, directories, links, attributes.
    static let files: [String] = [
        "access", "chdir", "chmod", "chown", "chown32", "creat", "faccessat", "faccessat2", "fchdir", "fchmod",
        "fchmodat", "fchmodat2", "fchown", "fchown32", "fchownat", "fgetxattr", "flistxattr", "fremovexattr",
        "fsetxattr", "fstat", "fstat64", "fstatat64", "fstatfs", "fstatfs64", "futimesat", "getcwd", "getdents",
        "getdents64", "getxattr", "getxattrat", "lchown", "lchown32", "lgetxattr", "link", "linkat", "listmount",
        "listxattr", "listxattrat", "llistxattr", "lremovexattr", "lsetxattr", "lstat", "lstat64", "mkdir", "mkdirat",
        "mknod", "mknodat", "name_to_handle_at", "newfstatat", "open", "openat", "openat2", "readlink", "readlinkat",
        "removexattr", "removexattrat", "rename", "renameat", "renameat2", "rmdir", "setxattr", "setxattrat", "stat",
        "stat64", "statfs", "statfs64", "statmount", "statx", "symlink", "symlinkat", "unlink", "unlinkat", "utime",
        "utimensat", "utimensat_time64", "utimes",
    ]

    /// Reading, writing and moving bytes through descriptors.
    static let transfer: [String] = [
        "_llseek", "close", "close_range", "copy_file_range", "dup", "dup2", "dup3", "fadvise64", "fadvise64_64",
        "fallocate", "fcntl", "fcntl64", "fdatasync", "flock", "fsync", "ftruncate", "ftruncate64", "ioctl", "lseek",
        "pipe", "pipe2", "pread64", "preadv", "preadv2", "pwrite64", "pwritev", "pwritev2", "read", "readahead",
        "readv", "sendfile", "sendfile64", "splice", "sync", "sync_file_range", "syncfs", "tee", "truncate",
        "truncate64", "vmsplice", "write", "writev",
    ]

    /// Waiting for descriptors, and asynchronous reads and writes. io_uring is not among them.
    static let events: [String] = [
        "_newselect", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old", "epoll_pwait", "epoll_pwait2",
        "epoll_wait", "epoll_wait_old", "eventfd", "eventfd2", "fanotify_mark", "inotify_add_watch", "inotify_init",
        "inotify_init1", "inotify_rm_watch", "io_cancel", "io_destroy", "io_getevents", "io_pgetevents",
        "io_pgetevents_time64", "io_setup", "io_submit", "poll", "ppoll", "ppoll_time64", "pselect6",
        "pselect6_time64", "select",
    ]

    /// Address space of the caller.
    static let memory: [String] = [
        "brk", "cachestat", "madvise", "map_shadow_stack", "membarrier", "memfd_create", "memfd_secret", "mincore",
        "mlock", "mlock2", "mlockall", "mmap", "mmap2", "mprotect", "mremap", "mseal", "msync", "munlock",
        "munlockall", "munmap", "pkey_alloc", "pkey_free", "pkey_mprotect", "process_mrelease", "remap_file_pages",
    ]

    /// Processes and threads: making, running, waiting, scheduling. `clone` and `clone3` have rules of their own.
    static let processes: [String] = [
        "execve", "execveat", "exit", "exit_group", "fork", "futex", "futex_requeue", "futex_time64", "futex_wait",
        "futex_waitv", "futex_wake", "get_robust_list", "get_thread_area", "getcpu", "getpgid", "getpgrp", "getpid",
        "getppid", "getpriority", "getrusage", "getsid", "gettid", "ioprio_get", "ioprio_set", "pidfd_open",
        "process_vm_readv", "process_vm_writev", "ptrace", "riscv_hwprobe", "rseq", "sched_get_priority_max",
        "sched_get_priority_min", "sched_getaffinity", "sched_getattr", "sched_getparam", "sched_getscheduler",
        "sched_rr_get_interval", "sched_rr_get_interval_time64", "sched_setaffinity", "sched_setattr",
        "sched_setparam", "sched_setscheduler", "sched_yield", "set_robust_list", "set_thread_area",
        "set_tid_address", "setpgid", "setpriority", "setsid", "uretprobe", "vfork", "wait4", "waitid", "waitpid",
    ]

    /// Signals and the descriptors that stand for them.
    static let signals: [String] = [
        "alarm", "kill", "pause", "pidfd_send_signal", "restart_syscall", "rt_sigaction", "rt_sigpending",
        "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait",
        "rt_sigtimedwait_time64", "rt_tgsigqueueinfo", "sigaltstack", "signalfd", "signalfd4", "sigprocmask",
        "sigreturn", "tgkill", "tkill",
    ]

    /// Clocks, timers and sleeping. Setting the clock needs CAP_SYS_TIME in the kernel too.
    static let time: [String] = [
        "adjtimex", "clock_adjtime", "clock_adjtime64", "clock_getres", "clock_getres_time64", "clock_gettime",
        "clock_gettime64", "clock_nanosleep", "clock_nanosleep_time64", "getitimer", "gettimeofday", "nanosleep",
        "setitimer", "time", "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime", "timer_gettime64",
        "timer_settime", "timer_settime64", "timerfd_create", "timerfd_gettime", "timerfd_gettime64",
        "timerfd_settime", "timerfd_settime64", "times",
    ]

    /// Users, groups, capabilities and limits of the caller.
    static let identity: [String] = [
        "capget", "capset", "getegid", "getegid32", "geteuid", "geteuid32", "getgid", "getgid32", "getgroups",
        "getgroups32", "getresgid", "getresgid32", "getresuid", "getresuid32", "getrlimit", "getuid", "getuid32",
        "landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self", "prctl", "prlimit64", "seccomp",
        "setfsgid", "setfsgid32", "setfsuid", "setfsuid32", "setgid", "setgid32", "setgroups", "setgroups32",
        "setregid", "setregid32", "setresgid", "setresgid32", "setresuid", "setresuid32", "setreuid", "setreuid32",
        "setrlimit", "setuid", "setuid32", "ugetrlimit", "umask",
    ]

    /// System V and POSIX queues, semaphores, shared memory; pipes between processes of the container.
    static let interprocess: [String] = [
        "ipc", "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive", "mq_timedreceive_time64", "mq_timedsend",
        "mq_timedsend_time64", "mq_unlink", "msgctl", "msgget", "msgrcv", "msgsnd", "semctl", "semget", "semop",
        "semtimedop", "semtimedop_time64", "shmat", "shmctl", "shmdt", "shmget",
    ]

    /// Sockets and what travels over them. `socket` itself has rules of its own.
    static let network: [String] = [
        "accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen", "recv",
        "recvfrom", "recvmmsg", "recvmmsg_time64", "recvmsg", "send", "sendmmsg", "sendmsg", "sendto", "setsockopt",
        "shutdown", "socketcall", "socketpair",
    ]

    /// Facts about the system.
    static let machine: [String] = [
        "getrandom", "sysinfo", "uname",
    ]
}
