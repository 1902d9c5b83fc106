//! Precisions of the coupling networks' products.

/// Precision of the products in coupling networks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// bf16 if the GPU supports it, else F32.
    #[default]
    Auto,
    /// 32-bit floating point.
    F32,
    /// 32-bit numbers, rounded to 19 bits (TF32) for multiplication.
    Tf32,
    /// 16-bit "brain" floating point, with sums in `f32`.
    Bf16,
}
