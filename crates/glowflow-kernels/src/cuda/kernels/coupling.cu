// The element-wise part of a coupling, x [rows, channels], of which the last half changes.
//
// Affine, with t = o[C/2..] + 2 and s = sigmoid(t): y = (x + shift)·s, log|det| = Σ log s; additive: y = x + o.
// For the gradient, ∂ log s / ∂t = 1 − s turns dy·(x + shift)·s·(1 − s) into dy·y·(1 − s): no division.

// What a block adds to logp [batch]: by itself where an image is one part; else in two stages, sums [batch, parts] here, then `add_parts`.
__device__ __forceinline__ void add_part(float sum, float *sums) {
    if (threadIdx.x == 0) {
        if (gridDim.y == 1) {
            sums[blockIdx.x] += sum;
        } else {
            sums[blockIdx.x * gridDim.y + blockIdx.y] = sum;
        }
    }
}

// One block a part of an image: blockIdx.x is the image, blockIdx.y the part. `sums` is logp itself where there is one part.
extern "C" __global__ void couple(
    int pixels, int channels, int affine, int part_pixels, const float *o, float *x, float *sums) {
    __shared__ float scratch[32];
    int half = channels / 2;
    int first = blockIdx.x * pixels + blockIdx.y * part_pixels;
    int count = min(part_pixels, pixels - (int)blockIdx.y * part_pixels) * half;
    float sum = 0.0f;
    for (int n = threadIdx.x; n < count; n += blockDim.x) {
        int row = first + n / half, c = n % half;
        float *value = &x[row * channels + half + c];
        if (affine) {
            float log_scale;
            float scale = sigmoid(o[row * channels + half + c] + 2.0f, &log_scale);
            *value = (*value + o[row * channels + c]) * scale;
            sum += log_scale;
        } else {
            *value += o[row * half + c];
        }
    }
    if (affine) {
        add_part(block_sum(sum, scratch), sums);
    }
}

// logp[b] += sums[b, 0] + sums[b, 1] + …, in double precision and in order.
extern "C" __global__ void add_parts(int batch, int parts, const float *sums, float *logp) {
    int b = global_index();
    if (b < batch) {
        double sum = 0.0;
        for (int part = 0; part < parts; part++) {
            sum += (double)sums[b * parts + part];
        }
        logp[b] += (float)sum;
    }
}

extern "C" __global__ void uncouple(int count, int channels, int affine, const float *o, float *x) {
    int i = global_index();
    if (i >= count) {
        return;
    }
    int half = channels / 2, row = i / half, c = i % half;
    float *value = &x[row * channels + half + c];
    if (affine) {
        float log_scale;
        float scale = sigmoid(o[row * channels + half + c] + 2.0f, &log_scale);
        *value = *value / scale - o[row * channels + c];
    } else {
        *value -= o[row * half + c];
    }
}

extern "C" __global__ void couple_backward(
    int count, int channels, int affine, float dlogp, const float *o, float *x, float *dx, float *d_o) {
    int i = global_index();
    if (i >= count) {
        return;
    }
    int half = channels / 2, row = i / half, c = i % half;
    int at = row * channels + half + c;
    if (affine) {
        int shift_at = row * channels + c;
        float log_scale;
        float scale = sigmoid(o[at] + 2.0f, &log_scale);
        float gradient = dx[at] * scale;
        d_o[at] = (dx[at] * x[at] + dlogp) * (1.0f - scale);
        d_o[shift_at] = gradient;
        x[at] = x[at] / scale - o[shift_at];
        dx[at] = gradient;
    } else {
        d_o[i] = dx[at];
        x[at] -= o[i];
    }
}
