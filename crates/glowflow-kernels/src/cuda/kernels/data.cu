// Pixels in, noise, and what only moves numbers about.

// v = floor(pixel / 2^(8−bits)) / 2^bits − 0.5 + noise. One thread for every four elements: a block of random
// words. mode 0: the middle of each bin; 1: uniform noise of a stream, from its number `start` on; 2: the
// noise that `v` holds.
extern "C" __global__ void dequantize(
    int count, const u8 *pixels, int bits, int mode, u64 seed, u64 id, u64 start, float *v) {
    int group = global_index();
    if (4 * group >= count) {
        return;
    }
    float bin = 1.0f / (float)(1 << bits);
    Words words = {{0, 0, 0, 0}};
    if (mode == 1) {
        words = words_from(seed, id, start + 4 * (u64)group);
    }
    for (int j = 0; j < 4; j++) {
        int i = 4 * group + j;
        if (i < count) {
            float noise = mode == 0 ? 0.5f * bin : mode == 1 ? uniform(words.w[j]) * bin : v[i];
            v[i] = noise + ((float)(pixels[i] >> (8 - bits)) * bin - 0.5f);
        }
    }
}

// The inverse: clamp(floor((v + 0.5)·2^bits), 0, 2^bits − 1) · 2^(8−bits), in double precision as on the CPU;
// NaN becomes 0. One thread per four elements; `pixels` has room for a multiple of four. `not_finite` becomes
// 1 if an element is not finite.
extern "C" __global__ void quantize(int count, int bits, const float *v, u8 *pixels, u32 *not_finite) {
    int first = 4 * global_index();
    if (first >= count) {
        return;
    }
    double bins = (double)(1 << bits);
    u32 four = 0;
    for (int j = 0; j < 4; j++) {
        float x = first + j < count ? v[first + j] : 0.0f;
        // All writers write the same value.
        if (!isfinite(x)) {
            *not_finite = 1;
        }
        double bin = floor(((double)x + 0.5) * bins);
        // The comparison is false for NaN.
        u32 pixel = bin >= 0.0 ? (u32)fmin(bin, bins - 1.0) << (8 - bits) : 0;
        four |= pixel << (8 * j);
    }
    *(u32 *)&pixels[first] = four;
}

// Standard normal numbers by the Box-Muller transform, in double precision as on the CPU. out [images,
// length]; image b draws from stream id + b. One thread per four numbers of an image.
extern "C" __global__ void normal(int images, int length, u64 seed, u64 id, double scale, float *out) {
    int groups = (length + 3) / 4;
    int index = global_index();
    if (index >= images * groups) {
        return;
    }
    int image = index / groups, group = index % groups;
    Words words = philox(seed, id + image, group);
    double numbers[4];
    for (int pair = 0; pair < 2; pair++) {
        double u = (double)uniform(words.w[2 * pair]), v = (double)uniform(words.w[2 * pair + 1]);
        double radius = sqrt(-2.0 * log(1.0 - u)), angle = 6.283185307179586 * v;
        numbers[2 * pair] = radius * cos(angle);
        numbers[2 * pair + 1] = radius * sin(angle);
    }
    for (int j = 0; j < 4; j++) {
        if (4 * group + j < length) {
            out[image * length + 4 * group + j] = (float)(scale * numbers[j]);
        }
    }
}

// Squeeze of x [batch, height, width, channels]: channel 4c + 2dy + dx of y is channel c at (2h + dy, 2w +
// dx). With `back`, the inverse: x is written from y. `height` and `width` are those of x.
extern "C" __global__ void squeeze(
    int count, int height, int width, int channels, int back, float *x, float *y) {
    int i = global_index();
    if (i >= count) {
        return;
    }
    int c = i % channels, row = i / channels;
    int px = row % width, py = row / width % height, image = row / width / height;
    int to_row = (image * (height / 2) + py / 2) * (width / 2) + px / 2;
    int j = to_row * 4 * channels + 4 * c + 2 * (py % 2) + px % 2;
    if (back) {
        x[i] = y[j];
    } else {
        y[j] = x[i];
    }
}

// Splits x [rows, channels] into its halves, or with `back` joins them.
extern "C" __global__ void split(int count, int channels, int back, float *x, float *first, float *last) {
    int i = global_index();
    if (i >= count) {
        return;
    }
    int half = channels / 2, row = i / channels, c = i % channels;
    float *part = c < half ? &first[row * half + c] : &last[row * half + c - half];
    if (back) {
        x[i] = *part;
    } else {
        *part = x[i];
    }
}
