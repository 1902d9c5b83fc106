//! The scalar types of activations and parameters.

use std::fmt::{Debug, Display};
use std::iter::Sum;

use bytemuck::Pod;
use num_traits::{Float, NumAssign};

/// `f32`, in which models live, or `f64`, in which tests differentiate numerically.
pub trait Real: Float + NumAssign + Debug + Default + Display + Pod + Send + Sum + Sync {
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
