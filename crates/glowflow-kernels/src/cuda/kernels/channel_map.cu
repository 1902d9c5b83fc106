// Actnorm and permutation as one affine map of each pixel's channels.
//
// y = W (s ⊙ (x + bias)), s = exp(3·logs), is y = A x + b with A = W diag(s), b = W (s ⊙ bias); its inverse is
// x = A⁻¹ y − bias. W = P·L·(U + diag(sign ⊙ exp(log_s))), (P v)[i] = v[index[i]]; where there is no L and U, W = P.
// The small matrices are computed in double precision and rounded once.

struct Lu {
    const int *index;   // which input each output takes
    const float *sign;  // null, with lower, upper and log_s, where the permutation is fixed
    const float *lower, *upper, *log_s;
    int channels;
};

__device__ __forceinline__ double lower_at(Lu lu, int i, int j) {
    return i > j ? (lu.lower ? (double)lu.lower[i * lu.channels + j] : 0.0) : i == j ? 1.0 : 0.0;
}

__device__ __forceinline__ double upper_at(Lu lu, int i, int j) {
    if (i == j) {
        return lu.log_s ? (double)lu.sign[i] * exp((double)lu.log_s[i]) : 1.0;
    }
    return i < j && lu.upper ? (double)lu.upper[i * lu.channels + j] : 0.0;
}

__device__ __forceinline__ double actnorm_scale(const float *logs, int c) { return exp(3.0 * (double)logs[c]); }

// Number (i, j) of L·(U + diag).
__device__ __forceinline__ double lu_product(Lu lu, int i, int j) {
    if (!lu.lower) {
        return i == j ? 1.0 : 0.0;
    }
    double sum = 0.0;
    for (int m = 0, end = min(i, j); m <= end; m++) {
        sum += lower_at(lu, i, m) * upper_at(lu, m, j);
    }
    return sum;
}

// A, offset b, and log|det| of one pixel. A block makes a row i of A, its threads the columns. With `transposed`, matrix[j, i]
// holds A[i, j], as `affine` wants it for y = A x; without it, as it wants it for Aᵀ.
extern "C" __global__ void fold_channel_map(
    int channels, const int *index, const float *sign, const float *lower, const float *upper, const float *log_s,
    const float *bias, const float *logs, int transposed, float *matrix, float *offset, double *log_det) {
    __shared__ double scratch[32];
    Lu lu = {index, sign, lower, upper, log_s, channels};
    int i = blockIdx.x;
    double b = 0.0, det = 0.0;
    for (int j = threadIdx.x; j < channels; j += blockDim.x) {
        double scale = actnorm_scale(logs, j);
        double a = lu_product(lu, index[i], j) * scale;
        matrix[transposed ? j * channels + i : i * channels + j] = (float)a;
        b += a * (double)bias[j];
        det += 3.0 * (double)logs[j] + (log_s ? (double)log_s[j] : 0.0);
    }
    b = block_sum(b, scratch);
    det = block_sum(det, scratch);
    if (threadIdx.x == 0) {
        offset[i] = (float)b;
        if (i == 0) {
            *log_det = det;
        }
    }
}

// The inverse's matrix, A⁻¹ = diag(1/s) U⁻¹ L⁻¹ Pᵀ, and offset, −bias. A warp makes a column q, by substitution on the unit vector
// that Pᵀ makes of it; matrix[q, i] holds A⁻¹[i, q], as `affine` wants it. Every step of a substitution waits for the one before, so what
// it reads lies in shared memory: the diagonal, a column for each warp, and with `factors_fit` L and U.
extern "C" __global__ void invert_channel_map(
    int channels, int factors_fit, const int *index, const float *sign, const float *lower, const float *upper,
    const float *log_s, const float *bias, const float *logs, float *matrix, float *offset) {
    extern __shared__ double shared_doubles[];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    double *diagonal = shared_doubles, *column = &shared_doubles[(1 + warp) * channels];
    const float *l = lower, *u = upper;
    if (lower) {
        Lu lu = {index, sign, lower, upper, log_s, channels};
        for (int i = threadIdx.x; i < channels; i += blockDim.x) {
            diagonal[i] = upper_at(lu, i, i);
        }
        if (factors_fit) {
            float *copy = (float *)&shared_doubles[(1 + warps) * channels];
            for (int n = threadIdx.x; n < channels * channels; n += blockDim.x) {
                copy[n] = lower[n];
                copy[channels * channels + n] = upper[n];
            }
            l = copy;
            u = &copy[channels * channels];
        }
    }
    __syncthreads();
    int q = blockIdx.x * warps + warp;
    if (q >= channels) {
        return;
    }
    int from = index[q];
    for (int i = lane; i < channels; i += 32) {
        column[i] = i == from ? 1.0 : 0.0;
    }
    __syncwarp();
    if (lower) {
        for (int m = from; m < channels; m++) {
            double value = column[m];
            for (int i = m + 1 + lane; i < channels; i += 32) {
                column[i] -= (double)l[i * channels + m] * value;
            }
            __syncwarp();
        }
        for (int m = channels - 1; m >= 0; m--) {
            // Every lane divides for itself, for the number is read by all before it is overwritten below.
            double value = column[m] / diagonal[m];
            __syncwarp();
            for (int i = lane; i < m; i += 32) {
                column[i] -= (double)u[i * channels + m] * value;
            }
            if (lane == 0) {
                column[m] = value;
            }
            __syncwarp();
        }
    }
    for (int i = lane; i < channels; i += 32) {
        matrix[q * channels + i] = (float)(column[i] / actnorm_scale(logs, i));
        if (q == 0) {
            offset[i] = -bias[i];
        }
    }
}

// x ← M x + offset for each row of x [rows, channels], in place; matrix[j, i] holds M[i, j]. `offset` may be null. A block takes
// `tile` rows through shared memory. logp [batch], where given, gains pixels · log_det.
extern "C" __global__ void affine(
    int rows, int channels, int tile, const float *matrix, const float *offset, float *x, int batch, int pixels,
    const double *log_det, float *logp) {
    extern __shared__ float rows_of_x[];
    int first = blockIdx.x * tile;
    int count = min(tile, rows - first) * channels;
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        rows_of_x[i] = x[first * channels + i];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        int c = i % channels;
        const float *row = &rows_of_x[i - c];
        float sum = offset ? offset[c] : 0.0f;
        for (int j = 0; j < channels; j++) {
            sum = fmaf(matrix[j * channels + c], row[j], sum);
        }
        x[first * channels + i] = sum;
    }
    if (blockIdx.x == 0 && logp) {
        for (int b = threadIdx.x; b < batch; b += blockDim.x) {
            logp[b] += (float)((double)pixels * *log_det);
        }
    }
}

// sums[slab, i, j] = Σ over the rows of a slab of dy[row, i] · x[row, j], with x[row, channels] = 1. A block of 16×16 threads makes a tile of
// 16×16 sums: blockIdx.x is the slab, blockIdx.y and z the tile.
extern "C" __global__ void outer_sums(
    int rows, int channels, int slab_rows, const float *dy, const float *x, float *sums) {
    __shared__ float left[32][17], right[32][17];
    int ti = threadIdx.x / 16, tj = threadIdx.x % 16;
    int i0 = blockIdx.y * 16, j0 = blockIdx.z * 16;
    int first = blockIdx.x * slab_rows;
    int end = min(first + slab_rows, rows);
    float sum = 0.0f;
    for (int start = first; start < end; start += 32) {
        for (int n = threadIdx.x; n < 32 * 16; n += 256) {
            int r = n / 16, c = n % 16, row = start + r;
            left[r][c] = row < end && i0 + c < channels ? dy[row * channels + i0 + c] : 0.0f;
            right[r][c] = row >= end ? 0.0f : j0 + c < channels ? x[row * channels + j0 + c] : 1.0f;
        }
        __syncthreads();
        for (int r = 0; r < 32; r++) {
            sum = fmaf(left[r][ti], right[r][tj], sum);
        }
        __syncthreads();
    }
    int i = i0 + ti, j = j0 + tj;
    if (i < channels && j <= channels) {
        sums[(blockIdx.x * channels + i) * (channels + 1) + j] = sum;
    }
}

// Adds up `slabs` partial sums of `count` numbers each, in double precision. One warp a number.
extern "C" __global__ void sum_slabs(int count, int slabs, const float *sums, float *total) {
    int index = global_index() / 32, lane = threadIdx.x % 32;
    double sum = 0.0;
    if (index < count) {
        for (int s = lane; s < slabs; s += 32) {
            sum += (double)sums[s * count + index];
        }
    }
    for (int step = 16; step > 0; step /= 2) {
        sum += __shfl_down_sync(0xffffffffu, sum, step);
    }
    if (index < count && lane == 0) {
        total[index] = (float)sum;
    }
}

// The parameters' gradients from sums [channels, channels + 1] = dyᵀ·(x, 1) and A [channels, channels] (not transposed).
// With G the first channels columns and g the last: d_W[i, j] = s_j (G[i, j] + g_i bias_j), d_LU = Pᵀ d_W, d_L = d_LU Uᵀ,
// d_U = Lᵀ d_LU, each where its factor is trained. One thread a number (i, j); d_log_det is dlogp · rows.
extern "C" __global__ void channel_map_gradient(
    int channels, const int *inverse, const float *sign, const float *lower, const float *upper, const float *log_s,
    const float *bias, const float *logs, const float *sums, const float *a, double d_log_det, float *d_bias,
    float *d_logs, float *d_lower, float *d_upper, float *d_log_s) {
    extern __shared__ double shared_scales[];
    double *scale = shared_scales, *diagonal = &shared_scales[channels];
    Lu lu = {inverse, sign, lower, upper, log_s, channels};
    for (int c = threadIdx.x; c < channels; c += blockDim.x) {
        scale[c] = actnorm_scale(logs, c);
        diagonal[c] = upper_at(lu, c, c);
    }
    __syncthreads();
    int index = global_index(), width = channels + 1;
    if (index < channels) {
        int j = index;
        double through_bias = 0.0, through_scale = 0.0;
        for (int i = 0; i < channels; i++) {
            double g = (double)sums[i * width + channels], a_ij = (double)a[i * channels + j];
            through_bias += a_ij * g;
            through_scale += a_ij * ((double)sums[i * width + j] + g * (double)bias[j]);
        }
        d_bias[j] += (float)through_bias;
        d_logs[j] += (float)(3.0 * (through_scale + d_log_det));
    }
    if (!lower || index >= channels * channels) {
        return;
    }
    int i = index / channels, j = index % channels;
    double sum = 0.0;
    if (i > j) {
        const float *row = &sums[inverse[i] * width];
        for (int m = j; m < channels; m++) {
            double d_lu = scale[m] * ((double)row[m] + (double)row[channels] * (double)bias[m]);
            sum += d_lu * (m == j ? diagonal[j] : (double)upper[j * channels + m]);
        }
        d_lower[index] += (float)sum;
    } else {
        for (int m = i; m < channels; m++) {
            const float *row = &sums[inverse[m] * width];
            double d_lu = scale[j] * ((double)row[j] + (double)row[channels] * (double)bias[j]);
            sum += m == i ? d_lu : (double)lower[m * channels + i] * d_lu;
        }
        if (i < j) {
            d_upper[index] += (float)sum;
        } else {
            d_log_s[i] += (float)(sum * diagonal[i] + d_log_det);
        }
    }
}

// Data-dependent initialisation of an actnorm from x [rows, stride]: bias = −mean, 3·logs = −log(std + 1e-6). One block a channel.
extern "C" __global__ void initialize_actnorm(int rows, int stride, const float *x, float *bias, float *logs) {
    __shared__ double scratch[32], mean;
    int c = blockIdx.x;
    double sum = 0.0;
    for (int row = threadIdx.x; row < rows; row += blockDim.x) {
        sum += (double)x[row * stride + c];
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) {
        mean = sum / rows;
    }
    __syncthreads();
    double squares = 0.0;
    for (int row = threadIdx.x; row < rows; row += blockDim.x) {
        double d = (double)x[row * stride + c] - mean;
        squares += d * d;
    }
    squares = block_sum(squares, scratch);
    if (threadIdx.x == 0) {
        bias[c] = (float)-mean;
        logs[c] = (float)(-log(sqrt(squares / rows) + 1e-6) / 3.0);
    }
}
