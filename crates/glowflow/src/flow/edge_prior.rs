//! Edge term of a prior, which makes its parameters depend on the distance to the border.
//!
//! ```text
//! prior[y, x, o] += Σ_k edge[o, k]·outside(y + k/3 − 1, x + k%3 − 1)          k = 0 … 8
//! ```
//!
//! This is a 3×3 convolution of only the edge channel, which is 1 on the ring of padding around the image and
//! 0 inside. `prior` is `[rows, outputs]`, `edge` `[outputs, 1, 3, 3]`. Implemented with general operations.

use glowflow_kernels::expr::{constant, input, old};
use glowflow_kernels::{Gemm, Grid, Matrix, MatrixMut, Primitives, Span, Strided};

use super::views::{Dims, read, write};

/// Number of taps of a 3×3 convolution.
const TAPS: usize = 9;

/// The edge term of a prior.
#[derive(Clone, Copy, Debug)]
pub(super) struct EdgePrior {
    /// Means and log standard deviations, `2·channels`.
    pub outputs: usize,
    /// `[outputs, 1, 3, 3]`
    pub edge: Span,
}

impl EdgePrior {
    /// Adds the term to `prior`.
    pub fn add<D: Primitives>(&self, device: &D, params: &D::Buffer, grid: Grid, prior: &mut D::Buffer) {
        let (pixels, outputs) = (grid.pixels(), self.outputs);
        let mut term = device.scratch(pixels * outputs);
        device.gemm(
            Gemm {
                m: pixels,
                n: outputs,
                k: TAPS,
                a_transposed: false,
                b_transposed: true,
                accumulate: false,
            },
            Matrix { buffer: &outside(device, grid), start: 0, stride: TAPS },
            Matrix { buffer: params, start: self.edge.start, stride: TAPS },
            MatrixMut { buffer: &mut term, start: 0, stride: outputs },
        );
        let dims = Dims::of(grid, outputs);
        let every_image = read(&term, self.every_image());
        device.map(&(old() + input(0)), dims.shape(), &[every_image], write(prior, dims.each()));
    }

    /// Adds the gradient of `edge`, given that of `prior`.
    pub fn backward<D: Primitives>(
        &self,
        device: &D,
        grid: Grid,
        d_prior: &D::Buffer,
        gradient: &mut D::Buffer,
    ) {
        let (pixels, outputs) = (grid.pixels(), self.outputs);
        let dims = Dims::of(grid, outputs);
        let mut sums = device.scratch(pixels * outputs);
        let to = write(&mut sums, self.every_image());
        device.reduce(&input(0), dims.shape(), &[read(d_prior, dims.each())], to, false);
        device.gemm(
            Gemm {
                m: outputs,
                n: TAPS,
                k: pixels,
                a_transposed: true,
                b_transposed: false,
                accumulate: true,
            },
            Matrix { buffer: &sums, start: 0, stride: outputs },
            Matrix { buffer: &outside(device, grid), start: 0, stride: TAPS },
            MatrixMut { buffer: gradient, start: self.edge.start, stride: TAPS },
        );
    }

    /// Strides in a `[pixels, outputs]` array, the same for every image.
    fn every_image(&self) -> Strided {
        Strided { start: 0, strides: [0, self.outputs, 1] }
    }
}

/// `[pixels, 9]`: 1 if the neighbour of a pixel is outside the image, else 0.
fn outside<D: Primitives>(device: &D, grid: Grid) -> D::Buffer {
    let one_image = Grid { batch: 1, ..grid };
    let pixels = grid.pixels();
    let (each, taps) = (Dims::of(one_image, 1), Dims::of(one_image, TAPS));
    // -1 inside and 0 outside, plus 1.
    let mut inside = device.scratch(pixels);
    device.map(&constant(-1.0), each.shape(), &[], write(&mut inside, each.each()));
    let mut patches = device.scratch(pixels * TAPS);
    device.im2col(one_image, 1, 3, &inside, &mut patches);
    device.map(&(old() + constant(1.0)), taps.shape(), &[], write(&mut patches, taps.each()));
    patches
}
