//! Element-wise parts of a residual network, computed per row between two products: the norm, the gate, and
//! their gradients. The result of a row does not depend on other rows.

use crate::cpu::elementary::sigmoid;
use crate::cpu::isa::Task;
use crate::cpu::panels::{self, Cut};
use crate::cpu::{Element, Scalar};
use crate::ops::residual_network::EPSILON;
use crate::real::Real;

/// Number of partial sums per row, which the compiler can keep in vector registers.
const SUMS: usize = 32;

/// `Σ f(i)` over a row, in an order that depends only on its length.
#[inline(always)]
fn sum<T: Scalar>(len: usize, f: impl Fn(usize) -> T) -> T {
    let mut sums = [T::zero(); SUMS];
    let whole = len / SUMS * SUMS;
    for first in (0..whole).step_by(SUMS) {
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum += f(first + i);
        }
    }
    for i in whole..len {
        sums[i - whole] += f(i);
    }
    sums.into_iter().sum()
}

/// Computes `r` of a row.
#[inline(always)]
fn inverse_rms<T: Scalar>(row: &[T]) -> T {
    let mean = sum(row.len(), |i| row[i] * row[i]) / T::of(row.len() as f64);
    T::one() / (mean + T::of(EPSILON)).sqrt()
}

/// Fills a tile with `x·r ⊙ norm`.
pub struct Normalize<'a, E: Element> {
    /// `[rows, width]`
    pub x: &'a [E::Sum],
    /// `[width]`
    pub norm: &'a [E::Sum],
    pub cut: Cut,
    pub tile: &'a mut [E],
}

impl<E: Element> Task for Normalize<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { x, norm, cut, tile } = self;
        let width = cut.columns;
        panels::fill(cut, tile, |i, to| {
            let row = &x[i * width..(i + 1) * width];
            let r = inverse_rms(row);
            for ((to, &x), &norm) in to.iter_mut().zip(row).zip(norm) {
                *to = x * r * norm;
            }
        });
    }
}

/// Computes `x·r ⊙ norm + position` for one image.
pub struct Embed<'a, T> {
    /// `[pixels, width]`
    pub x: &'a [T],
    /// `[width]`
    pub norm: &'a [T],
    /// `[pixels, width]`
    pub position: &'a [T],
    /// `[pixels, width]`
    pub to: &'a mut [T],
}

impl<T: Scalar> Task for Embed<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { x, norm, position, to } = self;
        let width = norm.len();
        let rows = x.chunks_exact(width).zip(position.chunks_exact(width)).zip(to.chunks_exact_mut(width));
        for ((x, position), to) in rows {
            let r = inverse_rms(x);
            for (((to, &x), &norm), &position) in to.iter_mut().zip(x).zip(norm).zip(position) {
                *to = x * r * norm + position;
            }
        }
    }
}

/// Adds `p ⊙ sigmoid(g)` to `h`.
pub struct Gate<'a, T> {
    /// `[rows, width]`
    pub h: &'a mut [T],
    /// `[rows, 2·width]`: p, then g.
    pub gate: &'a [T],
    pub width: usize,
}

impl<T: Scalar> Task for Gate<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { h, gate, width } = self;
        for (h, gate) in h.chunks_exact_mut(width).zip(gate.chunks_exact(2 * width)) {
            let (p, g) = gate.split_at(width);
            for ((h, &p), &g) in h.iter_mut().zip(p).zip(g) {
                *h += p * sigmoid(g);
            }
        }
    }
}

/// Fills a tile with the gradient of `(p, g)`, given the block's output gradient.
pub struct GateBackward<'a, E: Element> {
    /// `[rows, 2·width]`
    pub gate: &'a [E::Sum],
    /// `[rows, width]`
    pub dh: &'a [E::Sum],
    pub width: usize,
    pub cut: Cut,
    pub tile: &'a mut [E],
}

impl<E: Element> Task for GateBackward<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { gate, dh, width, cut, tile } = self;
        panels::fill(cut, tile, |i, to| {
            let (p, g) = gate[2 * i * width..2 * (i + 1) * width].split_at(width);
            let dh = &dh[i * width..(i + 1) * width];
            let (by_p, by_g) = to.split_at_mut(width);
            for i in 0..width {
                let s = sigmoid(g[i]);
                by_p[i] = dh[i] * s;
                by_g[i] = dh[i] * p[i] * s * (E::Sum::of(1.0) - s);
            }
        });
    }
}

/// Converts the output gradient of [`Normalize`] to its input gradient; returns the gradient of `norm`.
pub struct NormalizeBackward<'a, T> {
    /// `[rows, width]`
    pub x: &'a [T],
    /// `[width]`
    pub norm: &'a [T],
    /// `[rows, width]`
    pub dy: &'a mut [T],
}

impl<T: Scalar> Task for NormalizeBackward<'_, T> {
    type Output = Vec<T>;

    #[inline(always)]
    fn run(self) -> Vec<T> {
        let Self { x, norm, dy } = self;
        let width = norm.len();
        let mut by_norm = vec![T::zero(); width];
        for (x, dy) in x.chunks_exact(width).zip(dy.chunks_exact_mut(width)) {
            let r = inverse_rms(x);
            let mean = sum(width, |i| dy[i] * norm[i] * x[i]) / T::of(width as f64);
            let pull = r * r * mean;
            for (((dy, &x), &norm), by_norm) in dy.iter_mut().zip(x).zip(norm).zip(&mut by_norm) {
                *by_norm += *dy * x * r;
                *dy = r * (*dy * norm - x * pull);
            }
        }
        by_norm
    }
}
