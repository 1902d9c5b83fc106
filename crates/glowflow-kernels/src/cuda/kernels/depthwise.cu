// Depthwise convolutions of stride 1 with zero padding: each channel of [rows, channels] has its own taps in
// [size, size, channels]. Adjacent threads have adjacent channels.

// Neighbours in a line whose sums one thread has in registers; as in `depthwise.rs`.
const int DEPTHWISE_NEIGHBOURS = 8;

// The convolution at neighbouring pixels of a line, from column `left` on. `back` computes the gradient by
// the input: taps are read in the opposite order, and sums are added to y.
template <int size>
__device__ __forceinline__ void convolve_neighbours(
    int line, int left, int c, Plane plane, int channels, int back, const float *x, const float *taps,
    float *y) {
    const int reach = size / 2, all = DEPTHWISE_NEIGHBOURS + size - 1;
    int height = plane.height.value, width = plane.width.value;
    int row = line - divided(line, plane.height) * height;
    float sums[DEPTHWISE_NEIGHBOURS] = {};
    for (int ky = 0; ky < size; ky++) {
        if ((u32)(row + ky - reach) >= (u32)height) {
            continue;
        }
        const float *from = &x[(line + ky - reach) * width * channels + c];
        float window[all];
#pragma unroll
        for (int i = 0; i < all; i++) {
            int column = left + i - reach;
            window[i] = (u32)column < (u32)width ? from[column * channels] : 0.0f;
        }
#pragma unroll
        for (int kx = 0; kx < size; kx++) {
            int tap = ky * size + kx;
            float by = taps[(back ? size * size - 1 - tap : tap) * channels + c];
#pragma unroll
            for (int p = 0; p < DEPTHWISE_NEIGHBOURS; p++) {
                sums[p] += by * window[p + kx];
            }
        }
    }
#pragma unroll
    for (int p = 0; p < DEPTHWISE_NEIGHBOURS; p++) {
        if (left + p < width) {
            float *to = &y[(line * width + left + p) * channels + c];
            *to = back ? *to + sums[p] : sums[p];
        }
    }
}

// One thread for each channel of each block of neighbours, of which a line has `blocks`.
extern "C" __global__ void depthwise(
    int count, Plane plane, Divisor channels, Divisor blocks, int size, int back, const float *x,
    const float *taps, float *y) {
    int n = global_index();
    if (n >= count) {
        return;
    }
    int block = divided(n, channels), line = divided(block, blocks);
    int c = n - block * channels.value, left = (block - line * blocks.value) * DEPTHWISE_NEIGHBOURS;
    switch (size) {
    case 1: convolve_neighbours<1>(line, left, c, plane, channels.value, back, x, taps, y); break;
    case 3: convolve_neighbours<3>(line, left, c, plane, channels.value, back, x, taps, y); break;
    case 5: convolve_neighbours<5>(line, left, c, plane, channels.value, back, x, taps, y); break;
    case 7: convolve_neighbours<7>(line, left, c, plane, channels.value, back, x, taps, y); break;
    }
}

// The sums of row `ky` of the taps over the lines from `first` on, written to `to` [size, channels].
template <int size>
__device__ __forceinline__ void sum_taps(
    int first, int end, int ky, int c, Plane plane, int channels, const float *x, const float *dy,
    float *to) {
    const int reach = size / 2;
    int height = plane.height.value, width = plane.width.value;
    float sums[size] = {};
    for (int line = first; line < end; line++) {
        int row = line - divided(line, plane.height) * height;
        if ((u32)(row + ky - reach) >= (u32)height) {
            continue;
        }
        const float *from = &x[(line + ky - reach) * width * channels + c];
        const float *by = &dy[line * width * channels + c];
        // The pixels that the taps look at from the column before the first one.
        float window[size];
#pragma unroll
        for (int i = 0; i < size; i++) {
            int column = i - 1 - reach;
            window[i] = (u32)column < (u32)width ? from[column * channels] : 0.0f;
        }
        for (int column = 0; column < width; column++) {
#pragma unroll
            for (int i = 0; i + 1 < size; i++) {
                window[i] = window[i + 1];
            }
            window[size - 1] = column + reach < width ? from[(column + reach) * channels] : 0.0f;
            float d = by[column * channels];
#pragma unroll
            for (int i = 0; i < size; i++) {
                sums[i] += window[i] * d;
            }
        }
    }
#pragma unroll
    for (int i = 0; i < size; i++) {
        to[i * channels + c] = sums[i];
    }
}

// The gradient of the taps, in parts of `part` lines each: [parts, size, size, channels]. blockIdx.x is the
// part, and one thread computes a row of the taps of a channel.
extern "C" __global__ void depthwise_taps(
    int lines, int part, Plane plane, int channels, int size, const float *x, const float *dy, float *sums) {
    int n = blockIdx.y * blockDim.x + threadIdx.x;
    if (n >= size * channels) {
        return;
    }
    int ky = n / channels, c = n - ky * channels;
    int first = blockIdx.x * part, end = min(lines, first + part);
    float *to = &sums[(blockIdx.x * size + ky) * size * channels];
    switch (size) {
    case 1: sum_taps<1>(first, end, ky, c, plane, channels, x, dy, to); break;
    case 3: sum_taps<3>(first, end, ky, c, plane, channels, x, dy, to); break;
    case 5: sum_taps<5>(first, end, ky, c, plane, channels, x, dy, to); break;
    case 7: sum_taps<7>(first, end, ky, c, plane, channels, x, dy, to); break;
    }
}
