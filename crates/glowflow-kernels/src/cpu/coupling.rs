//! The element-wise part of a coupling.
//!
//! Affine, with `t = o[C/2..] + 2` and `s = sigmoid(t)`: `y = (x + shift)·s`, `log|det| = Σ log s`. For the
//! gradient, `∂ log s / ∂t = 1 − s` turns `dy·(x + shift)·s·(1 − s)` into `dy·y·(1 − s)`: no division.

use rayon::prelude::*;

use crate::real::Real;
use crate::shape::{CouplingKind, Grid};

/// `sigmoid(t)` and its logarithm, both accurate at either end.
fn sigmoid<T: Real>(t: T) -> (T, T) {
    let e = (-t.abs()).exp();
    let numerator = if t < T::zero() { e } else { T::one() };
    (numerator / (T::one() + e), t.min(T::zero()) - e.ln_1p())
}

/// Shift, scale and log-scale of every element of one pixel's second half.
fn affine<T: Real>(o: &[T]) -> impl Iterator<Item = (T, T, T)> + '_ {
    let (shift, t) = o.split_at(o.len() / 2);
    shift.iter().zip(t).map(|(&shift, &t)| {
        let (scale, log_scale) = sigmoid(t + T::of(2.0));
        (shift, scale, log_scale)
    })
}

pub fn couple<T: Real>(
    kind: CouplingKind,
    grid: Grid,
    channels: usize,
    o: &[T],
    x: &mut [T],
    logp: &mut [T],
) {
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

pub fn uncouple<T: Real>(kind: CouplingKind, channels: usize, o: &[T], x: &mut [T]) {
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

pub fn backward<T: Real>(
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
