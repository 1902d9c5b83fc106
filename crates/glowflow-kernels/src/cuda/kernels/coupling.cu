// The element-wise part of a coupling, which transforms the last half of x [rows, channels].
//
// Affine: y = (x + shift)·s, log|det| = Σ log s, s a function of r = o[C/2..]; additive: y = x + o.
// The gradient of r is (dy·y + dlogp)·∂ log s/∂r: no division.

// Kinds of couplings; the host uses the same numbers.
#define COUPLING_ADDITIVE 0
#define COUPLING_SIGMOID 1  // affine, s = sigmoid(r + 2)
#define COUPLING_EXP2TANH 2  // affine, s = exp(2·tanh(r/2))

struct Scaling {
    float scale, log_scale;
    float slope;  // ∂ log s/∂r
};

__device__ __forceinline__ Scaling scaling(int kind, float r) {
    Scaling at;
    if (kind == COUPLING_EXP2TANH) {
        // tanh(|r|/2) = (1 − e)/(1 + e), with rounding relative to 1, like the scale's.
        float e = expf(-fabsf(r)), inverse = 1.0f / (1.0f + e);
        at.log_scale = copysignf(2.0f * (1.0f - e) * inverse, r);
        at.scale = expf(at.log_scale);
        at.slope = 4.0f * e * inverse * inverse;
    } else {
        at.scale = sigmoid(r + 2.0f, &at.log_scale);
        at.slope = 1.0f - at.scale;
    }
    return at;
}

// Adds a block's sum to logp [batch]: directly if an image is one part; else in two stages, sums [batch,
// parts] here, then `add_parts`.
__device__ __forceinline__ void add_part(float sum, float *sums) {
    if (threadIdx.x == 0) {
        if (gridDim.y == 1) {
            sums[blockIdx.x] += sum;
        } else {
            sums[blockIdx.x * gridDim.y + blockIdx.y] = sum;
        }
    }
}

// One block per part of an image: blockIdx.x is the image, blockIdx.y the part. With a single part, `sums` is
// logp itself.
extern "C" __global__ void couple(
    int pixels, int channels, int kind, int part_pixels, const float *o, float *x, float *sums) {
    __shared__ float scratch[32];
    int half = channels / 2;
    int first = blockIdx.x * pixels + blockIdx.y * part_pixels;
    int count = min(part_pixels, pixels - (int)blockIdx.y * part_pixels) * half;
    float sum = 0.0f;
    for (int n = threadIdx.x; n < count; n += blockDim.x) {
        int row = first + n / half, c = n % half;
        float *value = &x[row * channels + half + c];
        if (kind != COUPLING_ADDITIVE) {
            Scaling at = scaling(kind, o[row * channels + half + c]);
            *value = (*value + o[row * channels + c]) * at.scale;
            sum += at.log_scale;
        } else {
            *value += o[row * half + c];
        }
    }
    if (kind != COUPLING_ADDITIVE) {
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

extern "C" __global__ void uncouple(int count, int channels, int kind, const float *o, float *x) {
    int i = global_index();
    if (i >= count) {
        return;
    }
    int half = channels / 2, row = i / half, c = i % half;
    float *value = &x[row * channels + half + c];
    if (kind != COUPLING_ADDITIVE) {
        *value = *value / scaling(kind, o[row * channels + half + c]).scale - o[row * channels + c];
    } else {
        *value -= o[row * half + c];
    }
}

extern "C" __global__ void couple_backward(
    int count, int channels, int kind, float dlogp, const float *o, float *x, float *dx, float *d_o) {
    int i = global_index();
    if (i >= count) {
        return;
    }
    int half = channels / 2, row = i / half, c = i % half;
    int at = row * channels + half + c;
    if (kind != COUPLING_ADDITIVE) {
        int shift_at = row * channels + c;
        Scaling by = scaling(kind, o[at]);
        float gradient = dx[at] * by.scale;
        d_o[at] = (dx[at] * x[at] + dlogp) * by.slope;
        d_o[shift_at] = gradient;
        x[at] = x[at] / by.scale - o[shift_at];
        dx[at] = gradient;
    } else {
        d_o[i] = dx[at];
        x[at] -= o[i];
    }
}
