// A program of CUDA's driver API that is compiled without any of CUDA: it opens libcuda.so.1 as programs do and says in lines
// of words what it found. Tests/Hardware/gpu-check runs it inside and outside of grants.
//
//   cudacheck once MEBIBYTES        computes once in so much of the GPU's memory and compares each word
//   cudacheck loop SECONDS NODE LAUNCHES
//                                   does it for so long with 64 MiB and so many kernels a round, with a line each half a second
//                                   that says how an open of NODE ends now
//   cudacheck fault                 lets a kernel write where nothing is, which is a fault of the program and none of the GPU
//   cudacheck open NODE             how an open of NODE ends: ok, or the error's name
//
// Each line is `KEY=VALUE` words; a text that is no word is the last of its line. Exit status: 0, 1 when something is wrong
// (`error=…`), 2 for a command line that is none.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef uint64_t address;
enum { CHUNK = 16 << 20, CHUNK_WORDS = CHUNK / 4, FACTOR = 1664525, TERM = 1013904223 };

// The names are those of the library; a `_v2` is what its header makes of the plain name.
static struct {
    int (*cuInit)(unsigned);
    int (*cuDriverGetVersion)(int *);
    int (*cuDeviceGetCount)(int *);
    int (*cuDeviceGet)(int *, int);
    int (*cuDeviceGetName)(char *, int, int);
    int (*cuDeviceGetUuid)(unsigned char *, int);
    int (*cuDeviceTotalMem_v2)(size_t *, int);
    int (*cuDevicePrimaryCtxRetain)(void **, int);
    int (*cuCtxSetCurrent)(void *);
    int (*cuCtxSynchronize)(void);
    int (*cuMemAlloc_v2)(address *, size_t);
    int (*cuMemFree_v2)(address);
    int (*cuMemcpyHtoD_v2)(address, const void *, size_t);
    int (*cuMemcpyDtoH_v2)(void *, address, size_t);
    int (*cuModuleLoadData)(void **, const void *);
    int (*cuModuleGetFunction)(void **, void *, const char *);
    int (*cuLaunchKernel)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **, void **);
    int (*cuGetErrorName)(int, const char **);
} cuda;

// Each word becomes word * FACTOR + TERM; a further kernel writes to an address at which nothing is. PTX of a version that
// every driver since 2019 compiles for its GPU.
static const char kernels[] =
    ".version 6.4\n.target sm_75\n.address_size 64\n"
    ".visible .entry mix(.param .u64 data, .param .u64 words) {\n"
    "  .reg .pred %p<2>; .reg .b32 %r<6>; .reg .b64 %d<7>;\n"
    "  ld.param.u64 %d1, [data];\n"
    "  ld.param.u64 %d2, [words];\n"
    "  cvta.to.global.u64 %d1, %d1;\n"
    "  mov.u32 %r1, %ctaid.x;\n"
    "  mov.u32 %r2, %ntid.x;\n"
    "  mov.u32 %r3, %tid.x;\n"
    "  mov.u32 %r4, %nctaid.x;\n"
    "  cvt.u64.u32 %d3, %r3;\n"
    "  mad.wide.u32 %d3, %r1, %r2, %d3;\n"
    "  mul.wide.u32 %d4, %r4, %r2;\n"
    "NEXT:\n"
    "  setp.ge.u64 %p1, %d3, %d2;\n"
    "  @%p1 bra DONE;\n"
    "  shl.b64 %d5, %d3, 2;\n"
    "  add.u64 %d5, %d1, %d5;\n"
    "  ld.global.u32 %r5, [%d5];\n"
    "  mul.lo.u32 %r5, %r5, 1664525;\n"
    "  add.u32 %r5, %r5, 1013904223;\n"
    "  st.global.u32 [%d5], %r5;\n"
    "  add.u64 %d3, %d3, %d4;\n"
    "  bra NEXT;\n"
    "DONE:\n"
    "  ret;\n"
    "}\n"
    ".visible .entry fault() {\n"
    "  .reg .b32 %r<2>; .reg .b64 %d<2>;\n"
    "  mov.u64 %d1, 16;\n"
    "  mov.u32 %r1, 1;\n"
    "  st.global.u32 [%d1], %r1;\n"
    "  ret;\n"
    "}\n";

static _Noreturn void fail(const char *what, const char *why) {
    printf("error=%s: %s\n", what, why);
    exit(1);
}

static const char *error_name(int code) {
    static char number[32];
    const char *name = NULL;
    snprintf(number, sizeof number, "error %d", code);
    return cuda.cuGetErrorName && !cuda.cuGetErrorName(code, &name) && name ? name : number;
}

#define CALL(function, ...) do { int code_ = cuda.function(__VA_ARGS__); if (code_) fail(#function, error_name(code_)); } while (0)

static void open_library(void) {
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    if (!library) fail("dlopen", dlerror());
#define FIND(name) do { *(void **)&cuda.name = dlsym(library, #name); if (!cuda.name) fail(#name, "the library has no such function"); } while (0)
    FIND(cuInit); FIND(cuDriverGetVersion); FIND(cuDeviceGetCount); FIND(cuDeviceGet); FIND(cuDeviceGetName);
    FIND(cuDeviceGetUuid); FIND(cuDeviceTotalMem_v2); FIND(cuDevicePrimaryCtxRetain); FIND(cuCtxSetCurrent);
    FIND(cuCtxSynchronize); FIND(cuMemAlloc_v2); FIND(cuMemFree_v2); FIND(cuMemcpyHtoD_v2); FIND(cuMemcpyDtoH_v2);
    FIND(cuModuleLoadData); FIND(cuModuleGetFunction); FIND(cuLaunchKernel); FIND(cuGetErrorName);
}

// The first device, current, with the module of the kernels loaded.
static void *begin(void) {
    int device, count = 0, version = 0;
    unsigned char id[16];
    char name[128] = "", uuid[48] = "GPU-", *end = uuid + 4;
    size_t total = 0;
    void *context, *module;
    open_library();
    CALL(cuInit, 0);
    CALL(cuDriverGetVersion, &version);
    CALL(cuDeviceGetCount, &count);
    if (!count) fail("cuDeviceGetCount", "there is no device");
    CALL(cuDeviceGet, &device, 0);
    CALL(cuDeviceGetName, name, sizeof name, device);
    CALL(cuDeviceGetUuid, id, device);
    CALL(cuDeviceTotalMem_v2, &total, device);
    for (int i = 0; i < 16; i++) end += sprintf(end, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", id[i]);
    printf("devices=%d cuda=%d.%d uuid=%s mebibytes=%zu name=%s\n", count, version / 1000, version % 1000 / 10, uuid, total >> 20, name);
    fflush(stdout);
    CALL(cuDevicePrimaryCtxRetain, &context, device);
    CALL(cuCtxSetCurrent, context);
    CALL(cuModuleLoadData, &module, kernels);
    return module;
}

static uint32_t chunk_seed(uint64_t round, uint64_t chunk) { return (uint32_t)(round * 2654435761u + chunk * 40503u + 12345u); }

static void fill(uint32_t *words, uint32_t seed) {
    for (int i = 0; i < CHUNK_WORDS; i++) words[i] = seed += 2654435769u;
}

// One round over all chunks: how many words are not as they should be. The sum is of what the GPU computed.
static uint64_t compute(void *kernel, int launches, address memory, uint64_t chunks, uint64_t round, uint32_t *sum) {
    static uint32_t *words;
    uint64_t wrong = 0, count = chunks * CHUNK_WORDS;
    uint32_t factor = 1, term = 0;
    void *arguments[] = { &memory, &count };
    if (!words && !(words = malloc(CHUNK))) fail("malloc", strerror(errno));
    for (uint64_t i = 0; i < chunks; i++) {
        fill(words, chunk_seed(round, i));
        CALL(cuMemcpyHtoD_v2, memory + i * CHUNK, words, CHUNK);
    }
    for (int i = 0; i < launches; i++) {
        CALL(cuLaunchKernel, kernel, 512, 1, 1, 256, 1, 1, 0, NULL, arguments, NULL);
        factor *= FACTOR, term = term * FACTOR + TERM;
    }
    CALL(cuCtxSynchronize);
    for (uint64_t i = 0; i < chunks; i++) {
        uint32_t seed = chunk_seed(round, i);
        CALL(cuMemcpyDtoH_v2, words, memory + i * CHUNK, CHUNK);
        for (int k = 0; k < CHUNK_WORDS; k++) {
            seed += 2654435769u;
            if (words[k] != seed * factor + term) wrong++;
            *sum += words[k];
        }
    }
    return wrong;
}

static const char *open_result(const char *node) {
    int descriptor = open(node, O_RDWR | O_CLOEXEC);
    if (descriptor < 0) return strerrorname_np(errno);
    close(descriptor);
    return "ok";
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int run(uint64_t chunks, double seconds, const char *node, int launches) {
    void *kernel, *module = begin();
    address memory;
    uint64_t wrong = 0, rounds = 0;
    uint32_t sum = 0;
    double start = now(), told = start;
    CALL(cuModuleGetFunction, &kernel, module, "mix");
    CALL(cuMemAlloc_v2, &memory, chunks * CHUNK);
    do {
        wrong += compute(kernel, launches, memory, chunks, rounds++, &sum);
        if (node && (rounds == 1 || now() - told >= 0.5)) {
            told = now();
            printf("rounds=%llu wrong=%llu open=%s\n", (unsigned long long)rounds, (unsigned long long)wrong, open_result(node));
            fflush(stdout);
        }
    } while (now() - start < seconds);
    CALL(cuMemFree_v2, memory);
    printf("rounds=%llu words=%llu wrong=%llu sum=%08x seconds=%.2f\n", (unsigned long long)rounds,
           (unsigned long long)(rounds * chunks * CHUNK_WORDS), (unsigned long long)wrong, sum, now() - start);
    return wrong ? 1 : 0;
}

static int fault(void) {
    void *kernel, *module = begin();
    CALL(cuModuleGetFunction, &kernel, module, "fault");
    CALL(cuLaunchKernel, kernel, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL);
    int code = cuda.cuCtxSynchronize();
    printf("fault=%s\n", code ? error_name(code) : "none");
    return code ? 0 : 1;
}

int main(int count, char **words) {
    if (count == 3 && !strcmp(words[1], "once")) {
        long mebibytes = strtol(words[2], NULL, 10);
        if (mebibytes >= 16 && mebibytes <= 65536) return run((uint64_t)mebibytes / 16, 0, NULL, 1);
    }
    if (count == 5 && !strcmp(words[1], "loop")) {
        long seconds = strtol(words[2], NULL, 10), launches = strtol(words[4], NULL, 10);
        if (seconds >= 1 && seconds <= 3600 && launches >= 1 && launches <= 100000)
            return run(4, (double)seconds, words[3], (int)launches);
    }
    if (count == 2 && !strcmp(words[1], "fault")) return fault();
    if (count == 3 && !strcmp(words[1], "open")) {
        printf("open=%s\n", open_result(words[2]));
        return 0;
    }
    fprintf(stderr, "usage: cudacheck once MEBIBYTES | loop SECONDS NODE LAUNCHES | fault | open NODE\n");
    return 2;
}
