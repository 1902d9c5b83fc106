//! Products fused with a hidden layer's ReLU, by custom kernels for GPUs of the Hopper generation
//! (`hidden.cu`).
//!
//! ```text
//! forward    D [rows, columns] = ReLU(A [rows, depth] · Bᵀ + bias), and a mask of what is not 0
//! backward   D = A · Bᵀ where the mask is set, else 0; and partial sums over the rows of D
//! ```
//!
//! cuBLASLt has such epilogues too, but on an H100 a product of 65,536 × 512 × 512 takes 270 µs with a mask
//! and 60 without.

use crate::cuda::driver::{Argument, Launch};
use crate::cuda::hopper::{
    COLUMNS, DEPTH, LayerKernels, MAX_LAYER_DEPTH, ROWS, THREADS, WORKERS, layer_shared,
};
use crate::cuda::memory::Block;
use crate::cuda::queue::{Queue, launch};
use crate::device::DeviceError;

type Result<T> = std::result::Result<T, DeviceError>;

/// Threads per worker that load its operands.
const LOADER_THREADS: usize = 32;

/// The shape of such a product, whose rows all exist: A, B and D are contiguous.
#[derive(Clone, Copy, Debug)]
pub struct HiddenLayer {
    pub rows: usize,
    pub depth: usize,
    pub columns: usize,
}

impl HiddenLayer {
    /// The kernels, if this GPU has them and they support this product.
    fn kernels(&self, queue: &Queue) -> Result<LayerKernels> {
        queue.gpu.hidden.filter(|_| self.can(queue)).ok_or_else(|| DeviceError::Failed {
            device: queue.gpu.context.name.clone(),
            reason: format!("there is no kernel for {self:?}"),
        })
    }

    /// Returns whether [`forward`](Self::forward) and [`backward`](Self::backward) are supported.
    pub fn can(&self, queue: &Queue) -> bool {
        queue.gpu.hidden.is_some() && self.depth <= MAX_LAYER_DEPTH
    }

    fn column_tiles(&self) -> usize {
        self.columns.div_ceil(COLUMNS)
    }

    /// Blocks that share the rows, for each tile of columns: the number that runs concurrently and has work.
    /// Sums are partitioned by it, so it depends only on the shape and the GPU model.
    fn groups(&self, queue: &Queue) -> usize {
        let at_once = queue.gpu.context.multiprocessors / self.column_tiles();
        at_once.min(self.rows.div_ceil(ROWS * WORKERS)).max(1)
    }

    /// Allocates a mask.
    pub fn mask(&self, queue: &Queue) -> Result<Block> {
        queue.pool.take(self.rows.div_ceil(ROWS) * self.column_tiles() * THREADS * 8)
    }

    /// Number of partial sums that [`backward`](Self::backward) writes for each column.
    pub fn slabs(&self, queue: &Queue) -> usize {
        self.groups(queue) * WORKERS * THREADS / 32
    }

    fn launch(&self, queue: &Queue) -> Launch {
        Launch {
            block: (WORKERS * (THREADS + LOADER_THREADS)) as u32,
            shared: layer_shared(self.depth) as u32,
            ..Launch::blocks(self.groups(queue) * self.column_tiles())
        }
    }

    /// Tensor maps of A, B and D for the kernels.
    fn maps(&self, queue: &Queue, a: u64, b: u64, d: u64) -> Result<[[u64; 16]; 3]> {
        let map = |address, rows, columns, tile_rows| {
            queue.gpu.context.tensor_map(address, [rows, columns], [tile_rows, DEPTH])
        };
        Ok([
            map(a, self.rows, self.depth, ROWS)?,
            map(b, self.columns, self.depth, COLUMNS)?,
            map(d, self.rows, self.columns, ROWS)?,
        ])
    }

    /// Computes `d` from `a` and `b`; the mask is written unless its address is 0.
    pub fn forward(&self, queue: &Queue, [a, b, d]: [u64; 3], bias: u64, mask: u64) -> Result<()> {
        let kernel = self.kernels(queue)?.forward;
        let [a, b, d] = &self.maps(queue, a, b, d)?;
        let [a, b, d] = [a, b, d].map(Argument::borrowed);
        launch!(queue, kernel, self.launch(queue); self.rows, self.columns, self.depth, a, b, d, bias, mask)
    }

    /// Computes `d` from `a` and `b`, and partial sums of its columns, `[slabs, columns]`.
    pub fn backward(&self, queue: &Queue, [a, b, d]: [u64; 3], mask: u64, sums: u64) -> Result<()> {
        let kernel = self.kernels(queue)?.backward;
        let [a, b, d] = &self.maps(queue, a, b, d)?;
        let [a, b, d] = [a, b, d].map(Argument::borrowed);
        launch!(queue, kernel, self.launch(queue); self.rows, self.columns, self.depth, a, b, d, mask, sums)
    }
}
