//! `out = f(inputs…)`, element by element.
//!
//! Elements are visited in memory order of the output, so that halves of the elements occupy halves of its
//! memory, which threads divide among themselves.

use super::program::{Evaluator, Program, Region};
use crate::cpu::Scalar;
use crate::cpu::Workspace;
use crate::cpu::isa::Task;
use crate::elements::{Elements, OUT};
use crate::expr::Expr;

/// Maximum number of elements per unit of work, which is not divided further.
const AT_ONCE: usize = 1 << 14;

/// Evaluates `f` for all elements.
pub fn map<T: Scalar>(work: &Workspace<T>, f: &Expr, elements: &Elements, inputs: &[&[T]], out: &mut [T]) {
    if elements.count() == 0 {
        return;
    }
    let map = Map { work, program: &Program::new(f), elements, inputs, nested: nested(elements) };
    map.run(Region::all(elements), &mut out[elements.starts[OUT]..]);
}

/// Returns whether the parts of every axis are consecutive in the output.
fn nested(elements: &Elements) -> bool {
    let mut extent = 1;
    elements.axes.iter().rev().all(|axis| {
        let (fits, stride) = (axis.len == 1 || axis.strides[OUT] >= extent, axis.strides[OUT]);
        extent += (axis.len - 1) * stride;
        fits
    })
}

#[derive(Clone, Copy)]
struct Map<'a, T: Scalar> {
    work: &'a Workspace<T>,
    program: &'a Program,
    elements: &'a Elements,
    inputs: &'a [&'a [T]],
    nested: bool,
}

impl<T: Scalar> Map<'_, T> {
    /// Evaluates a region whose first element is the first of `out`.
    fn run(self, region: Region, out: &mut [T]) {
        let axis = region.len.iter().position(|&len| len > 1);
        let Some(axis) = axis.filter(|_| self.nested && region.count() > AT_ONCE) else {
            return self.work.run(Part { map: self, region, out });
        };
        let half = region.len[axis] / 2;
        let (mut first, mut last) = (region, region);
        first.len[axis] = half;
        last.first[axis] += half;
        last.len[axis] -= half;
        let (out, rest) = out.split_at_mut(half * self.elements.axes[axis].strides[OUT]);
        rayon::join(|| self.run(first, out), || self.run(last, rest));
    }
}

/// A region, evaluated on the calling thread.
struct Part<'a, 'b, T: Scalar> {
    map: Map<'a, T>,
    region: Region,
    out: &'b mut [T],
}

impl<T: Scalar> Task for Part<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { map, region, out } = self;
        let mut evaluator = Evaluator::new(map.program, map.elements, map.inputs);
        let mut values = vec![T::zero(); super::program::BLOCK];
        let [_, rows, columns] = map.elements.axes;
        let (row, column) = (rows.strides[OUT], columns.strides[OUT]);
        let origin = super::program::Block { first: region.first, rows: 1, columns: 1 };
        let origin = evaluator.place(OUT, origin);
        for block in region.blocks() {
            let place = evaluator.place(OUT, block) - origin;
            evaluator.gather(block, out, origin);
            if evaluator.contiguous(OUT, block) {
                evaluator.evaluate(block, &mut out[place..]);
                continue;
            }
            evaluator.evaluate(block, &mut values);
            for (i, values) in values[..block.len()].chunks_exact(block.columns).enumerate() {
                let out = &mut out[place + i * row..];
                if column == 1 {
                    out.iter_mut().zip(values).for_each(|(to, &value)| *to = value);
                } else {
                    out.iter_mut().step_by(column).zip(values).for_each(|(to, &value)| *to = value);
                }
            }
        }
    }
}
