//! A model's tensors: declared once by the layers, laid out in flat buffers, initialised, and stored by name.
//!
//! | kind | in training | examples |
//! | --- | --- | --- |
//! | parameter | updated by the optimiser and averaged | weights, biases |
//! | buffer | updated by the layers themselves in training mode | running statistics |
//! | constant | fixed at initialisation | permutations, signs |

mod builder;
mod file;
mod layout;
mod rotation;

pub use builder::{Constant, Init, ParamBuilder, Source};
pub(crate) use file::{put_constants, put_flat, take_constants, take_flat};
pub use layout::{ConstantLayout, ConstantType, HiddenMatrix, Layout, Parameter, Triangle};
pub(crate) use rotation::{Lu, random_rotation, shuffled};
