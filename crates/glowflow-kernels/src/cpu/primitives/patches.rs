//! Patches of images in memory (im2col), and their adjoint (col2im).

use rayon::prelude::*;

use super::tiles::Patches;
use crate::cpu::Scalar;
use crate::cpu::Workspace;
use crate::cpu::isa::Task;

/// Rows per unit of work.
const ROWS: usize = 32;

/// Writes the patches of all pixels.
pub fn im2col<T: Scalar>(patches: Patches<'_, T>, columns: &mut [T]) {
    let width = patches.kernel * patches.kernel * patches.channels;
    columns.par_chunks_exact_mut(width).with_min_len(ROWS).enumerate().for_each(|(row, patch)| {
        for (tap, to) in patch.chunks_exact_mut(patches.channels).enumerate() {
            match patches.neighbour(row, tap) {
                Some(from) => to.copy_from_slice(&patches.x[from * patches.channels..][..patches.channels]),
                None => to.fill(T::zero()),
            }
        }
    });
}

/// Sets each pixel of `x` to the sum of its copies, or adds the sum. `patches` describes the images; its `x`
/// holds the columns.
pub fn col2im<T: Scalar>(work: &Workspace<T>, patches: Patches<'_, T>, x: &mut [T], accumulate: bool) {
    x.par_chunks_mut(ROWS * patches.channels).enumerate().for_each(|(chunk, x)| {
        work.run(AddUp { patches, first: chunk * ROWS, x, accumulate });
    });
}

struct AddUp<'a, 'b, T> {
    patches: Patches<'a, T>,
    first: usize,
    x: &'b mut [T],
    accumulate: bool,
}

impl<T: Scalar> Task for AddUp<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Patches { channels, kernel, x: columns, .. } = self.patches;
        let taps = kernel * kernel;
        for (row, x) in (self.first..).zip(self.x.chunks_exact_mut(channels)) {
            if !self.accumulate {
                x.fill(T::zero());
            }
            for tap in 0..taps {
                // The pixel whose patch contains this one at the tap is on the opposite side.
                if let Some(other) = self.patches.neighbour(row, taps - 1 - tap) {
                    let from = &columns[(other * taps + tap) * channels..][..channels];
                    x.iter_mut().zip(from).for_each(|(x, &from)| *x += from);
                }
            }
        }
    }
}
