//! Strided arrays in buffers.

/// Layout of a three-dimensional array in a buffer: element `(i, j, k)` is at
/// `start + i·strides[0] + j·strides[1] + k·strides[2]`. A stride of 0 broadcasts an input along that axis.
///
/// Activations `[batch, pixels, channels]` have the strides `[pixels·channels, channels, 1]`, one value per
/// channel `[0, 0, 1]`, one value per image `[1, 0, 0]`, a scalar `[0, 0, 0]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strided {
    /// Position of the first element.
    pub start: usize,
    /// Distance between neighbours along each axis.
    pub strides: [usize; 3],
}

impl Strided {
    /// Checks that every element of an array of this shape is within a buffer of `len` elements.
    ///
    /// # Panics
    /// If one is out of bounds.
    #[track_caller]
    pub(crate) fn check(self, name: &str, shape: [usize; 3], len: usize) {
        if shape.contains(&0) {
            return;
        }
        let last = shape
            .iter()
            .zip(self.strides)
            .fold(self.start, |place, (&len, stride)| place.saturating_add((len - 1).saturating_mul(stride)));
        assert!(last < len, "{name} is a buffer of {len} numbers, and element {last} is needed");
    }
}

/// Input of an operation: elements of a buffer.
#[derive(Debug)]
pub struct View<'a, B> {
    /// The buffer.
    pub buffer: &'a B,
    /// Their layout.
    pub at: Strided,
}

impl<B> Clone for View<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B> Copy for View<'_, B> {}

/// Output of an operation: elements of a buffer.
#[derive(Debug)]
pub struct ViewMut<'a, B> {
    /// The buffer.
    pub buffer: &'a mut B,
    /// Their layout.
    pub at: Strided,
}
