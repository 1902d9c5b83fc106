// The softmax of an attention: one warp per row of scores [rows, columns].

template <typename T> __device__ __forceinline__ T all_lanes_sum(T value) {
    for (int step = 16; step > 0; step /= 2) {
        value += __shfl_xor_sync(0xffffffffu, value, step);
    }
    return value;
}

// softmax(scale·z), in place.
extern "C" __global__ void softmax(int rows, int columns, float scale, float *scores) {
    int row = global_index() / 32, lane = threadIdx.x % 32;
    if (row >= rows) {
        return;
    }
    float *z = &scores[row * columns];
    float largest = __uint_as_float(0xff800000u);
    for (int c = lane; c < columns; c += 32) {
        largest = fmaxf(largest, z[c]);
    }
    for (int step = 16; step > 0; step /= 2) {
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, step));
    }
    float sum = 0.0f;
    for (int c = lane; c < columns; c += 32) {
        float e = expf(scale * (z[c] - largest));
        z[c] = e;
        sum += e;
    }
    float share = 1.0f / all_lanes_sum(sum);
    for (int c = lane; c < columns; c += 32) {
        z[c] *= share;
    }
}

// Gradient with respect to z, computed in place from the gradient with respect to the weights.
extern "C" __global__ void softmax_backward(
    int rows, int columns, float scale, const float *weights, float *d_weights) {
    int row = global_index() / 32, lane = threadIdx.x % 32;
    if (row >= rows) {
        return;
    }
    const float *w = &weights[row * columns];
    float *d = &d_weights[row * columns];
    float sum = 0.0f;
    for (int c = lane; c < columns; c += 32) {
        sum += w[c] * d[c];
    }
    sum = all_lanes_sum(sum);
    for (int c = lane; c < columns; c += 32) {
        d[c] = scale * w[c] * (d[c] - sum);
    }
}
