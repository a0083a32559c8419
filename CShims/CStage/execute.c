#define _GNU_SOURCE
#include "cstage_container.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

#define PATH_SIZE 4096

static _Noreturn void fail(const struct cs_process *process, const char *step, const char *object) {
    int number = errno;
    char text[CS_TEXT_SIZE];
    size_t length = strnlen(step, CS_TEXT_SIZE - 1);
    memcpy(text, step, length);
    if (object && length < CS_TEXT_SIZE - 1) {
        text[length++] = ' ';
        size_t more = strnlen(object, CS_TEXT_SIZE - length);
        memcpy(text + length, object, more);
        length += more;
    }
    cs_send(process->socket, CS_FAILED, number, text, length, NULL, 0);
    _exit(1);
}

// The kernel's own structure, which glibc's sigaction does not have.
struct kernel_sigaction { void *handler; unsigned long flags; void *restorer; uint64_t mask; };

uint64_t cs_ignored_signals(void) {
    uint64_t ignored = 0;
    for (int number = 1; number <= 64; number++) {
        struct kernel_sigaction action = {0};
        if (syscall(SYS_rt_sigaction, number, NULL, &action, 8) == 0 && action.handler == (void *)SIG_IGN)
            ignored |= 1ULL << (number - 1);
    }
    return ignored;
}

// What the caller of the runtime ignored or blocked is none of the container's business. (Signals that are handled are
// none of the program's: execve(2).)
static void reset_signals(uint64_t ignored) {
    struct kernel_sigaction standard = {0};
    uint64_t none = 0;
    for (int number = 1; number <= 64; number++)
        if (ignored & (1ULL << (number - 1))) syscall(SYS_rt_sigaction, number, &standard, NULL, 8);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, 8);
}

static int enter_directory(const struct cs_process *process) {
    char where[PATH_SIZE];
    if (chdir(process->directory) < 0) return -1;
    // A directory outside the root (through a descriptor of the host, say) has a path that does not begin with '/'.
    long length = syscall(SYS_getcwd, where, sizeof where);
    if (length < 0 && errno != ENOENT) return -1;
    if (length < 0 || where[0] != '/') {
        errno = EXDEV;
        fail(process, "the working directory is outside the container:", process->directory);
    }
    return 0;
}

static void set_identity(const struct cs_process *process) {
    if (process->group_count >= 0 && syscall(SYS_setgroups, (size_t)process->group_count, process->groups) < 0)
        fail(process, "setgroups", NULL);
    if (syscall(SYS_setresgid, process->gid, process->gid, process->gid) < 0) fail(process, "setresgid", NULL);
    if (process->set_capabilities) {
        // Numbers that the kernel does not know end the loop with EINVAL.
        for (unsigned long number = 0; number < 64; number++) {
            if (process->bounding & (1ULL << number)) continue;
            if (prctl(PR_CAPBSET_DROP, number, 0, 0, 0) < 0) {
                if (errno == EINVAL) break;
                fail(process, "drop a capability from the bounding set (CAP_SETPCAP is needed)", NULL);
            }
        }
        if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0) fail(process, "prctl(PR_SET_KEEPCAPS)", NULL);
    }
    if (syscall(SYS_setresuid, process->uid, process->uid, process->uid) < 0) fail(process, "setresuid", NULL);
    if (process->set_capabilities) prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0);
}

static void set_capabilities(const struct cs_process *process) {
    uint64_t effective = process->effective, permitted = process->permitted;
    // Loading a filter without no_new_privs needs CAP_SYS_ADMIN. It does not survive execve: that computes the sets
    // from the bounding, inheritable and ambient ones.
    if (process->filter && !process->no_new_privileges) {
        effective |= 1ULL << CAP_SYS_ADMIN;
        permitted |= 1ULL << CAP_SYS_ADMIN;
    }
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct data[2] = {
        { (uint32_t)effective, (uint32_t)permitted, (uint32_t)process->inheritable },
        { (uint32_t)(effective >> 32), (uint32_t)(permitted >> 32), (uint32_t)(process->inheritable >> 32) },
    };
    if (syscall(SYS_capset, &header, data) < 0) fail(process, "capset", NULL);
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
        fail(process, "clear the ambient capabilities", NULL);
    for (unsigned long number = 0; number < 64; number++)
        if ((process->ambient & (1ULL << number)) && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number, 0, 0) < 0)
            fail(process, "raise an ambient capability (it must be permitted and inheritable)", NULL);
}

// Closed now, not by execve: a working directory or program given as /proc/self/fd/N must not be one of ours. The
// socket and the listener's page (-1: none) stay, close-on-exec.
static void close_others(const struct cs_process *process, int page) {
    unsigned int next = 3 + (unsigned int)process->keep_descriptors;
    int staying[2] = { process->socket, page }, failed = 0;
    if (page < process->socket) {
        staying[0] = page;
        staying[1] = process->socket;
    }
    for (int i = 0; i < 2; i++) {
        if (staying[i] < 0 || (unsigned int)staying[i] < next) continue;
        if (next < (unsigned int)staying[i]) failed |= syscall(SYS_close_range, next, staying[i] - 1, 0) < 0;
        next = (unsigned int)staying[i] + 1;
    }
    failed |= syscall(SYS_close_range, next, ~0U, 0) < 0;
    if (failed) fail(process, "close_range", NULL);
}

// How often a process looks whether its listener was taken: at least seconds, whatever the processor.
#define MOST_LOOKS (1ULL << 33)

static inline void rest(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

// A page of memory that the runtime will share. It is made before the limits hold, of which those on the address space
// and on the size of files would refuse it, the latter with a signal.
static const unsigned char *make_page(const struct cs_process *process, int *file) {
    *file = (int)syscall(SYS_memfd_create, "listener", MFD_CLOEXEC);
    if (*file < 0 || ftruncate(*file, 1) < 0) fail(process, "make a page for the seccomp listener", NULL);
    const unsigned char *page = mmap(NULL, 1, PROT_READ, MAP_SHARED, *file, 0);
    if (page == MAP_FAILED) fail(process, "map a page for the seccomp listener", NULL);
    return page;
}

// Loads a filter that asks somebody else about calls. Its listener is close-on-exec, so the runtime has to take a copy
// before execve; and from the moment the filter holds, every call may be one that waits for an answer which only the
// owner of that copy can give. So all that needs a call is done before: the runtime learns which number the listener
// will have, and a page of memory that both see tells when it has the copy.
static void load_with_listener(
    const struct cs_process *process, struct sock_fprog *program, int file, const unsigned char *taken) {
    // The lowest free number is what the listener gets; until then nothing else does.
    int number = fcntl(process->socket, F_DUPFD_CLOEXEC, 0);
    if (number < 0) fail(process, "find a number for the seccomp listener", NULL);
    close(number);
    if (cs_send(process->socket, CS_LISTENER, number, NULL, 0, &file, 1) < 0) _exit(1);
    struct cs_message message;
    int none = 0;
    // The runtime is gone, or gave up: so do we.
    if (cs_receive(process->socket, &message, NULL, &none) <= 0 || message.kind != CS_GO) _exit(1);
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, process->filter_flags, program) < 0)
        fail(process, "load the seccomp filter with a listener", NULL);
    for (unsigned long long looks = 0; !__atomic_load_n(taken, __ATOMIC_ACQUIRE); looks++) {
        // Nobody takes it any more, and no call is safe: not even the one that ends a process.
        if (looks == MOST_LOOKS) __builtin_trap();
        rest();
    }
}

_Noreturn void cs_execute(const struct cs_process *process) {
    reset_signals(process->ignored_signals);
    int page = -1;
    const unsigned char *taken = NULL;
    int listens = process->filter && (process->filter_flags & SECCOMP_FILTER_FLAG_NEW_LISTENER);
    if (listens) taken = make_page(process, &page);
    for (int i = 0; i < process->limit_count; i++) {
        const struct cs_limit *limit = &process->limits[i];
        uint64_t values[2] = { limit->soft, limit->hard };
        if (syscall(SYS_prlimit64, 0, limit->resource, values, NULL) < 0) fail(process, "rlimit", limit->name);
    }
    close_others(process, page);
    if (process->mask >= 0) syscall(SYS_umask, process->mask);
    if (process->personality >= 0 && syscall(SYS_personality, process->personality) < 0)
        fail(process, "personality", NULL);

    // Root may be kept out of the directory (a network filesystem), or the user may: whoever can enters it.
    int entered = enter_directory(process) == 0;
    if (!entered && errno != EACCES && errno != EPERM) fail(process, "chdir to", process->directory);
    set_identity(process);
    if (!entered && enter_directory(process) < 0) fail(process, "chdir to", process->directory);
    if (process->set_capabilities) set_capabilities(process);
    if (process->no_new_privileges && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        fail(process, "prctl(PR_SET_NO_NEW_PRIVS)", NULL);
    if (process->filter) {
        struct sock_fprog program = { process->filter_length, (struct sock_filter *)process->filter };
        if (listens)
            load_with_listener(process, &program, page, taken);
        else if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, process->filter_flags, &program) < 0)
            fail(process, "load the seccomp filter", NULL);
    }
    // From here on the filter decides which calls are left: execve, and on failure sendmsg and exit_group.
    int number = ENOENT;
    const char *tried = process->paths[0] ? process->paths[0] : "";
    for (char *const *path = process->paths; *path; path++) {
        syscall(SYS_execve, *path, process->argv, process->envp);
        // As execvp(3): a candidate that may not be executed is passed over, but remembered.
        if (errno != ENOENT && errno != ENOTDIR) {
            number = errno;
            tried = *path;
        }
        if (errno != ENOENT && errno != ENOTDIR && errno != EACCES) break;
    }
    errno = number;
    fail(process, "exec", tried);
}

int cs_execute_file(int fd, char *const *argv, char *const *envp) {
    return (int)syscall(SYS_execveat, fd, "", argv, envp, AT_EMPTY_PATH);
}
