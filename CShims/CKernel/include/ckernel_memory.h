// glibc's allocator settings, which Swift's Glibc module lacks: mallopt(3) and its parameters.
#ifndef MARTLET_CKERNEL_MEMORY_H
#define MARTLET_CKERNEL_MEMORY_H

#include <malloc.h>

#endif
