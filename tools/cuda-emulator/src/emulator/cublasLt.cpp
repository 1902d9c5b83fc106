// cuBLASLt: matrix products with epilogues, as plain loops. It rejects what the real library would reject, so
// that the caller's fallbacks are tested too.
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <vector>

#include "cuda_types.h"

namespace {

enum Status {
    success = 0,
    not_initialized = 1,
    invalid_value = 7,
    execution_failed = 13,
    not_supported = 15,
};

enum DataType { float32 = 0, bfloat16 = 14 };
enum ComputeType { compute_float32 = 68, compute_pedantic = 69, compute_tf32 = 77 };
enum Operation { plain = 0, transposed = 1 };
enum PointerMode { host_pointers = 0, device_pointers = 1 };

// Epilogues are sums of these flags.
enum Epilogue {
    epilogue_default = 1,
    with_relu = 2,
    with_bias = 4,
};

struct Layout {
    uint32_t type;
    int32_t order = 0;
    uint64_t rows;
    uint64_t columns;
    int64_t leading;
    int32_t batches = 1;
    int64_t batch_offset = 0;
    int64_t plane_offset = 0;
};

struct Description {
    uint32_t compute;
    uint32_t scale;
    int32_t pointer_mode = host_pointers;
    int32_t operation_a = plain;
    int32_t operation_b = plain;
    int32_t operation_c = plain;
    uint32_t epilogue = epilogue_default;
    void* bias = nullptr;
    int64_t bias_stride = 0;
    int32_t multiprocessors = 0;
    int8_t fast_sums = 0;
    int32_t bias_type = -1;

    bool has(uint32_t part) const { return (epilogue & part) != 0; }
};

struct Preference {
    uint64_t workspace = 0;
    uint32_t alignment[4] = {256, 256, 256, 256};
};

struct Algorithm {
    uint64_t mark;
    uint32_t alignment[4];
    uint64_t rest[5];
};
static_assert(sizeof(Algorithm) == 64, "as large as the real one");
constexpr uint64_t algorithm_mark = 0x656d756c61746564;

struct HeuristicResult {
    Algorithm algorithm;
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
};

// ---------------------------------------------------------------------------------------------- attributes

struct Field {
    void* place;
    size_t size;
};

template <class T>
Field field(T& value) {
    return Field{&value, sizeof value};
}

Field field_of(Description& description, int attribute) {
    switch (attribute) {
        case 0: return field(description.compute);
        case 1: return field(description.scale);
        case 2: return field(description.pointer_mode);
        case 3: return field(description.operation_a);
        case 4: return field(description.operation_b);
        case 5: return field(description.operation_c);
        case 7: return field(description.epilogue);
        case 8: return field(description.bias);
        case 10: return field(description.bias_stride);
        case 15: return field(description.multiprocessors);
        case 25: return field(description.fast_sums);
        case 26: return field(description.bias_type);
    }
    return Field{nullptr, 0};
}

Field field_of(Layout& layout, int attribute) {
    switch (attribute) {
        case 0: return field(layout.type);
        case 1: return field(layout.order);
        case 2: return field(layout.rows);
        case 3: return field(layout.columns);
        case 4: return field(layout.leading);
        case 5: return field(layout.batches);
        case 6: return field(layout.batch_offset);
        case 7: return field(layout.plane_offset);
    }
    return Field{nullptr, 0};
}

Field field_of(Preference& preference, int attribute) {
    if (attribute == 1) return field(preference.workspace);
    if (attribute >= 5 && attribute <= 8) return field(preference.alignment[attribute - 5]);
    return Field{nullptr, 0};
}

template <class T>
int set_attribute(T* object, int attribute, const void* value, size_t size) {
    if (object == nullptr || value == nullptr) return invalid_value;
    Field field = field_of(*object, attribute);
    if (field.place == nullptr || size != field.size) return invalid_value;
    memcpy(field.place, value, size);
    return success;
}

template <class T>
int get_attribute(T* object, int attribute, void* value, size_t size, size_t* written) {
    if (object == nullptr) return invalid_value;
    Field field = field_of(*object, attribute);
    if (field.place == nullptr) return invalid_value;
    if (written != nullptr) *written = field.size;
    // A query with size 0 returns the required size.
    if (size == 0 && written != nullptr) return success;
    if (value == nullptr || size < field.size) return invalid_value;
    memcpy(value, field.place, field.size);
    return success;
}

// ---------------------------------------------------------------------------------------------- elements

float from_bfloat16(uint16_t bits) {
    uint32_t wide = uint32_t(bits) << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

// Rounds to nearest, ties to even.
uint16_t to_bfloat16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (isnan(value)) return uint16_t(bits >> 16 | 0x40);
    return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Rounds to a 10-bit mantissa, to nearest.
float to_tf32(float value) {
    if (!isfinite(value)) return value;
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    bits = (bits + 0x1000) & ~0x1fffu;
    memcpy(&value, &bits, sizeof value);
    return value;
}

size_t size_of(uint32_t type) { return type == bfloat16 ? 2 : 4; }

float load(const void* data, uint32_t type, size_t index) {
    if (type == bfloat16) return from_bfloat16(static_cast<const uint16_t*>(data)[index]);
    return static_cast<const float*>(data)[index];
}

void store(void* data, uint32_t type, size_t index, float value) {
    if (type == bfloat16)
        static_cast<uint16_t*>(data)[index] = to_bfloat16(value);
    else
        static_cast<float*>(data)[index] = value;
}

template <class T>
T* advanced(T* data, int64_t bytes) {
    return reinterpret_cast<T*>(reinterpret_cast<intptr_t>(data) + bytes);
}

// ------------------------------------------------------------------------------------------------ product

struct Product {
    Description description;
    Layout a_layout, b_layout, c_layout, d_layout;
    const void *a, *b, *c;
    void* d;
    // Values, or device addresses.
    float alpha, beta;
    const float *device_alpha, *device_beta;

    void run() {
        float scale = device_alpha != nullptr ? *device_alpha : alpha;
        float keep = device_beta != nullptr ? *device_beta : beta;
        for (int batch = 0; batch < d_layout.batches; ++batch) run_batch(batch, scale, keep);
    }

private:
    static const void* part(const void* data, const Layout& layout, int batch) {
        return advanced(data, int64_t(batch) * layout.batch_offset * int64_t(size_of(layout.type)));
    }

    // op(matrix) as floats: column by column for the left factor, row by row for its transpose.
    std::vector<float> gather(const void* data, const Layout& layout, bool by_rows) const {
        std::vector<float> values(layout.rows * layout.columns);
        size_t rows = layout.rows, columns = layout.columns, leading = size_t(layout.leading);
        for (size_t column = 0; column < columns; ++column)
            for (size_t row = 0; row < rows; ++row) {
                float value = load(data, layout.type, row + column * leading);
                if (description.compute == compute_tf32 && layout.type == float32) value = to_tf32(value);
                values[by_rows ? row * columns + column : row + column * rows] = value;
            }
        return values;
    }

    uint32_t bias_type() const { return description.bias_type < 0 ? d_layout.type : uint32_t(description.bias_type); }

    void run_batch(int batch, float scale, float keep) const {
        const void* a_part = part(a, a_layout, batch);
        const void* b_part = part(b, b_layout, batch);
        const void* c_part = part(c, c_layout, batch);
        void* d_part = const_cast<void*>(part(d, d_layout, batch));
        size_t m = d_layout.rows, n = d_layout.columns;
        size_t k = description.operation_a == plain ? a_layout.columns : a_layout.rows;
        // left[p * m + i], right[j * k + p]
        std::vector<float> left = gather(a_part, a_layout, description.operation_a == transposed);
        std::vector<float> right = gather(b_part, b_layout, description.operation_b == transposed);

        void* vector = advanced(description.bias, batch * description.bias_stride * int64_t(size_of(bias_type())));
        constexpr size_t tile_rows = 256, tile_columns = 8, tile_depth = 256;
        static thread_local float sums[tile_columns][tile_rows];
        static thread_local double totals[tile_columns][tile_rows];
        for (size_t j0 = 0; j0 < n; j0 += tile_columns) {
            size_t columns = std::min(tile_columns, n - j0);
            for (size_t i0 = 0; i0 < m; i0 += tile_rows) {
                size_t rows = std::min(tile_rows, m - i0);
                memset(totals, 0, sizeof totals);
                // Short sums in float, accumulated in double: at least as accurate as a GPU's many partial
                // sums.
                for (size_t p0 = 0; p0 < k; p0 += tile_depth) {
                    memset(sums, 0, sizeof sums);
                    for (size_t p = p0; p < std::min(p0 + tile_depth, k); ++p) {
                        const float* left_column = &left[p * m + i0];
                        for (size_t j = 0; j < columns; ++j) {
                            float factor = right[(j0 + j) * k + p];
                            for (size_t i = 0; i < rows; ++i) sums[j][i] += left_column[i] * factor;
                        }
                    }
                    for (size_t j = 0; j < columns; ++j)
                        for (size_t i = 0; i < rows; ++i) totals[j][i] += sums[j][i];
                }
                for (size_t j = 0; j < columns; ++j)
                    for (size_t i = 0; i < rows; ++i) {
                        float value = scale * float(totals[j][i]);
                        if (keep != 0.0f)
                            value += keep * load(c_part, c_layout.type, i0 + i + (j0 + j) * size_t(c_layout.leading));
                        value = finish(value, i0 + i, vector);
                        store(d_part, d_layout.type, i0 + i + (j0 + j) * size_t(d_layout.leading), value);
                    }
            }
        }
    }

    // Applies the epilogue to one element.
    float finish(float value, size_t i, const void* vector) const {
        if (description.has(with_bias)) value += load(vector, bias_type(), i);
        // Like the library, maps NaN to 0.
        if (description.has(with_relu) && !(value >= 0.0f)) value = 0.0f;
        return value;
    }
};

// ------------------------------------------------------------------------------------------------- checks

bool is_type(uint32_t type) { return type == float32 || type == bfloat16; }

bool is_epilogue(uint32_t epilogue) {
    const int supported[] = {epilogue_default, with_relu, with_bias, with_relu | with_bias};
    for (int known : supported)
        if (int(epilogue) == known) return true;
    return false;
}

int check(const Description& description, const Layout& a, const Layout& b, const Layout& c, const Layout& d) {
    for (const Layout* layout : {&a, &b, &c, &d}) {
        if (layout->rows == 0 || layout->columns == 0 || layout->batches < 1) return invalid_value;
        if (layout->leading < int64_t(layout->rows)) return invalid_value;
        if (layout->batches != d.batches) return invalid_value;
        if (layout->order != 0 || layout->plane_offset != 0) return not_supported;
        if (!is_type(layout->type)) return not_supported;
    }
    for (int operation : {description.operation_a, description.operation_b})
        if (operation != plain && operation != transposed) return operation == 2 ? not_supported : invalid_value;
    bool a_plain = description.operation_a == plain, b_plain = description.operation_b == plain;
    uint64_t m = a_plain ? a.rows : a.columns, k = a_plain ? a.columns : a.rows;
    uint64_t b_rows = b_plain ? b.rows : b.columns, n = b_plain ? b.columns : b.rows;
    if (b_rows != k || d.rows != m || d.columns != n || c.rows != m || c.columns != n) return invalid_value;

    if (description.operation_c != plain || description.scale != float32) return not_supported;
    if (description.compute != compute_float32 && description.compute != compute_pedantic && description.compute != compute_tf32)
        return not_supported;
    if (description.pointer_mode != host_pointers && description.pointer_mode != device_pointers) return not_supported;
    // Single-precision inputs give single-precision output; bf16 inputs give either.
    if (a.type != b.type || c.type != d.type || (a.type == float32 && d.type != float32)) return not_supported;
    if (description.compute == compute_tf32 && a.type != float32) return not_supported;

    if (!is_epilogue(description.epilogue)) return not_supported;
    int32_t vector = description.bias_type;
    if (description.has(with_bias) && vector >= 0 && !is_type(uint32_t(vector))) return not_supported;
    if (description.has(with_bias) && vector == bfloat16 && a.type == float32) return not_supported;
    return success;
}

bool aligned(const void* address, uint32_t alignment) { return reinterpret_cast<uintptr_t>(address) % alignment == 0; }

const char* name_of(int status) {
    switch (status) {
        case success: return "CUBLAS_STATUS_SUCCESS";
        case not_initialized: return "CUBLAS_STATUS_NOT_INITIALIZED";
        case invalid_value: return "CUBLAS_STATUS_INVALID_VALUE";
        case execution_failed: return "CUBLAS_STATUS_EXECUTION_FAILED";
        case not_supported: return "CUBLAS_STATUS_NOT_SUPPORTED";
    }
    return "CUBLAS_STATUS_INTERNAL_ERROR";
}

}  // namespace

// ---------------------------------------------------------------------------------------------------- API

EMULATOR_API size_t cublasLtGetVersion() { return 130000; }
EMULATOR_API size_t cublasLtGetCudartVersion() { return 13000; }
EMULATOR_API const char* cublasLtGetStatusName(int status) { return name_of(status); }
EMULATOR_API const char* cublasLtGetStatusString(int status) { return name_of(status); }

EMULATOR_API int cublasLtCreate(void** handle) {
    // Like the real library, requires a device.
    if (emulator_submit(nullptr, "cublasLtCreate", [] {}) != CUDA_SUCCESS) return not_initialized;
    *handle = new int(0);
    return success;
}

EMULATOR_API int cublasLtDestroy(void* handle) {
    if (handle == nullptr) return not_initialized;
    delete static_cast<int*>(handle);
    return success;
}

EMULATOR_API int cublasLtMatmulDescCreate(Description** description, uint32_t compute, uint32_t scale) {
    *description = new Description;
    (*description)->compute = compute;
    (*description)->scale = scale;
    return success;
}

EMULATOR_API int cublasLtMatmulDescDestroy(Description* description) {
    delete description;
    return success;
}

EMULATOR_API int cublasLtMatmulDescSetAttribute(Description* description, int attribute, const void* value, size_t size) {
    return set_attribute(description, attribute, value, size);
}

EMULATOR_API int cublasLtMatmulDescGetAttribute(Description* description, int attribute, void* value, size_t size,
                                                size_t* written) {
    return get_attribute(description, attribute, value, size, written);
}

EMULATOR_API int cublasLtMatrixLayoutCreate(Layout** layout, uint32_t type, uint64_t rows, uint64_t columns, int64_t leading) {
    *layout = new Layout;
    (*layout)->type = type;
    (*layout)->rows = rows;
    (*layout)->columns = columns;
    (*layout)->leading = leading;
    return success;
}

EMULATOR_API int cublasLtMatrixLayoutDestroy(Layout* layout) {
    delete layout;
    return success;
}

EMULATOR_API int cublasLtMatrixLayoutSetAttribute(Layout* layout, int attribute, const void* value, size_t size) {
    return set_attribute(layout, attribute, value, size);
}

EMULATOR_API int cublasLtMatrixLayoutGetAttribute(Layout* layout, int attribute, void* value, size_t size, size_t* written) {
    return get_attribute(layout, attribute, value, size, written);
}

EMULATOR_API int cublasLtMatmulPreferenceCreate(Preference** preference) {
    *preference = new Preference;
    return success;
}

EMULATOR_API int cublasLtMatmulPreferenceDestroy(Preference* preference) {
    delete preference;
    return success;
}

EMULATOR_API int cublasLtMatmulPreferenceSetAttribute(Preference* preference, int attribute, const void* value, size_t size) {
    // The other attributes narrow a search that the emulator does not perform.
    if (preference != nullptr && field_of(*preference, attribute).place == nullptr) return success;
    return set_attribute(preference, attribute, value, size);
}

EMULATOR_API int cublasLtMatmulPreferenceGetAttribute(Preference* preference, int attribute, void* value, size_t size,
                                                      size_t* written) {
    return get_attribute(preference, attribute, value, size, written);
}

EMULATOR_API int cublasLtMatmulAlgoGetHeuristic(void* handle, Description* description, Layout* a, Layout* b, Layout* c,
                                                Layout* d, Preference* preference, int requested, HeuristicResult* results,
                                                int* found) {
    if (handle == nullptr) return not_initialized;
    if (description == nullptr || a == nullptr || b == nullptr || c == nullptr || d == nullptr || preference == nullptr ||
        requested < 1 || results == nullptr || found == nullptr)
        return invalid_value;
    *found = 0;
    if (int status = check(*description, *a, *b, *c, *d)) return status;
    HeuristicResult result = {};
    result.algorithm.mark = algorithm_mark;
    for (int i = 0; i < 4; ++i) {
        // Alignment beyond 16 bytes has no benefit.
        result.algorithm.alignment[i] = std::min(preference->alignment[i], 16u);
    }
    result.state = success;
    result.waves = 1.0f;
    results[0] = result;
    *found = 1;
    return success;
}

EMULATOR_API int cublasLtMatmul(void* handle, Description* description, const void* alpha, const void* a, Layout* a_layout,
                                const void* b, Layout* b_layout, const void* beta, const void* c, Layout* c_layout, void* d,
                                Layout* d_layout, const Algorithm* algorithm, void* workspace, size_t workspace_size,
                                CUstream stream) {
    if (handle == nullptr) return not_initialized;
    if (description == nullptr || a_layout == nullptr || b_layout == nullptr || c_layout == nullptr || d_layout == nullptr ||
        alpha == nullptr || beta == nullptr || a == nullptr || b == nullptr || d == nullptr)
        return invalid_value;
    if (int status = check(*description, *a_layout, *b_layout, *c_layout, *d_layout)) return status;
    if (workspace_size > 0 && (workspace == nullptr || !aligned(workspace, 256))) return invalid_value;
    if (algorithm != nullptr && algorithm->mark != algorithm_mark) return invalid_value;

    const uint32_t usual[4] = {16, 16, 16, 16};
    const uint32_t* alignment = algorithm != nullptr ? algorithm->alignment : usual;
    if (!aligned(a, alignment[0]) || !aligned(b, alignment[1]) || !aligned(c, alignment[2]) || !aligned(d, alignment[3]))
        return invalid_value;
    if (description->has(with_bias) && (description->bias == nullptr || !aligned(description->bias, 16))) return invalid_value;

    Product product = {};
    product.description = *description;
    product.a_layout = *a_layout;
    product.b_layout = *b_layout;
    product.c_layout = *c_layout;
    product.d_layout = *d_layout;
    product.a = a;
    product.b = b;
    product.c = c;
    product.d = d;
    if (description->pointer_mode == device_pointers) {
        product.device_alpha = static_cast<const float*>(alpha);
        product.device_beta = static_cast<const float*>(beta);
    } else {
        product.alpha = *static_cast<const float*>(alpha);
        product.beta = *static_cast<const float*>(beta);
        if (product.beta != 0.0f && c == nullptr) return invalid_value;
    }
    CUresult result = emulator_submit(stream, "cublasLtMatmul", [product]() mutable { product.run(); });
    return result == CUDA_SUCCESS ? success : execution_failed;
}
