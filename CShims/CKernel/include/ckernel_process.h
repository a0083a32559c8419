// Scheduling, I/O priority, processor affinity and memory policy of a process: system calls without a glibc wrapper. No
// logic. The constants are checked against the system's headers in process.c.
#ifndef MARTLET_CKERNEL_PROCESS_H
#define MARTLET_CKERNEL_PROCESS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

// struct sched_attr of sched_setattr(2), as Linux 5.3 has it.
struct ck_sched_attr {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
    uint32_t util_min, util_max;
};

// pid 0 is the calling thread.
int ck_sched_setattr(pid_t pid, const struct ck_sched_attr *attr);
// A mask of `bytes` bytes, CPU 0 in the lowest bit of the first 64-bit word.
int ck_sched_setaffinity(pid_t pid, const uint64_t *mask, size_t bytes);
// `value` is class << CK_IOPRIO_CLASS_SHIFT | level.
int ck_ioprio_set(int which, int who, int value);
// `bits`: how many bits of the mask count, and one more, as the kernel has it.
int ck_set_mempolicy(int mode, const uint64_t *mask, unsigned long bits);

enum {
    CK_SCHED_OTHER = 0, CK_SCHED_FIFO = 1, CK_SCHED_RR = 2, CK_SCHED_BATCH = 3, CK_SCHED_IDLE = 5,
    CK_SCHED_DEADLINE = 6,
    CK_SCHED_FLAG_RESET_ON_FORK = 1, CK_SCHED_FLAG_RECLAIM = 2, CK_SCHED_FLAG_DL_OVERRUN = 4,
    CK_SCHED_FLAG_KEEP_POLICY = 8, CK_SCHED_FLAG_KEEP_PARAMS = 0x10, CK_SCHED_FLAG_UTIL_CLAMP_MIN = 0x20,
    CK_SCHED_FLAG_UTIL_CLAMP_MAX = 0x40,
    CK_IOPRIO_WHO_PROCESS = 1, CK_IOPRIO_CLASS_SHIFT = 13, CK_IOPRIO_CLASS_RT = 1, CK_IOPRIO_CLASS_BE = 2,
    CK_IOPRIO_CLASS_IDLE = 3,
    CK_MPOL_DEFAULT = 0, CK_MPOL_PREFERRED = 1, CK_MPOL_BIND = 2, CK_MPOL_INTERLEAVE = 3, CK_MPOL_LOCAL = 4,
    CK_MPOL_PREFERRED_MANY = 5, CK_MPOL_WEIGHTED_INTERLEAVE = 6,
    CK_MPOL_F_NUMA_BALANCING = 0x2000, CK_MPOL_F_RELATIVE_NODES = 0x4000, CK_MPOL_F_STATIC_NODES = 0x8000,
};

#endif
