// The subset of the driver's types that the emulated libraries share.
#pragma once

#include <stddef.h>

#include <functional>

// Names and values of results, as in the driver API.
#define EMULATOR_RESULTS(each)                                                                         \
    each(CUDA_SUCCESS, 0, "no error")                                                                  \
    each(CUDA_ERROR_INVALID_VALUE, 1, "invalid argument")                                              \
    each(CUDA_ERROR_OUT_OF_MEMORY, 2, "out of memory")                                                 \
    each(CUDA_ERROR_NOT_INITIALIZED, 3, "initialization error")                                        \
    each(CUDA_ERROR_NO_DEVICE, 100, "no CUDA-capable device is detected")                              \
    each(CUDA_ERROR_INVALID_DEVICE, 101, "invalid device ordinal")                                     \
    each(CUDA_ERROR_INVALID_IMAGE, 200, "device kernel image is invalid")                              \
    each(CUDA_ERROR_INVALID_CONTEXT, 201, "invalid device context")                                    \
    each(CUDA_ERROR_INVALID_HANDLE, 400, "invalid resource handle")                                    \
    each(CUDA_ERROR_ILLEGAL_STATE, 401, "the operation cannot be performed in the present state")      \
    each(CUDA_ERROR_NOT_FOUND, 500, "named symbol not found")                                          \
    each(CUDA_ERROR_NOT_READY, 600, "device not ready")                                                \
    each(CUDA_ERROR_ILLEGAL_ADDRESS, 700, "an illegal memory access was encountered")                  \
    each(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, 701, "too many resources requested for launch")           \
    each(CUDA_ERROR_LAUNCH_FAILED, 719, "unspecified launch failure")                                  \
    each(CUDA_ERROR_NOT_SUPPORTED, 801, "operation not supported")                                     \
    each(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, 900, "operation not permitted when stream is capturing") \
    each(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, 901, "operation failed due to a previous error during capture") \
    each(CUDA_ERROR_STREAM_CAPTURE_MERGE, 902, "operation would result in a merge of separate capture sequences") \
    each(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, 903, "capture was not ended in the same stream as it began") \
    each(CUDA_ERROR_STREAM_CAPTURE_UNJOINED, 904, "capturing stream has unjoined work")                \
    each(CUDA_ERROR_STREAM_CAPTURE_ISOLATION, 905, "dependency created on uncaptured work in another stream") \
    each(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, 906, "operation would make the legacy stream depend on a capturing blocking stream") \
    each(CUDA_ERROR_CAPTURED_EVENT, 907, "operation not permitted on an event last recorded in a capturing stream") \
    each(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, 908, "attempt to terminate a thread-local capture sequence from another thread") \
    each(CUDA_ERROR_UNKNOWN, 999, "unknown error")

enum CUresult : int {
#define EMULATOR_RESULT(name, number, text) name = number,
    EMULATOR_RESULTS(EMULATOR_RESULT)
#undef EMULATOR_RESULT
};

// Handles are pointers to types private to the driver.
typedef struct Stream* CUstream;
typedef struct Event* CUevent;
typedef struct LoadedModule* CUmodule;
typedef struct Function* CUfunction;
typedef struct Graph* CUgraph;
typedef struct GraphExec* CUgraphExec;
typedef struct DeviceContext* CUcontext;
typedef int CUdevice;
typedef unsigned long long CUdeviceptr;

#define EMULATOR_API extern "C" __attribute__((visibility("default")))

// Queues work on a stream for other libraries: it is executed immediately, or, during a capture, when the
// graph runs. The work must own everything that it uses.
__attribute__((visibility("default"))) CUresult emulator_submit(CUstream stream, const char* name,
                                                                std::function<void()> work);

// The same for work that waits for other processes or threads. Each time the stream reaches the work, it calls
// `begin`, and then the returned function until that returns true. Until then the stream makes no progress;
// the caller continues.
__attribute__((visibility("default"))) CUresult emulator_submit_waiting(CUstream stream, const char* name,
                                                                        std::function<std::function<bool()>()> begin);

// Returns true if all of these bytes are within one allocation.
__attribute__((visibility("default"))) bool emulator_contains(CUdeviceptr address, size_t size);
