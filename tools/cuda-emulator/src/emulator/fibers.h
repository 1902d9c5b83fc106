// Interface between the driver and the kernel scheduler.
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

// Runs all blocks of a launch, one after another.
void run_blocks(const Launch& launch);

// The work in progress, for crash messages. Guarded by the driver's lock.
extern const char* running;

// Enables crash messages that name the work in progress.
void watch_crashes();

}  // namespace emulator
