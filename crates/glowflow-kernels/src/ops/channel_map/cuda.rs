//! Actnorm and permutation as one affine map of each pixel's channels; the small matrices are computed on the
//! GPU.
//!
//! Computing a matrix takes a kernel that does little work and mostly waits for memory, and a flow needs one
//! or two per step. Preparation of a map is therefore deferred, and all requested maps are computed together,
//! before the queue does anything other than preparing layers.

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};

use super::{ChannelMapParams, PermutationParams};
use crate::cuda::Cuda;
use crate::cuda::deferred::Deferred;
use crate::cuda::driver::{Argument, Launch};
use crate::cuda::lengths::{holds, holds_parameters};
use crate::cuda::memory::{Block, Buffer, at};
use crate::cuda::queue::{Lane, Queue, launch};
use crate::device::DeviceError;
use crate::ops::Direction;
use crate::shape::{Grid, Span};

type Result<T> = std::result::Result<T, DeviceError>;

/// Bytes of shared memory available to a block without a request.
const SHARED: usize = 48 << 10;

/// Matrices per launch; as in `channel_map.cu`.
const MATRICES_PER_LAUNCH: usize = 32;

/// Maximum number of channels with a fused backward kernel: two matrices and several rows fit shared memory.
const FEW_CHANNELS: usize = 64;

/// Maximum number of channels: a column of a matrix, the diagonal and its inverse fit shared memory, in
/// `f64`.
const MAX_CHANNELS: usize = SHARED / (3 * 8);

/// The map `x ← M x + offset` of a pixel's channels.
pub struct ChannelMap {
    channels: usize,
    direction: Direction,
    block: Arc<Block>,
}

/// A matrix to compute, and its inputs; as in `channel_map.cu`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct MatrixJob {
    index: u64,
    sign: u64,
    lower: u64,
    upper: u64,
    log_s: u64,
    bias: u64,
    logs: u64,
    matrix: u64,
    offset: u64,
    log_det: u64,
    channels: i32,
    kind: i32,
    factors_fit: i32,
    unused: i32,
}

/// Kind of a matrix; as in `channel_map.cu`.
#[derive(Clone, Copy)]
enum Kind {
    Forward,
    ByRows,
    Inverse,
}

/// A pending matrix, with all memory that its computation reads and writes.
struct PendingMatrix {
    job: MatrixJob,
    _held: [Arc<Block>; 3],
}

/// Number of rows and columns of a matrix in memory: the number of channels, rounded up so that four numbers
/// are read at a time.
fn stride_of(channels: usize) -> usize {
    channels.next_multiple_of(4)
}

/// Warps per block that compute matrices with up to `channels` channels: each keeps a column in shared
/// memory.
fn warps_per_block(channels: usize) -> usize {
    (SHARED / (8 * channels)).saturating_sub(2).clamp(1, 8)
}

/// Bytes of shared memory of such a block, with or without L and U.
fn shared_bytes(channels: usize, warps: usize, factors: bool) -> usize {
    let factors = if factors { 2 * 4 * channels * (channels | 1) } else { 0 };
    8 * (2 + warps) * channels + factors
}

/// Returns whether L and U fit too. If they do, a block has the maximum number of warps.
fn factors_fit(channels: usize) -> bool {
    shared_bytes(channels, warps_per_block(channels), true) <= SHARED
}

impl Deferred for PendingMatrix {
    /// Computes all matrices.
    fn flush(queue: &Queue, matrices: Vec<Self>) -> Result<()> {
        for group in matrices.chunks(MATRICES_PER_LAUNCH) {
            let mut list = [MatrixJob::zeroed(); MATRICES_PER_LAUNCH];
            for (to, pending) in list.iter_mut().zip(group) {
                *to = pending.job;
            }
            let channels = |pending: &PendingMatrix| pending.job.channels as usize;
            let most = group.iter().map(channels).max().unwrap_or(0);
            let warps = warps_per_block(most);
            let shared = |matrix| {
                let channels = channels(matrix);
                shared_bytes(channels, warps, factors_fit(channels))
            };
            let shape = Launch {
                block: 32 * warps as u32,
                shared: group.iter().map(shared).max().unwrap_or(0) as u32,
                ..Launch::grid(stride_of(most).div_ceil(warps), group.len(), 1)
            };
            launch!(queue, queue.kernels().make_channel_maps, shape; Argument::borrowed(&list))?;
        }
        Ok(())
    }
}

/// Parts of a permutation for a kernel: addresses, 0 for absent ones.
struct LuArguments {
    index: u64,
    inverse: u64,
    sign: u64,
    lower: u64,
    upper: u64,
    log_s: u64,
    constants: Arc<Block>,
}

impl LuArguments {
    /// A permutation's parts, given the address of the parameters.
    fn new(queue: &Queue, at: &PermutationParams, params: u64) -> Result<Self> {
        let (index, sign, spans): (_, &[f64], _) = match at {
            PermutationParams::Fixed { index } => (index, &[], None),
            PermutationParams::Lu { index, sign, lower, upper, log_s } => {
                (index, sign, Some([*lower, *upper, *log_s]))
            }
        };
        let channels = index.len();
        let mut words = vec![0; 2 * channels];
        for (i, &from) in index.iter().enumerate() {
            words[i] = from as u32;
            words[channels + from] = i as u32;
        }
        words.extend(sign.iter().map(|&sign| (sign as f32).to_bits()));
        let constants = queue.gpu.constant(words)?;
        let word = |at: usize| constants.address + 4 * at as u64;
        let address = |span: Span| params + 4 * span.start as u64;
        let [lower, upper, log_s] = spans.map_or([0; 3], |spans| spans.map(address));
        Ok(Self {
            index: word(0),
            inverse: word(channels),
            sign: if spans.is_some() { word(2 * channels) } else { 0 },
            lower,
            upper,
            log_s,
            constants,
        })
    }
}

impl ChannelMap {
    /// A map that is computed later. `params` is read only then, and any code that writes to it must flush
    /// deferred work first.
    fn prepare(
        queue: &Queue,
        params: &ChannelMapParams,
        buffer: &Buffer,
        direction: Direction,
    ) -> Result<Option<Self>> {
        let Some(params_block) = buffer.block() else { return Ok(None) };
        let channels = params.channels;
        if channels > MAX_CHANNELS {
            return Err(DeviceError::Failed {
                device: queue.gpu.context.name.clone(),
                reason: format!(
                    "a channel map of {channels} channels exceeds the kernels' limit of {MAX_CHANNELS}"
                ),
            });
        }
        let matrices = if direction == Direction::Backward { 2 } else { 1 };
        let block = Arc::new(queue.floats(4 + stride_of(channels) * (1 + matrices * stride_of(channels)))?);
        let map = Self { channels, direction, block };
        let lu = LuArguments::new(queue, &params.permutation, buffer.address())?;
        let kinds: &[_] = match direction {
            Direction::Forward => &[(Kind::Forward, map.matrix())],
            Direction::Inverse => &[(Kind::Inverse, map.matrix())],
            Direction::Backward => &[(Kind::Inverse, map.matrix()), (Kind::ByRows, map.by_rows())],
        };
        for &(kind, matrix) in kinds {
            let job = MatrixJob {
                index: lu.index,
                sign: lu.sign,
                lower: lu.lower,
                upper: lu.upper,
                log_s: lu.log_s,
                bias: buffer.at(params.actnorm.bias.start),
                logs: buffer.at(params.actnorm.logs.start),
                matrix,
                offset: map.offset(),
                log_det: map.log_det(),
                channels: channels as i32,
                kind: kind as i32,
                factors_fit: i32::from(factors_fit(channels)),
                unused: 0,
            };
            let held = [Arc::clone(&map.block), Arc::clone(params_block), Arc::clone(&lu.constants)];
            queue.defer(PendingMatrix { job, _held: held });
        }
        Ok(Some(map))
    }

    /// One `f64`, of one pixel; only for the forward direction.
    fn log_det(&self) -> u64 {
        self.block.address
    }

    fn offset(&self) -> u64 {
        self.block.address + 16
    }

    /// In the form in which it is applied.
    fn matrix(&self) -> u64 {
        self.offset() + 4 * stride_of(self.channels) as u64
    }

    /// In the backward pass, the forward map by rows instead of columns: applied, it is the transpose, which
    /// propagates gradients.
    fn by_rows(&self) -> u64 {
        self.matrix() + 4 * stride_of(self.channels).pow(2) as u64
    }

    /// Applies the map in place; in the forward direction it adds its log-determinant to `logp`, if given.
    fn run(&self, queue: &Queue, grid: Grid, x: u64, logp: Option<u64>) -> Result<()> {
        self.apply(queue, grid, self.matrix(), self.offset(), x, logp)
    }

    fn apply(
        &self,
        queue: &Queue,
        grid: Grid,
        matrix: u64,
        offset: u64,
        x: u64,
        logp: Option<u64>,
    ) -> Result<()> {
        const THREADS: usize = 128;
        let (rows, channels, stride) = (grid.rows(), self.channels, stride_of(self.channels));
        let (log_det, logp) = match (self.direction, logp) {
            (Direction::Forward, Some(logp)) => (self.log_det(), logp),
            _ => (0, 0),
        };
        // A thread computes four numbers of two rows.
        let numbers = 2 * 4 * THREADS;
        if 4 * (stride * stride + numbers.max(2 * stride)) > SHARED {
            // The matrix does not fit shared memory.
            let (y, at_once) = (queue.floats(rows * channels)?, channels.min(1024));
            let shape = Launch::grid(rows.div_ceil(8), channels.div_ceil(32), 1);
            launch!(
                queue, queue.kernels().affine_wide, Launch { shared: (4 * 8 * at_once) as u32, ..shape };
                rows, channels, at_once, matrix, offset, x, y.address, grid.batch, grid.pixels(), log_det,
                logp
            )?;
            return queue.stream.copy(y.address, x, 4 * rows * channels);
        }
        // Few rows are still distributed over many blocks.
        let blocks = 2 * queue.gpu.context.multiprocessors;
        let tile = (numbers / stride / 2 * 2).min(rows.div_ceil(blocks).next_multiple_of(2)).max(2);
        let shared = 4 * stride * (tile + stride);
        launch!(
            queue, queue.kernels().affine,
            Launch { block: THREADS as u32, shared: shared as u32, ..Launch::blocks(rows.div_ceil(tile)) };
            rows, channels, tile, matrix, offset, x, grid.batch, grid.pixels(), log_det, logp
        )
    }

    /// Replaces the output `x` by the input, and likewise `dx`, and adds the parameters' gradients to
    /// `gradient`.
    #[allow(clippy::too_many_arguments)]
    fn backward(
        &self,
        queue: &Queue,
        params: &ChannelMapParams,
        buffer: &Buffer,
        grid: Grid,
        x: u64,
        dx: u64,
        dlogp: f64,
        gradient: &Buffer,
    ) -> Result<()> {
        let buffers = [buffer, gradient];
        let [buffer, gradient] = buffers.map(Buffer::address);
        if self.direction != Direction::Backward {
            panic!("a channel map that was not prepared for the backward pass has no gradient");
        }
        let (rows, channels, width) = (grid.rows(), self.channels, self.channels + 1);
        let sums = queue.floats(channels * width)?;
        let (partial, slabs) = if channels <= FEW_CHANNELS {
            self.fused_backward(queue, rows, x, dx)?
        } else {
            self.run(queue, grid, x, None)?;
            let (slabs, slab) = Queue::slabs(rows);
            let partial = queue.floats(slabs * channels * width)?;
            launch!(
                queue, queue.kernels().outer_sums,
                Launch::grid(slabs, channels.div_ceil(16), width.div_ceil(16));
                rows, channels, slab, dx, x, partial.address
            )?;
            self.apply(queue, grid, self.by_rows(), 0, dx, None)?;
            (partial, slabs)
        };
        // Nothing waits for the parameters' gradients.
        let side = queue.side_stream(Lane::Last)?;
        side.sum_slabs(channels * width, slabs, partial.address, sums.address)?;
        let lu = LuArguments::new(queue, &params.permutation, buffer)?;
        let LuArguments { inverse, sign, lower, upper, log_s, .. } = lu;
        let norm = params.actnorm;
        let [d_lower, d_upper, d_log_s] =
            [lower, upper, log_s].map(|from| if from == 0 { 0 } else { from - buffer + gradient });
        let kinds = if lower == 0 { 1 } else { 3 };
        launch!(
            side, queue.kernels().channel_map_gradient,
            Launch::grid(channels.div_ceil(8), kinds, channels.div_ceil(32));
            channels, inverse, sign, lower, upper, log_s, at(buffer, norm.bias), at(buffer, norm.logs),
            sums.address, self.by_rows(), dlogp * rows as f64, at(gradient, norm.bias),
            at(gradient, norm.logs), d_lower, d_upper, d_log_s
        )?;
        let own = vec![Arc::clone(&self.block), Arc::new(partial), Arc::new(sums)];
        queue.retire(own, &buffers)
    }

    /// Both products and the sums of slabs, `[slabs, channels, channels + 1]`, in one kernel; returns also
    /// the number of slabs.
    fn fused_backward(&self, queue: &Queue, rows: usize, x: u64, dx: u64) -> Result<(Block, usize)> {
        let (channels, stride) = (self.channels, stride_of(self.channels));
        // Slabs depend only on the number of rows, and therefore so do the sums.
        let slab = rows.div_ceil(512).max(16);
        let slabs = rows.div_ceil(slab);
        // Threads own squares of 4×4 sums, which in the widest map exceed the default number of threads per
        // block.
        let squares = stride / 4 * (channels / 4 + 1);
        let threads = squares.next_multiple_of(32).max(256);
        let per_row = 3 * stride + 4;
        let fitting = (SHARED / 4 - 2 * stride * stride) / per_row;
        let tile = slab.next_multiple_of(2).min(fitting / 2 * 2).min(128);
        let shared = (2 * stride * stride + tile * per_row).max(16 * threads);
        let partial = queue.floats(slabs * channels * (channels + 1))?;
        launch!(
            queue, queue.kernels().channel_map_fused_backward,
            Launch { block: threads as u32, shared: 4 * shared as u32, ..Launch::blocks(slabs) };
            rows, channels, slab, tile, self.matrix(), self.offset(), self.by_rows(), x, dx, partial.address
        )?;
        Ok((partial, slabs))
    }
}

impl super::ChannelMap for Cuda {
    type Map = Option<ChannelMap>;

    fn prepare_channel_map(
        &self,
        at: &ChannelMapParams,
        params: &Buffer,
        direction: Direction,
    ) -> Option<ChannelMap> {
        holds_parameters(params, at);
        self.make_ready(|queue| ChannelMap::prepare(queue, at, params, direction)).flatten()
    }

    fn channel_map(&self, map: &Option<ChannelMap>, grid: Grid, x: &mut Buffer, logp: Option<&mut Buffer>) {
        let Some(map) = map else { return };
        holds("x", x, grid.rows() * map.channels);
        if let Some(logp) = &logp {
            holds("logp", logp, grid.batch);
        }
        self.attempt(|queue| map.run(queue, grid, x.address(), logp.map(|logp| logp.address())));
    }

    fn channel_map_backward(
        &self,
        map: &Option<ChannelMap>,
        at: &ChannelMapParams,
        params: &Buffer,
        grid: Grid,
        x: &mut Buffer,
        dx: &mut Buffer,
        dlogp: f64,
        gradient: &mut Buffer,
    ) {
        holds_parameters(params, at);
        holds_parameters(gradient, at);
        holds("x", x, grid.rows() * at.channels);
        holds("dx", dx, grid.rows() * at.channels);
        let Some(map) = map else { return };
        self.attempt(|queue| {
            map.backward(queue, at, params, grid, x.address(), dx.address(), dlogp, gradient)
        });
    }
}
