// A whole coupling network on the tensor cores of the Hopper generation: hidden activations stay on the chip,
// except for copies that are saved for the backward pass.
//
//     forward    h1 = ReLU(in · firstᵀ + bias1), h2 = ReLU(h1 · secondᵀ + bias2),
//                out [rows, width] = h2 · lastᵀ
//     backward   the same without biases, and with masks of the nonzero activations instead of ReLUs; and
//                sums over rows of both hidden layers
//
// with in [rows, depth], first [hidden, depth], second [hidden, hidden], last [width, hidden], in bf16, out
// in f32. In the backward pass the matrices are transposes, and hidden layers are in reverse order: h1 is the
// gradient of the second.
//
// A block processes 128 rows at a time, 64 for each of two workers of 128 threads (see hidden.cu). The whole
// of h1 is in shared memory, as tiles of 64 columns; the space of its last tiles initially holds the input.
// Of h2, 128 columns at a time are in registers, from where they enter the last product. One additional
// thread loads the weights that both workers multiply by, through a ring of slots, in the order of use.

// Compilers older than CUDA 13 serialise the products (and the first versions of CUDA 12 lack some of the
// instructions); `Gpu::new` checks for this too.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL) && __CUDACC_VER_MAJOR__ >= 13

constexpr int fused_rows = hidden_workers * hidden_rows, most_hidden = 512;

// Treatment of the hidden activations; in the backward pass they are gradients, and saved.
enum class Way { drop, keep, back };

// Columns of the result per product: the width of common networks is one, two or four of these, or slightly
// less.
template <Way way> constexpr int block_width = way == Way::back ? 64 : 56;

struct FusedMaps {
    TensorMap in, first, second, last, kept1, kept2;
};

// Masks as in hidden.cu. `partial` [blocks, 8, hidden] accumulates the rows of each warp; `sums` [blocks,
// hidden] is the result.
struct Fused {
    int rows, depth, hidden, width;
    const bf16 *bias1, *bias2;
    u64 *mask1, *mask2;
    float *partial1, *partial2, *sums1, *sums2;
    float *out;
};

// `fused`, the body of all kernels.
#include "fused_hopper.cuh"

// The number is that of `block_width` column blocks in the result.

extern "C" __global__ void __launch_bounds__(128 * hidden_workers + 128, 1)
fused_1(const __grid_constant__ FusedMaps maps, const __grid_constant__ Fused of) {
    fused<Way::drop, 1>(maps, of);
}

extern "C" __global__ void __launch_bounds__(128 * hidden_workers + 128, 1)
fused_2(const __grid_constant__ FusedMaps maps, const __grid_constant__ Fused of) {
    fused<Way::drop, 2>(maps, of);
}

extern "C" __global__ void __launch_bounds__(128 * hidden_workers + 128, 1)
fused_4(const __grid_constant__ FusedMaps maps, const __grid_constant__ Fused of) {
    fused<Way::drop, 4>(maps, of);
}

extern "C" __global__ void __launch_bounds__(128 * hidden_workers + 128, 1)
fused_keeping_1(const __grid_constant__ FusedMaps maps, const __grid_constant__ Fused of) {
    fused<Way::keep, 1>(maps, of);
}

extern "C" __global__ void __launch_bounds__(128 * hidden_workers + 128, 1)
fused_keeping_2(const __grid_constant__ FusedMaps maps, const __grid_constant__ Fused of) {
    fused<Way::keep, 2>(maps, of);
}

extern "C" __global__ void __launch_bounds__(128 * hidden_workers + 128, 1)
fused_keeping_4(const __grid_constant__ FusedMaps maps, const __grid_constant__ Fused of) {
    fused<Way::keep, 4>(maps, of);
}

extern "C" __global__ void __launch_bounds__(128 * hidden_workers + 128, 1)
fused_back_1(const __grid_constant__ FusedMaps maps, const __grid_constant__ Fused of) {
    fused<Way::back, 1>(maps, of);
}

extern "C" __global__ void __launch_bounds__(128 * hidden_workers + 128, 1)
fused_back_2(const __grid_constant__ FusedMaps maps, const __grid_constant__ Fused of) {
    fused<Way::back, 2>(maps, of);
}

#endif
