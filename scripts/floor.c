// Usage: floor ROOTFS PROGRAM NAME: the least that any runtime does for `run` of a container as `runc spec` describes it: the
// groups of cgroup v1 with their device rules, five namespaces, the standard mounts, nodes and masks, no capabilities, execve,
// and everything removed again. It checks nothing, reads no configuration and keeps no record: it is the floor that
// `make bench` compares the runtime with, not something to use. Its exit status is the program's.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define must(call) ({ long result_ = (call); if (result_ < 0) { perror(#call); _exit(125); } result_; })
#define COUNT(array) (sizeof array / sizeof *array)
static const char *const hierarchies[] = { "cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd" };
static char group[COUNT(hierarchies)][256];
static int tasks[COUNT(hierarchies)];

static void put(const char *directory, const char *file, const char *const *texts, int count)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", directory, file);
    int fd = must(open(path, O_WRONLY | O_CLOEXEC));
    for (int i = 0; i < count; i++) must(write(fd, texts[i], strlen(texts[i])));
    close(fd);
}

static void inherit(const char *directory, const char *file)
{
    char path[512], text[256];
    snprintf(path, sizeof path, "/sys/fs/cgroup/cpuset/%s", file);
    int fd = must(open(path, O_RDONLY | O_CLOEXEC));
    text[must(read(fd, text, sizeof text - 1))] = 0;
    close(fd);
    put(directory, file, (const char *const[]){ text }, 1);
}

static void make_groups(const char *name)
{
    static const char *const allowed[] = { "c *:* m", "b *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm",
                                           "c 1:9 rwm", "c 5:0 rwm", "c 5:2 rwm", "c 136:* rwm" };
    for (unsigned i = 0; i < COUNT(hierarchies); i++) {
        snprintf(group[i], sizeof group[i], "/sys/fs/cgroup/%s/%s", hierarchies[i], name);
        if (mkdir(group[i], 0755) < 0) {
            perror(group[i]);
            while (i-- > 0) rmdir(group[i]);
            exit(125);
        }
    }
    inherit(group[2], "cpuset.cpus");
    inherit(group[2], "cpuset.mems");
    put(group[4], "devices.deny", (const char *const[]){ "a" }, 1);
    put(group[4], "devices.allow", allowed, COUNT(allowed));
    for (unsigned i = 0; i < COUNT(hierarchies); i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/tasks", group[i]);
        tasks[i] = must(open(path, O_WRONLY | O_CLOEXEC));
    }
}

static int root;

static int place(const char *path)
{
    return must(openat(root, path + 1, O_PATH | O_CLOEXEC));
}

static void attach(int mount, int on)
{
    must(syscall(SYS_move_mount, mount, "", on, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH));
    close(on);
}

static int filesystem(const char *type, const char *const *options, unsigned attributes)
{
    int context = must(syscall(SYS_fsopen, type, FSOPEN_CLOEXEC));
    for (; options && *options; options += 2) must(syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, options[0], options[1], 0));
    must(syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
    int mount = must(syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, attributes));
    close(context);
    return mount;
}

static void add(const char *type, const char *path, const char *const *options, unsigned attributes)
{
    int mount = filesystem(type, options, attributes);
    attach(mount, place(path));
    close(mount);
}

static void copy(int from, const char *path, const char *to, int recursive, unsigned attributes)
{
    int target = openat(root, to + 1, O_PATH | O_CLOEXEC);
    if (target < 0) return;
    unsigned flags = recursive ? AT_RECURSIVE : 0;
    if (!path) from = target;
    int tree = must(syscall(SYS_open_tree, from, path ? path : "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | flags));
    struct mount_attr change = { .attr_set = attributes };
    if (attributes) must(syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH | flags, &change, sizeof change));
    attach(tree, target);
    close(tree);
}

static _Noreturn void become(const char *rootfs, char *program)
{
    static const char *const nodes[] = { "null", "zero", "full", "random", "urandom", "tty" };
    static const int numbers[][2] = { { 1, 3 }, { 1, 5 }, { 1, 7 }, { 1, 8 }, { 1, 9 }, { 5, 0 } };
    static const char *const links[][2] = { { "/proc/self/fd", "dev/fd" }, { "/proc/self/fd/0", "dev/stdin" },
        { "/proc/self/fd/1", "dev/stdout" }, { "/proc/self/fd/2", "dev/stderr" }, { "pts/ptmx", "dev/ptmx" } };
    const unsigned closed = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    for (unsigned i = 0; i < COUNT(tasks); i++) must(write(tasks[i], "0", 1));
    must(setsid());
    umask(0);
    must(sethostname("floor", 5));
    struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP };
    int control = must(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    must(ioctl(control, SIOCSIFFLAGS, &lo));
    close(control);
    must(mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL));
    root = must(syscall(SYS_open_tree, AT_FDCWD, rootfs, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE));
    must(syscall(SYS_move_mount, root, "", AT_FDCWD, rootfs, MOVE_MOUNT_F_EMPTY_PATH));

    add("proc", "/proc", NULL, 0);
    add("tmpfs", "/dev", (const char *const[]){ "mode", "755", "size", "65536k", NULL }, MOUNT_ATTR_NOSUID);
    must(mkdirat(root, "dev/pts", 0755));
    must(mkdirat(root, "dev/shm", 0755));
    must(mkdirat(root, "dev/mqueue", 0755));
    add("devpts", "/dev/pts", (const char *const[]){ "ptmxmode", "0666", "mode", "0620", "gid", "5", NULL }, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
    add("tmpfs", "/dev/shm", (const char *const[]){ "mode", "1777", "size", "65536k", NULL }, closed);
    add("mqueue", "/dev/mqueue", NULL, closed);
    add("sysfs", "/sys", NULL, closed | MOUNT_ATTR_RDONLY);
    add("tmpfs", "/sys/fs/cgroup", (const char *const[]){ "mode", "755", NULL }, closed);
    for (unsigned i = 0; i < COUNT(hierarchies); i++) {
        char path[256];
        snprintf(path, sizeof path, "/sys/fs/cgroup/%s", hierarchies[i]);
        must(mkdirat(root, path + 1, 0755));
        copy(AT_FDCWD, group[i], path, 0, closed | MOUNT_ATTR_RDONLY);
    }
    for (unsigned i = 0; i < COUNT(nodes); i++) {
        char path[64];
        snprintf(path, sizeof path, "dev/%s", nodes[i]);
        must(mknodat(root, path, S_IFCHR | 0666, makedev(numbers[i][0], numbers[i][1])));
    }
    for (unsigned i = 0; i < COUNT(links); i++) must(symlinkat(links[i][0], root, links[i][1]));

    int old = must(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
    must(fchdir(root));
    must(syscall(SYS_pivot_root, ".", "."));
    must(fchdir(old));
    must(mount(NULL, ".", NULL, MS_REC | MS_SLAVE, NULL));
    must(umount2(".", MNT_DETACH));
    must(chdir("/"));
    struct mount_attr read_only = { .attr_set = MOUNT_ATTR_RDONLY };
    must(syscall(SYS_mount_setattr, AT_FDCWD, "/sys/fs/cgroup", 0, &read_only, sizeof read_only));
    must(syscall(SYS_mount_setattr, AT_FDCWD, "/", 0, &read_only, sizeof read_only));
    int empty = filesystem("tmpfs", (const char *const[]){ "nr_blocks", "1", "nr_inodes", "1", NULL }, closed | MOUNT_ATTR_RDONLY);
    attach(empty, place("/proc/acpi"));
     copy(empty, "", "/sys/firmware", 0, 0);
    static const char *const files[] = { "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/sched_debug" };
    for (unsigned i = 0; i < COUNT(files); i++) copy(AT_FDCWD, "/dev/null", files[i], 0, 0);
    static const char *const fixed[] = { "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger" };
    for (unsigned i = 0; i < COUNT(fixed); i++) copy(-1, NULL, fixed[i], 1, MOUNT_ATTR_RDONLY);

    close_range(3, ~0U, 0);
    for (int i = 0; i < 64 && prctl(PR_CAPBSET_DROP, i, 0, 0, 0) == 0; i++) {}
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct none[2] = { 0 };
    must(syscall(SYS_capset, &header, none));
    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    execv(program, (char *[]){ program, NULL });
    perror(program);
    _exit(127);
}

int main(int argc, char **argv)
{
    if (argc != 4) return fputs("usage: floor ROOTFS PROGRAM NAME\n", stderr), 2;
    make_groups(argv[3]);
    struct clone_args args = {
        .flags = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET, .exit_signal = SIGCHLD };
    pid_t child = must(syscall(SYS_clone3, &args, sizeof args));
    if (child == 0) become(argv[1], argv[2]);
    int status;
    must(waitpid(child, &status, 0));
    for (unsigned i = 0; i < COUNT(group); i++) must(rmdir(group[i]));
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
