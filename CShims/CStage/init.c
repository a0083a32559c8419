#define _GNU_SOURCE
#include "cstage_container.h"
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static void complain(const char *what, int number) {
    const char *parts[] = { "init: ", what, ": ", strerrordesc_np(number), "\n" };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (parts[i] && write(2, parts[i], strlen(parts[i])) < 0) return;
}

static _Noreturn void become(char *const *argv, const sigset_t *mask) {
    // A process group of its own, so that the terminal's signals reach the program and not this process too. SIGTTOU is
    // still blocked, without which the terminal could not be taken.
    setpgid(0, 0);
    if (isatty(0)) tcsetpgrp(0, getpid());
    sigprocmask(SIG_SETMASK, mask, NULL);
    execvp(argv[0], argv);
    int number = errno;
    complain(argv[0], number);
    _exit(number == ENOENT || number == ENOTDIR ? 127 : 126);
}

int cs_init(char *const *argv) {
    static const int own[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS };
    sigset_t waited, before;
    sigfillset(&waited);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) sigdelset(&waited, own[i]);
    if (sigprocmask(SIG_SETMASK, &waited, &before) < 0) return 125;
    // Where it is not the first process of its pid namespace, orphans come to it all the same.
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    pid_t child = fork();
    if (child < 0) {
        complain("fork", errno);
        return 125;
    }
    if (child == 0) become(argv, &before);
    for (;;) {
        int number = sigwaitinfo(&waited, NULL);
        if (number < 0 || number == SIGTTIN || number == SIGTTOU) continue;
        if (number != SIGCHLD) {
            kill(child, number);
            continue;
        }
        int status, code = -1;
        pid_t ended;
        while ((ended = waitpid(-1, &status, WNOHANG)) > 0)
            if (ended == child) code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
        if (code >= 0) return code;
    }
}
