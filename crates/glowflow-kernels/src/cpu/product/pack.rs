//! Packs weights for the kernels: scaled, rounded, and with the columns that a kernel processes together
//! adjacent.

use rayon::prelude::*;

use super::KernelSet;
use crate::cpu::element::Element;
use crate::cpu::isa::{Isa, Task};
use crate::cpu::simd::{SIDE, Square};
use crate::cpu::{Buffer, Workspace};
use crate::real::Real;

/// A matrix `B` `[k, n]` and a bias `[n]`, in the panels of one instruction set.
pub struct Packed<E: Element> {
    pub(super) isa: Isa,
    pub(super) k: usize,
    pub(super) n: usize,
    /// `k` plus padding rows.
    pub(super) rows: usize,
    /// `[n.div_ceil(NR), rows / GROUP, NR, GROUP]`, padded with zeros.
    pub(super) panels: Buffer<E>,
    /// `[n.div_ceil(NR) * NR]`, padded with zeros.
    pub(super) bias: Vec<E::Sum>,
}

impl<E: Element> Packed<E> {
    /// Packs a matrix column by column: column `j` holds every `step`-th number of the slice returned by
    /// `column(j)`, times a factor.
    pub fn of_columns<'a>(
        work: &Workspace<E>,
        k: usize,
        n: usize,
        step: usize,
        column: impl Fn(usize) -> (&'a [E::Sum], E::Sum) + Sync,
    ) -> Self {
        Self::by_panel(work, k, n, |first, panel, width| {
            let columns: Vec<_> = (first..n.min(first + width)).map(&column).collect();
            work.run(Columns { columns: &columns, isa: work.isa(), k, step, panel, width });
        })
    }

    /// Packs a matrix row by row: `row(i, j, part)` fills `part` with row `i` from column `j` on.
    pub fn of_rows(
        work: &Workspace<E>,
        k: usize,
        n: usize,
        row: impl Fn(usize, usize, &mut [E::Sum]) + Sync,
    ) -> Self {
        Self::by_panel(work, k, n, |first, panel, width| {
            work.run(Rows { row: &row, first, k, columns: width.min(n - first), panel, width });
        })
    }

    /// Fills each panel: `fill` receives its first column, its elements, and its number of columns.
    fn by_panel(
        work: &Workspace<E>,
        k: usize,
        n: usize,
        fill: impl Fn(usize, &mut [E], usize) + Sync,
    ) -> Self {
        let isa = work.isa();
        let width = E::kernels(isa).panel;
        let rows = k.next_multiple_of(E::ROWS_MULTIPLE);
        let len = rows * width;
        let mut panels = work.take(n.div_ceil(width) * len);
        panels.par_chunks_mut(len.max(1)).enumerate().for_each(|(p, panel)| fill(p * width, panel, width));
        Self { isa, k, n, rows, panels, bias: vec![E::Sum::of(0.0); n.next_multiple_of(width)] }
    }

    /// Sets the bias, `n` numbers.
    pub fn with_bias(mut self, bias: impl Iterator<Item = E::Sum>) -> Self {
        self.bias.iter_mut().take(self.n).zip(bias).for_each(|(to, from)| *to = from);
        self
    }
}

/// Fills a panel row by row.
struct Rows<'a, E: Element, F> {
    row: &'a F,
    first: usize,
    k: usize,
    /// Remaining columns of the matrix.
    columns: usize,
    panel: &'a mut [E],
    width: usize,
}

impl<E: Element, F: Fn(usize, usize, &mut [E::Sum])> Task for Rows<'_, E, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { row, first, k, columns, panel, width } = self;
        let mut group = vec![E::Sum::of(0.0); E::GROUP * width];
        let groups = k.div_ceil(E::GROUP);
        let (filled, rest) = panel.split_at_mut(groups * E::GROUP * width);
        for (g, panel) in filled.chunks_exact_mut(E::GROUP * width).enumerate() {
            for (i, part) in group.chunks_exact_mut(width).enumerate() {
                let i = g * E::GROUP + i;
                if i < k { row(i, first, &mut part[..columns]) } else { part.fill(E::Sum::of(0.0)) }
            }
            E::side_by_side(&group, panel);
        }
        rest.fill(E::default());
    }
}

/// Fills a panel column by column.
struct Columns<'a, E: Element> {
    columns: &'a [(&'a [E::Sum], E::Sum)],
    isa: Isa,
    k: usize,
    step: usize,
    panel: &'a mut [E],
    width: usize,
}

impl<E: Element> Task for Columns<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { columns, isa, k, step, panel, width } = self;
        let KernelSet { transpose, .. } = E::kernels(isa);
        let zero = E::Sum::of(0.0);
        if columns.len() < width || !k.is_multiple_of(E::ROWS_MULTIPLE) {
            panel.fill(E::default());
        }
        let mut square: Square<E::Sum> = [[zero; SIDE]; SIDE];
        for at in (0..k).step_by(SIDE) {
            let rows = SIDE.min(k - at);
            for (part, columns) in columns.chunks(SIDE).enumerate() {
                for (to, &(from, factor)) in square.iter_mut().zip(columns) {
                    let from = &from[at * step..];
                    match from.first_chunk::<SIDE>() {
                        Some(from) if step == 1 && rows == SIDE => *to = from.map(|x| x * factor),
                        _ => {
                            *to =
                                std::array::from_fn(|i| if i < rows { from[i * step] * factor } else { zero })
                        }
                    }
                }
                // SAFETY: the processor has the workspace's instruction set.
                unsafe { transpose(&mut square) };
                for (g, group) in square.chunks_exact(E::GROUP).take(rows.div_ceil(E::GROUP)).enumerate() {
                    let mut elements = [E::default(); 2 * SIDE];
                    let elements = &mut elements[..E::GROUP * SIDE];
                    E::side_by_side(group.as_flattened(), elements);
                    let to = &mut panel[(at + g * E::GROUP) * width + part * SIDE * E::GROUP..];
                    let len = columns.len() * E::GROUP;
                    to[..len].copy_from_slice(&elements[..len]);
                }
            }
        }
    }
}
