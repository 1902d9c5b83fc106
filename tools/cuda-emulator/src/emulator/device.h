// The device dialect: everything that NVRTC provides to a kernel without includes, in plain C++. It is
// prepended to every program that the emulated NVRTC compiles.
#pragma once

#include <math.h>
#include <stdio.h>
#include <string.h>

#include <utility>

#include "kernel_abi.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __grid_constant__
// Blocks of a launch run one after another, so a single copy serves them all.
#define __shared__ static
#define __constant__ static

// Names that the host headers define and NVRTC does not. A kernel that uses one must fail here too; one that
// defines it must compile.
#undef INFINITY
#undef NAN
#undef HUGE_VAL
#undef HUGE_VALF
#undef M_E
#undef M_LOG2E
#undef M_LOG10E
#undef M_LN2
#undef M_LN10
#undef M_PI
#undef M_PI_2
#undef M_PI_4
#undef M_1_PI
#undef M_2_PI
#undef M_2_SQRTPI
#undef M_SQRT2
#undef M_SQRT1_2
#define ushort kernel_ushort
#define uint kernel_uint
#define ulong kernel_ulong
#define int8_t kernel_int8_t
#define int16_t kernel_int16_t
#define int32_t kernel_int32_t
#define int64_t kernel_int64_t
#define uint8_t kernel_uint8_t
#define uint16_t kernel_uint16_t
#define uint32_t kernel_uint32_t
#define uint64_t kernel_uint64_t

// ---------------------------------------------------------------------------------------------- vectors

#define EMULATOR_VECTOR2(name, type, alignment) \
    struct alignas(alignment) name {            \
        type x, y;                              \
    };                                          \
    inline name make_##name(type x, type y) { return name{x, y}; }
#define EMULATOR_VECTOR3(name, type) \
    struct name {                    \
        type x, y, z;                \
    };                               \
    inline name make_##name(type x, type y, type z) { return name{x, y, z}; }
#define EMULATOR_VECTOR4(name, type, alignment) \
    struct alignas(alignment) name {            \
        type x, y, z, w;                        \
    };                                          \
    inline name make_##name(type x, type y, type z, type w) { return name{x, y, z, w}; }

EMULATOR_VECTOR2(float2, float, 8)
EMULATOR_VECTOR3(float3, float)
EMULATOR_VECTOR4(float4, float, 16)
EMULATOR_VECTOR2(double2, double, 16)
EMULATOR_VECTOR2(int2, int, 8)
EMULATOR_VECTOR3(int3, int)
EMULATOR_VECTOR4(int4, int, 16)
EMULATOR_VECTOR2(uint2, unsigned, 8)
EMULATOR_VECTOR3(uint3, unsigned)
EMULATOR_VECTOR4(uint4, unsigned, 16)
EMULATOR_VECTOR2(short2, short, 4)
EMULATOR_VECTOR4(short4, short, 8)
EMULATOR_VECTOR2(ushort2, unsigned short, 4)
EMULATOR_VECTOR4(ushort4, unsigned short, 8)
EMULATOR_VECTOR2(uchar2, unsigned char, 2)
EMULATOR_VECTOR4(uchar4, unsigned char, 4)
EMULATOR_VECTOR4(char4, signed char, 4)
EMULATOR_VECTOR2(longlong2, long long, 16)
EMULATOR_VECTOR2(ulonglong2, unsigned long long, 16)

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

// --------------------------------------------------------------------------------- built-in variables

static uint3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;
static const int warpSize = 32;

namespace emulator {
static unsigned lane;
static const Runtime* runtime;
alignas(1024) static unsigned char dynamic_shared[shared_limit + shared_fence];

template <class To, class From>
inline To bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "a cast of bits keeps the size");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

template <class T>
inline T shuffle(unsigned mask, T value, unsigned source) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
    unsigned long long sent = 0;
    memcpy(&sent, &value, sizeof value);
    unsigned long long received = runtime->exchange(mask, sent, source, Exchange::value);
    memcpy(&value, &received, sizeof value);
    return value;
}

// A lane may read within its own segment of `width` lanes; outside it, it gets its own value.
inline unsigned segment(int width) { return lane & ~unsigned(width - 1); }
}  // namespace emulator

// ------------------------------------------------------------------------- barriers, votes and shuffles

// Passes the line: threads of a block that wait in different barriers are reported.
#define __syncthreads() ((void)emulator::runtime->block_barrier(__LINE__, 0))
#define __syncthreads_count(predicate) (int(emulator::runtime->block_barrier(__LINE__, (predicate) != 0)))
#define __syncthreads_or(predicate) (int(emulator::runtime->block_barrier(__LINE__, (predicate) != 0) != 0))
#define __syncthreads_and(predicate) (int(emulator::runtime->block_barrier(__LINE__, (predicate) == 0) == 0))

inline void __syncwarp(unsigned mask = 0xffffffffu) {
    emulator::runtime->exchange(mask, 0, 0, emulator::Exchange::vote);
}
inline unsigned __activemask() { return emulator::runtime->active_lanes(); }
inline unsigned __ballot_sync(unsigned mask, int predicate) {
    return unsigned(emulator::runtime->exchange(mask, predicate != 0, 0, emulator::Exchange::vote));
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, !predicate) == 0; }

template <class T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
    return emulator::shuffle(mask, value, emulator::segment(width) + unsigned(source & (width - 1)));
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    unsigned source = emulator::lane + delta;
    return emulator::shuffle(mask, value, source < emulator::segment(width) + width ? source : emulator::lane);
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    bool inside = emulator::lane - emulator::segment(width) >= delta;
    return emulator::shuffle(mask, value, inside ? emulator::lane - delta : emulator::lane);
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32) {
    unsigned source = emulator::lane ^ unsigned(lanes);
    return emulator::shuffle(mask, value, source < emulator::segment(width) + width ? source : emulator::lane);
}

inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}

// --------------------------------------------------------------------------------------------- memory

// Threads run one at a time, so plain updates are atomic.
template <class T, class U>
inline T atomicAdd(T* address, U value) {
    T old = *address;
    *address = old + T(value);
    return old;
}
template <class T, class U>
inline T atomicSub(T* address, U value) {
    T old = *address;
    *address = old - T(value);
    return old;
}
template <class T, class U>
inline T atomicMax(T* address, U value) {
    T old = *address;
    if (T(value) > old) *address = T(value);
    return old;
}
template <class T, class U>
inline T atomicMin(T* address, U value) {
    T old = *address;
    if (T(value) < old) *address = T(value);
    return old;
}
template <class T, class U>
inline T atomicOr(T* address, U value) {
    T old = *address;
    *address = old | T(value);
    return old;
}
template <class T, class U>
inline T atomicAnd(T* address, U value) {
    T old = *address;
    *address = old & T(value);
    return old;
}
template <class T, class U>
inline T atomicExch(T* address, U value) {
    T old = *address;
    *address = T(value);
    return old;
}
template <class T, class U, class V>
inline T atomicCAS(T* address, U expected, V value) {
    T old = *address;
    if (old == T(expected)) *address = T(value);
    return old;
}

template <class T>
inline T __ldg(const T* address) {
    return *address;
}
template <class T>
inline T __ldcs(const T* address) {
    return *address;
}
template <class T>
inline T __ldcg(const T* address) {
    return *address;
}
template <class T, class U>
inline void __stcs(T* address, U value) {
    *address = value;
}
template <class T, class U>
inline void __stcg(T* address, U value) {
    *address = value;
}

// ------------------------------------------------------------------------------------------- integers

inline unsigned __float_as_uint(float x) { return emulator::bits<unsigned>(x); }
inline int __float_as_int(float x) { return emulator::bits<int>(x); }
inline float __uint_as_float(unsigned x) { return emulator::bits<float>(x); }
inline float __int_as_float(int x) { return emulator::bits<float>(x); }
inline long long __double_as_longlong(double x) { return emulator::bits<long long>(x); }
inline double __longlong_as_double(long long x) { return emulator::bits<double>(x); }

inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((unsigned long long)a * b >> 32); }
inline int __mulhi(int a, int b) { return int((long long)a * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(unsigned(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __brev(unsigned x) {
    unsigned reversed = 0;
    for (int bit = 0; bit < 32; ++bit) reversed |= (x >> bit & 1u) << (31 - bit);
    return reversed;
}
inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
    unsigned long long bytes = (unsigned long long)high << 32 | low;
    unsigned result = 0;
    for (int i = 0; i < 4; ++i) {
        unsigned choice = selector >> (4 * i) & 0xf;
        unsigned byte = unsigned(bytes >> (8 * (choice & 7)) & 0xff);
        if (choice & 8) byte = byte & 0x80 ? 0xff : 0;
        result |= byte << (8 * i);
    }
    return result;
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    shift &= 31;
    return shift == 0 ? high : high << shift | low >> (32 - shift);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    shift &= 31;
    return shift == 0 ? low : high << (32 - shift) | low >> shift;
}

#define EMULATOR_MIN_MAX(type, left, right)                                                \
    inline type min(left a, right b) { return (type)a < (type)b ? (type)a : (type)b; } \
    inline type max(left a, right b) { return (type)a > (type)b ? (type)a : (type)b; }
EMULATOR_MIN_MAX(int, int, int)
EMULATOR_MIN_MAX(unsigned, unsigned, unsigned)
EMULATOR_MIN_MAX(unsigned, int, unsigned)
EMULATOR_MIN_MAX(unsigned, unsigned, int)
EMULATOR_MIN_MAX(long, long, long)
EMULATOR_MIN_MAX(unsigned long, unsigned long, unsigned long)
EMULATOR_MIN_MAX(long long, long long, long long)
EMULATOR_MIN_MAX(unsigned long long, unsigned long long, unsigned long long)
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }

// --------------------------------------------------------------------------------------- mathematics

// Newer C libraries define some of these; a macro avoids the conflict.
namespace emulator {
inline double sine_of_pi(double x) {
    x = fmod(x, 2.0);
    double quarter = nearbyint(2.0 * x);
    double angle = (x - 0.5 * quarter) * 3.14159265358979323846;
    switch (int(quarter) & 3) {
        case 0: return sin(angle);
        case 1: return cos(angle);
        case 2: return -sin(angle);
        default: return -cos(angle);
    }
}
inline double cosine_of_pi(double x) {
    x = fmod(fabs(x), 2.0);
    double quarter = nearbyint(2.0 * x);
    double angle = (x - 0.5 * quarter) * 3.14159265358979323846;
    switch (int(quarter) & 3) {
        case 0: return cos(angle);
        case 1: return -sin(angle);
        case 2: return -cos(angle);
        default: return sin(angle);
    }
}
inline void both_of_pi(double x, double* sine, double* cosine) {
    *sine = sine_of_pi(x);
    *cosine = cosine_of_pi(x);
}
inline void both_of_pi_f(float x, float* sine, float* cosine) {
    *sine = float(sine_of_pi(x));
    *cosine = float(cosine_of_pi(x));
}
inline float reciprocal_root_f(float x) { return 1.0f / sqrtf(x); }
inline double reciprocal_root(double x) { return 1.0 / sqrt(x); }
}  // namespace emulator
#define sinpi(x) emulator::sine_of_pi(x)
#define cospi(x) emulator::cosine_of_pi(x)
#define sinpif(x) float(emulator::sine_of_pi(x))
#define cospif(x) float(emulator::cosine_of_pi(x))
#define sincospi emulator::both_of_pi
#define sincospif emulator::both_of_pi_f
#define rsqrtf emulator::reciprocal_root_f
#define rsqrt emulator::reciprocal_root

inline float __expf(float x) { return expf(x); }
inline float __exp10f(float x) { return powf(10.0f, x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __log10f(float x) { return log10f(x); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __tanf(float x) { return tanf(x); }
inline void __sincosf(float x, float* sine, float* cosine) {
    *sine = sinf(x);
    *cosine = cosf(x);
}
inline float __powf(float x, float y) { return powf(x, y); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __frsqrt_rn(float x) { return float(1.0 / sqrt(double(x))); }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
inline double __fma_rn(double x, double y, double z) { return fma(x, y, z); }

// These must never be fused into a multiply-add. An opaque value prevents the compiler from doing so.
namespace emulator {
template <class T>
inline T unmerged(T value) {
    asm volatile("" : "+m"(value));
    return value;
}
}  // namespace emulator
inline float __fadd_rn(float x, float y) { return emulator::unmerged(x + y); }
inline float __fsub_rn(float x, float y) { return emulator::unmerged(x - y); }
inline float __fmul_rn(float x, float y) { return emulator::unmerged(x * y); }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline double __dadd_rn(double x, double y) { return emulator::unmerged(x + y); }
inline double __dsub_rn(double x, double y) { return emulator::unmerged(x - y); }
inline double __dmul_rn(double x, double y) { return emulator::unmerged(x * y); }
inline double __ddiv_rn(double x, double y) { return x / y; }

inline int __float2int_rn(float x) { return int(nearbyintf(x)); }
inline int __float2int_rz(float x) { return int(x); }
inline int __float2int_rd(float x) { return int(floorf(x)); }
inline int __float2int_ru(float x) { return int(ceilf(x)); }
inline unsigned __float2uint_rn(float x) { return unsigned(nearbyintf(x)); }
inline unsigned __float2uint_rz(float x) { return unsigned(x); }
inline unsigned __float2uint_rd(float x) { return unsigned(floorf(x)); }
inline float __int2float_rn(int x) { return float(x); }
inline float __uint2float_rn(unsigned x) { return float(x); }
inline float __double2float_rn(double x) { return float(x); }

// ---------------------------------------------------------------------------------------- registration

namespace emulator {

template <auto function>
struct Registered;

template <class... Arguments, void (*function)(Arguments...)>
struct Registered<function> {
    // At least one element: a kernel may have no parameters.
    static constexpr Parameter parameters[sizeof...(Arguments) + 1] = {{sizeof(Arguments), alignof(Arguments)}..., {0, 1}};

    template <size_t... index>
    static void call(void** values, std::index_sequence<index...>) {
        function(*static_cast<Arguments*>(values[index])...);
    }
    static void run(void** values) { call(values, std::make_index_sequence<sizeof...(Arguments)>()); }

    static constexpr Kernel kernel(const char* name, unsigned max_threads) {
        return Kernel{name, &run, parameters, sizeof...(Arguments), max_threads};
    }
};

}  // namespace emulator

// Last: without headers, NVRTC has no standard library either.
#define std standard_library_is_not_there
