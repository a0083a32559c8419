#define _GNU_SOURCE
#include "cstage_container.h"
#include "procfs.h"
#include <sched.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

// As many processors as any kernel knows (CONFIG_NR_CPUS), and how many bytes of it this one has.
static unsigned long before[8192 / (8 * sizeof(unsigned long))];
static long bytes;

// Field 39 of /proc/<pid>/stat, proc_pid_stat(5): where a process was, or shall begin. -1 when it cannot be had.
static int processor_of(pid_t pid) {
    char text[1024];
    if (cs_read_procfs("/proc/", (unsigned int)pid, "/stat", text, sizeof text) < 0) return -1;
    // The command, which ends with the last parenthesis, is field 2.
    const char *at = strrchr(text, ')');
    for (int field = 2; at && field < 39; field++) at = strchr(at + 1, ' ');
    if (!at || at[1] < '0' || at[1] > '9') return -1;
    int processor = 0;
    for (at++; *at >= '0' && *at <= '9' && processor < 8192; at++) processor = processor * 10 + (*at - '0');
    return processor;
}

void cs_leave_processor(pid_t pid) {
    const size_t width = 8 * sizeof *before;
    int processor = processor_of(pid);
    if (processor < 0 || (size_t)processor >= 8 * sizeof before || processor != sched_getcpu()) return;
    bytes = syscall(SYS_sched_getaffinity, 0, sizeof before, before);
    if (bytes <= 0) return;
    unsigned long others[sizeof before / sizeof *before];
    memcpy(others, before, (size_t)bytes);
    others[(size_t)processor / width] &= ~(1UL << (size_t)processor % width);
    // Without another it is an error, and the calling thread stays.
    if (syscall(SYS_sched_setaffinity, 0, bytes, others) < 0) bytes = 0;
}

void cs_use_all_processors(void) {
    if (bytes > 0) syscall(SYS_sched_setaffinity, 0, bytes, before);
    bytes = 0;
}
