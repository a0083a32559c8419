"""What NVIDIA's own Python bindings read of the library that LD_LIBRARY_PATH leads to, as JSON."""
import json
import sys

sys.path.insert(0, sys.argv[1])
import pynvml as n  # noqa: E402


def text(value):
    return value.decode() if isinstance(value, bytes) else value


def either(call, *arguments):
    try:
        return call(*arguments)
    except n.NVMLError:
        return None


def place(pci):
    return "%04x:%02x:%02x.0" % (pci.domain, pci.bus, pci.device)


def links(gpu):
    result = []
    for number in range(n.NVML_NVLINK_MAX_LINKS):
        if either(n.nvmlDeviceGetNvLinkState, gpu, number):
            result.append({
                "number": number,
                "remote": {0: "gpu", 1: "bridge", 2: "switch"}[n.nvmlDeviceGetNvLinkRemoteDeviceType(gpu, number)],
                "pciAddress": place(n.nvmlDeviceGetNvLinkRemotePciInfo(gpu, number)),
            })
    return result


def instances(gpu):
    result = []
    for index in range(n.nvmlDeviceGetMaxMigDeviceCount(gpu)):
        mig = either(n.nvmlDeviceGetMigDeviceHandleByIndex, gpu, index)
        if mig is None:
            continue
        attributes = n.nvmlDeviceGetAttributes_v2(mig)
        result.append({
            "uuid": text(n.nvmlDeviceGetUUID(mig)), "gpuInstance": n.nvmlDeviceGetGpuInstanceId(mig),
            "computeInstance": n.nvmlDeviceGetComputeInstanceId(mig),
            "memoryBytes": n.nvmlDeviceGetMemoryInfo(mig, n.nvmlMemory_v2).total,
            "multiprocessors": attributes.multiprocessorCount, "gpuSlices": attributes.gpuInstanceSliceCount,
            "computeSlices": attributes.computeInstanceSliceCount,
        })
    return result


def describe(index):
    gpu = n.nvmlDeviceGetHandleByIndex(index)
    memory = n.nvmlDeviceGetMemoryInfo(gpu, n.nvmlMemory_v2)
    mig = either(n.nvmlDeviceGetMigMode, gpu)
    rows = n.nvmlDeviceGetRemappedRows(gpu)
    utilization = either(n.nvmlDeviceGetUtilizationRates, gpu)
    pci = n.nvmlDeviceGetPciInfo(gpu)
    return {
        "uuid": text(n.nvmlDeviceGetUUID(gpu)), "name": text(n.nvmlDeviceGetName(gpu)),
        "minor": n.nvmlDeviceGetMinorNumber(gpu), "pciAddress": place(pci), "pciDevice": pci.pciDeviceId,
        "memoryBytes": memory.total, "reservedBytes": memory.reserved, "memoryUsedBytes": memory.used,
        "computeCapability": "%d.%d" % n.nvmlDeviceGetCudaComputeCapability(gpu),
        "numaNode": either(n.nvmlDeviceGetNumaNodeId, gpu), "isDivided": None if mig is None else mig[0] == 1,
        "instances": instances(gpu), "links": links(gpu),
        "correctedErrors": n.nvmlDeviceGetTotalEccErrors(gpu, 0, n.NVML_VOLATILE_ECC),
        "uncorrectedErrors": n.nvmlDeviceGetTotalEccErrors(gpu, 1, n.NVML_VOLATILE_ECC),
        "remapPending": rows[2] != 0, "remapFailed": rows[3] != 0,
        "pagesPending": n.nvmlDeviceGetRetiredPagesPendingStatus(gpu) != 0,
        "slowdownBits": n.nvmlDeviceGetCurrentClocksEventReasons(gpu),
        "celsius": n.nvmlDeviceGetTemperatureV(gpu, n.NVML_TEMPERATURE_GPU), "milliwatts": n.nvmlDeviceGetPowerUsage(gpu),
        "utilization": None if utilization is None else utilization.gpu,
        "processes": [[p.pid, p.usedGpuMemory] for p in n.nvmlDeviceGetComputeRunningProcesses_v3(gpu)],
    }


n.nvmlInit()
count = n.nvmlDeviceGetCount()
handles = [n.nvmlDeviceGetHandleByIndex(i) for i in range(count)]
json.dump({
    "driverVersion": text(n.nvmlSystemGetDriverVersion()), "libraryVersion": text(n.nvmlSystemGetNVMLVersion()),
    "cudaNumber": n.nvmlSystemGetCudaDriverVersion_v2(), "gpus": [describe(i) for i in range(count)],
    "ancestors": [[i, j, n.nvmlDeviceGetTopologyCommonAncestor(handles[i], handles[j])]
                  for i in range(count) for j in range(i + 1, count)],
}, sys.stdout)
n.nvmlShutdown()
