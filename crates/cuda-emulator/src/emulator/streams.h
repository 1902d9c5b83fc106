// Streams, events and graphs. A stream runs its work at once, or, where tests want to see what happens to a caller who
// does not wait, when someone waits for it. While it is captured, work goes into a record instead.
#pragma once

#include <pthread.h>

#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <vector>

#include "cuda_types.h"

struct Work {
    const char* name;
    bool is_kernel;
    std::function<void()> run;
};

// What a captured stream does next: work, or a wait for so many steps of another stream.
struct Step {
    CUstream stream;
    Work work;
    CUstream awaited;
    size_t steps;
};

// From the beginning of a capture to its end. Streams that wait for one of its events join it.
struct Capture {
    enum Mode { global, thread_local_mode, relaxed };

    Mode mode;
    pthread_t thread;
    CUstream origin;
    bool invalid = false;
    // Of all streams, in the order in which they were given.
    std::vector<Step> steps;
    std::set<CUstream> streams;

    size_t steps_of(CUstream stream) const {
        size_t count = 0;
        for (const Step& step : steps) count += step.stream == stream;
        return count;
    }
};

struct Stream {
    bool blocking = true;
    // What is still to be done, and how much has been done.
    std::deque<std::function<CUresult()>> queue;
    size_t done = 0;

    Capture* capture = nullptr;
    // How many things this stream has added to the capture, and how many of them another stream waits for.
    size_t issued = 0;
    size_t joined = 0;
};

struct Event {
    using Time = std::chrono::steady_clock::time_point;

    bool timed = true;
    bool recorded = false;
    // Set when the stream gets there, which may be after the event's own end.
    std::shared_ptr<Time> time = std::make_shared<Time>();
    // Where it was last recorded, and during which capture.
    CUstream stream = nullptr;
    size_t position = 0;
    Capture* capture = nullptr;
    // Of the stream during the capture, so far.
    size_t steps = 0;
};

struct Graph {
    std::vector<Work> work;
};

struct GraphExec {
    std::vector<Work> work;
};
