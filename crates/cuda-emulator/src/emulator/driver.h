// The state of the emulated driver, and how work gets onto streams. One device, whose memory is the processor's, and one
// lock, so that one caller at a time does its work.
#pragma once

#include <stdlib.h>

#include <algorithm>
#include <map>
#include <mutex>

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

// Never destroyed: threads may still call while the process exits.
inline Driver& driver = *new Driver;

inline thread_local CUcontext current_context = nullptr;

inline long long setting(const char* name, long long otherwise) {
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
inline Stream* find(CUstream stream) {
    if (reinterpret_cast<size_t>(stream) <= 2) return &driver.default_stream;
    return driver.streams.count(stream) != 0 ? stream : nullptr;
}

// Invalidates a capture and returns the reason.
inline CUresult invalidate(Capture* capture, CUresult result) {
    capture->invalid = true;
    return result;
}

// Some calls are not allowed during a capture on this thread, or on any thread during a global capture.
inline CUresult refuse_during_capture() {
    for (Capture* capture : driver.captures) {
        bool mine = pthread_equal(capture->thread, pthread_self()) != 0;
        if (capture->mode == Capture::global || (capture->mode == Capture::thread_local_mode && mine))
            return invalidate(capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    }
    return CUDA_SUCCESS;
}

// Synchronous copies use the legacy stream, which would have to wait for the captured one.
inline CUresult refuse_synchronous_copy() {
    for (Capture* capture : driver.captures) {
        bool mine = pthread_equal(capture->thread, pthread_self()) != 0;
        if (mine || capture->mode == Capture::global || capture->origin->blocking)
            return invalidate(capture, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
    }
    return CUDA_SUCCESS;
}

inline CUresult run(const Work& work) {
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

inline bool lazy() { return setting("CUDA_EMULATOR_LAZY", 0) != 0; }

inline bool is_alive(Stream* stream) { return stream == &driver.default_stream || driver.streams.count(stream) != 0; }

inline size_t end_of(const Stream& stream) { return stream.done + stream.queue.size(); }

// Does what a stream has to do up to a place in it.
inline CUresult finish(Stream& stream, size_t position) {
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

inline CUresult finish(Stream& stream) { return finish(stream, end_of(stream)); }

inline CUresult finish_all() {
    CUresult result = finish(driver.default_stream);
    for (CUstream stream : driver.streams)
        if (CUresult one = finish(*stream)) result = one;
    return result;
}

inline CUresult enqueue(Stream& stream, std::function<CUresult()> work) {
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

inline CUresult submit(CUstream handle, Work work) {
    Stream* stream = find(handle);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (stream->capture == nullptr) return enqueue(*stream, [work = std::move(work)] { return run(work); });
    if (stream->capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    stream->capture->steps.push_back(Step{stream, std::move(work), nullptr, 0});
    ++stream->issued;
    return CUDA_SUCCESS;
}

inline void leave_capture(Capture* capture) {
    for (CUstream stream : capture->streams) {
        stream->capture = nullptr;
        stream->issued = stream->joined = 0;
    }
    for (CUevent event : driver.events)
        if (event->capture == capture) event->capture = nullptr;
    driver.captures.erase(capture);
    delete capture;
}
