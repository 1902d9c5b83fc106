// Streams, events and graphs. A stream runs its work at once; while it is captured, work goes into a record instead.
#pragma once

#include <pthread.h>

#include <chrono>
#include <functional>
#include <set>
#include <vector>

#include "cuda_types.h"

struct Work {
    const char* name;
    bool is_kernel;
    std::function<void()> run;
};

// From the beginning of a capture to its end. Streams that wait for one of its events join it.
struct Capture {
    enum Mode { global, thread_local_mode, relaxed };

    Mode mode;
    pthread_t thread;
    CUstream origin;
    bool invalid = false;
    std::vector<Work> work;
    std::set<CUstream> streams;
};

struct Stream {
    bool blocking = true;
    Capture* capture = nullptr;
    // How many things this stream has added to the capture, and how many of them another stream waits for.
    size_t issued = 0;
    size_t joined = 0;
};

struct Event {
    bool timed = true;
    bool recorded = false;
    std::chrono::steady_clock::time_point time;
    // Where it was last recorded during a capture.
    Capture* capture = nullptr;
    CUstream stream = nullptr;
    size_t position = 0;
};

struct Graph {
    std::vector<Work> work;
};

struct GraphExec {
    std::vector<Work> work;
};
