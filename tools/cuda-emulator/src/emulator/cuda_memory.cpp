// The driver API: memory, copies and memsets.
#include <stdlib.h>
#include <string.h>

#include <iterator>
#include <vector>

#include "driver.h"

EMULATOR_API CUresult cuMemGetInfo_v2(size_t* free, size_t* total) {
    ENTER_CONTEXT();
    *free = driver.memory.available();
    *total = emulator::DeviceMemory::total();
    return CUDA_SUCCESS;
}

EMULATOR_API CUresult cuMemAlloc_v2(CUdeviceptr* address, size_t size) {
    ENTER_CONTEXT();
    if (size == 0 || address == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (CUresult refused = refuse_during_capture()) return refused;
    *address = driver.memory.allocate(size);
    return *address != 0 ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

EMULATOR_API CUresult cuMemFree_v2(CUdeviceptr address) {
    ENTER_CONTEXT();
    if (address == 0) return CUDA_SUCCESS;
    if (CUresult refused = refuse_during_capture()) return refused;
    if (CUresult result = finish_all(current_context)) return result;
    return driver.memory.release(address) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

EMULATOR_API CUresult cuMemHostAlloc(void** address, size_t size, unsigned flags) {
    ENTER_CONTEXT();
    if (size == 0 || flags > 7) return CUDA_ERROR_INVALID_VALUE;
    if (CUresult refused = refuse_during_capture()) return refused;
    if (posix_memalign(address, emulator::page, size) != 0) return CUDA_ERROR_OUT_OF_MEMORY;
    memset(*address, 0xff, size);
    driver.host_memory[*address] = size;
    return CUDA_SUCCESS;
}

EMULATOR_API CUresult cuMemAllocHost_v2(void** address, size_t size) { return cuMemHostAlloc(address, size, 0); }

EMULATOR_API CUresult cuMemFreeHost(void* address) {
    ENTER_CONTEXT();
    if (driver.host_memory.count(address) == 0) return CUDA_ERROR_INVALID_VALUE;
    if (CUresult result = finish_all(current_context)) return result;
    driver.host_memory.erase(address);
    free(address);
    return CUDA_SUCCESS;
}

namespace {

void* pointer(CUdeviceptr address) { return reinterpret_cast<void*>(address); }

bool is_pinned(CUdeviceptr address, size_t size) {
    auto after = driver.host_memory.upper_bound(pointer(address));
    if (after == driver.host_memory.begin()) return false;
    auto found = std::prev(after);
    size_t offset = address - CUdeviceptr(found->first);
    return offset <= found->second && size <= found->second - offset;
}

CUresult copy_async(CUdeviceptr to, CUdeviceptr from, size_t size, bool to_device, bool from_device, CUstream handle) {
    if (size == 0) return CUDA_SUCCESS;
    if (to == 0 || from == 0) return CUDA_ERROR_INVALID_VALUE;
    if (to_device && !driver.memory.contains(to, size)) return CUDA_ERROR_INVALID_VALUE;
    if (from_device && !driver.memory.contains(from, size)) return CUDA_ERROR_INVALID_VALUE;
    Stream* stream = find(handle);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    // The copy happens later: in the lazy mode, and after work that waits for others.
    bool waits = stream->capture == nullptr && (lazy() || !stream->queue.empty());
    // Memory that is not pinned is read before the call returns, and written by then.
    if (waits && !from_device && !is_pinned(from, size)) {
        const char* bytes = static_cast<const char*>(pointer(from));
        std::vector<char> kept(bytes, bytes + size);
        return submit(handle, Work{"a copy", false, [=] { memcpy(pointer(to), kept.data(), size); }});
    }
    CUresult result = submit(handle, Work{"a copy", false, [=] { memmove(pointer(to), pointer(from), size); }});
    if (result == CUDA_SUCCESS && waits && !to_device && !is_pinned(to, size)) return finish(*stream);
    return result;
}

CUresult copy_now(CUdeviceptr to, CUdeviceptr from, size_t size, bool to_device, bool from_device) {
    if (CUresult refused = refuse_synchronous_copy()) return refused;
    if (CUresult result = copy_async(to, from, size, to_device, from_device, nullptr)) return result;
    return finish(driver.default_stream);
}

template <class T>
CUresult fill_async(CUdeviceptr to, T value, size_t count, CUstream stream) {
    if (count == 0) return CUDA_SUCCESS;
    if (to % sizeof(T) != 0 || count > ~size_t(0) / sizeof(T)) return CUDA_ERROR_INVALID_VALUE;
    if (!driver.memory.contains(to, count * sizeof(T))) return CUDA_ERROR_INVALID_VALUE;
    return submit(stream, Work{"a memset", false, [=] {
                                   T* elements = static_cast<T*>(pointer(to));
                                   std::fill(elements, elements + count, value);
                               }});
}

}  // namespace

EMULATOR_API CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void* from, size_t size) {
    ENTER_CONTEXT();
    return copy_now(to, CUdeviceptr(from), size, true, false);
}

EMULATOR_API CUresult cuMemcpyDtoH_v2(void* to, CUdeviceptr from, size_t size) {
    ENTER_CONTEXT();
    return copy_now(CUdeviceptr(to), from, size, false, true);
}

EMULATOR_API CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t size) {
    ENTER_CONTEXT();
    return copy_now(to, from, size, true, true);
}

EMULATOR_API CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, size_t size, CUstream stream) {
    ENTER_CONTEXT();
    return copy_async(to, CUdeviceptr(from), size, true, false, stream);
}

EMULATOR_API CUresult cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, size_t size, CUstream stream) {
    ENTER_CONTEXT();
    return copy_async(CUdeviceptr(to), from, size, false, true, stream);
}

EMULATOR_API CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t size, CUstream stream) {
    ENTER_CONTEXT();
    return copy_async(to, from, size, true, true, stream);
}

EMULATOR_API CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t count, CUstream stream) {
    ENTER_CONTEXT();
    return fill_async(to, value, count, stream);
}

EMULATOR_API CUresult cuMemsetD16Async(CUdeviceptr to, unsigned short value, size_t count, CUstream stream) {
    ENTER_CONTEXT();
    return fill_async(to, value, count, stream);
}

EMULATOR_API CUresult cuMemsetD32Async(CUdeviceptr to, unsigned value, size_t count, CUstream stream) {
    ENTER_CONTEXT();
    return fill_async(to, value, count, stream);
}

EMULATOR_API CUresult cuMemsetD8_v2(CUdeviceptr to, unsigned char value, size_t count) {
    ENTER_CONTEXT();
    if (CUresult refused = refuse_synchronous_copy()) return refused;
    if (CUresult result = fill_async(to, value, count, nullptr)) return result;
    return finish(driver.default_stream);
}

// ---------------------------------------------------------------------------------------------- tensor maps

// The part of a tensor map that an emulated kernel needs: address, columns, rows, and bytes between rows.
EMULATOR_API CUresult cuTensorMapEncodeTiled(unsigned long long* map, int, unsigned dimensions, void* address,
                                             const unsigned long long* sizes, const unsigned long long* strides,
                                             const unsigned* box, const unsigned* steps, int, int, int, int) {
    ENTER();
    bool aligned = (size_t(address) % 16 | strides[0] % 16) == 0;
    bool fits = dimensions == 2 && box[0] <= 256 && box[1] <= 256 && steps[0] == 1 && steps[1] == 1;
    if (!aligned || !fits || sizes[0] == 0 || sizes[1] == 0) return CUDA_ERROR_INVALID_VALUE;
    memset(map, 0, 128);
    map[0] = size_t(address);
    map[1] = sizes[0];
    map[2] = sizes[1];
    map[3] = strides[0];
    return CUDA_SUCCESS;
}
