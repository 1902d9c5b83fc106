// Runs the blocks of a launch. Every CUDA thread is a fiber with its own stack, so that it can wait in the
// middle of a kernel. A thread that never waits costs one function call: its fiber continues with the next
// thread of the block.
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#if !defined(__x86_64__) || defined(EMULATOR_UCONTEXT)
#include <ucontext.h>
#endif

#include <vector>

#include "fibers.h"

namespace emulator {

const char* running = nullptr;

namespace {

constexpr size_t stack_bytes = 128 * 1024;
constexpr size_t guard_bytes = 4096;

// ---------------------------------------------------------------------------------------------- contexts

#if defined(__x86_64__) && !defined(EMULATOR_UCONTEXT)

// `swapcontext` would make two system calls per switch for the signal mask.
extern "C" void emulator_switch(void** from, void* to);
asm(R"(
    .text
    .hidden emulator_switch
    .globl emulator_switch
    .type emulator_switch, @function
emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size emulator_switch, .-emulator_switch
)");

struct Context {
    void* stack_pointer = nullptr;

    void prepare(char* stack, size_t size, void (*entry)()) {
        void** top = reinterpret_cast<void**>(stack + size);
        top[-1] = nullptr;  // return address of `entry`
        top[-2] = reinterpret_cast<void*>(entry);
        for (int saved = 3; saved <= 8; ++saved) top[-saved] = nullptr;
        stack_pointer = top - 8;
    }
    void switch_to(Context& other) { emulator_switch(&stack_pointer, other.stack_pointer); }
};

#else

struct Context {
    ucontext_t saved;

    void prepare(char* stack, size_t size, void (*entry)()) {
        getcontext(&saved);
        saved.uc_stack.ss_sp = stack;
        saved.uc_stack.ss_size = size;
        saved.uc_link = nullptr;
        makecontext(&saved, entry, 0);
    }
    void switch_to(Context& other) { swapcontext(&saved, &other.saved); }
};

#endif

// ------------------------------------------------------------------------------------------------ launches

class Blocks {
public:
    // One per process: the driver's lock serialises launches.
    static Blocks& instance() {
        static Blocks* blocks = new Blocks;
        return *blocks;
    }

    void run(const Launch& requested) {
        launch = &requested;
        static const Runtime runtime = {
            [](int line, int predicate) { return instance().barrier(line, predicate); },
            [](unsigned mask, unsigned long long value, unsigned source, Exchange kind) {
                return instance().exchange(mask, value, source, kind);
            },
            []() { return instance().warps[instance().current / warp_lanes].live; },
        };
        const Module& module = *launch->module;
        *module.runtime = &runtime;
        memcpy(module.grid_size, launch->grid, sizeof launch->grid);
        memcpy(module.block_size, launch->block, sizeof launch->block);
        count = launch->block[0] * launch->block[1] * launch->block[2];
        threads.resize(count);
        warps.resize((count + warp_lanes - 1) / warp_lanes);
        unsigned number = 0;
        for (unsigned z = 0; z < launch->block[2]; ++z)
            for (unsigned y = 0; y < launch->block[1]; ++y)
                for (unsigned x = 0; x < launch->block[0]; ++x, ++number) {
                    threads[number].index[0] = x;
                    threads[number].index[1] = y;
                    threads[number].index[2] = z;
                }
        // The reverse order exposes missing barriers.
        const char* order = getenv("CUDA_EMULATOR_ORDER");
        reverse = order != nullptr && strcmp(order, "reverse") == 0;

        unsigned long long blocks = (unsigned long long)launch->grid[0] * launch->grid[1] * launch->grid[2];
        for (unsigned long long i = 0; i < blocks; ++i) {
            unsigned long long block = reverse ? blocks - 1 - i : i;
            module.block_index[0] = unsigned(block % launch->grid[0]);
            module.block_index[1] = unsigned(block / launch->grid[0] % launch->grid[1]);
            module.block_index[2] = unsigned(block / launch->grid[0] / launch->grid[1]);
            run_block();
        }
        launch = nullptr;
    }

    bool is_running() const { return launch != nullptr; }

    // Describes the position of a kernel that crashed.
    void describe(char* text, size_t size) const {
        const unsigned* block = launch->module->block_index;
        const unsigned* thread = launch->module->thread_index;
        snprintf(text, size, "block (%u, %u, %u), thread (%u, %u, %u)", block[0], block[1], block[2], thread[0], thread[1],
                 thread[2]);
    }

private:
    enum class Status { running, at_barrier, in_exchange };

    struct Fiber {
        Context context;
    };

    struct Thread {
        Fiber* fiber;
        Status status = Status::running;
        Exchange kind;
        unsigned index[3];
        unsigned mask;
        unsigned source;
        unsigned long long value;
        unsigned long long result;
    };

    struct Warp {
        unsigned live;
        unsigned waiting;
    };

    void run_block() {
        const Module& module = *launch->module;
        unsigned char* shared = module.dynamic_shared;
        if (launch->shared_bytes > 0) memset(shared, 0xff, launch->shared_bytes + shared_fence);

        // Threads need no explicit start: none waits at the end of a block.
        for (size_t w = 0; w < warps.size(); ++w) {
            unsigned lanes = count - unsigned(w) * warp_lanes;
            warps[w].live = lanes >= warp_lanes ? 0xffffffffu : (1u << lanes) - 1;
            warps[w].waiting = 0;
        }
        live = count;
        started = 0;
        arrived = 0;
        ready.clear();
        ready_from = 0;

        scheduler.switch_to(next());  // returns when no thread is left

        if (launch->shared_bytes > 0)
            for (unsigned i = 0; i < shared_fence; ++i)
                if (shared[launch->shared_bytes + i] != 0xff) fail("wrote behind its dynamic shared memory");
    }

    // The next context to switch to.
    Context& next() {
        if (live == 0) return scheduler;
        // Threads that can continue come first, which keeps few stacks in use.
        if (ready_from < ready.size()) {
            unsigned number = ready[ready_from++];
            if (ready_from == ready.size()) {
                ready.clear();
                ready_from = 0;
            }
            enter(number);
            return threads[number].fiber->context;
        }
        if (started < count) return spare()->context;
        deadlock();
    }

    void enter(unsigned number) {
        current = number;
        memcpy(launch->module->thread_index, threads[number].index, sizeof threads[number].index);
        *launch->module->lane = number % warp_lanes;
    }

    // ------------------------------------------------------------------------------------------- fibers

    // The fiber that starts further threads: an idle one, or a new one.
    Fiber* spare() {
        if (spares.empty()) {
            size_t size = stack_bytes + guard_bytes;
            void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            if (memory == MAP_FAILED || mprotect(memory, guard_bytes, PROT_NONE) != 0) fail("got no stack for a thread");
            // Stacks that all start at the same offset in a page would compete for the same cache lines.
            size_t shift = fibers++ * 320 % 16384;
            Fiber* fiber = new Fiber;
            fiber->context.prepare(static_cast<char*>(memory) + guard_bytes, stack_bytes - shift, &Blocks::fiber_main);
            spares.push_back(fiber);
        }
        starting = spares.back();
        spares.pop_back();
        return starting;
    }

    static void fiber_main() {
        Blocks& blocks = instance();
        Fiber* self = blocks.starting;
        for (;;) {
            while (blocks.started < blocks.count) {
                unsigned number = blocks.reverse ? blocks.count - 1 - blocks.started : blocks.started;
                ++blocks.started;
                blocks.threads[number].fiber = self;
                blocks.enter(number);
                blocks.launch->kernel->run(blocks.launch->parameters);
                blocks.finish(blocks.current);
            }
            blocks.spares.push_back(self);
            self->context.switch_to(blocks.next());
        }
    }

    void wait(Status status) {
        Thread& me = threads[current];
        me.status = status;
        me.fiber->context.switch_to(next());
    }

    void wake(unsigned number, unsigned long long result) {
        threads[number].result = result;
        // The thread that releases the others is already running.
        if (number == current) return;
        threads[number].status = Status::running;
        ready.push_back(number);
    }

    void finish(unsigned number) {
        --live;
        unsigned warp = number / warp_lanes;
        warps[warp].live &= ~(1u << number % warp_lanes);
        // The others may have waited for this one.
        if (arrived > 0 && arrived == live) release_block();
        unsigned waiting = warps[warp].waiting;
        while (waiting != 0) {
            unsigned lane = unsigned(__builtin_ctz(waiting));
            if (try_release(warp, threads[warp * warp_lanes + lane])) break;
            waiting &= waiting - 1;
        }
    }

    // ----------------------------------------------------------------------------------- waiting together

    unsigned barrier(int line, int predicate) {
        if (arrived == 0) {
            barrier_line = line;
            votes = 0;
        } else if (line != barrier_line) {
            char text[120];
            snprintf(text, sizeof text, "has threads of one block in the barriers of line %d and of line %d", barrier_line, line);
            fail(text);
        }
        votes += predicate != 0;
        ++arrived;
        unsigned me = current;
        if (arrived == live) {
            threads[me].result = votes;
            release_block();
        } else {
            wait(Status::at_barrier);
        }
        return unsigned(threads[me].result);
    }

    void release_block() {
        arrived = 0;
        for (unsigned number = 0; number < count; ++number)
            if (threads[number].status == Status::at_barrier) wake(number, votes);
    }

    unsigned long long exchange(unsigned mask, unsigned long long value, unsigned source, Exchange kind) {
        unsigned number = current;
        unsigned warp = number / warp_lanes;
        Thread& me = threads[number];
        if ((mask >> number % warp_lanes & 1) == 0) fail("has a lane that is missing in its own mask");
        me.mask = mask;
        me.value = value;
        me.source = source;
        me.kind = kind;
        warps[warp].waiting |= 1u << number % warp_lanes;
        if (!try_release(warp, me)) wait(Status::in_exchange);
        return me.result;
    }

    // Releases the lanes of a mask once all of them have arrived, with the same mask and for the same
    // operation.
    bool try_release(unsigned warp, const Thread& one) {
        unsigned mask = one.mask;
        unsigned taking_part = mask & warps[warp].live;
        if ((warps[warp].waiting & taking_part) != taking_part) return false;
        Thread* lanes = &threads[warp * warp_lanes];
        unsigned long long ballot = 0;
        for (unsigned rest = taking_part; rest != 0; rest &= rest - 1) {
            unsigned lane = unsigned(__builtin_ctz(rest));
            if (lanes[lane].mask != mask || lanes[lane].kind != one.kind) return false;
            if (lanes[lane].value != 0) ballot |= 1ull << lane;
        }
        Exchange kind = one.kind;
        warps[warp].waiting &= ~taking_part;
        for (unsigned rest = taking_part; rest != 0; rest &= rest - 1) {
            unsigned lane = unsigned(__builtin_ctz(rest));
            unsigned long long result = ballot;
            if (kind == Exchange::value) {
                unsigned source = lanes[lane].source;
                bool present = source < warp_lanes && (taking_part >> source & 1) != 0;
                // The value of an absent lane is undefined; this one reads as NaN.
                result = present ? lanes[source].value : ~0ull;
            }
            wake(warp * warp_lanes + lane, result);
        }
        return true;
    }

    // ------------------------------------------------------------------------------------------- messages

    [[noreturn]] void fail(const char* what) const {
        char place[120];
        describe(place, sizeof place);
        fprintf(stderr, "cuda emulator: kernel %s %s, in %s\n", launch->kernel->name, what, place);
        abort();
    }

    [[noreturn]] void deadlock() const {
        unsigned in_exchange = 0;
        for (const Thread& thread : threads) in_exchange += thread.status == Status::in_exchange;
        char text[200];
        snprintf(text, sizeof text, "hangs: of %u threads %u wait in the barrier of line %d, %u in a warp operation, %u have ended",
                 count, arrived, barrier_line, in_exchange, count - live);
        fail(text);
    }

    const Launch* launch = nullptr;
    Context scheduler;
    std::vector<Thread> threads;
    std::vector<Warp> warps;
    std::vector<unsigned> ready;
    size_t ready_from = 0;
    std::vector<Fiber*> spares;
    Fiber* starting = nullptr;
    size_t fibers = 0;
    unsigned count = 0, live = 0, started = 0, current = 0;
    unsigned arrived = 0, votes = 0;
    int barrier_line = 0;
    bool reverse = false;
};

// An access outside device memory ends the process as on the host; this handler reports the kernel.
struct sigaction previous_actions[65];

void report_crash(int signal, siginfo_t* information, void*) {
    if (running != nullptr) {
        char place[120] = "", text[400];
        if (Blocks::instance().is_running()) Blocks::instance().describe(place, sizeof place);
        const char* what = signal == SIGFPE ? "divided an integer by zero" : "touched memory that it must not";
        int length = snprintf(text, sizeof text, "cuda emulator: %s %s, at %p, %s\n", running, what, information->si_addr, place);
        if (write(2, text, size_t(length)) < 0) _exit(1);
    }
    sigaction(signal, &previous_actions[signal], nullptr);  // the instruction runs again and reaches the previous handler
}

}  // namespace

void run_blocks(const Launch& launch) { Blocks::instance().run(launch); }

void watch_crashes() {
    static bool watching = false;
    if (watching) return;
    watching = true;
    struct sigaction action = {};
    action.sa_sigaction = report_crash;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for (int signal : {SIGSEGV, SIGBUS, SIGFPE}) sigaction(signal, &action, &previous_actions[signal]);
}

}  // namespace emulator
