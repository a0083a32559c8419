#define _GNU_SOURCE
#include "cstage.h"
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/close_range.h>
#include <linux/sched.h>

#define MAX_DESCRIPTORS 64

static const char *const steps[] = {
    "clone3", "setns (network)", "setsid", "prctl(PR_SET_PDEATHSIG)", "chdir", "dup3", "close_range", "execve",
    "execve (the process was killed before it)",
};
enum { CLONE, NETNS, SETSID, DEATHSIG, CHDIR, DUP, CLOSE, EXEC, KILLED };

// What the child gets, and where it writes what failed: it shares our memory until execve.
struct start {
    const struct cs_spawn_request *request;
    int errnum;
    int step;
};

// The child of a clone in a threaded process: raw calls only, no allocation, no locks, nothing written but its own stack
// and `start`.
static _Noreturn void child(struct start *start) {
    const struct cs_spawn_request *r = start->request;
    int moved[MAX_DESCRIPTORS];
    sigset_t none;

    if (r->netns_fd >= 0 && setns(r->netns_fd, CLONE_NEWNET) < 0) { start->step = NETNS; goto fail; }
    if (r->new_session && setsid() < 0) { start->step = SETSID; goto fail; }
    if (r->parent_death_signal && prctl(PR_SET_PDEATHSIG, r->parent_death_signal) < 0) { start->step = DEATHSIG; goto fail; }
    if (r->working_directory && chdir(r->working_directory) < 0) { start->step = CHDIR; goto fail; }

    // Lift everything out of the way first, so that no source is overwritten before it is used.
    int lowest = r->descriptor_count + 1;
    start->step = DUP;
    for (int i = 0; i < r->descriptor_count; i++) {
        moved[i] = -1;
        if (r->descriptors[i] >= 0 && (moved[i] = fcntl(r->descriptors[i], F_DUPFD_CLOEXEC, lowest)) < 0) goto fail;
    }
    int exec_fd = -1;
    if (!r->path && (exec_fd = fcntl(r->exec_fd, F_DUPFD_CLOEXEC, lowest)) < 0) goto fail;
    for (int i = 0; i < r->descriptor_count; i++) {
        if (moved[i] < 0) close(i);
        else if (dup3(moved[i], i, 0) < 0) goto fail;
    }
    if (syscall(SYS_close_range, r->descriptor_count, ~0U, CLOSE_RANGE_CLOEXEC) < 0) { start->step = CLOSE; goto fail; }
    sigemptyset(&none);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, 8);

    start->step = EXEC;
    if (r->path) syscall(SYS_execve, r->path, r->argv, r->envp);
    else syscall(SYS_execveat, exec_fd, "", r->argv, r->envp, AT_EMPTY_PATH);
fail:
    start->errnum = errno;
    _exit(127);
}

// clone3 of a child that runs on the stack named in `args`, where no C function may return to: its caller's frame is
// ours. Returns the child's id or a negative errno.
static long clone_onto_stack(struct clone_args *args, struct start *start) {
#if defined(__x86_64__)
    long result;
    register void (*entry)(struct start *) __asm__("r12") = child;
    register struct start *argument __asm__("r13") = start;
    __asm__ volatile(
        "syscall\n\t"
        "test %%rax, %%rax\n\t"
        "jnz 1f\n\t"
        "xor %%ebp, %%ebp\n\t"
        "mov %%r13, %%rdi\n\t"
        "call *%%r12\n\t"
        "ud2\n"
        "1:"
        : "=a"(result)
        : "a"(SYS_clone3), "D"(args), "S"(sizeof *args), "r"(entry), "r"(argument)
        : "rcx", "r11", "memory", "cc");
    return result;
#elif defined(__aarch64__)
    register long x0 __asm__("x0") = (long)args;
    register long x1 __asm__("x1") = sizeof *args;
    register long x8 __asm__("x8") = SYS_clone3;
    register void (*entry)(struct start *) __asm__("x19") = child;
    register struct start *argument __asm__("x20") = start;
    __asm__ volatile(
        "svc #0\n\t"
        "cbnz x0, 1f\n\t"
        "mov x29, xzr\n\t"
        "mov x0, x20\n\t"
        "blr x19\n\t"
        "brk #1\n"
        "1:"
        : "+r"(x0)
        : "r"(x1), "r"(x8), "r"(entry), "r"(argument)
        : "memory", "cc");
    return x0;
#else
#error "no way to start processes on this architecture yet"
#endif
}

// The child borrows our memory (CLONE_VM) while this thread sleeps until its execve or end (CLONE_VFORK): what a start
// costs does not grow with the memory of the daemon, whose page tables would be copied otherwise.
int cs_spawn(const struct cs_spawn_request *r, pid_t *pid, int *pidfd, const char **step) {
    if (r->descriptor_count < 0 || r->descriptor_count > MAX_DESCRIPTORS) {
        *step = "descriptor count";
        errno = EINVAL;
        return -1;
    }
    char stack[16384] __attribute__((aligned(16)));
    struct start start = {.request = r};
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int fd = -1;
    struct clone_args args = {
        .flags = CLONE_VM | CLONE_VFORK | CLONE_PIDFD | CLONE_CLEAR_SIGHAND | (r->cgroup_fd >= 0 ? CLONE_INTO_CGROUP : 0),
        .pidfd = (uint64_t)(uintptr_t)&fd,
        .exit_signal = SIGCHLD,
        .stack = (uint64_t)(uintptr_t)stack,
        .stack_size = sizeof stack,
        .cgroup = r->cgroup_fd >= 0 ? (uint64_t)r->cgroup_fd : 0,
    };
    long child_pid = clone_onto_stack(&args, &start);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (child_pid < 0) {
        *step = steps[CLONE];
        errno = (int)-child_pid;
        return -1;
    }
    // Killed before it came to execve: it has said nothing then but the step that it had reached.
    if (!start.errnum && start.step != EXEC) {
        start.errnum = ECHILD;
        start.step = KILLED;
    }
    if (start.errnum) {
        siginfo_t info;
        while (waitid(P_PIDFD, (id_t)fd, &info, WEXITED) < 0 && errno == EINTR) {}
        close(fd);
        *step = steps[start.step];
        errno = start.errnum;
        return -1;
    }
    *pid = (pid_t)child_pid;
    *pidfd = fd;
    return 0;
}
