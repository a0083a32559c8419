#include "cnvml.h"
#include <dlfcn.h>
#include <stddef.h>
#include <string.h>

_Static_assert(sizeof(struct cn_pci) == 68, "nvmlPciInfo_t");
_Static_assert(offsetof(struct cn_pci, bus_id) == 36, "nvmlPciInfo_t.busId");
_Static_assert(sizeof(struct cn_memory) == 24, "nvmlMemory_t");
_Static_assert(sizeof(struct cn_memory_2) == (CN_MEMORY_2 & 0xffffff), "nvmlMemory_v2_t");
_Static_assert(sizeof(struct cn_utilization) == 8, "nvmlUtilization_t");
_Static_assert(sizeof(struct cn_temperature) == (CN_TEMPERATURE_1 & 0xffffff), "nvmlTemperature_v1_t");
_Static_assert(sizeof(struct cn_attributes) == 40, "nvmlDeviceAttributes_t");
_Static_assert(sizeof(struct cn_process) == 24, "nvmlProcessInfo_v2_t");
_Static_assert(sizeof(struct cn_event) == 32, "nvmlEventData_t");
_Static_assert(sizeof(void (*)(void)) == sizeof(void *), "functions and data have pointers of one size");

static const struct {
    size_t offset;
    const char *names;
} symbols[] = {
#define FUNCTION(field, names) { offsetof(struct cn_library, field), names }
    FUNCTION(init, "nvmlInit_v2 nvmlInit"),
    FUNCTION(shutdown, "nvmlShutdown"),
    FUNCTION(error_string, "nvmlErrorString"),
    FUNCTION(driver_version, "nvmlSystemGetDriverVersion"),
    FUNCTION(library_version, "nvmlSystemGetNVMLVersion"),
    FUNCTION(cuda_version, "nvmlSystemGetCudaDriverVersion_v2 nvmlSystemGetCudaDriverVersion"),
    FUNCTION(count, "nvmlDeviceGetCount_v2 nvmlDeviceGetCount"),
    FUNCTION(by_index, "nvmlDeviceGetHandleByIndex_v2 nvmlDeviceGetHandleByIndex"),
    FUNCTION(uuid, "nvmlDeviceGetUUID"),
    FUNCTION(name, "nvmlDeviceGetName"),
    FUNCTION(minor, "nvmlDeviceGetMinorNumber"),
    FUNCTION(pci_3, "nvmlDeviceGetPciInfo_v3"),
    // Only called where there is no third version, which is named so that one that is there counts as nothing missing.
    FUNCTION(pci_1, "nvmlDeviceGetPciInfo_v2 nvmlDeviceGetPciInfo nvmlDeviceGetPciInfo_v3"),
    FUNCTION(memory, "nvmlDeviceGetMemoryInfo"),
    FUNCTION(memory_2, "nvmlDeviceGetMemoryInfo_v2"),
    FUNCTION(compute_capability, "nvmlDeviceGetCudaComputeCapability"),
    FUNCTION(numa_node, "nvmlDeviceGetNumaNodeId"),
    FUNCTION(mig_mode, "nvmlDeviceGetMigMode"),
    FUNCTION(mig_limit, "nvmlDeviceGetMaxMigDeviceCount"),
    FUNCTION(mig_by_index, "nvmlDeviceGetMigDeviceHandleByIndex"),
    FUNCTION(gpu_instance, "nvmlDeviceGetGpuInstanceId"),
    FUNCTION(compute_instance, "nvmlDeviceGetComputeInstanceId"),
    FUNCTION(attributes, "nvmlDeviceGetAttributes_v2"),
    FUNCTION(utilization, "nvmlDeviceGetUtilizationRates"),
    FUNCTION(temperature, "nvmlDeviceGetTemperature"),
    FUNCTION(temperature_v, "nvmlDeviceGetTemperatureV"),
    FUNCTION(power, "nvmlDeviceGetPowerUsage"),
    FUNCTION(ecc_errors, "nvmlDeviceGetTotalEccErrors"),
    FUNCTION(remapped_rows, "nvmlDeviceGetRemappedRows"),
    FUNCTION(pages_pending, "nvmlDeviceGetRetiredPagesPendingStatus"),
    FUNCTION(slowdown_reasons,
             "nvmlDeviceGetCurrentClocksEventReasons nvmlDeviceGetCurrentClocksThrottleReasons"),
    // The first version has another layout and is done without.
    FUNCTION(processes, "nvmlDeviceGetComputeRunningProcesses_v3 nvmlDeviceGetComputeRunningProcesses_v2"),
    FUNCTION(common_ancestor, "nvmlDeviceGetTopologyCommonAncestor"),
    FUNCTION(link_state, "nvmlDeviceGetNvLinkState"),
    // The same of the first version, which has another layout.
    FUNCTION(link_remote_pci, "nvmlDeviceGetNvLinkRemotePciInfo_v2"),
    FUNCTION(link_remote_type, "nvmlDeviceGetNvLinkRemoteDeviceType"),
    FUNCTION(events_create, "nvmlEventSetCreate"),
    FUNCTION(events_supported, "nvmlDeviceGetSupportedEventTypes"),
    FUNCTION(events_register, "nvmlDeviceRegisterEvents"),
    FUNCTION(events_wait, "nvmlEventSetWait_v2 nvmlEventSetWait"),
    FUNCTION(events_free, "nvmlEventSetFree"),
#undef FUNCTION
};

enum { COUNT = sizeof symbols / sizeof *symbols };

static void *find(void *handle, const char *names) {
    char name[64];
    while (*names) {
        size_t length = strcspn(names, " ");
        if (length < sizeof name) {
            memcpy(name, names, length);
            name[length] = 0;
            void *function = dlsym(handle, name);
            if (function) return function;
        }
        names += length + (names[length] == ' ');
    }
    return NULL;
}

const char *cn_open(const char *path, struct cn_library *library) {
    memset(library, 0, sizeof *library);
    // All symbols of the library itself are looked up now: a broken one fails here, and not in the middle of a call.
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        const char *words = dlerror();
        return words ? words : "dlopen failed";
    }
    library->handle = handle;
    for (int i = 0; i < COUNT; i++) {
        void *function = find(handle, symbols[i].names);
        memcpy((char *)library + symbols[i].offset, &function, sizeof function);
    }
    return NULL;
}

int cn_symbol_count(void) { return COUNT; }
const char *cn_symbol(int index) { return index >= 0 && index < COUNT ? symbols[index].names : NULL; }
int cn_has_symbol(const struct cn_library *library, int index) {
    void *function = NULL;
    if (index >= 0 && index < COUNT) memcpy(&function, (const char *)library + symbols[index].offset, sizeof function);
    return function != NULL;
}
