//! The scalar types that a host-side kernel computes in.

use std::fmt::{Debug, Display};
use std::iter::Sum;

use half::bf16;

use crate::cpu::Element;

/// `f32`, in which models live, or `f64`, in which tests differentiate numerically.
pub trait Real:
    num_traits::Float + num_traits::NumAssign + Debug + Display + Sum + Element<Sum = Self>
{
    /// What matrices of coupling networks may hold instead, on a device that can.
    type Narrow: Element<Sum = Self>;

    /// The nearest value of this type.
    fn of(value: f64) -> Self;

    /// The value as an `f64`, exactly.
    fn wide(self) -> f64;

    /// Numbers of a file, without a copy where this is the type that files hold.
    fn of_file(values: Vec<f32>) -> Vec<Self>;

    /// The way back, rounded.
    fn into_file(values: Vec<Self>) -> Vec<f32>;
}

impl Real for f32 {
    type Narrow = bf16;

    #[inline(always)]
    fn of(value: f64) -> Self {
        value as f32
    }
    #[inline(always)]
    fn wide(self) -> f64 {
        f64::from(self)
    }
    fn of_file(values: Vec<f32>) -> Vec<Self> {
        values
    }
    fn into_file(values: Vec<Self>) -> Vec<f32> {
        values
    }
}

impl Real for f64 {
    type Narrow = Self;

    #[inline(always)]
    fn of(value: f64) -> Self {
        value
    }
    #[inline(always)]
    fn wide(self) -> f64 {
        self
    }
    fn of_file(values: Vec<f32>) -> Vec<Self> {
        values.into_iter().map(f64::from).collect()
    }
    fn into_file(values: Vec<Self>) -> Vec<f32> {
        values.into_iter().map(|value| value as f32).collect()
    }
}
