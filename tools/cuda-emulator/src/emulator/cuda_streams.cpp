// The driver API: streams, events and graphs.
#include <stdlib.h>

#include <map>

#include "driver.h"

// --------------------------------------------------------------------------------------- streams and events

EMULATOR_API CUresult cuStreamCreate(CUstream* stream, unsigned flags) {
    ENTER_CONTEXT();
    if (flags > 1) return CUDA_ERROR_INVALID_VALUE;
    *stream = new Stream;
    (*stream)->context = current_context;
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

// A query does not wait: it executes one step of the queue, and reports whether all steps are done.
CUresult ask(Stream& stream, size_t position) {
    if (stream.done >= position) return CUDA_SUCCESS;
    // In the lazy mode, one item at a time; otherwise only work that waits for others is in the queue.
    if (CUresult result = advance(stream, lazy() ? stream.done + 1 : position)) return result;
    return lazy() || stream.done < position ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS;
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
        event->steps = stream->capture->steps_of(stream);
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
        // Work that precedes the capture is not one of its nodes.
        if (stream->capture != nullptr && event->recorded)
            return invalidate(stream->capture, CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
        if (!event->recorded || stream == event->stream) return CUDA_SUCCESS;
        return enqueue(*stream, [other = event->stream, position = event->position] {
            return is_alive(other) ? advance(*other, position) : CUDA_SUCCESS;
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
        stream->capture->steps.push_back(Step{stream, {}, event->stream, event->steps});
        // The wait itself must also be joined.
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

// --------------------------------------------------------------------------------------------------- graphs

namespace {

// An order in which a graph's nodes may run: that of the capture, or one in which all work is deferred until
// it is waited for.
struct Order {
    const Capture& capture;
    std::vector<Work> work;
    std::map<CUstream, size_t> done;

    void until(CUstream stream, size_t steps) {
        while (done[stream] < steps) {
            const Step& step = of(stream, done[stream]++);
            if (step.awaited != nullptr) until(step.awaited, step.steps);
            else work.push_back(step.work);
        }
    }

    const Step& of(CUstream stream, size_t index) const {
        for (const Step& step : capture.steps)
            if (step.stream == stream && index-- == 0) return step;
        abort();
    }
};

std::vector<Work> nodes_of(const Capture& capture) {
    Order order{capture, {}, {}};
    if (lazy()) {
        // The origin waits for all others, otherwise the capture would be incomplete.
        order.until(capture.origin, capture.steps_of(capture.origin));
        return order.work;
    }
    for (const Step& step : capture.steps)
        if (step.awaited == nullptr) order.work.push_back(step.work);
    return order.work;
}

}  // namespace

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
        *graph = new Graph{nodes_of(*capture)};
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
    // One node each: the nodes of a graph within a capture become nodes of the capture.
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

// With a null array, returns the number of nodes.
EMULATOR_API CUresult cuGraphGetNodes(CUgraph graph, void** nodes, size_t* count) {
    ENTER_CONTEXT();
    if (driver.graphs.count(graph) == 0) return CUDA_ERROR_INVALID_VALUE;
    if (nodes != nullptr) return CUDA_ERROR_NOT_SUPPORTED;
    *count = graph->work.size();
    return CUDA_SUCCESS;
}
