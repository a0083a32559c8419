// Executes the runtime again from a read-only mount clone of its own file before Swift's runtime starts, for the verbs whose
// processes come near a container. SelfProtection.swift does the same, has the fallbacks and is what makes sure of it; this
// only saves it from doing it, which costs a whole start of the program twice.
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/mount.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <sys/syscall.h>
#include <unistd.h>

/// glibc hands main's arguments to constructors, in static programs too.
__attribute__((constructor(101))) static void protect_early(int argc, char **argv, char **envp)
{
    // `init`: in the container, as its first process.
    if (argc < 2 || strcmp(argv[1], "init") == 0) return;
    int near = 0;
    for (int i = 1; i < argc && !near; i++)
        near = strcmp(argv[i], "create") == 0 || strcmp(argv[i], "run") == 0 || strcmp(argv[i], "exec") == 0;
    struct statfs info;
    if (!near || statfs("/proc/self/exe", &info) < 0 || info.f_flags & ST_RDONLY) return;
    int file = (int)syscall(SYS_open_tree, AT_FDCWD, "/proc/self/exe", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (file < 0) return;
    struct mount_attr read_only = { .attr_set = MOUNT_ATTR_RDONLY };
    if (syscall(SYS_mount_setattr, file, "", AT_EMPTY_PATH, &read_only, sizeof read_only) == 0)
        syscall(SYS_execveat, file, "", argv, envp, AT_EMPTY_PATH);
    close(file);
}
