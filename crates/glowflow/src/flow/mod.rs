//! The layers of a flow: each an invertible map whose log-determinant is known.
//!
//! A flow is a list of [`Layer`]s. Forward they turn an image into latents, one after the other; inverse
//! they turn latents into an image, in the opposite order. They are threaded through by a
//! [`State`]: the variable `x`, the latents factored out so far, and the log-likelihood so far.
//!
//! No tape records a training step. A layer's [`backward`](Prepared::backward) rebuilds its input from its output,
//! so what a flow needs for its gradient is where it ended, and memory does not grow with depth.
//!
//! A new layer is one file here that implements [`Layer`] and [`Prepared`], and one line in `tests/layers.rs`.

mod channel_map;
mod coupling;
mod split;
mod squeeze;
mod top;

pub use channel_map::ActNormPermutation;
pub use coupling::Coupling;
pub use split::Split;
pub use squeeze::Squeeze;
pub use top::Top;

use std::any::{Any, type_name};

use glowflow_kernels::{Device, Direction, Grid};

/// Activations `[grid, channels]` on a device, NHWC.
#[derive(Debug)]
pub struct Tensor<D: Device> {
    /// Batch, height and width.
    pub grid: Grid,
    /// Channels.
    pub channels: usize,
    /// `grid.rows() · channels` numbers.
    pub data: D::Buffer,
}

/// State threaded through the layers.
#[derive(Debug)]
pub struct State<D: Device> {
    /// The flow's variable. Before the first layer the image `v`; after the last nothing is left of it.
    pub x: Tensor<D>,
    /// Standardised latents `eps`, one tensor for each level that has been factored out.
    pub latents: Vec<Tensor<D>>,
    /// Log-likelihood of each sample so far, `[batch]`.
    pub logp: D::Buffer,
    /// One-hot labels `[batch, classes]`; empty where the model has no classes.
    pub labels: D::Buffer,
}

impl<D: Device> State<D> {
    /// Takes the latents that were factored out last.
    ///
    /// # Panics
    /// If there are none: more layers ran backward than forward.
    pub(crate) fn pop_latents(&mut self) -> Tensor<D> {
        match self.latents.pop() {
            Some(latents) => latents,
            None => panic!("no latents are left for a layer that factored some out"),
        }
    }
}

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

/// The backward pass: everything that a layer needs to pass a gradient on.
pub struct BackwardPass<'a, D: Device> {
    /// The device.
    pub device: &'a D,
    /// The flat parameter buffer.
    pub params: &'a D::Buffer,
    /// The output of the layer, which it turns into its input.
    pub state: State<D>,
    /// The gradient of the loss by `state.x`, which it turns likewise.
    pub dx: D::Buffer,
    /// The gradient of the loss by one sample's log-likelihood.
    pub dlogp: f64,
    /// The gradient by the parameters, to which it adds its own.
    pub gradient: &'a mut D::Buffer,
}

/// An invertible layer, as a description: where its parameters lie, and what it does with them.
pub trait Layer<D: Device>: Send + Sync {
    /// Reads the parameters and makes them ready to run in one direction.
    fn prepare(&self, device: &D, params: &D::Buffer, direction: Direction) -> Box<dyn Prepared<D>>;

    /// Data-dependent initialisation from the layer's first input.
    fn initialize(&self, _device: &D, _params: &mut D::Buffer, _input: &State<D>) {}
}

/// A layer with its parameters, ready to run in the direction it was prepared for, and in no other.
pub trait Prepared<D: Device>: Send + Sync {
    /// Towards the latents.
    ///
    /// Returns what `save` asks for.
    fn forward(&self, device: &D, state: &mut State<D>, save: Save) -> Saved;

    /// Towards the image. Log-likelihoods are left alone.
    fn inverse(&self, device: &D, state: &mut State<D>);

    /// Turns the layer's output into its input, and the gradient by the one into that by the other.
    ///
    /// `saved` is what [`forward`](Self::forward) returned for the same input. The numbers are the same for
    /// [`Save::Minimum`] and [`Save::Activations`].
    fn backward(&self, pass: &mut BackwardPass<'_, D>, saved: Saved);
}
