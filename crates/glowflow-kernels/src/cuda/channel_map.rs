//! Actnorm and permutation as one affine map of each pixel's channels; the small matrices are made on the GPU.

use super::driver::{Argument, Launch};
use super::memory::Block;
use super::network::at;
use super::queue::{Queue, launch};
use crate::device::{DeviceError, Direction};
use crate::shape::{ChannelMapParams, Grid};

type Result<T> = std::result::Result<T, DeviceError>;

/// Floats of shared memory in which a block keeps rows.
const ROWS_IN_SHARED: usize = 8192;

/// Bytes of shared memory that a block gets without asking for more.
const SHARED: usize = 48 << 10;

/// The map `x ← M x + offset` of a pixel's channels.
pub struct ChannelMap {
    channels: usize,
    /// `[channels, channels]`, transposed.
    matrix: Block,
    offset: Block,
    /// One `f64`, of one pixel; the inverse has none.
    log_det: Option<Block>,
    /// On the way back, the map that `dy` goes through.
    transposed: Option<Box<ChannelMap>>,
}

impl ChannelMap {
    pub(super) fn prepare(
        queue: &Queue,
        params: &ChannelMapParams,
        buffer: u64,
        direction: Direction,
    ) -> Result<Self> {
        match direction {
            Direction::Forward => Self::fold(queue, params, buffer, true),
            Direction::Inverse => Self::invert(queue, params, buffer),
            Direction::Backward => {
                let transposed = Some(Box::new(Self::fold(queue, params, buffer, false)?));
                Ok(Self { transposed, ..Self::invert(queue, params, buffer)? })
            }
        }
    }

    /// The map forward, its matrix transposed, as it is applied, or not.
    fn fold(queue: &Queue, params: &ChannelMapParams, buffer: u64, transposed: bool) -> Result<Self> {
        let channels = params.channels;
        let lu = queue.permutation(&params.permutation, buffer)?;
        let (matrix, offset) = (queue.floats(channels * channels)?, queue.floats(channels)?);
        let log_det = queue.pool.take(8)?;
        launch!(
            queue, queue.kernels().fold_channel_map, Launch { block: 128, ..Launch::blocks(channels) };
            channels, lu.index, lu.sign, lu.lower, lu.upper, lu.log_s, at(buffer, params.actnorm.bias),
            at(buffer, params.actnorm.logs), i32::from(transposed), matrix.address, offset.address, log_det.address
        )?;
        Ok(Self { channels, matrix, offset, log_det: Some(log_det), transposed: None })
    }

    fn invert(queue: &Queue, params: &ChannelMapParams, buffer: u64) -> Result<Self> {
        let channels = params.channels;
        let lu = queue.permutation(&params.permutation, buffer)?;
        let (matrix, offset) = (queue.floats(channels * channels)?, queue.floats(channels)?);
        // A warp makes a column; four share what a block reads.
        const WARPS: usize = 4;
        let doubles = 8 * (1 + WARPS) * channels;
        let with_factors = doubles + 2 * 4 * channels * channels;
        let factors_fit = with_factors <= SHARED;
        let shared = if factors_fit { with_factors } else { doubles } as u32;
        launch!(
            queue, queue.kernels().invert_channel_map,
            Launch { block: 32 * WARPS as u32, shared, ..Launch::blocks(channels.div_ceil(WARPS)) };
            channels, i32::from(factors_fit), lu.index, lu.sign, lu.lower, lu.upper, lu.log_s, at(buffer, params.actnorm.bias),
            at(buffer, params.actnorm.logs), matrix.address, offset.address
        )?;
        Ok(Self { channels, matrix, offset, log_det: None, transposed: None })
    }

    /// Applies the map in place, and adds its log-determinant to `logp`, where given.
    pub(super) fn run(&self, queue: &Queue, grid: Grid, x: u64, logp: Option<u64>) -> Result<()> {
        self.apply(queue, grid, x, self.offset.address, logp)
    }

    fn apply(&self, queue: &Queue, grid: Grid, x: u64, offset: u64, logp: Option<u64>) -> Result<()> {
        let (rows, channels) = (grid.rows(), self.channels);
        // Few rows go to many blocks all the same: each row reads the whole matrix.
        let blocks = 2 * queue.gpu.context.multiprocessors;
        let tile = (ROWS_IN_SHARED / channels).min(rows.div_ceil(blocks)).clamp(1, 64);
        let log_det = self.log_det.as_ref().map_or(0, |block| block.address);
        let logp = if log_det == 0 { 0 } else { logp.unwrap_or(0) };
        let shape = Launch { shared: (4 * tile * channels) as u32, ..Launch::blocks(rows.div_ceil(tile)) };
        launch!(
            queue, queue.kernels().affine, shape;
            rows, channels, tile, self.matrix.address, offset, x, grid.batch, grid.pixels(), log_det, logp
        )
    }

    /// Turns the output `x` into the input and `dx` likewise, and adds the parameters' gradients to `gradient`.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn backward(
        &self,
        queue: &Queue,
        params: &ChannelMapParams,
        buffer: u64,
        grid: Grid,
        x: u64,
        dx: u64,
        dlogp: f64,
        gradient: u64,
    ) -> Result<()> {
        let (rows, channels) = (grid.rows(), params.channels);
        let Some(map) = &self.transposed else {
            panic!("a channel map that was not made for the way back has no gradient")
        };
        self.run(queue, grid, x, None)?;
        let width = channels + 1;
        let (slabs, slab) = Queue::slabs(rows);
        let (partial, sums) = (queue.floats(slabs * channels * width)?, queue.floats(channels * width)?);
        launch!(
            queue, queue.kernels().outer_sums, Launch::grid(slabs, channels.div_ceil(16), width.div_ceil(16));
            rows, channels, slab, dx, x, partial.address
        )?;
        queue.sum_slabs(channels * width, slabs, partial.address, sums.address)?;
        // Not transposed: applied, it is the transposed map, without the offset.
        map.apply(queue, grid, dx, 0, None)?;
        let lu = queue.permutation(&params.permutation, buffer)?;
        let norm = params.actnorm;
        let [d_lower, d_upper, d_log_s] =
            [lu.lower, lu.upper, lu.log_s].map(|from| if from == 0 { 0 } else { from - buffer + gradient });
        launch!(
            queue, queue.kernels().channel_map_gradient,
            Launch { shared: 16 * channels as u32, ..Launch::of(channels * channels) };
            channels, lu.inverse, lu.sign, lu.lower, lu.upper, lu.log_s, at(buffer, norm.bias), at(buffer, norm.logs),
            sums.address, map.matrix.address, dlogp * rows as f64, at(gradient, norm.bias), at(gradient, norm.logs), d_lower,
            d_upper, d_log_s
        )
    }
}
