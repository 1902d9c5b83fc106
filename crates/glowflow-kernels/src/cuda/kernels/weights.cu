// A coupling network's weights, with the scales of its actnorms folded in, as its products want them; and from the gradients by
// these the gradients of the parameters.
//
// y = (W x + bias) ⊙ s with s = exp(3·logs) is y = W' x + b' with W' = s ⊙ W and b' = s ⊙ bias. Then dW = s ⊙ dW',
// dbias = s ⊙ db' and dlogs = 3·(Σ W' ⊙ dW' + b'·db') for every output.
//
// Rows and columns are filled up with zeros to multiples of 8, which products are fastest with: `outputs` and `inputs`
// are what there is, `rows` and `stride` what there is room for.

__device__ __forceinline__ float scale_of(float logs) { return expf(3.0f * logs); }

// A 3×3 convolution [outputs, inputs + 1, 9] for patches, in their order of columns: to [rows, stride]; and b' [rows].
// One thread a number of `to`.
template <typename T>
__device__ void fold_conv(
    int rows, int outputs, int inputs, int stride, const float *weight, const float *bias, const float *logs, T *to,
    T *to_bias) {
    int index = global_index();
    if (index >= rows * stride) {
        return;
    }
    int output = index / stride, column = index % stride;
    float value = 0.0f, folded_bias = 0.0f;
    if (output < outputs) {
        float scale = scale_of(logs[output]);
        const float *row = &weight[output * 9 * (inputs + 1)];
        if (column < 9 * inputs) {
            value = scale * row[column % inputs * 9 + column / inputs];
        } else if (column < 9 * inputs + 9) {
            value = scale * row[column];
        }
        folded_bias = scale * bias[output];
    }
    to[index] = narrow<T>(value);
    if (column == 0) {
        to_bias[output] = narrow<T>(folded_bias);
    }
}

extern "C" __global__ void fold_conv_f32(
    int rows, int outputs, int inputs, int stride, const float *weight, const float *bias, const float *logs, float *to,
    float *to_bias) {
    fold_conv(rows, outputs, inputs, stride, weight, bias, logs, to, to_bias);
}

extern "C" __global__ void fold_conv_bf16(
    int rows, int outputs, int inputs, int stride, const float *weight, const float *bias, const float *logs, bf16 *to,
    bf16 *to_bias) {
    fold_conv(rows, outputs, inputs, stride, weight, bias, logs, to, to_bias);
}

// A 1×1 convolution [width, width] to [stride, stride], and b' [stride].
template <typename T>
__device__ void fold_dense(
    int width, int stride, const float *weight, const float *bias, const float *logs, T *to, T *to_bias) {
    int index = global_index();
    if (index >= stride * stride) {
        return;
    }
    int output = index / stride, input = index % stride;
    float scale = output < width ? scale_of(logs[output]) : 0.0f;
    to[index] = narrow<T>(output < width && input < width ? scale * weight[output * width + input] : 0.0f);
    if (input == 0) {
        to_bias[output] = narrow<T>(output < width ? scale * bias[output] : 0.0f);
    }
}

extern "C" __global__ void fold_dense_f32(
    int width, int stride, const float *weight, const float *bias, const float *logs, float *to, float *to_bias) {
    fold_dense(width, stride, weight, bias, logs, to, to_bias);
}

extern "C" __global__ void fold_dense_bf16(
    int width, int stride, const float *weight, const float *bias, const float *logs, bf16 *to, bf16 *to_bias) {
    fold_dense(width, stride, weight, bias, logs, to, to_bias);
}

// A 3×3 convolution [outputs, inputs + 1, 9] for contributions: row k·outputs + c of `to` [rows, stride] holds offset k of output c;
// edge [9·outputs] and b' [outputs] stay f32, since they are added to f32 sums.
template <typename T>
__device__ void fold_contributions(
    int rows, int outputs, int inputs, int stride, const float *weight, const float *bias, const float *logs, T *to,
    float *edge, float *to_bias) {
    int index = global_index();
    if (index >= rows * stride) {
        return;
    }
    int row = index / stride, input = index % stride;
    float value = 0.0f;
    if (row < 9 * outputs) {
        int k = row / outputs, c = row % outputs;
        float scale = scale_of(logs[c]);
        const float *from = &weight[c * 9 * (inputs + 1)];
        if (input < inputs) {
            value = scale * from[input * 9 + k];
        }
        if (input == 0) {
            edge[row] = scale * from[inputs * 9 + k];
            if (k == 0) {
                to_bias[c] = scale * bias[c];
            }
        }
    }
    to[index] = narrow<T>(value);
}

extern "C" __global__ void fold_contributions_f32(
    int rows, int outputs, int inputs, int stride, const float *weight, const float *bias, const float *logs, float *to,
    float *edge, float *to_bias) {
    fold_contributions(rows, outputs, inputs, stride, weight, bias, logs, to, edge, to_bias);
}

extern "C" __global__ void fold_contributions_bf16(
    int rows, int outputs, int inputs, int stride, const float *weight, const float *bias, const float *logs, bf16 *to,
    float *edge, float *to_bias) {
    fold_contributions(rows, outputs, inputs, stride, weight, bias, logs, to, edge, to_bias);
}

// Ends an unfolding: thread 0 adds what one output's bias and logs gain. `product` is Σ W ⊙ dW' of this output.
__device__ __forceinline__ void unfold_scale(
    int output, float scale, float product, float d_bias_folded, const float *bias, float *d_bias, float *d_logs) {
    if (threadIdx.x == 0) {
        d_bias[output] += scale * d_bias_folded;
        d_logs[output] += 3.0f * scale * (product + bias[output] * d_bias_folded);
    }
}

// From d_folded [outputs, stride] in the order of patches' columns. One block an output.
extern "C" __global__ void unfold_conv(
    int inputs, int stride, const float *weight, const float *bias, const float *logs, const float *d_folded,
    const float *d_bias_folded, float *d_weight, float *d_bias, float *d_logs) {
    __shared__ float scratch[32];
    int output = blockIdx.x, width = 9 * (inputs + 1);
    float scale = scale_of(logs[output]), product = 0.0f;
    for (int n = threadIdx.x; n < width; n += blockDim.x) {
        int input = n / 9, k = n % 9;
        float d = d_folded[output * stride + (input < inputs ? k * inputs + input : n)];
        d_weight[output * width + n] += scale * d;
        product += weight[output * width + n] * d;
    }
    product = block_sum(product, scratch);
    unfold_scale(output, scale, product, d_bias_folded[output], bias, d_bias, d_logs);
}

// From d_folded [stride, stride]. One block an output.
extern "C" __global__ void unfold_dense(
    int inputs, int stride, const float *weight, const float *bias, const float *logs, const float *d_folded,
    const float *d_bias_folded, float *d_weight, float *d_bias, float *d_logs) {
    __shared__ float scratch[32];
    int output = blockIdx.x;
    float scale = scale_of(logs[output]), product = 0.0f;
    for (int n = threadIdx.x; n < inputs; n += blockDim.x) {
        float d = d_folded[output * stride + n];
        d_weight[output * inputs + n] += scale * d;
        product += weight[output * inputs + n] * d;
    }
    product = block_sum(product, scratch);
    unfold_scale(output, scale, product, d_bias_folded[output], bias, d_bias, d_logs);
}

// From d_folded [9·outputs, stride], rows k·outputs + c, and sums [10, outputs] of `edge_sums`: the gradients by the edge channel, then by b'.
// One block an output.
extern "C" __global__ void unfold_contributions(
    int outputs, int inputs, int stride, const float *weight, const float *bias, const float *logs, const float *d_folded,
    const float *sums, float *d_weight, float *d_bias, float *d_logs) {
    __shared__ float scratch[32];
    int c = blockIdx.x, width = 9 * (inputs + 1);
    float scale = scale_of(logs[c]), product = 0.0f;
    for (int n = threadIdx.x; n < width; n += blockDim.x) {
        int input = n / 9, k = n % 9;
        float d = input < inputs ? d_folded[(k * outputs + c) * stride + input] : sums[k * outputs + c];
        d_weight[c * width + n] += scale * d;
        product += weight[c * width + n] * d;
    }
    product = block_sum(product, scratch);
    unfold_scale(c, scale, product, sums[9 * outputs + c], bias, d_bias, d_logs);
}

// Where products cannot mask and sum in their epilogue: dh ← dh where h > 0, else 0, in place, and sums[slab, c] over the
// rows of a slab. A block has 32 columns times 8 rows at once; blockIdx.x is the slab, blockIdx.y the 32 columns.
template <typename T>
__device__ void mask_and_sum(int rows, int columns, int slab_rows, const T *h, T *dh, float *sums) {
    __shared__ float parts[8][32];
    int lane = threadIdx.x % 32, group = threadIdx.x / 32;
    int c = blockIdx.y * 32 + lane;
    int end = min((int)(blockIdx.x + 1) * slab_rows, rows);
    float sum = 0.0f;
    if (c < columns) {
        for (int row = blockIdx.x * slab_rows + group; row < end; row += 8) {
            int i = row * columns + c;
            if (wide(h[i]) > 0.0f) {
                sum += wide(dh[i]);
            } else {
                dh[i] = narrow<T>(0.0f);
            }
        }
    }
    parts[group][lane] = sum;
    __syncthreads();
    if (group == 0 && c < columns) {
        float total = 0.0f;
        for (int g = 0; g < 8; g++) {
            total += parts[g][lane];
        }
        sums[blockIdx.x * columns + c] = total;
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

// total += values, where an epilogue has summed in its own format.
extern "C" __global__ void accumulate_bf16(int count, const bf16 *values, float *total) {
    int i = global_index();
    if (i < count) {
        total[i] += wide(values[i]);
    }
}

extern "C" __global__ void accumulate_f32(int count, const float *values, float *total) {
    int i = global_index();
    if (i < count) {
        total[i] += values[i];
    }
}
