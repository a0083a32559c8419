// Two things that Swift's runtime does at every start, in the place of whose functions ours are linked. They take a small
// program a fourteenth of its start; a toolchain that has other such functions fails to link, or has them called by nobody.
#include "cstart.h"
#include <stddef.h>

// The runtime finds out where the arguments are by reading /proc/self/maps and searching the stack, so that a container's
// first process without a procfs would have none. glibc tells every constructor.
static char **vector;
static int count;

__attribute__((constructor)) static void remember(int argc, char **argv) {
    vector = argv;
    count = argc;
}

// SwiftShims/RuntimeShims.h
char **_swift_stdlib_getUnsafeArgvArgc(int *length) {
    static char *none[] = { NULL };
    *length = count;
    return vector ? vector : none;
}

void _swift_stdlib_overrideUnsafeArgvArgc(char **argv, int argc) {
    vector = argv;
    count = argc;
}

// The runtime looks for the program with which it would print a backtrace, in eight places around its own. None comes with
// ours, and a container runtime starts nothing that happens to lie beside it. swift/Runtime/Paths.h
char *swift_copyAuxiliaryExecutablePath(const char *name) {
    (void)name;
    return NULL;
}
