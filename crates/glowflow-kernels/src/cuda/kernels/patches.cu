// conv3×3 as a product: patches gathered before it where the input is narrow, shifted rows added up after it where
// the output is narrow. Nothing wide is ever shifted or padded.
//
// Columns of patches lie as k·inputs + c, then one for the edge channel at each offset, 9·inputs + k; then zeros up
// to `stride`, a multiple of 8.

// One thread for every 16 bytes of a row of patches. x has `channels` channels, of which the first `inputs` count.
template <typename T>
__device__ __forceinline__ void patches(
    int rows, Plane plane, Divisor inputs_divisor, int channels, Divisor groups, const float *x, T *to) {
    const int at_once = 16 / sizeof(T);
    int index = global_index(), inputs = inputs_divisor.value;
    if (index >= rows * groups.value) {
        return;
    }
    int row = divided(index, groups), first = (index - row * groups.value) * at_once;
    Pixel at = pixel_of(row, plane);
    // Divided once; from one column to the next the channel goes up, and from the last one to the next offset.
    int k = divided(first, inputs_divisor), c = first - k * inputs;
    int from = k < 9 ? neighbour(row, at, plane, k) : -1;
    Pack<T> pack;
    for (int j = 0; j < at_once; j++) {
        int edge = first + j - 9 * inputs;
        float value = 0.0f;
        if (edge < 0) {
            value = from >= 0 ? x[from * channels + c] : 0.0f;
            if (++c == inputs) {
                c = 0;
                from = neighbour(row, at, plane, ++k);
            }
        } else if (edge < 9) {
            value = neighbour(row, at, plane, edge) < 0 ? 1.0f : 0.0f;
        }
        pack.values[j] = narrow<T>(value);
    }
    *(Pack<T> *)&to[index * at_once] = pack;
}

extern "C" __global__ void patches_f32(
    int rows, Plane plane, Divisor inputs, int channels, Divisor groups, const float *x, float *to) {
    patches(rows, plane, inputs, channels, groups, x, to);
}

extern "C" __global__ void patches_bf16(
    int rows, Plane plane, Divisor inputs, int channels, Divisor groups, const float *x, bf16 *to) {
    patches(rows, plane, inputs, channels, groups, x, to);
}

// What each pixel's contributions became: column k·channels + c is channel c of dy [rows, channels] at the
// pixel that offset k of this one went to. One thread for every 16 bytes.
template <typename T>
__device__ __forceinline__ void gather_back(
    int rows, Plane plane, Divisor channels_divisor, Divisor groups, const float *dy, T *to) {
    const int at_once = 16 / sizeof(T);
    int index = global_index(), channels = channels_divisor.value;
    if (index >= rows * groups.value) {
        return;
    }
    int row = divided(index, groups), first = (index - row * groups.value) * at_once;
    Pixel at = pixel_of(row, plane);
    int k = divided(first, channels_divisor), c = first - k * channels;
    int from = k < 9 ? neighbour_back(row, at, plane, k) : -1;
    Pack<T> pack;
    for (int j = 0; j < at_once; j++) {
        pack.values[j] = narrow<T>(k < 9 && from >= 0 ? dy[from * channels + c] : 0.0f);
        if (++c == channels) {
            c = 0;
            from = neighbour_back(row, at, plane, ++k);
        }
    }
    *(Pack<T> *)&to[index * at_once] = pack;
}

extern "C" __global__ void gather_back_f32(
    int rows, Plane plane, Divisor channels, Divisor groups, const float *dy, float *to) {
    gather_back(rows, plane, channels, groups, dy, to);
}

extern "C" __global__ void gather_back_bf16(
    int rows, Plane plane, Divisor channels, Divisor groups, const float *dy, bf16 *to) {
    gather_back(rows, plane, channels, groups, dy, to);
}

// Nine shifted copies added up: y[row, c] = bias[c] + Σ_k contributions[neighbour, k·channels + c], and edge[k·channels + c]
// where the neighbour lies outside.
extern "C" __global__ void add_shifted(
    int rows, Plane plane, Divisor channels_divisor, int stride, const float *contributions, const float *edge,
    const float *bias, float *y) {
    int index = global_index(), channels = channels_divisor.value;
    if (index >= rows * channels) {
        return;
    }
    int row = divided(index, channels_divisor), c = index - row * channels;
    Pixel at = pixel_of(row, plane);
    float sum = bias[c];
#pragma unroll
    for (int k = 0; k < 9; k++) {
        int from = neighbour(row, at, plane, k);
        sum += from >= 0 ? contributions[from * stride + k * channels + c] : edge[k * channels + c];
    }
    y[index] = sum;
}

// The transposed form, added to the first `channels` of the `to_channels` channels of y.
extern "C" __global__ void add_shifted_back(
    int rows, Plane plane, Divisor channels_divisor, int to_channels, int stride, const float *contributions, float *y) {
    int index = global_index(), channels = channels_divisor.value;
    if (index >= rows * channels) {
        return;
    }
    int row = divided(index, channels_divisor), c = index - row * channels;
    Pixel at = pixel_of(row, plane);
    float sum = 0.0f;
#pragma unroll
    for (int k = 0; k < 9; k++) {
        int from = neighbour_back(row, at, plane, k);
        if (from >= 0) {
            sum += contributions[from * stride + k * channels + c];
        }
    }
    y[row * to_channels + c] += sum;
}

// Sums over rows of dy [rows, channels] that a bias and an edge channel need: sums[slab, s, c] with s = 9 for all
// rows of a slab, and s = k for those whose neighbour at offset k lies outside. blockIdx.x is the slab, blockIdx.y the 128
// channels of which a block has one for each thread, and as many rows at once as there are threads for.
extern "C" __global__ void edge_sums(
    int rows, Plane plane, int channels, int slab_rows, const float *dy, float *sums) {
    __shared__ float parts[10][256];
    int first_channel = blockIdx.y * 128, here = min(channels - first_channel, 128);
    int lines = blockDim.x / here, line = threadIdx.x / here, c = first_channel + threadIdx.x % here;
    int first = blockIdx.x * slab_rows;
    int end = min(first + slab_rows, rows);
    float sum[10];
    for (int s = 0; s < 10; s++) {
        sum[s] = 0.0f;
    }
    if (line < lines) {
#pragma unroll 4
        for (int row = first + line; row < end; row += lines) {
            float value = dy[row * channels + c];
            sum[9] += value;
            Pixel at = pixel_of(row, plane);
            if (at.y == 0 || at.x == 0 || at.y == plane.height.value - 1 || at.x == plane.width.value - 1) {
#pragma unroll
                for (int k = 0; k < 9; k++) {
                    sum[k] += neighbour(row, at, plane, k) < 0 ? value : 0.0f;
                }
            }
        }
    }
#pragma unroll
    for (int s = 0; s < 10; s++) {
        parts[s][threadIdx.x] = sum[s];
    }
    __syncthreads();
    for (int n = threadIdx.x; n < 10 * here; n += blockDim.x) {
        int s = n / here, of = n % here;
        float total = 0.0f;
        for (int l = 0; l < lines; l++) {
            total += parts[s][l * here + of];
        }
        sums[(blockIdx.x * 10 + s) * channels + first_channel + of] = total;
    }
}
