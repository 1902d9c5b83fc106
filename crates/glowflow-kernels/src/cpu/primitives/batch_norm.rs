//! Batch normalisation with a ReLU ([`crate::batch_norm`]): one pass over memory each for the moments, the
//! forward pass, the sums of the backward pass, and its result.
//!
//! Up to 32 channels are processed together, so that sums and per-channel values stay in registers. Slabs of
//! [`SLAB`] rows are summed in `T` and accumulated in `f64`. Both partitions depend only on the shape, so the
//! bits do not depend on the number of threads.

use rayon::prelude::*;

use crate::batch_norm::BatchNorm;
use crate::cpu::Scalar;
use crate::cpu::Workspace;
use crate::cpu::isa::Task;

/// Rows summed in the precision of the activations.
const SLAB: usize = 64;

/// Rows per unit of work of a thread.
const PART: usize = 16 * SLAB;

/// Calls a function for groups of channels, each given by `first` and a constant number.
macro_rules! for_pieces {
    ($channels:expr, |$first:ident, $len:ident| $body:expr) => {{
        let (mut $first, channels) = (0, $channels);
        while $first < channels {
            match channels - $first {
                32.. => {
                    const $len: usize = 32;
                    $body;
                    $first += $len;
                }
                16.. => {
                    const $len: usize = 16;
                    $body;
                    $first += $len;
                }
                8.. => {
                    const $len: usize = 8;
                    $body;
                    $first += $len;
                }
                _ => {
                    const $len: usize = 1;
                    $body;
                    $first += $len;
                }
            }
        }
    }};
}

/// Channels `first..first + LEN` of a row.
#[inline(always)]
fn piece<T: Scalar, const LEN: usize>(row: &[T], first: usize) -> [T; LEN] {
    let mut out = [T::zero(); LEN];
    out.copy_from_slice(&row[first..first + LEN]);
    out
}

/// Means and sums of squared differences from the mean, over a range of rows.
struct Moments {
    rows: usize,
    mean: Vec<f64>,
    squares: Vec<f64>,
}

impl Moments {
    /// Merges the moments of further rows of channel `c` (Chan, Golub and LeVeque 1979); the caller counts
    /// the rows.
    #[inline(always)]
    fn add(&mut self, c: usize, before: usize, rows: usize, mean: f64, squares: f64) {
        let (all, delta) = ((before + rows) as f64, mean - self.mean[c]);
        self.mean[c] += delta * rows as f64 / all;
        self.squares[c] += squares + delta * delta * before as f64 * rows as f64 / all;
    }
}

/// Mean and variance of each channel.
pub fn moments<T: Scalar>(work: &Workspace<T>, norm: BatchNorm, x: &[T], out: &mut [T]) {
    let c = norm.channels;
    let parts: Vec<Moments> =
        x.par_chunks(PART * c).map(|x| work.run(PartMoments { channels: c, x })).collect();
    let mut all = Moments { rows: 0, mean: vec![0.0; c], squares: vec![0.0; c] };
    for part in parts {
        for channel in 0..c {
            all.add(channel, all.rows, part.rows, part.mean[channel], part.squares[channel]);
        }
        all.rows += part.rows;
    }
    let (mean, variance) = out.split_at_mut(c);
    mean.iter_mut().zip(&all.mean).for_each(|(to, &mean)| *to = T::of(mean));
    let rows = norm.rows as f64;
    variance.iter_mut().zip(&all.squares).for_each(|(to, &squares)| *to = T::of(squares / rows));
}

struct PartMoments<'a, T> {
    channels: usize,
    x: &'a [T],
}

impl<T: Scalar> Task for PartMoments<'_, T> {
    type Output = Moments;

    #[inline(always)]
    fn run(self) -> Moments {
        let Self { channels, x } = self;
        let mut moments =
            Moments { rows: x.len() / channels, mean: vec![0.0; channels], squares: vec![0.0; channels] };
        for (slab, x) in x.chunks(SLAB * channels).enumerate() {
            let rows = x.len() / channels;
            let share = T::of(1.0 / rows as f64);
            for_pieces!(channels, |first, LEN| {
                let mut mean = [T::zero(); LEN];
                for row in x.chunks_exact(channels) {
                    let row = piece::<T, LEN>(row, first);
                    mean.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
                }
                mean.iter_mut().for_each(|mean| *mean *= share);
                let mut squares = [T::zero(); LEN];
                for row in x.chunks_exact(channels) {
                    let row = piece::<T, LEN>(row, first);
                    for i in 0..LEN {
                        let from_mean = row[i] - mean[i];
                        squares[i] += from_mean * from_mean;
                    }
                }
                for i in 0..LEN {
                    moments.add(first + i, slab * SLAB, rows, mean[i].wide(), squares[i].wide());
                }
            });
        }
        moments
    }
}

/// Statistics and bias of each channel.
#[derive(Clone, Copy)]
pub struct Normalizer<'a, T> {
    pub mean: &'a [T],
    pub inverse: &'a [T],
    pub bias: &'a [T],
}

/// Statistics and bias of a group of channels.
#[derive(Clone, Copy)]
struct Normal<T, const LEN: usize> {
    mean: [T; LEN],
    inverse: [T; LEN],
    bias: [T; LEN],
}

impl<T: Scalar> Normalizer<'_, T> {
    #[inline(always)]
    fn piece<const LEN: usize>(&self, first: usize) -> Normal<T, LEN> {
        Normal {
            mean: piece(self.mean, first),
            inverse: piece(self.inverse, first),
            bias: piece(self.bias, first),
        }
    }
}

impl<T: Scalar, const LEN: usize> Normal<T, LEN> {
    /// x̂ of element `i`.
    #[inline(always)]
    fn standardized(&self, i: usize, x: T) -> T {
        (x - self.mean[i]) * self.inverse[i]
    }

    /// The gradient of the normalised value, masked by the ReLU.
    #[inline(always)]
    fn gradient(&self, i: usize, standardized: T, dy: T) -> T {
        if standardized + self.bias[i] > T::zero() { dy } else { T::zero() }
    }
}

/// `y = ReLU(norm(x))`.
pub fn norm_relu<T: Scalar>(work: &Workspace<T>, by: Normalizer<'_, T>, x: &[T], y: &mut [T]) {
    let part = PART / 4 * by.mean.len();
    y.par_chunks_mut(part).zip(x.par_chunks(part)).for_each(|(y, x)| work.run(Forward { by, x, y }));
}

struct Forward<'a, 'b, T> {
    by: Normalizer<'a, T>,
    x: &'a [T],
    y: &'b mut [T],
}

impl<T: Scalar> Task for Forward<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { by, x, y } = self;
        let channels = by.mean.len();
        for_pieces!(channels, |first, LEN| {
            let by = by.piece::<LEN>(first);
            for (y, x) in y.chunks_exact_mut(channels).zip(x.chunks_exact(channels)) {
                let x = piece::<T, LEN>(x, first);
                let y = &mut y[first..first + LEN];
                for i in 0..LEN {
                    let value = by.standardized(i, x[i]) + by.bias[i];
                    // NaN stays NaN.
                    y[i] = if value < T::zero() { T::zero() } else { value };
                }
            }
        });
    }
}

/// Σ g and Σ g·x̂ of each channel.
pub fn gradient_sums<T: Scalar>(
    work: &Workspace<T>,
    by: Normalizer<'_, T>,
    x: &[T],
    dy: &[T],
    out: &mut [T],
) {
    let channels = by.mean.len();
    let parts: Vec<Vec<f64>> = x
        .par_chunks(PART * channels)
        .zip(dy.par_chunks(PART * channels))
        .map(|(x, dy)| work.run(PartSums { by, x, dy }))
        .collect();
    for (i, to) in out.iter_mut().enumerate() {
        *to = T::of(parts.iter().map(|part| part[i]).sum());
    }
}

struct PartSums<'a, T> {
    by: Normalizer<'a, T>,
    x: &'a [T],
    dy: &'a [T],
}

impl<T: Scalar> Task for PartSums<'_, T> {
    type Output = Vec<f64>;

    #[inline(always)]
    fn run(self) -> Vec<f64> {
        let Self { by, x, dy } = self;
        let channels = by.mean.len();
        let mut out = vec![0.0; 2 * channels];
        for (x, dy) in x.chunks(SLAB * channels).zip(dy.chunks(SLAB * channels)) {
            for_pieces!(channels, |first, LEN| {
                let by = by.piece::<LEN>(first);
                let (mut sums, mut products) = ([T::zero(); LEN], [T::zero(); LEN]);
                for (x, dy) in x.chunks_exact(channels).zip(dy.chunks_exact(channels)) {
                    let (x, dy) = (piece::<T, LEN>(x, first), piece::<T, LEN>(dy, first));
                    for i in 0..LEN {
                        let standardized = by.standardized(i, x[i]);
                        let g = by.gradient(i, standardized, dy[i]);
                        sums[i] += g;
                        products[i] += g * standardized;
                    }
                }
                for i in 0..LEN {
                    out[first + i] += sums[i].wide();
                    out[channels + first + i] += products[i].wide();
                }
            });
        }
        out
    }
}

/// The input gradient, given Σ g/rows and Σ g·x̂/rows, or zeros if the statistics are constants.
pub fn by_input<T: Scalar>(
    work: &Workspace<T>,
    by: Normalizer<'_, T>,
    means: &[T],
    (x, dy): (&[T], &[T]),
    dx: &mut [T],
    accumulate: bool,
) {
    let part = PART / 4 * by.mean.len();
    dx.par_chunks_mut(part).zip(x.par_chunks(part)).zip(dy.par_chunks(part)).for_each(|((dx, x), dy)| {
        if accumulate {
            work.run(Backward::<T, true> { by, means, x, dy, dx });
        } else {
            work.run(Backward::<T, false> { by, means, x, dy, dx });
        }
    });
}

struct Backward<'a, 'b, T, const ACCUMULATE: bool> {
    by: Normalizer<'a, T>,
    means: &'a [T],
    x: &'a [T],
    dy: &'a [T],
    dx: &'b mut [T],
}

impl<T: Scalar, const ACCUMULATE: bool> Task for Backward<'_, '_, T, ACCUMULATE> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { by, means, x, dy, dx } = self;
        let channels = by.mean.len();
        for_pieces!(channels, |first, LEN| {
            let by = by.piece::<LEN>(first);
            let (mean, product) = (piece::<T, LEN>(means, first), piece::<T, LEN>(means, channels + first));
            let rows = x.chunks_exact(channels).zip(dy.chunks_exact(channels));
            for (dx, (x, dy)) in dx.chunks_exact_mut(channels).zip(rows) {
                let (x, dy) = (piece::<T, LEN>(x, first), piece::<T, LEN>(dy, first));
                let dx = &mut dx[first..first + LEN];
                for i in 0..LEN {
                    let standardized = by.standardized(i, x[i]);
                    let g = by.gradient(i, standardized, dy[i]);
                    let by_input = by.inverse[i] * (g - (mean[i] + standardized * product[i]));
                    dx[i] = if ACCUMULATE { dx[i] + by_input } else { by_input };
                }
            }
        });
    }
}
