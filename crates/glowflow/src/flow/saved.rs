//! Values that a layer saves in its forward pass for its backward pass.

use std::any::{Any, type_name};

/// What a layer saves in its forward pass for its backward pass, besides its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Save {
    /// Only what the output does not determine, such as batch statistics: memory does not grow with depth.
    Minimum,
    /// Activations as well, so that no network runs a second time.
    Activations,
}

/// Values that one layer saved. Only the layer that made them reads them.
pub struct Saved(Option<Box<dyn Any + Send>>);

impl Saved {
    /// No values.
    pub const NOTHING: Self = Self(None);

    /// Saves `values`.
    pub fn new(values: impl Any + Send) -> Self {
        Self(Some(Box::new(values)))
    }

    /// The saved values; `None` if nothing was saved.
    ///
    /// # Panics
    /// If the values are of another type, and so another layer's.
    pub fn take<T: Any>(self) -> Option<T> {
        let values = self.0?;
        match values.downcast() {
            Ok(values) => Some(*values),
            Err(_) => panic!("the saved values are not {}", type_name::<T>()),
        }
    }
}
