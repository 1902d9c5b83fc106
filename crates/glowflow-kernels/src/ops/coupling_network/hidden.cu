// The hidden layers of a coupling network, on the tensor cores of the Hopper generation: a product with
// weights that stay in shared memory, fused with operations that would otherwise take separate passes over
// memory.
//
//     forward    d [rows, columns] = ReLU(a [rows, depth] · bᵀ + bias), and a bit for each nonzero number
//     backward   d = a · bᵀ where the bit is set, else 0; and sums over rows of d, for the bias gradient
//
// with b [columns, depth], all in bf16. A block handles 128 columns and the whole depth of b. Two workers of
// 128 threads each process tiles of 64 rows of a. One additional thread per worker loads a, 64 columns at a
// time and several steps ahead; while one worker writes its results, the other one multiplies. Block i
// handles the tile of columns i % tiles, and shares the rows with the other blocks of group i / tiles.
//
// The terms are those of the PTX manual: an mbarrier counts arrivals and bytes, and the parity of its phase
// indicates when both are complete; wgmma multiplies 64 rows by 128 columns, 16 deep, from shared memory,
// whose rows of 128 bytes are swizzled.

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

struct alignas(64) TensorMap {
    u64 opaque[16];
};

constexpr int hidden_rows = 64, hidden_columns = 128, hidden_depth = 64, hidden_workers = 2;

// Row of number n of the 64 that a thread of a worker holds of its tile: n = 4j + e is in column 8j +
// 2·(thread % 4) + e % 2.
__device__ __forceinline__ int row_held(int thread, int n) {
    return thread / 32 * 16 + thread % 32 / 4 + n % 4 / 2 * 8;
}
__device__ __forceinline__ int column_held(int thread, int n) { return n / 4 * 8 + thread % 4 * 2 + n % 2; }

// The bit of a mask for number n: numbers are in pairs, and each half of a 32-bit word holds one side of
// sixteen pairs.
__device__ __forceinline__ int bit_of(int n) { return n / 32 * 32 + n % 2 * 16 + n / 2 % 16; }

// `hidden_layer`, the body of both kernels.
#include "hidden_hopper.cuh"

// `mask` has a number for each thread of a worker and each tile, tiles of columns first; it may be null.
extern "C" __global__ void __launch_bounds__(160 * hidden_workers, 1) hidden_forward(
    int rows, int columns, int depth, const __grid_constant__ TensorMap a,
    const __grid_constant__ TensorMap b, const __grid_constant__ TensorMap d, const bf16 *bias, u64 *mask) {
    hidden_layer<false>(rows, columns, depth, &a, &b, &d, bias, mask, nullptr);
}

// `sums` [groups · workers · 4, columns]
extern "C" __global__ void __launch_bounds__(160 * hidden_workers, 1) hidden_backward(
    int rows, int columns, int depth, const __grid_constant__ TensorMap a,
    const __grid_constant__ TensorMap b, const __grid_constant__ TensorMap d, u64 *mask, float *sums) {
    hidden_layer<true>(rows, columns, depth, &a, &b, &d, nullptr, mask, sums);
}

#endif
