//! Launches of kernels: their shapes and arguments.

use std::ffi::c_void;

use bytemuck::NoUninit;
use cudarc::driver::sys;

use super::{Kernel, Stream};
use crate::device::DeviceError;

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

impl Stream {
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
}
