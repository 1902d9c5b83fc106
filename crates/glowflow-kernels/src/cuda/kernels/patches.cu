// 3×3 convolutions as products: patches are gathered before the product if the input is narrow, shifted rows
// are added after it if the output is narrow. Wide activations are never shifted or padded.
//
// Columns of patches are in the order k·inputs + c, followed by the edge channel at each offset, 9·inputs +
// k, and by zeros up to `stride`, a multiple of 8.

// Adjacent numbers read at a time: 4, 2 or 1, whichever divides the number of input channels; rows have a
// multiple of it. Memory latency is high, so a thread issues all its loads before it uses any value.
template <int few> struct alignas(4 * few) Few {
    float values[few];
};

template <int few> __device__ __forceinline__ Few<few> read_few(const float *from, int at) {
    Few<few> none = {};
    return at >= 0 ? *(const Few<few> *)&from[at] : none;
}

// Sixteen bytes of a row of patches, from column `first` on, of the first `inputs` of `channels` channels of
// x; 0 beyond 9·inputs. `back` selects the transposed form.
template <typename T, bool back, int few>
__device__ __forceinline__ Pack<T> gathered_by(
    int row, Plane plane, int first, Divisor inputs, int channels, const float *x) {
    const int at_once = 16 / sizeof(T);
    Pixel at = pixel_of(row, plane);
    // Divided once; then the channel is incremented, wrapping to the next offset.
    int k = divided(first, inputs), c = first - k * inputs.value;
    Few<few> read[at_once / few];
#pragma unroll
    for (int i = 0; i < at_once / few; i++) {
        int from = k < 9 ? (back ? neighbour_back(row, at, plane, k) : neighbour(row, at, plane, k)) : -1;
        read[i] = read_few<few>(x, from >= 0 ? from * channels + c : -1);
        c += few;
        if (c == inputs.value) {
            c = 0;
            k++;
        }
    }
    Pack<T> pack;
#pragma unroll
    for (int j = 0; j < at_once; j++) {
        pack.values[j] = narrow<T>(read[j / few].values[j % few]);
    }
    return pack;
}

template <typename T, bool back>
__device__ __forceinline__ Pack<T> gathered(
    int row, Plane plane, int first, Divisor inputs, int channels, const float *x) {
    if (inputs.value % 4 == 0) {
        return gathered_by<T, back, 4>(row, plane, first, inputs, channels, x);
    }
    if (inputs.value % 2 == 0) {
        return gathered_by<T, back, 2>(row, plane, first, inputs, channels, x);
    }
    return gathered_by<T, back, 1>(row, plane, first, inputs, channels, x);
}

// One thread per 16 bytes of a row of patches. Only the first `inputs` of the `channels` channels of x are
// read.
template <typename T>
__device__ __forceinline__ void patches(
    int rows, Plane plane, Divisor inputs, int channels, Divisor packs, const float *x, T *to) {
    const int at_once = 16 / sizeof(T);
    int index = global_index();
    if (index >= rows * packs.value) {
        return;
    }
    int row = divided(index, packs), first = (index - row * packs.value) * at_once;
    Pack<T> pack = gathered<T, false>(row, plane, first, inputs, channels, x);
    if (first + at_once > 9 * inputs.value) {
        Pixel at = pixel_of(row, plane);
        for (int j = 0; j < at_once; j++) {
            int edge = first + j - 9 * inputs.value;
            if (edge >= 0 && edge < 9) {
                pack.values[j] = narrow<T>(neighbour(row, at, plane, edge) < 0 ? 1.0f : 0.0f);
            }
        }
    }
    *(Pack<T> *)&to[index * at_once] = pack;
}

extern "C" __global__ void patches_f32(
    int rows, Plane plane, Divisor inputs, int channels, Divisor packs, const float *x, float *to) {
    patches(rows, plane, inputs, channels, packs, x, to);
}

extern "C" __global__ void patches_bf16(
    int rows, Plane plane, Divisor inputs, int channels, Divisor packs, const float *x, bf16 *to) {
    patches(rows, plane, inputs, channels, packs, x, to);
}

// Gathers the output gradients that depend on each pixel: column k·channels + c is channel c of dy [rows,
// channels] at the pixel that offset k of this pixel contributed to. One thread per 16 bytes.
template <typename T>
__device__ __forceinline__ void gather_back(
    int rows, Plane plane, Divisor channels, Divisor packs, const float *dy, T *to) {
    const int at_once = 16 / sizeof(T);
    int index = global_index();
    if (index >= rows * packs.value) {
        return;
    }
    int row = divided(index, packs), first = (index - row * packs.value) * at_once;
    *(Pack<T> *)&to[index * at_once] = gathered<T, true>(row, plane, first, channels, channels.value, dy);
}

extern "C" __global__ void gather_back_f32(
    int rows, Plane plane, Divisor channels, Divisor packs, const float *dy, float *to) {
    gather_back(rows, plane, channels, packs, dy, to);
}

extern "C" __global__ void gather_back_bf16(
    int rows, Plane plane, Divisor channels, Divisor packs, const float *dy, bf16 *to) {
    gather_back(rows, plane, channels, packs, dy, to);
}

// Adds nine shifted copies: y[row, c] = bias[c] + Σ_k contributions[neighbour, k·channels + c], and
// edge[k·channels + c] if the neighbour is outside. `groups` is the number of channel groups that a thread
// handles one of.
template <int few>
__device__ __forceinline__ void add_shifted_by(
    int rows, Plane plane, Divisor groups, int stride, const float *contributions, const float *edge,
    const float *bias, float *y) {
    int index = global_index(), channels = groups.value * few;
    if (index >= rows * groups.value) {
        return;
    }
    int row = divided(index, groups), c = (index - row * groups.value) * few;
    Pixel at = pixel_of(row, plane);
    Few<few> sum = read_few<few>(bias, c), read[9];
#pragma unroll
    for (int k = 0; k < 9; k++) {
        int from = neighbour(row, at, plane, k);
        read[k] = from >= 0 ? read_few<few>(contributions, from * stride + k * channels + c)
                            : read_few<few>(edge, k * channels + c);
    }
#pragma unroll
    for (int k = 0; k < 9; k++) {
        for (int e = 0; e < few; e++) {
            sum.values[e] += read[k].values[e];
        }
    }
    *(Few<few> *)&y[row * channels + c] = sum;
}

extern "C" __global__ void add_shifted(
    int rows, Plane plane, int channels, Divisor groups, int stride, const float *contributions,
    const float *edge, const float *bias, float *y) {
    if (channels % 4 == 0) {
        add_shifted_by<4>(rows, plane, groups, stride, contributions, edge, bias, y);
    } else if (channels % 2 == 0) {
        add_shifted_by<2>(rows, plane, groups, stride, contributions, edge, bias, y);
    } else {
        add_shifted_by<1>(rows, plane, groups, stride, contributions, edge, bias, y);
    }
}

// The transposed form, added to the first `channels` of the `to_channels` channels of y; a multiple of them.
template <int few>
__device__ __forceinline__ void add_shifted_back_by(
    int rows, Plane plane, Divisor groups, int to_channels, int stride, const float *contributions,
    float *y) {
    int index = global_index(), channels = groups.value * few;
    if (index >= rows * groups.value) {
        return;
    }
    int row = divided(index, groups), c = (index - row * groups.value) * few;
    Pixel at = pixel_of(row, plane);
    Few<few> read[9];
#pragma unroll
    for (int k = 0; k < 9; k++) {
        int from = neighbour_back(row, at, plane, k);
        read[k] = read_few<few>(contributions, from >= 0 ? from * stride + k * channels + c : -1);
    }
    Few<few> *to = (Few<few> *)&y[row * to_channels + c], sum = read_few<few>(y, row * to_channels + c);
    for (int e = 0; e < few; e++) {
        float added = 0.0f;
#pragma unroll
        for (int k = 0; k < 9; k++) {
            added += read[k].values[e];
        }
        sum.values[e] += added;
    }
    *to = sum;
}

extern "C" __global__ void add_shifted_back(
    int rows, Plane plane, int channels, Divisor groups, int to_channels, int stride,
    const float *contributions, float *y) {
    if (channels % 4 == 0) {
        add_shifted_back_by<4>(rows, plane, groups, to_channels, stride, contributions, y);
    } else if (channels % 2 == 0) {
        add_shifted_back_by<2>(rows, plane, groups, to_channels, stride, contributions, y);
    } else {
        add_shifted_back_by<1>(rows, plane, groups, to_channels, stride, contributions, y);
    }
}

// Sums over rows of dy [rows, channels] for the gradients of a bias and an edge channel: sums[slab, s, c]
// with s = 9 for all rows of a slab, and s = k for those whose neighbour at offset k is outside. blockIdx.x
// is the slab, blockIdx.y a group of 128 channels, one per thread; the remaining threads of a block process
// further rows in parallel.
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
