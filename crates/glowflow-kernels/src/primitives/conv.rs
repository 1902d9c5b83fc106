//! Convolutions.

use super::{Primitives, holds};
use crate::shape::Grid;

/// Convolution of stride 1 with zero padding that preserves the image size: `x` `[grid, inputs]`, `y`
/// `[grid, outputs]`, `weight` `[outputs, kernel·kernel·inputs]` with column
/// `(kernel·dy + dx)·inputs + channel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv {
    /// The pixels.
    pub grid: Grid,
    /// Input channels.
    pub inputs: usize,
    /// Output channels.
    pub outputs: usize,
    /// Height and width of the kernel, odd.
    pub kernel: usize,
}

impl Conv {
    /// Number of columns of the weight matrix.
    pub fn columns(self) -> usize {
        self.kernel * self.kernel * self.inputs
    }

    /// Lengths of input, weight and output.
    pub(crate) fn lens(self) -> [usize; 3] {
        let rows = self.grid.rows();
        [rows * self.inputs, self.outputs * self.columns(), rows * self.outputs]
    }

    /// Checks the lengths of the buffers of input, weight and output, or of their gradients.
    ///
    /// # Panics
    /// If one is too short.
    #[track_caller]
    pub(crate) fn check(self, buffers: [(&str, usize); 3]) {
        for ((name, len), want) in buffers.into_iter().zip(self.lens()) {
            holds(name, len, want);
        }
    }
}

/// The patches of `x`; `None` for a 1×1 convolution, whose patches are `x` itself.
pub(super) fn patches<D: Primitives>(device: &D, conv: Conv, x: &D::Buffer) -> Option<D::Buffer> {
    (conv.kernel > 1).then(|| {
        let mut columns = device.scratch(conv.grid.rows() * conv.columns());
        device.im2col(conv.grid, conv.inputs, conv.kernel, x, &mut columns);
        columns
    })
}
