//! Sums an expression over some of the axes.
//!
//! Elements are partitioned into slabs, whose size depends only on the shape. Each slab is summed in `f64` by
//! accumulating its blocks elementwise, and the slabs' sums are accumulated in order. The bits therefore do
//! not depend on the number of threads, and sums of any length have the accuracy of `T`.

use rayon::prelude::*;

use super::program::{BLOCK, Block, Evaluator, Program, Region};
use crate::cpu::Scalar;
use crate::cpu::Workspace;
use crate::cpu::isa::Task;
use crate::elements::{Axis, Elements, OUT};
use crate::expr::Expr;

/// Approximate number of elements in a slab.
const SLAB: usize = 1 << 15;

/// Maximum number of columns of a slab if each has its own sum.
const MAX_SUMMED_COLUMNS: usize = 1 << 12;

/// Sums `f` over all axes that are [summed](Axis::summed).
pub fn reduce<T: Scalar>(
    work: &Workspace<T>,
    f: &Expr,
    elements: &Elements,
    inputs: &[&[T]],
    out: &mut [T],
    accumulate: bool,
) {
    let (axes, program) = (&elements.axes, Program::new(f));
    let kept = axes.map(|axis| if axis.summed() { 1 } else { axis.len });
    let mut totals = vec![0.0; kept.iter().product()];
    let slabs = slabs(axes);
    let sums: Vec<Vec<f64>> =
        slabs.par_iter().map(|&slab| work.run(Sum { program: &program, elements, inputs, slab })).collect();
    for (slab, sums) in slabs.iter().zip(sums) {
        let at = |axis: usize| if axes[axis].summed() { 0 } else { slab.first[axis] };
        let first = (at(0) * kept[1] + at(1)) * kept[2] + at(2);
        // A slab's sums are per column or per row; both are contiguous in the totals.
        totals[first..].iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
    }
    let [a, b, c] = axes.map(|axis| axis.strides[OUT]);
    for (index, total) in totals.into_iter().enumerate() {
        let (i, j, k) = (index / kept[2] / kept[1], index / kept[2] % kept[1], index % kept[2]);
        let to = &mut out[elements.starts[OUT] + i * a + j * b + k * c];
        *to = T::of(if accumulate { to.wide() + total } else { total });
    }
}

/// Partitions the elements; each part has one sum per column, one per row, or a single one.
fn slabs(axes: &[Axis; 3]) -> Vec<Region> {
    let [images, height, width] = axes.map(|axis| axis.len);
    if images * height * width == 0 {
        return vec![];
    }
    let by_column = !axes[2].summed();
    let columns = width.min(if by_column { MAX_SUMMED_COLUMNS } else { SLAB });
    let rows = match (by_column, axes[1].summed()) {
        // Only the first axis is summed.
        (true, false) => 1,
        // Whole blocks.
        _ => (SLAB / columns).next_multiple_of((BLOCK / columns).max(1)).min(height),
    };
    let mut slabs = vec![];
    for i in 0..images {
        for j in (0..height).step_by(rows) {
            for k in (0..width).step_by(columns) {
                slabs.push(Region {
                    first: [i, j, k],
                    len: [1, rows.min(height - j), columns.min(width - k)],
                });
            }
        }
    }
    slabs
}

/// The sums of a slab, computed on the calling thread.
struct Sum<'a, T> {
    program: &'a Program,
    elements: &'a Elements,
    inputs: &'a [&'a [T]],
    slab: Region,
}

impl<T: Scalar> Task for Sum<'_, T> {
    type Output = Vec<f64>;

    #[inline(always)]
    fn run(self) -> Vec<f64> {
        let Self { program, elements, inputs, slab } = self;
        let [_, row_axis, column_axis] = &elements.axes;
        let (by_column, by_row) = (!column_axis.summed(), !row_axis.summed());
        let [_, rows, width] = slab.len;
        let blocks = slab.blocks();
        let mut evaluator = Evaluator::new(program, elements, inputs);
        let mut values = vec![T::zero(); BLOCK];
        // Each element of a block has its own sum; so do different columns if they must be kept separate.
        let mut sums = vec![0.0; BLOCK.max(if by_column { width } else { 0 })];
        let mut of_rows = vec![0.0; if by_row && !by_column { rows } else { 0 }];
        for &block in &blocks {
            evaluator.gather(block, &[], 0);
            evaluator.evaluate(block, &mut values);
            let values = &values[..block.len()];
            let Block { first, columns, .. } = block;
            if by_row && !by_column {
                let of_rows = &mut of_rows[first[1] - slab.first[1]..];
                for (sum, row) in of_rows.iter_mut().zip(values.chunks_exact(columns)) {
                    *sum += total(row);
                }
            } else {
                let at = if by_column { first[2] - slab.first[2] } else { 0 };
                sums[at..].iter_mut().zip(values).for_each(|(sum, value)| *sum += value.wide());
            }
        }
        match (by_column, by_row) {
            (true, _) => {
                // Adjacent rows of a block.
                let (first, rest) = sums.split_at_mut(width);
                for row in rest.chunks_exact(width) {
                    first.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
                }
                sums.truncate(width);
                sums
            }
            (false, true) => of_rows,
            (false, false) => vec![total(&sums)],
        }
    }
}

/// Number of sums that [`total`] keeps in vectors.
const LANES: usize = 32;

/// Sums numbers.
#[inline(always)]
fn total<T: Scalar>(numbers: &[T]) -> f64 {
    let mut sums = [0.0; LANES];
    let (whole, rest) = numbers.as_chunks::<LANES>();
    for numbers in whole {
        for (sum, number) in sums.iter_mut().zip(numbers) {
            *sum += number.wide();
        }
    }
    for (sum, number) in sums.iter_mut().zip(rest) {
        *sum += number.wide();
    }
    sums.into_iter().sum()
}
