//! Safe wrapper of CUDA's driver: a device's context, streams, events, kernels, graphs.
//!
//! Every call checks its result. Calls that wait also report errors of previously queued work.

use std::ffi::{CStr, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytemuck::NoUninit;
use cudarc::driver::sys::{self, CUresult};

use crate::device::DeviceError;

/// The oldest driver that supports all features in use: that of CUDA 12.0.
const OLDEST_DRIVER: i32 = 12000;

/// A GPU and its primary context.
pub struct Context {
    /// Name for reports: the name given by the user, and the GPU's own.
    pub name: String,
    /// The newest CUDA version that the driver supports, 13000 for 13.0.
    pub driver: i32,
    /// Compute capability, 90 for 9.0.
    pub capability: i32,
    /// Streaming multiprocessors.
    pub multiprocessors: usize,
    device: sys::CUdevice,
    raw: sys::CUcontext,
    memory: Mutex<Allocated>,
}

/// Allocated bytes: current and peak.
#[derive(Clone, Copy, Default)]
struct Allocated {
    now: usize,
    peak: usize,
}

// SAFETY: handles of the driver may be used from any thread.
#[allow(unsafe_code)]
unsafe impl Send for Context {}
#[allow(unsafe_code)]
unsafe impl Sync for Context {}

fn words(pointer: *const std::ffi::c_char) -> String {
    if pointer.is_null() {
        return "unknown error".into();
    }
    // SAFETY: the driver returns static, terminated strings, and null was excluded.
    #[allow(unsafe_code)]
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

/// The driver's description of a result.
fn explain(result: CUresult) -> String {
    let (mut name, mut text) = (std::ptr::null(), std::ptr::null());
    // SAFETY: both pointers are to variables of the right type.
    #[allow(unsafe_code)]
    unsafe {
        let _ = sys::cuGetErrorName(result, &mut name);
        let _ = sys::cuGetErrorString(result, &mut text);
    }
    format!("{} ({})", words(text), words(name))
}

/// Converts a failed result to an error of this device.
fn failure(device: &str, result: CUresult, what: &str) -> Result<(), DeviceError> {
    let device = device.to_owned();
    match result {
        CUresult::CUDA_SUCCESS => Ok(()),
        CUresult::CUDA_ERROR_NO_DEVICE => {
            Err(DeviceError::Absent { device, reason: "this machine has no NVIDIA GPU".into() })
        }
        result => Err(DeviceError::Unavailable { device, reason: format!("{what}: {}", explain(result)) }),
    }
}

/// Initialises the driver; returns the number of GPUs and the driver's version. `device` is named in errors.
#[allow(unsafe_code)]
pub fn start(device: &str) -> Result<(usize, i32), DeviceError> {
    let check = |result, what| failure(device, result, what);
    let mut version = 0;
    // SAFETY: here and below, out-pointers are to live variables of the types that the driver expects.
    let result = unsafe { sys::cuDriverGetVersion(&mut version) };
    check(result, "asking for the driver's version")?;
    if version < OLDEST_DRIVER {
        let of = |version: i32| format!("{}.{}", version / 1000, version % 1000 / 10);
        let reason = format!(
            "the NVIDIA driver is too old: it supports CUDA {}, and {} or newer is needed",
            of(version),
            of(OLDEST_DRIVER)
        );
        return Err(DeviceError::Unavailable { device: device.to_owned(), reason });
    }
    check(unsafe { sys::cuInit(0) }, "starting the driver")?;
    let mut count = 0;
    check(unsafe { sys::cuDeviceGetCount(&mut count) }, "counting GPUs")?;
    Ok((count as usize, version))
}

impl Context {
    /// The GPU with this number.
    #[allow(unsafe_code)]
    pub fn open(index: usize) -> Result<Self, DeviceError> {
        let device_name = format!("cuda:{index}");
        let absent = |reason: String| DeviceError::Absent { device: device_name.clone(), reason };
        let check = |result: CUresult, what: &str| failure(&device_name, result, what);
        let (count, version) = start(&device_name)?;
        if index >= count {
            return Err(absent(match count {
                0 => "this machine has no NVIDIA GPU".into(),
                1 => "this machine has one GPU, cuda:0".into(),
                _ => format!("this machine has GPUs cuda:0 to cuda:{}", count - 1),
            }));
        }
        let mut device = 0;
        // SAFETY: here and below, out-pointers are to live variables of the types that the driver expects.
        check(unsafe { sys::cuDeviceGet(&mut device, index as i32) }, "opening the GPU")?;
        let mut name = [0; 128];
        let result = unsafe { sys::cuDeviceGetName(name.as_mut_ptr(), name.len() as i32, device) };
        check(result, "querying the GPU's name")?;
        let attribute = |attribute| {
            let mut value = 0;
            check(
                unsafe { sys::cuDeviceGetAttribute(&mut value, attribute, device) },
                "querying the GPU's properties",
            )?;
            Ok::<i32, DeviceError>(value)
        };
        use sys::CUdevice_attribute_enum as Attribute;
        let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        let multiprocessors = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        let mut raw = std::ptr::null_mut();
        check(unsafe { sys::cuDevicePrimaryCtxRetain(&mut raw, device) }, "opening the GPU")?;
        Ok(Self {
            name: format!("{device_name} ({})", words(name.as_ptr())),
            driver: version,
            capability: 10 * major + minor,
            multiprocessors: multiprocessors as usize,
            device,
            raw,
            memory: Mutex::default(),
        })
    }

    /// An error for a result other than success.
    pub fn check(&self, result: CUresult, what: &str) -> Result<(), DeviceError> {
        match result {
            CUresult::CUDA_SUCCESS => Ok(()),
            result => Err(DeviceError::Failed {
                device: self.name.clone(),
                reason: format!("{what}: {}", explain(result)),
            }),
        }
    }

    /// Makes this context current on the calling thread, which every other call requires.
    #[allow(unsafe_code)]
    pub fn enter(&self) -> Result<(), DeviceError> {
        // SAFETY: the context is retained until `self` is dropped.
        self.check(unsafe { sys::cuCtxSetCurrent(self.raw) }, "entering the GPU's context")
    }

    /// Descriptor with which the copy hardware addresses tiles of a contiguous bf16 matrix `[rows, columns]`,
    /// whose columns are a multiple of 8: `tile` is their shape, with rows of up to 128 bytes; in shared
    /// memory they are swizzled by that size.
    #[allow(unsafe_code)]
    pub fn tensor_map(
        &self,
        address: u64,
        [rows, columns]: [usize; 2],
        tile: [usize; 2],
    ) -> Result<[u64; 16], DeviceError> {
        let mut map = sys::CUtensorMap { opaque: [0; 16] };
        let (sizes, row_bytes) = ([columns as u64, rows as u64], [2 * columns as u64]);
        let (tile, steps) = ([tile[1] as u32, tile[0] as u32], [1, 1]);
        // SAFETY: the out-pointer is to a live variable, and arrays have one element per dimension: two, of
        // which the first has no stride. The call only computes; it does not access the matrix.
        let result = unsafe {
            sys::cuTensorMapEncodeTiled(
                &mut map,
                sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                2,
                address as *mut c_void,
                sizes.as_ptr(),
                row_bytes.as_ptr(),
                tile.as_ptr(),
                steps.as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        self.check(result, "describing a matrix")?;
        Ok(map.opaque)
    }

    /// Free and total bytes of memory.
    #[allow(unsafe_code)]
    pub fn memory(&self) -> Result<(usize, usize), DeviceError> {
        self.enter()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: both out-pointers are to live variables.
        self.check(unsafe { sys::cuMemGetInfo_v2(&mut free, &mut total) }, "querying free memory")?;
        Ok((free, total))
    }

    fn allocated(&self) -> MutexGuard<'_, Allocated> {
        self.memory.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Peak number of allocated bytes.
    pub fn peak(&self) -> usize {
        self.allocated().peak
    }

    /// Allocates GPU memory; `None` if too little is available.
    #[allow(unsafe_code)]
    pub fn allocate(&self, bytes: usize) -> Result<Option<u64>, DeviceError> {
        self.enter()?;
        let mut address = 0;
        // SAFETY: the out-pointer is to a live variable.
        match unsafe { sys::cuMemAlloc_v2(&mut address, bytes) } {
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => return Ok(None),
            result => self.check(result, "allocating memory")?,
        }
        let mut allocated = self.allocated();
        allocated.now += bytes;
        allocated.peak = allocated.peak.max(allocated.now);
        Ok(Some(address))
    }

    /// Frees memory from [`allocate`](Self::allocate). The driver waits for all work that might use it.
    #[allow(unsafe_code)]
    pub fn free(&self, address: u64, bytes: usize) {
        self.allocated().now -= bytes;
        if self.enter().is_ok() {
            // SAFETY: the address is from `allocate`, and its owner gives it up. Calls that wait for results
            // report any error.
            let _ = unsafe { sys::cuMemFree_v2(address) };
        }
    }
}

impl Drop for Context {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: retained once in `open`; everything created in the context holds an `Arc` of it and has
        // been dropped.
        let _ = unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.device) };
    }
}

/// A queue of work on a GPU.
pub struct Stream {
    pub context: Arc<Context>,
    pub raw: sys::CUstream,
    /// True if work is being captured.
    recording: AtomicBool,
}

// SAFETY: handles of the driver may be used from any thread.
#[allow(unsafe_code)]
unsafe impl Send for Stream {}
#[allow(unsafe_code)]
unsafe impl Sync for Stream {}

impl Stream {
    #[allow(unsafe_code)]
    pub fn new(context: &Arc<Context>) -> Result<Self, DeviceError> {
        context.enter()?;
        let mut raw = std::ptr::null_mut();
        // Not synchronised with the default stream, which is unused.
        let flags = sys::CUstream_flags_enum::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: the out-pointer is to a live variable.
        context.check(unsafe { sys::cuStreamCreate(&mut raw, flags) }, "creating a stream")?;
        Ok(Self { context: Arc::clone(context), raw, recording: AtomicBool::new(false) })
    }

    /// Makes all work queued from now on wait for the event.
    #[allow(unsafe_code)]
    pub fn wait(&self, event: &Event) -> Result<(), DeviceError> {
        self.context.enter()?;
        // SAFETY: both handles are live.
        self.context.check(unsafe { sys::cuStreamWaitEvent(self.raw, event.raw, 0) }, "waiting for a stream")
    }

    /// Waits until all queued work has finished.
    #[allow(unsafe_code)]
    pub fn synchronize(&self) -> Result<(), DeviceError> {
        self.context.enter()?;
        // SAFETY: the stream lives as long as `self`.
        self.context.check(unsafe { sys::cuStreamSynchronize(self.raw) }, "waiting for the GPU")
    }

    /// Whether everything queued is done.
    #[allow(unsafe_code)]
    pub fn is_done(&self) -> Result<bool, DeviceError> {
        self.context.enter()?;
        // SAFETY: the stream lives as long as `self`.
        match unsafe { sys::cuStreamQuery(self.raw) } {
            CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            result => self.context.check(result, "asking for the GPU's progress").map(|()| true),
        }
    }

    /// Fails while work is recorded: the record would read the program's memory whenever it is repeated, long after that holds
    /// something else.
    fn not_recording(&self) -> Result<(), DeviceError> {
        if !self.recording.load(Ordering::Relaxed) {
            return Ok(());
        }
        let reason = "copies from the program's memory cannot be recorded; upload before recording".into();
        Err(DeviceError::Failed { device: self.context.name.clone(), reason })
    }

    /// Copies to the GPU. `from` has been read when this returns.
    #[allow(unsafe_code)]
    pub fn write<T: NoUninit>(&self, from: &[T], to: u64) -> Result<(), DeviceError> {
        if from.is_empty() {
            return Ok(());
        }
        self.not_recording()?;
        self.context.enter()?;
        let bytes = std::mem::size_of_val(from);
        // SAFETY: `from` holds this number of bytes, which the driver reads before it returns, because
        // nothing is captured and the memory is not pinned; callers pass an address with room for them
        // (`lengths.rs`).
        let result = unsafe { sys::cuMemcpyHtoDAsync_v2(to, from.as_ptr().cast(), bytes, self.raw) };
        self.context.check(result, "copying to the GPU")
    }

    /// Copies from the GPU after all queued work.
    #[allow(unsafe_code)]
    pub fn read<T: bytemuck::Pod>(&self, from: u64, to: &mut [T]) -> Result<(), DeviceError> {
        if !to.is_empty() {
            self.context.enter()?;
            let bytes = std::mem::size_of_val(to);
            // SAFETY: `to` has room for this number of bytes and lives until the wait below has finished, and
            // any bytes are a valid `T`.
            let result = unsafe { sys::cuMemcpyDtoHAsync_v2(to.as_mut_ptr().cast(), from, bytes, self.raw) };
            self.context.check(result, "copying from the GPU")?;
        }
        self.synchronize()
    }

    /// Copies within the GPU.
    #[allow(unsafe_code)]
    pub fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), DeviceError> {
        if bytes == 0 {
            return Ok(());
        }
        self.context.enter()?;
        // SAFETY: callers pass addresses with this number of bytes each (`lengths.rs`).
        let result = unsafe { sys::cuMemcpyDtoDAsync_v2(to, from, bytes, self.raw) };
        self.context.check(result, "copying on the GPU")
    }

    /// Zeroes memory.
    #[allow(unsafe_code)]
    pub fn clear(&self, address: u64, bytes: usize) -> Result<(), DeviceError> {
        if bytes == 0 {
            return Ok(());
        }
        self.context.enter()?;
        // SAFETY: callers pass an address with this number of bytes (`lengths.rs`).
        let result = unsafe { sys::cuMemsetD8Async(address, 0, bytes, self.raw) };
        self.context.check(result, "clearing memory")
    }

    /// Launches a kernel.
    #[allow(unsafe_code)]
    pub fn launch(
        &self,
        kernel: Kernel,
        shape: Launch,
        arguments: &[Argument<'_>],
    ) -> Result<(), DeviceError> {
        if shape.grid.contains(&0) {
            return Ok(());
        }
        self.context.enter()?;
        let mut pointers: Vec<*mut c_void> =
            arguments.iter().map(|argument| argument.bytes().as_ptr().cast_mut().cast()).collect();
        let [x, y, z] = shape.grid;
        // SAFETY: the driver copies the bytes of each argument according to the kernel's parameter; an
        // `Argument` holds at least the bytes of a value of its type. The tests of every operation check that
        // kinds and number of arguments match the kernel.
        let result = unsafe {
            sys::cuLaunchKernel(
                kernel.raw,
                x,
                y,
                z,
                shape.block,
                1,
                1,
                shape.shared,
                self.raw,
                pointers.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        self.context.check(result, kernel.name)
    }

    /// Captures the work that `work` queues, without executing it.
    #[allow(unsafe_code)]
    pub fn record<T>(&self, work: impl FnOnce() -> T) -> Result<(T, Graph), DeviceError> {
        self.context.enter()?;
        // Allocating during a capture is harmless, because memory comes from a pool that outlives the graph.
        let mode = sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: here and below, the handles are live and out-pointers are to live variables.
        self.context.check(unsafe { sys::cuStreamBeginCapture_v2(self.raw, mode) }, "starting a capture")?;
        self.recording.store(true, Ordering::Relaxed);
        let result = work();
        self.recording.store(false, Ordering::Relaxed);
        self.context.enter()?;
        let (mut graph, mut ready) = (std::ptr::null_mut(), std::ptr::null_mut());
        self.context.check(unsafe { sys::cuStreamEndCapture(self.raw, &mut graph) }, "ending a capture")?;
        let instantiated = unsafe { sys::cuGraphInstantiateWithFlags(&mut ready, graph, 0) };
        let _ = unsafe { sys::cuGraphDestroy(graph) };
        self.context.check(instantiated, "instantiating a graph")?;
        Ok((result, Graph { context: Arc::clone(&self.context), raw: ready }))
    }

    /// Queues a captured graph.
    #[allow(unsafe_code)]
    pub fn replay(&self, graph: &Graph) -> Result<(), DeviceError> {
        self.context.enter()?;
        // SAFETY: both handles are live.
        self.context.check(unsafe { sys::cuGraphLaunch(graph.raw, self.raw) }, "launching a graph")
    }
}

impl Drop for Stream {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        if self.context.enter().is_ok() {
            // SAFETY: created in `new` and owned by this value alone. Work still queued continues.
            let _ = unsafe { sys::cuStreamDestroy_v2(self.raw) };
        }
    }
}

/// A captured graph, ready to be replayed.
pub struct Graph {
    context: Arc<Context>,
    raw: sys::CUgraphExec,
}

// SAFETY: handles of the driver may be used from any thread.
#[allow(unsafe_code)]
unsafe impl Send for Graph {}
#[allow(unsafe_code)]
unsafe impl Sync for Graph {}

impl Drop for Graph {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        if self.context.enter().is_ok() {
            // SAFETY: created in `record` and owned by this value alone.
            let _ = unsafe { sys::cuGraphExecDestroy(self.raw) };
        }
    }
}

/// A kernel of the loaded module. Modules are never unloaded while their context lives.
#[derive(Clone, Copy)]
pub struct Kernel {
    name: &'static str,
    raw: sys::CUfunction,
}

// SAFETY: handles of the driver may be used from any thread.
#[allow(unsafe_code)]
unsafe impl Send for Kernel {}
#[allow(unsafe_code)]
unsafe impl Sync for Kernel {}

/// Grid of blocks, threads per block, and bytes of shared memory per block.
#[derive(Clone, Copy, Debug)]
pub struct Launch {
    pub grid: [u32; 3],
    pub block: u32,
    pub shared: u32,
}

/// Default number of threads per block.
pub const BLOCK: usize = 256;

impl Launch {
    /// One thread for each of `count` elements.
    pub fn of(count: usize) -> Self {
        Self::blocks(count.div_ceil(BLOCK))
    }

    /// `count` blocks of the default size.
    pub fn blocks(count: usize) -> Self {
        Self::grid(count, 1, 1)
    }

    pub fn grid(x: usize, y: usize, z: usize) -> Self {
        Self { grid: [x, y, z].map(|n| n as u32), block: BLOCK as u32, shared: 0 }
    }
}

/// The value of a kernel's parameter.
#[derive(Clone, Copy)]
pub enum Argument<'a> {
    /// One or a few numbers.
    Small([u8; 40]),
    /// A struct of up to 4 KB, the limit for all parameters of a kernel.
    Large(&'a [u8]),
}

impl<'a> Argument<'a> {
    pub fn of<T: NoUninit>(value: T) -> Self {
        let mut bytes = [0; 40];
        let value = bytemuck::bytes_of(&value);
        bytes[..value.len()].copy_from_slice(value);
        Self::Small(bytes)
    }

    pub fn borrowed<T: NoUninit>(value: &'a T) -> Self {
        Self::Large(bytemuck::bytes_of(value))
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Small(bytes) => bytes,
            Self::Large(bytes) => bytes,
        }
    }
}

impl From<usize> for Argument<'_> {
    /// A kernel's `int`: counts are below 2³¹, which the buffers guarantee.
    fn from(value: usize) -> Self {
        Self::of(value as i32)
    }
}

macro_rules! argument {
    ($($kind:ty),*) => {$(
        impl From<$kind> for Argument<'_> {
            fn from(value: $kind) -> Self {
                Self::of(value)
            }
        }
    )*};
}
argument!(i32, u64, f32, f64);

/// Loads a compiled module permanently.
#[allow(unsafe_code)]
pub fn load_module(context: &Context, image: &[u8]) -> Result<Module, DeviceError> {
    context.enter()?;
    let mut raw = std::ptr::null_mut();
    // SAFETY: the driver reads a complete cubin or a terminated PTX text, as produced by the compiler.
    context
        .check(unsafe { sys::cuModuleLoadData(&mut raw, image.as_ptr().cast()) }, "loading the kernels")?;
    Ok(Module { raw })
}

/// A loaded module.
#[derive(Clone, Copy)]
pub struct Module {
    raw: sys::CUmodule,
}

impl Module {
    /// Looks up a kernel by name.
    #[allow(unsafe_code)]
    pub fn kernel(self, context: &Context, name: &'static CStr) -> Result<Kernel, DeviceError> {
        let text = name.to_str().unwrap_or_default();
        let mut raw = std::ptr::null_mut();
        // SAFETY: the name is terminated, and the module is loaded.
        context.check(unsafe { sys::cuModuleGetFunction(&mut raw, self.raw, name.as_ptr()) }, text)?;
        Ok(Kernel { name: text, raw })
    }

    /// Looks up a kernel whose blocks need `bytes` of shared memory.
    #[allow(unsafe_code)]
    pub fn kernel_with_shared(
        self,
        context: &Context,
        name: &'static CStr,
        bytes: usize,
    ) -> Result<Kernel, DeviceError> {
        let kernel = self.kernel(context, name)?;
        let most = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the kernel is loaded.
        context.check(unsafe { sys::cuFuncSetAttribute(kernel.raw, most, bytes as i32) }, kernel.name)?;
        Ok(kernel)
    }
}

/// A point in a stream's work that others can wait for.
pub struct Event {
    context: Arc<Context>,
    raw: sys::CUevent,
}

// SAFETY: handles of the driver may be used from any thread.
#[allow(unsafe_code)]
unsafe impl Send for Event {}
#[allow(unsafe_code)]
unsafe impl Sync for Event {}

impl Event {
    #[allow(unsafe_code)]
    pub fn new(context: &Arc<Context>) -> Result<Self, DeviceError> {
        context.enter()?;
        let mut raw = std::ptr::null_mut();
        let flags = sys::CUevent_flags_enum::CU_EVENT_DISABLE_TIMING as u32;
        // SAFETY: the out-pointer is to a live variable.
        context.check(unsafe { sys::cuEventCreate(&mut raw, flags) }, "creating an event")?;
        Ok(Self { context: Arc::clone(context), raw })
    }

    /// Marks the end of all work queued in the stream so far.
    #[allow(unsafe_code)]
    pub fn record(&self, stream: &Stream) -> Result<(), DeviceError> {
        self.context.enter()?;
        // SAFETY: both handles are live.
        self.context.check(unsafe { sys::cuEventRecord(self.raw, stream.raw) }, "recording an event")
    }

    /// Makes the host wait; returns at once if the event was never recorded.
    #[allow(unsafe_code)]
    pub fn synchronize(&self) -> Result<(), DeviceError> {
        self.context.enter()?;
        // SAFETY: the handle is live.
        self.context.check(unsafe { sys::cuEventSynchronize(self.raw) }, "waiting for an event")
    }
}

impl Drop for Event {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        if self.context.enter().is_ok() {
            // SAFETY: created in `new` and owned by this value alone.
            let _ = unsafe { sys::cuEventDestroy_v2(self.raw) };
        }
    }
}

/// Pinned host memory, which the GPU accesses directly, for transfers in one direction.
pub struct Pinned {
    context: Arc<Context>,
    address: *mut u8,
    len: usize,
    /// Recorded after the last copy to the GPU.
    done: Event,
}

// SAFETY: the memory is owned by this value alone, and handles of the driver may be used from any thread.
#[allow(unsafe_code)]
unsafe impl Send for Pinned {}

impl Pinned {
    #[allow(unsafe_code)]
    pub fn new(context: &Arc<Context>, len: usize) -> Result<Self, DeviceError> {
        let done = Event::new(context)?;
        let mut address = std::ptr::null_mut();
        // SAFETY: the out-pointer is to a live variable.
        context
            .check(unsafe { sys::cuMemAllocHost_v2(&mut address, len.max(1)) }, "allocating pinned memory")?;
        Ok(Self { context: Arc::clone(context), address: address.cast(), len, done })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Copies `from` into pinned memory and queues the copy to the GPU. First waits for an earlier copy to
    /// finish.
    #[allow(unsafe_code)]
    pub fn send(&mut self, stream: &Stream, from: &[u8], to: u64) -> Result<(), DeviceError> {
        debug_assert!(from.len() <= self.len);
        stream.not_recording()?;
        let from = &from[..from.len().min(self.len)];
        self.done.synchronize()?;
        // SAFETY: `address` has at least `len` bytes, which have no reader after the event. The copies are
        // within both buffers, and the event is recorded after the second one.
        unsafe {
            std::ptr::copy_nonoverlapping(from.as_ptr(), self.address, from.len());
            let copied = sys::cuMemcpyHtoDAsync_v2(to, self.address.cast(), from.len(), stream.raw);
            self.context.check(copied, "copying to the GPU")?;
        }
        self.done.record(stream)
    }

    /// Appends data from the GPU to `to`, after all queued work; each copy is at most the size of the pinned
    /// memory.
    #[allow(unsafe_code)]
    pub fn receive(
        &mut self,
        stream: &Stream,
        from: u64,
        bytes: usize,
        to: &mut Vec<u8>,
    ) -> Result<(), DeviceError> {
        stream.not_recording()?;
        self.done.synchronize()?;
        for start in (0..bytes).step_by(self.len.max(1)) {
            let piece = self.len.min(bytes - start);
            // SAFETY: callers pass an address with `bytes` bytes (`lengths.rs`). The pinned memory has at
            // least `len` bytes, owned by `self` alone: copies out of it finished before the event, and
            // copies into it before the wait of the previous iteration.
            let copied = unsafe {
                sys::cuMemcpyDtoHAsync_v2(self.address.cast(), from + start as u64, piece, stream.raw)
            };
            self.context.check(copied, "copying from the GPU")?;
            stream.synchronize()?;
            // SAFETY: the copy has finished, so these bytes are initialised, and `to` owns other memory.
            to.extend_from_slice(unsafe { std::slice::from_raw_parts(self.address, piece) });
        }
        Ok(())
    }
}

impl Drop for Pinned {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // Otherwise a copy to the GPU would read freed memory; copies from the GPU have been waited for.
        let _ = self.done.synchronize();
        if self.context.enter().is_ok() {
            // SAFETY: created in `new` and owned by this value alone.
            let _ = unsafe { sys::cuMemFreeHost(self.address.cast()) };
        }
    }
}
