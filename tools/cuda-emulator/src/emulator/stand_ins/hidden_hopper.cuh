// Replaces the header of hidden.cu, which uses the tensor cores. It computes the same results at the same
// positions, number by number, except for the order of sums.

template <bool backward>
__device__ void hidden_layer(
    int rows, int columns, int depth, const TensorMap *a, const TensorMap *b, const TensorMap *d,
    const bf16 *bias, u64 *mask, float *sums) {
    int column_tiles = (columns + hidden_columns - 1) / hidden_columns,
        tiles = (rows + hidden_rows - 1) / hidden_rows;
    int column_tile = blockIdx.x % column_tiles, group = blockIdx.x / column_tiles,
        groups = gridDim.x / column_tiles;
    int w = threadIdx.x / 128, thread = threadIdx.x % 128;
    if (w >= hidden_workers) {
        return;
    }
    // The emulated maps: address, columns, rows, bytes per row.
    const u64 *maps[3] = {a->opaque, b->opaque, d->opaque};
    auto at = [&](int map, int row, int column) {
        return (bf16 *)(maps[map][0] + row * maps[map][3]) + column;
    };
    float column_sums[32] = {};
    for (int tile = group * hidden_workers + w; tile < tiles; tile += groups * hidden_workers) {
        u64 *bits = mask ? &mask[((long long)tile * column_tiles + column_tile) * 128 + thread] : nullptr;
        u64 set = 0;
        for (int n = 0; n < 64; n++) {
            int row = tile * hidden_rows + row_held(thread, n),
                c = column_tile * hidden_columns + column_held(thread, n);
            if (row >= rows || c >= columns) {
                continue;
            }
            float value = backward ? 0.0f : wide(bias[c]);
            for (int k = 0; k < depth; k++) {
                value += wide(*at(0, row, k)) * wide(*at(1, c, k));
            }
            bool passes = backward ? *bits >> bit_of(n) & 1 : value > 0.0f;
            set |= (u64)passes << bit_of(n);
            // NaN stays NaN.
            bf16 rounded = narrow<bf16>(passes || (!backward && value != value) ? value : 0.0f);
            column_sums[n / 4 * 2 + n % 2] += wide(rounded);
            *at(2, row, c) = rounded;
        }
        if (!backward && bits) {
            *bits = set;
        }
    }
    for (int n = 0; backward && n < 64; n++) {
        // The eight lanes that hold a column add in turn.
        int c = column_tile * hidden_columns + column_held(thread, n);
        if (n % 4 >= 2) {
            continue;
        }
        float sum = column_sums[n / 4 * 2 + n % 2];
        for (int bit = 4; bit <= 16; bit *= 2) {
            sum += __shfl_xor_sync(0xffffffffu, sum, bit);
        }
        if (thread % 32 < 4 && c < columns) {
            sums[((group * hidden_workers + w) * 4 + thread / 32) * columns + c] = sum;
        }
    }
}
