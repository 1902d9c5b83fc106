//! Settings of coupling networks on a GPU, for experiments on speed.

/// Settings of coupling networks on a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Number of rows of hidden activations that a network computes at a time. Results and their rounding may
    /// depend on it.
    pub rows_at_once: usize,
    /// Implementation of hidden layers in bf16.
    pub hidden: HiddenKernels,
}

/// Implementation of hidden layers in bf16 on Hopper GPUs. Other GPUs use cuBLASLt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HiddenKernels {
    /// Kernels for whole networks. With the compiler of CUDA 12, the same as [`Layers`](Self::Layers).
    #[default]
    Networks,
    /// Kernels per layer.
    Layers,
    /// cuBLASLt everywhere.
    Off,
}

/// Enough for products to have several waves of blocks on all multiprocessors, and few enough to keep a
/// network's temporary memory small.
const ROWS_AT_ONCE: usize = 1 << 16;

impl Default for Tuning {
    fn default() -> Self {
        Self { rows_at_once: ROWS_AT_ONCE, hidden: HiddenKernels::default() }
    }
}
