// Folds the actnorm scales of a coupling network into its weights, in the layout of its products, and unfolds
// the gradients of the folded weights into those of the parameters.
//
// y = (W x + bias) ⊙ s with s = exp(3·logs) is y = W' x + b' with W' = s ⊙ W and b' = s ⊙ bias. Then
// dW = s ⊙ dW', dbias = s ⊙ db' and dlogs = 3·(Σ W' ⊙ dW' + b'·db') for every output.
//
// Rows and columns are padded with zeros to multiples of 8, with which products are fastest: `outputs` and
// `inputs` are the actual sizes, widths and `stride` the padded ones.

__device__ __forceinline__ float scale_of(float logs) { return expf(3.0f * logs); }

// Element (output, column) of a 3×3 convolution [outputs, inputs + 1, 9] in the column order of patches; 0
// beyond it.
__device__ __forceinline__ float fold_patch(
    int output, int column, int outputs, int inputs, const float *weight, const float *logs) {
    int at = column < 9 * inputs ? column % inputs * 9 + column / inputs : column;
    bool there = output < outputs && column < 9 * (inputs + 1);
    return there ? scale_of(logs[output]) * weight[output * 9 * (inputs + 1) + at] : 0.0f;
}

// Writes row `output` of it to [rows, stride]; and b' [rows].
template <typename T>
__device__ __forceinline__ void fold_conv(
    int output, int outputs, int inputs, int stride, const float *weight, const float *bias,
    const float *logs, T *to, T *to_bias) {
    for (int column = threadIdx.x; column < stride; column += blockDim.x) {
        to[output * stride + column] = narrow<T>(fold_patch(output, column, outputs, inputs, weight, logs));
    }
    if (threadIdx.x == 0) {
        to_bias[output] = narrow<T>(output < outputs ? scale_of(logs[output]) * bias[output] : 0.0f);
    }
}

// One block per row.
extern "C" __global__ void fold_conv_f32(
    int outputs, int inputs, int stride, const float *weight, const float *bias, const float *logs, float *to,
    float *to_bias) {
    fold_conv(blockIdx.x, outputs, inputs, stride, weight, bias, logs, to, to_bias);
}

// Element (output, input) of a 1×1 convolution [width, width], folded; 0 beyond it.
__device__ __forceinline__ float fold_dense(
    int output, int input, int width, const float *weight, const float *logs) {
    return output < width && input < width ? scale_of(logs[output]) * weight[output * width + input] : 0.0f;
}

// Element (row, input) of a 3×3 convolution [outputs, inputs + 1, 9] for contributions: row k·outputs + c
// holds offset k of output c; 0 beyond it.
__device__ __forceinline__ float fold_contribution(
    int row, int input, int outputs, int inputs, const float *weight, const float *logs) {
    int k = row / outputs, c = row % outputs;
    return k < 9 && input < inputs ? scale_of(logs[c]) * weight[(c * (inputs + 1) + input) * 9 + k] : 0.0f;
}

// A network's matrices and the parameters that they are computed from. Values added to f32 sums are in f32:
// edge [9·outputs], and b' of the last layer. Transposes are computed if their addresses are not null.
struct Layer {
    const float *weight, *bias, *logs;
};

template <typename T> struct Folded {
    int inputs, hidden, outputs, width1, width2, width3;
    Layer of1, of2, of3;
    T *conv1, *bias1, *conv2, *bias2, *conv3;
    float *edge, *bias3;
    T *conv1_back, *conv2_back, *conv3_back;
};

template <typename T> struct Networks {
    Folded<T> list[16];
};

// One block per row of a matrix, one matrix after another; blockIdx.y is the network.
template <typename T> __device__ __forceinline__ void fold_network(Folded<T> of) {
    int row = blockIdx.x, hidden = of.hidden, outputs = of.outputs, width2 = of.width2, width3 = of.width3;
    if (row < width2) {
        fold_conv(
            row, hidden, of.inputs, of.width1, of.of1.weight, of.of1.bias, of.of1.logs, of.conv1, of.bias1);
        return;
    }
    row -= width2;
    if (row < width2) {
        for (int input = threadIdx.x; input < width2; input += blockDim.x) {
            of.conv2[row * width2 + input] =
                narrow<T>(fold_dense(row, input, hidden, of.of2.weight, of.of2.logs));
        }
        if (threadIdx.x == 0) {
            of.bias2[row] = narrow<T>(row < hidden ? scale_of(of.of2.logs[row]) * of.of2.bias[row] : 0.0f);
        }
        return;
    }
    row -= width2;
    if (row < width3) {
        for (int input = threadIdx.x; input < width2; input += blockDim.x) {
            of.conv3[row * width2 + input] =
                narrow<T>(fold_contribution(row, input, outputs, hidden, of.of3.weight, of.of3.logs));
        }
        int k = row / outputs, c = row % outputs;
        if (threadIdx.x == 0 && k < 9) {
            float scale = scale_of(of.of3.logs[c]);
            of.edge[row] = scale * of.of3.weight[(c * (hidden + 1) + hidden) * 9 + k];
            if (k == 0) {
                of.bias3[c] = scale * of.of3.bias[c];
            }
        }
        return;
    }
    row -= width3;
    if (row < width2) {
        for (int output = threadIdx.x; of.conv2_back && output < width2; output += blockDim.x) {
            of.conv2_back[row * width2 + output] =
                narrow<T>(fold_dense(output, row, hidden, of.of2.weight, of.of2.logs));
        }
        return;
    }
    row -= width2;
    if (row < width2) {
        for (int n = threadIdx.x; of.conv3_back && n < width3; n += blockDim.x) {
            of.conv3_back[row * width3 + n] =
                narrow<T>(fold_contribution(n, row, outputs, hidden, of.of3.weight, of.of3.logs));
        }
        return;
    }
    row -= width2;
    if (row < of.width1) {
        for (int n = threadIdx.x; of.conv1_back && n < width2; n += blockDim.x) {
            of.conv1_back[row * width2 + n] =
                narrow<T>(fold_patch(n, row, hidden, of.inputs, of.of1.weight, of.of1.logs));
        }
    }
}

extern "C" __global__ void fold_network_f32(Networks<float> networks) {
    fold_network(networks.list[blockIdx.y]);
}

extern "C" __global__ void fold_network_bf16(Networks<bf16> networks) {
    fold_network(networks.list[blockIdx.y]);
}

// The gradients of one output's weights, bias and logs: scale · d_folded and so on. `at(n)` is the position
// of the folded gradient of weight n of `width`; `d_bias_folded` is each thread's part of the folded bias
// gradient.
template <typename At>
__device__ __forceinline__ void unfold_output(
    int output, int width, const float *weight, const float *bias, const float *logs, At at,
    double d_bias_folded, float *d_weight, float *d_bias, float *d_logs) {
    __shared__ float scratch[32];
    __shared__ double wide_scratch[32];
    float scale = scale_of(logs[output]), product = 0.0f;
    const float *from = &weight[output * width];
    float *to = &d_weight[output * width];
    // Four at a time, all read before any is written, to hide memory latency.
    for (int first = threadIdx.x; first < width; first += 4 * blockDim.x) {
        float d[4], was[4], w[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int n = first + i * blockDim.x;
            bool there = n < width;
            d[i] = there ? at(n) : 0.0f;
            was[i] = there ? to[n] : 0.0f;
            w[i] = there ? from[n] : 0.0f;
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int n = first + i * blockDim.x;
            if (n < width) {
                to[n] = was[i] + scale * d[i];
            }
            product += w[i] * d[i];
        }
    }
    product = block_sum(product, scratch);
    float d_b = (float)block_sum(d_bias_folded, wide_scratch);
    if (threadIdx.x == 0) {
        d_bias[output] += scale * d_b;
        d_logs[output] += 3.0f * scale * (product + bias[output] * d_b);
    }
}

// Position of weight n of an output in d_folded [outputs, stride], in the column order of patches.
struct InPatches {
    const float *row;
    int inputs;
    __device__ __forceinline__ float operator()(int n) const {
        int input = n / 9, k = n % 9;
        return row[input < inputs ? k * inputs + input : n];
    }
};

struct InRow {
    const float *row;
    __device__ __forceinline__ float operator()(int n) const { return row[n]; }
};

// Position of weight n of output c in d_folded [9·outputs, stride], rows k·outputs + c; the edge channel's
// gradients are sums.
struct InContributions {
    const float *d_folded, *edge_sums;
    int c, outputs, inputs, stride;
    __device__ __forceinline__ float operator()(int n) const {
        int input = n / 9, k = n % 9;
        return input < inputs ? d_folded[(k * outputs + c) * stride + input] : edge_sums[k];
    }
};

// For a zero convolution computed with patches. One block per output.
extern "C" __global__ void unfold_conv(
    int inputs, int stride, const float *weight, const float *bias, const float *logs, const float *d_folded,
    const float *d_bias_folded, float *d_weight, float *d_bias, float *d_logs) {
    int output = blockIdx.x;
    InPatches at = {&d_folded[output * stride], inputs};
    double d_b = threadIdx.x == 0 ? (double)d_bias_folded[output] : 0.0;
    unfold_output(output, 9 * (inputs + 1), weight, bias, logs, at, d_b, d_weight, d_bias, d_logs);
}

// This thread's part of Σ over slabs of partial[slab, column].
__device__ __forceinline__ double part_of_column(int slabs, int stride, int column, const float *partial) {
    double sum = 0.0;
#pragma unroll 4
    for (int slab = threadIdx.x; slab < slabs; slab += blockDim.x) {
        sum += (double)partial[slab * stride + column];
    }
    return sum;
}

// For a whole network, from the gradients of its folded matrices, d_folded1 [hidden, width1], d_folded2
// [hidden, width2], d_folded3 [9·outputs, width2], from partial sums of the pre-activation gradients, [slabs,
// width2] each, and from the result of `edge_sums`, [edge_slabs, 10, outputs]. One block per output of a
// layer.
extern "C" __global__ void unfold_network(
    int inputs, int hidden, int outputs, int width1, int width2, const float *conv1, const float *bias1,
    const float *logs1, const float *conv2, const float *bias2, const float *logs2, const float *conv3,
    const float *bias3, const float *logs3, const float *d_folded1, const float *d_folded2,
    const float *d_folded3, int slabs1, const float *partial1, int slabs2, const float *partial2,
    int edge_slabs, const float *edge_partial, float *d_conv1, float *d_bias1, float *d_logs1, float *d_conv2,
    float *d_bias2, float *d_logs2, float *d_conv3, float *d_bias3, float *d_logs3) {
    int output = blockIdx.x;
    if (output < hidden) {
        double d_bias = part_of_column(slabs1, width2, output, partial1);
        InPatches at = {&d_folded1[output * width1], inputs};
        unfold_output(output, 9 * (inputs + 1), conv1, bias1, logs1, at, d_bias, d_conv1, d_bias1, d_logs1);
        return;
    }
    output -= hidden;
    if (output < hidden) {
        double d_bias = part_of_column(slabs2, width2, output, partial2);
        InRow at = {&d_folded2[output * width2]};
        unfold_output(output, hidden, conv2, bias2, logs2, at, d_bias, d_conv2, d_bias2, d_logs2);
        return;
    }
    output -= hidden;
    __shared__ float edges[10];
    int lane = threadIdx.x % 32;
    for (int s = threadIdx.x / 32; s < 10; s += blockDim.x / 32) {
        double sum = 0.0;
        // Sixteen at a time, to hide memory latency.
#pragma unroll 16
        for (int slab = lane; slab < edge_slabs; slab += 32) {
            sum += (double)edge_partial[(slab * 10 + s) * outputs + output];
        }
        sum = warp_sum(sum);
        if (lane == 0) {
            edges[s] = (float)sum;
        }
    }
    __syncthreads();
    InContributions at = {d_folded3, edges, output, outputs, hidden, width2};
    double d_bias = threadIdx.x == 0 ? (double)edges[9] : 0.0;
    unfold_output(output, 9 * (hidden + 1), conv3, bias3, logs3, at, d_bias, d_conv3, d_bias3, d_logs3);
}

// Used if the preceding product could not apply the mask: dh ← dh if h > 0, else 0, in place, and sums[slab,
// c] over the rows of a slab. A thread handles 16 bytes of a row, a block 64 times that in 4 rows at a time;
// blockIdx.x is the slab.
template <typename T>
__device__ void mask_and_sum(int rows, int columns, int slab_rows, const T *h, T *dh, float *sums) {
    const int at_once = 16 / sizeof(T);
    __shared__ float parts[4][at_once][64];
    int group = threadIdx.x % 64, line = threadIdx.x / 64;
    int column = (blockIdx.y * 64 + group) * at_once;
    int end = min((int)(blockIdx.x + 1) * slab_rows, rows);
    float sum[at_once];
    for (int j = 0; j < at_once; j++) {
        sum[j] = 0.0f;
    }
    if (column < columns) {
#pragma unroll 4
        for (int row = blockIdx.x * slab_rows + line; row < end; row += 4) {
            int i = row * columns + column;
            Pack<T> of = *(const Pack<T> *)&h[i], d = *(const Pack<T> *)&dh[i];
            for (int j = 0; j < at_once; j++) {
                bool passes = wide(of.values[j]) > 0.0f;
                sum[j] += passes ? wide(d.values[j]) : 0.0f;
                d.values[j] = passes ? d.values[j] : narrow<T>(0.0f);
            }
            *(Pack<T> *)&dh[i] = d;
        }
    }
    for (int j = 0; j < at_once; j++) {
        parts[line][j][group] = sum[j];
    }
    __syncthreads();
    if (line == 0 && column < columns) {
        for (int j = 0; j < at_once; j++) {
            sums[blockIdx.x * columns + column + j] =
                parts[0][j][group] + parts[1][j][group] + parts[2][j][group] + parts[3][j][group];
        }
    }
}

extern "C" __global__ void mask_and_sum_f32(
    int rows, int columns, int slab_rows, const float *h, float *dh, float *sums) {
    mask_and_sum(rows, columns, slab_rows, h, dh, sums);
}

extern "C" __global__ void mask_and_sum_bf16(
    int rows, int columns, int slab_rows, const bf16 *h, bf16 *dh, float *sums) {
    mask_and_sum(rows, columns, slab_rows, h, dh, sums);
}
