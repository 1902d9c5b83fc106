//! Image by image, and gradients in groups of rows. Affine couplings are compiled for each form of the scale
//! and each instruction set. They compute the scales of a block of pixels at once, in loops that the compiler
//! vectorises.

use rayon::prelude::*;

use super::{AffineScale, Coupling, CouplingKind};
use crate::cpu::isa::Task;
use crate::cpu::{Buffer, Cpu, Scalar};
use crate::shape::Grid;

/// `sigmoid(t)` and its logarithm, both accurate at either end.
#[inline(always)]
fn sigmoid<T: Scalar>(t: T) -> (T, T) {
    let e = (-t.abs()).exp();
    let numerator = if t < T::zero() { e } else { T::one() };
    (numerator / (T::one() + e), t.min(T::zero()) - e.ln_1p())
}

/// The scale of an affine coupling at one output `r` of its network.
struct Scaling<T> {
    scale: T,
    log_scale: T,
    /// Derivative of the log-scale with respect to `r`.
    slope: T,
}

/// [`AffineScale::Sigmoid`].
#[inline(always)]
fn sigmoid_scale<T: Scalar>(r: T) -> Scaling<T> {
    let (scale, log_scale) = sigmoid(r + T::of(2.0));
    Scaling { scale, log_scale, slope: T::one() - scale }
}

/// [`AffineScale::Exp2Tanh`]. With `e = exp(−|r|)`, `tanh(|r|/2) = (1 − e)/(1 + e)`: its rounding is relative
/// to 1 instead of itself, as is the scale's in any case, and it is faster than the library's function.
#[inline(always)]
fn exp2tanh_scale<T: Scalar>(r: T) -> Scaling<T> {
    let e = (-r.abs()).quick_exp();
    let inverse = (T::one() + e).recip();
    let log_scale = (T::of(2.0) * (T::one() - e) * inverse).copysign(r);
    Scaling { scale: log_scale.quick_exp(), log_scale, slope: T::of(4.0) * e * inverse * inverse }
}

/// Elements per block, in the second halves of its pixels. Their scales fit the first-level cache.
const BLOCK: usize = 512;
/// Minimum number of rows per task of an additive coupling.
const ROWS: usize = 64;

/// The scales of a block of pixels.
struct Scales<T> {
    channels: usize,
    /// The network's outputs `r`.
    r: Vec<T>,
    scale: Vec<T>,
    log_scale: Vec<T>,
    slope: Vec<T>,
}

impl<T: Scalar> Scales<T> {
    fn new(channels: usize) -> Self {
        let zeros = || vec![T::zero(); block(channels) / 2];
        Self { channels, r: zeros(), scale: zeros(), log_scale: zeros(), slope: zeros() }
    }

    /// Number of channels, of those that change, and of elements of a block.
    fn sizes(&self) -> (usize, usize, usize) {
        (self.channels, self.channels / 2, block(self.channels))
    }

    /// Computes the scales for the pixels of `o`, at most a block, and returns the number of scales.
    #[inline(always)]
    fn compute(&mut self, o: &[T], scaling: &impl Fn(T) -> Scaling<T>) -> usize {
        let Self { channels, r, scale, log_scale, slope } = self;
        let (half, count) = (*channels / 2, o.len() / 2);
        for (r, o) in r.chunks_exact_mut(half).zip(o.chunks_exact(*channels)) {
            r.copy_from_slice(&o[half..]);
        }
        let outputs = scale.iter_mut().zip(log_scale).zip(slope);
        for (((scale, log_scale), slope), &r) in outputs.zip(&r[..count]) {
            let at = scaling(r);
            (*scale, *log_scale, *slope) = (at.scale, at.log_scale, at.slope);
        }
        count
    }
}

/// Number of elements in a block of pixels: [`BLOCK`] or a little fewer in their second halves, or one pixel.
fn block(channels: usize) -> usize {
    (2 * BLOCK / channels).max(1) * channels
}

/// Some rows of an affine coupling.
struct Rows<'a, T, F> {
    x: &'a mut [T],
    o: &'a [T],
    scaling: &'a F,
    /// Overwritten.
    scales: &'a mut Scales<T>,
}

struct Forward<'a, T, F>(Rows<'a, T, F>);

impl<T: Scalar, F: Fn(T) -> Scaling<T>> Task for Forward<'_, T, F> {
    /// The log-determinant.
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        let Rows { x, o, scaling, scales } = self.0;
        let (channels, half, block) = scales.sizes();
        let mut log_det = 0.0;
        for (x, o) in x.chunks_mut(block).zip(o.chunks(block)) {
            let count = scales.compute(o, scaling);
            let pixels = x.chunks_exact_mut(channels).zip(o.chunks_exact(channels));
            for ((x, o), scale) in pixels.zip(scales.scale.chunks_exact(half)) {
                for ((x, &shift), &scale) in x[half..].iter_mut().zip(o).zip(scale) {
                    *x = (*x + shift) * scale;
                }
            }
            scales.log_scale[..count].iter().for_each(|log_scale| log_det += log_scale.wide());
        }
        log_det
    }
}

struct Inverse<'a, T, F>(Rows<'a, T, F>);

impl<T: Scalar, F: Fn(T) -> Scaling<T>> Task for Inverse<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Rows { x, o, scaling, scales } = self.0;
        let (channels, half, block) = scales.sizes();
        for (x, o) in x.chunks_mut(block).zip(o.chunks(block)) {
            scales.compute(o, scaling);
            let pixels = x.chunks_exact_mut(channels).zip(o.chunks_exact(channels));
            for ((x, o), scale) in pixels.zip(scales.scale.chunks_exact(half)) {
                for ((x, &shift), &scale) in x[half..].iter_mut().zip(o).zip(scale) {
                    *x = *x / scale - shift;
                }
            }
        }
    }
}

struct Backward<'a, T, F> {
    rows: Rows<'a, T, F>,
    dx: &'a mut [T],
    d_o: &'a mut [T],
    dlogp: T,
}

impl<T: Scalar, F: Fn(T) -> Scaling<T>> Task for Backward<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { rows: Rows { x, o, scaling, scales }, dx, d_o, dlogp } = self;
        let (channels, half, block) = scales.sizes();
        let blocks = x.chunks_mut(block).zip(dx.chunks_mut(block)).zip(o.chunks(block));
        for (((x, dx), o), d_o) in blocks.zip(d_o.chunks_mut(block)) {
            scales.compute(o, scaling);
            let pixels = x.chunks_exact_mut(channels).zip(dx.chunks_exact_mut(channels));
            let outputs = o.chunks_exact(channels).zip(d_o.chunks_exact_mut(channels));
            let scales = scales.scale.chunks_exact(half).zip(scales.slope.chunks_exact(half));
            for (((x, dx), (o, d_o)), (scale, slope)) in pixels.zip(outputs).zip(scales) {
                let (x, dx) = (&mut x[half..], &mut dx[half..]);
                let (d_shift, d_r) = d_o.split_at_mut(half);
                for i in 0..half {
                    d_r[i] = (dx[i] * x[i] + dlogp) * slope[i];
                    dx[i] *= scale[i];
                    d_shift[i] = dx[i];
                    x[i] = x[i] / scale[i] - o[i];
                }
            }
        }
    }
}

impl<T: Scalar> Cpu<T> {
    fn couple_affine(
        &self,
        grid: Grid,
        channels: usize,
        o: &[T],
        x: &mut [T],
        logp: &mut [T],
        scaling: &(impl Fn(T) -> Scaling<T> + Sync),
    ) {
        let image = grid.pixels() * channels;
        x.par_chunks_mut(image).zip(o.par_chunks(image)).zip(logp).for_each_init(
            || Scales::new(channels),
            |scales, ((x, o), logp)| {
                *logp += T::of(self.work.run(Forward(Rows { x, o, scaling, scales })));
            },
        );
    }

    fn uncouple_affine(
        &self,
        channels: usize,
        o: &[T],
        x: &mut [T],
        scaling: &(impl Fn(T) -> Scaling<T> + Sync),
    ) {
        let block = block(channels);
        x.par_chunks_mut(block).zip(o.par_chunks(block)).for_each_init(
            || Scales::new(channels),
            |scales, (x, o)| self.work.run(Inverse(Rows { x, o, scaling, scales })),
        );
    }

    fn affine_backward(
        &self,
        channels: usize,
        (x, dx): (&mut [T], &mut [T]),
        (o, d_o): (&[T], &mut [T]),
        dlogp: T,
        scaling: &(impl Fn(T) -> Scaling<T> + Sync),
    ) {
        let block = block(channels);
        x.par_chunks_mut(block)
            .zip(dx.par_chunks_mut(block))
            .zip(o.par_chunks(block))
            .zip(d_o.par_chunks_mut(block))
            .for_each_init(
                || Scales::new(channels),
                |scales, (((x, dx), o), d_o)| {
                    self.work.run(Backward { rows: Rows { x, o, scaling, scales }, dx, d_o, dlogp });
                },
            );
    }
}

/// Applies `f` to the second halves of the pixels of `x` and the outputs `o` of an additive coupling's network.
fn add<T: Scalar>(channels: usize, o: &[T], x: &mut [T], f: impl Fn(&mut T, T) + Sync) {
    x.par_chunks_mut(channels)
        .zip(o.par_chunks(channels / 2))
        .with_min_len(ROWS)
        .for_each(|(x, o)| x[channels / 2..].iter_mut().zip(o).for_each(|(x, &o)| f(x, o)));
}

impl<T: Scalar> Coupling for Cpu<T> {
    fn couple(
        &self,
        kind: CouplingKind,
        grid: Grid,
        channels: usize,
        o: &Buffer<T>,
        x: &mut Buffer<T>,
        logp: &mut Buffer<T>,
    ) {
        match kind {
            CouplingKind::Affine(AffineScale::Sigmoid) => {
                self.couple_affine(grid, channels, o, x, logp, &sigmoid_scale);
            }
            CouplingKind::Affine(AffineScale::Exp2Tanh) => {
                self.couple_affine(grid, channels, o, x, logp, &exp2tanh_scale);
            }
            CouplingKind::Additive => add(channels, o, x, |x, o| *x += o),
        }
    }

    fn uncouple(&self, kind: CouplingKind, channels: usize, o: &Buffer<T>, x: &mut Buffer<T>) {
        match kind {
            CouplingKind::Affine(AffineScale::Sigmoid) => {
                self.uncouple_affine(channels, o, x, &sigmoid_scale)
            }
            CouplingKind::Affine(AffineScale::Exp2Tanh) => {
                self.uncouple_affine(channels, o, x, &exp2tanh_scale)
            }
            CouplingKind::Additive => add(channels, o, x, |x, o| *x -= o),
        }
    }

    fn couple_backward(
        &self,
        kind: CouplingKind,
        channels: usize,
        o: &Buffer<T>,
        x: &mut Buffer<T>,
        dx: &mut Buffer<T>,
        dlogp: f64,
        d_o: &mut Buffer<T>,
    ) {
        let dlogp = T::of(dlogp);
        match kind {
            CouplingKind::Affine(AffineScale::Sigmoid) => {
                self.affine_backward(channels, (x, dx), (o, d_o), dlogp, &sigmoid_scale);
            }
            CouplingKind::Affine(AffineScale::Exp2Tanh) => {
                self.affine_backward(channels, (x, dx), (o, d_o), dlogp, &exp2tanh_scale);
            }
            CouplingKind::Additive => {
                add(channels, o, x, |x, o| *x -= o);
                d_o.par_chunks_mut(channels / 2)
                    .zip(dx.par_chunks(channels))
                    .with_min_len(ROWS)
                    .for_each(|(d_o, dx)| d_o.copy_from_slice(&dx[channels / 2..]));
            }
        }
    }
}
