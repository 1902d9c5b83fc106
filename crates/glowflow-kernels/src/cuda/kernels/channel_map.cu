// Actnorm and permutation as one affine map of each pixel's channels.
//
// y = W (s ⊙ (x + bias)), s = exp(3·logs), is y = A x + b with A = W diag(s), b = W (s ⊙ bias); its inverse
// is x = A⁻¹ y − bias. W = P·L·(U + diag(sign ⊙ exp(log_s))), (P v)[i] = v[index[i]]; without L and U, W = P.
// The small matrices are computed in double precision and rounded once. They are [stride, stride], stride =
// channels rounded up to 4, padded with zeros, so that four numbers are read at a time.

__device__ __forceinline__ int stride_of(int channels) { return (channels + 3) & ~3; }

__device__ __forceinline__ float4 four(const float *at) { return *(const float4 *)at; }

// ---- computation of maps from parameters

// A matrix to compute, and its inputs; as in `channel_map.rs`. Addresses are null for absent inputs.
struct MatrixJob {
    const int *index;   // the input of each output
    const float *sign;  // null, with lower, upper and log_s, if the permutation is fixed
    const float *lower, *upper, *log_s;
    const float *bias, *logs;
    float *matrix, *offset;
    double *log_det;  // of one pixel
    int channels, kind;
    int factors_fit;  // into shared memory
    int unused;
};

enum Kind {
    FORWARD,     // matrix[j, i] = A[i, j], as `affine` wants it for y = A x; offset b, and log|det|
    BY_ROWS,     // matrix[i, j] = A[i, j], as `affine` wants it for Aᵀ; nothing else
    INVERSE,     // matrix[j, i] = A⁻¹[i, j]; offset −bias
};

// The maximum number per launch: a kernel's parameters are limited to 4 KB.
struct MatrixJobs {
    MatrixJob list[32];
};

// L without its unit diagonal and U without its diagonal: element (i, j) is at i·row + j·column.
struct Factors {
    const float *lower, *upper;
    int row, column;
};

// Row i of A, computed by a warp whose lanes are the columns; `from` is index[i].
__device__ __forceinline__ void fold_row(
    const MatrixJob &job, const Factors &lu, const double *diagonal, const double *scale, int i, int from,
    int lane) {
    int channels = job.channels, stride = stride_of(channels);
    bool inside = i < channels;
    double b = 0.0, det = 0.0;
    for (int j = lane; j < stride; j += 32) {
        double a = 0.0;
        if (inside && j < channels) {
            if (job.lower) {
                for (int m = 0, end = min(from, j); m < end; m++) {
                    a += (double)lu.lower[from * lu.row + m * lu.column]
                        * (double)lu.upper[m * lu.row + j * lu.column];
                }
                a += from < j    ? (double)lu.upper[from * lu.row + j * lu.column]
                     : from == j ? diagonal[j]
                                 : (double)lu.lower[from * lu.row + j * lu.column] * diagonal[j];
                det += (double)job.log_s[j];
            } else {
                a = from == j ? 1.0 : 0.0;
            }
            a *= scale[j];
            b += a * (double)job.bias[j];
            det += 3.0 * (double)job.logs[j];
        }
        job.matrix[job.kind == FORWARD ? j * stride + i : i * stride + j] = (float)a;
    }
    if (job.kind == FORWARD) {
        b = warp_sum(b);
        det = warp_sum(det);
        if (lane == 0) {
            job.offset[i] = (float)b;
            if (i == 0) {
                *job.log_det = det;
            }
        }
    }
}

// Column q of A⁻¹ = diag(1/s) U⁻¹ L⁻¹ Pᵀ, computed by a warp, by substitution on the unit vector with index
// `from`, which is Pᵀ's column. Every step of a substitution waits for the previous one, so its inputs should
// be in shared memory, as `column` is. Diagonal and scale are already inverted.
__device__ __forceinline__ void invert_column(
    const MatrixJob &job, const Factors &lu, const double *diagonal, const double *scale, double *column, int q,
    int from, int lane) {
    int channels = job.channels, stride = stride_of(channels);
    if (q == 0) {
        for (int i = lane; i < stride; i += 32) {
            job.offset[i] = i < channels ? -job.bias[i] : 0.0f;
        }
    }
    for (int i = lane; i < channels; i += 32) {
        column[i] = i == from ? 1.0 : 0.0;
    }
    __syncwarp();
    if (job.lower && q < channels) {
        for (int m = from; m < channels; m++) {
            double value = column[m];
            for (int i = m + 1 + lane; i < channels; i += 32) {
                column[i] -= (double)lu.lower[i * lu.row + m * lu.column] * value;
            }
            __syncwarp();
        }
        for (int m = channels - 1; m >= 0; m--) {
            // Each lane computes the product, because all lanes read the number before it is overwritten
            // below.
            double value = column[m] * diagonal[m];
            __syncwarp();
            for (int i = lane; i < m; i += 32) {
                column[i] -= (double)lu.upper[i * lu.row + m * lu.column] * value;
            }
            if (lane == 0) {
                column[m] = value;
            }
            __syncwarp();
        }
    }
    for (int i = lane; i < stride; i += 32) {
        job.matrix[q * stride + i] = i < channels ? (float)(column[i] * scale[i]) : 0.0f;
    }
}

__device__ __forceinline__ void make_line(
    const MatrixJob &job, const Factors &lu, const double *diagonal, const double *scale, double *column,
    int line, int from, int lane) {
    if (job.kind == INVERSE) {
        invert_column(job, lu, diagonal, scale, column, line, from, lane);
    } else {
        fold_row(job, lu, diagonal, scale, line, from, lane);
    }
}

// Computes many matrices: blockIdx.y is the matrix, and a warp computes a row or column of it. Shared memory
// holds the diagonal, the scale, a column for each warp and, if they fit, L and U.
extern "C" __global__ void make_channel_maps(MatrixJobs jobs) {
    extern __shared__ double make_shared[];
    MatrixJob job = jobs.list[blockIdx.y];
    int channels = job.channels, stride = stride_of(channels);
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    int line = blockIdx.x * warps + warp;
    if ((int)blockIdx.x * warps >= stride) {
        return;
    }
    double *diagonal = make_shared, *scale = &make_shared[channels], *columns = &make_shared[2 * channels];
    double power = job.kind == INVERSE ? -1.0 : 1.0;
    // Read before the wait below.
    int from = line < channels ? job.index[line] : channels;
    // Transposed and with an odd stride, so that neither neighbours in a row nor in a column share a bank.
    int odd = channels | 1;
    float *lower = (float *)&columns[warps * channels], *upper = &lower[channels * odd];
    bool copied = job.lower && job.factors_fit;
    if (copied) {
#pragma unroll 4
        for (int n = threadIdx.x; n < channels * channels; n += blockDim.x) {
            int i = n / channels, j = n - i * channels;
            lower[j * odd + i] = __ldg(&job.lower[n]);
            upper[j * odd + i] = __ldg(&job.upper[n]);
        }
    }
    for (int n = threadIdx.x; n < 2 * channels; n += blockDim.x) {
        if (n >= channels) {
            scale[n - channels] = exp(power * 3.0 * (double)job.logs[n - channels]);
        } else if (job.lower) {
            diagonal[n] = (double)job.sign[n] * exp(power * (double)job.log_s[n]);
        }
    }
    __syncthreads();
    if (line >= stride) {
        return;
    }
    double *column = &columns[warp * channels];
    // Two calls, so that the compiler can infer the address space of each.
    if (copied) {
        make_line(job, Factors{lower, upper, 1, odd}, diagonal, scale, column, line, from, lane);
    } else {
        make_line(
            job, Factors{job.lower, job.upper, channels, 1}, diagonal, scale, column, line, from, lane);
    }
}

// ---- maps on activations

// Loads rows of x [rows, channels] from `first` on into `to` [tile, stride], with zeros beyond `count` rows
// and beyond the channels. Here and below, x is a whole buffer and therefore aligned.
__device__ __forceinline__ void load_rows(
    const float *x, int first, int count, int tile, int channels, int stride, float *to) {
    x += first * channels;
    if (channels == stride) {
        for (int n = 4 * threadIdx.x; n < tile * stride; n += 4 * blockDim.x) {
            *(float4 *)&to[n] = n < count * channels ? four(&x[n]) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        }
    } else {
        for (int n = threadIdx.x; n < tile * stride; n += blockDim.x) {
            int row = n / stride, c = n % stride;
            to[n] = row < count && c < channels ? x[row * channels + c] : 0.0f;
        }
    }
}

// Stores four numbers from channel c on in a row.
__device__ __forceinline__ void store_four(float *row, int channels, int c, float4 values) {
    if (channels % 4 == 0) {
        *(float4 *)&row[c] = values;
    } else {
        float list[4] = {values.x, values.y, values.z, values.w};
        for (int k = 0; k < 4 && c + k < channels; k++) {
            row[c + k] = list[k];
        }
    }
}

__device__ __forceinline__ void copy_fours(const float *from, int count, float *to) {
    for (int n = 4 * threadIdx.x; n < count; n += 4 * blockDim.x) {
        *(float4 *)&to[n] = four(&from[n]);
    }
}

__device__ __forceinline__ void add_product(float4 m, float x, float4 *sum) {
    sum->x = fmaf(m.x, x, sum->x);
    sum->y = fmaf(m.y, x, sum->y);
    sum->z = fmaf(m.z, x, sum->z);
    sum->w = fmaf(m.w, x, sum->w);
}

// Adds elements c to c + 3 of M x and of M y; matrix[j, i] holds M[i, j]. Two rows share each read of the
// matrix.
__device__ __forceinline__ void two_rows(
    const float *matrix, int stride, int c, const float *x, const float *y, float4 *of_x, float4 *of_y) {
    matrix += c;
    for (int j = 0; j < stride; j += 4) {
        float4 a = four(&x[j]), b = four(&y[j]), m;
        m = four(&matrix[j * stride]);
        add_product(m, a.x, of_x);
        add_product(m, b.x, of_y);
        m = four(&matrix[(j + 1) * stride]);
        add_product(m, a.y, of_x);
        add_product(m, b.y, of_y);
        m = four(&matrix[(j + 2) * stride]);
        add_product(m, a.z, of_x);
        add_product(m, b.z, of_y);
        m = four(&matrix[(j + 3) * stride]);
        add_product(m, a.w, of_x);
        add_product(m, b.w, of_y);
    }
}

__device__ __forceinline__ void add_log_det(int batch, int pixels, const double *log_det, float *logp) {
    for (int b = threadIdx.x; b < batch; b += blockDim.x) {
        logp[b] += (float)((double)pixels * *log_det);
    }
}

// x ← M x + offset for each row of x [rows, channels], in place; matrix[j, i] holds M[i, j]. `offset` may be
// null. A block handles `tile` rows, an even number, with rows and matrix in shared memory. logp [batch], if
// given, gains pixels · log_det.
extern "C" __global__ void affine(
    int rows, int channels, int tile, const float *matrix, const float *offset, float *x, int batch,
    int pixels, const double *log_det, float *logp) {
    extern __shared__ float4 affine_shared[];
    int stride = stride_of(channels), groups = stride / 4, half = tile / 2;
    float *rows_of_x = (float *)affine_shared, *copy = &rows_of_x[tile * stride];
    int first = blockIdx.x * tile, count = min(tile, rows - first);
    copy_fours(matrix, stride * stride, copy);
    load_rows(x, first, count, tile, channels, stride, rows_of_x);
    __syncthreads();
    for (int n = threadIdx.x; n < half * groups; n += blockDim.x) {
        int row = n / groups, c = 4 * (n - row * groups);
        float4 a = offset ? four(&offset[c]) : make_float4(0.0f, 0.0f, 0.0f, 0.0f), b = a;
        const float *x0 = &rows_of_x[row * stride], *x1 = &x0[half * stride];
        two_rows(copy, stride, c, x0, x1, &a, &b);
        if (row < count) {
            store_four(&x[(first + row) * channels], channels, c, a);
        }
        if (half + row < count) {
            store_four(&x[(first + half + row) * channels], channels, c, b);
        }
    }
    if (blockIdx.x == 0 && logp) {
        add_log_det(batch, pixels, log_det, logp);
    }
}

// The same for many channels, from x to y: a block handles 32 channels of 8 rows, with 8 threads per sum;
// `at_once` channels of x are in shared memory. (If a block computed all channels of its rows, few rows would
// leave most of a GPU idle.)
extern "C" __global__ void affine_wide(
    int rows, int channels, int at_once, const float *__restrict__ matrix, const float *offset,
    const float *__restrict__ x, float *__restrict__ y, int batch, int pixels, const double *log_det,
    float *logp) {
    extern __shared__ float4 affine_wide_shared[];
    float *rows_of_x = (float *)affine_wide_shared;
    __shared__ float parts[8][8][32];
    int stride = stride_of(channels), lane = threadIdx.x % 32, part = threadIdx.x / 32;
    int first = blockIdx.x * 8, c = blockIdx.y * 32 + lane;
    float sum[8];
    for (int r = 0; r < 8; r++) {
        sum[r] = 0.0f;
    }
    for (int j0 = 0; j0 < channels; j0 += at_once) {
        int here = min(at_once, channels - j0);
        __syncthreads();
        for (int n = threadIdx.x; n < 8 * here; n += blockDim.x) {
            int r = n / here, row = first + r;
            rows_of_x[n] = row < rows ? x[row * channels + j0 + n - r * here] : 0.0f;
        }
        __syncthreads();
        if (c < channels) {
#pragma unroll 4
            for (int j = part; j < here; j += 8) {
                float m = matrix[(j0 + j) * stride + c];
#pragma unroll
                for (int r = 0; r < 8; r++) {
                    sum[r] = fmaf(m, rows_of_x[r * here + j], sum[r]);
                }
            }
        }
    }
#pragma unroll
    for (int r = 0; r < 8; r++) {
        parts[part][r][lane] = sum[r];
    }
    __syncthreads();
    // Each warp now has one row.
    int row = first + part;
    if (row < rows && c < channels) {
        float total = offset ? offset[c] : 0.0f;
        for (int p = 0; p < 8; p++) {
            total += parts[p][part][lane];
        }
        y[row * channels + c] = total;
    }
    if (blockIdx.x == 0 && blockIdx.y == 0 && logp) {
        add_log_det(batch, pixels, log_det, logp);
    }
}

// The backward pass for few channels in one kernel: x ← A⁻¹ x + offset, dx ← Aᵀ dx, and the sums of
// `outer_sums` over the new x and the old dx. A block handles a slab in tiles of an even number of rows.
// Threads own 4×4 sums each, and groups of them alternate between rows; the sums of the groups are
// accumulated in order.
extern "C" __global__ void __launch_bounds__(288, 4) channel_map_fused_backward(
    int rows, int channels, int slab_rows, int tile, const float *inverse, const float *offset,
    const float *a, float *x, float *dx, float *sums) {
    extern __shared__ float4 fused_backward_shared[];
    int stride = stride_of(channels), fours = stride / 4, half = tile / 2;
    // A row's numbers are followed by a 1, for the sums of dx alone.
    int x_stride = stride + 4;
    float *inverse_copy = (float *)fused_backward_shared, *a_copy = &inverse_copy[stride * stride];
    float *y_tile = &a_copy[stride * stride], *dy_tile = &y_tile[tile * stride],
           *x_tile = &dy_tile[tile * stride];
    copy_fours(inverse, stride * stride, inverse_copy);
    copy_fours(a, stride * stride, a_copy);

    int across = channels / 4 + 1, squares = fours * across;
    int groups = min(32, (int)blockDim.x / squares);
    int group = threadIdx.x / squares, square = threadIdx.x % squares;
    int i0 = 4 * (square / across), j0 = 4 * (square % across);
    float4 sum[4];
    for (int k = 0; k < 4; k++) {
        sum[k] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }

    int end = min((int)(blockIdx.x + 1) * slab_rows, rows);
    for (int first = blockIdx.x * slab_rows; first < end; first += tile) {
        int count = min(tile, end - first);
        load_rows(x, first, count, tile, channels, stride, y_tile);
        load_rows(dx, first, count, tile, channels, stride, dy_tile);
        __syncthreads();
        for (int n = threadIdx.x; n < 2 * half * fours; n += blockDim.x) {
            bool gradient = n >= half * fours;
            int at = gradient ? n - half * fours : n;
            int row = at / fours, c = 4 * (at - row * fours);
            const float *from = &(gradient ? dy_tile : y_tile)[row * stride];
            float4 result[2];
            result[0] = gradient ? make_float4(0.0f, 0.0f, 0.0f, 0.0f) : four(&offset[c]);
            result[1] = result[0];
            two_rows(
                gradient ? a_copy : inverse_copy, stride, c, from, &from[half * stride], &result[0],
                &result[1]);
            for (int k = 0; k < 2; k++, row += half) {
                if (row < count) {
                    store_four(&(gradient ? dx : x)[(first + row) * channels], channels, c, result[k]);
                }
                if (!gradient) {
                    *(float4 *)&x_tile[row * x_stride + c] = result[k];
                    if (c + 4 == stride) {
                        x_tile[row * x_stride + channels] = 1.0f;
                    }
                }
            }
        }
        __syncthreads();
        if (group < groups) {
            for (int row = group; row < count; row += groups) {
                float4 d = four(&dy_tile[row * stride + i0]), v = four(&x_tile[row * x_stride + j0]);
                add_product(v, d.x, &sum[0]);
                add_product(v, d.y, &sum[1]);
                add_product(v, d.z, &sum[2]);
                add_product(v, d.w, &sum[3]);
            }
        }
        __syncthreads();
    }

    // The matrices and tiles are no longer needed.
    float *of_groups = (float *)fused_backward_shared;
    if (group < groups) {
        for (int k = 0; k < 4; k++) {
            *(float4 *)&of_groups[16 * (group * squares + square) + 4 * k] = sum[k];
        }
    }
    __syncthreads();
    int width = channels + 1;
    for (int n = threadIdx.x; n < channels * width; n += blockDim.x) {
        int i = n / width, j = n - i * width;
        const float *at = &of_groups[16 * (i / 4 * across + j / 4) + 4 * (i % 4) + j % 4];
        float total = 0.0f;
        for (int g = 0; g < groups; g++) {
            total += at[16 * g * squares];
        }
        sums[blockIdx.x * channels * width + n] = total;
    }
}

// sums[slab, i, j] = Σ over the rows of a slab of dy[row, i] · x[row, j], with x[row, channels] = 1. A block
// of 16×16 threads computes a tile of 16×16 sums: blockIdx.x is the slab, blockIdx.y and z the tile.
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
        sums[((size_t)blockIdx.x * channels + i) * (channels + 1) + j] = sum;
    }
}

// Sums of `slabs` partial sums of `count` numbers each, in double precision. A block of 256 threads
// computes eight numbers, which is the size of a memory transaction.
extern "C" __global__ void sum_slabs(int count, int slabs, const float *sums, float *total) {
    __shared__ double scratch[8][8];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int index = blockIdx.x * 8 + lane % 8;
    double sum = 0.0;
    if (index < count) {
#pragma unroll 4
        for (int s = 4 * warp + lane / 8; s < slabs; s += 32) {
            sum += (double)__ldg(&sums[(size_t)s * count + index]);
        }
    }
    sum += __shfl_down_sync(0xffffffffu, sum, 16);
    sum += __shfl_down_sync(0xffffffffu, sum, 8);
    if (lane < 8) {
        scratch[warp][lane] = sum;
    }
    __syncthreads();
    if (warp == 0 && lane < 8 && index < count) {
        for (int w = 1; w < 8; w++) {
            sum += scratch[w][lane];
        }
        total[index] = (float)sum;
    }
}

// The parameters' gradients from sums [channels, channels + 1] = dyᵀ·(x, 1) and A [stride, stride] (not
// transposed). With G the first channels columns and g the last: d_W[i, j] = s_j (G[i, j] + g_i bias_j),
// d_LU = Pᵀ d_W, d_L = d_LU Uᵀ, d_U = Lᵀ d_LU, each where its factor is trained; d_log_det is dlogp · rows.
//
// blockIdx.y selects the result of a block of 256 threads: 0 for the actnorm's gradients, 1 for those of L, 2
// for those of U and its diagonal. Lanes are 32 columns, selected by blockIdx.z. A warp computes a row of L
// or U, in steps of 32 terms that pass through shared memory.
extern "C" __global__ void channel_map_gradient(
    int channels, const int *inverse, const float *sign, const float *lower, const float *upper,
    const float *log_s, const float *bias, const float *logs, const float *sums, const float *a,
    double d_log_det, float *d_bias, float *d_logs, float *d_lower, float *d_upper, float *d_log_s) {
    __shared__ double left[8][32], right[32][33];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, width = channels + 1;
    int j0 = blockIdx.z * 32, j = j0 + lane, i0 = blockIdx.x * 8, i = i0 + warp;
    bool column = j < channels;
    double bias_j = column ? (double)bias[j] : 0.0;

    if (blockIdx.y == 0) {
        if (blockIdx.x > 0) {
            return;
        }
        double through_bias = 0.0, through_scale = 0.0;
        if (column) {
#pragma unroll 4
            for (int row = warp; row < channels; row += 8) {
                double a_ij = (double)__ldg(&a[row * stride_of(channels) + j]);
                through_bias += a_ij * (double)__ldg(&sums[row * width + channels]);
                through_scale += a_ij * (double)__ldg(&sums[row * width + j]);
            }
        }
        left[warp][lane] = through_bias;
        right[warp][lane] = through_scale;
        __syncthreads();
        if (warp == 0 && column) {
            for (int w = 1; w < 8; w++) {
                through_bias += left[w][lane];
                through_scale += right[w][lane];
            }
            d_bias[j] += (float)through_bias;
            d_logs[j] += (float)(3.0 * (through_scale + bias_j * through_bias + d_log_det));
        }
        return;
    }

    // Half of either factor is zero.
    bool of_lower = blockIdx.y == 1;
    if (of_lower ? j0 > i0 + 7 : j0 + 31 < i0) {
        return;
    }
    double diagonal = column ? (double)sign[j] * exp((double)log_s[j]) : 0.0;
    double sum = 0.0;
    if (of_lower) {
        // Σ over m ≥ j of d_LU[i, m] U[j, m].
        const float *row = &sums[i < channels ? inverse[i] * width : 0];
        for (int m0 = j0; m0 < channels; m0 += 32) {
            int m = m0 + lane;
            for (int r = warp; r < 32; r += 8) {
                bool inside = m < channels && j0 + r < m;
                right[r][lane] = inside ? (double)upper[(j0 + r) * channels + m] : 0.0;
            }
            double d_lu = 0.0;
            if (m < channels) {
                d_lu = exp(3.0 * (double)logs[m])
                    * ((double)row[m] + (double)row[channels] * (double)bias[m]);
            }
            left[warp][lane] = d_lu;
            if (m0 == j0) {
                sum = d_lu * diagonal;
            }
            __syncthreads();
            for (int k = 0; k < 32; k++) {
                sum += left[warp][k] * right[lane][k];
            }
            __syncthreads();
        }
        if (i < channels && j < i) {
            d_lower[i * channels + j] += (float)sum;
        }
    } else {
        // Σ over m ≥ i of L[m, i] d_LU[m, j].
        double scale = column ? exp(3.0 * (double)logs[j]) : 0.0;
        for (int m0 = i0 / 32 * 32; m0 < channels; m0 += 32) {
            int m = m0 + lane;
            for (int r = warp; r < 32; r += 8) {
                double d_lu = 0.0;
                if (column && m0 + r < channels) {
                    const float *row = &sums[inverse[m0 + r] * width];
                    d_lu = scale * ((double)row[j] + (double)row[channels] * bias_j);
                }
                right[r][lane] = d_lu;
            }
            bool inside = i < m && m < channels;
            left[warp][lane] = inside ? (double)lower[m * channels + i] : i == m ? 1.0 : 0.0;
            __syncthreads();
            for (int k = 0; k < 32; k++) {
                sum += left[warp][k] * right[k][lane];
            }
            __syncthreads();
        }
        if (i < channels && column && j > i) {
            d_upper[i * channels + j] += (float)sum;
        } else if (i < channels && j == i) {
            d_log_s[i] += (float)(sum * diagonal + d_log_det);
        }
    }
}

// Data-dependent initialisation of an actnorm from x [rows, stride]: bias = −mean, 3·logs = −log(std + 1e-6).
// One block per channel.
extern "C" __global__ void initialize_actnorm(
    int rows, int stride, const float *x, float *bias, float *logs) {
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
