//! Lengths of the parts of a layer's parameters.

use crate::shape::Span;

/// Where a layer's parameters lie.
pub(crate) trait Parameters {
    /// Each part, and how many numbers it should have.
    ///
    /// # Panics
    /// If the parts contradict each other.
    fn spans(&self) -> Vec<(Span, usize)>;
}
