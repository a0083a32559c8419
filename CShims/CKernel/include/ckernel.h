// What Swift's Glibc module lacks: declarations, constants and wrappers of variadic calls. No logic.
// No feature macro is defined here: a header with _GNU_SOURCE breaks clean SwiftPM builds, so GNU
// functions are declared by hand and constants are checked in ckernel.c.
#ifndef MARTLET_CKERNEL_H
#define MARTLET_CKERNEL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <sys/signalfd.h>
#include <sys/inotify.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <linux/bpf.h>

// glibc functions behind _GNU_SOURCE.
extern int unshare(int flags);
extern int setns(int fd, int nstype);
extern int dup3(int oldfd, int newfd, int flags);
extern int pipe2(int pipefd[2], int flags);
extern int memfd_create(const char *name, unsigned int flags);
extern int accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags);
extern ssize_t splice(int in, int64_t *inoff, int out, int64_t *outoff, size_t len, unsigned int flags);
extern ssize_t copy_file_range(int in, int64_t *inoff, int out, int64_t *outoff, size_t len, unsigned int flags);
extern int syncfs(int fd);
extern int setresuid(uid_t r, uid_t e, uid_t s);
extern int setresgid(gid_t r, gid_t e, gid_t s);
extern int fallocate(int fd, int mode, off_t offset, off_t len);

// System calls without a glibc wrapper, and variadic functions.
struct ck_open_how { uint64_t flags, mode, resolve; };
long ck_openat2(int dirfd, const char *path, const struct ck_open_how *how);
long ck_pidfd_open(pid_t pid, unsigned int flags);
long ck_pidfd_send_signal(int pidfd, int sig);
long ck_pidfd_getfd(int pidfd, int number);
long ck_seccomp(unsigned int operation, unsigned int flags, const void *argument);
long ck_close_range(unsigned int first, unsigned int last, unsigned int flags);
long ck_gettid(void);
long ck_bpf(int cmd, union bpf_attr *attr, unsigned int size);
long ck_mount_setattr(int dirfd, const char *path, unsigned int flags,
                      uint64_t set, uint64_t clear, uint64_t propagation, int userns_fd);
long ck_open_tree(int dirfd, const char *path, unsigned int flags);
long ck_move_mount(int from_dirfd, const char *from, int to_dirfd, const char *to, unsigned int flags);
// STATX_MNT_ID of an open file: the mount that it was found in.
int ck_mount_id(int fd, uint64_t *id);
long ck_fsopen(const char *fstype, unsigned int flags);
long ck_fsconfig(int fd, unsigned int cmd, const char *key, const void *value, int aux);
long ck_fsmount(int fd, unsigned int flags, unsigned int attr);
long ck_pivot_root(const char *new_root, const char *put_old);
long ck_keyctl_join_session(const char *name);
int ck_prctl(int option, unsigned long a2, unsigned long a3, unsigned long a4, unsigned long a5);
int ck_ioctl(int fd, unsigned long request, void *argument);
int ck_ioctl_value(int fd, unsigned long request, unsigned long argument);
int ck_fcntl(int fd, int command, int argument);
int ck_open(const char *path, int flags, mode_t mode);
int ck_openat(int dirfd, const char *path, int flags, mode_t mode);
int ck_renameat2(int olddir, const char *oldpath, int newdir, const char *newpath, unsigned int flags);
// waitid(P_PIDFD) without the siginfo union: fills code (CLD_*) and status; 0 in *code when nothing was ready.
int ck_waitid_pidfd(int pidfd, int options, int *code, int *status);
unsigned int ck_major(uint64_t dev);
unsigned int ck_minor(uint64_t dev);
uint64_t ck_makedev(unsigned int major, unsigned int minor);

// Constants; every value is checked against the system headers in ckernel.c.
enum {
    CK_O_PATH = 010000000, CK_O_TMPFILE = 020200000, CK_AT_EMPTY_PATH = 0x1000,
    CK_AT_RECURSIVE = 0x8000, CK_AT_SYMLINK_NOFOLLOW = 0x100,
    CK_RESOLVE_NO_XDEV = 1, CK_RESOLVE_NO_MAGICLINKS = 2, CK_RESOLVE_NO_SYMLINKS = 4,
    CK_RESOLVE_BENEATH = 8, CK_RESOLVE_IN_ROOT = 16,
    CK_CLONE_NEWTIME = 0x80, CK_CLONE_NEWNS = 0x20000, CK_CLONE_NEWCGROUP = 0x2000000,
    CK_CLONE_NEWUTS = 0x4000000, CK_CLONE_NEWIPC = 0x8000000, CK_CLONE_NEWUSER = 0x10000000,
    CK_CLONE_NEWPID = 0x20000000, CK_CLONE_NEWNET = 0x40000000,
    CK_OPEN_TREE_CLONE = 1, CK_OPEN_TREE_CLOEXEC = 02000000,
    CK_MOVE_MOUNT_F_EMPTY_PATH = 4, CK_MOVE_MOUNT_T_EMPTY_PATH = 0x40,
    CK_FSOPEN_CLOEXEC = 1, CK_FSMOUNT_CLOEXEC = 1,
    CK_FSCONFIG_SET_FLAG = 0, CK_FSCONFIG_SET_STRING = 1, CK_FSCONFIG_SET_FD = 5, CK_FSCONFIG_CMD_CREATE = 6,
    CK_MOUNT_ATTR_RDONLY = 1, CK_MOUNT_ATTR_NOSUID = 2, CK_MOUNT_ATTR_NODEV = 4, CK_MOUNT_ATTR_NOEXEC = 8,
    CK_MOUNT_ATTR_NOATIME = 0x10, CK_MOUNT_ATTR_STRICTATIME = 0x20, CK_MOUNT_ATTR_NODIRATIME = 0x80,
    CK_MOUNT_ATTR_IDMAP = 0x100000, CK_MOUNT_ATTR_NOSYMFOLLOW = 0x200000, CK_MOUNT_ATTR_ATIME = 0x70,
    CK_CLOSE_RANGE_CLOEXEC = 4, CK_P_PIDFD = 3, CK_RENAME_NOREPLACE = 1, CK_RENAME_EXCHANGE = 2,
    CK_SECCOMP_SET_MODE_FILTER = 1, CK_SECCOMP_FLAG_TSYNC = 1, CK_SECCOMP_FLAG_LOG = 2,
    CK_SECCOMP_FLAG_SPEC_ALLOW = 4, CK_SECCOMP_FLAG_NEW_LISTENER = 8, CK_SECCOMP_FLAG_WAIT_KILLABLE_RECV = 32,
    CK_PROC_SUPER_MAGIC = 0x9fa0, CK_CGROUP2_SUPER_MAGIC = 0x63677270, CK_TMPFS_MAGIC = 0x01021994,
    CK_OVERLAYFS_SUPER_MAGIC = 0x794c7630, CK_NSFS_MAGIC = 0x6e736673,
};

#endif
