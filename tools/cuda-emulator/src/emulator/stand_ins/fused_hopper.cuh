// Replaces the header of fused.cu, which uses the tensor cores. It computes the same results at the same
// positions, number by number, except for the order of sums.

template <Way way, int blocks> __device__ void fused(const FusedMaps &maps, const Fused &of) {
    extern __shared__ u8 all_shared[];
    constexpr int results = blocks * block_width<way>;
    bf16 *h1 = (bf16 *)all_shared, *h2 = h1 + fused_rows * most_hidden;
    const int hidden = of.hidden, column_tiles = (hidden + hidden_columns - 1) / hidden_columns;
    const int w = threadIdx.x / 128, thread = threadIdx.x % 128;
    const bool works = w < hidden_workers;
    // The emulated maps: address, columns, rows, bytes per row.
    auto at = [](const TensorMap &map, int row, int column) {
        return (bf16 *)(map.opaque[0] + row * map.opaque[3]) + column;
    };
    for (int pair = blockIdx.x; pair * fused_rows < of.rows; pair += gridDim.x) {
        const int first_row = (pair * hidden_workers + w) * hidden_rows;
        // Layer 1 or 2, from `depth` columns of `left`; column c of its tile j is column c + shift of `to`.
        auto layer = [&](auto left, int depth, int j, const TensorMap &weights, const bf16 *bias, u64 *mask,
                         const TensorMap &kept, float *sums, bf16 *to, int shift, int stride) {
            u64 *bits =
                mask ? &mask[((long long)(pair * hidden_workers + w) * column_tiles + j) * 128 + thread]
                     : nullptr;
            u64 set = 0;
            for (int n = 0; works && n < 64; n++) {
                int r = row_held(thread, n), c = j * hidden_columns + column_held(thread, n);
                if (first_row + r >= of.rows || c >= hidden) {
                    continue;
                }
                float value = way == Way::back ? 0.0f : wide(bias[c]);
                for (int k = 0; k < depth; k++) {
                    value += wide(*left(r, k)) * wide(*at(weights, c, k));
                }
                bool passes = way == Way::back ? *bits >> bit_of(n) & 1 : value > 0.0f;
                set |= (u64)passes << bit_of(n);
                // NaN stays NaN.
                bf16 rounded = narrow<bf16>(passes || (way != Way::back && value != value) ? value : 0.0f);
                to[(w * hidden_rows + r) * stride + c - shift] = rounded;
                if (way != Way::drop) {
                    *at(kept, first_row + r, c) = rounded;
                }
            }
            if (way == Way::keep && works && first_row < of.rows) {
                *bits = set;
            }
            __syncthreads();
            int c = j * hidden_columns + thread;
            if (way == Way::back && w == 0 && c < hidden) {
                float sum = pair == blockIdx.x ? 0.0f : sums[blockIdx.x * hidden + c];
                for (int r = 0; r < fused_rows && pair * fused_rows + r < of.rows; r++) {
                    sum += wide(to[r * stride + c - shift]);
                }
                sums[blockIdx.x * hidden + c] = sum;
            }
        };
        for (int j = 0; j < column_tiles; j++) {
            auto left = [&](int r, int k) { return at(maps.in, first_row + r, k); };
            layer(
                left, of.depth, j, maps.first, of.bias1, of.mask1, maps.kept1, of.sums1, h1, 0, most_hidden);
        }
        float o[results / 2] = {};
        for (int j = 0; j < column_tiles; j++) {
            auto left = [&](int r, int k) { return &h1[(w * hidden_rows + r) * most_hidden + k]; };
            int shift = j * hidden_columns;
            layer(
                left, hidden, j, maps.second, of.bias2, of.mask2, maps.kept2, of.sums2, h2, shift,
                hidden_columns);
            for (int n = 0; works && n < results / 2; n++) {
                int r = row_held(thread, n), c = column_held(thread, n);
                for (int k = 0; first_row + r < of.rows && c < of.width && k < hidden_columns &&
                     shift + k < hidden; k++) {
                    o[n] +=
                        wide(h2[(w * hidden_rows + r) * hidden_columns + k])
                        * wide(*at(maps.last, c, shift + k));
                }
            }
            __syncthreads();
        }
        for (int n = 0; works && n < results / 2; n++) {
            int row = first_row + row_held(thread, n), c = column_held(thread, n);
            if (row < of.rows && c < of.width) {
                of.out[row * of.width + c] = o[n];
            }
        }
    }
}
