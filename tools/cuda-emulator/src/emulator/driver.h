// The state of the emulated driver, and submission of work to streams. The devices share the host's memory, and
// one lock serialises all calls.
#pragma once

#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <mutex>

#include "cuda_types.h"
#include "fibers.h"
#include "kernel_abi.h"
#include "memory.h"
#include "streams.h"

struct DeviceContext {
    int users = 0;
};

constexpr int most_devices = 16;

// A recursive lock that its owner can release temporarily, to wait for other threads.
class Lock {
public:
    void lock() {
        mutex.lock();
        ++depth;
    }
    void unlock() {
        --depth;
        mutex.unlock();
    }
    template <class Wait>
    void without(Wait wait) {
        int held = depth;
        for (int i = 0; i < held; ++i) unlock();
        wait();
        for (int i = 0; i < held; ++i) lock();
    }

private:
    std::recursive_mutex mutex;
    // Number of times that its owner holds it.
    int depth = 0;
};

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
    Lock lock;
    bool initialized = false;
    bool lost = false;
    unsigned long long launches = 0;
    DeviceContext contexts[most_devices];
    emulator::DeviceMemory memory;
    // Live handles; all others are rejected without being dereferenced.
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

// The first statement of every call that needs the device.
#define ENTER()                                                        \
    std::lock_guard<Lock> guard(driver.lock);                          \
    if (!driver.initialized) return CUDA_ERROR_NOT_INITIALIZED;        \
    if (driver.lost) return CUDA_ERROR_LAUNCH_FAILED

#define ENTER_CONTEXT()                                                \
    ENTER();                                                           \
    if (current_context == nullptr || current_context->users == 0) return CUDA_ERROR_INVALID_CONTEXT

inline int device_count() { return int(std::min<long long>(setting("CUDA_EMULATOR_DEVICES", 1), most_devices)); }

inline bool is_device(CUdevice device) { return device >= 0 && device < device_count(); }

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

// Executes a stream's queue up to a position. Returns CUDA_ERROR_NOT_READY at work that still waits for others.
inline CUresult advance(Stream& stream, size_t position) {
    CUresult result = CUDA_SUCCESS;
    while (stream.done < position && !stream.queue.empty()) {
        // It stays in the queue until it is done, so that no later work overtakes it.
        CUresult one = stream.queue.front()();
        if (one == CUDA_ERROR_NOT_READY) return one;
        stream.queue.pop_front();
        ++stream.done;
        if (result == CUDA_SUCCESS) result = one;
    }
    return result;
}

// Executes a stream's queue up to a position. Other threads may use the driver while it waits.
inline CUresult finish(Stream& stream, size_t position) {
    for (;;) {
        CUresult result = advance(stream, position);
        if (result != CUDA_ERROR_NOT_READY) return result;
        driver.lock.without([] { usleep(50); });
        if (!is_alive(&stream)) return CUDA_SUCCESS;
    }
}

inline CUresult finish(Stream& stream) { return finish(stream, end_of(stream)); }

// Other threads may create and destroy streams while one waits.
inline std::vector<CUstream> streams_now() { return {driver.streams.begin(), driver.streams.end()}; }

// Executes all work of a device.
inline CUresult finish_all(CUcontext context) {
    CUresult result = finish(driver.default_stream);
    for (CUstream stream : streams_now())
        if (is_alive(stream) && stream->context == context)
            if (CUresult one = finish(*stream)) result = one;
    return result;
}

inline CUresult enqueue(Stream& stream, std::function<CUresult()> work) {
    // The legacy stream and blocking streams wait for each other.
    if (&stream == &driver.default_stream) {
        for (CUstream other : streams_now())
            if (is_alive(other) && other->blocking)
                if (CUresult result = finish(*other)) return result;
    } else if (stream.blocking) {
        if (CUresult result = finish(driver.default_stream)) return result;
    }
    stream.queue.push_back(std::move(work));
    if (lazy()) return CUDA_SUCCESS;
    CUresult result = advance(stream, end_of(stream));
    return result == CUDA_ERROR_NOT_READY ? CUDA_SUCCESS : result;
}

// Work as an entry of a stream's queue.
inline std::function<CUresult()> entry_of(Work work) {
    if (!work.begin) return [work = std::move(work)] { return run(work); };
    return [begin = std::move(work.begin), is_done = std::function<bool()>()]() mutable {
        if (driver.lost) return CUDA_ERROR_LAUNCH_FAILED;
        if (!is_done) is_done = begin();
        return is_done() ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
    };
}

inline CUresult submit(CUstream handle, Work work) {
    Stream* stream = find(handle);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (stream->capture == nullptr) return enqueue(*stream, entry_of(std::move(work)));
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
