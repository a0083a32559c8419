#define _GNU_SOURCE
#include "ckernel_process.h"
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/ioprio.h>
#include <linux/mempolicy.h>
#include <linux/sched.h>
#include <linux/sched/types.h>

_Static_assert(sizeof(struct ck_sched_attr) == sizeof(struct sched_attr), "sched_attr");
#define SAME(a, b) _Static_assert((unsigned long)(a) == (unsigned long)(b), #a)
SAME(CK_SCHED_OTHER, SCHED_NORMAL); SAME(CK_SCHED_FIFO, SCHED_FIFO); SAME(CK_SCHED_RR, SCHED_RR);
SAME(CK_SCHED_BATCH, SCHED_BATCH); SAME(CK_SCHED_IDLE, SCHED_IDLE); SAME(CK_SCHED_DEADLINE, SCHED_DEADLINE);
SAME(CK_SCHED_FLAG_RESET_ON_FORK, SCHED_FLAG_RESET_ON_FORK); SAME(CK_SCHED_FLAG_RECLAIM, SCHED_FLAG_RECLAIM);
SAME(CK_SCHED_FLAG_DL_OVERRUN, SCHED_FLAG_DL_OVERRUN); SAME(CK_SCHED_FLAG_KEEP_POLICY, SCHED_FLAG_KEEP_POLICY);
SAME(CK_SCHED_FLAG_KEEP_PARAMS, SCHED_FLAG_KEEP_PARAMS);
SAME(CK_SCHED_FLAG_UTIL_CLAMP_MIN, SCHED_FLAG_UTIL_CLAMP_MIN);
SAME(CK_SCHED_FLAG_UTIL_CLAMP_MAX, SCHED_FLAG_UTIL_CLAMP_MAX);
SAME(CK_IOPRIO_WHO_PROCESS, IOPRIO_WHO_PROCESS); SAME(CK_IOPRIO_CLASS_SHIFT, IOPRIO_CLASS_SHIFT);
SAME(CK_IOPRIO_CLASS_RT, IOPRIO_CLASS_RT); SAME(CK_IOPRIO_CLASS_BE, IOPRIO_CLASS_BE);
SAME(CK_IOPRIO_CLASS_IDLE, IOPRIO_CLASS_IDLE);
// MPOL_WEIGHTED_INTERLEAVE is newer (Linux 6.9) than the headers.
SAME(CK_MPOL_DEFAULT, MPOL_DEFAULT); SAME(CK_MPOL_PREFERRED, MPOL_PREFERRED); SAME(CK_MPOL_BIND, MPOL_BIND);
SAME(CK_MPOL_INTERLEAVE, MPOL_INTERLEAVE); SAME(CK_MPOL_LOCAL, MPOL_LOCAL);
SAME(CK_MPOL_PREFERRED_MANY, MPOL_PREFERRED_MANY); SAME(CK_MPOL_F_NUMA_BALANCING, MPOL_F_NUMA_BALANCING);
SAME(CK_MPOL_F_RELATIVE_NODES, MPOL_F_RELATIVE_NODES); SAME(CK_MPOL_F_STATIC_NODES, MPOL_F_STATIC_NODES);

int ck_sched_setattr(pid_t pid, const struct ck_sched_attr *attr) {
    return (int)syscall(SYS_sched_setattr, pid, attr, 0);
}
int ck_sched_setaffinity(pid_t pid, const uint64_t *mask, size_t bytes) {
    return (int)syscall(SYS_sched_setaffinity, pid, bytes, mask);
}
int ck_ioprio_set(int which, int who, int value) { return (int)syscall(SYS_ioprio_set, which, who, value); }
int ck_set_mempolicy(int mode, const uint64_t *mask, unsigned long bits) {
    return (int)syscall(SYS_set_mempolicy, mode, mask, bits);
}
