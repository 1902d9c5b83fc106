//! A thin layer over the bindings, for tests.
#![allow(dead_code)]

use std::ffi::{CString, c_void};
use std::mem;
use std::ptr;
use std::sync::{Arc, OnceLock};

use cudarc::driver::CudaContext;
use cudarc::driver::sys::{self, CUresult};
use cudarc::nvrtc::sys as nvrtc;

/// Loads the emulated libraries for the bindings; `None` if they are unavailable.
pub fn load_libraries() -> Option<()> {
    static LOADED: OnceLock<Option<()>> = OnceLock::new();
    *LOADED.get_or_init(|| {
        let folder = cuda_emulator::libraries()?;
        for name in cuda_emulator::NAMES {
            // They stay loaded until the process exits.
            mem::forget(unsafe { libloading::Library::new(folder.join(name)) }.unwrap());
        }
        Some(())
    })
}

pub struct Gpu {
    pub context: Arc<CudaContext>,
    pub stream: sys::CUstream,
}

impl Gpu {
    pub fn new() -> Option<Gpu> {
        load_libraries()?;
        // The context is shared by all tests and never destroyed: its end would free all memory.
        static CONTEXT: OnceLock<Arc<CudaContext>> = OnceLock::new();
        let context = CONTEXT.get_or_init(|| CudaContext::new(0).unwrap()).clone();
        context.bind_to_thread().unwrap();
        let mut stream = ptr::null_mut();
        let non_blocking = 1;
        success(unsafe { sys::cuStreamCreate(&mut stream, non_blocking) });
        Some(Gpu { context, stream })
    }

    pub fn load(&self, source: &str, options: &[&str]) -> sys::CUmodule {
        let cubin = compile(source, options).unwrap_or_else(|(_, log)| panic!("{log}"));
        self.load_cubin(&cubin).unwrap()
    }

    pub fn load_cubin(&self, cubin: &[u8]) -> Result<sys::CUmodule, CUresult> {
        let mut module = ptr::null_mut();
        match unsafe { sys::cuModuleLoadData(&mut module, cubin.as_ptr().cast()) } {
            CUresult::CUDA_SUCCESS => Ok(module),
            error => Err(error),
        }
    }

    pub fn function(&self, module: sys::CUmodule, name: &str) -> sys::CUfunction {
        let name = CString::new(name).unwrap();
        let mut function = ptr::null_mut();
        success(unsafe { sys::cuModuleGetFunction(&mut function, module, name.as_ptr()) });
        function
    }

    pub fn launch(
        &self,
        function: sys::CUfunction,
        grid: (u32, u32, u32),
        block: (u32, u32, u32),
        shared: u32,
        arguments: &mut [*mut c_void],
    ) -> Result<(), CUresult> {
        let result = unsafe {
            let (values, extra) = (arguments.as_mut_ptr(), ptr::null_mut());
            sys::cuLaunchKernel(
                function,
                grid.0,
                grid.1,
                grid.2,
                block.0,
                block.1,
                block.2,
                shared,
                self.stream,
                values,
                extra,
            )
        };
        result.result().map_err(|error| error.0)
    }

    pub fn allocate(&self, bytes: usize) -> sys::CUdeviceptr {
        let mut address = 0;
        success(unsafe { sys::cuMemAlloc_v2(&mut address, bytes) });
        address
    }

    pub fn upload<T: Copy>(&self, values: &[T]) -> sys::CUdeviceptr {
        let bytes = mem::size_of_val(values);
        let address = self.allocate(bytes);
        success(unsafe { sys::cuMemcpyHtoDAsync_v2(address, values.as_ptr().cast(), bytes, self.stream) });
        address
    }

    pub fn download<T: Copy + Default>(&self, address: sys::CUdeviceptr, count: usize) -> Vec<T> {
        let mut values = vec![T::default(); count];
        let bytes = mem::size_of_val(&values[..]);
        unsafe {
            success(sys::cuMemcpyDtoHAsync_v2(values.as_mut_ptr().cast(), address, bytes, self.stream));
            success(sys::cuStreamSynchronize(self.stream));
        }
        values
    }

    pub fn begin_capture(&self) {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        success(unsafe { sys::cuStreamBeginCapture_v2(self.stream, mode) });
    }

    pub fn end_capture(&self) -> sys::CUgraph {
        let mut graph = ptr::null_mut();
        success(unsafe { sys::cuStreamEndCapture(self.stream, &mut graph) });
        graph
    }

    /// Instantiates a graph and runs it once.
    pub fn replay(&self, graph: sys::CUgraph) {
        let mut executable = ptr::null_mut();
        unsafe {
            success(sys::cuGraphInstantiateWithFlags(&mut executable, graph, 0));
            success(sys::cuGraphLaunch(executable, self.stream));
            success(sys::cuStreamSynchronize(self.stream));
            success(sys::cuGraphExecDestroy(executable));
        }
    }
}

#[track_caller]
pub fn success(result: CUresult) {
    assert_eq!(result, CUresult::CUDA_SUCCESS);
}

pub fn argument<T>(value: &mut T) -> *mut c_void {
    ptr::from_mut(value).cast()
}

/// Returns the cubin, or the result code and the log.
pub fn compile(source: &str, options: &[&str]) -> Result<Vec<u8>, (nvrtc::nvrtcResult, String)> {
    compile_with_headers(source, &[], options).map(|(cubin, _)| cubin)
}

/// Returns the cubin and the PTX of a program with these headers (name, text), or the result code and the
/// log.
pub fn compile_with_headers(
    source: &str,
    headers: &[(&str, &str)],
    options: &[&str],
) -> Result<(Vec<u8>, Vec<u8>), (nvrtc::nvrtcResult, String)> {
    let source = CString::new(source).unwrap();
    let names: Vec<CString> = headers.iter().map(|(name, _)| CString::new(*name).unwrap()).collect();
    let texts: Vec<CString> = headers.iter().map(|(_, text)| CString::new(*text).unwrap()).collect();
    let name_pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    let text_pointers: Vec<_> = texts.iter().map(|text| text.as_ptr()).collect();
    let options: Vec<CString> = options.iter().map(|option| CString::new(*option).unwrap()).collect();
    let pointers: Vec<_> = options.iter().map(|option| option.as_ptr()).collect();
    let ok = nvrtc::nvrtcResult::NVRTC_SUCCESS;
    unsafe {
        let mut program = ptr::null_mut();
        let name = c"program.cu".as_ptr();
        let created = nvrtc::nvrtcCreateProgram(
            &mut program,
            source.as_ptr(),
            name,
            headers.len() as i32,
            text_pointers.as_ptr(),
            name_pointers.as_ptr(),
        );
        assert_eq!(created, ok);
        let compiled = nvrtc::nvrtcCompileProgram(program, pointers.len() as i32, pointers.as_ptr());
        let mut size = 0;
        let result = if compiled == ok {
            assert_eq!(nvrtc::nvrtcGetCUBINSize(program, &mut size), ok);
            let mut cubin = vec![0u8; size];
            assert_eq!(nvrtc::nvrtcGetCUBIN(program, cubin.as_mut_ptr().cast()), ok);
            assert_eq!(nvrtc::nvrtcGetPTXSize(program, &mut size), ok);
            let mut ptx = vec![0u8; size];
            assert_eq!(nvrtc::nvrtcGetPTX(program, ptx.as_mut_ptr().cast()), ok);
            Ok((cubin, ptx))
        } else {
            assert_eq!(nvrtc::nvrtcGetProgramLogSize(program, &mut size), ok);
            let mut log = vec![0u8; size];
            assert_eq!(nvrtc::nvrtcGetProgramLog(program, log.as_mut_ptr().cast()), ok);
            assert_eq!(log.pop(), Some(0));
            Err((compiled, String::from_utf8(log).unwrap()))
        };
        assert_eq!(nvrtc::nvrtcDestroyProgram(&mut program), ok);
        result
    }
}

/// Numbers between -1 and 1 for matrices.
pub struct Lcg(u64);

impl Lcg {
    pub fn new(seed: u64) -> Lcg {
        Lcg(seed)
    }

    pub fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub fn vector(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.next()).collect()
    }
}
