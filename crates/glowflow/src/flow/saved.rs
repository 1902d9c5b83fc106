//! Values that a layer saves in its forward pass for its backward pass.

use std::any::{Any, type_name};

/// Selects the values that a layer saves in its forward pass for its backward pass, in addition to its
/// output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Save {
    /// Only values that the output does not determine, such as batch statistics: memory does not grow with
    /// depth.
    Minimum,
    /// Activations too, so that no network runs a second time.
    Activations,
}

/// Values saved by a layer, opaque to everything else.
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
    /// If the values have another type, and thus belong to another layer.
    pub fn take<T: Any>(self) -> Option<T> {
        let values = self.0?;
        match values.downcast() {
            Ok(values) => Some(*values),
            Err(_) => panic!("the saved values are not {}", type_name::<T>()),
        }
    }
}
