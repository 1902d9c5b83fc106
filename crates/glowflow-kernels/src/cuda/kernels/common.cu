// Definitions shared by all kernels: types, conversions, neighbours, random numbers, sums.
//
// Activations are row-major [rows, channels], rows = batch · height · width. No buffer has 2^31 elements or
// more (the host checks), so indices are `int`. A kernel accepts any number of threads that covers its work;
// the host launches one thread per element, except as documented at a kernel.
//
// The file is compiled without any headers, by NVRTC.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

// ---- elements of a coupling network's matrices: f32, or bf16 stored as bits

struct bf16 {
    u16 bits;
};

__device__ __forceinline__ float wide(float x) { return x; }
__device__ __forceinline__ float wide(bf16 x) { return __uint_as_float((u32)x.bits << 16); }

template <typename T> __device__ __forceinline__ T narrow(float x);
template <> __device__ __forceinline__ float narrow<float>(float x) { return x; }
// Rounds to nearest, ties to even; NaN stays NaN.
template <> __device__ __forceinline__ bf16 narrow<bf16>(float x) {
    bf16 result;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(x));
#else
    u32 bits = __float_as_uint(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        result.bits = (u16)((bits >> 16) | 0x40u);
    } else {
        result.bits = (u16)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
    }
#endif
    return result;
}

// The elements that fill 16 bytes, the unit of a thread's writes.
template <typename T> struct alignas(16) Pack {
    T values[16 / sizeof(T)];
};

__device__ __forceinline__ int global_index() { return blockIdx.x * blockDim.x + threadIdx.x; }

// ---- exact division by numbers that are the same for a whole launch (Granlund and Montgomery 1994):
//      n / d = ⌊n · multiplier / 2^32⌋ / 2^shift for n < 2^31; the host computes the multiplier, 0 for d = 1

struct Divisor {
    u32 multiplier, shift;
    int value;
};

__device__ __forceinline__ int divided(int n, Divisor d) {
    return d.multiplier ? (int)(__umulhi((u32)n, d.multiplier) >> d.shift) : n;
}

// ---- 3×3 neighbourhoods: offset k = 3·ky + kx refers to pixel (y + ky − 1, x + kx − 1)

struct Plane {
    Divisor height, width;
};

struct Pixel {
    int y, x;
};

__device__ __forceinline__ Pixel pixel_of(int row, Plane plane) {
    Pixel pixel;
    int line = divided(row, plane.width);
    pixel.x = row - line * plane.width.value;
    pixel.y = line - divided(line, plane.height) * plane.height.value;
    return pixel;
}

// The row that offset k of the pixel in `row` refers to, −1 outside the image.
__device__ __forceinline__ int neighbour(int row, Pixel at, Plane plane, int k) {
    int dy = k / 3 - 1, dx = k % 3 - 1;
    bool inside = (u32)(at.y + dy) < (u32)plane.height.value && (u32)(at.x + dx) < (u32)plane.width.value;
    return inside ? row + dy * plane.width.value + dx : -1;
}

// The same for the transposed convolution, with the opposite offset.
__device__ __forceinline__ int neighbour_back(int row, Pixel at, Plane plane, int k) {
    return neighbour(row, at, plane, 8 - k);
}

// ---- sigmoid(t) and its logarithm, both accurate at either end

__device__ __forceinline__ float sigmoid(float t, float *log_sigmoid) {
    float e = expf(-fabsf(t));
    *log_sigmoid = fminf(t, 0.0f) - log1pf(e);
    return (t < 0.0f ? e : 1.0f) / (1.0f + e);
}

// ---- Philox 4×32 with ten rounds (Salmon et al. 2011): block `index` of stream `id` of `seed`

struct Words {
    u32 w[4];
};

__device__ __forceinline__ Words philox(u64 seed, u64 id, u64 index) {
    u32 c0 = (u32)index, c1 = (u32)(index >> 32), c2 = (u32)id, c3 = (u32)(id >> 32);
    u32 k0 = (u32)seed, k1 = (u32)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        u64 a = (u64)c0 * 0xD2511F53u, b = (u64)c2 * 0xCD9E8D57u;
        c0 = (u32)(b >> 32) ^ c1 ^ k0;
        c1 = (u32)b;
        c2 = (u32)(a >> 32) ^ c3 ^ k1;
        c3 = (u32)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    Words words = {{c0, c1, c2, c3}};
    return words;
}

// The words `first` to `first + 3` of a stream: those of one block, or of two neighbours.
__device__ __forceinline__ Words words_from(u64 seed, u64 id, u64 first) {
    int skip = (int)(first % 4);
    Words words = philox(seed, id, first / 4);
    if (skip == 0) {
        return words;
    }
    Words next = philox(seed, id, first / 4 + 1), joined;
    for (int j = 0; j < 4; j++) {
        joined.w[j] = j + skip < 4 ? words.w[j + skip] : next.w[j + skip - 4];
    }
    return joined;
}

// Uniform on [0, 1), a multiple of 2^-24 and so exact in f32.
__device__ __forceinline__ float uniform(u32 word) { return (float)(word >> 8) * (1.0f / 16777216.0f); }

// ---- the sum of a warp's values; the result is lane 0's

template <typename T> __device__ __forceinline__ T warp_sum(T value) {
    for (int step = 16; step > 0; step /= 2) {
        value += __shfl_down_sync(0xffffffffu, value, step);
    }
    return value;
}

// ---- the sum of a block's values, in an order that depends on nothing but the number of threads;
//      `scratch` holds one number a warp. The result is thread 0's.

template <typename T> __device__ __forceinline__ T block_sum(T value, T *scratch) {
    value = warp_sum(value);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = (blockDim.x + 31) / 32;
    if (lane == 0) {
        scratch[warp] = value;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int w = 1; w < warps; w++) {
            value += scratch[w];
        }
    }
    __syncthreads();
    return value;
}
