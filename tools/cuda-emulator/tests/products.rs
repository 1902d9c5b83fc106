//! Compares matrix products and their epilogues with plain loops in double precision.
#![allow(unsafe_code)]

mod common;

use std::ptr;
use std::time::{Duration, Instant};

use common::{Gpu, Lcg, argument, success};
use cudarc::cublaslt::sys as lt;
use cudarc::driver::sys;
use lt::cublasComputeType_t::{self as Compute, CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_32F_FAST_TF32};
use lt::cublasLtEpilogue_t::{self as Epilogue, *};
use lt::cublasLtMatmulDescAttributes_t::*;
use lt::cublasLtMatrixLayoutAttribute_t::*;
use lt::cublasStatus_t::{self as Status, *};
use lt::cudaDataType_t::{self as Type, CUDA_R_16BF, CUDA_R_32F};

const OK: Status = CUBLAS_STATUS_SUCCESS;

/// A product to test: shapes and kinds, with gaps between the columns of all matrices.
#[derive(Clone, Copy)]
struct Case {
    m: usize,
    n: usize,
    k: usize,
    /// True if A and B are transposed.
    turned: (bool, bool),
    batches: usize,
    inputs: Type,
    output: Type,
    compute: Compute,
    epilogue: Epilogue,
    alpha: f32,
    beta: f32,
}

impl Case {
    fn new(epilogue: Epilogue, inputs: Type, output: Type) -> Case {
        let turned = (false, true);
        let (compute, alpha, beta) = (CUBLAS_COMPUTE_32F, 0.5, 0.25);
        Case { m: 40, n: 27, k: 300, turned, batches: 2, inputs, output, compute, epilogue, alpha, beta }
    }

    fn has(&self, part: u32) -> bool {
        self.epilogue as u32 & part != 0
    }
}

fn set<T>(description: lt::cublasLtMatmulDesc_t, attribute: lt::cublasLtMatmulDescAttributes_t, value: T) {
    let (place, size) = (ptr::from_ref(&value).cast(), size_of::<T>());
    assert_eq!(unsafe { lt::cublasLtMatmulDescSetAttribute(description, attribute, place, size) }, OK);
}

fn layout(
    kind: Type,
    rows: usize,
    columns: usize,
    leading: usize,
    batches: usize,
) -> lt::cublasLtMatrixLayout_t {
    let mut layout = ptr::null_mut();
    let (count, offset) = (batches as i32, (leading * columns) as i64);
    unsafe {
        let (rows, columns) = (rows as u64, columns as u64);
        assert_eq!(lt::cublasLtMatrixLayoutCreate(&mut layout, kind, rows, columns, leading as i64), OK);
        for (attribute, place, size) in [
            (CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, ptr::from_ref(&count).cast(), 4),
            (CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, ptr::from_ref(&offset).cast(), 8),
        ] {
            assert_eq!(lt::cublasLtMatrixLayoutSetAttribute(layout, attribute, place, size), OK);
        }
    }
    layout
}

fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    let (low, odd) = (bits & 0xffff, bits >> 16 & 1);
    (bits >> 16) as u16 + u16::from(low > 0x8000 || (low == 0x8000 && odd == 1))
}

fn from_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

fn rounded(kind: Type, values: &[f32]) -> Vec<f32> {
    values.iter().map(|&x| if kind == CUDA_R_16BF { from_bf16(to_bf16(x)) } else { x }).collect()
}

fn upload(gpu: &Gpu, kind: Type, values: &[f32]) -> u64 {
    if kind == CUDA_R_16BF {
        gpu.upload(&values.iter().map(|&x| to_bf16(x)).collect::<Vec<u16>>())
    } else {
        gpu.upload(values)
    }
}

fn download(gpu: &Gpu, kind: Type, address: u64, count: usize) -> Vec<f32> {
    if kind == CUDA_R_16BF {
        gpu.download::<u16>(address, count).into_iter().map(from_bf16).collect()
    } else {
        gpu.download(address, count)
    }
}

/// Operands and result of a product, on the device.
struct Operands {
    a: u64,
    b: u64,
    c: u64,
    d: u64,
    bias: u64,
}

fn multiply(gpu: &Gpu, case: &Case, operands: &Operands) -> Status {
    let (a_rows, a_columns) = if case.turned.0 { (case.k, case.m) } else { (case.m, case.k) };
    let (b_rows, b_columns) = if case.turned.1 { (case.n, case.k) } else { (case.k, case.n) };
    let a = layout(case.inputs, a_rows, a_columns, leading(a_rows), case.batches);
    let b = layout(case.inputs, b_rows, b_columns, leading(b_rows), case.batches);
    let d = layout(case.output, case.m, case.n, leading(case.m), case.batches);
    unsafe {
        let (mut handle, mut description, mut preference) =
            (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
        assert_eq!(lt::cublasLtCreate(&mut handle), OK);
        assert_eq!(lt::cublasLtMatmulDescCreate(&mut description, case.compute, CUDA_R_32F), OK);
        assert_eq!(lt::cublasLtMatmulPreferenceCreate(&mut preference), OK);
        set(description, CUBLASLT_MATMUL_DESC_TRANSA, i32::from(case.turned.0));
        set(description, CUBLASLT_MATMUL_DESC_TRANSB, i32::from(case.turned.1));
        set(description, CUBLASLT_MATMUL_DESC_EPILOGUE, case.epilogue);
        set(description, CUBLASLT_MATMUL_DESC_BIAS_POINTER, operands.bias);
        set(description, CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE, case.m as i64);
        let mut results = [std::mem::zeroed::<lt::cublasLtMatmulHeuristicResult_t>()];
        let mut found = 0;
        let mut status = lt::cublasLtMatmulAlgoGetHeuristic(
            handle,
            description,
            a,
            b,
            d,
            d,
            preference,
            1,
            results.as_mut_ptr(),
            &mut found,
        );
        assert_eq!(found == 1, status == OK);
        if status == OK {
            assert_eq!(results[0].workspaceSize, 0);
            status = lt::cublasLtMatmul(
                handle,
                description,
                ptr::from_ref(&case.alpha).cast(),
                operands.a as *const _,
                a,
                operands.b as *const _,
                b,
                ptr::from_ref(&case.beta).cast(),
                operands.c as *const _,
                d,
                operands.d as *mut _,
                d,
                &results[0].algo,
                ptr::null_mut(),
                0,
                gpu.stream.cast(),
            );
        }
        // Descriptors may be destroyed immediately, even while the work is only recorded.
        for layout in [a, b, d] {
            assert_eq!(lt::cublasLtMatrixLayoutDestroy(layout), OK);
        }
        assert_eq!(lt::cublasLtMatmulPreferenceDestroy(preference), OK);
        assert_eq!(lt::cublasLtMatmulDescDestroy(description), OK);
        assert_eq!(lt::cublasLtDestroy(handle), OK);
        status
    }
}

/// A leading dimension that leaves a gap and is a multiple of 8.
fn leading(rows: usize) -> usize {
    (rows + 8) / 8 * 8
}

/// D, without gaps.
fn plain_loops(case: &Case, a: &[f32], b: &[f32], c: &[f32], bias: &[f32]) -> Vec<f64> {
    let &Case { m, n, k, .. } = case;
    let (a_rows, a_columns) = if case.turned.0 { (k, m) } else { (m, k) };
    let (b_rows, b_columns) = if case.turned.1 { (n, k) } else { (k, n) };
    let (a_leading, b_leading, d_leading) = (leading(a_rows), leading(b_rows), leading(m));
    let mut expected = vec![0.0; m * n * case.batches];
    for batch in 0..case.batches {
        let a_at = |i: usize, p: usize| {
            let (row, column) = if case.turned.0 { (p, i) } else { (i, p) };
            f64::from(a[batch * a_leading * a_columns + row + column * a_leading])
        };
        let b_at = |p: usize, j: usize| {
            let (row, column) = if case.turned.1 { (j, p) } else { (p, j) };
            f64::from(b[batch * b_leading * b_columns + row + column * b_leading])
        };
        for j in 0..n {
            for i in 0..m {
                let sum: f64 = (0..k).map(|p| a_at(i, p) * b_at(p, j)).sum();
                let mut value = f64::from(case.alpha) * sum;
                value += f64::from(case.beta) * f64::from(c[batch * d_leading * n + i + j * d_leading]);
                if case.has(4) {
                    value += f64::from(bias[batch * m + i]);
                }
                expected[(batch * n + j) * m + i] = if case.has(2) { value.max(0.0) } else { value };
            }
        }
    }
    expected
}

#[track_caller]
fn assert_close(got: &[f32], expected: &[f64], kind: Type, what: &str) {
    assert_eq!(got.len(), expected.len());
    let relative = if kind == CUDA_R_16BF { 1.0 / 256.0 } else { 2e-6 };
    for (i, (&got, &expected)) in got.iter().zip(expected).enumerate() {
        let error = (f64::from(got) - expected).abs();
        assert!(error <= relative * expected.abs() + 2e-5, "{what}, {i}: {got} is not {expected}");
    }
}

fn check(gpu: &Gpu, case: &Case) {
    let &Case { m, n, k, batches, .. } = case;
    let what = format!("{:?} of {:?} turned {:?}", case.epilogue, case.inputs, case.turned);
    let mut numbers = Lcg::new(7);
    let (a_rows, a_columns) = if case.turned.0 { (k, m) } else { (m, k) };
    let (b_rows, b_columns) = if case.turned.1 { (n, k) } else { (k, n) };
    let a = rounded(case.inputs, &numbers.vector(leading(a_rows) * a_columns * batches));
    let b = rounded(case.inputs, &numbers.vector(leading(b_rows) * b_columns * batches));
    let c = rounded(case.output, &numbers.vector(leading(m) * n * batches));
    let bias = rounded(case.output, &numbers.vector(m.max(n) * batches));
    let operands = Operands {
        a: upload(gpu, case.inputs, &a),
        b: upload(gpu, case.inputs, &b),
        c: upload(gpu, case.output, &c),
        d: upload(gpu, case.output, &vec![0.0; leading(m) * n * batches]),
        bias: upload(gpu, case.output, &bias),
    };
    assert_eq!(multiply(gpu, case, &operands), OK, "{what}");

    let expected = plain_loops(case, &a, &b, &c, &bias);
    let d = download(gpu, case.output, operands.d, leading(m) * n * batches);
    let (values, gaps): (Vec<&[f32]>, Vec<&[f32]>) =
        d.chunks(leading(m)).map(|column| column.split_at(m)).unzip();
    assert_close(&values.concat(), &expected, case.output, &what);
    assert!(gaps.concat().iter().all(|&x| x == 0.0), "{what}: the gaps between columns changed");
}

#[test]
fn every_epilogue_matches_plain_loops() {
    let Some(gpu) = Gpu::new() else { return };
    for (inputs, output) in [(CUDA_R_32F, CUDA_R_32F), (CUDA_R_16BF, CUDA_R_16BF), (CUDA_R_16BF, CUDA_R_32F)]
    {
        for epilogue in [
            CUBLASLT_EPILOGUE_DEFAULT,
            CUBLASLT_EPILOGUE_RELU,
            CUBLASLT_EPILOGUE_BIAS,
            CUBLASLT_EPILOGUE_RELU_BIAS,
        ] {
            check(&gpu, &Case::new(epilogue, inputs, output));
        }
    }
    for turned in [(false, false), (true, false), (true, true)] {
        check(&gpu, &Case { turned, ..Case::new(CUBLASLT_EPILOGUE_RELU_BIAS, CUDA_R_32F, CUDA_R_32F) });
    }
    // More than one tile in every dimension.
    let plain = Case::new(CUBLASLT_EPILOGUE_DEFAULT, CUDA_R_32F, CUDA_R_32F);
    check(&gpu, &Case { m: 300, n: 19, k: 530, batches: 1, ..plain });
}

#[test]
fn bf16_is_rounded_to_nearest_even_and_tf32_to_ten_bits() {
    let Some(gpu) = Gpu::new() else { return };
    // 1 × k by k × 1 with a chosen sum: between two bf16 numbers, and exactly halfway on either side of an
    // even one.
    for (sum, expected) in
        [(1.0 + 1.0 / 256.0, 1.0), (1.0 + 3.0 / 256.0, 1.0 + 1.0 / 64.0), (1.0 + 1.1 / 256.0, 1.0078125)]
    {
        let case = Case {
            m: 1,
            n: 1,
            k: 1,
            batches: 1,
            alpha: sum,
            beta: 0.0,
            ..Case::new(CUBLASLT_EPILOGUE_DEFAULT, CUDA_R_16BF, CUDA_R_16BF)
        };
        let one = || upload(&gpu, CUDA_R_16BF, &[1.0; 8]);
        let operands = Operands { a: one(), b: one(), c: one(), d: one(), bias: 0 };
        assert_eq!(multiply(&gpu, &case, &operands), OK);
        assert_eq!(download(&gpu, CUDA_R_16BF, operands.d, 1), [expected]);
    }
    let tf32 = Case {
        m: 1,
        n: 1,
        k: 1,
        batches: 1,
        alpha: 1.0,
        beta: 0.0,
        compute: CUBLAS_COMPUTE_32F_FAST_TF32,
        ..Case::new(CUBLASLT_EPILOGUE_DEFAULT, CUDA_R_32F, CUDA_R_32F)
    };
    let one = || gpu.upload(&[1f32; 8]);
    let a = gpu.upload(&[1.0f32 + 1.0 / 1024.0 + 1.0 / 8192.0; 8]);
    let operands = Operands { a, b: one(), c: one(), d: one(), bias: 0 };
    assert_eq!(multiply(&gpu, &tf32, &operands), OK);
    assert_eq!(gpu.download::<f32>(operands.d, 1), [1.0 + 1.0 / 1024.0]);
}

#[test]
fn a_graph_replays_a_kernel_a_memset_and_a_product() {
    let Some(gpu) = Gpu::new() else { return };
    let kernels = gpu.load(
        "extern \"C\" __global__ void fill(float* x, float value) { x[blockIdx.x * 8 + threadIdx.x] += value; }",
        &[],
    );
    let fill = gpu.function(kernels, "fill");
    let plain = Case::new(CUBLASLT_EPILOGUE_DEFAULT, CUDA_R_32F, CUDA_R_32F);
    let case = Case { m: 8, n: 8, k: 8, batches: 1, turned: (false, false), alpha: 1.0, beta: 1.0, ..plain };
    let size = leading(8) * 8;
    let operands = Operands {
        a: gpu.upload(&vec![0f32; size]),
        b: gpu.upload(&vec![1f32; size]),
        c: gpu.upload(&vec![9f32; size]),
        d: gpu.allocate(size * 4),
        bias: 0,
    };
    gpu.begin_capture();
    let (mut a, mut value) = (operands.a, 1.0f32);
    let blocks = (size / 8) as u32;
    let mut arguments = [argument(&mut a), argument(&mut value)];
    gpu.launch(fill, (blocks, 1, 1), (8, 1, 1), 0, &mut arguments).unwrap();
    // The launch has its own copies of the arguments.
    (a, value) = (0, -100.0);
    success(unsafe { sys::cuMemsetD8Async(operands.c, 0, size * 4, gpu.stream) });
    assert_eq!(multiply(&gpu, &case, &operands), OK);
    let graph = gpu.end_capture();
    assert!(gpu.download::<f32>(operands.c, size).iter().all(|&x| x == 9.0), "nothing has run yet");
    assert!(a == 0 && value < 0.0);

    let mut nodes = 0;
    success(unsafe { sys::cuGraphGetNodes(graph, ptr::null_mut(), &mut nodes) });
    assert_eq!(nodes, 3);
    for replay in 1..=3 {
        gpu.replay(graph);
        let d = gpu.download::<f32>(operands.d, size);
        assert!(d.chunks(leading(8)).all(|column| column[..8].iter().all(|&x| x == 8.0 * replay as f32)));
    }
    success(unsafe { sys::cuGraphDestroy(graph) });
}

#[test]
fn rejects_what_the_real_library_rejects() {
    let Some(gpu) = Gpu::new() else { return };
    let case = Case { batches: 1, ..Case::new(CUBLASLT_EPILOGUE_RELU_BIAS, CUDA_R_16BF, CUDA_R_16BF) };
    let buffer = || gpu.allocate(1 << 18);
    let operands = || Operands { a: buffer(), b: buffer(), c: buffer(), d: buffer(), bias: buffer() };
    assert_eq!(multiply(&gpu, &case, &operands()), OK);
    // The real library supports it; glowflow does not use it.
    let gelu = Case { epilogue: CUBLASLT_EPILOGUE_GELU, ..case };
    assert_eq!(multiply(&gpu, &gelu, &operands()), CUBLAS_STATUS_NOT_SUPPORTED);
    let mixed = Case { inputs: CUDA_R_32F, ..case };
    assert_eq!(multiply(&gpu, &mixed, &operands()), CUBLAS_STATUS_NOT_SUPPORTED);
    let askew = Operands { b: buffer() + 4, ..operands() };
    assert_eq!(multiply(&gpu, &case, &askew), CUBLAS_STATUS_INVALID_VALUE);
}

#[test]
fn a_deep_product_takes_well_under_a_second() {
    let Some(gpu) = Gpu::new() else { return };
    let plain = Case::new(CUBLASLT_EPILOGUE_DEFAULT, CUDA_R_32F, CUDA_R_32F);
    let case = Case { m: 256, n: 256, k: 4096, batches: 1, turned: (true, false), beta: 0.0, ..plain };
    let buffer = |size: usize| gpu.upload(&vec![1f32; size]);
    let deep = leading(4096) * 256;
    let (a, b, c, d) = (buffer(deep), buffer(deep), buffer(leading(256) * 256), buffer(leading(256) * 256));
    let started = Instant::now();
    let operands = Operands { a, b, c, d, bias: 0 };
    assert_eq!(multiply(&gpu, &case, &operands), OK);
    let taken = started.elapsed();
    assert_eq!(gpu.download::<f32>(d, 256), vec![2048.0; 256]);
    // Generous, for busy machines.
    assert!(taken < Duration::from_secs(5), "{taken:?}");
    println!("256 x 256 x 4096: {taken:?}");
}
