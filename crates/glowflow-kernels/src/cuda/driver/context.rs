//! A GPU, its properties and its memory.

use std::ffi::c_void;
use std::sync::{Mutex, MutexGuard};

use cudarc::driver::sys::{self, CUresult};

use super::errors::{explain, failure, words};
use super::start::start;
use crate::device::DeviceError;

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
