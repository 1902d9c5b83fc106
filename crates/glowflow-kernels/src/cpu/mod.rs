//! The CPU device: both the reference and a fast implementation.
//!
//! Threads are those of the rayon pool that an operation is called from. Results do not depend on their
//! number: work is divided by output, and sums are accumulated in order.

mod buffer;
pub(crate) mod conv;
pub(crate) mod depthwise;
pub(crate) mod element;
pub(crate) mod elementary;
pub(crate) mod isa;
pub(crate) mod last_convolutions;
pub(crate) mod panels;
pub(crate) mod patches;
pub(crate) mod primitives;
pub(crate) mod product;
mod simd;
mod update;
pub(crate) mod workspace;

use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

pub use buffer::Buffer;
pub use element::{Element, Scalar};
pub use isa::Isa;

use workspace::Workspace;

use crate::device::{Device, DeviceError};
use crate::precision::Precision;

/// The CPU, computing in `T`: `f32` for use, `f64` for verification.
#[derive(Clone)]
pub struct Cpu<T: Scalar> {
    pub(crate) work: Workspace<T>,
    /// Workspace for the coupling networks' products if they use a shorter format.
    pub(crate) narrow: Option<Workspace<T::Narrow>>,
}

impl<T: Scalar> Cpu<T> {
    /// A CPU device with the best available instruction set.
    pub fn new() -> Self {
        let pool = buffer::Pool::default();
        Self { work: Workspace::new(T::available()[0], pool.clone(), pool), narrow: None }
    }

    fn take(&self, len: usize) -> Buffer<T> {
        self.work.take(len)
    }

    fn fill(&self, out: &mut [T], four: impl Fn(u64) -> [f64; 4] + Sync) {
        self.fill_from(0, out, four);
    }

    /// The numbers from `first` on; `four` makes those of a block.
    fn fill_from(&self, first: u64, out: &mut [T], four: impl Fn(u64) -> [f64; 4] + Sync) {
        let (block, skip) = (first / 4, (first % 4) as usize);
        let head = ((4 - skip) % 4).min(out.len());
        let (head, rest) = out.split_at_mut(head);
        if skip > 0 {
            head.iter_mut().zip(&four(block)[skip..]).for_each(|(out, &value)| *out = T::of(value));
        }
        let block = first.div_ceil(4);
        rest.par_chunks_mut(4).enumerate().with_min_len(256).for_each(|(i, out)| {
            out.iter_mut().zip(four(block + i as u64)).for_each(|(out, value)| *out = T::of(value));
        });
    }
}

impl<T: Scalar> Default for Cpu<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl Cpu<f32> {
    /// A CPU device with the given precision for coupling networks' products.
    ///
    /// # Errors
    /// [`DeviceError::Unavailable`] if the processor has no instructions for it.
    pub fn with_precision(precision: Precision) -> Result<Self, DeviceError> {
        if precision == Precision::Tf32 {
            return Err(DeviceError::Unavailable {
                device: "cpu with tf32".into(),
                reason: "only NVIDIA GPUs support it".into(),
            });
        }
        let mut cpu = Self::new();
        if precision == Precision::Bf16 {
            let isa = <bf16 as Element>::available()[0];
            if isa == Isa::Baseline {
                return Err(DeviceError::Unavailable {
                    device: "cpu with bf16".into(),
                    reason: "this CPU has no instructions for it (AVX-512 BF16)".into(),
                });
            }
            cpu.narrow = Some(cpu.narrow_workspace(isa));
        }
        Ok(cpu)
    }

    /// A CPU device with [`Precision::Bf16`], whose products use AMX, which
    /// [`with_precision`](Self::with_precision) does not use.
    ///
    /// # Errors
    /// [`DeviceError::Unavailable`] if the processor has no AMX, or the operating system does not permit it.
    pub fn with_amx() -> Result<Self, DeviceError> {
        if !Self::has_amx() {
            return Err(DeviceError::Unavailable {
                device: "cpu with AMX".into(),
                reason: "this CPU has no AMX for bf16, or the operating system does not permit it".into(),
            });
        }
        let mut cpu = Self::new();
        cpu.narrow = Some(cpu.narrow_workspace(Isa::Amx));
        Ok(cpu)
    }

    /// Returns whether this CPU has instructions for bf16. They make training about 1.8 times as fast on AMD's
    /// Zen 5, and slower than in `f32` on Intel's Xeons.
    pub fn has_bf16() -> bool {
        Self::with_precision(Precision::Bf16).is_ok()
    }

    /// Returns whether this CPU has AMX, and the operating system permits it. Training
    /// [with it](Self::with_amx) is then faster than in `f32`: 1.3 to 2.7 times with networks of 64 to 512
    /// channels.
    pub fn has_amx() -> bool {
        Isa::has_amx()
    }

    fn narrow_workspace(&self, isa: Isa) -> Workspace<bf16> {
        Workspace::new(isa, buffer::Pool::default(), self.work.sums())
    }
}

impl<T: Scalar> std::fmt::Debug for Cpu<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.narrow {
            None => write!(f, "Cpu({:?})", self.work.isa()),
            Some(narrow) => write!(f, "Cpu({:?}, networks {:?})", self.work.isa(), narrow.isa()),
        }
    }
}

impl<T: Scalar> Device for Cpu<T> {
    type Real = T;
    type Buffer = Buffer<T>;
    type Captured = std::convert::Infallible;

    fn name(&self) -> String {
        let networks =
            self.narrow.as_ref().map_or(String::new(), |narrow| format!(" and {:?}", narrow.isa()));
        format!("cpu ({:?}{networks}, {} threads)", self.work.isa(), rayon::current_num_threads())
    }

    fn within<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        rayon::scope(|_| work())
    }

    fn pixels_at_once(&self) -> usize {
        64 * 32 * 32
    }

    fn layers_at_once(&self) -> usize {
        // Weights just prepared are still in the cache.
        1
    }

    fn peak_memory(&self) -> Option<u64> {
        None
    }

    fn capture<R>(&self, _: impl FnOnce(&Self) -> R) -> Option<(R, Self::Captured)> {
        None
    }

    fn replay(&self, capture: &Self::Captured) {
        match *capture {}
    }

    fn scratch(&self, len: usize) -> Buffer<T> {
        self.take(len)
    }

    fn zeros(&self, len: usize) -> Buffer<T> {
        let mut buffer = self.take(len);
        buffer.fill(T::zero());
        buffer
    }

    fn upload(&self, values: &[T]) -> Buffer<T> {
        let mut buffer = self.take(values.len());
        buffer.copy_from_slice(values);
        buffer
    }

    fn download(&self, buffer: &Buffer<T>) -> Result<Vec<T>, DeviceError> {
        Ok(buffer.to_vec())
    }

    fn len(&self, buffer: &Buffer<T>) -> usize {
        buffer.len()
    }

    fn read(&self, buffer: &Buffer<T>, at: Range<usize>) -> Result<Vec<T>, DeviceError> {
        Ok(buffer[at].to_vec())
    }

    fn write(&self, buffer: &mut Buffer<T>, at: usize, values: &[T]) {
        buffer[at..at + values.len()].copy_from_slice(values);
    }

    fn copy(&self, from: &Buffer<T>, to: &mut Buffer<T>) {
        to.copy_from_slice(from);
    }
}
