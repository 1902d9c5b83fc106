// The element-wise part of a mixture coupling (ops/mixture/mod.rs), which transforms the last half of the
// channels of x [rows, channels], one thread per number. head [rows, 3, components, channels/2] holds l, m
// and w. Everything is computed with logarithms, so that no sum underflows.

#define MIXTURE_FLOOR 0.1f
#define MIXTURE_BOUND 2.5f
#define MIXTURE_SPREAD 1.5f
#define MIXTURE_ITERATIONS 16

// The parameters of one number. Components are reread from memory, because their number is not a compile-time
// constant.
struct Mixture {
    const float *head;
    int components, stride;
    float shift, log_scale, log_sum;
};

struct MixtureValue {
    float upper, lower, density, t, slope, largest;
};

struct MixtureComponent {
    float log_pi, mu, zeta;
};

__device__ __forceinline__ float log_sigmoid(float z) { return fminf(z, 0.0f) - log1pf(expf(-fabsf(z))); }

__device__ __forceinline__ Mixture mixture_at(
    int channels, int components, const float *o, const float *head, int row, int c) {
    int half = channels / 2;
    Mixture mixture;
    mixture.head = &head[(long long)row * 3 * components * half + c];
    mixture.components = components;
    mixture.stride = half;
    mixture.shift = o[row * channels + c];
    mixture.log_scale = 2.0f * tanhf(0.5f * o[row * channels + half + c]);
    float most = mixture.head[0], sum = 0.0f;
    for (int m = 1; m < components; m++) {
        most = fmaxf(most, mixture.head[m * half]);
    }
    for (int m = 0; m < components; m++) {
        sum += expf(mixture.head[m * half] - most);
    }
    mixture.log_sum = most + logf(sum);
    return mixture;
}

__device__ __forceinline__ MixtureComponent component_of(const Mixture &mixture, int m) {
    const float *at = &mixture.head[m * mixture.stride];
    int next = mixture.components * mixture.stride;
    MixtureComponent component;
    float offset = mixture.components == 1
        ? 0.0f
        : MIXTURE_SPREAD * (float)(2 * m + 1 - mixture.components) / (float)(mixture.components - 1);
    component.log_pi = at[0] - mixture.log_sum;
    component.mu = at[next] + offset;
    component.zeta = MIXTURE_BOUND * tanhf(at[2 * next] / MIXTURE_BOUND);
    return component;
}

// The logarithm of a sum of exponentials, term by term.
struct LogSum {
    float most, sum;
};

__device__ __forceinline__ void add_exponential(LogSum *to, float x) {
    if (x > to->most) {
        to->sum = to->sum * expf(to->most - x) + 1.0f;
        to->most = x;
    } else if (x == x && x > -3.0e38f) {
        to->sum += expf(x - to->most);
    } else {
        to->sum += x == x ? 0.0f : x;
    }
}

__device__ __forceinline__ float log_of(LogSum sum) { return sum.most + logf(sum.sum); }

__device__ MixtureValue mixture_value(const Mixture &mixture, float x) {
    LogSum upper = {-3.4e38f, 0.0f}, lower = upper, density = upper;
    MixtureValue value;
    value.largest = 0.0f;
    for (int m = 0; m < mixture.components; m++) {
        MixtureComponent component = component_of(mixture, m);
        float z = (x - component.mu) * expf(-component.zeta);
        float above = log_sigmoid(z), below = log_sigmoid(-z);
        add_exponential(&upper, component.log_pi + above);
        add_exponential(&lower, component.log_pi + below);
        add_exponential(&density, component.log_pi - component.zeta + above + below);
        value.largest = fmaxf(value.largest, fabsf(z));
    }
    value.upper = log_of(upper);
    value.lower = log_of(lower);
    value.density = log_of(density);
    value.t = (1.0f - MIXTURE_FLOOR) * (value.upper - value.lower) + MIXTURE_FLOOR * x;
    value.slope = (1.0f - MIXTURE_FLOOR) * expf(value.density - value.upper - value.lower) + MIXTURE_FLOOR;
    return value;
}

// The x with this t: Newton's method within a bracket.
__device__ float mixture_solve(const Mixture &mixture, float t) {
    const float epsilon = 1.1920929e-7f;
    float low = 3.4e38f, high = -3.4e38f, x = 0.0f;
    for (int m = 0; m < mixture.components; m++) {
        MixtureComponent component = component_of(mixture, m);
        float inverse = (1.0f - MIXTURE_FLOOR) * expf(-component.zeta);
        float root = (t + inverse * component.mu) / (inverse + MIXTURE_FLOOR);
        low = fminf(low, root);
        high = fmaxf(high, root);
        x += expf(component.log_pi) * root;
    }
    x = fminf(fmaxf(x, low), high);
    float last = 3.4e38f;
    for (int i = 0; i < MIXTURE_ITERATIONS; i++) {
        MixtureValue value = mixture_value(mixture, x);
        float residual = value.t - t;
        low = residual <= 0.0f ? fmaxf(low, x) : low;
        high = residual >= 0.0f ? fminf(high, x) : high;
        float step = residual / value.slope, tolerance = 4.0f * epsilon * (1.0f + fabsf(x));
        float next = x - step;
        // Near the root, rounding may put an end of the bracket on the wrong side. A residual of NaN satisfies
        // no comparison, so that `next` stays NaN.
        bool near = fabsf(step) <= tolerance;
        bool outside = next < low - tolerance || next > high + tolerance;
        bool slow = fabsf(2.0f * residual) > fabsf(last * value.slope);
        next = !near && (outside || slow) ? 0.5f * (low + high) : next;
        last = next - x;
        bool solved = fabsf(residual) <= 8.0f * epsilon * (1.0f + fabsf(t) + value.largest);
        x = next;
        if (near || solved) {
            break;
        }
    }
    return x;
}

// Like `couple`: blockIdx.x is the image, blockIdx.y the part; with a single part, `sums` is logp itself.
extern "C" __global__ void mix(
    int pixels, int channels, int components, int part_pixels, const float *o, const float *head, float *x,
    float *sums) {
    __shared__ float scratch[32];
    int half = channels / 2;
    int first = blockIdx.x * pixels + blockIdx.y * part_pixels;
    int count = min(part_pixels, pixels - (int)blockIdx.y * part_pixels) * half;
    float sum = 0.0f;
    for (int n = threadIdx.x; n < count; n += blockDim.x) {
        int row = first + n / half, c = n % half;
        float *value = &x[row * channels + half + c];
        Mixture mixture = mixture_at(channels, components, o, head, row, c);
        MixtureValue at = mixture_value(mixture, *value);
        *value = at.t * expf(mixture.log_scale) + mixture.shift;
        sum += logf(at.slope) + mixture.log_scale;
    }
    add_part(block_sum(sum, scratch), sums);
}

extern "C" __global__ void unmix(
    int count, int channels, int components, const float *o, const float *head, float *x) {
    int i = global_index();
    if (i >= count) {
        return;
    }
    int half = channels / 2, row = i / half, c = i % half;
    float *value = &x[row * channels + half + c];
    Mixture mixture = mixture_at(channels, components, o, head, row, c);
    *value = mixture_solve(mixture, (*value - mixture.shift) * expf(-mixture.log_scale));
}

extern "C" __global__ void mix_backward(
    int count, int channels, int components, float dlogp, const float *o, const float *head, float *x,
    float *dx, float *d_o, float *d_head) {
    int i = global_index();
    if (i >= count) {
        return;
    }
    int half = channels / 2, row = i / half, c = i % half;
    int at = row * channels + half + c;
    Mixture mixture = mixture_at(channels, components, o, head, row, c);
    float scale = expf(mixture.log_scale), dy = dx[at];
    float solved = mixture_solve(mixture, (x[at] - mixture.shift) / scale);
    MixtureValue value = mixture_value(mixture, solved);
    float by_t = dy * scale;
    float pull = (value.slope - MIXTURE_FLOOR) / value.slope * dlogp;
    float alpha = (1.0f - MIXTURE_FLOOR) * by_t - pull, beta = -(1.0f - MIXTURE_FLOOR) * by_t - pull;
    float by_x = MIXTURE_FLOOR * by_t, total = 0.0f;
    float *to = &d_head[(long long)row * 3 * components * half + c];
    int next = components * half;
    for (int m = 0; m < components; m++) {
        MixtureComponent component = component_of(mixture, m);
        float inverse = expf(-component.zeta);
        float z = (solved - component.mu) * inverse;
        float above = log_sigmoid(z), below = log_sigmoid(-z);
        float p = alpha * expf(component.log_pi + above - value.upper);
        float q = beta * expf(component.log_pi + below - value.lower);
        float r = pull * expf(component.log_pi - component.zeta + above + below - value.density);
        float high = expf(above), low = expf(below);
        float d = p * low - q * high + r * (low - high);
        float relative = component.zeta / MIXTURE_BOUND;
        to[m * half] = p + q + r;
        to[next + m * half] = -inverse * d;
        to[2 * next + m * half] = (-z * d - r) * (1.0f - relative * relative);
        total += p + q + r;
        by_x += inverse * d;
    }
    for (int m = 0; m < components; m++) {
        to[m * half] -= expf(component_of(mixture, m).log_pi) * total;
    }
    float half_a = 0.5f * mixture.log_scale;
    d_o[row * channels + c] = dy;
    d_o[at] = (value.t * by_t + dlogp) * (1.0f - half_a * half_a);
    x[at] = solved;
    dx[at] = by_x;
}
