// Usage: instructions [-l FILE] COMMAND…: prints how many instructions the command and all processes that it makes execute
// in user space, counted by single steps (ptrace(2)); a processor's counters are not there in most virtual machines, and
// Valgrind 3.19 knows neither clone3 nor openat2 nor open_tree. A system call counts as one. The exit status is the command's.
// With -l the addresses are listed at which the command's own program executes something, in the order of the first time;
// what processes execute after another program has taken its place does not count then.
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

// Programs that are linked to fixed addresses lie here.
enum { LOWEST = 0x200000, HIGHEST = 0x2000000 };
static unsigned char executed[HIGHEST - LOWEST];
static unsigned char replaced[1 << 22];

static void list(FILE *file, pid_t pid)
{
#ifdef __x86_64__
    struct user_regs_struct registers;
    if (replaced[pid & (sizeof replaced - 1)] || ptrace(PTRACE_GETREGS, pid, 0, &registers) < 0) return;
    if (registers.rip < LOWEST || registers.rip >= HIGHEST || executed[registers.rip - LOWEST]) return;
    executed[registers.rip - LOWEST] = 1;
    fprintf(file, "%llx\n", registers.rip);
#else
    (void)file, (void)pid;
    fputs("-l is for x86_64 only\n", stderr), exit(2);
#endif
}

int main(int argc, char **argv)
{
    FILE *file = NULL;
    if (argc > 3 && !strcmp(argv[1], "-l")) {
        if (!(file = fopen(argv[2], "w"))) return perror(argv[2]), 2;
        argc -= 2, argv += 2;
    }
    if (argc < 2) return fputs("usage: instructions [-l FILE] COMMAND…\n", stderr), 2;
    pid_t child = fork();
    if (child < 0) return perror("fork"), 1;
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        execvp(argv[1], argv + 1);
        perror(argv[1]);
        _exit(127);
    }
    int status;
    if (waitpid(child, &status, __WALL) != child || !WIFSTOPPED(status)) return fputs("no stop to begin with\n", stderr), 1;
    long options = PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL;
    if (ptrace(PTRACE_SETOPTIONS, child, 0, options) < 0) return perror("PTRACE_SETOPTIONS"), 1;
    unsigned long long steps = 0;
    int counting = 0, result = 1;
    if (ptrace(PTRACE_SINGLESTEP, child, 0, 0) < 0) return perror("PTRACE_SINGLESTEP"), 1;
    for (;;) {
        pid_t pid = waitpid(-1, &status, __WALL);
        if (pid < 0 && errno == EINTR) continue;
        if (pid < 0) break;
        if (!WIFSTOPPED(status)) {
            if (pid == child) result = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
            // A container that goes on is nobody's to wait for.
            if (pid == child && file) break;
            continue;
        }
        int signal = WSTOPSIG(status), event = status >> 16;
        // What this program's own child does before it has become the command is not the command's.
        if (event == PTRACE_EVENT_EXEC) {
            if (counting) replaced[pid & (sizeof replaced - 1)] = 1;
            counting = 1;
        }
        if (signal == SIGTRAP) {
            if (event == 0 && counting) {
                steps++;
                if (file) list(file, pid);
            }
            signal = 0;
        } else if (signal == SIGSTOP) {
            // The stop that a new process begins with.
            signal = 0;
        }
        ptrace(PTRACE_SINGLESTEP, pid, 0, signal);
    }
    if (file && fclose(file) != 0) return perror("the list"), 1;
    fprintf(stderr, "%llu\n", steps);
    return result;
}
