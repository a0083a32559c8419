// A libnvidia-ml.so.1 without a GPU: it answers as the text file says that the environment's FAKE_NVML names, or the file
// `fixture` in the folder above its own. Without one it has no GPUs. The file is read once, at the first nvmlInit; a line it does not understand ends the process.
//
//   driver VERSION | library VERSION | cuda NUMBER      e.g. cuda 12040
//   gpu UUID [minor=N] [pci=DOMAIN:BUS:DEVICE] [name=A_NAME] [memory=MiB] [used=MiB] [reserved=MiB] [cc=9.0] [numa=N]
//       [mig=0|1] [celsius=N] [milliwatts=N] [utilization=N] [corrected=N] [uncorrected=N] [remap=PENDING,FAILED]
//       [pages=0|1] [slowdown=BITS]                      (all on one line; `_` in a name stands for a blank)
//   mig GPU PLACE UUID GI CI [memory=MiB] [sm=N] [slices=N] [name=A_NAME]
//   link GPU NUMBER gpu|switch|npu DOMAIN:BUS:DEVICE
//   ancestor GPU GPU LEVEL                               nvmlGpuTopologyLevel_t
//   process GPU PID MiB
//   error FUNCTION CODE [GPU]                            FUNCTION fails, for this GPU or for all
//   hang FUNCTION | crash FUNCTION | slow FUNCTION MILLISECONDS
//   fifo PATH                                            nvmlEventSetWait reads `GPU TYPE DATA [GI CI]` or `error CODE`
//
// Compiled with -DOLD_SYMBOLS it has the first names of its functions only, with -DFEW_SYMBOLS the least that can be used,
// with -DNO_SYMBOLS none.
#define _GNU_SOURCE
#include "cnvml.h"
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { GPUS = 80, INSTANCES = 16, RULES = 64, PROCESSES = 600, NOTHING = -1 };

struct cn_device_object {
    int index, parent, place;  // parent is NOTHING for a GPU
    char uuid[CN_TEXT_SIZE], name[CN_TEXT_SIZE];
    unsigned minor, domain, bus, device, gi, ci, sm, slices;
    unsigned long long memory, used, reserved, corrected, uncorrected, slowdown;
    int cc_major, cc_minor, numa, mig, celsius, utilization, milliwatts, remap_pending, remap_failed, pages;
    struct { int active, type; unsigned domain, bus, device; } links[CN_NVLINK_LIMIT];
};

static struct cn_device_object gpus[GPUS], instances[GPUS][INSTANCES];
static unsigned ancestors[GPUS][GPUS];
static struct { int gpu; unsigned pid; unsigned long long bytes; } processes[PROCESSES];
static int gpu_count, process_count, rule_count, cuda = 12040, initialised, fifo = -1;
static char driver[CN_TEXT_SIZE] = "550.54.15", library[CN_TEXT_SIZE] = "12.550.54.15";
static struct { char function[64]; enum { FAIL, HANG, CRASH, SLOW } what; int number, gpu; } rules[RULES];

static _Noreturn void refuse(const char *line) {
    fprintf(stderr, "fake NVML: cannot understand: %s\n", line);
    _exit(3);
}

static void blanks(char *text) { for (; *text; text++) if (*text == '_') *text = ' '; }

static void read_options(struct cn_device_object *device, char *words, const char *line) {
    for (char *word = strtok(words, " "); word; word = strtok(NULL, " ")) {
        unsigned long long number = 0;
        char *value = strchr(word, '=');
        if (!value) refuse(line);
        *value++ = 0;
        number = strtoull(value, NULL, 0);
#define IS(key) (!strcmp(word, key))
        if (IS("minor")) device->minor = (unsigned)number;
        else if (IS("memory")) device->memory = number << 20;
        else if (IS("used")) device->used = number << 20;
        else if (IS("reserved")) device->reserved = number << 20;
        else if (IS("numa")) device->numa = (int)number;
        else if (IS("mig")) device->mig = (int)number;
        else if (IS("celsius")) device->celsius = atoi(value);
        else if (IS("milliwatts")) device->milliwatts = (int)number;
        else if (IS("utilization")) device->utilization = (int)number;
        else if (IS("corrected")) device->corrected = number;
        else if (IS("uncorrected")) device->uncorrected = number;
        else if (IS("pages")) device->pages = (int)number;
        else if (IS("slowdown")) device->slowdown = number;
        else if (IS("sm")) device->sm = (unsigned)number;
        else if (IS("slices")) device->slices = (unsigned)number;
        else if (IS("name")) { snprintf(device->name, sizeof device->name, "%s", value); blanks(device->name); }
        else if (IS("cc")) { if (sscanf(value, "%d.%d", &device->cc_major, &device->cc_minor) != 2) refuse(line); }
        else if (IS("remap")) { if (sscanf(value, "%d,%d", &device->remap_pending, &device->remap_failed) != 2) refuse(line); }
        else if (IS("pci")) { if (sscanf(value, "%x:%x:%x", &device->domain, &device->bus, &device->device) != 3) refuse(line); }
        else refuse(line);
#undef IS
    }
}

static void read_line(char *line) {
    char original[512], verb[16] = "", text[256] = "", kind[16] = "";
    int a = 0, b = 0, c = NOTHING, used = 0;
    snprintf(original, sizeof original, "%s", line);
    if (sscanf(line, "%15s%n", verb, &used) != 1 || *verb == '#') return;
    char *rest = line + used;
#define IS(word) (!strcmp(verb, word))
    if (IS("driver") || IS("library")) {
        if (sscanf(rest, " %95s", *verb == 'd' ? driver : library) != 1) refuse(original);
    } else if (IS("cuda")) {
        if (sscanf(rest, "%d", &cuda) != 1) refuse(original);
    } else if (IS("gpu")) {
        if (gpu_count == GPUS || sscanf(rest, " %95s%n", gpus[gpu_count].uuid, &used) != 1) refuse(original);
        struct cn_device_object *gpu = &gpus[gpu_count];
        gpu->index = gpu_count, gpu->parent = NOTHING, gpu->minor = (unsigned)gpu_count, gpu->numa = -1;
        gpu->cc_major = 9, gpu->mig = -1, gpu->celsius = 40, gpu->bus = (unsigned)gpu_count + 1, gpu->memory = 80ull << 30;
        snprintf(gpu->name, sizeof gpu->name, "Fake GPU");
        gpu_count++;
        read_options(gpu, rest + used, original);
    } else if (IS("mig")) {
        struct cn_device_object found = {0};
        if (sscanf(rest, "%d %d %95s %u %u%n", &a, &b, found.uuid, &found.gi, &found.ci, &used) != 5 || a < 0 ||
            a >= gpu_count || b < 0 || b >= INSTANCES) refuse(original);
        found.index = b, found.parent = a, found.place = b;
        read_options(&found, rest + used, original);
        instances[a][b] = found;
    } else if (IS("link")) {
        unsigned domain, bus, device;
        if (sscanf(rest, "%d %d %15s %x:%x:%x", &a, &b, kind, &domain, &bus, &device) != 6 || a < 0 || a >= GPUS ||
            b < 0 || b >= CN_NVLINK_LIMIT) refuse(original);
        gpus[a].links[b].active = 1;
        gpus[a].links[b].type = !strcmp(kind, "gpu") ? CN_NVLINK_TO_GPU : !strcmp(kind, "npu") ? CN_NVLINK_TO_NPU : CN_NVLINK_TO_SWITCH;
        gpus[a].links[b].domain = domain, gpus[a].links[b].bus = bus, gpus[a].links[b].device = device;
    } else if (IS("ancestor")) {
        if (sscanf(rest, "%d %d %d", &a, &b, &c) != 3 || a < 0 || b < 0 || a >= GPUS || b >= GPUS) refuse(original);
        ancestors[a][b] = ancestors[b][a] = (unsigned)c;
    } else if (IS("process")) {
        unsigned long long mib = 0;
        unsigned pid = 0;
        if (process_count == PROCESSES || sscanf(rest, "%d %u %llu", &a, &pid, &mib) != 3) refuse(original);
        processes[process_count].gpu = a, processes[process_count].pid = pid, processes[process_count++].bytes = mib << 20;
    } else if (IS("error") || IS("hang") || IS("crash") || IS("slow")) {
        if (rule_count == RULES || sscanf(rest, " %63s %d %d", rules[rule_count].function, &a, &c) < (IS("error") || IS("slow") ? 2 : 1))
            refuse(original);
        rules[rule_count].what = IS("error") ? FAIL : IS("hang") ? HANG : IS("crash") ? CRASH : SLOW;
        rules[rule_count].number = a, rules[rule_count++].gpu = c;
    } else if (IS("fifo")) {
        if (sscanf(rest, " %255s", text) != 1) refuse(original);
        // Open for writing too, so that it has no end while nobody writes.
        fifo = open(text, O_RDWR | O_CLOEXEC);
        if (fifo < 0) refuse(original);
    } else refuse(original);
#undef IS
}

static void read_fixture(void) {
    const char *path = getenv("FAKE_NVML");
    char beside[512];
    Dl_info own;
    if (!path && dladdr((void *)read_fixture, &own)) {
        // By the name that it was loaded by.
        const char *end = strrchr(own.dli_fname, '/');
        snprintf(beside, sizeof beside, "%.*s/../fixture", end ? (int)(end - own.dli_fname) : 1, end ? own.dli_fname : ".");
        if (!access(beside, R_OK)) path = beside;
    }
    if (!path) return;
    FILE *file = fopen(path, "re");
    if (!file) refuse(path);
    char line[512];
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        read_line(line);
    }
    fclose(file);
}

// What each function does first: what the fixture's rules say of it.
static int begin(const char *function, cn_device device) {
    volatile int *nowhere = NULL;
    for (int i = 0; i < rule_count; i++) {
        if (strcmp(rules[i].function, function)) continue;
        if (rules[i].gpu != NOTHING && (!device || (device->parent == NOTHING ? device->index : device->parent) != rules[i].gpu))
            continue;
        struct timespec time = { rules[i].number / 1000, rules[i].number % 1000 * 1000000l };
        switch (rules[i].what) {
        case FAIL: return rules[i].number;
        case HANG: for (;;) pause();
        case CRASH: *nowhere = 0; break;
        case SLOW: nanosleep(&time, NULL); break;
        }
    }
    return initialised ? CN_SUCCESS : CN_UNINITIALIZED;
}
#define BEGIN(name, device) do { int code_ = begin(name, device); if (code_) return code_; } while (0)
#define WHOLE(device) do { if (!(device)) return CN_INVALID_ARGUMENT; if ((device)->parent != NOTHING) return CN_NOT_SUPPORTED; } while (0)

static int put(const char *text, char *buffer, unsigned size) {
    if (strlen(text) >= size) return CN_INSUFFICIENT_SIZE;
    strcpy(buffer, text);
    return CN_SUCCESS;
}

// NAMED(new, old): the name that this build of the library has for a function that came in several versions.
#ifdef OLD_SYMBOLS
#define NAMED(newer, older) older
#else
#define NAMED(newer, older) newer
#endif
#define EXPORT __attribute__((visibility("default")))

#ifdef NO_SYMBOLS
EXPORT int nothingOfNVML(void) { return (int)begin("", NULL) + (int)put("", NULL, 0) + (read_fixture(), 0); }
#else

static int start(void) {
    static int seen;
    if (!seen) read_fixture();
    seen = 1, initialised = 1;
    int code = begin("nvmlInit", NULL);
    if (code) initialised = 0;
    return code;
}
EXPORT int NAMED(nvmlInit_v2, nvmlInit)(void) { return start(); }
EXPORT int nvmlInitWithFlags(unsigned flags) { return flags ? CN_INVALID_ARGUMENT : start(); }
EXPORT int nvmlShutdown(void) { BEGIN("nvmlShutdown", NULL); initialised = 0; return CN_SUCCESS; }
EXPORT const char *nvmlErrorString(int code) {
    switch (code) {
    case CN_SUCCESS: return "The operation was successful";
    case CN_NOT_SUPPORTED: return "Not Supported";
    case CN_DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case CN_GPU_IS_LOST: return "GPU is lost";
    case CN_LIB_RM_VERSION_MISMATCH: return "Driver/library version mismatch";
    default: return "Unknown Error";
    }
}
EXPORT int NAMED(nvmlDeviceGetCount_v2, nvmlDeviceGetCount)(unsigned *count) {
    BEGIN("nvmlDeviceGetCount", NULL);
    *count = (unsigned)gpu_count;
    return CN_SUCCESS;
}
EXPORT int NAMED(nvmlDeviceGetHandleByIndex_v2, nvmlDeviceGetHandleByIndex)(unsigned index, cn_device *device) {
    if (index >= (unsigned)gpu_count) return CN_INVALID_ARGUMENT;
    BEGIN("nvmlDeviceGetHandleByIndex", &gpus[index]);
    *device = &gpus[index];
    return CN_SUCCESS;
}
EXPORT int nvmlDeviceGetUUID(cn_device device, char *text, unsigned size) {
    BEGIN("nvmlDeviceGetUUID", device);
    return put(device->uuid, text, size);
}
#ifndef FEW_SYMBOLS
EXPORT int nvmlSystemGetDriverVersion(char *text, unsigned size) { BEGIN("nvmlSystemGetDriverVersion", NULL); return put(driver, text, size); }
EXPORT int nvmlSystemGetNVMLVersion(char *text, unsigned size) { BEGIN("nvmlSystemGetNVMLVersion", NULL); return put(library, text, size); }
EXPORT int NAMED(nvmlSystemGetCudaDriverVersion_v2, nvmlSystemGetCudaDriverVersion)(int *version) {
    BEGIN("nvmlSystemGetCudaDriverVersion", NULL);
    *version = cuda;
    return CN_SUCCESS;
}
EXPORT int nvmlDeviceGetName(cn_device device, char *text, unsigned size) {
    BEGIN("nvmlDeviceGetName", device);
    return put(device->name, text, size);
}
EXPORT int nvmlDeviceGetIndex(cn_device device, unsigned *index) {
    BEGIN("nvmlDeviceGetIndex", device);
    *index = (unsigned)device->index;
    return CN_SUCCESS;
}
EXPORT int nvmlDeviceGetMinorNumber(cn_device device, unsigned *minor) {
    BEGIN("nvmlDeviceGetMinorNumber", device);
    WHOLE(device);
    *minor = device->minor;
    return CN_SUCCESS;
}
static void fill(struct cn_pci *pci, unsigned domain, unsigned bus, unsigned device) {
    snprintf(pci->bus_id_short, sizeof pci->bus_id_short, "%04X:%02X:%02X.0", domain & 0xffff, bus & 0xff, device & 0xff);
    pci->domain = domain, pci->bus = bus, pci->device = device, pci->device_id = 0x233510de, pci->subsystem_id = 0x18be10de;
#ifndef OLD_SYMBOLS
    snprintf(pci->bus_id, sizeof pci->bus_id, "%08X:%02X:%02X.0", domain, bus & 0xff, device & 0xff);
#endif
}
EXPORT int NAMED(nvmlDeviceGetPciInfo_v3, nvmlDeviceGetPciInfo)(cn_device device, struct cn_pci *pci) {
    BEGIN("nvmlDeviceGetPciInfo", device);
    WHOLE(device);
    fill(pci, device->domain, device->bus, device->device);
    return CN_SUCCESS;
}
EXPORT int nvmlDeviceGetMemoryInfo(cn_device device, struct cn_memory *memory) {
    BEGIN("nvmlDeviceGetMemoryInfo", device);
    // The first version counts what is reserved as used.
    *memory = (struct cn_memory){ device->memory, device->memory - device->used - device->reserved, device->used + device->reserved };
    return CN_SUCCESS;
}
EXPORT int nvmlDeviceGetCudaComputeCapability(cn_device device, int *major, int *minor) {
    BEGIN("nvmlDeviceGetCudaComputeCapability", device);
    *major = device->cc_major, *minor = device->cc_minor;
    return CN_SUCCESS;
}
EXPORT int nvmlDeviceGetUtilizationRates(cn_device device, struct cn_utilization *rates) {
    BEGIN("nvmlDeviceGetUtilizationRates", device);
    WHOLE(device);
    if (device->mig == 1) return CN_NOT_SUPPORTED;
    *rates = (struct cn_utilization){ (unsigned)device->utilization, (unsigned)device->utilization / 2 };
    return CN_SUCCESS;
}
EXPORT int nvmlDeviceGetTemperature(cn_device device, unsigned sensor, unsigned *celsius) {
    BEGIN("nvmlDeviceGetTemperature", device);
    WHOLE(device);
    if (sensor != CN_TEMPERATURE_GPU) return CN_INVALID_ARGUMENT;
    *celsius = (unsigned)device->celsius;
    return CN_SUCCESS;
}
EXPORT int nvmlDeviceGetPowerUsage(cn_device device, unsigned *milliwatts) {
    BEGIN("nvmlDeviceGetPowerUsage", device);
    WHOLE(device);
    *milliwatts = (unsigned)device->milliwatts;
    return CN_SUCCESS;
}
EXPORT int nvmlDeviceGetTotalEccErrors(cn_device device, unsigned kind, unsigned counter, unsigned long long *count) {
    BEGIN("nvmlDeviceGetTotalEccErrors", device);
    WHOLE(device);
    if (counter != CN_COUNTED_SINCE_LOAD) return CN_INVALID_ARGUMENT;
    *count = kind == CN_ERRORS_CORRECTED ? device->corrected : device->uncorrected;
    return CN_SUCCESS;
}
EXPORT int nvmlDeviceGetRetiredPagesPendingStatus(cn_device device, unsigned *pending) {
    BEGIN("nvmlDeviceGetRetiredPagesPendingStatus", device);
    WHOLE(device);
    *pending = (unsigned)device->pages;
    return CN_SUCCESS;
}
EXPORT int NAMED(nvmlDeviceGetCurrentClocksEventReasons, nvmlDeviceGetCurrentClocksThrottleReasons)(cn_device device, unsigned long long *bits) {
    BEGIN("nvmlDeviceGetCurrentClocksEventReasons", device);
    WHOLE(device);
    *bits = device->slowdown;
    return CN_SUCCESS;
}
EXPORT int nvmlDeviceGetTopologyCommonAncestor(cn_device first, cn_device second, unsigned *level) {
    BEGIN("nvmlDeviceGetTopologyCommonAncestor", first);
    *level = ancestors[first->index][second->index] ? ancestors[first->index][second->index] : 50;
    return CN_SUCCESS;
}
EXPORT int nvmlDeviceGetNvLinkState(cn_device device, unsigned number, unsigned *active) {
    BEGIN("nvmlDeviceGetNvLinkState", device);
    WHOLE(device);
    if (number >= 18) return CN_INVALID_ARGUMENT;
    *active = (unsigned)device->links[number].active;
    return CN_SUCCESS;
}
EXPORT int nvmlEventSetCreate(cn_event_set *set) {
    BEGIN("nvmlEventSetCreate", NULL);
    *set = (cn_event_set)(void *)&fifo;
    return CN_SUCCESS;
}
EXPORT int nvmlEventSetFree(cn_event_set set) { BEGIN("nvmlEventSetFree", NULL); return set ? CN_SUCCESS : CN_INVALID_ARGUMENT; }
EXPORT int nvmlDeviceGetSupportedEventTypes(cn_device device, unsigned long long *types) {
    BEGIN("nvmlDeviceGetSupportedEventTypes", device);
    *types = 0x1b;
    return CN_SUCCESS;
}
EXPORT int nvmlDeviceRegisterEvents(cn_device device, unsigned long long types, cn_event_set set) {
    BEGIN("nvmlDeviceRegisterEvents", device);
    return types && set ? CN_SUCCESS : CN_INVALID_ARGUMENT;
}
EXPORT int NAMED(nvmlEventSetWait_v2, nvmlEventSetWait)(cn_event_set set, struct cn_event *event, unsigned milliseconds) {
    BEGIN("nvmlEventSetWait", NULL);
    if (!set) return CN_INVALID_ARGUMENT;
    struct pollfd waiting = { .fd = fifo, .events = POLLIN };
    if (poll(&waiting, 1, (int)milliseconds) <= 0) return CN_TIMEOUT;
    char line[128];
    size_t length = 0;
    while (length < sizeof line - 1 && read(fifo, line + length, 1) == 1 && line[length] != '\n') length++;
    line[length] = 0;
    int gpu, code;
    unsigned long long type, data;
    unsigned gi = CN_NO_INSTANCE, ci = CN_NO_INSTANCE;
    if (sscanf(line, "error %d", &code) == 1) return code;
    if (sscanf(line, "%d %llu %llu %u %u", &gpu, &type, &data, &gi, &ci) < 3 || gpu >= gpu_count) refuse(line);
    event->device = gpu < 0 ? NULL : &gpus[gpu], event->type = type, event->data = data;
#ifndef OLD_SYMBOLS
    event->gpu_instance = gi, event->compute_instance = ci;
#endif
    return CN_SUCCESS;
}
#ifndef OLD_SYMBOLS
EXPORT int nvmlDeviceGetMemoryInfo_v2(cn_device device, struct cn_memory_2 *memory) {
    BEGIN("nvmlDeviceGetMemoryInfo_v2", device);
    if (memory->version != CN_MEMORY_2) return CN_ARGUMENT_VERSION_MISMATCH;
    memory->total = device->memory, memory->reserved = device->reserved, memory->used = device->used;
    memory->free = device->memory - device->used - device->reserved;
    return CN_SUCCESS;
}
EXPORT int nvmlDeviceGetTemperatureV(cn_device device, struct cn_temperature *temperature) {
    BEGIN("nvmlDeviceGetTemperatureV", device);
    WHOLE(device);
    if (temperature->version != CN_TEMPERATURE_1) return CN_ARGUMENT_VERSION_MISMATCH;
    temperature->celsius = device->celsius;
    return CN_SUCCESS;
}
EXPORT int nvmlDeviceGetNumaNodeId(cn_device device, unsigned *node) {
    BEGIN("nvmlDeviceGetNumaNodeId", device);
    WHOLE(device);
    if (device->numa < 0) return CN_NOT_SUPPORTED;
    *node = (unsigned)device->numa;
    return CN_SUCCESS;
}
EXPORT int nvmlDeviceGetRemappedRows(cn_device device, unsigned *corrected, unsigned *uncorrected, unsigned *pending, unsigned *failed) {
    BEGIN("nvmlDeviceGetRemappedRows", device);
    WHOLE(device);
    *corrected = *uncorrected = 0;
    *pending = (unsigned)device->remap_pending, *failed = (unsigned)device->remap_failed;
    return CN_SUCCESS;
}
EXPORT int nvmlDeviceGetComputeRunningProcesses_v3(cn_device device, unsigned *count, struct cn_process *list) {
    BEGIN("nvmlDeviceGetComputeRunningProcesses", device);
    WHOLE(device);
    unsigned room = *count, found = 0;
    for (int i = 0; i < process_count; i++) {
        if (processes[i].gpu != device->index) continue;
        if (found < room && list)
            list[found] = (struct cn_process){ processes[i].pid, processes[i].bytes, CN_NO_INSTANCE, CN_NO_INSTANCE };
        found++;
    }
    *count = found;
    return found > room ? CN_INSUFFICIENT_SIZE : CN_SUCCESS;
}
EXPORT int nvmlDeviceGetNvLinkRemotePciInfo_v2(cn_device device, unsigned number, struct cn_pci *pci) {
    BEGIN("nvmlDeviceGetNvLinkRemotePciInfo", device);
    if (number >= CN_NVLINK_LIMIT || !device->links[number].active) return CN_INVALID_ARGUMENT;
    fill(pci, device->links[number].domain, device->links[number].bus, device->links[number].device);
    return CN_SUCCESS;
}
EXPORT int nvmlDeviceGetNvLinkRemoteDeviceType(cn_device device, unsigned number, unsigned *type) {
    BEGIN("nvmlDeviceGetNvLinkRemoteDeviceType", device);
    if (number >= CN_NVLINK_LIMIT || !device->links[number].active) return CN_INVALID_ARGUMENT;
    *type = (unsigned)device->links[number].type;
    return CN_SUCCESS;
}
EXPORT int nvmlDeviceGetMigMode(cn_device device, unsigned *current, unsigned *pending) {
    BEGIN("nvmlDeviceGetMigMode", device);
    WHOLE(device);
    if (device->mig < 0) return CN_NOT_SUPPORTED;
    *current = *pending = (unsigned)device->mig;
    return CN_SUCCESS;
}
EXPORT int nvmlDeviceGetMaxMigDeviceCount(cn_device device, unsigned *count) {
    BEGIN("nvmlDeviceGetMaxMigDeviceCount", device);
    *count = device->mig < 0 ? 0 : 7;
    return CN_SUCCESS;
}
EXPORT int nvmlDeviceGetMigDeviceHandleByIndex(cn_device device, unsigned place, cn_device *found) {
    BEGIN("nvmlDeviceGetMigDeviceHandleByIndex", device);
    WHOLE(device);
    if (place >= 7) return CN_INVALID_ARGUMENT;
    if (!*instances[device->index][place].uuid) return CN_NOT_FOUND;
    *found = &instances[device->index][place];
    return CN_SUCCESS;
}
EXPORT int nvmlDeviceIsMigDeviceHandle(cn_device device, unsigned *is) { *is = device->parent != NOTHING; return CN_SUCCESS; }
EXPORT int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(cn_device device, cn_device *parent) {
    if (device->parent == NOTHING) return CN_INVALID_ARGUMENT;
    *parent = &gpus[device->parent];
    return CN_SUCCESS;
}
EXPORT int nvmlDeviceGetGpuInstanceId(cn_device device, unsigned *number) {
    BEGIN("nvmlDeviceGetGpuInstanceId", device);
    if (device->parent == NOTHING) return CN_INVALID_ARGUMENT;
    *number = device->gi;
    return CN_SUCCESS;
}
EXPORT int nvmlDeviceGetComputeInstanceId(cn_device device, unsigned *number) {
    BEGIN("nvmlDeviceGetComputeInstanceId", device);
    if (device->parent == NOTHING) return CN_INVALID_ARGUMENT;
    *number = device->ci;
    return CN_SUCCESS;
}
EXPORT int nvmlDeviceGetAttributes_v2(cn_device device, struct cn_attributes *attributes) {
    BEGIN("nvmlDeviceGetAttributes", device);
    if (device->parent == NOTHING) return CN_INVALID_ARGUMENT;
    *attributes = (struct cn_attributes){ .multiprocessors = device->sm, .gpu_slices = device->slices,
                                          .compute_slices = device->slices, .memory_mib = device->memory >> 20 };
    return CN_SUCCESS;
}
#endif
#endif
#endif
