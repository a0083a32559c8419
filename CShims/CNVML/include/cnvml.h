// NVML, NVIDIA's management library, as far as it is used here: types, and the functions of a library that is opened at
// run time. Names and layouts are those of NVML's interface 13; nothing of it is needed to build or to link.
#ifndef MARTLET_CNVML_H
#define MARTLET_CNVML_H

#include <stdint.h>

// nvmlReturn_t. What is not named here is told by nvmlErrorString.
enum {
    CN_SUCCESS = 0, CN_UNINITIALIZED = 1, CN_INVALID_ARGUMENT = 2, CN_NOT_SUPPORTED = 3, CN_NO_PERMISSION = 4,
    CN_NOT_FOUND = 6, CN_INSUFFICIENT_SIZE = 7, CN_INSUFFICIENT_POWER = 8, CN_DRIVER_NOT_LOADED = 9, CN_TIMEOUT = 10,
    CN_IRQ_ISSUE = 11, CN_LIBRARY_NOT_FOUND = 12, CN_FUNCTION_NOT_FOUND = 13, CN_CORRUPTED_INFOROM = 14,
    CN_GPU_IS_LOST = 15, CN_RESET_REQUIRED = 16, CN_LIB_RM_VERSION_MISMATCH = 18, CN_ARGUMENT_VERSION_MISMATCH = 25,
    CN_UNKNOWN = 999,
};

enum {
    CN_TEXT_SIZE = 96,  // the largest buffer of a uuid, a name or a version
    CN_TEMPERATURE_GPU = 0,
    CN_ERRORS_CORRECTED = 0, CN_ERRORS_UNCORRECTED = 1, CN_COUNTED_SINCE_LOAD = 0,
    CN_MIG_ENABLED = 1,
    CN_NVLINK_LIMIT = 36,
    CN_NVLINK_TO_GPU = 0, CN_NVLINK_TO_NPU = 1, CN_NVLINK_TO_SWITCH = 2,
    CN_MEMORY_2 = 0x02000028,       // version of cn_memory_2: its size, and 2 << 24
    CN_TEMPERATURE_1 = 0x0100000c,  // version of cn_temperature: its size, and 1 << 24
};
#define CN_NO_INSTANCE 0xffffffffu
// Kinds of events, bits of a 64-bit set.
#define CN_EVENT_SINGLE_BIT_ECC 0x1ull
#define CN_EVENT_DOUBLE_BIT_ECC 0x2ull
#define CN_EVENT_XID 0x8ull

typedef struct cn_device_object *cn_device;
typedef struct cn_event_set_object *cn_event_set;

// nvmlPciInfo_t; before its third version there was no bus_id, and other fields in its place.
struct cn_pci {
    char bus_id_short[16];
    uint32_t domain, bus, device, device_id, subsystem_id;
    char bus_id[32];
};
struct cn_memory { uint64_t total, free, used; };
struct cn_memory_2 { uint32_t version; uint64_t total, reserved, free, used; };
struct cn_utilization { uint32_t gpu, memory; };
struct cn_temperature { uint32_t version, sensor; int32_t celsius; };
struct cn_attributes {
    uint32_t multiprocessors, copy_engines, decoders, encoders, jpeg_engines, optical_flow_engines;
    uint32_t gpu_slices, compute_slices;
    uint64_t memory_mib;
};
// nvmlProcessInfo_v2_t.
struct cn_process { uint32_t pid; uint64_t memory; uint32_t gpu_instance, compute_instance; };
// nvmlEventData_t; its first version ends before gpu_instance.
struct cn_event { cn_device device; uint64_t type, data; uint32_t gpu_instance, compute_instance; };

// An open library. A function that it lacks under all of its names is NULL.
struct cn_library {
    void *handle;
    int (*init)(void);
    int (*shutdown)(void);
    const char *(*error_string)(int);
    int (*driver_version)(char *, unsigned int);
    int (*library_version)(char *, unsigned int);
    int (*cuda_version)(int *);
    int (*count)(unsigned int *);
    int (*by_index)(unsigned int, cn_device *);
    int (*uuid)(cn_device, char *, unsigned int);
    int (*name)(cn_device, char *, unsigned int);
    int (*minor)(cn_device, unsigned int *);
    int (*pci_3)(cn_device, struct cn_pci *);
    int (*pci_1)(cn_device, struct cn_pci *);
    int (*memory)(cn_device, struct cn_memory *);
    int (*memory_2)(cn_device, struct cn_memory_2 *);
    int (*compute_capability)(cn_device, int *, int *);
    int (*numa_node)(cn_device, unsigned int *);
    int (*mig_mode)(cn_device, unsigned int *, unsigned int *);
    int (*mig_limit)(cn_device, unsigned int *);
    int (*mig_by_index)(cn_device, unsigned int, cn_device *);
    int (*gpu_instance)(cn_device, unsigned int *);
    int (*compute_instance)(cn_device, unsigned int *);
    int (*attributes)(cn_device, struct cn_attributes *);
    int (*utilization)(cn_device, struct cn_utilization *);
    int (*temperature)(cn_device, unsigned int, unsigned int *);
    int (*temperature_v)(cn_device, struct cn_temperature *);
    int (*power)(cn_device, unsigned int *);
    int (*ecc_errors)(cn_device, unsigned int, unsigned int, unsigned long long *);
    int (*remapped_rows)(cn_device, unsigned int *, unsigned int *, unsigned int *, unsigned int *);
    int (*pages_pending)(cn_device, unsigned int *);
    int (*slowdown_reasons)(cn_device, unsigned long long *);
    int (*processes)(cn_device, unsigned int *, struct cn_process *);
    int (*common_ancestor)(cn_device, cn_device, unsigned int *);
    int (*link_state)(cn_device, unsigned int, unsigned int *);
    int (*link_remote_pci)(cn_device, unsigned int, struct cn_pci *);
    int (*link_remote_type)(cn_device, unsigned int, unsigned int *);
    int (*events_create)(cn_event_set *);
    int (*events_supported)(cn_device, unsigned long long *);
    int (*events_register)(cn_device, unsigned long long, cn_event_set);
    int (*events_wait)(cn_event_set, struct cn_event *, unsigned int);
    int (*events_free)(cn_event_set);
};

// dlopen(3) of `path` (a name without a slash is searched for by the linker), and each function by the newest name that
// the library has. NULL when it is open; else the linker's words, which the next call overwrites.
const char *cn_open(const char *path, struct cn_library *library);
// How many symbols there are to look up; cn_symbol(i) names the i-th, newest name first, older ones after blanks.
int cn_symbol_count(void);
const char *cn_symbol(int index);
// Whether the library has the i-th under any of its names.
int cn_has_symbol(const struct cn_library *library, int index);

#endif
