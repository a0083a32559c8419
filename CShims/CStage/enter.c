#define _GNU_SOURCE
#include "cstage_container.h"
#include "procfs.h"
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/sched.h>

static _Noreturn void give_up(int socket, const char *step) {
    int number = errno;
    cs_send(socket, CS_FAILED, number, step, strlen(step), NULL, 0);
    _exit(1);
}

static const char *namespace_step(int type) {
    switch (type) {
    case CLONE_NEWNET: return "join the network namespace (setns)";
    case CLONE_NEWNS: return "join the mount namespace (setns)";
    case CLONE_NEWIPC: return "join the ipc namespace (setns)";
    case CLONE_NEWUTS: return "join the uts namespace (setns)";
    case CLONE_NEWCGROUP: return "join the cgroup namespace (setns)";
    case CLONE_NEWTIME: return "join the time namespace (setns)";
    default: return "join the container's namespaces (setns)";
    }
}

// Without root, namespaces can be joined only with the rights that the user namespace gives to which they belong.
static int joins_user_first(const struct cs_entry *entry) {
    return entry->user_namespace >= 0 && syscall(SYS_geteuid) != 0;
}

static void join_user(const struct cs_entry *entry, int socket) {
    if (entry->user_namespace >= 0 && setns(entry->user_namespace, CLONE_NEWUSER) < 0)
        give_up(socket, "join the user namespace (setns)");
}

// Namespaces are joined with the host's rights, so the user namespace comes last: the others may belong to another one.
// `joined`: a kind that the process is in already. One descriptor may be for several kinds (a pidfd).
static void join_all(const struct cs_entry *entry, int socket, int joined) {
    int user_first = joins_user_first(entry);
    if (user_first) {
        join_user(entry, socket);
        if (entry->pid_namespace >= 0 && setns(entry->pid_namespace, CLONE_NEWPID) < 0)
            give_up(socket, "join the pid namespace (setns)");
    }
    for (int i = 0; i < entry->join_count; i++)
        if ((entry->joins[i].type & ~joined) && setns(entry->joins[i].fd, entry->joins[i].type & ~joined) < 0)
            give_up(socket, namespace_step(entry->joins[i].type & ~joined));
    if (!user_first) join_user(entry, socket);
}

// A process that comes into a container whose processes may look at it (CAP_SYS_PTRACE) must not have the host's root and
// working directory for a moment: they are in /proc/PID (CVE-2016-9962). So it is made by one outside that has the container's mounts.
static int comes_behind_mounts(const struct cs_entry *entry) {
    if (entry->pid_namespace < 0 || entry->new_namespaces != 0 || joins_user_first(entry)) return 0;
    for (int i = 0; i < entry->join_count; i++)
        if (entry->joins[i].type & CLONE_NEWNS) return 1;
    return 0;
}

// Root of the user namespace, by raw calls: glibc's wrappers would look for threads that this process does not have.
static void become_root(const struct cs_entry *entry) {
    if (syscall(SYS_setresgid, 0, 0, 0) < 0)
        give_up(entry->socket, "become gid 0 of the user namespace (does it map 0?)");
    if (syscall(SYS_setresuid, 0, 0, 0) < 0)
        give_up(entry->socket, "become uid 0 of the user namespace (does it map 0?)");
    if (syscall(SYS_setgroups, 0, NULL) < 0 && errno != EPERM) give_up(entry->socket, "setgroups");
    prctl(PR_SET_DUMPABLE, 0);
}

static void finish_child(const struct cs_entry *entry) {
    if (entry->wait_for_maps) {
        struct cs_message message;
        int none = 0;
        int got = cs_receive(entry->socket, &message, NULL, &none);
        // The runtime is gone, or gave up: so do we.
        if (got <= 0 || message.kind != CS_MAPPED) _exit(1);
    }
    if (entry->wait_for_maps || entry->user_namespace >= 0) become_root(entry);
}

static long clone_child(uint64_t flags, int cgroup, int *pidfd) {
    int fd = -1;
    struct clone_args args = {
        .flags = flags | CLONE_PIDFD | CLONE_CLEAR_SIGHAND | (cgroup >= 0 ? CLONE_INTO_CGROUP : 0),
        .pidfd = (uint64_t)(uintptr_t)&fd,
        .exit_signal = (flags & CLONE_PARENT) ? 0 : SIGCHLD,
        .cgroup = cgroup >= 0 ? (uint64_t)cgroup : 0,
    };
    long pid = syscall(SYS_clone3, &args, sizeof args);
    if (pid > 0) *pidfd = fd;
    return pid;
}

// The number that the caller's procfs gives to a pidfd's process.
static pid_t pid_of(int pidfd) {
    char buffer[512];
    if (cs_read_procfs("/proc/self/fdinfo/", (unsigned int)pidfd, "", buffer, sizeof buffer) < 0) return -1;
    const char *line = strstr(buffer, "\nPid:");
    if (!line) { errno = EPROTO; return -1; }
    pid_t pid = 0;
    for (line += 5; *line == ' ' || *line == '\t'; line++) {}
    for (; *line >= '0' && *line <= '9'; line++) pid = pid * 10 + (*line - '0');
    if (pid == 0) errno = ESRCH;
    return pid ? pid : -1;
}

// New namespaces that belong to a joined user namespace, joined ones beside a new user namespace, or a pid namespace that
// only the joined user namespace gives rights to: a process in between joins first and makes the container's process as a
// sibling of its own.
static pid_t enter_through_intermediate(const struct cs_entry *entry, int *pidfd, const char **step) {
    static char failure[CS_TEXT_SIZE + 1];
    int middle = -1, channel[2];
    *step = "socketpair";
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, channel) < 0) return -1;
    long pid = clone_child(0, entry->cgroup, &middle);
    if (pid < 0) {
        int number = errno;
        close(channel[0]);
        close(channel[1]);
        *step = "clone3";
        errno = number;
        return -1;
    }
    if (pid == 0) {
        int child_pidfd = -1;
        close(channel[0]);
        prctl(PR_SET_DUMPABLE, 0);
        join_all(entry, channel[1], 0);
        long child = clone_child(entry->new_namespaces | CLONE_PARENT, -1, &child_pidfd);
        if (child < 0) give_up(channel[1], "make the container's namespaces (clone3)");
        if (child == 0) {
            close(channel[1]);
            close(entry->runtime_socket);
            finish_child(entry);
            return 0;
        }
        _exit(cs_send(channel[1], CS_DESCRIPTOR, 0, NULL, 0, &child_pidfd, 1) < 0);
    }
    close(channel[1]);
    struct cs_message message;
    int descriptor = -1, count = 1, got = cs_receive(channel[0], &message, &descriptor, &count);
    close(channel[0]);
    siginfo_t info;
    while (waitid(P_PIDFD, (id_t)middle, &info, WEXITED) < 0 && errno == EINTR) {}
    close(middle);
    if (got == 1 && message.kind == CS_DESCRIPTOR && count == 1) {
        *pidfd = descriptor;
        *step = "read the process number of the container";
        return pid_of(descriptor);
    }
    if (got == 1 && message.kind == CS_FAILED) {
        memcpy(failure, message.text, message.length);
        failure[message.length] = 0;
        *step = failure;
        errno = message.error;
        return -1;
    }
    *step = "the process between runtime and container ended early";
    errno = EPROTO;
    return -1;
}

// What the runtime and the process in between, which shares its memory and descriptors, tell each other.
struct behind {
    const struct cs_entry *entry;
    jmp_buf frame;
    const char *step;
    int error, pidfd;
    long child;
};

// Runs on a stack of its own while the runtime waits. Its child has a copy of all memory, so that it can go on in the
// runtime's frame.
static int make_behind_mounts(void *argument) {
    struct behind *behind = argument;
    const struct cs_entry *entry = behind->entry;
    behind->step = "join the pid namespace (setns)";
    if (setns(entry->pid_namespace, CLONE_NEWPID) < 0) goto failed;
    behind->step = namespace_step(CLONE_NEWNS);
    for (int i = 0; i < entry->join_count; i++)
        if ((entry->joins[i].type & CLONE_NEWNS) && setns(entry->joins[i].fd, CLONE_NEWNS) < 0) goto failed;
    behind->step = "clone3";
    behind->child = clone_child(CLONE_PARENT, entry->cgroup, &behind->pidfd);
    if (behind->child == 0) _longjmp(behind->frame, 1);
    if (behind->child > 0) return 0;
failed:
    behind->error = errno;
    return 1;
}

// The container's process begins with the container's mounts: one in between joins them first and makes it as its sibling. It
// is as cheap as vfork(2): no memory is copied for it.
static pid_t enter_behind_mounts(const struct cs_entry *entry, int *pidfd, const char **step) {
    static char stack[16384] __attribute__((aligned(16)));
    struct behind behind = {.entry = entry, .step = "clone (of the process between runtime and container)", .pidfd = -1, .child = -1};
    // A process that may not be looked at, and whose children may not be: the flag goes with the memory.
    int dumpable = prctl(PR_GET_DUMPABLE);
    if (_setjmp(behind.frame) != 0) {
        close(entry->runtime_socket);
        join_all(entry, entry->socket, CLONE_NEWNS);
        finish_child(entry);
        return 0;
    }
    prctl(PR_SET_DUMPABLE, 0);
    pid_t middle = clone(make_behind_mounts, stack + sizeof stack, CLONE_VM | CLONE_VFORK | CLONE_FILES | SIGCHLD, &behind);
    int number = errno, status = 0;
    prctl(PR_SET_DUMPABLE, dumpable == 1);
    if (middle < 0) {
        *step = behind.step;
        errno = number;
        return -1;
    }
    while (waitpid(middle, &status, 0) < 0 && errno == EINTR) {}
    if (behind.child > 0) {
        *pidfd = behind.pidfd;
        return (pid_t)behind.child;
    }
    *step = behind.error ? behind.step : "the process between runtime and container ended early";
    errno = behind.error ? behind.error : EPROTO;
    return -1;
}

static int own_namespace(const char *path) { return open(path, O_RDONLY | O_CLOEXEC); }

pid_t cs_enter(const struct cs_entry *entry, int *pidfd, const char **step) {
    int own_pid = -1, own_time = -1;
    pid_t pid = -1;
    *pidfd = -1;
    // Both only change what children get; the caller itself stays where it is, and is put right below.
    if (entry->pid_namespace >= 0 && !joins_user_first(entry) && !comes_behind_mounts(entry)) {
        *step = "open /proc/self/ns/pid";
        if ((own_pid = own_namespace("/proc/self/ns/pid")) < 0) return -1;
        *step = "join the pid namespace (setns)";
        if (setns(entry->pid_namespace, CLONE_NEWPID) < 0) goto restore;
    }
    if (entry->time_offsets) {
        *step = "open /proc/self/ns/time";
        if ((own_time = own_namespace("/proc/self/ns/time")) < 0) goto restore;
        *step = "unshare(time namespace)";
        if (unshare(CLONE_NEWTIME) < 0) goto restore;
        if (*entry->time_offsets) {
            *step = "write /proc/self/timens_offsets (CAP_SYS_TIME is needed)";
            int offsets = open("/proc/self/timens_offsets", O_WRONLY | O_CLOEXEC);
            if (offsets < 0) goto restore;
            ssize_t written = write(offsets, entry->time_offsets, strlen(entry->time_offsets));
            int number = errno;
            close(offsets);
            errno = number;
            if (written < 0) goto restore;
        }
    }
    if (entry->user_namespace >= 0 && (entry->new_namespaces != 0 || joins_user_first(entry))) {
        pid = enter_through_intermediate(entry, pidfd, step);
    } else if (comes_behind_mounts(entry)) {
        pid = enter_behind_mounts(entry, pidfd, step);
    } else if ((entry->new_namespaces & CLONE_NEWUSER) && entry->join_count > 0) {
        pid = enter_through_intermediate(entry, pidfd, step);
    } else {
        *step = "clone3";
        pid = (pid_t)clone_child(entry->new_namespaces, entry->cgroup, pidfd);
        if (pid == 0) {
            close(entry->runtime_socket);
            join_all(entry, entry->socket, 0);
            finish_child(entry);
        }
    }
    if (pid == 0) {
        if (own_pid >= 0) close(own_pid);
        if (own_time >= 0) close(own_time);
        return 0;
    }
restore:;
    int number = errno;
    if (own_pid >= 0) {
        setns(own_pid, CLONE_NEWPID);
        close(own_pid);
    }
    if (own_time >= 0) {
        setns(own_time, CLONE_NEWTIME);
        close(own_time);
    }
    errno = number;
    return pid;
}

pid_t cs_hold_user_namespace(int *pidfd) {
    pid_t runtime = getpid();
    long pid = clone_child(CLONE_NEWUSER, -1, pidfd);
    if (pid != 0) return (pid_t)pid;
    // It must not outlive the runtime, which may have ended before the request was made.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != runtime) _exit(0);
    for (;;) pause();
}

pid_t cs_fork(int *pidfd) { return (pid_t)clone_child(0, -1, pidfd); }
