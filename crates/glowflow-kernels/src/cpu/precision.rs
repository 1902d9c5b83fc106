//! Precisions of the coupling networks' products.

/// Precision of the products in coupling networks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// The precision of the scalars.
    #[default]
    F32,
    /// Matrices in bf16, sums in `f32`.
    Bf16,
}
