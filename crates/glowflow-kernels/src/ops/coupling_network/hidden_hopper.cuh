// The body of the kernels of hidden.cu, in instructions of the Hopper generation. It is a header so that the
// tests' emulated GPU can replace it.

// The number of chunks of the deepest product (`MAX_LAYER_DEPTH` in `hopper.rs`).
constexpr int hidden_stages = 4, most_chunks = 8;
constexpr u32 row_bytes = 2 * hidden_depth;  // of a tile in shared memory
constexpr u32 a_bytes = hidden_rows * row_bytes, b_bytes = hidden_columns * row_bytes;
constexpr u32 d_bytes = hidden_rows * hidden_columns * 2;

__device__ __forceinline__ u32 shared_address(const void *pointer) {
    return (u32)__cvta_generic_to_shared(pointer);
}

__device__ __forceinline__ void barrier_init(u32 barrier, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals));
}

// Arrives, and makes the barrier wait for `bytes` more bytes.
__device__ __forceinline__ void barrier_expect(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
}

__device__ __forceinline__ void barrier_arrive(u32 barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

__device__ __forceinline__ void barrier_wait(u32 barrier, u32 parity) {
    asm volatile(
        "{\n.reg .pred done;\n"
        "again:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@!done bra again;\n}" ::"r"(barrier), "r"(parity) : "memory");
}

// Starts to copy a tile whose first element is in column x of row y; elements outside the matrix are 0.
__device__ __forceinline__ void load_tile(u32 to, const TensorMap *map, int x, int y, u32 barrier) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];"
        ::"r"(to), "l"(map), "r"(x), "r"(y), "r"(barrier) : "memory");
}

// The same for weights, which all blocks read repeatedly: they stay in the cache longest.
__device__ __forceinline__ void load_weights(u32 to, const TensorMap *map, int x, int y, u32 barrier) {
    asm volatile(
        "{\n.reg .b64 stays;\n"
        "createpolicy.fractional.L2::evict_last.b64 stays, 1.0;\n"
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%2, %3}], [%4], "
        "stays;\n}" ::"r"(to), "l"(map), "r"(x), "r"(y), "r"(barrier) : "memory");
}

// The opposite direction; elements outside the matrix are not written. The tile is evicted from the cache
// first: the output of large batches exceeds the cache, and would evict data that is reused.
__device__ __forceinline__ void store_tile(const TensorMap *map, int x, int y, u32 from) {
    asm volatile(
        "{\n.reg .b64 leaves;\n"
        "createpolicy.fractional.L2::evict_first.b64 leaves, 1.0;\n"
        "cp.async.bulk.tensor.2d.global.shared::cta.bulk_group.L2::cache_hint [%0, {%1, %2}], [%3], leaves;\n}"
        ::"l"(map), "r"(x), "r"(y), "r"(from) : "memory");
}

// Descriptor of a 64-deep tile in shared memory for the tensor cores: 128-byte swizzle, eight rows per 1,024
// bytes.
__device__ __forceinline__ u64 matrix(u32 address) {
    return (u64)((address & 0x3ffff) >> 4) | (1ull << 16) | (64ull << 32) | (1ull << 62);
}

// sums [64, 128] += a [64, 16] · b [128, 16]ᵀ
__device__ __forceinline__ void multiply(float (&s)[64], u64 a, u64 b) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
        "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
        "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,"
        "%62,%63}, %64, %65, 1, 1, 1, 0, 0;"
        : "+f"(s[0]), "+f"(s[1]), "+f"(s[2]), "+f"(s[3]), "+f"(s[4]), "+f"(s[5]), "+f"(s[6]), "+f"(s[7]),
          "+f"(s[8]), "+f"(s[9]), "+f"(s[10]), "+f"(s[11]), "+f"(s[12]), "+f"(s[13]), "+f"(s[14]),
          "+f"(s[15]), "+f"(s[16]), "+f"(s[17]), "+f"(s[18]), "+f"(s[19]), "+f"(s[20]), "+f"(s[21]),
          "+f"(s[22]), "+f"(s[23]), "+f"(s[24]), "+f"(s[25]), "+f"(s[26]), "+f"(s[27]), "+f"(s[28]),
          "+f"(s[29]), "+f"(s[30]), "+f"(s[31]), "+f"(s[32]), "+f"(s[33]), "+f"(s[34]), "+f"(s[35]),
          "+f"(s[36]), "+f"(s[37]), "+f"(s[38]), "+f"(s[39]), "+f"(s[40]), "+f"(s[41]), "+f"(s[42]),
          "+f"(s[43]), "+f"(s[44]), "+f"(s[45]), "+f"(s[46]), "+f"(s[47]), "+f"(s[48]), "+f"(s[49]),
          "+f"(s[50]), "+f"(s[51]), "+f"(s[52]), "+f"(s[53]), "+f"(s[54]), "+f"(s[55]), "+f"(s[56]),
          "+f"(s[57]), "+f"(s[58]), "+f"(s[59]), "+f"(s[60]), "+f"(s[61]), "+f"(s[62]), "+f"(s[63])
        : "l"(a), "l"(b));
}

__device__ __forceinline__ void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void products_end() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void copies_end() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
// The sources of completed copies may be overwritten.
__device__ __forceinline__ void wait_for_copies() {
    asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}

template <int left> __device__ __forceinline__ void wait_for_products() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(left) : "memory");
}

// The compiler must not move operations on the sums across this: asynchronous products modify them without
// its knowledge.
__device__ __forceinline__ void sums_are_used_here(float (&sums)[64]) {
#pragma unroll
    for (int n = 0; n < 64; n++) {
        asm volatile("" : "+f"(sums[n])::"memory");
    }
}

// One group of products, 64 deep: sums [64, 128] += a [64, 64] · b [128, 64]ᵀ
__device__ __forceinline__ void multiply_tiles(float (&s)[64], u64 a, u64 b) {
    sums_are_used_here(s);
    products_begin();
#pragma unroll
    for (int k = 0; k < hidden_depth / 16; k++) {
        multiply(s, a + 2 * k, b + 2 * k);
    }
    products_end();
}

// Synchronises the threads of a worker.
__device__ __forceinline__ void worker_barrier(int worker) {
    asm volatile("bar.sync %0, 128;" ::"r"(1 + worker) : "memory");
}

__device__ __forceinline__ u32 pair_of(float low, float high) {
    u32 both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}

__device__ __forceinline__ float low_of(u32 pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high_of(u32 pair) { return __uint_as_float(pair & 0xffff0000u); }

__device__ __forceinline__ void begin_sums(float (&s)[64]) {
#pragma unroll
    for (int n = 0; n < 64; n++) {
        s[n] = 0.0f;
    }
}

// Initialises sums with the bias of their columns, 128 numbers in shared memory.
__device__ __forceinline__ void begin_sums(float (&s)[64], const bf16 *bias, int thread) {
#pragma unroll
    for (int n = 0; n < 64; n += 4) {
        u32 pair = *(const u32 *)&bias[column_held(thread, n)];
        s[n] = s[n + 2] = low_of(pair);
        s[n + 1] = s[n + 3] = high_of(pair);
    }
    sums_are_used_here(s);
}

// ReLU of a thread's sums, in pairs of bf16, and a bit for each non-zero result. NaN stays NaN.
__device__ __forceinline__ u64 activate(const float (&s)[64], u32 (&pairs)[32]) {
    u32 words[2] = {0, 0};
#pragma unroll
    for (int i = 0; i < 32; i++) {
        u32 pair = pair_of(s[2 * i], s[2 * i + 1]), above;
        asm("max.NaN.bf16x2 %0, %1, %2;" : "=r"(pairs[i]) : "r"(pair), "r"(0));
        asm("set.gt.u32.bf16x2 %0, %1, %2;" : "=r"(above) : "r"(pair), "r"(0));
        words[i / 16] |= above & 0x10001u << i % 16;
    }
    return (u64)words[1] << 32 | words[0];
}

// A thread's sums if their bits are set, else 0, in pairs of bf16.
__device__ __forceinline__ void pass(const float (&s)[64], u64 bits, u32 (&pairs)[32]) {
    u32 words[2] = {(u32)bits, (u32)(bits >> 32)};
#pragma unroll
    for (int i = 0; i < 32; i++) {
        // `prmt` can replicate the highest bit of a byte: two bits become sixteen each.
        u32 mask;
        asm("prmt.b32 %0, %1, 0, 0xbb99;" : "=r"(mask) : "r"(words[i / 16] << (15 - i % 16)));
        pairs[i] = pair_of(s[2 * i], s[2 * i + 1]) & mask;
    }
}

// Adds values [2·half] to those of the lane that differs in `bit`: one of the two keeps the first half, the
// other the last.
template <int half> __device__ __forceinline__ void halve(float (&values)[32], int bit) {
    bool last = threadIdx.x & bit;
#pragma unroll
    for (int i = 0; i < half; i++) {
        float keep = last ? values[i + half] : values[i], send = last ? values[i] : values[i + half];
        values[i] = keep + __shfl_xor_sync(0xffffffffu, send, bit);
    }
}

// Sums over the sixteen rows of a warp, four columns per lane: i is that of column
// `summed_column(thread, i)`.
__device__ __forceinline__ void sum_rows(const u32 (&pairs)[32], float (&sums)[32]) {
#pragma unroll
    for (int j = 0; j < 32; j += 2) {
        sums[j] = low_of(pairs[j]) + low_of(pairs[j + 1]);
        sums[j + 1] = high_of(pairs[j]) + high_of(pairs[j + 1]);
    }
    halve<16>(sums, 16);
    halve<8>(sums, 8);
    halve<4>(sums, 4);
}

__device__ __forceinline__ int summed_column(int thread, int i) {
    int first = (thread & 16) / 2 + (thread & 8) / 2 + (thread & 4) / 2;
    return column_held(thread, 4 * (first + i / 2) + i % 2);
}

// Writes a thread's pairs to two tiles of 64 rows and 64 columns, visible to the tensor cores and to copies.
__device__ __forceinline__ void write_tiles(u32 to, int thread, const u32 (&pairs)[32]) {
    int lane = thread % 32, row = thread / 32 * 16 + lane % 16;
#pragma unroll
    for (int j = 0; j < 16; j += 2) {
        int eighth = j + lane / 16;
        u32 at = to + eighth / 8 * a_bytes + row * row_bytes + ((eighth ^ row) % 8) * 16;
        asm volatile(
            "stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(at), "r"(pairs[2 * j]),
            "r"(pairs[2 * j + 1]), "r"(pairs[2 * j + 2]), "r"(pairs[2 * j + 3]) : "memory");
    }
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Barriers for the stages of every worker and the chunks of b, and the bias.
struct HiddenShared {
    u64 full[hidden_workers][hidden_stages], empty[hidden_workers][hidden_stages], b[most_chunks];
    alignas(4) bf16 bias[hidden_columns];
};

// Loads tiles of a for worker w, and b for the first worker.
__device__ __forceinline__ void bring_in(
    HiddenShared &shared, int w, const TensorMap *a, const TensorMap *b, int tile, int tiles, int stride,
    int chunks, int first_column, u32 b_at, u32 a_at) {
    int step = 0;
    for (; tile < tiles; tile += stride) {
        for (int c = 0; c < chunks; c++, step++) {
            if (step == c && w == 0) {
                u32 arrived = shared_address(&shared.b[c]);
                barrier_expect(arrived, b_bytes);
                load_weights(b_at + c * b_bytes, b, c * hidden_depth, first_column, arrived);
            }
            int s = step % hidden_stages;
            barrier_wait(shared_address(&shared.empty[w][s]), (step / hidden_stages + 1) % 2);
            u32 full = shared_address(&shared.full[w][s]);
            barrier_expect(full, a_bytes);
            load_tile(a_at + s * a_bytes, a, c * hidden_depth, tile * hidden_rows, full);
        }
    }
}

template <bool backward>
__device__ __forceinline__ void hidden_layer(
    int rows, int columns, int depth, const TensorMap *a, const TensorMap *b, const TensorMap *d,
    const bf16 *bias, u64 *mask, float *sums) {
    extern __shared__ u8 dynamic[];
    __shared__ HiddenShared shared;
    const int chunks = (depth + hidden_depth - 1) / hidden_depth;
    const int column_tiles = (columns + hidden_columns - 1) / hidden_columns;
    const int tiles = (rows + hidden_rows - 1) / hidden_rows;
    const int column_tile = blockIdx.x % column_tiles, group = blockIdx.x / column_tiles;
    const int stride = gridDim.x / column_tiles * hidden_workers, first_column = column_tile * hidden_columns;
    // With the shuffle, the compiler can assume that the value is uniform across a warp.
    const int warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
    const u32 b_at = (shared_address(dynamic) + 1023) & ~1023u;
    const u32 tiles_at = b_at + chunks * b_bytes,
              results_at = tiles_at + hidden_workers * hidden_stages * a_bytes;

    if (threadIdx.x == 0) {
        for (int w = 0; w < hidden_workers; w++) {
            for (int s = 0; s < hidden_stages; s++) {
                barrier_init(shared_address(&shared.full[w][s]), 1);
                barrier_init(shared_address(&shared.empty[w][s]), 4);
            }
        }
        for (int c = 0; c < most_chunks; c++) {
            barrier_init(shared_address(&shared.b[c]), 1);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    if (!backward && threadIdx.x < hidden_columns) {
        int c = first_column + threadIdx.x;
        bf16 none = {0};
        shared.bias[threadIdx.x] = c < columns ? bias[c] : none;
    }
    __syncthreads();

    if (warp >= 4 * hidden_workers) {
        int w = warp - 4 * hidden_workers;
        if (lane == 0) {
            u32 a_at = tiles_at + w * hidden_stages * a_bytes;
            bring_in(
                shared, w, a, b, group * hidden_workers + w, tiles, stride, chunks, first_column, b_at, a_at);
        }
        return;
    }

    const int w = warp / 4, thread = threadIdx.x % 128;
    const u32 a_at = tiles_at + w * hidden_stages * a_bytes, result_at = results_at + w * d_bytes;
    float column_sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    int step = 0;
    for (int tile = group * hidden_workers + w; tile < tiles; tile += stride) {
        u64 bits = 0;
        u64 *bits_at = mask ? &mask[((long long)tile * column_tiles + column_tile) * 128 + thread] : nullptr;
        if (backward) {
            bits = *bits_at;
        }
        float s[64];
        if (backward) {
            begin_sums(s);
        } else {
            begin_sums(s, shared.bias, thread);
        }
        for (int c = 0; c < chunks; c++, step++) {
            if (step == c) {
                barrier_wait(shared_address(&shared.b[c]), 0);
            }
            int stage = step % hidden_stages;
            barrier_wait(shared_address(&shared.full[w][stage]), step / hidden_stages % 2);
            u64 left = matrix(a_at + stage * a_bytes), right = matrix(b_at + c * b_bytes);
            multiply_tiles(s, left, right);
            // The operands of the previous products may be overwritten.
            wait_for_products<1>();
            if (c > 0 && lane == 0) {
                barrier_arrive(shared_address(&shared.empty[w][(step - 1) % hidden_stages]));
            }
        }
        wait_for_products<0>();
        sums_are_used_here(s);
        if (lane == 0) {
            barrier_arrive(shared_address(&shared.empty[w][(step - 1) % hidden_stages]));
        }

        u32 pairs[32];
        if (backward) {
            pass(s, bits, pairs);
        } else {
            bits = activate(s, pairs);
        }

        // The previous output must have left shared memory.
        if (thread == 0) {
            wait_for_copies();
        }
        worker_barrier(w);
        write_tiles(result_at, thread, pairs);
        worker_barrier(w);
        if (thread == 0) {
            store_tile(d, first_column, tile * hidden_rows, result_at);
            if (first_column + 64 < columns) {
                store_tile(d, first_column + 64, tile * hidden_rows, result_at + d_bytes / 2);
            }
            copies_end();
        }
        if (!backward) {
            if (bits_at) {
                *bits_at = bits;
            }
        } else {
            float of_rows[32];
            sum_rows(pairs, of_rows);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                column_sums[i] += of_rows[i];
            }
        }
    }
    if (backward) {
        float *to = &sums[((group * hidden_workers + w) * 4 + warp % 4) * columns];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int c = first_column + summed_column(thread, i);
            if (c < columns) {
                to[c] = column_sums[i];
            }
        }
    }
    if (thread == 0) {
        asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
    }
}
