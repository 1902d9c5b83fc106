//! NVIDIA GPUs as devices.
//!
//! The driver, the kernels' compiler and the matrix products come from libraries that are opened when a device is
//! ([`LIBRARIES`]), NCCL when several processes train together; nothing of CUDA is needed to build or to start the program. Kernels are CUDA C++, embedded as source
//! and compiled for the GPU found. Operations are queued in one stream, in a record also in lanes beside it; errors are remembered and reported
//! where the host waits for results. Equal inputs give equal bits: sums are added up in fixed orders, and never by two threads in one place.

mod compile;
mod convolution;
pub(crate) mod deferred;
mod depthwise;
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

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

pub use compile::{HEADERS, SOURCE, Target};
pub use library::LIBRARIES;
pub use memory::Buffer;
pub use nccl::NCCL;
pub use queue::{HIDDEN, ROWS_AT_ONCE};

use driver::{Context, Graph};
use lengths::holds;
use memory::Block;
use product::Element;
use queue::{Gpu, Queue};

use crate::communicator::Transport;
use crate::device::{Device, DeviceError};

/// Precision of the products in coupling networks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// bf16 if the GPU supports it, else F32.
    #[default]
    Auto,
    /// 32-bit floating point.
    F32,
    /// 32-bit numbers, rounded to 19 bits (TF32) for multiplication.
    Tf32,
    /// 16-bit "brain" floating point, with sums in `f32`.
    Bf16,
}

/// The lowest compute capability with bf16 and TF32 products: Ampere.
const AMPERE: i32 = 80;

/// An NVIDIA GPU.
#[derive(Clone)]
pub struct Cuda {
    queue: Arc<Queue>,
    precision: Precision,
    /// Folders in which libraries are looked for first.
    libraries: Arc<[PathBuf]>,
    /// The first failure; nothing is done from there on.
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
        let gpu = Arc::new(Gpu::new(context, &compiled, element, precision == Precision::Tf32)?);
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
            if len > i32::MAX as usize {
                return Err(DeviceError::Failed {
                    device: queue.gpu.context.name.clone(),
                    reason: format!("an array of {len} numbers is larger than kernels can address"),
                });
            }
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

/// A captured graph and the memory that it uses.
pub struct Recording {
    graph: Graph,
    _queue: Arc<Queue>,
}

impl Device for Cuda {
    type Real = f32;
    type Buffer = Buffer;
    type Recording = Recording;

    fn name(&self) -> String {
        let precision = match self.precision {
            Precision::Tf32 => "tf32",
            Precision::Bf16 => "bf16",
            _ => "f32",
        };
        format!("{}, {precision}", self.queue.gpu.context.name)
    }

    fn pixels_at_once(&self) -> usize {
        1 << 21
    }

    fn layers_at_once(&self) -> usize {
        // One kernel launch computes the matrices of all these layers.
        16
    }

    fn peak_memory(&self) -> Option<u64> {
        Some(self.queue.gpu.context.peak() as u64)
    }

    fn transport(&self) -> Result<Option<Arc<dyn Transport<Self>>>, DeviceError> {
        nccl::open(&self.queue.gpu.context.name, &self.libraries)
    }

    fn record<T>(&self, work: impl FnOnce(&Self) -> T) -> Option<(T, Recording)> {
        // A recording has its own memory, so that nothing else overwrites it between replays. Cached memory
        // of the main stream is released to make room.
        let queue = self.attempt(|queue| {
            queue.stream.synchronize()?;
            queue.pool.trim();
            Ok(Queue::to_record(&queue.gpu))
        })?;
        // If this fails for lack of memory, the work can still run without a recording.
        let device = Self { queue: Arc::new(queue.ok()?), failure: Arc::default(), ..self.clone() };
        let recorded = device.queue.stream.record(|| {
            let result = work(&device);
            // Work that has not been joined yet is part of the recording.
            device.attempt(|queue| queue.join());
            result
        });
        let (result, graph) = recorded.ok()?;
        match device.failed() {
            Some(_) => None,
            None => Some((result, Recording { graph, _queue: device.queue })),
        }
    }

    fn replay(&self, recording: &Recording) {
        self.attempt(|queue| queue.stream.replay(&recording.graph));
    }

    fn scratch(&self, len: usize) -> Buffer {
        self.buffer(len, |queue| queue.floats(len))
    }

    fn zeros(&self, len: usize) -> Buffer {
        self.buffer(len, |queue| queue.zeros(len))
    }

    fn upload(&self, values: &[f32]) -> Buffer {
        self.buffer(values.len(), |queue| {
            let block = queue.floats(values.len())?;
            queue.stream.write(values, block.address)?;
            Ok(block)
        })
    }

    fn download(&self, buffer: &Buffer) -> Result<Vec<f32>, DeviceError> {
        self.report(|queue| {
            let mut values = vec![0.0; buffer.len()];
            queue.stream.read(buffer.address(), &mut values)?;
            Ok(values)
        })
    }

    fn len(&self, buffer: &Buffer) -> usize {
        buffer.len()
    }

    fn read(&self, buffer: &Buffer, at: Range<usize>) -> Result<Vec<f32>, DeviceError> {
        holds("a slice", buffer, at.end);
        self.report(|queue| {
            // The buffer may be a gradient that a side stream still writes.
            queue.join()?;
            let mut values = vec![0.0; at.len()];
            queue.stream.read(buffer.at(at.start), &mut values)?;
            Ok(values)
        })
    }

    fn write(&self, buffer: &mut Buffer, at: usize, values: &[f32]) {
        holds("a slice", buffer, at + values.len());
        self.attempt(|queue| {
            queue.join()?;
            queue.stream.write(values, buffer.at(at))
        });
    }

    fn copy(&self, from: &Buffer, to: &mut Buffer) {
        self.attempt(|queue| {
            // The buffer may be a gradient that a side stream still writes.
            queue.join()?;
            queue.stream.copy(from.address(), to.address(), 4 * from.len().min(to.len()))
        });
    }
}
