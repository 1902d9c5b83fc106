//! NVIDIA GPUs as devices.
//!
//! The driver, the kernels' compiler and the matrix products are in libraries that are opened with the first
//! device ([`LIBRARIES`]), NCCL if several processes train together. Building and starting the program needs
//! nothing of CUDA. Kernels are CUDA C++, embedded as source and compiled for the GPU found. Operations are
//! queued in one stream, and in a capture also in side streams. The first error is stored and reported when
//! the host waits for results. Equal inputs give equal bits: sums are added in fixed orders, and never by two
//! threads in one place.

mod compile;
mod convolution;
pub(crate) mod deferred;
mod depthwise;
mod device;
pub(crate) mod divisor;
pub(crate) mod driver;
pub(crate) mod hopper;
mod kernels;
pub(crate) mod lengths;
mod library;
pub(crate) mod memory;
mod nccl;
mod optimizer;
pub(crate) mod parts;
pub(crate) mod patches;
mod pixels;
mod primitives;
pub(crate) mod product;
pub(crate) mod queue;
pub(crate) mod sums;
mod tuning;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

pub use compile::{HEADERS, SOURCE, Target};
pub use device::Captured;
pub use library::LIBRARIES;
pub use memory::Buffer;
pub use nccl::NCCL;
pub use tuning::{HiddenKernels, Tuning};

use driver::Context;
use memory::Block;
use product::Element;
use queue::{Gpu, Queue};

use crate::device::{Device, DeviceError};
use crate::precision::Precision;

/// The lowest compute capability with bf16 and TF32 products: Ampere.
const AMPERE: i32 = 80;

/// An NVIDIA GPU.
#[derive(Clone)]
pub struct Cuda {
    queue: Arc<Queue>,
    precision: Precision,
    /// Folders that are searched first for libraries.
    libraries: Arc<[PathBuf]>,
    /// The first failure; later operations are ignored.
    failure: Arc<Mutex<Option<DeviceError>>>,
}

impl Cuda {
    /// The number of GPUs.
    ///
    /// # Errors
    /// [`DeviceError::Absent`] or [`DeviceError::Unavailable`] without a GPU or a driver.
    pub fn count() -> Result<usize, DeviceError> {
        let device = "cuda:0";
        library::load(device, &[])?;
        driver::start(device).map(|(count, _)| count)
    }

    /// The GPU with this number, counted as the driver does.
    ///
    /// # Errors
    /// [`DeviceError::Unavailable`] if there is no such GPU, driver or library, with advice.
    pub fn new(index: usize, precision: Precision) -> Result<Self, DeviceError> {
        Self::with_libraries(index, precision, &[])
    }

    /// Like [`new`](Self::new), but searches these folders for CUDA's libraries first. Opened libraries stay
    /// open for the whole process.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn with_libraries(
        index: usize,
        precision: Precision,
        folders: &[PathBuf],
    ) -> Result<Self, DeviceError> {
        Self::with_tuning(index, precision, folders, Tuning::default())
    }

    /// Like [`with_libraries`](Self::with_libraries), with settings for experiments on speed.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn with_tuning(
        index: usize,
        precision: Precision,
        folders: &[PathBuf],
        tuning: Tuning,
    ) -> Result<Self, DeviceError> {
        library::load(&format!("cuda:{index}"), folders)?;
        let context = Arc::new(Context::open(index)?);
        let modern = context.capability >= AMPERE;
        let precision = match precision {
            Precision::Auto if modern => Precision::Bf16,
            Precision::Auto => Precision::F32,
            Precision::Bf16 | Precision::Tf32 if !modern => {
                return Err(DeviceError::Unavailable {
                    device: context.name.clone(),
                    reason: "this GPU is too old for bf16 and TF32".into(),
                });
            }
            precision => precision,
        };
        let compiled = compile::module(&context)?;
        let element = match precision {
            Precision::Bf16 => Element::Bf16,
            _ => Element::F32,
        };
        let tf32 = precision == Precision::Tf32;
        let gpu = Arc::new(Gpu::new(context, &compiled, element, tf32, tuning)?);
        let (queue, libraries) = (Arc::new(Queue::new(&gpu)?), folders.into());
        Ok(Self { queue, precision, libraries, failure: Arc::default() })
    }

    /// Compiles the kernels for a target, without a GPU.
    ///
    /// # Errors
    /// [`DeviceError::Unavailable`] if the compiler is missing or fails, with its log.
    pub fn compile(target: Target, folders: &[PathBuf]) -> Result<Vec<u8>, DeviceError> {
        let unavailable = |reason| DeviceError::Unavailable { device: "cuda".into(), reason };
        library::load_compiler(folders)?;
        compile::compile(SOURCE, target).map_err(unavailable)
    }

    /// The compiler's supported compute capabilities, and its version.
    ///
    /// # Errors
    /// [`DeviceError::Unavailable`] if the compiler is missing.
    pub fn known(folders: &[PathBuf]) -> Result<(Vec<i32>, (i32, i32)), DeviceError> {
        library::load_compiler(folders)?;
        let (version, known) = compile::compiler()
            .map_err(|reason| DeviceError::Unavailable { device: "cuda".into(), reason })?;
        Ok((known, version))
    }

    /// The first failure, if any.
    fn failed(&self) -> Option<DeviceError> {
        self.failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// Runs `work` unless an operation has failed, and records its failure. Deferred work runs first: `work`
    /// may depend on it, or overwrite the parameters that it reads.
    pub(crate) fn attempt<T>(&self, work: impl FnOnce(&Queue) -> Result<T, DeviceError>) -> Option<T> {
        self.make_ready(|queue| {
            queue.flush()?;
            work(queue)
        })
    }

    /// Like [`attempt`](Self::attempt), for work that prepares layers: it reads parameters and writes to its
    /// own memory, so deferred work can continue to accumulate.
    pub(crate) fn make_ready<T>(&self, work: impl FnOnce(&Queue) -> Result<T, DeviceError>) -> Option<T> {
        let mut failure = self.failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if failure.is_some() {
            return None;
        }
        work(&self.queue).map_err(|error| *failure = Some(error)).ok()
    }

    /// Like [`attempt`](Self::attempt), for callers that can return an error.
    pub(crate) fn report<T>(
        &self,
        work: impl FnOnce(&Queue) -> Result<T, DeviceError>,
    ) -> Result<T, DeviceError> {
        self.attempt(work).ok_or_else(|| match self.failed() {
            Some(error) => error,
            None => {
                DeviceError::Failed { device: self.name(), reason: "an operation was not executed".into() }
            }
        })
    }

    fn buffer(&self, len: usize, block: impl FnOnce(&Queue) -> Result<Block, DeviceError>) -> Buffer {
        let block = self.attempt(|queue| {
            queue.counted(len)?;
            block(queue)
        });
        Buffer::new(block, len)
    }
}

impl std::fmt::Debug for Cuda {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cuda({}, {:?})", self.queue.gpu.context.name, self.precision)
    }
}
