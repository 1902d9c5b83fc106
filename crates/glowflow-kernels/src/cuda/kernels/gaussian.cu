// Gaussian priors: eps = (z − mean)·exp(−logs), log N = −(log 2π + 2·logs + eps²)/2; and the final prior.
// prior [rows, 2·channels] holds mean, then logs.

// Like `couple`: blockIdx.x is the image, blockIdx.y the part; with a single part, `sums` is logp itself.
extern "C" __global__ void standardize(
    int pixels, int channels, int part_pixels, const float *prior, float *z, float *sums) {
    __shared__ float scratch[32];
    int first = blockIdx.x * pixels + blockIdx.y * part_pixels;
    int count = min(part_pixels, pixels - (int)blockIdx.y * part_pixels) * channels;
    float sum = 0.0f;
    for (int n = threadIdx.x; n < count; n += blockDim.x) {
        int row = first + n / channels, c = n % channels;
        float mean = prior[row * 2 * channels + c], logs = prior[row * 2 * channels + channels + c];
        float eps = (z[row * channels + c] - mean) * expf(-logs);
        z[row * channels + c] = eps;
        sum -= 0.5f * (1.8378770664093453f + 2.0f * logs + eps * eps);
    }
    add_part(block_sum(sum, scratch), sums);
}

extern "C" __global__ void unstandardize(int count, int channels, const float *prior, float *eps) {
    int i = global_index();
    if (i < count) {
        int row = i / channels, c = i % channels;
        const float *at = &prior[row * 2 * channels + c];
        eps[i] = fmaf(expf(at[channels]), eps[i], at[0]);
    }
}

extern "C" __global__ void standardize_backward(
    int count, int channels, float dlogp, const float *prior, const float *eps, float *dz, float *d_prior) {
    int i = global_index();
    if (i < count) {
        int row = i / channels, c = i % channels;
        int at = row * 2 * channels + c;
        float d_mean = dlogp * eps[i] * expf(-prior[at + channels]);
        d_prior[at] = d_mean;
        d_prior[at + channels] = dlogp * (eps[i] * eps[i] - 1.0f);
        dz[i] = -d_mean;
    }
}

// Broadcasts base [width] plus class_weight [classes, width], width = 2·channels, to every pixel: prior
// [batch, pixels, width]. labels [batch] are class numbers; one that is too large gives NaN.
extern "C" __global__ void final_prior(
    int count, int pixels, int width, int classes, const float *base, const float *class_weight,
    const float *labels, float *prior) {
    int i = global_index();
    if (i >= count) {
        return;
    }
    int c = i % width, image = i / width / pixels;
    float value = base[c];
    if (classes > 0) {
        int y = (int)labels[image];
        value += (u32)y < (u32)classes ? class_weight[y * width + c] : __int_as_float(0x7fffffff);
    }
    prior[i] = value;
}

// Adds Σ d_prior over all pixels to d_mean and d_logs, and for each class over the pixels of its images to
// d_class_weight [classes, width]. One block per column c < width; its threads share the rows.
extern "C" __global__ void final_prior_backward(
    int batch, int pixels, int width, int classes, const float *labels, const float *d_prior, float *d_mean,
    float *d_logs, float *d_class_weight) {
    __shared__ double scratch[32];
    int c = blockIdx.x, rows = batch * pixels;
    double sum = 0.0;
    for (int row = threadIdx.x; row < rows; row += blockDim.x) {
        sum += (double)d_prior[row * width + c];
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) {
        float *to = c < width / 2 ? &d_mean[c] : &d_logs[c - width / 2];
        *to += (float)sum;
    }
    for (int image = 0; classes > 0 && image < batch; image++) {
        // Each class once, at the first of its images.
        float label = labels[image];
        int earlier = 0, y = (int)label;
        for (int other = threadIdx.x; other < image; other += blockDim.x) {
            earlier |= labels[other] == label;
        }
        if (__syncthreads_or(earlier) || (u32)y >= (u32)classes) {
            continue;
        }
        double of_class = 0.0;
        for (int row = threadIdx.x; row < rows; row += blockDim.x) {
            if (labels[row / pixels] == label) {
                of_class += (double)d_prior[row * width + c];
            }
        }
        of_class = block_sum(of_class, scratch);
        if (threadIdx.x == 0) {
            d_class_weight[y * width + c] += (float)of_class;
        }
    }
}
