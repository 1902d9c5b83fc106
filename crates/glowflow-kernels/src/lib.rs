//! The numerical kernels of Glow behind one [`Device`] trait.
//!
//! A step of Glow is three matrix products and a few per-pixel kernels. This crate holds those
//! kernels, for each device in a module of its own, and nothing that knows how the steps make a model.
//! All `unsafe` code of the project is here: in [`cpu`]'s matrix products, and where [`cuda`] calls NVIDIA's libraries.
//!
//! ```
//! use glowflow_kernels::{Cpu, Device, Grid};
//!
//! let cpu = Cpu::<f32>::new();
//! let grid = Grid { batch: 1, height: 2, width: 2 };
//! let x = cpu.upload(&[1.0, 2.0, 3.0, 4.0]);
//! let mut y = cpu.scratch(4);
//! cpu.squeeze(grid, 1, &x, &mut y); // four pixels of one channel become one pixel of four
//! assert_eq!(cpu.download(&y)?, [1.0, 2.0, 3.0, 4.0]);
//! # Ok::<(), glowflow_kernels::DeviceError>(())
//! ```

mod batch_norm;
pub mod cpu;
pub mod cuda;
mod device;
mod elements;
pub mod expr;
mod out_of_memory;
mod primitives;
mod random;
mod real;
mod repeated;
mod shape;

pub use batch_norm::{BatchNorm, Normalizer};
pub use cpu::Cpu;
pub use cuda::Cuda;
pub use device::{Device, DeviceError, Direction, Noise, Quantized, Rule, Training, Update, UpdateReport};
pub use out_of_memory::catch_out_of_memory;
pub use primitives::{Conv, Gemm, Matrix, MatrixMut, Primitives, Strided, View, ViewMut};
pub use random::Stream;
pub use real::Real;
pub use repeated::Repeated;
pub use shape::{
    ActNormParams, ChannelMapParams, CouplingKind, Grid, NetworkParams, PermutationParams, Span,
    TopPriorParams, ZeroConvParams,
};
