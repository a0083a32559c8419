// Lets the runtime run from a read-only mount clone of its own file, for the verbs whose processes come near a container.
// It does so at the program's entry, before glibc starts: nothing is written to the program's memory yet, so that its pages
// can be exchanged for those of the clone; and where that is not allowed, a second execution costs no second start of glibc,
// which asks the processor for its features and thereby traps in a virtual machine. SelfProtection.swift does the latter,
// has the other fallbacks and is what makes sure of it; this only saves it from doing it.
//
// Nothing of the C library may be called here, neither by the compiler: its functions are not relocated yet.
#include <asm/unistd.h>
#include <elf.h>
#include <fcntl.h>
#include <linux/mman.h>
#include <linux/mount.h>
#include <sys/prctl.h>
#include <sys/vfs.h>
#include <unistd.h>

#ifdef __x86_64__

// The clone of the mount that the program is on: written at the entry once the pages are those of the program to run.
static int program_mount = -1;

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

__attribute__((always_inline, no_stack_protector)) static inline long call6(
    long number, long a, long b, long c, long d, long e, long f)
{
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

__attribute__((always_inline, no_stack_protector)) static inline long call(long number, long a, long b, long c, long d, long e)
{
    return call6(number, a, b, c, d, e, 0);
}

__attribute__((always_inline, no_stack_protector)) static inline int same(const char *a, const char *b)
{
    while (*a && *a == *b) a++, b++;
    return *a == *b;
}

// Opens what descriptor `file` is a path to, for reading; a negative errno when that fails.
__attribute__((no_stack_protector)) static long reopen(long file)
{
    char path[] = "/proc/self/fd/\0\0\0\0\0\0\0\0\0\0";
    int length = sizeof "/proc/self/fd/" - 1;
    long unit = 1;
    while (file / unit >= 10) unit *= 10;
    for (; unit; unit /= 10) path[length++] = (char)('0' + file / unit % 10);
    return call(__NR_openat, AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC, 0, 0);
}

__attribute__((no_stack_protector)) static unsigned long end_of(const char *text)
{
    // Opaque to the compiler, which would call strlen(3) else.
    while (*text++) __asm__ volatile("" : "+r"(text));
    return (unsigned long)text;
}

// Maps the program anew from `file`, page for page what the kernel mapped from the same program (elf(5), PT_LOAD), and
// makes `file` what /proc/<pid>/exe leads to, PR_SET_MM_MAP of prctl(2): the kernel refuses that while anything is mapped
// from the old one. It needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN in the user namespace, and a kernel made for
// checkpoints. The other fields of the request are what the kernel has set itself (exec_binprm, load_elf_binary).
__attribute__((no_stack_protector)) static long exchange(long file, const long *stack)
{
    char **argv = (char **)(stack + 1), **environment = argv + stack[0] + 1, **last = environment;
    while (*last) last++;
    const Elf64_Phdr *header = 0;
    long count = 0;
    for (const long *auxiliary = (long *)(last + 1); auxiliary[0] != AT_NULL; auxiliary += 2) {
        if (auxiliary[0] == AT_PHDR) header = (const Elf64_Phdr *)auxiliary[1];
        if (auxiliary[0] == AT_PHNUM) count = auxiliary[1];
    }
    const unsigned long brk = (unsigned long)call(__NR_brk, 0, 0, 0, 0, 0), arguments_end = end_of(argv[stack[0] - 1]);
    struct prctl_mm_map map = {
        .start_code = -1UL,
        .start_brk = brk,
        .brk = brk,
        .start_stack = (unsigned long)stack,
        .arg_start = (unsigned long)argv[0],
        .arg_end = arguments_end,
        .env_start = arguments_end,
        .env_end = last == environment ? arguments_end : end_of(last[-1]),
        .exe_fd = (unsigned)file,
    };
    const unsigned long page = 4096;
    for (long i = 0; i < count; i++) {
        const Elf64_Phdr *part = &header[i];
        // A program that may be at any address would have to be looked for; ours is linked to one.
        if (part->p_type == PT_PHDR && part->p_vaddr != (Elf64_Addr)header) return -1;
        if (part->p_type != PT_LOAD || !part->p_filesz) continue;
        const unsigned long begin = part->p_vaddr, before = begin & (page - 1), end = begin + part->p_filesz;
        const long protection = (part->p_flags & PF_R ? PROT_READ : 0) | (part->p_flags & PF_W ? PROT_WRITE : 0) |
                                (part->p_flags & PF_X ? PROT_EXEC : 0);
        const int zeros = part->p_memsz > part->p_filesz && part->p_flags & PF_W;
        if (part->p_flags & PF_X) {
            if (begin < map.start_code) map.start_code = begin;
            if (end > map.end_code) map.end_code = end;
        }
        if (begin > map.start_data) map.start_data = begin;
        if (end > map.end_data) map.end_data = end;
        const long place = call6(
            __NR_mmap, (long)(begin - before), (long)(end - begin + before), protection, MAP_PRIVATE | MAP_FIXED, file,
            (long)(part->p_offset - before));
        if (place < 0) return place;
        // What follows the data in its last page begins as zeros, not as what follows it in the file.
        if (zeros) {
            void *from = (void *)end;
            unsigned long left = -end & (page - 1);
            __asm__ volatile("rep stosb" : "+D"(from), "+c"(left) : "a"(0) : "memory");
        }
    }
    return call(__NR_prctl, PR_SET_MM, PR_SET_MM_MAP, (long)&map, sizeof map, 0);
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
    if (call(__NR_mount_setattr, file, (long)"", empty, (long)&read_only, sizeof read_only) == 0) {
        long program = reopen(file);
        long done = program < 0 ? program : exchange(program, stack);
        if (program >= 0) call(__NR_close, program, 0, 0, 0, 0);
        if (done < 0) call(__NR_execveat, file, (long)"", (long)argv, (long)(argv + argc + 1), empty);
        // What the caller has closed of 0, 1 and 2 stays closed.
        else if (file > 2) {
            program_mount = (int)file;
            return;
        }
    }
    call(__NR_close, file, 0, 0, 0, 0);
}

void cp_unmount_program(void)
{
    if (program_mount >= 0) close(program_mount);
    program_mount = -1;
}

#elif defined(__aarch64__)

void cp_unmount_program(void) {}

// SelfProtection.swift does it alone.
__asm__(
    ".globl martlet_runtime_start\n"
    ".type martlet_runtime_start, %function\n"
    "martlet_runtime_start:\n"
    "    b _start\n");

#endif
