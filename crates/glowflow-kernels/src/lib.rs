//! The numerical kernels of flows, on CPUs and GPUs.
//!
//! A [`Device`] has memory, [`Primitives`] are general operations on it, and [`ops`] are operations of Glow,
//! each with a reference body in primitives and fused forms for the devices. This crate does not define
//! models or layers. All `unsafe` code of the project is in this crate ([`cpu`]'s vectorised kernels, and
//! [`cuda`]'s calls of NVIDIA's libraries), except for the MPI calls in `glowflow-ranks`.
//!
//! ```
//! use glowflow_kernels::ops::Squeeze;
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
mod communicator;
pub mod cpu;
pub mod cuda;
mod depthwise;
mod device;
mod elements;
pub mod expr;
pub mod ops;
mod optimizer;
mod orthogonal;
mod out_of_memory;
mod pixels;
mod precision;
mod primitives;
mod random;
mod real;
mod repeated;
mod shape;

pub use batch_norm::{BatchNorm, Normalizer};
pub use communicator::{Communicator, Place, Transport};
pub use cpu::Cpu;
pub use cuda::Cuda;
pub use depthwise::Depthwise;
pub use device::{Device, DeviceError, Memory};
pub use ops::{
    ActNormParams, AffineScale, AttentionShape, ChannelMapParams, CouplingKind, Direction, FinalPriorParams,
    HeadParams, HeadedNetworkParams, MixtureShape, NetworkOutputs, NetworkParams, Operations,
    PermutationParams, Reference, ResidualAttentionParams, ResidualBlockParams, ResidualNetworkParams,
    ZeroConvParams,
};
pub use optimizer::{Rule, Segment, Training, Update, UpdateReport};
pub use out_of_memory::catch_out_of_memory;
pub use pixels::{Noise, Quantized};
pub use precision::Precision;
pub use primitives::{Conv, Gemm, GemmBatch, Matrix, MatrixMut, Primitives, Strided, View, ViewMut};
pub use random::RngStream;
pub use real::Real;
pub use repeated::Repeated;
pub use shape::{Grid, Span};
