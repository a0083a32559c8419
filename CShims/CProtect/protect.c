// Executes the runtime again from a read-only mount clone of its own file, for the verbs whose processes come near a
// container. It does so at the program's entry, before glibc starts: a start of glibc asks the processor for its features,
// which traps in a virtual machine and takes longer than all that is here. SelfProtection.swift does the same, has the
// fallbacks and is what makes sure of it; this only saves it from doing it.
//
// Nothing of the C library may be called here, neither by the compiler: its functions are not relocated yet.
#include <asm/unistd.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <sys/vfs.h>

#ifdef __x86_64__

/// The entry of martlet-runtime, as the linker is told in Package.swift. The stack is argc, the arguments, NULL, the
/// environment, NULL and the auxiliary vector (System V ABI, AMD64 supplement, 3.4.1); %rdx belongs to _start.
__asm__(
    ".globl martlet_runtime_start\n"
    ".type martlet_runtime_start, @function\n"
    "martlet_runtime_start:\n"
    "    xor %ebp, %ebp\n"
    "    mov %rsp, %rbx\n"
    "    mov %rdx, %r12\n"
    "    mov %rsp, %rdi\n"
    "    and $-16, %rsp\n"
    "    call martlet_runtime_protect\n"
    "    mov %r12, %rdx\n"
    "    mov %rbx, %rsp\n"
    "    jmp _start\n");

__attribute__((always_inline, no_stack_protector)) static inline long call(long number, long a, long b, long c, long d, long e)
{
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
    return result;
}

__attribute__((always_inline, no_stack_protector)) static inline int same(const char *a, const char *b)
{
    while (*a && *a == *b) a++, b++;
    return *a == *b;
}

__attribute__((used, visibility("hidden"), no_stack_protector)) void martlet_runtime_protect(long *stack)
{
    long argc = stack[0];
    char **argv = (char **)(stack + 1);
    // `init`: in the container, as its first process.
    if (argc < 2 || same(argv[1], "init")) return;
    int near = 0;
    for (long i = 1; i < argc && !near; i++) near = same(argv[i], "create") || same(argv[i], "run") || same(argv[i], "exec");
    struct statfs info;
    static const char path[] = "/proc/self/exe";
    // ST_RDONLY
    if (!near || call(__NR_statfs, (long)path, (long)&info, 0, 0, 0) < 0 || info.f_flags & 1) return;
    long file = call(__NR_open_tree, AT_FDCWD, (long)path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC, 0, 0);
    if (file < 0) return;
    static const struct mount_attr read_only = { .attr_set = MOUNT_ATTR_RDONLY };
    const long empty = 0x1000; // AT_EMPTY_PATH
    if (call(__NR_mount_setattr, file, (long)"", empty, (long)&read_only, sizeof read_only) == 0)
        call(__NR_execveat, file, (long)"", (long)argv, (long)(argv + argc + 1), empty);
    call(__NR_close, file, 0, 0, 0, 0);
}

#elif defined(__aarch64__)

// SelfProtection.swift does it alone.
__asm__(
    ".globl martlet_runtime_start\n"
    ".type martlet_runtime_start, %function\n"
    "martlet_runtime_start:\n"
    "    b _start\n");

#endif
