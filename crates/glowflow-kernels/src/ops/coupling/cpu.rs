//! Image by image, and gradients row by row. Affine couplings are compiled for each form of the scale.

use rayon::prelude::*;

use super::{AffineScale, Coupling, CouplingKind};
use crate::cpu::{Buffer, Cpu, Scalar};
use crate::shape::Grid;

/// `sigmoid(t)` and its logarithm, both accurate at either end.
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
fn sigmoid_scale<T: Scalar>(r: T) -> Scaling<T> {
    let (scale, log_scale) = sigmoid(r + T::of(2.0));
    Scaling { scale, log_scale, slope: T::one() - scale }
}

/// [`AffineScale::Exp2Tanh`]. With `e = exp(−|r|)`, `tanh(|r|/2) = (1 − e)/(1 + e)`: its rounding is relative
/// to 1 instead of itself, as is the scale's in any case, and it is faster than the library's function.
fn exp2tanh_scale<T: Scalar>(r: T) -> Scaling<T> {
    let e = (-r.abs()).exp();
    let inverse = (T::one() + e).recip();
    let log_scale = (T::of(2.0) * (T::one() - e) * inverse).copysign(r);
    Scaling { scale: log_scale.exp(), log_scale, slope: T::of(4.0) * e * inverse * inverse }
}

/// Shift and scale of every element in the second half of a pixel.
fn affine<T: Scalar>(o: &[T], scale: impl Fn(T) -> Scaling<T>) -> impl Iterator<Item = (T, Scaling<T>)> {
    let (shift, r) = o.split_at(o.len() / 2);
    shift.iter().zip(r).map(move |(&shift, &r)| (shift, scale(r)))
}

fn couple_affine<T: Scalar>(
    grid: Grid,
    channels: usize,
    o: &[T],
    x: &mut [T],
    logp: &mut [T],
    scale: impl Fn(T) -> Scaling<T> + Sync,
) {
    let image = grid.pixels() * channels;
    x.par_chunks_mut(image).zip(o.par_chunks(image)).zip(logp).for_each(|((x, o), logp)| {
        let mut log_det = 0.0;
        for (x, o) in x.chunks_exact_mut(channels).zip(o.chunks_exact(channels)) {
            for (x, (shift, Scaling { scale, log_scale, .. })) in
                x[channels / 2..].iter_mut().zip(affine(o, &scale))
            {
                *x = (*x + shift) * scale;
                log_det += log_scale.wide();
            }
        }
        *logp += T::of(log_det);
    });
}

/// Minimum number of rows per task.
const ROWS: usize = 64;

/// Applies `f` to the second halves of the pixels of `x` and the network's outputs `o`, with `outputs` values
/// per pixel.
fn each_pixel<T: Scalar>(
    channels: usize,
    outputs: usize,
    o: &[T],
    x: &mut [T],
    f: impl Fn(&mut [T], &[T]) + Sync,
) {
    x.par_chunks_mut(channels)
        .zip(o.par_chunks(outputs))
        .with_min_len(ROWS)
        .for_each(|(x, o)| f(&mut x[channels / 2..], o));
}

fn uncouple_affine<T: Scalar>(channels: usize, o: &[T], x: &mut [T], scale: impl Fn(T) -> Scaling<T> + Sync) {
    each_pixel(channels, channels, o, x, |x, o| {
        x.iter_mut().zip(affine(o, &scale)).for_each(|(x, (shift, at))| *x = *x / at.scale - shift);
    });
}

/// `x`, `dx`, `o` and `d_o` of a coupling's backward pass.
struct Backward<'a, T> {
    channels: usize,
    x: &'a mut [T],
    dx: &'a mut [T],
    o: &'a [T],
    d_o: &'a mut [T],
}

impl<T: Scalar> Backward<'_, T> {
    /// Applies `f` to the second halves of the pixels of `x` and `dx`, and to the pixels of `o` and `d_o`,
    /// which have `outputs` elements.
    fn each_pixel(self, outputs: usize, f: impl Fn(&mut [T], &mut [T], &[T], &mut [T]) + Sync) {
        let half = self.channels / 2;
        self.x
            .par_chunks_mut(self.channels)
            .zip(self.dx.par_chunks_mut(self.channels))
            .zip(self.o.par_chunks(outputs))
            .zip(self.d_o.par_chunks_mut(outputs))
            .with_min_len(ROWS)
            .for_each(|(((x, dx), o), d_o)| f(&mut x[half..], &mut dx[half..], o, d_o));
    }

    fn affine(self, dlogp: T, scale: impl Fn(T) -> Scaling<T> + Sync) {
        let channels = self.channels;
        self.each_pixel(channels, |x, dx, o, d_o| {
            let (d_shift, d_r) = d_o.split_at_mut(channels / 2);
            for (i, (shift, at)) in affine(o, &scale).enumerate() {
                d_r[i] = (dx[i] * x[i] + dlogp) * at.slope;
                dx[i] *= at.scale;
                d_shift[i] = dx[i];
                x[i] = x[i] / at.scale - shift;
            }
        });
    }

    fn additive(self) {
        let outputs = self.channels / 2;
        self.each_pixel(outputs, |x, dx, o, d_o| {
            d_o.copy_from_slice(dx);
            x.iter_mut().zip(o).for_each(|(x, &o)| *x -= o);
        });
    }
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
                couple_affine(grid, channels, o, x, logp, sigmoid_scale);
            }
            CouplingKind::Affine(AffineScale::Exp2Tanh) => {
                couple_affine(grid, channels, o, x, logp, exp2tanh_scale);
            }
            CouplingKind::Additive => each_pixel(channels, channels / 2, o, x, |x, o| {
                x.iter_mut().zip(o).for_each(|(x, &o)| *x += o);
            }),
        }
    }

    fn uncouple(&self, kind: CouplingKind, channels: usize, o: &Buffer<T>, x: &mut Buffer<T>) {
        match kind {
            CouplingKind::Affine(AffineScale::Sigmoid) => uncouple_affine(channels, o, x, sigmoid_scale),
            CouplingKind::Affine(AffineScale::Exp2Tanh) => uncouple_affine(channels, o, x, exp2tanh_scale),
            CouplingKind::Additive => each_pixel(channels, channels / 2, o, x, |x, o| {
                x.iter_mut().zip(o).for_each(|(x, &o)| *x -= o);
            }),
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
        let (pass, dlogp) = (Backward { channels, x, dx, o, d_o }, T::of(dlogp));
        match kind {
            CouplingKind::Affine(AffineScale::Sigmoid) => pass.affine(dlogp, sigmoid_scale),
            CouplingKind::Affine(AffineScale::Exp2Tanh) => pass.affine(dlogp, exp2tanh_scale),
            CouplingKind::Additive => pass.additive(),
        }
    }
}
