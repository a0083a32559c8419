#define _GNU_SOURCE
#include "ckernel.h"
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/close_range.h>
#include <linux/keyctl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <linux/seccomp.h>

_Static_assert(sizeof(struct ck_open_how) == sizeof(struct open_how), "open_how");
#define SAME(a, b) _Static_assert((unsigned long)(a) == (unsigned long)(b), #a)
SAME(CK_O_PATH, O_PATH); SAME(CK_O_TMPFILE, O_TMPFILE); SAME(CK_AT_EMPTY_PATH, AT_EMPTY_PATH);
SAME(CK_AT_RECURSIVE, AT_RECURSIVE); SAME(CK_AT_SYMLINK_NOFOLLOW, AT_SYMLINK_NOFOLLOW);
SAME(CK_RESOLVE_NO_XDEV, RESOLVE_NO_XDEV); SAME(CK_RESOLVE_NO_MAGICLINKS, RESOLVE_NO_MAGICLINKS);
SAME(CK_RESOLVE_NO_SYMLINKS, RESOLVE_NO_SYMLINKS); SAME(CK_RESOLVE_BENEATH, RESOLVE_BENEATH);
SAME(CK_RESOLVE_IN_ROOT, RESOLVE_IN_ROOT);
SAME(CK_CLONE_NEWTIME, CLONE_NEWTIME); SAME(CK_CLONE_NEWNS, CLONE_NEWNS); SAME(CK_CLONE_NEWCGROUP, CLONE_NEWCGROUP);
SAME(CK_CLONE_NEWUTS, CLONE_NEWUTS); SAME(CK_CLONE_NEWIPC, CLONE_NEWIPC); SAME(CK_CLONE_NEWUSER, CLONE_NEWUSER);
SAME(CK_CLONE_NEWPID, CLONE_NEWPID); SAME(CK_CLONE_NEWNET, CLONE_NEWNET);
SAME(CK_OPEN_TREE_CLONE, OPEN_TREE_CLONE); SAME(CK_OPEN_TREE_CLOEXEC, OPEN_TREE_CLOEXEC);
SAME(CK_MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_F_EMPTY_PATH); SAME(CK_MOVE_MOUNT_T_EMPTY_PATH, MOVE_MOUNT_T_EMPTY_PATH);
SAME(CK_FSOPEN_CLOEXEC, FSOPEN_CLOEXEC); SAME(CK_FSMOUNT_CLOEXEC, FSMOUNT_CLOEXEC);
SAME(CK_FSCONFIG_SET_FLAG, FSCONFIG_SET_FLAG); SAME(CK_FSCONFIG_SET_STRING, FSCONFIG_SET_STRING);
SAME(CK_FSCONFIG_SET_FD, FSCONFIG_SET_FD); SAME(CK_FSCONFIG_CMD_CREATE, FSCONFIG_CMD_CREATE);
SAME(CK_MOUNT_ATTR_RDONLY, MOUNT_ATTR_RDONLY); SAME(CK_MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSUID);
SAME(CK_MOUNT_ATTR_NODEV, MOUNT_ATTR_NODEV); SAME(CK_MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOEXEC);
SAME(CK_MOUNT_ATTR_NOATIME, MOUNT_ATTR_NOATIME); SAME(CK_MOUNT_ATTR_STRICTATIME, MOUNT_ATTR_STRICTATIME);
SAME(CK_MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NODIRATIME); SAME(CK_MOUNT_ATTR_ATIME, MOUNT_ATTR__ATIME);
SAME(CK_MOUNT_ATTR_IDMAP, MOUNT_ATTR_IDMAP); SAME(CK_MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_NOSYMFOLLOW);
SAME(CK_CLOSE_RANGE_CLOEXEC, CLOSE_RANGE_CLOEXEC); SAME(CK_P_PIDFD, P_PIDFD);
SAME(CK_RENAME_NOREPLACE, RENAME_NOREPLACE); SAME(CK_RENAME_EXCHANGE, RENAME_EXCHANGE);
SAME(CK_SECCOMP_SET_MODE_FILTER, SECCOMP_SET_MODE_FILTER); SAME(CK_SECCOMP_FLAG_TSYNC, SECCOMP_FILTER_FLAG_TSYNC);
SAME(CK_SECCOMP_FLAG_LOG, SECCOMP_FILTER_FLAG_LOG); SAME(CK_SECCOMP_FLAG_SPEC_ALLOW, SECCOMP_FILTER_FLAG_SPEC_ALLOW);
SAME(CK_SECCOMP_FLAG_NEW_LISTENER, SECCOMP_FILTER_FLAG_NEW_LISTENER);
SAME(CK_SECCOMP_FLAG_WAIT_KILLABLE_RECV, SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV);
SAME(CK_PROC_SUPER_MAGIC, PROC_SUPER_MAGIC); SAME(CK_CGROUP2_SUPER_MAGIC, CGROUP2_SUPER_MAGIC);
SAME(CK_TMPFS_MAGIC, TMPFS_MAGIC); SAME(CK_OVERLAYFS_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC);
SAME(CK_NSFS_MAGIC, NSFS_MAGIC);

long ck_openat2(int dirfd, const char *path, const struct ck_open_how *how) {
    return syscall(SYS_openat2, dirfd, path, how, sizeof *how);
}
long ck_pidfd_open(pid_t pid, unsigned int flags) { return syscall(SYS_pidfd_open, pid, flags); }
long ck_pidfd_getfd(int pidfd, int number) { return syscall(SYS_pidfd_getfd, pidfd, number, 0); }
long ck_seccomp(unsigned int operation, unsigned int flags, const void *argument) {
    return syscall(SYS_seccomp, operation, flags, argument);
}
long ck_pidfd_send_signal(int pidfd, int sig) { return syscall(SYS_pidfd_send_signal, pidfd, sig, NULL, 0); }
long ck_close_range(unsigned int first, unsigned int last, unsigned int flags) {
    return syscall(SYS_close_range, first, last, flags);
}
long ck_gettid(void) { return syscall(SYS_gettid); }
long ck_bpf(int cmd, union bpf_attr *attr, unsigned int size) { return syscall(SYS_bpf, cmd, attr, size); }
long ck_mount_setattr(int dirfd, const char *path, unsigned int flags,
                      uint64_t set, uint64_t clear, uint64_t propagation, int userns_fd) {
    struct mount_attr attr = {
        .attr_set = set, .attr_clr = clear, .propagation = propagation,
        .userns_fd = userns_fd < 0 ? 0 : (uint64_t)userns_fd,
    };
    return syscall(SYS_mount_setattr, dirfd, path, flags, &attr, sizeof attr);
}
long ck_open_tree(int dirfd, const char *path, unsigned int flags) { return syscall(SYS_open_tree, dirfd, path, flags); }
long ck_move_mount(int from_dirfd, const char *from, int to_dirfd, const char *to, unsigned int flags) {
    return syscall(SYS_move_mount, from_dirfd, from, to_dirfd, to, flags);
}
int ck_mount_id(int fd, uint64_t *id) {
    struct statx info = {0};
    if (statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &info) < 0) return -1;
    *id = info.stx_mnt_id;
    return 0;
}
long ck_fsopen(const char *fstype, unsigned int flags) { return syscall(SYS_fsopen, fstype, flags); }
long ck_fsconfig(int fd, unsigned int cmd, const char *key, const void *value, int aux) {
    return syscall(SYS_fsconfig, fd, cmd, key, value, aux);
}
long ck_fsmount(int fd, unsigned int flags, unsigned int attr) { return syscall(SYS_fsmount, fd, flags, attr); }
long ck_pivot_root(const char *new_root, const char *put_old) { return syscall(SYS_pivot_root, new_root, put_old); }
long ck_keyctl_join_session(const char *name) { return syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name); }
int ck_prctl(int option, unsigned long a2, unsigned long a3, unsigned long a4, unsigned long a5) {
    return prctl(option, a2, a3, a4, a5);
}
int ck_ioctl(int fd, unsigned long request, void *argument) { return ioctl(fd, request, argument); }
int ck_ioctl_value(int fd, unsigned long request, unsigned long argument) { return ioctl(fd, request, argument); }
int ck_fcntl(int fd, int command, int argument) { return fcntl(fd, command, argument); }
int ck_open(const char *path, int flags, mode_t mode) { return open(path, flags, mode); }
int ck_openat(int dirfd, const char *path, int flags, mode_t mode) { return openat(dirfd, path, flags, mode); }
int ck_renameat2(int olddir, const char *oldpath, int newdir, const char *newpath, unsigned int flags) {
    return renameat2(olddir, oldpath, newdir, newpath, flags);
}
int ck_waitid_pidfd(int pidfd, int options, int *code, int *status) {
    siginfo_t info = {0};
    if (waitid(P_PIDFD, (id_t)pidfd, &info, options) < 0) return -1;
    *code = info.si_pid == 0 ? 0 : info.si_code;
    *status = info.si_status;
    return 0;
}
unsigned int ck_major(uint64_t dev) { return major(dev); }
unsigned int ck_minor(uint64_t dev) { return minor(dev); }
uint64_t ck_makedev(unsigned int major, unsigned int minor) { return makedev(major, minor); }
