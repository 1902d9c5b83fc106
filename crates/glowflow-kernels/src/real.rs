//! The scalar types of activations and parameters.

use std::fmt::{Debug, Display};
use std::iter::Sum;

use bytemuck::Pod;
use num_traits::{Float, NumAssign};

/// `f32`, the type of models, or `f64`, for numerical differentiation in tests.
pub trait Real: Float + NumAssign + Debug + Default + Display + Pod + Send + Sum + Sync {
    /// Rounds to the nearest value of this type.
    fn of(value: f64) -> Self;

    /// Converts to `f64`, exactly.
    fn wide(self) -> f64;

    /// Converts the numbers of a file, without a copy if this is the type of files.
    fn of_file(values: Vec<f32>) -> Vec<Self>;

    /// Converts to numbers for a file, rounded.
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
