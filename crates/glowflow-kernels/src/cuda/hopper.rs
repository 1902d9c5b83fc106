//! Kernels specific to the Hopper generation: their names, and the sizes shared by their sources and callers.
//!
//! `hidden.cu` has products followed by a ReLU, `fused.cu` has whole coupling networks in one kernel.

use super::driver::{Context, Kernel, Module};
use crate::device::DeviceError;

type Result<T> = std::result::Result<T, DeviceError>;

/// Rows of a tile, as in `hidden.cu`.
pub const ROWS: usize = 64;
pub const COLUMNS: usize = 128;
pub const DEPTH: usize = 64;
/// Workers per block, threads per worker, and threads that load operands.
pub const WORKERS: usize = 2;
pub const THREADS: usize = 128;
/// Number of tiles of A that a worker holds in shared memory.
const STAGES: usize = 4;

/// The maximum depth of B that fits a block's shared memory with everything else; `most_chunks` of
/// `hidden_hopper.cuh`.
pub const MAX_LAYER_DEPTH: usize = 512;

/// Maximum number of hidden units in a whole network; as in `fused.cu`.
pub const MAX_HIDDEN: usize = 512;
/// Rows that a block of a whole network processes at a time.
pub const NETWORK_ROWS: usize = WORKERS * ROWS;
/// Bytes of shared memory for a whole network: the workers' tiles, the slots of weights, biases, and fourteen
/// barriers.
pub const NETWORK_SHARED: usize =
    2 * NETWORK_ROWS * MAX_HIDDEN + 6 * 2 * COLUMNS * DEPTH + 2 * 2 * MAX_HIDDEN + 14 * 8;

/// Bytes of shared memory for a hidden layer's block: B, the tiles of A and of D, and alignment.
pub fn layer_shared(depth: usize) -> usize {
    let tile = |rows: usize| 2 * rows * DEPTH;
    let b = depth.div_ceil(DEPTH) * tile(COLUMNS);
    1024 + b + WORKERS * (STAGES * tile(ROWS) + 2 * ROWS * COLUMNS)
}

/// Kernels for hidden layers.
#[derive(Clone, Copy)]
pub struct LayerKernels {
    pub forward: Kernel,
    pub backward: Kernel,
}

impl LayerKernels {
    /// Looks them up in a module compiled for the Hopper generation.
    pub fn find(context: &Context, module: Module) -> Result<Self> {
        let find = |name| module.kernel_with_shared(context, name, layer_shared(MAX_LAYER_DEPTH));
        Ok(Self { forward: find(c"hidden_forward")?, backward: find(c"hidden_backward")? })
    }
}

/// Kernels for whole networks, by the number of column blocks of the result: one, two or four.
#[derive(Clone, Copy)]
pub struct NetworkKernels {
    pub drop: [Kernel; 3],
    pub keep: [Kernel; 3],
    pub back: [Kernel; 2],
}

impl NetworkKernels {
    /// Looks them up in a module compiled for the Hopper generation.
    pub fn find(context: &Context, module: Module) -> Result<Self> {
        let find = |name| module.kernel_with_shared(context, name, NETWORK_SHARED);
        Ok(Self {
            drop: [find(c"fused_1")?, find(c"fused_2")?, find(c"fused_4")?],
            keep: [find(c"fused_keeping_1")?, find(c"fused_keeping_2")?, find(c"fused_keeping_4")?],
            back: [find(c"fused_back_1")?, find(c"fused_back_2")?],
        })
    }
}
