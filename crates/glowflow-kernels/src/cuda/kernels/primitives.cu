// General operations: element-wise expressions, their sums, patches of images, uniform numbers.

// ---- expressions

// An instruction of a postfix program; as in `primitives.rs`, which defines the operation codes.
struct Instruction {
    int op;
    int a, b;  // the input's number, or width and parity of a checkerboard
    float value;
};

enum Operation {
    INPUT, OLD, CONSTANT, CHECKERBOARD,
    NEG, ABS, EXP, LOG, TANH, SIGMOID, SOFTPLUS, SQRT, RELU, STEP,
    ADD, SUB, MUL, DIV
};

// An operand: element (i, j, k) is from[i·strides[0] + j·strides[1] + k·strides[2]].
struct Operand {
    const float *from;
    int strides[3];
    int unused;
};

// A program, its operands and the axes of its elements; as in `primitives.rs`.
struct Expression {
    Operand inputs[8];
    float *out;
    Instruction program[40];
    Divisor axes[3];
    int out_strides[3];
    int pixel_strides[3];
    int len;
};

struct Element {
    int i, j, k;
};

__device__ __forceinline__ int place(const int *strides, Element at) {
    return at.i * strides[0] + at.j * strides[1] + at.k * strides[2];
}

__device__ __forceinline__ float evaluate(const Expression &f, Element at, float old) {
    // The last value is in a register; the preceding ones, and an unused one, are in an array.
    float stack[9];
    float top = 0.0f;
    int depth = 0;
    for (int n = 0; n < f.len; n++) {
        const Instruction &instruction = f.program[n];
        if (instruction.op <= CHECKERBOARD) {
            stack[depth++] = top;
        }
        switch (instruction.op) {
        case INPUT: {
            const Operand &input = f.inputs[instruction.a];
            top = input.from[place(input.strides, at)];
            break;
        }
        case OLD: top = old; break;
        case CONSTANT: top = instruction.value; break;
        case CHECKERBOARD: {
            int pixel = place(f.pixel_strides, at), row = pixel / instruction.a;
            top = (row + pixel - row * instruction.a + instruction.b) % 2 == 0 ? 1.0f : 0.0f;
            break;
        }
        case NEG: top = -top; break;
        case ABS: top = fabsf(top); break;
        case EXP: top = expf(top); break;
        case LOG: top = logf(top); break;
        case TANH: top = tanhf(top); break;
        case SIGMOID: {
            float e = expf(-fabsf(top));
            top = (top < 0.0f ? e : 1.0f) / (1.0f + e);
            break;
        }
        // NaN stays NaN here and in RELU.
        case SOFTPLUS: top = (top < 0.0f ? 0.0f : top) + log1pf(expf(-fabsf(top))); break;
        case SQRT: top = sqrtf(top); break;
        case RELU: top = top < 0.0f ? 0.0f : top; break;
        case STEP: top = top > 0.0f ? 1.0f : 0.0f; break;
        case ADD: top = stack[--depth] + top; break;
        case SUB: top = stack[--depth] - top; break;
        case MUL: top = stack[--depth] * top; break;
        case DIV: top = stack[--depth] / top; break;
        }
    }
    return top;
}

extern "C" __global__ void map(int count, const __grid_constant__ Expression f) {
    int n = global_index();
    if (n >= count) {
        return;
    }
    int row = divided(n, f.axes[2]);
    Element at;
    at.k = n - row * f.axes[2].value;
    at.i = divided(row, f.axes[1]);
    at.j = row - at.i * f.axes[1].value;
    float *to = &f.out[place(f.out_strides, at)];
    *to = evaluate(f, at, *to);
}

// ---- sums

// The element with index `out` among the kept axes, and index `term` among the summed axes.
__device__ __forceinline__ Element element_of(const Expression &f, int out, int term) {
    int at[3];
#pragma unroll
    for (int axis = 2; axis >= 0; axis--) {
        int &index = f.out_strides[axis] ? out : term;
        int next = divided(index, f.axes[axis]);
        at[axis] = index - next * f.axes[axis].value;
        index = next;
    }
    return {at[0], at[1], at[2]};
}

__device__ __forceinline__ void write_sum(const Expression &f, int out, double sum, int accumulate) {
    float *to = &f.out[place(f.out_strides, element_of(f, out, 0))];
    *to = (float)(accumulate ? (double)*to + sum : sum);
}

// Sums `part` terms of each of `lanes` outputs, a power of 2: blockIdx.x is the group of outputs, blockIdx.y
// the part. Several parts are written to partial [parts, outs], a single one to the output.
extern "C" __global__ void reduce(
    int outs, int terms, int part, int lanes, int accumulate, double *partial,
    const __grid_constant__ Expression f) {
    __shared__ double sums[256];
    int lane = threadIdx.x % lanes, out = blockIdx.x * lanes + lane;
    int first = blockIdx.y * part, end = min(terms, first + part);
    double sum = 0.0;
    if (out < outs) {
        for (int term = first + threadIdx.x / lanes; term < end; term += blockDim.x / lanes) {
            sum += (double)evaluate(f, element_of(f, out, term), 0.0f);
        }
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    for (int half = blockDim.x / 2; half >= lanes; half /= 2) {
        if (threadIdx.x < half) {
            sums[threadIdx.x] += sums[threadIdx.x + half];
        }
        __syncthreads();
    }
    if (threadIdx.x < lanes && out < outs) {
        if (gridDim.y == 1) {
            write_sum(f, out, sums[threadIdx.x], accumulate);
        } else {
            partial[blockIdx.y * outs + out] = sums[threadIdx.x];
        }
    }
}

// Accumulates the parts of each output, one warp per output.
extern "C" __global__ void reduce_parts(
    int outs, int parts, int accumulate, const double *partial, const __grid_constant__ Expression f) {
    int out = global_index() / 32, lane = threadIdx.x % 32;
    if (out >= outs) {
        return;
    }
    double sum = 0.0;
    for (int part = lane; part < parts; part += 32) {
        sum += partial[part * outs + out];
    }
    sum = warp_sum(sum);
    if (lane == 0) {
        write_sum(f, out, sum, accumulate);
    }
}

// ---- patches of any window: column (kernel·dy + dx)·channels + c

// The row that a tap of the window of the pixel in `row` refers to, −1 outside the image.
__device__ __forceinline__ int looked_at(int row, Pixel at, Plane plane, int dy, int dx) {
    bool inside = (u32)(at.y + dy) < (u32)plane.height.value && (u32)(at.x + dx) < (u32)plane.width.value;
    return inside ? row + dy * plane.width.value + dx : -1;
}

extern "C" __global__ void im2col(
    int count, Plane plane, Divisor channels, Divisor kernel, const float *x, float *columns) {
    int n = global_index();
    if (n >= count) {
        return;
    }
    int tap = divided(n, channels), line = divided(tap, kernel), row = divided(line, kernel);
    int c = n - tap * channels.value, reach = kernel.value / 2;
    int dx = tap - line * kernel.value - reach, dy = line - row * kernel.value - reach;
    int from = looked_at(row, pixel_of(row, plane), plane, dy, dx);
    columns[n] = from >= 0 ? x[from * channels.value + c] : 0.0f;
}

// One thread per element of x.
extern "C" __global__ void col2im(
    int count, Plane plane, Divisor channels, int kernel, int accumulate, const float *columns, float *x) {
    int n = global_index();
    if (n >= count) {
        return;
    }
    int row = divided(n, channels), c = n - row * channels.value, reach = kernel / 2;
    Pixel at = pixel_of(row, plane);
    float sum = 0.0f;
    for (int dy = 0; dy < kernel; dy++) {
        for (int dx = 0; dx < kernel; dx++) {
            // The pixel whose patch contains this one at the tap is on the opposite side.
            int other = looked_at(row, at, plane, reach - dy, reach - dx);
            if (other >= 0) {
                sum += columns[((other * kernel + dy) * kernel + dx) * channels.value + c];
            }
        }
    }
    x[n] = accumulate ? x[n] + sum : sum;
}

// ---- numbers uniform on [0, 1): image b of out [images, length] from stream id + b, from its number `start`
//      on. One thread for every four.

extern "C" __global__ void uniform_numbers(int images, int length, u64 seed, u64 id, u64 start, float *out) {
    int groups = (length + 3) / 4, index = global_index();
    if (index >= images * groups) {
        return;
    }
    int image = index / groups, group = index % groups;
    Words words = words_from(seed, id + image, start + 4 * (u64)group);
    for (int j = 0; j < 4 && 4 * group + j < length; j++) {
        out[image * length + 4 * group + j] = uniform(words.w[j]);
    }
}
