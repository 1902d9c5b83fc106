//! The scalar types that a host-side kernel computes in.

use std::fmt::{Debug, Display};
use std::iter::Sum;

/// `f32`, in which models live, or `f64`, in which tests differentiate numerically.
pub trait Real:
    num_traits::Float
    + num_traits::NumAssign
    + bytemuck::Pod
    + Default
    + Debug
    + Display
    + Sum
    + Send
    + Sync
    + crate::cpu::Kernels
{
    /// The nearest value of this type.
    fn of(value: f64) -> Self;

    /// The value as an `f64`, exactly.
    fn wide(self) -> f64;
}

impl Real for f32 {
    fn of(value: f64) -> Self {
        value as f32
    }
    fn wide(self) -> f64 {
        f64::from(self)
    }
}

impl Real for f64 {
    fn of(value: f64) -> Self {
        value
    }
    fn wide(self) -> f64 {
        self
    }
}
