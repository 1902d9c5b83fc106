// conv3×3 as a product: patches gathered before it where the input is narrow, shifted rows added up after it where
// the output is narrow. Nothing wide is ever shifted or padded.
//
// Columns of patches lie as k·inputs + c, then one for the edge channel at each offset, 9·inputs + k; then zeros up
// to `stride`, a multiple of 8.

// Neighbours are read nine times and more. So a block of `lines` rows brings them, and as many before and behind as its neighbours reach,
// into shared memory first, where they fit there; `columns` of the `stride` numbers of each row.
struct Rows {
    const float *first;
    int stride;
};

__device__ __forceinline__ Rows rows_nearby(
    int rows, int lines, int first, Plane plane, int columns, int stride, const float *x, float *shared) {
    int reach = plane.width.value + 1, start = first - reach;
    for (int n = threadIdx.x; n < (lines + 2 * reach) * columns; n += blockDim.x) {
        int line = n / columns, row = start + line;
        shared[n] = row >= 0 && row < rows ? x[row * stride + n - line * columns] : 0.0f;
    }
    __syncthreads();
    // Kernels count rows from the beginning of x.
    Rows nearby = {shared - (long long)start * columns, columns};
    return nearby;
}

// A thread writes 16 bytes of a row of patches at once. x has `channels` channels, of which the first `inputs` count.
template <typename T>
__device__ __forceinline__ void patches_of(
    int rows, int lines, Plane plane, Divisor inputs_divisor, Divisor groups, Rows x, T *to) {
    const int at_once = 16 / sizeof(T);
    int inputs = inputs_divisor.value, first_row = blockIdx.x * lines;
    int end = min(lines, rows - first_row) * groups.value;
    for (int index = threadIdx.x; index < end; index += blockDim.x) {
        int line = divided(index, groups), first = (index - line * groups.value) * at_once, row = first_row + line;
        Pixel at = pixel_of(row, plane);
        // Divided once; from one column to the next the channel goes up, and from the last one to the next offset.
        int k = divided(first, inputs_divisor), c = first - k * inputs;
        int from = k < 9 ? neighbour(row, at, plane, k) : -1;
        Pack<T> pack;
        for (int j = 0; j < at_once; j++) {
            int edge = first + j - 9 * inputs;
            float value = 0.0f;
            if (edge < 0) {
                value = from >= 0 ? x.first[from * x.stride + c] : 0.0f;
                if (++c == inputs) {
                    c = 0;
                    from = neighbour(row, at, plane, ++k);
                }
            } else if (edge < 9) {
                value = neighbour(row, at, plane, edge) < 0 ? 1.0f : 0.0f;
            }
            pack.values[j] = narrow<T>(value);
        }
        *(Pack<T> *)&to[(row * groups.value + first / at_once) * at_once] = pack;
    }
}

template <typename T>
__device__ __forceinline__ void patches(
    int rows, int lines, int shared, Plane plane, Divisor inputs, int channels, Divisor groups, const float *x, T *to) {
    extern __shared__ float nearby[];
    if (shared) {
        Rows from = rows_nearby(rows, lines, blockIdx.x * lines, plane, inputs.value, channels, x, nearby);
        patches_of(rows, lines, plane, inputs, groups, from, to);
    } else {
        Rows from = {x, channels};
        patches_of(rows, lines, plane, inputs, groups, from, to);
    }
}

extern "C" __global__ void patches_f32(
    int rows, int lines, int shared, Plane plane, Divisor inputs, int channels, Divisor groups, const float *x, float *to) {
    patches(rows, lines, shared, plane, inputs, channels, groups, x, to);
}

extern "C" __global__ void patches_bf16(
    int rows, int lines, int shared, Plane plane, Divisor inputs, int channels, Divisor groups, const float *x, bf16 *to) {
    patches(rows, lines, shared, plane, inputs, channels, groups, x, to);
}

// What each pixel's contributions became: column k·channels + c is channel c of dy [rows, channels] at the
// pixel that offset k of this one went to. A thread writes 16 bytes at once.
template <typename T>
__device__ __forceinline__ void gathered_back(
    int rows, int lines, Plane plane, Divisor channels_divisor, Divisor groups, Rows dy, T *to) {
    const int at_once = 16 / sizeof(T);
    int channels = channels_divisor.value, first_row = blockIdx.x * lines;
    int end = min(lines, rows - first_row) * groups.value;
    for (int index = threadIdx.x; index < end; index += blockDim.x) {
        int line = divided(index, groups), first = (index - line * groups.value) * at_once, row = first_row + line;
        Pixel at = pixel_of(row, plane);
        int k = divided(first, channels_divisor), c = first - k * channels;
        int from = k < 9 ? neighbour_back(row, at, plane, k) : -1;
        Pack<T> pack;
        for (int j = 0; j < at_once; j++) {
            pack.values[j] = narrow<T>(k < 9 && from >= 0 ? dy.first[from * dy.stride + c] : 0.0f);
            if (++c == channels) {
                c = 0;
                from = neighbour_back(row, at, plane, ++k);
            }
        }
        *(Pack<T> *)&to[(row * groups.value + first / at_once) * at_once] = pack;
    }
}

template <typename T>
__device__ __forceinline__ void gather_back(
    int rows, int lines, int shared, Plane plane, Divisor channels, Divisor groups, const float *dy, T *to) {
    extern __shared__ float nearby[];
    if (shared) {
        Rows from = rows_nearby(rows, lines, blockIdx.x * lines, plane, channels.value, channels.value, dy, nearby);
        gathered_back(rows, lines, plane, channels, groups, from, to);
    } else {
        Rows from = {dy, channels.value};
        gathered_back(rows, lines, plane, channels, groups, from, to);
    }
}

extern "C" __global__ void gather_back_f32(
    int rows, int lines, int shared, Plane plane, Divisor channels, Divisor groups, const float *dy, float *to) {
    gather_back(rows, lines, shared, plane, channels, groups, dy, to);
}

extern "C" __global__ void gather_back_bf16(
    int rows, int lines, int shared, Plane plane, Divisor channels, Divisor groups, const float *dy, bf16 *to) {
    gather_back(rows, lines, shared, plane, channels, groups, dy, to);
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
