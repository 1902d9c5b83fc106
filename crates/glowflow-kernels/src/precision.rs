//! Precision of the products in coupling networks.

use serde::{Deserialize, Serialize};

/// Precision of the products in coupling networks, which are nearly all of a model's arithmetic. Flow
/// variables, log-determinants, priors, weight gradients and the weights themselves are always `f32`.
///
/// A model may be used in a precision other than that of its training. For exact reconstruction, encode and
/// decode in `f32`: in bf16 the last bits of a flow variable, which differ in the inverse direction, may
/// decide how a network's input is rounded, and pixels are then reconstructed with errors of some
/// thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// `f32` on CPUs, bf16 on GPUs that support it.
    #[default]
    Auto,
    /// 32-bit floating point.
    F32,
    /// 32-bit numbers rounded to 19 bits for multiplication; only on GPUs.
    Tf32,
    /// 16-bit "brain" floating point, accumulated in `f32`.
    Bf16,
}
