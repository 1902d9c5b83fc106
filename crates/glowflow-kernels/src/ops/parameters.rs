//! Spans of a layer's parameters and their lengths.

use crate::shape::Span;

/// The parameter spans of a layer.
pub(crate) trait Parameters {
    /// Each span, with its required length.
    ///
    /// # Panics
    /// If the spans contradict each other.
    fn spans(&self) -> Vec<(Span, usize)>;
}
