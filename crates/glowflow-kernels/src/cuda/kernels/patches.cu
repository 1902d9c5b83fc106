// conv3×3 as a product: patches gathered before it where the input is narrow, shifted rows added up after it where
// the output is narrow. Nothing wide is ever shifted or padded.
//
// Columns of patches lie as k·inputs + c, then one for the edge channel at each offset, 9·inputs + k; then zeros up
// to `stride`, a multiple of 8.

// One thread for every 16 bytes of a row of patches. x has `channels` channels, of which the first `inputs` count.
template <typename T>
__device__ void patches(int rows, int height, int width, int inputs, int channels, int stride, const float *x, T *to) {
    const int at_once = 16 / sizeof(T);
    int index = global_index(), groups = stride / at_once;
    if (index >= rows * groups) {
        return;
    }
    int row = index / groups, first = index % groups * at_once;
    Pixel at = pixel_of(row, height, width);
    // Divided once; from one column to the next the channel goes up, and from the last one to the next offset.
    int k = first / inputs, c = first % inputs;
    int from = k < 9 ? neighbour(row, at, height, width, k) : -1;
    Pack<T> pack;
    for (int j = 0; j < at_once; j++) {
        int edge = first + j - 9 * inputs;
        float value = 0.0f;
        if (edge < 0) {
            value = from >= 0 ? x[from * channels + c] : 0.0f;
            if (++c == inputs) {
                c = 0;
                from = neighbour(row, at, height, width, ++k);
            }
        } else if (edge < 9) {
            value = neighbour(row, at, height, width, edge) < 0 ? 1.0f : 0.0f;
        }
        pack.values[j] = narrow<T>(value);
    }
    *(Pack<T> *)&to[row * stride + first] = pack;
}

extern "C" __global__ void patches_f32(
    int rows, int height, int width, int inputs, int channels, int stride, const float *x, float *to) {
    patches(rows, height, width, inputs, channels, stride, x, to);
}

extern "C" __global__ void patches_bf16(
    int rows, int height, int width, int inputs, int channels, int stride, const float *x, bf16 *to) {
    patches(rows, height, width, inputs, channels, stride, x, to);
}

// What each pixel's contributions became: column k·channels + c is channel c of dy [rows, channels] at the
// pixel that offset k of this one went to. One thread for every 16 bytes.
template <typename T>
__device__ void gather_back(int rows, int height, int width, int channels, int stride, const float *dy, T *to) {
    const int at_once = 16 / sizeof(T);
    int index = global_index(), groups = stride / at_once;
    if (index >= rows * groups) {
        return;
    }
    int row = index / groups, first = index % groups * at_once;
    Pixel at = pixel_of(row, height, width);
    int k = first / channels, c = first % channels;
    int from = k < 9 ? neighbour_back(row, at, height, width, k) : -1;
    Pack<T> pack;
    for (int j = 0; j < at_once; j++) {
        pack.values[j] = narrow<T>(k < 9 && from >= 0 ? dy[from * channels + c] : 0.0f);
        if (++c == channels) {
            c = 0;
            from = neighbour_back(row, at, height, width, ++k);
        }
    }
    *(Pack<T> *)&to[row * stride + first] = pack;
}

extern "C" __global__ void gather_back_f32(
    int rows, int height, int width, int channels, int stride, const float *dy, float *to) {
    gather_back(rows, height, width, channels, stride, dy, to);
}

extern "C" __global__ void gather_back_bf16(
    int rows, int height, int width, int channels, int stride, const float *dy, bf16 *to) {
    gather_back(rows, height, width, channels, stride, dy, to);
}

// Nine shifted copies added up: y[row, c] = bias[c] + Σ_k contributions[neighbour, k·channels + c], and edge[k·channels + c]
// where the neighbour lies outside.
extern "C" __global__ void add_shifted(
    int rows, int height, int width, int channels, int stride, const float *contributions, const float *edge,
    const float *bias, float *y) {
    int index = global_index();
    if (index >= rows * channels) {
        return;
    }
    int row = index / channels, c = index % channels;
    Pixel at = pixel_of(row, height, width);
    float sum = bias[c];
#pragma unroll
    for (int k = 0; k < 9; k++) {
        int from = neighbour(row, at, height, width, k);
        sum += from >= 0 ? contributions[from * stride + k * channels + c] : edge[k * channels + c];
    }
    y[index] = sum;
}

// The transposed form, added to the first `channels` of the `to_channels` channels of y.
extern "C" __global__ void add_shifted_back(
    int rows, int height, int width, int channels, int to_channels, int stride, const float *contributions, float *y) {
    int index = global_index();
    if (index >= rows * channels) {
        return;
    }
    int row = index / channels, c = index % channels;
    Pixel at = pixel_of(row, height, width);
    float sum = 0.0f;
#pragma unroll
    for (int k = 0; k < 9; k++) {
        int from = neighbour_back(row, at, height, width, k);
        if (from >= 0) {
            sum += contributions[from * stride + k * channels + c];
        }
    }
    y[row * to_channels + c] += sum;
}

// Sums over rows of dy [rows, channels] that a bias and an edge channel need: sums[slab, s, c] with s = 9 for all
// rows of a slab, and s = k for those whose neighbour at offset k lies outside. A block has 32 channels times 8
// rows at once; blockIdx.x is the slab, blockIdx.y the 32 channels.
extern "C" __global__ void edge_sums(
    int rows, int height, int width, int channels, int slab_rows, const float *dy, float *sums) {
    __shared__ float parts[8][10][32];
    int lane = threadIdx.x % 32, group = threadIdx.x / 32;
    int c = blockIdx.y * 32 + lane;
    int first = blockIdx.x * slab_rows;
    int end = min(first + slab_rows, rows);
    float sum[10];
    for (int s = 0; s < 10; s++) {
        sum[s] = 0.0f;
    }
    if (c < channels) {
        for (int row = first + group; row < end; row += 8) {
            float value = dy[row * channels + c];
            sum[9] += value;
            Pixel at = pixel_of(row, height, width);
            if (at.y == 0 || at.x == 0 || at.y == height - 1 || at.x == width - 1) {
#pragma unroll
                for (int k = 0; k < 9; k++) {
                    if (neighbour(row, at, height, width, k) < 0) {
                        sum[k] += value;
                    }
                }
            }
        }
    }
    for (int s = 0; s < 10; s++) {
        parts[group][s][lane] = sum[s];
    }
    __syncthreads();
    for (int s = group; s < 10; s += 8) {
        float total = 0.0f;
        for (int g = 0; g < 8; g++) {
            total += parts[g][s][lane];
        }
        if (c < channels) {
            sums[(blockIdx.x * 10 + s) * channels + c] = total;
        }
    }
}
