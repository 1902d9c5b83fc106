// What a compiled program (the emulated "cubin") and the emulated driver know about each other.
#pragma once

namespace emulator {

constexpr unsigned abi_version = 1;
constexpr unsigned warp_lanes = 32;
// 227 KiB, what a block of an H100 may ask for.
constexpr unsigned shared_limit = 227 * 1024;
// Bytes behind the dynamic shared memory that must still hold their filling when a block ends.
constexpr unsigned shared_fence = 256;

enum class Exchange { value, vote };

// What kernels call in the driver.
struct Runtime {
    // Waits for the block; answers how many threads came with a predicate that is not zero.
    unsigned (*block_barrier)(int line, int predicate);
    // Waits for the lanes of `mask`; answers the value of lane `source`, or the bits of lanes with a value not zero.
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

// The built-in variables of a program live in the program, so that kernels read them as plain globals. Each of the
// first four points to three numbers.
struct Module {
    unsigned abi;
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
