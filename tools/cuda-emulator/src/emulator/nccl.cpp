// NCCL: non-blocking communicators, and grouped sends and receives. Ranks are threads or processes; bytes pass
// through shared memory. A send ends when its bytes are in a small buffer or received, so transfers that
// deadlock with NCCL deadlock here, too. Invalid uses are rejected: see `refuse`.
//
// Differences from NCCL: `ncclCommAbort` does not wait for graphs, and streams make progress only while a thread
// of the process waits for one of them, or queries one.
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "cuda_types.h"

EMULATOR_API CUresult cuCtxGetCurrent(CUcontext* context);
EMULATOR_API CUresult cuCtxSetCurrent(CUcontext context);
EMULATOR_API CUresult cuCtxGetDevice(CUdevice* device);

// As in nccl.h.
enum ncclResult_t : int {
    ncclSuccess = 0,
    ncclUnhandledCudaError = 1,
    ncclSystemError = 2,
    ncclInternalError = 3,
    ncclInvalidArgument = 4,
    ncclInvalidUsage = 5,
    ncclRemoteError = 6,
    ncclInProgress = 7,
};

struct ncclUniqueId {
    char internal[128];
};

// The first fields, the same in all versions since 2.14.
struct ncclConfig_t {
    size_t size;
    unsigned magic;
    unsigned version;
    int blocking;
};

namespace {

constexpr int most_ranks = 16;
constexpr size_t ring_bytes = 1 << 16;
constexpr unsigned config_magic = 0xcafebeef;

// ------------------------------------------------------------------------------------------ shared memory

// Bytes in flight from one rank to another.
struct Ring {
    std::atomic<uint64_t> written;
    std::atomic<uint64_t> taken;
    char bytes[ring_bytes];

    // Writes the bytes that fit, and returns their number.
    size_t write(const char* from, size_t size) {
        uint64_t at = written.load(std::memory_order_relaxed);
        size_t count = std::min<size_t>(size, ring_bytes - (at - taken.load(std::memory_order_acquire)));
        copy(at, count, [&](char* place, size_t start, size_t piece) { memcpy(place, from + start, piece); });
        written.store(at + count, std::memory_order_release);
        return count;
    }

    // Reads the available bytes, up to `size`, and returns their number.
    size_t take(char* to, size_t size) {
        uint64_t at = taken.load(std::memory_order_relaxed);
        size_t count = std::min<size_t>(size, written.load(std::memory_order_acquire) - at);
        copy(at, count, [&](char* place, size_t start, size_t piece) { memcpy(to + start, place, piece); });
        taken.store(at + count, std::memory_order_release);
        return count;
    }

    template <class Piece>
    void copy(uint64_t at, size_t count, Piece piece) {
        size_t place = at % ring_bytes, first = std::min(count, ring_bytes - place);
        if (first > 0) piece(bytes + place, 0, first);
        if (count > first) piece(bytes, first, count - first);
    }
};

// Initially zero; followed by a ring for every pair of ranks.
struct alignas(64) Shared {
    std::atomic<int> joined;
    // Number of ranks, and the device of each, plus 1.
    std::atomic<int> ranks;
    std::atomic<int> devices[most_ranks];

    Ring* rings() { return reinterpret_cast<Ring*>(this + 1); }
    static size_t bytes(int ranks) { return sizeof(Shared) + sizeof(Ring) * size_t(ranks * ranks); }
};

std::string path_of(const ncclUniqueId& id) {
    std::string path = access("/dev/shm", W_OK) == 0 ? "/dev/shm/glowflow-nccl-" : "/tmp/glowflow-nccl-";
    for (int i = 0; i < 16; ++i) {
        char digits[3];
        snprintf(digits, sizeof digits, "%02x", unsigned(id.internal[i]) & 0xffu);
        path += digits;
    }
    return path;
}

// ------------------------------------------------------------------------------------------ communicators

// A rank and the number of a group, the first being 1, from an environment variable `RANK:GROUP`.
bool is_set_for(const char* name, int rank, uint64_t group) {
    const char* text = getenv(name);
    const char* colon = text != nullptr ? strchr(text, ':') : nullptr;
    return colon != nullptr && atoi(text) == rank && group >= strtoull(colon + 1, nullptr, 10);
}

}  // namespace

struct Transfer {
    bool sends;
    char* data;
    uint64_t bytes;
    int peer;
    CUstream stream;
};

// Never destroyed: recorded work may still refer to it.
struct ncclComm {
    int rank;
    int ranks;
    CUcontext context;
    Shared* shared;
    std::atomic<int> state{ncclInProgress};
    std::atomic<bool> aborted{false};
    bool ready = false;
    // A group that is not yet submitted to its stream, and the number of queries since it ended.
    std::vector<Transfer> group;
    int asked = 0;
    // Groups that have begun, in the stream's order.
    uint64_t begun = 0;

    Ring& ring(int from, int to) { return shared->rings()[from * ranks + to]; }
};

namespace {

std::mutex lock;
// All that are not aborted.
std::set<ncclComm*>& communicators = *new std::set<ncclComm*>;
thread_local std::string last_error = "";
thread_local int depth = 0;
thread_local ncclComm* grouped = nullptr;

ncclResult_t refuse(ncclResult_t result, std::string reason) {
    last_error = std::move(reason);
    return result;
}

bool is_alive(ncclComm* comm) {
    std::lock_guard<std::mutex> guard(lock);
    return communicators.count(comm) != 0;
}

size_t size_of(int type) {
    constexpr size_t sizes[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2};
    return type >= 0 && type < 10 ? sizes[type] : 0;
}

// A transfer in progress. Its length precedes its bytes, so that the lengths of both sides can be compared.
struct Moving {
    Transfer transfer;
    uint64_t header = 0, header_done = 0, done = 0;

    // Continues it, and returns true once it is complete.
    bool move(ncclComm& comm) {
        Ring& ring = transfer.sends ? comm.ring(comm.rank, transfer.peer) : comm.ring(transfer.peer, comm.rank);
        char* word = reinterpret_cast<char*>(&header);
        if (transfer.sends) {
            header = transfer.bytes;
            if (header_done < 8) header_done += ring.write(word + header_done, 8 - header_done);
            if (header_done == 8) done += ring.write(transfer.data + done, transfer.bytes - done);
            return header_done == 8 && done == transfer.bytes;
        }
        if (header_done < 8) header_done += ring.take(word + header_done, 8 - header_done);
        if (header_done < 8) return false;
        if (header != transfer.bytes) {
            fprintf(stderr, "nccl emulator: rank %d receives %llu bytes, but rank %d sends %llu\n", comm.rank,
                    (unsigned long long)transfer.bytes, transfer.peer, (unsigned long long)header);
            abort();
        }
        done += ring.take(transfer.data + done, transfer.bytes - done);
        return done == transfer.bytes;
    }
};

// One run of a group, as a function that returns true once it is complete. Transfers with different peers
// progress concurrently.
std::function<bool()> run_of(ncclComm* comm, const std::vector<Transfer>& group) {
    std::vector<Moving> all;
    for (const Transfer& transfer : group) all.push_back(Moving{transfer});
    uint64_t number = ++comm->begun;
    return [comm, number, all]() mutable {
        if (comm->aborted) return true;
        if (is_set_for("NCCL_EMULATOR_ERROR", comm->rank, number)) {
            comm->state = ncclRemoteError;
            return false;
        }
        if (is_set_for("NCCL_EMULATOR_SILENT", comm->rank, number)) return false;
        bool complete = true;
        std::set<std::pair<bool, int>> waiting;
        for (Moving& moving : all) {
            std::pair<bool, int> way(moving.transfer.sends, moving.transfer.peer);
            if (waiting.count(way) != 0) continue;
            if (!moving.move(*comm)) {
                complete = false;
                waiting.insert(way);
            }
        }
        return complete;
    };
}

ncclResult_t check(ncclComm* comm) {
    if (!is_alive(comm)) return refuse(ncclInvalidArgument, "invalid or aborted communicator");
    if (comm->state == ncclInProgress)
        return refuse(ncclInvalidArgument, "the communicator is used before the previous operation returned ncclSuccess");
    if (comm->state != ncclSuccess) return refuse(ncclInvalidUsage, "the communicator has failed");
    return ncclSuccess;
}

ncclResult_t add(ncclComm* comm, bool sends, const void* data, size_t count, int type, int peer, CUstream stream) {
    if (ncclResult_t result = check(comm)) return result;
    size_t bytes = count * size_of(type);
    if (depth == 0) return refuse(ncclInvalidUsage, "sends and receives belong in a group");
    if (peer < 0 || peer >= comm->ranks) return refuse(ncclInvalidArgument, "there is no such rank");
    if (bytes == 0 || !emulator_contains(CUdeviceptr(data), bytes))
        return refuse(ncclInvalidArgument, "this is not memory of a GPU");
    if (grouped != nullptr && grouped != comm) return refuse(ncclInvalidUsage, "a group has one communicator here");
    if (!comm->group.empty() && comm->group[0].stream != stream)
        return refuse(ncclInvalidUsage, "a group has one stream here");
    grouped = comm;
    comm->group.push_back(Transfer{sends, static_cast<char*>(const_cast<void*>(data)), bytes, peer, stream});
    return ncclSuccess;
}

// Updates the state once all ranks have joined: they must use different devices and agree on their number.
void look_for_others(ncclComm* comm) {
    if (comm->shared->joined < comm->ranks) return;
    comm->ready = true;
    comm->state = ncclSuccess;
    std::set<int> devices;
    for (int rank = 0; rank < comm->ranks; ++rank)
        if (!devices.insert(comm->shared->devices[rank].load()).second) comm->state = ncclInvalidUsage;
    if (comm->state != ncclSuccess) last_error = "Duplicate GPU detected: two ranks use the same device";
    if (comm->shared->ranks != comm->ranks) comm->state = ncclInvalidArgument;
}

// Submits a group to its stream, at the second query after its end.
void put(ncclComm* comm) {
    if (++comm->asked < 2) return;
    std::vector<Transfer> group = std::move(comm->group);
    comm->group.clear();
    CUcontext before = nullptr;
    cuCtxGetCurrent(&before);
    cuCtxSetCurrent(comm->context);
    CUresult result = emulator_submit_waiting(group[0].stream, "an NCCL group", [comm, group] { return run_of(comm, group); });
    cuCtxSetCurrent(before);
    // Work that has begun may have failed already.
    int expected = ncclInProgress;
    comm->state.compare_exchange_strong(expected, result == CUDA_SUCCESS ? ncclSuccess : ncclUnhandledCudaError);
}

}  // namespace

// ---------------------------------------------------------------------------------------------- functions

EMULATOR_API ncclResult_t ncclGetVersion(int* version) {
    const char* text = getenv("NCCL_EMULATOR_VERSION");
    *version = text != nullptr ? atoi(text) : 23007;
    return ncclSuccess;
}

EMULATOR_API const char* ncclGetErrorString(ncclResult_t result) {
    switch (result) {
        case ncclSuccess: return "no error";
        case ncclUnhandledCudaError: return "unhandled cuda error (run with NCCL_DEBUG=INFO for details)";
        case ncclSystemError: return "unhandled system error (run with NCCL_DEBUG=INFO for details)";
        case ncclInternalError: return "internal error - please report this issue to the NCCL developers";
        case ncclInvalidArgument: return "invalid argument (run with NCCL_DEBUG=WARN for details)";
        case ncclInvalidUsage: return "invalid usage (run with NCCL_DEBUG=WARN for details)";
        case ncclRemoteError: return "remote process exited or there was a network error";
        case ncclInProgress: return "NCCL operation in progress";
    }
    return "unknown result code";
}

EMULATOR_API const char* ncclGetLastError(ncclComm*) { return last_error.c_str(); }

EMULATOR_API ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
    memset(id, 0, sizeof *id);
    int random = open("/dev/urandom", O_RDONLY);
    if (random < 0) return refuse(ncclSystemError, "no random numbers");
    bool done = read(random, id->internal, 16) == 16;
    close(random);
    return done ? ncclSuccess : refuse(ncclSystemError, "no random numbers");
}

EMULATOR_API ncclResult_t ncclCommInitRankConfig(ncclComm** comm, int ranks, ncclUniqueId id, int rank,
                                                 ncclConfig_t* config) {
    *comm = nullptr;
    if (config == nullptr || config->size < 20 || config->magic != config_magic)
        return refuse(ncclInvalidArgument, "the configuration is not that of NCCL 2.14 or later");
    if (config->version < 21400 || config->blocking != 0)
        return refuse(ncclInvalidArgument, "communicators that block are not emulated");
    if (ranks < 1 || ranks > most_ranks || rank < 0 || rank >= ranks)
        return refuse(ncclInvalidArgument, "there is no such rank");
    CUcontext context = nullptr;
    CUdevice device = 0;
    if (cuCtxGetCurrent(&context) != CUDA_SUCCESS || cuCtxGetDevice(&device) != CUDA_SUCCESS)
        return refuse(ncclUnhandledCudaError, "this thread has no device");
    std::string path = path_of(id);
    int file = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    size_t bytes = Shared::bytes(ranks);
    // Several ranks give it the same size; the first one fills it with zeros.
    void* memory = file >= 0 && ftruncate(file, off_t(bytes)) == 0
                       ? mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0)
                       : MAP_FAILED;
    if (file >= 0) close(file);
    if (memory == MAP_FAILED) return refuse(ncclSystemError, "no shared memory");
    ncclComm* made = new ncclComm;
    made->rank = rank;
    made->ranks = ranks;
    made->context = context;
    made->shared = static_cast<Shared*>(memory);
    made->shared->ranks = ranks;
    made->shared->devices[rank] = device + 1;
    // All have opened the file by the time the last one joins.
    if (++made->shared->joined == ranks) unlink(path.c_str());
    {
        std::lock_guard<std::mutex> guard(lock);
        communicators.insert(made);
    }
    *comm = made;
    return ncclInProgress;
}

EMULATOR_API ncclResult_t ncclCommGetAsyncError(ncclComm* comm, ncclResult_t* error) {
    if (!is_alive(comm)) return refuse(ncclInvalidArgument, "invalid or aborted communicator");
    if (comm->state == ncclInProgress) {
        if (!comm->ready) look_for_others(comm);
        else if (!comm->group.empty()) put(comm);
    }
    *error = ncclResult_t(comm->state.load());
    return ncclSuccess;
}

EMULATOR_API ncclResult_t ncclCommAbort(ncclComm* comm) {
    if (comm == nullptr) return ncclSuccess;
    std::lock_guard<std::mutex> guard(lock);
    if (communicators.erase(comm) == 0) return refuse(ncclInvalidArgument, "invalid or aborted communicator");
    comm->aborted = true;
    return ncclSuccess;
}

EMULATOR_API ncclResult_t ncclGroupStart() {
    ++depth;
    return ncclSuccess;
}

EMULATOR_API ncclResult_t ncclGroupEnd() {
    if (depth == 0) return refuse(ncclInvalidUsage, "ncclGroupEnd without ncclGroupStart");
    if (--depth > 0 || grouped == nullptr) return ncclSuccess;
    ncclComm* comm = grouped;
    grouped = nullptr;
    comm->asked = 0;
    comm->state = ncclInProgress;
    return ncclInProgress;
}

EMULATOR_API ncclResult_t ncclSend(const void* from, size_t count, int type, int peer, ncclComm* comm, CUstream stream) {
    return add(comm, true, from, count, type, peer, stream);
}

EMULATOR_API ncclResult_t ncclRecv(void* to, size_t count, int type, int peer, ncclComm* comm, CUstream stream) {
    return add(comm, false, to, count, type, peer, stream);
}
