//! The elements that a general operation visits, as up to three nested loops.
//!
//! The axes of the caller's shape are sorted, and neighbouring axes are merged if they form a single axis in
//! every view: a `[batch, pixels, channels]` array and a per-channel vector become rows of channels,
//! contiguous arrays of one shape a single axis.

use crate::expr::{Expr, Op};
use crate::primitives::Strided;

/// Index of the output's view, after those of the inputs.
pub const OUT: usize = Expr::MAX_INPUTS;
/// A view whose positions are pixel numbers, for [`Op::Checkerboard`].
pub const PIXEL: usize = OUT + 1;
const VIEWS: usize = PIXEL + 1;

/// An axis, with its stride in each view.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Axis {
    pub len: usize,
    pub strides: [usize; VIEWS],
}

impl Axis {
    const NONE: Self = Self { len: 1, strides: [0; VIEWS] };

    /// Returns whether a reduction sums along the axis. An axis with a single element counts as summed.
    pub fn summed(&self) -> bool {
        self.strides[OUT] == 0
    }
}

/// The axes from the outermost to the innermost; unused ones come first.
#[derive(Clone, Debug)]
pub struct Elements {
    /// Position of the first element in each view.
    pub starts: [usize; VIEWS],
    pub axes: [Axis; 3],
}

impl Elements {
    /// The elements of a map, ordered by their positions in the output.
    ///
    /// # Panics
    /// If a buffer is too short, an input is missing, or two elements of the output share a position.
    pub fn of_map(
        f: &Expr,
        shape: [usize; 3],
        inputs: &[(Strided, usize)],
        (out, len): (Strided, usize),
    ) -> Self {
        let mut axes = Self::checked_axes(f, shape, inputs, (out, len));
        assert!(
            !axes.iter().any(Axis::summed) || shape.contains(&0),
            "the output of a map has a stride of 0 along an axis of {shape:?}"
        );
        axes.sort_by_key(|axis| std::cmp::Reverse(axis.strides[OUT]));
        Self::merged(axes, inputs, out)
    }

    /// The elements of a reduction: the innermost axis is the caller's, preceded by the axes that are kept,
    /// then by those that are summed.
    ///
    /// # Panics
    /// If a buffer is too short, an input is missing, or the expression reads the output.
    pub fn of_reduction(
        f: &Expr,
        shape: [usize; 3],
        inputs: &[(Strided, usize)],
        out: (Strided, usize),
    ) -> Self {
        assert!(!f.ops().contains(&Op::Old), "the expression of a reduction reads the output");
        let mut axes = Self::checked_axes(f, shape, inputs, out);
        let outer = axes.len().saturating_sub(1);
        axes[..outer].sort_by_key(Axis::summed);
        Self::merged(axes, inputs, out.0)
    }

    /// Number of elements.
    pub fn count(&self) -> usize {
        self.axes.iter().map(|axis| axis.len).product()
    }

    /// The axes with more than one element; checks every view.
    fn checked_axes(
        f: &Expr,
        shape: [usize; 3],
        inputs: &[(Strided, usize)],
        (out, len): (Strided, usize),
    ) -> Vec<Axis> {
        let (want, have) = (f.inputs(), inputs.len());
        assert!((want..=Expr::MAX_INPUTS).contains(&have), "{have} inputs for an expression of {want}");
        for (index, &(at, len)) in inputs.iter().enumerate().take(want) {
            at.check(&format!("input {index}"), shape, len);
        }
        out.check("the output", shape, len);
        let axis = |axis: usize| {
            let mut strides = [0; VIEWS];
            for (stride, (at, _)) in strides.iter_mut().zip(inputs) {
                *stride = at.strides[axis];
            }
            strides[OUT] = out.strides[axis];
            let counts_pixels = f.ops().iter().any(|op| matches!(op, Op::Checkerboard { .. }));
            strides[PIXEL] = usize::from(axis == 1 && counts_pixels);
            Axis { len: shape[axis], strides }
        };
        (0..3).map(axis).filter(|axis| axis.len != 1).collect()
    }

    fn merged(axes: Vec<Axis>, inputs: &[(Strided, usize)], out: Strided) -> Self {
        let mut merged: Vec<Axis> = vec![];
        for axis in axes {
            let continues = |outer: &Axis| {
                outer.strides.iter().zip(&axis.strides).all(|(&outer, &inner)| outer == inner * axis.len)
            };
            match merged.last_mut() {
                Some(outer) if continues(outer) => *outer = Axis { len: outer.len * axis.len, ..axis },
                _ => merged.push(axis),
            }
        }
        let mut axes = [Axis::NONE; 3];
        axes[3 - merged.len()..].copy_from_slice(&merged);
        let mut starts = [0; VIEWS];
        for (start, (at, _)) in starts.iter_mut().zip(inputs) {
            *start = at.start;
        }
        starts[OUT] = out.start;
        Self { starts, axes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::{checkerboard, input};

    fn lens(f: &Expr, shape: [usize; 3], inputs: &[[usize; 3]], out: [usize; 3]) -> [usize; 3] {
        let view = |strides| (Strided { start: 0, strides }, usize::MAX);
        let inputs: Vec<_> = inputs.iter().map(|&strides| view(strides)).collect();
        Elements::of_map(f, shape, &inputs, view(out)).axes.map(|axis| axis.len)
    }

    #[test]
    fn axes_are_merged() {
        let f = input(0) + input(1);
        let (shape, whole) = ([4, 6, 5], [30, 5, 1]);
        assert_eq!(lens(&f, shape, &[whole, whole], whole), [1, 1, 120]);
        assert_eq!(lens(&f, shape, &[whole, [0, 0, 1]], whole), [1, 24, 5], "a number per channel");
        assert_eq!(lens(&f, shape, &[whole, [1, 0, 0]], whole), [1, 4, 30], "a number per image");
        assert_eq!(
            lens(&f, shape, &[[60, 10, 1], whole], whole),
            [1, 24, 5],
            "the first half of the channels"
        );
        assert_eq!(lens(&(input(0) * checkerboard(3, 0)), shape, &[whole], whole), shape);
        assert_eq!(lens(&f, [1, 6, 5], &[[0, 1, 6], whole], whole), [1, 6, 5], "a transposed input");
    }
}
