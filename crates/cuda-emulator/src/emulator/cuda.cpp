// The driver API: one device, whose memory is the processor's, and one lock, so that one caller at a time does its work.
#include <dlfcn.h>
#include <elf.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <string>

#include "cuda_types.h"
#include "fibers.h"
#include "kernel_abi.h"
#include "memory.h"
#include "streams.h"

struct DeviceContext {};

struct LoadedModule {
    void* library;
    int file;
    const emulator::Module* module;
    std::vector<CUfunction> functions;
};

struct Function {
    const emulator::Module* module;
    const emulator::Kernel* kernel;
    int dynamic_shared_limit = 48 * 1024;
};

namespace {

struct Driver {
    std::recursive_mutex lock;
    bool initialized = false;
    bool lost = false;
    unsigned long long launches = 0;
    int context_users = 0;
    DeviceContext context;
    emulator::DeviceMemory memory;
    // Handles that are alive; anything else is refused instead of being followed.
    std::set<CUstream> streams;
    std::set<CUevent> events;
    std::set<CUmodule> modules;
    std::set<CUfunction> functions;
    std::set<CUgraph> graphs;
    std::set<CUgraphExec> executables;
    std::set<Capture*> captures;
    // Pinned memory: address and size.
    std::map<void*, size_t> host_memory;
    Stream default_stream;
};

// Never destroyed: threads may still call while the process ends.
Driver& driver = *new Driver;

thread_local CUcontext current_context = nullptr;

long long setting(const char* name, long long otherwise) {
    const char* text = getenv(name);
    return text != nullptr && *text != 0 ? strtoll(text, nullptr, 10) : otherwise;
}

// What every call that needs the device begins with.
#define ENTER()                                                        \
    std::lock_guard<std::recursive_mutex> guard(driver.lock);          \
    if (!driver.initialized) return CUDA_ERROR_NOT_INITIALIZED;        \
    if (driver.lost) return CUDA_ERROR_LAUNCH_FAILED

#define ENTER_CONTEXT()                                                \
    ENTER();                                                           \
    if (current_context == nullptr || driver.context_users == 0) return CUDA_ERROR_INVALID_CONTEXT

// The legacy default stream has the handles 0, 1 and 2.
Stream* find(CUstream stream) {
    if (reinterpret_cast<size_t>(stream) <= 2) return &driver.default_stream;
    return driver.streams.count(stream) != 0 ? stream : nullptr;
}

// Ends the usefulness of a capture, and says why.
CUresult invalidate(Capture* capture, CUresult result) {
    capture->invalid = true;
    return result;
}

// Some calls must not happen during a capture on this thread, or on any thread where the capture is a global one.
CUresult refuse_during_capture() {
    for (Capture* capture : driver.captures) {
        bool mine = pthread_equal(capture->thread, pthread_self()) != 0;
        if (capture->mode == Capture::global || (capture->mode == Capture::thread_local_mode && mine))
            return invalidate(capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    }
    return CUDA_SUCCESS;
}

// Calls that wait for the copy go through the legacy stream, which would have to wait for the captured one.
CUresult refuse_synchronous_copy() {
    for (Capture* capture : driver.captures) {
        bool mine = pthread_equal(capture->thread, pthread_self()) != 0;
        if (mine || capture->mode == Capture::global || capture->origin->blocking)
            return invalidate(capture, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
    }
    return CUDA_SUCCESS;
}

CUresult run(const Work& work) {
    if (driver.lost) return CUDA_ERROR_LAUNCH_FAILED;
    if (work.is_kernel) {
        ++driver.launches;
        if ((long long)driver.launches == setting("CUDA_EMULATOR_FAIL_LAUNCH", 0)) {
            driver.lost = true;
            return CUDA_ERROR_LAUNCH_FAILED;
        }
    }
    emulator::watch_crashes();
    emulator::running = work.name;
    work.run();
    emulator::running = nullptr;
    return CUDA_SUCCESS;
}

bool lazy() { return setting("CUDA_EMULATOR_LAZY", 0) != 0; }

bool is_alive(Stream* stream) { return stream == &driver.default_stream || driver.streams.count(stream) != 0; }

size_t end_of(const Stream& stream) { return stream.done + stream.queue.size(); }

// Does what a stream has to do up to a place in it.
CUresult finish(Stream& stream, size_t position) {
    CUresult result = CUDA_SUCCESS;
    while (stream.done < position && !stream.queue.empty()) {
        std::function<CUresult()> next = std::move(stream.queue.front());
        stream.queue.pop_front();
        ++stream.done;
        CUresult one = next();
        if (result == CUDA_SUCCESS) result = one;
    }
    return result;
}

CUresult finish(Stream& stream) { return finish(stream, end_of(stream)); }

CUresult finish_all() {
    CUresult result = finish(driver.default_stream);
    for (CUstream stream : driver.streams)
        if (CUresult one = finish(*stream)) result = one;
    return result;
}

CUresult enqueue(Stream& stream, std::function<CUresult()> work) {
    // The legacy stream and the blocking ones wait for each other.
    if (&stream == &driver.default_stream) {
        for (CUstream other : driver.streams)
            if (other->blocking)
                if (CUresult result = finish(*other)) return result;
    } else if (stream.blocking) {
        if (CUresult result = finish(driver.default_stream)) return result;
    }
    stream.queue.push_back(std::move(work));
    return lazy() ? CUDA_SUCCESS : finish(stream);
}

CUresult submit(CUstream handle, Work work) {
    Stream* stream = find(handle);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (stream->capture == nullptr) return enqueue(*stream, [work = std::move(work)] { return run(work); });
    if (stream->capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    stream->capture->work.push_back(std::move(work));
    ++stream->issued;
    return CUDA_SUCCESS;
}

void leave_capture(Capture* capture) {
    for (CUstream stream : capture->streams) {
        stream->capture = nullptr;
        stream->issued = stream->joined = 0;
    }
    for (CUevent event : driver.events)
        if (event->capture == capture) event->capture = nullptr;
    driver.captures.erase(capture);
    delete capture;
}

}  // namespace

CUresult emulator_submit(CUstream stream, const char* name, std::function<void()> work) {
    ENTER_CONTEXT();
    return submit(stream, Work{name, false, std::move(work)});
}

// ------------------------------------------------------------------------------------- errors and versions

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

// ------------------------------------------------------------------------------------------------- device

EMULATOR_API CUresult cuInit(unsigned flags) {
    std::lock_guard<std::recursive_mutex> guard(driver.lock);
    if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
    if (setting("CUDA_EMULATOR_DEVICES", 1) == 0) return CUDA_ERROR_NO_DEVICE;
    driver.initialized = true;
    return CUDA_SUCCESS;
}

EMULATOR_API CUresult cuDeviceGetCount(int* count) {
    *count = setting("CUDA_EMULATOR_DEVICES", 1) == 0 ? 0 : 1;
    return driver.initialized ? CUDA_SUCCESS : CUDA_ERROR_NOT_INITIALIZED;
}

EMULATOR_API CUresult cuDeviceGet(CUdevice* device, int ordinal) {
    if (!driver.initialized) return CUDA_ERROR_NOT_INITIALIZED;
    if (ordinal != 0) return CUDA_ERROR_INVALID_DEVICE;
    *device = 0;
    return CUDA_SUCCESS;
}

EMULATOR_API CUresult cuDeviceGetName(char* name, int length, CUdevice device) {
    if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
    snprintf(name, size_t(length), "Emulated GPU");
    return CUDA_SUCCESS;
}

EMULATOR_API CUresult cuDeviceGetUuid_v2(unsigned char* uuid, CUdevice device) {
    if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
    memcpy(uuid, "emulated GPU 000", 16);
    return CUDA_SUCCESS;
}

EMULATOR_API CUresult cuDeviceTotalMem_v2(size_t* bytes, CUdevice device) {
    if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
    *bytes = emulator::DeviceMemory::total();
    return CUDA_SUCCESS;
}

EMULATOR_API CUresult cuDeviceGetAttribute(int* value, int attribute, CUdevice device) {
    if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
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
        case 16: *value = 132; break;                                 // multiprocessors
        case 36: *value = 2619000; break;                             // memory clock in kHz
        case 37: *value = 5120; break;                                // memory bus
        case 38: *value = 50 * 1024 * 1024; break;                    // L2
        case 39: *value = 2048; break;                                // threads a multiprocessor
        case 40: *value = 3; break;                                   // copy engines
        case 75: *value = 9; break;                                   // compute capability
        case 76: *value = 0; break;
        case 81: *value = 228 * 1024; break;                          // shared memory a multiprocessor
        case 97: *value = int(emulator::shared_limit); break;         // shared memory a block may ask for
        case 106: *value = 32; break;                                 // blocks a multiprocessor
        case 111: *value = 1024; break;                               // reserved shared memory
        default: *value = 0;                                          // memory pools among them
    }
    return CUDA_SUCCESS;
}

// ------------------------------------------------------------------------------------------------ context

EMULATOR_API CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
    ENTER();
    if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
    ++driver.context_users;
    *context = &driver.context;
    return CUDA_SUCCESS;
}

EMULATOR_API CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    ENTER();
    if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
    if (driver.context_users == 0) return CUDA_ERROR_INVALID_CONTEXT;
    // Memory goes with the last user, as with a real context.
    if (--driver.context_users > 0) return CUDA_SUCCESS;
    CUresult result = finish_all();
    driver.memory.release_all();
    return result;
}

EMULATOR_API CUresult cuCtxSetCurrent(CUcontext context) {
    ENTER();
    if (context != nullptr && context != &driver.context) return CUDA_ERROR_INVALID_CONTEXT;
    current_context = context;
    return CUDA_SUCCESS;
}

EMULATOR_API CUresult cuCtxGetCurrent(CUcontext* context) {
    ENTER();
    *context = driver.context_users > 0 ? current_context : nullptr;
    return CUDA_SUCCESS;
}

EMULATOR_API CUresult cuCtxGetDevice(CUdevice* device) {
    ENTER_CONTEXT();
    *device = 0;
    return CUDA_SUCCESS;
}

EMULATOR_API CUresult cuCtxSynchronize() {
    ENTER_CONTEXT();
    for (Capture* capture : driver.captures) return invalidate(capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    return finish_all();
}

EMULATOR_API CUresult cuCtxGetStreamPriorityRange(int* least, int* greatest) {
    ENTER_CONTEXT();
    if (least != nullptr) *least = 0;
    if (greatest != nullptr) *greatest = -5;
    return CUDA_SUCCESS;
}

// ------------------------------------------------------------------------------------------------- memory

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
    if (CUresult result = finish_all()) return result;
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
    if (CUresult result = finish_all()) return result;
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
    bool waits = stream->capture == nullptr && lazy();
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

// ------------------------------------------------------------------------------------- streams and events

EMULATOR_API CUresult cuStreamCreate(CUstream* stream, unsigned flags) {
    ENTER_CONTEXT();
    if (flags > 1) return CUDA_ERROR_INVALID_VALUE;
    *stream = new Stream;
    (*stream)->blocking = flags == 0;
    driver.streams.insert(*stream);
    return CUDA_SUCCESS;
}

EMULATOR_API CUresult cuStreamCreateWithPriority(CUstream* stream, unsigned flags, int) {
    return cuStreamCreate(stream, flags);
}

EMULATOR_API CUresult cuStreamDestroy_v2(CUstream stream) {
    ENTER_CONTEXT();
    if (driver.streams.count(stream) == 0) return CUDA_ERROR_INVALID_HANDLE;
    if (stream->capture != nullptr) leave_capture(stream->capture);
    CUresult result = finish(*stream);
    driver.streams.erase(stream);
    delete stream;
    return result;
}

namespace {

// Those who only ask find the work unfinished, but a little less so.
CUresult ask(Stream& stream, size_t position) {
    if (stream.done >= position) return CUDA_SUCCESS;
    if (CUresult result = finish(stream, stream.done + 1)) return result;
    return CUDA_ERROR_NOT_READY;
}

CUresult wait_or_ask(CUstream handle, bool wait) {
    ENTER_CONTEXT();
    Stream* stream = find(handle);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (stream->capture != nullptr) return invalidate(stream->capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    return wait ? finish(*stream) : ask(*stream, end_of(*stream));
}

CUresult wait_or_ask(CUevent event, bool wait) {
    ENTER_CONTEXT();
    if (driver.events.count(event) == 0) return CUDA_ERROR_INVALID_HANDLE;
    if (event->capture != nullptr) return invalidate(event->capture, CUDA_ERROR_CAPTURED_EVENT);
    if (!event->recorded || !is_alive(event->stream)) return CUDA_SUCCESS;
    return wait ? finish(*event->stream, event->position) : ask(*event->stream, event->position);
}

}  // namespace

EMULATOR_API CUresult cuStreamSynchronize(CUstream stream) { return wait_or_ask(stream, true); }

EMULATOR_API CUresult cuStreamQuery(CUstream stream) { return wait_or_ask(stream, false); }

EMULATOR_API CUresult cuEventCreate(CUevent* event, unsigned flags) {
    ENTER_CONTEXT();
    if (flags > 7) return CUDA_ERROR_INVALID_VALUE;
    *event = new Event;
    (*event)->timed = (flags & 2) == 0;
    driver.events.insert(*event);
    return CUDA_SUCCESS;
}

EMULATOR_API CUresult cuEventDestroy_v2(CUevent event) {
    ENTER_CONTEXT();
    if (driver.events.erase(event) == 0) return CUDA_ERROR_INVALID_HANDLE;
    delete event;
    return CUDA_SUCCESS;
}

EMULATOR_API CUresult cuEventRecord(CUevent event, CUstream handle) {
    ENTER_CONTEXT();
    Stream* stream = find(handle);
    if (stream == nullptr || driver.events.count(event) == 0) return CUDA_ERROR_INVALID_HANDLE;
    event->capture = stream->capture;
    event->stream = stream;
    event->recorded = stream->capture == nullptr;
    if (stream->capture != nullptr) {
        if (stream->capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
        event->position = stream->issued;
        return CUDA_SUCCESS;
    }
    event->time = std::make_shared<Event::Time>();
    event->position = end_of(*stream) + 1;
    return enqueue(*stream, [time = event->time] {
        *time = std::chrono::steady_clock::now();
        return CUDA_SUCCESS;
    });
}

EMULATOR_API CUresult cuStreamWaitEvent(CUstream handle, CUevent event, unsigned) {
    ENTER_CONTEXT();
    Stream* stream = find(handle);
    if (stream == nullptr || driver.events.count(event) == 0) return CUDA_ERROR_INVALID_HANDLE;
    if (event->capture == nullptr) {
        // Work from before the capture is none of its nodes.
        if (stream->capture != nullptr && event->recorded)
            return invalidate(stream->capture, CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
        if (!event->recorded || stream == event->stream) return CUDA_SUCCESS;
        return enqueue(*stream, [other = event->stream, position = event->position] {
            return is_alive(other) ? finish(*other, position) : CUDA_SUCCESS;
        });
    }
    if (stream->capture != nullptr && stream->capture != event->capture) {
        stream->capture->invalid = true;
        return invalidate(event->capture, CUDA_ERROR_STREAM_CAPTURE_MERGE);
    }
    if (stream == &driver.default_stream) return invalidate(event->capture, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
    stream->capture = event->capture;
    stream->capture->streams.insert(stream);
    if (stream != event->stream) {
        // The wait is itself something that must be waited for.
        if (stream != stream->capture->origin) ++stream->issued;
        event->stream->joined = std::max(event->stream->joined, event->position);
    }
    return CUDA_SUCCESS;
}

EMULATOR_API CUresult cuEventSynchronize(CUevent event) { return wait_or_ask(event, true); }

EMULATOR_API CUresult cuEventQuery(CUevent event) { return wait_or_ask(event, false); }

EMULATOR_API CUresult cuEventElapsedTime(float* milliseconds, CUevent start, CUevent end) {
    ENTER_CONTEXT();
    for (CUevent event : {start, end}) {
        if (driver.events.count(event) == 0) return CUDA_ERROR_INVALID_HANDLE;
        if (event->capture != nullptr) return CUDA_ERROR_CAPTURED_EVENT;
        if (!event->recorded || !event->timed) return CUDA_ERROR_INVALID_HANDLE;
        if (is_alive(event->stream) && event->stream->done < event->position) return CUDA_ERROR_NOT_READY;
    }
    *milliseconds = std::chrono::duration<float, std::milli>(*end->time - *start->time).count();
    return CUDA_SUCCESS;
}

EMULATOR_API CUresult cuEventElapsedTime_v2(float* milliseconds, CUevent start, CUevent end) {
    return cuEventElapsedTime(milliseconds, start, end);
}

// ------------------------------------------------------------------------------------------------- modules

namespace {

// The length of a shared library in memory: the end of the last thing that its header knows of.
size_t image_size(const char* image) {
    Elf64_Ehdr header;
    memcpy(&header, image, sizeof header);
    size_t end = header.e_shoff + size_t(header.e_shnum) * header.e_shentsize;
    for (unsigned i = 0; i < header.e_shnum; ++i) {
        Elf64_Shdr section;
        memcpy(&section, image + header.e_shoff + i * header.e_shentsize, sizeof section);
        if (section.sh_type != SHT_NOBITS) end = std::max(end, size_t(section.sh_offset + section.sh_size));
    }
    return end;
}

bool write_all(int file, const char* bytes, size_t size) {
    while (size > 0) {
        ssize_t written = write(file, bytes, size);
        if (written <= 0) return false;
        bytes += written;
        size -= size_t(written);
    }
    return true;
}

}  // namespace

EMULATOR_API CUresult cuModuleLoadData(CUmodule* module, const void* image) {
    ENTER_CONTEXT();
    const char* bytes = static_cast<const char*>(image);
    std::string contents;
    // What the emulated NVRTC gives out as PTX is a comment with the place of the library.
    const char* mark = "// emulated: ";
    if (strncmp(bytes, mark, strlen(mark)) == 0) {
        std::string path = bytes + strlen(mark);
        path = path.substr(0, path.find('\n'));
        FILE* file = fopen(path.c_str(), "rb");
        if (file == nullptr) return CUDA_ERROR_INVALID_IMAGE;
        char buffer[65536];
        for (size_t size; (size = fread(buffer, 1, sizeof buffer, file)) > 0;) contents.append(buffer, size);
        fclose(file);
    } else if (memcmp(bytes, ELFMAG, SELFMAG) == 0) {
        contents.assign(bytes, image_size(bytes));
    } else {
        return CUDA_ERROR_INVALID_IMAGE;
    }

    // A file of its own, so that every load has its own variables. It stays open: the loader takes two libraries of the
    // same path for one, and the path is the number of the file.
    int file = memfd_create("kernels", MFD_CLOEXEC);
    if (file < 0 || !write_all(file, contents.data(), contents.size())) return CUDA_ERROR_OUT_OF_MEMORY;
    std::string path = "/proc/self/fd/" + std::to_string(file);
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    using Describe = const emulator::Module* (*)();
    Describe describe = library != nullptr ? reinterpret_cast<Describe>(dlsym(library, "emulator_module")) : nullptr;
    if (describe == nullptr || describe()->abi != emulator::abi_version) {
        const char* reason = dlerror();
        fprintf(stderr, "cuda emulator: cannot load a module: %s\n", reason != nullptr ? reason : "not from the emulated NVRTC");
        if (library != nullptr) dlclose(library);
        close(file);
        return CUDA_ERROR_INVALID_IMAGE;
    }
    *module = new LoadedModule{library, file, describe(), {}};
    driver.modules.insert(*module);
    return CUDA_SUCCESS;
}

EMULATOR_API CUresult cuModuleUnload(CUmodule module) {
    ENTER_CONTEXT();
    if (driver.modules.count(module) == 0) return CUDA_ERROR_INVALID_HANDLE;
    if (CUresult result = finish_all()) return result;
    driver.modules.erase(module);
    for (CUfunction function : module->functions) {
        driver.functions.erase(function);
        delete function;
    }
    dlclose(module->library);
    close(module->file);
    delete module;
    return CUDA_SUCCESS;
}

EMULATOR_API CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
    ENTER_CONTEXT();
    if (driver.modules.count(module) == 0) return CUDA_ERROR_INVALID_HANDLE;
    for (CUfunction known : module->functions)
        if (strcmp(known->kernel->name, name) == 0) {
            *function = known;
            return CUDA_SUCCESS;
        }
    for (unsigned i = 0; i < module->module->kernel_count; ++i)
        if (strcmp(module->module->kernels[i].name, name) == 0) {
            *function = new Function{module->module, &module->module->kernels[i]};
            module->functions.push_back(*function);
            driver.functions.insert(*function);
            return CUDA_SUCCESS;
        }
    return CUDA_ERROR_NOT_FOUND;
}

EMULATOR_API CUresult cuFuncGetAttribute(int* value, int attribute, CUfunction function) {
    ENTER_CONTEXT();
    if (driver.functions.count(function) == 0) return CUDA_ERROR_INVALID_HANDLE;
    switch (attribute) {
        case 0: *value = int(function->kernel->max_threads); break;
        case 1: case 2: case 3: *value = 0; break;         // static shared, constant and local memory
        case 4: *value = 32; break;                        // registers
        case 5: case 6: *value = 90; break;                // versions of PTX and binary
        case 8: *value = function->dynamic_shared_limit; break;
        case 7: *value = 0; break;
        case 9: *value = -1; break;
        default: return CUDA_ERROR_INVALID_VALUE;
    }
    return CUDA_SUCCESS;
}

EMULATOR_API CUresult cuFuncSetAttribute(CUfunction function, int attribute, int value) {
    ENTER_CONTEXT();
    if (driver.functions.count(function) == 0) return CUDA_ERROR_INVALID_HANDLE;
    if (attribute == 9) return value >= -1 && value <= 100 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    if (attribute != 8 || value < 0 || value > int(emulator::shared_limit)) return CUDA_ERROR_INVALID_VALUE;
    function->dynamic_shared_limit = value;
    return CUDA_SUCCESS;
}

EMULATOR_API CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, CUfunction function, int threads, size_t) {
    ENTER_CONTEXT();
    if (driver.functions.count(function) == 0) return CUDA_ERROR_INVALID_HANDLE;
    if (threads < 1 || threads > 1024) return CUDA_ERROR_INVALID_VALUE;
    *blocks = std::min(2048 / threads, 32);
    return CUDA_SUCCESS;
}

EMULATOR_API CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                                     unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                                     CUstream stream, void** parameters, void** extra) {
    ENTER_CONTEXT();
    if (driver.functions.count(function) == 0) return CUDA_ERROR_INVALID_HANDLE;
    if (extra != nullptr) return CUDA_ERROR_NOT_SUPPORTED;
    if (grid_x < 1 || grid_x > 0x7fffffff || grid_y < 1 || grid_y > 65535 || grid_z < 1 || grid_z > 65535)
        return CUDA_ERROR_INVALID_VALUE;
    if (block_x < 1 || block_x > 1024 || block_y < 1 || block_y > 1024 || block_z < 1 || block_z > 64)
        return CUDA_ERROR_INVALID_VALUE;
    const emulator::Kernel& kernel = *function->kernel;
    if (block_x * block_y * block_z > kernel.max_threads) return CUDA_ERROR_INVALID_VALUE;
    if (shared_bytes > unsigned(function->dynamic_shared_limit)) return CUDA_ERROR_INVALID_VALUE;
    if (kernel.parameter_count > 0 && parameters == nullptr) return CUDA_ERROR_INVALID_VALUE;

    // The caller's parameters last as long as this call.
    size_t size = 0;
    std::vector<size_t> offsets;
    for (unsigned i = 0; i < kernel.parameter_count; ++i) {
        const emulator::Parameter& parameter = kernel.parameters[i];
        size = (size + parameter.alignment - 1) / parameter.alignment * parameter.alignment;
        offsets.push_back(size);
        size += parameter.size;
    }
    // As wide as any parameter's alignment.
    struct alignas(64) Line {
        char bytes[64];
    };
    std::shared_ptr<Line[]> values(new Line[size / sizeof(Line) + 1]);
    for (unsigned i = 0; i < kernel.parameter_count; ++i)
        memcpy(values[0].bytes + offsets[i], parameters[i], kernel.parameters[i].size);

    auto run = [=] {
        std::vector<void*> pointers;
        for (size_t offset : offsets) pointers.push_back(values[0].bytes + offset);
        emulator::Launch launch = {function->module,
                                   function->kernel,
                                   {grid_x, grid_y, grid_z},
                                   {block_x, block_y, block_z},
                                   shared_bytes,
                                   pointers.data()};
        emulator::Blocks::instance().run(launch);
    };
    return submit(stream, Work{kernel.name, true, run});
}

// ------------------------------------------------------------------------------------------------- graphs

EMULATOR_API CUresult cuStreamBeginCapture_v2(CUstream handle, int mode) {
    ENTER_CONTEXT();
    Stream* stream = find(handle);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (mode < 0 || mode > 2) return CUDA_ERROR_INVALID_VALUE;
    if (stream == &driver.default_stream) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (stream->capture != nullptr) return CUDA_ERROR_ILLEGAL_STATE;
    Capture* capture = new Capture;
    capture->mode = Capture::Mode(mode);
    capture->thread = pthread_self();
    capture->origin = stream;
    capture->streams.insert(stream);
    stream->capture = capture;
    driver.captures.insert(capture);
    return CUDA_SUCCESS;
}

EMULATOR_API CUresult cuStreamEndCapture(CUstream handle, CUgraph* graph) {
    ENTER_CONTEXT();
    Stream* stream = find(handle);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    *graph = nullptr;
    Capture* capture = stream->capture;
    if (capture == nullptr) return CUDA_ERROR_ILLEGAL_STATE;
    if (capture->mode != Capture::relaxed && !pthread_equal(capture->thread, pthread_self()))
        return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
    CUresult result = CUDA_SUCCESS;
    if (capture->origin != stream) result = CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
    for (CUstream other : capture->streams)
        if (other != capture->origin && other->joined < other->issued) result = CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
    if (capture->invalid) result = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (result == CUDA_SUCCESS) {
        *graph = new Graph{std::move(capture->work)};
        driver.graphs.insert(*graph);
    }
    leave_capture(capture);
    return result;
}

EMULATOR_API CUresult cuStreamIsCapturing(CUstream handle, int* status) {
    ENTER_CONTEXT();
    Stream* stream = find(handle);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    *status = stream->capture == nullptr ? 0 : stream->capture->invalid ? 2 : 1;
    return CUDA_SUCCESS;
}

EMULATOR_API CUresult cuGraphInstantiateWithFlags(CUgraphExec* executable, CUgraph graph, unsigned long long) {
    ENTER_CONTEXT();
    if (driver.graphs.count(graph) == 0) return CUDA_ERROR_INVALID_VALUE;
    *executable = new GraphExec{graph->work};
    driver.executables.insert(*executable);
    return CUDA_SUCCESS;
}

EMULATOR_API CUresult cuGraphUpload(CUgraphExec executable, CUstream) {
    ENTER_CONTEXT();
    return driver.executables.count(executable) != 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

EMULATOR_API CUresult cuGraphLaunch(CUgraphExec executable, CUstream handle) {
    ENTER_CONTEXT();
    if (find(handle) == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (driver.executables.count(executable) == 0) return CUDA_ERROR_INVALID_VALUE;
    // Each node by itself: those of a graph within a capture become nodes of it.
    for (const Work& work : executable->work)
        if (CUresult result = submit(handle, work)) return result;
    return CUDA_SUCCESS;
}

EMULATOR_API CUresult cuGraphExecDestroy(CUgraphExec executable) {
    ENTER_CONTEXT();
    if (driver.executables.erase(executable) == 0) return CUDA_ERROR_INVALID_VALUE;
    delete executable;
    return CUDA_SUCCESS;
}

EMULATOR_API CUresult cuGraphDestroy(CUgraph graph) {
    ENTER_CONTEXT();
    if (driver.graphs.erase(graph) == 0) return CUDA_ERROR_INVALID_VALUE;
    delete graph;
    return CUDA_SUCCESS;
}

// With a null array, the number of nodes.
EMULATOR_API CUresult cuGraphGetNodes(CUgraph graph, void** nodes, size_t* count) {
    ENTER_CONTEXT();
    if (driver.graphs.count(graph) == 0) return CUDA_ERROR_INVALID_VALUE;
    if (nodes != nullptr) return CUDA_ERROR_NOT_SUPPORTED;
    *count = graph->work.size();
    return CUDA_SUCCESS;
}
