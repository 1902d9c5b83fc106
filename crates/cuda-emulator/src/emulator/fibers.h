// How the driver gets a kernel run.
#pragma once

#include "kernel_abi.h"

namespace emulator {

struct Launch {
    const Module* module;
    const Kernel* kernel;
    unsigned grid[3];
    unsigned block[3];
    unsigned shared_bytes;
    void** parameters;
};

// Runs all blocks of a launch, one after the other.
void run_blocks(const Launch& launch);

// What runs at the moment, for messages about crashes. Guarded by the driver's lock.
extern const char* running;

// From now on, a crash says what was running.
void watch_crashes();

}  // namespace emulator
