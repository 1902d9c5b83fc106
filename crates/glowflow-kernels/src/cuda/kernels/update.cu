// The optimiser step: the gradient's norm, a check that everything is finite, and one pass over weights,
// gradient, moments and average.

struct Report {
    double squared_norm;  // of the gradient before clipping
    float shrink;         // what the gradient is scaled by
    int applied;          // one of the following
};

// The loss or gradient was not finite: only the gradient changes.
#define SKIPPED 0
#define APPLIED 1
// Applied, except to parameters whose new values were not finite.
#define OVERFLOWED 2

// partial[block] = Σ g² of this block's elements. Four numbers per load and four loads per iteration keep
// enough loads in flight.
extern "C" __global__ void squared_norm(
    int count, const float *__restrict__ gradient, double *__restrict__ partial) {
    __shared__ double scratch[32];
    const Pack<float> *packs = (const Pack<float> *)gradient;
    double sum = 0.0;
    int stride = gridDim.x * blockDim.x;
#pragma unroll 4
    for (int i = global_index(); i < count / 4; i += stride) {
        Pack<float> g = packs[i];
        for (int j = 0; j < 4; j++) {
            sum += (double)g.values[j] * (double)g.values[j];
        }
    }
    int rest = count / 4 * 4 + global_index();
    if (rest < count) {
        sum += (double)gradient[rest] * (double)gradient[rest];
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = sum;
    }
}

// Initialises a report, in one block. `clip` is 0 if gradients are not clipped.
extern "C" __global__ void begin_report(
    int partials, const double *partial, float clip, int adamax, Report *report) {
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
        // Adam squares the gradient.
        float largest = (float)(norm * (double)report->shrink);
        report->applied = isfinite(sum) && (adamax || isfinite(largest * largest)) ? APPLIED : SKIPPED;
    }
}

// Sets a report to "skipped" if a log-likelihood is not finite.
extern "C" __global__ void check_finite(int count, const float *logp, Report *report) {
    int i = global_index();
    // All writers write the same value.
    if (i < count && !isfinite(logp[i])) {
        report->applied = SKIPPED;
    }
}

struct Rates {
    float beta1, rest1, beta2, rest2;  // decays, and one minus them
    float rate;                        // learning rate over the first moment's bias correction
    float keep;                        // 1 less the learning rate times the weight decay
    float unbias2;                     // what undoes the second moment's bias (Adam)
    float epsilon;
    float ema, renew;  // the average's decay, and one minus it
};

// Returns false, and changes nothing, if a new value is not finite.
__device__ __forceinline__ bool update_one(
    int adamax, const Rates &r, float g, float *weight, float *first, float *second, float *ema) {
    float moment = r.beta1 * *first + r.rest1 * g;
    float spread, denominator;
    if (adamax) {
        spread = fmaxf(r.beta2 * *second, fabsf(g) + r.epsilon);
        denominator = spread;
    } else {
        spread = r.beta2 * *second + r.rest2 * g * g;
        denominator = sqrtf(spread) * r.unbias2 + r.epsilon;
    }
    float changed = r.keep * *weight - r.rate * moment / denominator;
    float average = r.ema * *ema + r.renew * changed;
    // A non-finite first moment makes the weight non-finite, which makes the average non-finite.
    bool finite = isfinite(average) && isfinite(spread);
    *first = finite ? moment : *first;
    *second = finite ? spread : *second;
    *weight = finite ? changed : *weight;
    *ema = finite ? average : *ema;
    return finite;
}

// A segment of parameters, one thread per four. `aligned` means that it starts at a multiple of four. The
// gradient is 0 afterwards. (Because no two arrays overlap, all loads can be issued at once: otherwise this
// takes 2.5 times as long.)
extern "C" __global__ void update(
    int count, int aligned, int adamax, Rates rates, Report *__restrict__ report, float *__restrict__ weights,
    float *__restrict__ gradient, float *__restrict__ first, float *__restrict__ second,
    float *__restrict__ ema) {
    int start = 4 * global_index();
    if (start >= count) {
        return;
    }
    // Another thread may have changed APPLIED to OVERFLOWED by now: this thread treats both alike.
    int applied = report->applied;
    bool finite = true;
    float shrink = report->shrink;
    if (aligned && start + 4 <= count) {
        Pack<float> g = *(Pack<float> *)&gradient[start], zero = {{0.0f, 0.0f, 0.0f, 0.0f}};
        Pack<float> w = *(Pack<float> *)&weights[start], m = *(Pack<float> *)&first[start];
        Pack<float> v = *(Pack<float> *)&second[start], e = *(Pack<float> *)&ema[start];
        *(Pack<float> *)&gradient[start] = zero;
        if (!applied) {
            return;
        }
        for (int j = 0; j < 4; j++) {
            finite &= update_one(
                adamax, rates, shrink * g.values[j], &w.values[j], &m.values[j], &v.values[j], &e.values[j]);
        }
        if (!finite) {
            report->applied = OVERFLOWED;
        }
        *(Pack<float> *)&weights[start] = w;
        *(Pack<float> *)&first[start] = m;
        *(Pack<float> *)&second[start] = v;
        *(Pack<float> *)&ema[start] = e;
        return;
    }
    for (int i = start; i < min(start + 4, count); i++) {
        float g = gradient[i];
        gradient[i] = 0.0f;
        if (applied) {
            finite &= update_one(adamax, rates, shrink * g, &weights[i], &first[i], &second[i], &ema[i]);
        }
    }
    if (!finite) {
        report->applied = OVERFLOWED;
    }
}
