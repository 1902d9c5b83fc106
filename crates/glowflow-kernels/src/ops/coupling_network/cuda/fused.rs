//! A whole coupling network, or its backward pass, in one kernel for GPUs of the Hopper generation
//! (`fused.cu`).
//!
//! ```text
//! forward    h1 = ReLU(in · W1ᵀ + bias1), h2 = ReLU(h1 · W2ᵀ + bias2), out [rows, width] = h2 · W3ᵀ
//! back       the same with transposes, masks instead of ReLUs, and sums over rows of both hidden layers
//! ```
//!
//! Separate kernels read and write hidden activations for each product, a kilobyte per row and layer. Here
//! they stay on the chip; if the backward pass needs them they are written, but never read.

use bytemuck::{Pod, Zeroable};

use crate::cuda::driver::{Argument, Launch};
use crate::cuda::hopper::{
    COLUMNS, DEPTH, MAX_HIDDEN, NETWORK_ROWS as ROWS, NETWORK_SHARED as SHARED, ROWS as TILE_ROWS, THREADS,
    WORKERS,
};
use crate::cuda::queue::{Queue, launch};
use crate::device::DeviceError;

type Result<T> = std::result::Result<T, DeviceError>;

/// Maximum input depth, which must fit half of the first hidden layer; as in `fused.cu`.
const MAX_DEPTH: usize = 256;
/// Warps with their own sums: those of the workers. The block has as many additional threads as one worker.
const SUMMING: usize = WORKERS * THREADS / 32;

/// A pass through the network, by its treatment of the hidden activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// They are discarded.
    Forward,
    /// They are saved.
    ForwardSaving,
    /// Their gradients are saved.
    Backward,
}

/// The shape of a network: contiguous matrices, all widths multiples of 8.
#[derive(Clone, Copy, Debug)]
pub struct FusedNetwork {
    pub rows: usize,
    /// Number of input columns.
    pub depth: usize,
    pub hidden: usize,
    /// Number of result columns.
    pub width: usize,
}

/// Addresses of the input `[rows, depth]`, of the matrices `[hidden, depth]`, `[hidden, hidden]` and
/// `[width, hidden]`, and of the result, in `f32`.
#[derive(Clone, Copy)]
pub struct Matrices {
    pub input: u64,
    pub weights: [u64; 3],
    pub result: u64,
}

/// Addresses of both hidden layers `[rows, hidden]`, in order of computation, and of their masks (see
/// [`HiddenLayer::mask`](super::hidden::HiddenLayer::mask)).
#[derive(Clone, Copy)]
pub struct HiddenAddresses {
    pub layers: [u64; 2],
    pub masks: [u64; 2],
}

/// As in `fused.cu`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Maps([[u64; 16]; 6]);

#[derive(Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
struct Arguments {
    /// Rows, and columns of the input, of hidden layers and of the result.
    sizes: [i32; 4],
    biases: [u64; 2],
    masks: [u64; 2],
    partial: [u64; 2],
    sums: [u64; 2],
    result: u64,
}

impl FusedNetwork {
    /// Kernel variant that fits the result, and columns per block of the result.
    fn blocks(&self, pass: Pass) -> Option<(usize, usize)> {
        let width = if pass == Pass::Backward { 64 } else { 56 };
        match self.width.div_ceil(width) {
            ..=1 => Some((0, width)),
            2 => Some((1, width)),
            ..=4 if pass != Pass::Backward => Some((2, width)),
            _ => None,
        }
    }

    /// Returns whether there is a kernel for networks of this shape, with any number of rows.
    pub fn fits(&self, queue: &Queue, pass: Pass) -> bool {
        let there = queue.gpu.fused.is_some() && self.depth <= MAX_DEPTH && self.hidden <= MAX_HIDDEN;
        there && self.blocks(pass).is_some()
    }

    /// Returns whether there is such a kernel, and enough rows for three quarters of the multiprocessors.
    /// With fewer rows it would be slower than kernels for each product, whose blocks also share columns.
    pub fn pays(&self, queue: &Queue, pass: Pass) -> bool {
        self.fits(queue, pass) && 4 * self.rows.div_ceil(ROWS) >= 3 * queue.gpu.context.multiprocessors
    }

    /// Number of blocks, and of the partial sums that [`back`](Self::back) writes for each column. Sums are
    /// partitioned by it, so it depends only on the shape and the GPU model.
    pub fn slabs(&self, queue: &Queue) -> usize {
        self.rows.div_ceil(ROWS).min(queue.gpu.context.multiprocessors)
    }

    /// The forward pass, given the biases of its hidden layers. Hidden activations are saved if addresses are
    /// given.
    pub fn forward(
        &self,
        queue: &Queue,
        matrices: Matrices,
        biases: [u64; 2],
        kept: Option<HiddenAddresses>,
    ) -> Result<()> {
        let pass = if kept.is_some() { Pass::ForwardSaving } else { Pass::Forward };
        let masks = kept.map_or([0; 2], |kept| kept.masks);
        self.launch(queue, pass, matrices, kept, Arguments { biases, masks, ..Arguments::default() })
    }

    /// The backward pass, given the transposed matrices in reverse order, and the masks written by
    /// [`forward`](Self::forward), also in reverse order. Both hidden gradients are saved, and partial sums
    /// over their rows written, `[slabs, hidden]`.
    pub fn back(
        &self,
        queue: &Queue,
        matrices: Matrices,
        kept: HiddenAddresses,
        sums: [u64; 2],
    ) -> Result<()> {
        let len = self.slabs(queue) * SUMMING * self.hidden;
        let partial = [queue.floats(len)?, queue.floats(len)?];
        let arguments = Arguments {
            masks: kept.masks,
            partial: [partial[0].address, partial[1].address],
            sums,
            ..Arguments::default()
        };
        self.launch(queue, Pass::Backward, matrices, Some(kept), arguments)
    }

    fn launch(
        &self,
        queue: &Queue,
        pass: Pass,
        matrices: Matrices,
        kept: Option<HiddenAddresses>,
        arguments: Arguments,
    ) -> Result<()> {
        let kernels = queue.gpu.fused.zip(self.blocks(pass)).filter(|_| self.fits(queue, pass));
        let (kernels, (index, width)) = kernels.ok_or_else(|| DeviceError::Failed {
            device: queue.gpu.context.name.clone(),
            reason: format!("there is no kernel for {self:?}"),
        })?;
        let kernel = match pass {
            Pass::Forward => kernels.drop[index],
            Pass::ForwardSaving => kernels.keep[index],
            Pass::Backward => kernels.back[index],
        };
        let Self { rows, depth, hidden, .. } = *self;
        let map = |address, rows, columns, tile_rows| {
            queue.gpu.context.tensor_map(address, [rows, columns], [tile_rows, DEPTH])
        };
        let [first, second, last] = matrices.weights;
        let kept =
            |layer: usize| kept.map_or(Ok([0; 16]), |kept| map(kept.layers[layer], rows, hidden, TILE_ROWS));
        let maps = Maps([
            map(matrices.input, rows, depth, TILE_ROWS)?,
            map(first, hidden, depth, COLUMNS)?,
            map(second, hidden, hidden, COLUMNS)?,
            map(last, self.width, hidden, if index == 0 { width } else { 2 * width })?,
            kept(0)?,
            kept(1)?,
        ]);
        let sizes = [rows, depth, hidden, self.width].map(|size| size as i32);
        let arguments = Arguments { sizes, result: matrices.result, ..arguments };
        let shape = Launch {
            block: ((WORKERS + 1) * THREADS) as u32,
            shared: SHARED as u32,
            ..Launch::blocks(self.slabs(queue))
        };
        launch!(queue, kernel, shape; Argument::borrowed(&maps), Argument::borrowed(&arguments))
    }
}
