// The optimiser step: the gradient's norm, a verdict on whether everything is finite, and one pass over weights, gradient,
// moments and average.

struct Report {
    double squared_norm;  // of the gradient before clipping
    float shrink;         // what the gradient is scaled by
    int applied;          // 0 where something was not finite
};

// partial[block] = Σ g² of this block's elements.
extern "C" __global__ void squared_norm(int count, const float *gradient, double *partial) {
    __shared__ double scratch[32];
    double sum = 0.0;
    for (int i = global_index(); i < count; i += gridDim.x * blockDim.x) {
        double g = (double)gradient[i];
        sum += g * g;
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = sum;
    }
}

// Begins a report: one block. `clip` is 0 where gradients are not clipped.
extern "C" __global__ void begin_report(int partials, const double *partial, float clip, Report *report) {
    __shared__ double scratch[32];
    double sum = 0.0;
    for (int i = threadIdx.x; i < partials; i += blockDim.x) {
        sum += partial[i];
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) {
        double norm = sqrt(sum);
        report->squared_norm = sum;
        report->shrink = clip > 0.0f && norm > (double)clip ? (float)((double)clip / norm) : 1.0f;
        report->applied = isfinite(sum) ? 1 : 0;
    }
}

// Turns a report to "not applied" where a log-likelihood is not finite.
extern "C" __global__ void check_finite(int count, const float *logp, Report *report) {
    int i = global_index();
    // Whoever writes writes the same.
    if (i < count && !isfinite(logp[i])) {
        report->applied = 0;
    }
}

struct Rates {
    float beta1, rest1, beta2, rest2;  // decays, and one minus them
    float rate;                        // learning rate over the first moment's bias correction
    float unbias2;                     // what undoes the second moment's bias (Adam)
    float epsilon;
    float ema, renew;  // the average's decay, and one minus it
};

__device__ __forceinline__ void update_one(
    int adamax, const Rates &r, float g, float *weight, float *first, float *second, float *ema) {
    *first = r.beta1 * *first + r.rest1 * g;
    float denominator;
    if (adamax) {
        *second = fmaxf(r.beta2 * *second, fabsf(g) + r.epsilon);
        denominator = *second;
    } else {
        *second = r.beta2 * *second + r.rest2 * g * g;
        denominator = sqrtf(*second) * r.unbias2 + r.epsilon;
    }
    *weight -= r.rate * *first / denominator;
    *ema = r.ema * *ema + r.renew * *weight;
}

// One thread for every four parameters. The gradient is 0 afterwards.
extern "C" __global__ void update(
    int count, int adamax, Rates rates, const Report *report, float *weights, float *gradient, float *first,
    float *second, float *ema) {
    int start = 4 * global_index();
    if (start >= count) {
        return;
    }
    int applied = report->applied;
    float shrink = report->shrink;
    if (start + 4 <= count) {
        Pack<float> g = *(Pack<float> *)&gradient[start], zero = {{0.0f, 0.0f, 0.0f, 0.0f}};
        *(Pack<float> *)&gradient[start] = zero;
        if (!applied) {
            return;
        }
        Pack<float> w = *(Pack<float> *)&weights[start], m = *(Pack<float> *)&first[start];
        Pack<float> v = *(Pack<float> *)&second[start], e = *(Pack<float> *)&ema[start];
        for (int j = 0; j < 4; j++) {
            update_one(adamax, rates, shrink * g.values[j], &w.values[j], &m.values[j], &v.values[j], &e.values[j]);
        }
        *(Pack<float> *)&weights[start] = w;
        *(Pack<float> *)&first[start] = m;
        *(Pack<float> *)&second[start] = v;
        *(Pack<float> *)&ema[start] = e;
        return;
    }
    for (int i = start; i < count; i++) {
        float g = gradient[i];
        gradient[i] = 0.0f;
        if (applied) {
            update_one(adamax, rates, shrink * g, &weights[i], &first[i], &second[i], &ema[i]);
        }
    }
}
