//! Compares the emulator with plain loops, through the bindings that the device uses.
#![allow(unsafe_code)]

mod common;

use std::env;
use std::path::Path;
use std::process::{Command, Output};
use std::ptr;

use common::{Gpu, argument, compile, compile_with_headers};
use cudarc::driver::sys::{self, CUresult};
use cudarc::driver::{LaunchConfig, PushKernelArg};
use cudarc::nvrtc::{self, sys::nvrtcResult};

#[test]
fn libraries_are_in_the_target_folder() {
    let Some(folder) = cuda_emulator::libraries() else { return };
    let target = folder.ancestors().nth(2).unwrap().canonicalize().unwrap();
    assert!(folder.ancestors().nth(1).unwrap().ends_with("cuda-emulator"), "{}", folder.display());
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR")).canonicalize().unwrap();
    assert!(temporary.starts_with(&target), "{} is not in {}", temporary.display(), target.display());
    for name in cuda_emulator::NAMES {
        assert!(folder.join(name).is_file(), "{name}");
    }
    assert!(cuda_emulator::nccl().unwrap().join("libnccl.so.2").is_file());
}

#[test]
fn adds_vectors() {
    let Some(gpu) = Gpu::new() else { return };
    let kernels = gpu.load(
        r#"
        extern "C" __global__ void
        __launch_bounds__(BLOCK)
        add(const float* __restrict__ a, const float* __restrict__ b, float* c, short unused, unsigned n) {
            unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
            if (i < n) c[i] = a[i] + b[i];
        }
        "#,
        &["-DBLOCK=256", "--gpu-architecture=sm_90a", "--std=c++17"],
    );
    let n = 100_003;
    let (a, b): (Vec<f32>, Vec<f32>) = (0..n).map(|i| (i as f32, 0.5 * i as f32)).unzip();
    let (da, db, dc) = (gpu.upload(&a), gpu.upload(&b), gpu.upload(&vec![0f32; n]));
    let add = gpu.function(kernels, "add");
    let blocks = n.div_ceil(256) as u32;
    let mut values = (da, db, dc, 7i16, n as u32);
    gpu.launch(
        add,
        (blocks, 1, 1),
        (256, 1, 1),
        0,
        &mut [
            argument(&mut values.0),
            argument(&mut values.1),
            argument(&mut values.2),
            argument(&mut values.3),
            argument(&mut values.4),
        ],
    )
    .unwrap();
    assert!(gpu.download::<f32>(dc, n).iter().enumerate().all(|(i, &c)| c == 1.5 * i as f32));
    // The kernel's own launch bound.
    let too_large = gpu.launch(add, (1, 1, 1), (512, 1, 1), 0, &mut [ptr::null_mut(); 5]);
    assert_eq!(too_large, Err(CUresult::CUDA_ERROR_INVALID_VALUE));
    let empty = gpu.launch(add, (0, 1, 1), (256, 1, 1), 0, &mut [ptr::null_mut(); 5]);
    assert_eq!(empty, Err(CUresult::CUDA_ERROR_INVALID_VALUE));
}

#[test]
fn runs_with_the_safe_layer_of_the_bindings() {
    let Some(gpu) = Gpu::new() else { return };
    assert_eq!(gpu.context.name().unwrap(), "Emulated GPU");
    assert_eq!(gpu.context.compute_capability().unwrap(), (9, 0));
    let ptx = nvrtc::compile_ptx("extern \"C\" __global__ void twice(float* x) { x[threadIdx.x] *= 2.0f; }")
        .unwrap();
    let twice = gpu.context.load_module(ptx).unwrap().load_function("twice").unwrap();
    let stream = gpu.context.new_stream().unwrap();
    let mut x = stream.clone_htod(&[1f32, 2.0, 3.0]).unwrap();
    let config = LaunchConfig { grid_dim: (1, 1, 1), block_dim: (3, 1, 1), shared_mem_bytes: 0 };
    unsafe { stream.launch_builder(&twice).arg(&mut x).launch(config) }.unwrap();
    assert_eq!(stream.clone_dtoh(&x).unwrap(), [2.0, 4.0, 6.0]);
    stream.synchronize().unwrap();
}

#[test]
fn reduces_a_block_with_shuffles_and_barriers() {
    let Some(gpu) = Gpu::new() else { return };
    let kernels = gpu.load(
        r#"
        __device__ __forceinline__ double warp_sum(double value) {
            #pragma unroll
            for (int offset = 16; offset > 0; offset >>= 1) value += __shfl_xor_sync(0xffffffffu, value, offset);
            return value;
        }
        extern "C" __global__ void reduce(const float* x, double* sums, unsigned* odd, unsigned n) {
            __shared__ double partial[32];
            double value = 0;
            for (unsigned i = threadIdx.x; i < n; i += blockDim.x) value += x[blockIdx.x * n + i];
            unsigned lane = threadIdx.x % warpSize, warp = threadIdx.x / warpSize;
            unsigned bits = __ballot_sync(0xffffffffu, threadIdx.x & 1);
            value = warp_sum(value);
            if (lane == 0) partial[warp] = value;
            __syncthreads();
            if (warp == 0) {
                value = lane < blockDim.x / 32 ? partial[lane] : 0.0;
                for (int offset = 16; offset > 0; offset >>= 1) value += __shfl_down_sync(0xffffffffu, value, offset);
                if (lane == 0) sums[blockIdx.x] = value;
            }
            // The others have already exited.
            if (threadIdx.x == 0) atomicAdd(odd, __popc(bits));
        }
        "#,
        &[],
    );
    let (blocks, n) = (70usize, 1000usize);
    let x: Vec<f32> = (0..blocks * n).map(|i| (i % 97) as f32).collect();
    let mut values = (gpu.upload(&x), gpu.upload(&vec![0f64; blocks]), gpu.upload(&[0u32]), n as u32);
    for block in [32, 256, 1024] {
        let reduce = gpu.function(kernels, "reduce");
        let mut arguments = [
            argument(&mut values.0),
            argument(&mut values.1),
            argument(&mut values.2),
            argument(&mut values.3),
        ];
        gpu.launch(reduce, (blocks as u32, 1, 1), (block, 1, 1), 0, &mut arguments).unwrap();
        let sums = gpu.download::<f64>(values.1, blocks);
        for (sum, row) in sums.iter().zip(x.chunks(n)) {
            assert_eq!(*sum, row.iter().map(|&v| f64::from(v)).sum::<f64>());
        }
    }
    assert_eq!(gpu.download::<u32>(values.2, 1), [3 * 70 * 16]);
}

const TRANSPOSE: &str = r#"
    #ifdef NEVER
    extern "C" __global__ void absent(int*) {}
    #endif
    extern "C" __global__ void transpose(const float* in, float* out, int rows, int columns) {
        extern __shared__ __align__(16)
            float tile[];
        int x = blockIdx.x * 32 + threadIdx.x, y = blockIdx.y * 32;
        for (int i = threadIdx.y; i < 32; i += blockDim.y)
            if (x < columns && y + i < rows) tile[i * 33 + threadIdx.x] = in[(y + i) * columns + x];
        __syncthreads();
        x = blockIdx.y * 32 + threadIdx.x, y = blockIdx.x * 32;
        for (int i = threadIdx.y; i < 32; i += blockDim.y)
            if (x < rows && y + i < columns) out[(y + i) * rows + x] = tile[threadIdx.x * 33 + i];
    }
"#;

#[test]
fn transposes_through_dynamic_shared_memory() {
    let Some(gpu) = Gpu::new() else { return };
    let (rows, columns) = (75, 130);
    let input: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
    let output = gpu.upload(&vec![0f32; rows * columns]);
    let mut values = (gpu.upload(&input), output, rows as i32, columns as i32);
    let transpose = gpu.function(gpu.load(TRANSPOSE, &[]), "transpose");
    let mut arguments =
        [argument(&mut values.0), argument(&mut values.1), argument(&mut values.2), argument(&mut values.3)];
    gpu.launch(transpose, (5, 3, 1), (32, 8, 1), 32 * 33 * 4, &mut arguments).unwrap();
    let transposed = gpu.download::<f32>(output, rows * columns);
    for r in 0..rows {
        for c in 0..columns {
            assert_eq!(transposed[c * rows + r], input[r * columns + c]);
        }
    }
    // More than 48 KiB only if the kernel requests it, and never more than the limit.
    let large = 100 * 1024;
    assert_eq!(
        gpu.launch(transpose, (5, 3, 1), (32, 8, 1), large, &mut arguments),
        Err(CUresult::CUDA_ERROR_INVALID_VALUE)
    );
    let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    unsafe {
        assert_eq!(sys::cuFuncSetAttribute(transpose, attribute, large as i32), CUresult::CUDA_SUCCESS);
        let refused = sys::cuFuncSetAttribute(transpose, attribute, 228 * 1024);
        assert_eq!(refused, CUresult::CUDA_ERROR_INVALID_VALUE);
    }
    gpu.launch(transpose, (5, 3, 1), (32, 8, 1), large, &mut arguments).unwrap();
}

#[test]
fn supports_the_device_dialect() {
    let Some(gpu) = Gpu::new() else { return };
    let kernels = gpu.load(
        r#"
        typedef unsigned int uint32_t;
        typedef unsigned long long uint64_t;
        struct Pair { float2 first; uint64_t second; };
        __constant__ float table[2] = {1.0f, 2.0f};
        template <int width> __device__ float turned(float value, uint32_t shift) {
            return __shfl_sync(0xffffffffu, value, threadIdx.x + shift, width);
        }
        extern "C" __launch_bounds__(64, 2) __global__ void words(float* out, const Pair pair, float4 four) {
            float s, c;
            double ds, dc;
            sincospif(0.25f, &s, &c);
            sincospi(1.5, &ds, &dc);
            float got = turned<8>(float(threadIdx.x), 3);
            float up = __shfl_up_sync(0xffffffffu, float(threadIdx.x), 2);
            if (threadIdx.x != 6) return;
            int i = 0;
            out[i++] = s;
            out[i++] = c;
            out[i++] = float(ds);
            out[i++] = float(dc);
            out[i++] = got;
            out[i++] = up;
            out[i++] = pair.first.y + float(pair.second);
            out[i++] = four.w + table[1];
            out[i++] = float(__umulhi(0x80000000u, 10u));
            out[i++] = __uint_as_float(__float_as_uint(-3.0f) & 0x7fffffffu);
            out[i++] = rsqrtf(0.25f) + fmaf(2.0f, 3.0f, 4.0f) + __fmaf_rn(1.0f, 1.0f, 1.0f);
            out[i++] = float(min(3, 4) + max(3u, 4u)) + fmaxf(1.0f, 2.0f) + float(isfinite(four.x) + isnan(four.y));
            out[i++] = __expf(0.0f) + __logf(1.0f) + __ldg(out) + make_float2(1.0f, 2.0f).y;
        #ifdef __CUDA_ARCH__
            out[0] = 1e9f;
        #endif
        }
        "#,
        &["--use_fast_math", "-lineinfo", "--extra-device-vectorization", "--fmad=false"],
    );
    #[repr(C)]
    struct Pair(f32, f32, u64);
    #[repr(C, align(16))]
    struct Four(f32, f32, f32, f32);
    let out = gpu.upload(&[0f32; 13]);
    let mut values = (out, Pair(1.0, 2.0, 40), Four(0.0, f32::NAN, 3.0, 4.0));
    let mut arguments = [argument(&mut values.0), argument(&mut values.1), argument(&mut values.2)];
    gpu.launch(gpu.function(kernels, "words"), (1, 1, 1), (32, 1, 1), 0, &mut arguments).unwrap();
    let root = 0.5f32.sqrt();
    let expected =
        [root, root, -1.0, 0.0, 1.0, 4.0, 42.0, 6.0, 5.0, 3.0, 2.0 + 10.0 + 2.0, 7.0 + 2.0 + 2.0, 3.0 + root];
    for (i, (got, expected)) in gpu.download::<f32>(out, 13).iter().zip(expected).enumerate() {
        assert!((got - expected).abs() < 1e-6, "{i}: {got} is not {expected}");
    }
}

#[test]
fn new_memory_is_nan_and_followed_by_guard_pages() {
    let Some(gpu) = Gpu::new() else { return };
    let address = gpu.allocate(1000 * 4);
    assert_eq!(address % 256, 0);
    assert!(gpu.download::<f32>(address, 1000).iter().all(|x| x.is_nan()));
    // A copy beyond the allocation is rejected.
    let mut host = vec![0f32; 1001];
    let copied = unsafe { sys::cuMemcpyDtoH_v2(host.as_mut_ptr().cast(), address, 4004) };
    assert_eq!(copied, CUresult::CUDA_ERROR_INVALID_VALUE);
    unsafe {
        assert_eq!(sys::cuMemsetD32Async(address, 3, 500, gpu.stream), CUresult::CUDA_SUCCESS);
        let set = gpu.download::<u32>(address, 501);
        assert!(set[..500].iter().all(|&x| x == 3) && set[500] == u32::MAX);
        assert_eq!(sys::cuMemFree_v2(address), CUresult::CUDA_SUCCESS);
        assert_eq!(sys::cuMemFree_v2(address), CUresult::CUDA_ERROR_INVALID_VALUE);
    }
}

#[test]
fn memory_runs_out() {
    let Some(_gpu) = Gpu::new() else { return };
    let mut address = 0;
    let refused = unsafe { sys::cuMemAlloc_v2(&mut address, 3 << 30) };
    assert_eq!(refused, CUresult::CUDA_ERROR_OUT_OF_MEMORY);
    assert_eq!(unsafe { sys::cuMemAlloc_v2(&mut address, 0) }, CUresult::CUDA_ERROR_INVALID_VALUE);
}

#[test]
fn the_log_reports_compile_errors() {
    let Some(_gpu) = Gpu::new() else { return };
    let source = "\nextern \"C\" __global__ void wrong(float* x) {\n    x[0] = undeclared_thing;\n}\n";
    let (result, log) = compile(source, &[]).unwrap_err();
    assert_eq!(result, nvrtcResult::NVRTC_ERROR_COMPILATION);
    assert!(log.contains("undeclared_thing") && log.contains("program.cu:3"), "{log}");
    let (result, log) = compile("#error no such luck", &[]).unwrap_err();
    assert_eq!(result, nvrtcResult::NVRTC_ERROR_COMPILATION);
    assert!(log.contains("no such luck"), "{log}");
    // Names that host headers define and that do not exist on a GPU.
    for word in ["INFINITY", "std::min(1, 2)", "uint32_t(1)", "M_PI"] {
        let source = format!("extern \"C\" __global__ void wrong(float* x) {{ x[0] = float({word}); }}");
        let (result, _) = compile(&source, &[]).unwrap_err();
        assert_eq!(result, nvrtcResult::NVRTC_ERROR_COMPILATION, "{word}");
    }
    for option in ["--unheard-of", "--gpu-architecture=sm_12", "-O9"] {
        let (result, _) = compile("", &[option]).unwrap_err();
        assert_eq!(result, nvrtcResult::NVRTC_ERROR_INVALID_OPTION, "{option}");
    }
}

#[test]
fn programs_include_their_headers() {
    let Some(gpu) = Gpu::new() else { return };
    let outer = "#pragma once\n#include \"inner.cuh\"\n__device__ int five() { return two() + 3; }\n";
    let inner = "#pragma once\n__device__ int two() { return 2; }\n";
    let source = r#"
        #include "outer.cuh"
        #include "inner.cuh"
        extern "C" __global__ void numbers(int* out) {
            out[0] = five();
            out[1] = __LINE__;
        }
    "#;
    let headers = [("outer.cuh", outer), ("inner.cuh", inner)];
    let (cubin, ptx) = compile_with_headers(source, &headers, &[]).unwrap_or_else(|(_, log)| panic!("{log}"));
    let numbers = gpu.function(gpu.load_cubin(&cubin).unwrap(), "numbers");
    let out = gpu.upload(&[0i32; 2]);
    let mut value = out;
    gpu.launch(numbers, (1, 1, 1), (1, 1, 1), 0, &mut [argument(&mut value)]).unwrap();
    assert_eq!(gpu.download::<i32>(out, 2), [5, 6]);
    // The PTX names the file of the compiled program: it was not compiled again.
    let (_, again) = compile_with_headers(source, &headers, &[]).unwrap();
    assert_eq!(ptx, again);

    let wrong = [("outer.cuh", "\n#error no such luck"), ("inner.cuh", inner)];
    let (result, log) = compile_with_headers(source, &wrong, &[]).unwrap_err();
    assert_eq!(result, nvrtcResult::NVRTC_ERROR_COMPILATION);
    assert!(log.contains("outer.cuh:2") && log.contains("no such luck"), "{log}");
    let (result, log) = compile_with_headers(source, &headers[..1], &[]).unwrap_err();
    assert_eq!(result, nvrtcResult::NVRTC_ERROR_COMPILATION);
    assert!(log.contains("inner.cuh"), "{log}");
}

#[test]
fn the_target_is_visible_to_programs() {
    let Some(_gpu) = Gpu::new() else { return };
    let source = r#"
        #if !defined(__CUDA_ARCH_FEAT_SM90_ALL) || __CUDACC_VER_MAJOR__ != 13
        #error not for this target
        #endif
        extern "C" __global__ void nothing() {}
    "#;
    assert!(compile(source, &["--gpu-architecture=sm_90a"]).is_ok());
    for target in ["sm_90", "compute_90", "sm_100a"] {
        let option = format!("--gpu-architecture={target}");
        let (_, log) = compile(source, &[&option]).unwrap_err();
        assert!(log.contains("not for this target"), "{option}: {log}");
    }
}

#[test]
fn kernels_of_another_build_are_rejected() {
    let Some(gpu) = Gpu::new() else { return };
    let mut cubin = compile("extern \"C\" __global__ void nothing() {}", &[]).unwrap();
    let folder = cuda_emulator::libraries().unwrap();
    let key = u64::from_str_radix(folder.file_name().unwrap().to_str().unwrap(), 16).unwrap();
    let bytes: [u8; 8] = key.to_ne_bytes();
    let at = cubin.windows(8).position(|window| window == bytes).unwrap();
    cubin[at] ^= 1;
    assert_eq!(gpu.load_cubin(&cubin), Err(CUresult::CUDA_ERROR_INVALID_IMAGE));
    cubin[at] ^= 1;
    assert!(gpu.load_cubin(&cubin).is_ok());
}

#[test]
fn every_load_of_a_module_has_its_own_variables() {
    let Some(gpu) = Gpu::new() else { return };
    let source = r#"
        __device__ int calls;
        extern "C" __global__ void count(int* out) { if (threadIdx.x == 0) *out = ++calls; }
    "#;
    let out = gpu.upload(&[0i32]);
    for expected in [1, 1] {
        let count = gpu.function(gpu.load(source, &[]), "count");
        let mut value = out;
        gpu.launch(count, (1, 1, 1), (32, 1, 1), 0, &mut [argument(&mut value)]).unwrap();
        assert_eq!(gpu.download::<i32>(out, 1), [expected]);
    }
    let module = gpu.load(source, &[]);
    let mut function = ptr::null_mut();
    let missing = unsafe { sys::cuModuleGetFunction(&mut function, module, c"absent".as_ptr()) };
    assert_eq!(missing, CUresult::CUDA_ERROR_NOT_FOUND);
    assert_eq!(unsafe { sys::cuModuleUnload(module) }, CUresult::CUDA_SUCCESS);
    let junk = [0u8; 64];
    let mut module = ptr::null_mut();
    let refused = unsafe { sys::cuModuleLoadData(&mut module, junk.as_ptr().cast()) };
    assert_eq!(refused, CUresult::CUDA_ERROR_INVALID_IMAGE);
}

#[test]
fn events_measure_time() {
    let Some(gpu) = Gpu::new() else { return };
    unsafe {
        let (mut start, mut end) = (ptr::null_mut(), ptr::null_mut());
        assert_eq!(sys::cuEventCreate(&mut start, 0), CUresult::CUDA_SUCCESS);
        assert_eq!(sys::cuEventCreate(&mut end, 0), CUresult::CUDA_SUCCESS);
        assert_eq!(sys::cuEventRecord(start, gpu.stream), CUresult::CUDA_SUCCESS);
        assert_eq!(sys::cuEventSynchronize(start), CUresult::CUDA_SUCCESS);
        std::thread::sleep(std::time::Duration::from_millis(5));
        assert_eq!(sys::cuEventRecord(end, gpu.stream), CUresult::CUDA_SUCCESS);
        assert_eq!(sys::cuEventSynchronize(end), CUresult::CUDA_SUCCESS);
        let mut milliseconds = 0f32;
        assert_eq!(sys::cuEventElapsedTime_v2(&mut milliseconds, start, end), CUresult::CUDA_SUCCESS);
        assert!(milliseconds >= 5.0, "{milliseconds}");
        assert_eq!(sys::cuEventQuery(end), CUresult::CUDA_SUCCESS);
        assert_eq!(sys::cuEventDestroy_v2(start), CUresult::CUDA_SUCCESS);
        assert_eq!(sys::cuEventDestroy_v2(start), CUresult::CUDA_ERROR_INVALID_HANDLE);
    }
}

#[test]
fn waiting_for_a_captured_stream_invalidates_the_capture() {
    let Some(gpu) = Gpu::new() else { return };
    let address = gpu.allocate(64);
    let mut host = [0u8; 64];
    unsafe {
        let mut graph = ptr::null_mut();
        gpu.begin_capture();
        let refused = sys::cuStreamSynchronize(gpu.stream);
        assert_eq!(refused, CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
        let late = sys::cuMemsetD8Async(address, 0, 64, gpu.stream);
        assert_eq!(late, CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
        let spoilt = sys::cuStreamEndCapture(gpu.stream, &mut graph);
        assert_eq!(spoilt, CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);

        gpu.begin_capture();
        let refused = sys::cuMemcpyDtoH_v2(host.as_mut_ptr().cast(), address, 64);
        assert_eq!(refused, CUresult::CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
        let spoilt = sys::cuStreamEndCapture(gpu.stream, &mut graph);
        assert_eq!(spoilt, CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
        assert!(graph.is_null());

        // Allocation is allowed in a relaxed capture, but work outside a capture must not be waited for in
        // it.
        let mut event = ptr::null_mut();
        assert_eq!(sys::cuEventCreate(&mut event, 0), CUresult::CUDA_SUCCESS);
        assert_eq!(sys::cuEventRecord(event, gpu.stream), CUresult::CUDA_SUCCESS);
        gpu.begin_capture();
        gpu.allocate(64);
        let outside = sys::cuStreamWaitEvent(gpu.stream, event, 0);
        assert_eq!(outside, CUresult::CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
        let _ = sys::cuStreamEndCapture(gpu.stream, &mut graph);
    }
}

#[test]
fn another_stream_joins_a_capture_and_must_be_joined_back() {
    let Some(gpu) = Gpu::new() else { return };
    let side = Gpu::new().unwrap();
    let address = gpu.upload(&[0u32; 2]);
    unsafe {
        let mut graph = ptr::null_mut();
        let (mut fork, mut join) = (ptr::null_mut(), ptr::null_mut());
        let _ = (sys::cuEventCreate(&mut fork, 2), sys::cuEventCreate(&mut join, 2));
        for comes_back in [false, true] {
            gpu.begin_capture();
            assert_eq!(sys::cuEventRecord(fork, gpu.stream), CUresult::CUDA_SUCCESS);
            assert_eq!(sys::cuStreamWaitEvent(side.stream, fork, 0), CUresult::CUDA_SUCCESS);
            assert_eq!(sys::cuMemsetD32Async(address, 5, 1, side.stream), CUresult::CUDA_SUCCESS);
            if comes_back {
                assert_eq!(sys::cuEventRecord(join, side.stream), CUresult::CUDA_SUCCESS);
                assert_eq!(sys::cuStreamWaitEvent(gpu.stream, join, 0), CUresult::CUDA_SUCCESS);
            }
            let ended = sys::cuStreamEndCapture(gpu.stream, &mut graph);
            let expected = if comes_back {
                CUresult::CUDA_SUCCESS
            } else {
                CUresult::CUDA_ERROR_STREAM_CAPTURE_UNJOINED
            };
            assert_eq!(ended, expected);
        }
        assert_eq!(gpu.download::<u32>(address, 2), [0, 0]);
        gpu.replay(graph);
        assert_eq!(gpu.download::<u32>(address, 2), [5, 0]);
    }
}

/// Runs one of the tests below, which end their process, in a separate process.
fn alone(test: &str, variables: &[(&str, &str)]) -> Output {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env_remove("CUDA_EMULATOR_LAZY")
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn settings_change_the_device() {
    if Gpu::new().is_none() {
        return;
    }
    let lost = alone("child_loses_the_gpu", &[("CUDA_EMULATOR_FAIL_LAUNCH", "3")]);
    assert!(lost.status.success(), "{}", text(&lost));
    let absent = alone("child_has_no_gpu", &[("CUDA_EMULATOR_DEVICES", "0")]);
    assert!(absent.status.success(), "{}", text(&absent));
    let two = alone("child_has_two_gpus", &[("CUDA_EMULATOR_DEVICES", "2")]);
    assert!(two.status.success(), "{}", text(&two));
    let settings = [("CUDA_EMULATOR_MEMORY", "1000000"), ("CUDA_EMULATOR_DRIVER_VERSION", "12000")];
    let small = alone("child_has_a_small_gpu", &settings);
    assert!(small.status.success(), "{}", text(&small));
    let settings = [("CUDA_EMULATOR_LAZY", "1"), ("CUDA_EMULATOR_FAIL_LAUNCH", "2")];
    let lazy = alone("child_has_a_lazy_gpu", &settings);
    assert!(lazy.status.success(), "{}", text(&lazy));
}

#[test]
fn errors_in_kernels_are_reported() {
    if Gpu::new().is_none() {
        return;
    }
    for (kernel, message) in [
        ("hang", "kernel hang hangs"),
        ("apart", "in the barriers of line"),
        ("overrun", "overrun touched memory"),
        ("spill", "kernel spill wrote behind its dynamic shared memory"),
        ("divide", "divide divided an integer by zero"),
    ] {
        let output = alone("child_makes_a_mistake", &[("CUDA_EMULATOR_TEST_KERNEL", kernel)]);
        assert!(!output.status.success());
        assert!(text(&output).contains(message), "{kernel}: {}", text(&output));
    }
    // A missing barrier shows in one of the orders.
    let values: Vec<String> = ["forward", "reverse"]
        .map(|order| text(&alone("child_forgets_a_barrier", &[("CUDA_EMULATOR_ORDER", order)])))
        .into();
    assert!(values[0].contains("value: 1\n") && values[1].contains("value: NaN\n"), "{values:?}");
}

#[test]
#[ignore = "runs in a separate process"]
fn child_loses_the_gpu() {
    let gpu = Gpu::new().unwrap();
    let kernels = gpu.load("extern \"C\" __global__ void nothing() {}", &[]);
    let nothing = gpu.function(kernels, "nothing");
    let address = gpu.allocate(16);
    for _ in 0..2 {
        gpu.launch(nothing, (1, 1, 1), (1, 1, 1), 0, &mut []).unwrap();
    }
    let lost = Err(CUresult::CUDA_ERROR_LAUNCH_FAILED);
    assert_eq!(gpu.launch(nothing, (1, 1, 1), (1, 1, 1), 0, &mut []), lost);
    assert_eq!(gpu.launch(nothing, (1, 1, 1), (1, 1, 1), 0, &mut []), lost);
    assert_eq!(unsafe { sys::cuStreamSynchronize(gpu.stream) }.result().map_err(|e| e.0), lost);
    assert_eq!(unsafe { sys::cuMemFree_v2(address) }.result().map_err(|e| e.0), lost);
}

#[test]
#[ignore = "runs in a separate process"]
fn child_has_no_gpu() {
    common::load_libraries().unwrap();
    assert_eq!(unsafe { sys::cuInit(0) }, CUresult::CUDA_ERROR_NO_DEVICE);
}

#[test]
#[ignore = "runs in a separate process"]
fn child_has_two_gpus() {
    let gpu = Gpu::new().unwrap();
    let (mut count, mut device) = (0, 0);
    unsafe {
        assert_eq!(sys::cuDeviceGetCount(&mut count), CUresult::CUDA_SUCCESS);
        assert_eq!(sys::cuDeviceGet(&mut device, 2), CUresult::CUDA_ERROR_INVALID_DEVICE);
    }
    assert_eq!(count, 2);
    let second = cudarc::driver::CudaContext::new(1).unwrap();
    second.bind_to_thread().unwrap();
    unsafe { assert_eq!(sys::cuCtxGetDevice(&mut device), CUresult::CUDA_SUCCESS) };
    assert_eq!(device, 1);
    gpu.context.bind_to_thread().unwrap();
    unsafe { assert_eq!(sys::cuCtxGetDevice(&mut device), CUresult::CUDA_SUCCESS) };
    assert_eq!(device, 0);
}

#[test]
#[ignore = "runs in a separate process"]
fn child_has_a_small_gpu() {
    let gpu = Gpu::new().unwrap();
    let mut version = 0;
    let _ = unsafe { sys::cuDriverGetVersion(&mut version) };
    assert_eq!(version, 12000);
    let address = gpu.allocate(600_000);
    let (mut free, mut total, mut other) = (0, 0, 0);
    unsafe {
        assert_eq!(sys::cuMemAlloc_v2(&mut other, 600_000), CUresult::CUDA_ERROR_OUT_OF_MEMORY);
        let _ = sys::cuMemGetInfo_v2(&mut free, &mut total);
        assert!(total == 1_000_000 && free <= 400_000 && free > 399_000, "{free} of {total}");
        assert_eq!(sys::cuMemFree_v2(address), CUresult::CUDA_SUCCESS);
        let _ = sys::cuMemGetInfo_v2(&mut free, &mut total);
        assert_eq!(free, 1_000_000);
    }
}

#[test]
#[ignore = "runs in a separate process"]
fn child_has_a_lazy_gpu() {
    let gpu = Gpu::new().unwrap();
    let other = Gpu::new().unwrap();
    let source = r#"extern "C" __global__ void copy(float* to, const float* from) { *to = *from; }"#;
    let copy = gpu.function(gpu.load(source, &[]), "copy");
    let (mut from, mut to) = (gpu.allocate(4), gpu.allocate(4));
    let finish = |stream| unsafe { sys::cuStreamSynchronize(stream) };
    unsafe {
        // Pinned memory is read when the copy executes, pageable memory within the call.
        let mut pinned: *mut f32 = ptr::null_mut();
        common::success(sys::cuMemHostAlloc((&raw mut pinned).cast(), 8, 0));
        let mut pageable = 1f32;
        *pinned = 1.0;
        common::success(sys::cuMemcpyHtoDAsync_v2(from, pinned.cast(), 4, gpu.stream));
        common::success(sys::cuMemcpyHtoDAsync_v2(to, (&raw const pageable).cast(), 4, gpu.stream));
        (*pinned, pageable) = (2.0, 2.0);
        assert_eq!(sys::cuStreamQuery(gpu.stream), CUresult::CUDA_ERROR_NOT_READY);
        common::success(finish(gpu.stream));
        assert_eq!(gpu.download::<f32>(from, 1), [2.0]);
        assert_eq!(gpu.download::<f32>(to, 1), [1.0]);
        assert_eq!(pageable, 2.0);

        // A stream sees the results of another one only if it waits for an event.
        let mut event = ptr::null_mut();
        common::success(sys::cuEventCreate(&mut event, 2));
        for (waits, expected) in [(false, 0.0), (true, 5.0)] {
            common::success(sys::cuMemsetD8Async(from, 0, 4, gpu.stream));
            common::success(finish(gpu.stream));
            common::success(sys::cuMemsetD32Async(from, 5f32.to_bits(), 1, gpu.stream));
            common::success(sys::cuEventRecord(event, gpu.stream));
            if waits {
                common::success(sys::cuStreamWaitEvent(other.stream, event, 0));
            }
            common::success(sys::cuMemcpyDtoDAsync_v2(to, from, 4, other.stream));
            common::success(finish(other.stream));
            assert_eq!(other.download::<f32>(to, 1), [expected]);
        }
        // The second kernel fails, which every wait reports.
        for _ in 0..2 {
            let mut arguments = [argument(&mut to), argument(&mut from)];
            gpu.launch(copy, (1, 1, 1), (1, 1, 1), 0, &mut arguments).unwrap();
        }
        assert_eq!(finish(gpu.stream), CUresult::CUDA_ERROR_LAUNCH_FAILED);
    }
}

#[test]
#[ignore = "runs in a separate process"]
fn child_makes_a_mistake() {
    let gpu = Gpu::new().unwrap();
    let kernels = gpu.load(
        r#"
        extern "C" __global__ void hang(float* x) {
            if (threadIdx.x == 0) __syncwarp(3);
            else __syncwarp(0xffffffff);
        }
        extern "C" __global__ void apart(float* x) {
            if (threadIdx.x < 32)
                __syncthreads();
            else
                __syncthreads();
        }
        extern "C" __global__ void overrun(float* x) { x[threadIdx.x + 64] = 1.0f; }
        extern "C" __global__ void spill(float* x) {
            extern __shared__ float values[];
            values[threadIdx.x] = 1.0f;
        }
        extern "C" __global__ void divide(float* x) { x[0] = float(100 / int(threadIdx.x)); }
        "#,
        &[],
    );
    let mut x = gpu.allocate(256);
    let name = env::var("CUDA_EMULATOR_TEST_KERNEL").unwrap();
    let _ = gpu.launch(gpu.function(kernels, &name), (1, 1, 1), (64, 1, 1), 128, &mut [argument(&mut x)]);
}

#[test]
#[ignore = "runs in a separate process"]
fn child_forgets_a_barrier() {
    let gpu = Gpu::new().unwrap();
    let source = r#"
        extern "C" __global__ void forget(float* x) {
            extern __shared__ float values[];
            if (threadIdx.x == 0) values[0] = 1.0f;
            if (threadIdx.x == 1) *x = values[0];
        }
    "#;
    let mut x = gpu.allocate(4);
    let forget = gpu.function(gpu.load(source, &[]), "forget");
    gpu.launch(forget, (1, 1, 1), (2, 1, 1), 4, &mut [argument(&mut x)]).unwrap();
    println!("value: {}", gpu.download::<f32>(x, 1)[0]);
}
