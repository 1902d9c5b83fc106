//! Image by image, and gradients row by row.

use rayon::prelude::*;

use super::{Coupling, CouplingKind};
use crate::cpu::{Buffer, Cpu, Scalar};
use crate::shape::Grid;

/// `sigmoid(t)` and its logarithm, both accurate at either end.
fn sigmoid<T: Scalar>(t: T) -> (T, T) {
    let e = (-t.abs()).exp();
    let numerator = if t < T::zero() { e } else { T::one() };
    (numerator / (T::one() + e), t.min(T::zero()) - e.ln_1p())
}

/// Shift, scale and log-scale of every element of one pixel's second half.
fn affine<T: Scalar>(o: &[T]) -> impl Iterator<Item = (T, T, T)> + '_ {
    let (shift, t) = o.split_at(o.len() / 2);
    shift.iter().zip(t).map(|(&shift, &t)| {
        let (scale, log_scale) = sigmoid(t + T::of(2.0));
        (shift, scale, log_scale)
    })
}

fn couple<T: Scalar>(kind: CouplingKind, grid: Grid, channels: usize, o: &[T], x: &mut [T], logp: &mut [T]) {
    let outputs = kind.network_outputs(channels);
    x.par_chunks_mut(grid.pixels() * channels).zip(o.par_chunks(grid.pixels() * outputs)).zip(logp).for_each(
        |((x, o), logp)| {
            let mut log_det = 0.0;
            for (x, o) in x.chunks_exact_mut(channels).zip(o.chunks_exact(outputs)) {
                let x = &mut x[channels / 2..];
                match kind {
                    CouplingKind::Affine => {
                        for (x, (shift, scale, log_scale)) in x.iter_mut().zip(affine(o)) {
                            *x = (*x + shift) * scale;
                            log_det += log_scale.wide();
                        }
                    }
                    CouplingKind::Additive => x.iter_mut().zip(o).for_each(|(x, &o)| *x += o),
                }
            }
            *logp += T::of(log_det);
        },
    );
}

/// Rows that one task takes at least.
const ROWS: usize = 64;

fn uncouple<T: Scalar>(kind: CouplingKind, channels: usize, o: &[T], x: &mut [T]) {
    let outputs = kind.network_outputs(channels);
    x.par_chunks_mut(channels).zip(o.par_chunks(outputs)).with_min_len(ROWS).for_each(|(x, o)| {
        let x = &mut x[channels / 2..];
        match kind {
            CouplingKind::Affine => {
                x.iter_mut().zip(affine(o)).for_each(|(x, (shift, scale, _))| *x = *x / scale - shift);
            }
            CouplingKind::Additive => x.iter_mut().zip(o).for_each(|(x, &o)| *x -= o),
        }
    });
}

fn backward<T: Scalar>(
    kind: CouplingKind,
    channels: usize,
    o: &[T],
    x: &mut [T],
    dx: &mut [T],
    dlogp: f64,
    d_o: &mut [T],
) {
    let outputs = kind.network_outputs(channels);
    let (half, dlogp) = (channels / 2, T::of(dlogp));
    x.par_chunks_mut(channels)
        .zip(dx.par_chunks_mut(channels))
        .zip(o.par_chunks(outputs))
        .zip(d_o.par_chunks_mut(outputs))
        .with_min_len(ROWS)
        .for_each(|(((x, dx), o), d_o)| {
            let (x, dx) = (&mut x[half..], &mut dx[half..]);
            match kind {
                CouplingKind::Affine => {
                    let (d_shift, d_t) = d_o.split_at_mut(half);
                    for (i, (shift, scale, _)) in affine(o).enumerate() {
                        d_t[i] = (dx[i] * x[i] + dlogp) * (T::one() - scale);
                        dx[i] *= scale;
                        d_shift[i] = dx[i];
                        x[i] = x[i] / scale - shift;
                    }
                }
                CouplingKind::Additive => {
                    d_o.copy_from_slice(dx);
                    x.iter_mut().zip(o).for_each(|(x, &o)| *x -= o);
                }
            }
        });
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
        couple(kind, grid, channels, o, x, logp);
    }

    fn uncouple(&self, kind: CouplingKind, channels: usize, o: &Buffer<T>, x: &mut Buffer<T>) {
        uncouple(kind, channels, o, x);
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
        backward(kind, channels, o, x, dx, dlogp, d_o);
    }
}
