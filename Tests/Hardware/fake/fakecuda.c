// A libcuda.so.1 without a GPU, for tests of Tests/Hardware/gpu-check: its devices are the nodes /dev/nvidiaN whose open is not
// refused by a device rule, and their memory is the process's own. A GPU's uuid is made of its minor, as Tests/Hardware/fake/machine
// has it. Compiled with -DWRONG it computes one word wrongly.
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
enum { OK, INVALID = 1, NOT_INITIALIZED = 3, NO_DEVICE = 100, ILLEGAL_ADDRESS = 700, KERNELS = 2 };

static int minors[64], count = -1, faulted;
static int kernels[KERNELS];

EXPORT int cuInit(unsigned flags) {
    char path[32];
    if (flags) return INVALID;
    count = 0;
    for (int minor = 0; minor < 64; minor++) {
        snprintf(path, sizeof path, "/dev/nvidia%d", minor);
        int descriptor = open(path, O_RDWR | O_CLOEXEC);
        // ENXIO: the rules let it through, and no driver answers.
        if (descriptor < 0 && errno != ENXIO) continue;
        if (descriptor >= 0) close(descriptor);
        minors[count++] = minor;
    }
    return count ? OK : NO_DEVICE;
}
EXPORT int cuDriverGetVersion(int *version) { *version = 13000; return OK; }
EXPORT int cuDeviceGetCount(int *number) { *number = count; return count < 0 ? NOT_INITIALIZED : OK; }
EXPORT int cuDeviceGet(int *device, int index) { *device = index; return index >= 0 && index < count ? OK : INVALID; }
EXPORT int cuDeviceGetName(char *name, int size, int device) { (void)device; snprintf(name, (size_t)size, "NVIDIA H200"); return OK; }
EXPORT int cuDeviceGetUuid(unsigned char *uuid, int device) {
    memset(uuid, 0x11, 16);
    uuid[0] = (unsigned char)(minors[device] << 4 | 1);
    return OK;
}
EXPORT int cuDeviceTotalMem_v2(size_t *size, int device) { (void)device; *size = 143000ull << 20; return OK; }
EXPORT int cuDevicePrimaryCtxRetain(void **context, int device) { (void)device; *context = kernels; return OK; }
EXPORT int cuCtxSetCurrent(void *context) { return context ? OK : INVALID; }
EXPORT int cuCtxSynchronize(void) { return faulted ? ILLEGAL_ADDRESS : OK; }
EXPORT int cuMemAlloc_v2(uint64_t *address, size_t size) { *address = (uint64_t)(uintptr_t)malloc(size); return *address ? OK : 2; }
EXPORT int cuMemFree_v2(uint64_t address) { free((void *)(uintptr_t)address); return OK; }
EXPORT int cuMemcpyHtoD_v2(uint64_t to, const void *from, size_t size) { memcpy((void *)(uintptr_t)to, from, size); return OK; }
EXPORT int cuMemcpyDtoH_v2(void *to, uint64_t from, size_t size) { memcpy(to, (void *)(uintptr_t)from, size); return OK; }
EXPORT int cuModuleLoadData(void **module, const void *image) { *module = kernels; return strstr(image, ".entry mix") ? OK : INVALID; }
EXPORT int cuModuleGetFunction(void **function, void *module, const char *name) {
    (void)module;
    *function = &kernels[!strcmp(name, "fault")];
    return OK;
}
EXPORT int cuLaunchKernel(void *function, unsigned x, unsigned y, unsigned z, unsigned a, unsigned b, unsigned c, unsigned shared,
                          void *stream, void **arguments, void **extra) {
    (void)x, (void)y, (void)z, (void)a, (void)b, (void)c, (void)shared, (void)stream, (void)extra;
    if (function == &kernels[1]) { faulted = 1; return OK; }
    uint32_t *words = *(uint32_t **)arguments[0];
    uint64_t number = *(uint64_t *)arguments[1];
    for (uint64_t i = 0; i < number; i++) words[i] = words[i] * 1664525u + 1013904223u;
#ifdef WRONG
    words[number / 2]++;
#endif
    return OK;
}
EXPORT int cuGetErrorName(int code, const char **name) {
    *name = code == NO_DEVICE ? "CUDA_ERROR_NO_DEVICE" : code == ILLEGAL_ADDRESS ? "CUDA_ERROR_ILLEGAL_ADDRESS" : "CUDA_ERROR_UNKNOWN";
    return OK;
}
