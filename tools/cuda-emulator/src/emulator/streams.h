// Streams, events and graphs. A stream executes its work immediately, or, if tests check for missing waits,
// when something waits for it. During a capture, work is recorded instead.
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
    // For work that waits for others, instead of `run`: makes a function to call until it returns true.
    std::function<std::function<bool()>()> begin;
};

// A step of a captured stream: work, or a wait for the first `steps` steps of another stream.
struct Step {
    CUstream stream;
    Work work;
    CUstream awaited;
    size_t steps;
};

// A capture in progress. Streams that wait for one of its events join it.
struct Capture {
    enum Mode { global, thread_local_mode, relaxed };

    Mode mode;
    pthread_t thread;
    CUstream origin;
    bool invalid = false;
    // Steps of all streams, in order of submission.
    std::vector<Step> steps;
    std::set<CUstream> streams;

    size_t steps_of(CUstream stream) const {
        size_t count = 0;
        for (const Step& step : steps) count += step.stream == stream;
        return count;
    }
};

struct Stream {
    CUcontext context = nullptr;
    bool blocking = true;
    // Pending work, and the number of completed items. Work that waits for others returns CUDA_ERROR_NOT_READY.
    std::deque<std::function<CUresult()>> queue;
    size_t done = 0;

    Capture* capture = nullptr;
    // Number of items that this stream has added to the capture, and number of those that another stream
    // waits for.
    size_t issued = 0;
    size_t joined = 0;
};

struct Event {
    using Time = std::chrono::steady_clock::time_point;

    bool timed = true;
    bool recorded = false;
    // Set when the stream reaches the event, which may be after the event is destroyed.
    std::shared_ptr<Time> time = std::make_shared<Time>();
    // The stream and the capture of the last recording.
    CUstream stream = nullptr;
    size_t position = 0;
    Capture* capture = nullptr;
    // The stream's step in the capture at that point.
    size_t steps = 0;
};

struct Graph {
    std::vector<Work> work;
};

struct GraphExec {
    std::vector<Work> work;
};
