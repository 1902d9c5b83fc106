// The interface between a compiled program (the emulated "cubin") and the emulated driver.
#pragma once

// Written by `src/lib.rs`.
#include "build_key.h"

namespace emulator {

// Identifies a build of the emulator. Caches may hold kernels of another one, which the driver rejects.
constexpr unsigned long long build_key = EMULATOR_BUILD_KEY;
constexpr unsigned warp_lanes = 32;
// 227 KiB, the limit for a block on an H100.
constexpr unsigned shared_limit = 227 * 1024;
// Guard bytes after the dynamic shared memory that must be unchanged when a block ends.
constexpr unsigned shared_fence = 256;

enum class Exchange { value, vote };

// Functions of the driver that kernels call.
struct Runtime {
    // Waits for the block; returns the number of threads that arrived with a non-zero predicate.
    unsigned (*block_barrier)(int line, int predicate);
    // Waits for the lanes of `mask`; returns the value of lane `source`, or the bits of lanes with a non-zero
    // value.
    unsigned long long (*exchange)(unsigned mask, unsigned long long value, unsigned source, Exchange kind);
    unsigned (*active_lanes)();
};

struct Parameter {
    unsigned size;
    unsigned alignment;
};

struct Kernel {
    const char* name;
    void (*run)(void** parameters);
    const Parameter* parameters;
    unsigned parameter_count;
    unsigned max_threads;
};

// The built-in variables are stored in the program, so kernels read them as plain globals. Each of the first
// four points to three values.
struct Module {
    unsigned long long build_key;
    unsigned* thread_index;
    unsigned* block_index;
    unsigned* block_size;
    unsigned* grid_size;
    unsigned* lane;
    const Runtime** runtime;
    unsigned char* dynamic_shared;
    const Kernel* kernels;
    unsigned kernel_count;
};

}  // namespace emulator
