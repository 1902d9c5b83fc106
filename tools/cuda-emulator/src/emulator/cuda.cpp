// The driver API: results, the device and its context.
#include <stdio.h>
#include <string.h>

#include "driver.h"

CUresult emulator_submit(CUstream stream, const char* name, std::function<void()> work) {
    ENTER_CONTEXT();
    return submit(stream, Work{name, false, std::move(work), {}});
}

CUresult emulator_submit_waiting(CUstream stream, const char* name, std::function<std::function<bool()>()> begin) {
    ENTER_CONTEXT();
    return submit(stream, Work{name, false, {}, std::move(begin)});
}

bool emulator_contains(CUdeviceptr address, size_t size) {
    std::lock_guard<Lock> guard(driver.lock);
    return driver.memory.contains(address, size);
}

// -------------------------------------------------------------------------------------- errors and versions

EMULATOR_API CUresult cuGetErrorName(CUresult error, const char** name) {
    switch (int(error)) {
#define EMULATOR_RESULT(result, number, text) \
    case number: *name = #result; return CUDA_SUCCESS;
        EMULATOR_RESULTS(EMULATOR_RESULT)
#undef EMULATOR_RESULT
    }
    *name = nullptr;
    return CUDA_ERROR_INVALID_VALUE;
}

EMULATOR_API CUresult cuGetErrorString(CUresult error, const char** description) {
    switch (int(error)) {
#define EMULATOR_RESULT(result, number, text) \
    case number: *description = text; return CUDA_SUCCESS;
        EMULATOR_RESULTS(EMULATOR_RESULT)
#undef EMULATOR_RESULT
    }
    *description = nullptr;
    return CUDA_ERROR_INVALID_VALUE;
}

EMULATOR_API CUresult cuDriverGetVersion(int* version) {
    *version = int(setting("CUDA_EMULATOR_DRIVER_VERSION", 13000));
    return CUDA_SUCCESS;
}

// --------------------------------------------------------------------------------------------------- device

EMULATOR_API CUresult cuInit(unsigned flags) {
    std::lock_guard<Lock> guard(driver.lock);
    if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
    if (device_count() <= 0) return CUDA_ERROR_NO_DEVICE;
    driver.initialized = true;
    return CUDA_SUCCESS;
}

EMULATOR_API CUresult cuDeviceGetCount(int* count) {
    *count = std::max(device_count(), 0);
    return driver.initialized ? CUDA_SUCCESS : CUDA_ERROR_NOT_INITIALIZED;
}

EMULATOR_API CUresult cuDeviceGet(CUdevice* device, int ordinal) {
    if (!driver.initialized) return CUDA_ERROR_NOT_INITIALIZED;
    if (!is_device(ordinal)) return CUDA_ERROR_INVALID_DEVICE;
    *device = ordinal;
    return CUDA_SUCCESS;
}

EMULATOR_API CUresult cuDeviceGetName(char* name, int length, CUdevice device) {
    if (!is_device(device)) return CUDA_ERROR_INVALID_DEVICE;
    snprintf(name, size_t(length), "Emulated GPU");
    return CUDA_SUCCESS;
}

EMULATOR_API CUresult cuDeviceGetUuid_v2(unsigned char* uuid, CUdevice device) {
    if (!is_device(device)) return CUDA_ERROR_INVALID_DEVICE;
    char text[24];
    snprintf(text, sizeof text, "emulated GPU %03d", device % 1000);
    memcpy(uuid, text, 16);
    return CUDA_SUCCESS;
}

EMULATOR_API CUresult cuDeviceTotalMem_v2(size_t* bytes, CUdevice device) {
    if (!is_device(device)) return CUDA_ERROR_INVALID_DEVICE;
    *bytes = emulator::DeviceMemory::total();
    return CUDA_SUCCESS;
}

EMULATOR_API CUresult cuDeviceGetAttribute(int* value, int attribute, CUdevice device) {
    if (!is_device(device)) return CUDA_ERROR_INVALID_DEVICE;
    if (attribute < 1 || attribute > 200) return CUDA_ERROR_INVALID_VALUE;
    switch (attribute) {
        case 1: *value = 1024; break;                                 // threads a block
        case 2: case 3: *value = 1024; break;                         // block x, y
        case 4: *value = 64; break;                                   // block z
        case 5: *value = 0x7fffffff; break;                           // grid x
        case 6: case 7: *value = 65535; break;                        // grid y, z
        case 8: *value = 48 * 1024; break;                            // shared memory a block
        case 9: *value = 64 * 1024; break;                            // constant memory
        case 10: *value = 32; break;                                  // warp
        case 11: *value = 0x7fffffff; break;                          // pitch
        case 12: case 82: *value = 65536; break;                      // registers
        case 13: *value = 1980000; break;                             // clock in kHz
        case 14: *value = 512; break;                                 // texture alignment
        case 15: case 19: case 31: case 41: case 78: *value = 1; break;  // overlap, mapping, concurrency, one address space
        case 16: *value = int(setting("CUDA_EMULATOR_MULTIPROCESSORS", 132)); break;
        case 36: *value = 2619000; break;                             // memory clock in kHz
        case 37: *value = 5120; break;                                // memory bus
        case 38: *value = 50 * 1024 * 1024; break;                    // L2
        case 39: *value = 2048; break;                                // threads per multiprocessor
        case 40: *value = 3; break;                                   // copy engines
        case 75: *value = 9; break;                                   // compute capability
        case 76: *value = 0; break;
        case 81: *value = 228 * 1024; break;                          // shared memory per multiprocessor
        case 97: *value = int(emulator::shared_limit); break;         // maximum shared memory per block
        case 106: *value = 32; break;                                 // blocks per multiprocessor
        case 111: *value = 1024; break;                               // reserved shared memory
        default: *value = 0;                                          // memory pools among them
    }
    return CUDA_SUCCESS;
}

// -------------------------------------------------------------------------------------------------- context

EMULATOR_API CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
    ENTER();
    if (!is_device(device)) return CUDA_ERROR_INVALID_DEVICE;
    *context = &driver.contexts[device];
    ++(*context)->users;
    return CUDA_SUCCESS;
}

EMULATOR_API CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    ENTER();
    if (!is_device(device)) return CUDA_ERROR_INVALID_DEVICE;
    CUcontext context = &driver.contexts[device];
    if (context->users == 0) return CUDA_ERROR_INVALID_CONTEXT;
    if (--context->users > 0) return CUDA_SUCCESS;
    CUresult result = finish_all(context);
    // Memory goes with the last user, as with a real context; here with that of all devices.
    for (const DeviceContext& other : driver.contexts)
        if (other.users > 0) return result;
    driver.memory.release_all();
    return result;
}

EMULATOR_API CUresult cuCtxSetCurrent(CUcontext context) {
    ENTER();
    bool known = context >= driver.contexts && context < driver.contexts + most_devices;
    if (context != nullptr && !known) return CUDA_ERROR_INVALID_CONTEXT;
    current_context = context;
    return CUDA_SUCCESS;
}

EMULATOR_API CUresult cuCtxGetCurrent(CUcontext* context) {
    ENTER();
    *context = current_context != nullptr && current_context->users > 0 ? current_context : nullptr;
    return CUDA_SUCCESS;
}

EMULATOR_API CUresult cuCtxGetDevice(CUdevice* device) {
    ENTER_CONTEXT();
    *device = CUdevice(current_context - driver.contexts);
    return CUDA_SUCCESS;
}

EMULATOR_API CUresult cuCtxSynchronize() {
    ENTER_CONTEXT();
    for (Capture* capture : driver.captures) return invalidate(capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    return finish_all(current_context);
}

EMULATOR_API CUresult cuCtxGetStreamPriorityRange(int* least, int* greatest) {
    ENTER_CONTEXT();
    if (least != nullptr) *least = 0;
    if (greatest != nullptr) *greatest = -5;
    return CUDA_SUCCESS;
}
