// The body of the kernels of fused.cu, in instructions of the Hopper generation. It uses functions of
// hidden_hopper.cuh. It is a header so that the tests' emulated GPU can replace it.

constexpr u32 slot_bytes = b_bytes, h1_tiles = most_hidden / hidden_depth, h1_bytes = h1_tiles * a_bytes;
constexpr u32 tiles_bytes = hidden_workers * h1_bytes + 6 * slot_bytes;

// The contents of shared memory after the tiles.
struct FusedShared {
    bf16 bias[2][most_hidden];
    u64 full[6], empty[6], in[hidden_workers];
};

// sums [64, 56 or 64] += a [64, 16] · b [56 or 64, 16]ᵀ, a in registers
__device__ __forceinline__ void multiply_held(float (&s)[28], const u32 *a, u64 b) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n56k16.f32.bf16.bf16 "
        "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27}, "
        "{%28,%29,%30,%31}, %32, 1, 1, 1, 0;"
        : "+f"(s[0]), "+f"(s[1]), "+f"(s[2]), "+f"(s[3]), "+f"(s[4]), "+f"(s[5]), "+f"(s[6]), "+f"(s[7]),
          "+f"(s[8]), "+f"(s[9]), "+f"(s[10]), "+f"(s[11]), "+f"(s[12]), "+f"(s[13]), "+f"(s[14]),
          "+f"(s[15]), "+f"(s[16]), "+f"(s[17]), "+f"(s[18]), "+f"(s[19]), "+f"(s[20]), "+f"(s[21]),
          "+f"(s[22]), "+f"(s[23]), "+f"(s[24]), "+f"(s[25]), "+f"(s[26]), "+f"(s[27])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

__device__ __forceinline__ void multiply_held(float (&s)[32], const u32 *a, u64 b) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
        "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}, "
        "{%32,%33,%34,%35}, %36, 1, 1, 1, 0;"
        : "+f"(s[0]), "+f"(s[1]), "+f"(s[2]), "+f"(s[3]), "+f"(s[4]), "+f"(s[5]), "+f"(s[6]), "+f"(s[7]),
          "+f"(s[8]), "+f"(s[9]), "+f"(s[10]), "+f"(s[11]), "+f"(s[12]), "+f"(s[13]), "+f"(s[14]),
          "+f"(s[15]), "+f"(s[16]), "+f"(s[17]), "+f"(s[18]), "+f"(s[19]), "+f"(s[20]), "+f"(s[21]),
          "+f"(s[22]), "+f"(s[23]), "+f"(s[24]), "+f"(s[25]), "+f"(s[26]), "+f"(s[27]), "+f"(s[28]),
          "+f"(s[29]), "+f"(s[30]), "+f"(s[31])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

template <int count, int held>
__device__ __forceinline__ void sums_are_used_here(float (&sums)[count][held]) {
#pragma unroll
    for (int n = 0; n < count * held; n++) {
        asm volatile("" : "+f"(sums[n / held][n % held])::"memory");
    }
}

// A position in the ring: the next slot, and whether the number of completed rounds is odd.
template <int slots> struct Place {
    int slot = 0;
    u32 turn = 0;

    __device__ __forceinline__ void step() {
        slot++;
        if (slot == slots) {
            slot = 0;
            turn ^= 1;
        }
    }
};

// The ring of slots, for a warp of a worker: slots are taken in order, and released when the products that
// use them are complete.
template <int slots> struct Ring {
    u32 full, empty, tiles;
    int lane;
    Place<slots> next, last;
    int taken = 0;

    // The address of the next tile.
    __device__ __forceinline__ u32 take() {
        barrier_wait(full + 8 * next.slot, next.turn);
        u32 tile = tiles + next.slot * slot_bytes;
        next.step();
        taken++;
        return tile;
    }

    // Releases all slots except the last `left`.
    __device__ __forceinline__ void give_back_but(int left) {
        for (; taken > left; taken--) {
            if (lane == 0) {
                barrier_arrive(empty + 8 * last.slot);
            }
            last.step();
        }
    }
};

// Loads the weights for all tiles of rows.
template <int slots, int blocks, int width>
__device__ __forceinline__ void bring_in_weights(
    const FusedMaps &maps, u32 full, u32 empty, u32 tiles, int count, int depth_chunks, int chunks,
    int column_tiles) {
    Place<slots> place;
    auto bring = [&](const TensorMap *map, int x, int y, int rows) {
        u32 barrier = full + 8 * place.slot;
        barrier_wait(empty + 8 * place.slot, place.turn ^ 1);
        barrier_expect(barrier, rows * row_bytes);
        load_weights(tiles + place.slot * slot_bytes, map, x, y, barrier);
        place.step();
    };
    for (; count > 0; count--) {
        for (int j = 0; j < column_tiles; j++) {
            for (int c = 0; c < depth_chunks; c++) {
                bring(&maps.first, c * hidden_depth, j * hidden_columns, hidden_columns);
            }
        }
        for (int j = 0; j < column_tiles; j++) {
            for (int c = 0; c < chunks; c++) {
                bring(&maps.second, c * hidden_depth, j * hidden_columns, hidden_columns);
            }
            for (int half = 0; half < 2; half++) {
                for (int b = 0; b < blocks; b += 2) {
                    bring(
                        &maps.last, j * hidden_columns + half * hidden_depth, b * width,
                        (blocks == 1 ? 1 : 2) * width);
                }
            }
        }
    }
}

// Adds a warp's sums over rows to `partial`, without waiting for the previous value (`red`). Only one thread
// adds to each element, so the order of sums is program order.
__device__ __forceinline__ void add_rows(
    const u32 (&pairs)[32], float *partial, bool first, int first_column, int hidden, int thread) {
    float sums[32];
    sum_rows(pairs, sums);
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
        int c = first_column + summed_column(thread, i);
        if (c < hidden && first) {
            partial[c] = sums[i];
            partial[c + 1] = sums[i + 1];
        } else if (c < hidden) {
            asm volatile("red.global.add.v2.f32 [%0], {%1, %2};"
                         ::"l"(&partial[c]), "f"(sums[i]), "f"(sums[i + 1]) : "memory");
        }
    }
}

// One step, 64 deep, for 128 columns of h1 or h2: s [64, 128] += a · bᵀ, with the tile of a at `a` and that
// of b from the ring.
template <int slots>
__device__ __forceinline__ void multiply_chunk(float (&s)[64], u32 a, Ring<slots> &ring) {
    multiply_tiles(s, matrix(a), matrix(ring.take()));
    // The operands of the previous products may be overwritten.
    wait_for_products<1>();
    ring.give_back_but(1);
}

template <int slots> __device__ __forceinline__ void products_are_done(Ring<slots> &ring) {
    wait_for_products<0>();
    ring.give_back_but(0);
}

template <Way way, int blocks> __device__ __forceinline__ void fused(const FusedMaps &maps, const Fused &of) {
    // Tiles must start at multiples of 1,024 bytes. They do, because there is no other shared memory.
    extern __shared__ __align__(1024) u8 all_shared[];
    constexpr bool backward = way == Way::back;
    constexpr int slots = way == Way::drop ? 6 : 4, width = block_width<way>, held = width / 2;
    const int rows = of.rows, hidden = of.hidden;
    const int depth_chunks = (of.depth + hidden_depth - 1) / hidden_depth,
              chunks = (hidden + hidden_depth - 1) / hidden_depth;
    const int column_tiles = (hidden + hidden_columns - 1) / hidden_columns;
    const int count = (rows + fused_rows - 1) / fused_rows, stride = gridDim.x;
    const int warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
    const u32 h1_at = shared_address(all_shared), tiles = h1_at + hidden_workers * h1_bytes;
    FusedShared &shared = *(FusedShared *)&all_shared[tiles_bytes];
    const u32 full = shared_address(shared.full), empty = shared_address(shared.empty);

    if (threadIdx.x == 0) {
        if (h1_at % 1024 != 0) {
            __trap();
        }
        for (int s = 0; s < slots; s++) {
            barrier_init(full + 8 * s, 1);
            barrier_init(empty + 8 * s, 4 * hidden_workers);
        }
        for (int w = 0; w < hidden_workers; w++) {
            barrier_init(shared_address(&shared.in[w]), 1);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    for (int c = threadIdx.x; !backward && c < most_hidden; c += blockDim.x) {
        bf16 none = {0};
        shared.bias[0][c] = c < hidden ? of.bias1[c] : none;
        shared.bias[1][c] = c < hidden ? of.bias2[c] : none;
    }
    __syncthreads();

    // Workers take over the registers that the loading threads do not need.
    if (warp >= 4 * hidden_workers) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
        if (threadIdx.x == 128 * hidden_workers) {
            bring_in_weights<slots, blocks, width>(
                maps, full, empty, tiles, (count - (int)blockIdx.x + stride - 1) / stride, depth_chunks,
                chunks, column_tiles);
        }
        return;
    }
    asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");

    const int w = warp / 4, thread = threadIdx.x % 128;
    const u32 h1 = h1_at + w * h1_bytes, result = tiles + slots * slot_bytes + w * d_bytes;
    const u32 in = h1 + (h1_tiles - depth_chunks) * a_bytes, in_arrived = shared_address(&shared.in[w]);
    float *partial1 = backward ? &of.partial1[(blockIdx.x * 8 + warp) * hidden] : nullptr;
    float *partial2 = backward ? &of.partial2[(blockIdx.x * 8 + warp) * hidden] : nullptr;
    Ring<slots> ring = {full, empty, tiles, lane};
    auto bring_in = [&](int rows_at) {
        barrier_expect(in_arrived, depth_chunks * a_bytes);
        for (int c = 0; c < depth_chunks; c++) {
            load_tile(in + c * a_bytes, &maps.in, c * hidden_depth, rows_at, in_arrived);
        }
    };
    if (thread == 0) {
        bring_in((blockIdx.x * hidden_workers + w) * hidden_rows);
    }
    u32 turn = 0;
    for (int pair = blockIdx.x; pair < count; pair += stride, turn ^= 1) {
        const bool first = pair == blockIdx.x;
        const int first_row = (pair * hidden_workers + w) * hidden_rows;
        const bool there = first_row < rows;
        const long long masks = (long long)(pair * hidden_workers + w) * column_tiles * 128 + thread;
        float s[64];
        u32 pairs[32];
        barrier_wait(in_arrived, turn);
#pragma unroll 1
        for (int j = 0; j < column_tiles; j++) {
            u64 bits = 0;
            if (backward) {
                bits = there ? of.mask1[masks + j * 128] : 0;
                begin_sums(s);
            } else {
                begin_sums(s, &shared.bias[0][j * hidden_columns], thread);
            }
#pragma unroll 1
            for (int c = 0; c < depth_chunks; c++) {
                multiply_chunk(s, in + c * a_bytes, ring);
            }
            products_are_done(ring);
            sums_are_used_here(s);
            // The input occupies the space of the last tiles. These are written when all its products are
            // done, the others one iteration later.
            if (j == column_tiles - 1) {
                worker_barrier(w);
            }
            if (j > 0) {
                write_tiles(h1 + 2 * (j - 1) * a_bytes, thread, pairs);
            }
            if (backward) {
                pass(s, bits, pairs);
                add_rows(pairs, partial1, first, j * hidden_columns, hidden, thread);
            } else {
                bits = activate(s, pairs);
            }
            if (way == Way::keep && there) {
                of.mask1[masks + j * 128] = bits;
            }
        }
        write_tiles(h1 + 2 * (column_tiles - 1) * a_bytes, thread, pairs);
        worker_barrier(w);

        float o[blocks][held];
#pragma unroll
        for (int n = 0; n < blocks * held; n++) {
            o[n / held][n % held] = 0.0f;
        }
#pragma unroll 1
        for (int j = 0; j < column_tiles; j++) {
            u64 bits = 0;
            if (backward) {
                bits = there ? of.mask2[masks + j * 128] : 0;
                begin_sums(s);
            } else {
                begin_sums(s, &shared.bias[1][j * hidden_columns], thread);
            }
#pragma unroll 1
            for (int c = 0; c < chunks; c++) {
                multiply_chunk(s, h1 + c * a_bytes, ring);
                // Two tiles of h1: one in the first step, and one halfway.
                int kept = 2 * j + (c > 0);
                if (way != Way::drop && thread == 0 && (c == 0 || c == chunks / 2) && kept < chunks) {
                    store_tile(&maps.kept1, kept * hidden_depth, first_row, h1 + kept * a_bytes);
                    copies_end();
                }
            }
            products_are_done(ring);
            sums_are_used_here(s);
            sums_are_used_here(o);
            if (backward) {
                pass(s, bits, pairs);
                add_rows(pairs, partial2, first, j * hidden_columns, hidden, thread);
            } else {
                bits = activate(s, pairs);
            }
            if (way == Way::keep && there) {
                of.mask2[masks + j * 128] = bits;
            }
            if (way != Way::drop) {
                if (thread == 0) {
                    wait_for_copies();
                }
                worker_barrier(w);
                write_tiles(result, thread, pairs);
                worker_barrier(w);
                if (thread == 0) {
                    for (int c = 0; c < 2 && 2 * j + c < chunks; c++) {
                        store_tile(&maps.kept2, (2 * j + c) * hidden_depth, first_row, result + c * a_bytes);
                    }
                    copies_end();
                }
            } else if (j == column_tiles - 1) {
                worker_barrier(w);
            }
            // h1 is no longer read.
            if (j == column_tiles - 1 && thread == 0 && pair + stride < count) {
                bring_in(((pair + stride) * hidden_workers + w) * hidden_rows);
            }
#pragma unroll
            for (int half = 0; half < 2; half++) {
#pragma unroll
                for (int b = 0; b < blocks; b += 2) {
                    u64 right = matrix(ring.take());
                    sums_are_used_here(o);
                    products_begin();
#pragma unroll
                    for (int k = 0; k < hidden_depth / 16; k++) {
                        multiply_held(o[b], &pairs[16 * half + 4 * k], right + 2 * k);
                        if (b + 1 < blocks) {
                            multiply_held(
                                o[b + 1], &pairs[16 * half + 4 * k], right + width * row_bytes / 16 + 2 * k);
                        }
                    }
                    products_end();
                    wait_for_products<1>();
                    ring.give_back_but(1);
                }
            }
        }
        products_are_done(ring);
        sums_are_used_here(o);
#pragma unroll
        for (int n = 0; n < blocks * held; n += 2) {
            int row = first_row + row_held(thread, n % held),
                c = n / held * width + column_held(thread, n % held);
            if (row < rows && c < of.width) {
                *(float2 *)&of.out[row * of.width + c] =
                    make_float2(o[n / held][n % held], o[n / held][n % held + 1]);
            }
        }
    }
    if (way != Way::drop && thread == 0) {
        asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
    }
    if (backward) {
        // The sums of eight warps. `red` accumulated them in the second-level cache, from where they are
        // read.
        __threadfence();
        asm volatile("bar.sync 8, 256;" ::: "memory");
        for (int c = threadIdx.x; c < 2 * hidden; c += 128 * hidden_workers) {
            const float *from =
                &(c < hidden ? of.partial1 : of.partial2)[blockIdx.x * 8 * hidden + c % hidden];
            float sum = 0.0f;
            for (int i = 0; i < 8; i++) {
                sum += __ldcg(&from[i * hidden]);
            }
            (c < hidden ? of.sums1 : of.sums2)[blockIdx.x * hidden + c % hidden] = sum;
        }
    }
}
