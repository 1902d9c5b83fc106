//! Matrix products: activations by packed weights with a fused epilogue, and weight gradients.
//!
//! [`product`] computes `C = finish(A·B + bias)` for a tile of `A` `[rows, k]` in panels (see
//! [`super::panels`]) and `B` `[k, n]` that is already [`Packed`]. [`transposed_products`] computes
//! `C += Aᵀ·B` for `A` `[rows, m]` and `B` `[rows, n]`, both in panels. Matrices hold `f32`, `f64`, or bf16
//! with sums in `f32`.
//!
//! Every element of `C` is summed in the order of `k`, regardless of its tile: an image yields the same bits
//! in any batch, and with any number of threads.

#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod amx;
mod forward;
mod interleaved;
mod kernels;
mod pack;
#[cfg(test)]
mod tests;
mod transposed;

pub use kernels::{KernelSet, bf16, f32, f64};
pub use pack::Packed;

use rayon::prelude::*;

use super::Workspace;
use super::element::Element;
use super::panels::View;

/// Destination of a product.
pub enum Out<'a, E: Element> {
    /// A tile in panels, with the number of rows of `A`, after an epilogue.
    Panels(&'a mut [E], Finish<'a, E>),
    /// Row-major, `[rows, n]`.
    Rows(&'a mut [E::Sum]),
}

/// The epilogue applied to a tile of `A·B + bias` before it is stored.
#[derive(Clone, Copy, Debug)]
pub enum Finish<'a, E> {
    /// Sets negative elements to 0.
    Relu,
    /// Sets elements to 0 unless the corresponding element of this matrix, laid out like `C`, is positive: a
    /// ReLU's input gradient, given its output.
    Mask(&'a [E]),
}

/// `c = finish(a·b + bias)` for a tile `a` of a matrix in panels, on the calling thread.
///
/// # Panics
/// If the lengths do not match the matrix's dimensions.
pub fn product<E: Element>(a: &[E], b: &Packed<E>, mut c: Out<'_, E>) {
    let KernelSet { panel: width, forward, .. } = E::kernels(b.isa);
    let rows = a.len() / b.k.next_multiple_of(width);
    assert_eq!(a.len(), rows * b.k.next_multiple_of(width));
    match &c {
        Out::Panels(c, finish) => {
            assert_eq!(c.len(), rows * b.n.next_multiple_of(width));
            if let Finish::Mask(mask) = finish {
                assert_eq!(mask.len(), c.len());
            }
        }
        Out::Rows(c) => assert_eq!(c.len(), rows * b.n),
    }
    // SAFETY: the processor has `b.isa`, which `Packed` took from a workspace; the lengths were checked
    // above, and `Packed` lays panels out as the kernel reads them.
    unsafe { forward(rows, a, b, &mut c) }
}

/// `c = a·b + bias`, row-major, for a whole matrix in panels; tiles are distributed over threads.
///
/// # Panics
/// As [`product`].
pub fn product_into_rows<E: Element>(a: View<'_, E>, b: &Packed<E>, c: &mut [E::Sum]) {
    assert_eq!(c.len(), a.data.len() / a.cut.stride() * b.n);
    a.tiles().zip(c.par_chunks_mut(a.cut.tile * b.n)).for_each(|(a, c)| product(a, b, Out::Rows(c)));
}

/// A weight gradient: `c += aᵀ·b`, and `sums +=` the column sums of `a`.
pub struct Gradient<'a, E: Element> {
    /// `[rows, m]`
    pub a: View<'a, E>,
    /// `[rows, n]`
    pub b: View<'a, E>,
    /// Row-major, `[m, n]`.
    pub c: &'a mut [E::Sum],
    /// `[m]`
    pub sums: &'a mut [E::Sum],
}

/// Computes a weight gradient on the calling thread. Its sums equal those of [`transposed_products`].
///
/// # Panics
/// If the matrices' dimensions do not match.
pub fn transposed_product<E: Element>(work: &Workspace<E>, Gradient { a, b, c, sums }: Gradient<'_, E>) {
    let KernelSet { panel: width, at_once, transposed: kernel, .. } = E::kernels(work.isa());
    check(width, &a, &b, c.len(), sums.len());
    let parts = c.chunks_mut(at_once * width * b.cut.columns).zip(sums.chunks_mut(at_once * width));
    for (part, (c, sums)) in parts.enumerate() {
        // SAFETY: the processor has the workspace's instruction set; the dimensions were checked above.
        unsafe { kernel(a, b, part * at_once, c, sums) }
    }
}

/// Checks the preconditions of the weight gradient kernels.
fn check<E: Element>(width: usize, a: &View<'_, E>, b: &View<'_, E>, c: usize, sums: usize) {
    let (m, n) = (a.cut.columns, b.cut.columns);
    assert_eq!((a.cut.tile, a.cut.width, b.cut.width), (b.cut.tile, width, width));
    assert_eq!(a.data.len() / a.cut.stride(), b.data.len() / b.cut.stride());
    assert_eq!((c, sums), (m * n, m));
}

/// Computes several weight gradients, distributed over threads by panels of their `a`. The partition does not
/// affect the sums.
///
/// # Panics
/// If the matrices' dimensions do not match.
pub fn transposed_products<E: Element>(work: &Workspace<E>, gradients: Vec<Gradient<'_, E>>) {
    let KernelSet { panel: width, at_once, transposed: kernel, .. } = E::kernels(work.isa());
    let mut tasks = vec![];
    for Gradient { a, b, c, sums } in gradients {
        let (m, n) = (a.cut.columns, b.cut.columns);
        check(width, &a, &b, c.len(), sums.len());
        // Enough parts for every thread to get several.
        let panels = m.div_ceil(4 * width * rayon::current_num_threads()).clamp(1, at_once);
        let parts = c.chunks_mut(panels * width * n).zip(sums.chunks_mut(panels * width)).enumerate();
        tasks.extend(parts.map(|(part, (c, sums))| (a, b, part * panels, c, sums)));
    }
    // Scheduled dynamically, the largest first, so that all threads end at about the same time.
    tasks.sort_by_key(|(_, _, _, c, _)| std::cmp::Reverse(c.len()));
    tasks.into_iter().par_bridge().for_each(|(a, b, panel, c, sums)| {
        // SAFETY: the processor has the device's instruction set; the dimensions were checked above.
        unsafe { kernel(a, b, panel, c, sums) }
    });
}
