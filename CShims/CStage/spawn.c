#define _GNU_SOURCE
#include "cstage.h"
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/close_range.h>
#include <linux/sched.h>

#define MAX_DESCRIPTORS 64

struct failure { int errnum; int step; };

static const char *const steps[] = {
    "clone3", "setns (network)", "setns (mount)", "setsid", "prctl(PR_SET_PDEATHSIG)", "chdir",
    "dup3", "close_range", "execve", "pipe2",
};
enum { CLONE, NETNS, MNTNS, SETSID, DEATHSIG, CHDIR, DUP, CLOSE, EXEC, PIPE };

// The child of a clone in a threaded process: raw calls only, no allocation, no locks.
static _Noreturn void child(const struct cs_spawn_request *r, int report) {
    struct failure failure = {0, 0};
    int moved[MAX_DESCRIPTORS];
    sigset_t none;

    if (r->netns_fd >= 0 && setns(r->netns_fd, CLONE_NEWNET) < 0) { failure.step = NETNS; goto fail; }
    if (r->mntns_fd >= 0 && setns(r->mntns_fd, CLONE_NEWNS) < 0) { failure.step = MNTNS; goto fail; }
    if (r->new_session && setsid() < 0) { failure.step = SETSID; goto fail; }
    if (r->parent_death_signal && prctl(PR_SET_PDEATHSIG, r->parent_death_signal) < 0) { failure.step = DEATHSIG; goto fail; }
    if (r->working_directory && chdir(r->working_directory) < 0) { failure.step = CHDIR; goto fail; }

    // Lift everything out of the way first, so that no source is overwritten before it is used.
    int lowest = r->descriptor_count + 1;
    failure.step = DUP;
    int lifted = fcntl(report, F_DUPFD_CLOEXEC, lowest);
    if (lifted < 0) goto fail;
    report = lifted;
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
    if (syscall(SYS_close_range, r->descriptor_count, ~0U, CLOSE_RANGE_CLOEXEC) < 0) { failure.step = CLOSE; goto fail; }
    sigemptyset(&none);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, 8);

    failure.step = EXEC;
    if (r->path) syscall(SYS_execve, r->path, r->argv, r->envp);
    else syscall(SYS_execveat, exec_fd, "", r->argv, r->envp, AT_EMPTY_PATH);
fail:
    failure.errnum = errno;
    (void)!write(report, &failure, sizeof failure);
    _exit(127);
}

int cs_spawn(const struct cs_spawn_request *r, pid_t *pid, int *pidfd, const char **step) {
    if (r->descriptor_count < 0 || r->descriptor_count > MAX_DESCRIPTORS) {
        *step = "descriptor count";
        errno = EINVAL;
        return -1;
    }
    int report[2];
    if (pipe2(report, O_CLOEXEC) < 0) { *step = steps[PIPE]; return -1; }

    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int fd = -1;
    struct clone_args args = {
        .flags = CLONE_PIDFD | CLONE_CLEAR_SIGHAND | (r->cgroup_fd >= 0 ? CLONE_INTO_CGROUP : 0),
        .pidfd = (uint64_t)(uintptr_t)&fd,
        .exit_signal = SIGCHLD,
        .cgroup = r->cgroup_fd >= 0 ? (uint64_t)r->cgroup_fd : 0,
    };
    long child_pid = syscall(SYS_clone3, &args, sizeof args);
    if (child_pid == 0) child(r, report[1]);
    int clone_errno = errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    close(report[1]);
    if (child_pid < 0) {
        close(report[0]);
        *step = steps[CLONE];
        errno = clone_errno;
        return -1;
    }
    struct failure failure;
    ssize_t n;
    do n = read(report[0], &failure, sizeof failure); while (n < 0 && errno == EINTR);
    close(report[0]);
    if (n == sizeof failure) {
        siginfo_t info;
        while (waitid(P_PIDFD, (id_t)fd, &info, WEXITED) < 0 && errno == EINTR) {}
        close(fd);
        *step = steps[failure.step];
        errno = failure.errnum;
        return -1;
    }
    *pid = (pid_t)child_pid;
    *pidfd = fd;
    return 0;
}
