//! The products behind which a hidden layer's ReLU is, by kernels of our own for GPUs of the Hopper generation (`hidden.cu`).
//!
//! ```text
//! forward    D [rows, columns] = ReLU(A [rows, depth] · Bᵀ + bias), and a mask of what is not 0
//! backward   D = A · Bᵀ where the mask is set, else 0; and partial sums over the rows of D
//! ```
//!
//! cuBLASLt has such epilogues, too: on an H100 masks cost 6 µs on 20 to write, and 100 µs on 15 to use.

use super::driver::{Argument, Context, Kernel, Launch, Module};
use super::memory::Block;
use super::queue::{Queue, launch};
use crate::device::DeviceError;

type Result<T> = std::result::Result<T, DeviceError>;

/// Of a tile, as in `hidden.cu`.
const ROWS: usize = 64;
const COLUMNS: usize = 128;
const DEPTH: usize = 64;
/// Workers of a block, the threads that each has, and those that bring in what it multiplies.
const WORKERS: usize = 2;
const THREADS: usize = 128;
const BESIDE: usize = 32;
/// Tiles of A that a worker has at hand.
const STAGES: usize = 4;

/// The deepest B that fits a block's shared memory beside the rest.
const DEEPEST: usize = 512;

/// Tiles of columns that a block of a kernel may have.
const SPANS: [usize; 3] = [1, 2, 4];

/// The kernels, one for each number of [`SPANS`].
#[derive(Clone, Copy)]
pub struct Kernels {
    forward: [Kernel; 3],
    backward: [Kernel; 3],
}

impl Kernels {
    /// Looks them up in a module that is compiled for the Hopper generation.
    pub fn find(context: &Context, module: Module) -> Result<Self> {
        let find = |name| module.kernel_with_shared(context, name, shared_memory(DEEPEST));
        Ok(Self {
            forward: [find(c"hidden_forward_1")?, find(c"hidden_forward_2")?, find(c"hidden_forward_4")?],
            backward: [find(c"hidden_backward_1")?, find(c"hidden_backward_2")?, find(c"hidden_backward_4")?],
        })
    }
}

/// Bytes of shared memory that a block needs whose tiles of B are so deep in all: B, the tiles of A, those of D, and what aligning them
/// takes.
fn shared_memory(depth: usize) -> usize {
    let tile = |rows: usize| 2 * rows * DEPTH;
    let b = depth.div_ceil(DEPTH) * tile(COLUMNS);
    1024 + b + WORKERS * (STAGES * tile(ROWS) + 2 * ROWS * COLUMNS)
}

/// The shape of such a product, of rows that all are there: A and D have no gaps between rows, nor has B.
#[derive(Clone, Copy, Debug)]
pub struct HiddenLayer {
    pub rows: usize,
    pub depth: usize,
    pub columns: usize,
}

impl HiddenLayer {
    /// The kernels, where this GPU has them and they can do this product.
    fn kernels(&self, queue: &Queue) -> Option<Kernels> {
        queue.gpu.hidden.filter(|_| self.depth <= DEEPEST)
    }

    /// Whether [`forward`](Self::forward) and [`backward`](Self::backward) can be used.
    pub fn can(&self, queue: &Queue) -> bool {
        self.kernels(queue).is_some()
    }

    fn column_tiles(&self) -> usize {
        self.columns.div_ceil(COLUMNS)
    }

    /// Which of [`SPANS`] a block has: the most that fit, so that A is read less often and longer pieces of D are written at once; but no
    /// more than leaves work for all multiprocessors.
    fn span(&self, queue: &Queue) -> usize {
        let fits = |&which: &usize| {
            let span = SPANS[which];
            let blocks = self.column_tiles() / span * self.rows.div_ceil(ROWS * WORKERS);
            self.column_tiles().is_multiple_of(span)
                && span * self.depth.next_multiple_of(DEPTH) <= DEEPEST
                // All but a few.
                && 16 * blocks >= 15 * queue.gpu.context.multiprocessors
        };
        (1..SPANS.len()).rev().find(fits).unwrap_or(0)
    }

    /// Blocks that have all columns of the same rows.
    fn across(&self, queue: &Queue) -> usize {
        self.column_tiles() / SPANS[self.span(queue)]
    }

    /// How many such groups of blocks share the rows: as many as run at once, and have something to do. Sums are cut up by it, so that
    /// it depends on the shape and the kind of GPU alone.
    fn groups(&self, queue: &Queue) -> usize {
        let at_once = queue.gpu.context.multiprocessors / self.across(queue);
        at_once.min(self.rows.div_ceil(ROWS * WORKERS)).max(1)
    }

    /// Memory for a mask.
    pub fn mask(&self, queue: &Queue) -> Result<Block> {
        queue.pool.take(self.rows.div_ceil(ROWS) * self.column_tiles() * THREADS * 8)
    }

    /// How many partial sums [`backward`](Self::backward) writes for each column.
    pub fn slabs(&self, queue: &Queue) -> usize {
        self.groups(queue) * WORKERS * THREADS / 32
    }

    fn launch(&self, queue: &Queue) -> Launch {
        Launch {
            block: (WORKERS * (THREADS + BESIDE)) as u32,
            shared: shared_memory(SPANS[self.span(queue)] * self.depth.next_multiple_of(DEPTH)) as u32,
            ..Launch::blocks(self.groups(queue) * self.across(queue))
        }
    }

    /// How the kernels find A, B and D.
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

    /// `d` from `a` and `b`; the mask is written where its address is not 0.
    pub fn forward(&self, queue: &Queue, [a, b, d]: [u64; 3], bias: u64, mask: u64) -> Result<()> {
        let Some(kernels) = self.kernels(queue) else { return Err(self.impossible(queue)) };
        let [a, b, d] = &self.maps(queue, a, b, d)?;
        let [a, b, d] = [a, b, d].map(Argument::borrowed);
        let kernel = kernels.forward[self.span(queue)];
        launch!(queue, kernel, self.launch(queue); self.rows, self.columns, self.depth, a, b, d, bias, mask)
    }

    /// `d` from `a` and `b`, and partial sums of its columns, `[slabs, columns]`.
    pub fn backward(&self, queue: &Queue, [a, b, d]: [u64; 3], mask: u64, sums: u64) -> Result<()> {
        let Some(kernels) = self.kernels(queue) else { return Err(self.impossible(queue)) };
        let [a, b, d] = &self.maps(queue, a, b, d)?;
        let [a, b, d] = [a, b, d].map(Argument::borrowed);
        let kernel = kernels.backward[self.span(queue)];
        launch!(queue, kernel, self.launch(queue); self.rows, self.columns, self.depth, a, b, d, mask, sums)
    }

    fn impossible(&self, queue: &Queue) -> DeviceError {
        DeviceError::Failed {
            device: queue.gpu.context.name.clone(),
            reason: format!("there is no kernel for {self:?}"),
        }
    }
}
