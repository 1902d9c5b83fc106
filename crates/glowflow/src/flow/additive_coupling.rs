//! NICE's additive coupling of alternating dimensions (Dinh, Krueger and Bengio 2014, sections 3.2 and 5.1):
//!
//! ```text
//! y_changed = x_changed + m(x_kept)     log|det| = 0
//! ```
//!
//! An image is D numbers in the order of its rows, columns and channels; even ones are kept and odd ones
//! change, or the reverse. m is a multilayer perceptron.

use glowflow_kernels::expr::{input, old};
use glowflow_kernels::{Device, Direction, Primitives, Strided};

use super::mlp::Mlp;
use super::views::{Dims, read, write};
use super::{BackwardPass, Context, Layer, Prepared, Save, Saved, Shape, Shapes, State, Tensor};
use crate::params::ParamBuilder;

/// Adds a perceptron of half of the dimensions to the other half.
#[derive(Clone, Debug)]
pub struct AdditiveCoupling {
    /// True if the even dimensions change.
    changes_even: bool,
    m: Mlp,
}

impl AdditiveCoupling {
    /// Declares the perceptron's tensors for images with `dimensions` numbers.
    pub fn new(
        p: &mut ParamBuilder<'_>,
        dimensions: usize,
        hidden: usize,
        layers: usize,
        changes_even: bool,
    ) -> Self {
        let even = dimensions.div_ceil(2);
        let odd = dimensions - even;
        let (inputs, outputs) = if changes_even { (odd, even) } else { (even, odd) };
        Self { changes_even, m: Mlp::new(p, inputs, outputs, hidden, layers) }
    }

    /// The even or the odd dimensions of images.
    fn half<D: Device>(x: &Tensor<D>, even: bool) -> (Dims, Strided) {
        let dimensions = x.grid.pixels() * x.channels;
        let channels = if even { dimensions.div_ceil(2) } else { dimensions / 2 };
        let at = Strided { start: usize::from(!even), strides: [dimensions, 0, 2] };
        (Dims { batch: x.grid.batch, pixels: 1, channels }, at)
    }

    /// Runs the perceptron on the kept dimensions; returns the inputs of its layers, and its output.
    fn run<D: Primitives>(&self, cx: &Context<'_, D>, x: &Tensor<D>) -> (Vec<D::Buffer>, D::Buffer) {
        let (dims, at) = Self::half(x, !self.changes_even);
        let mut kept = cx.device.scratch(dims.len());
        cx.device.map(&input(0), dims.shape(), &[read(&x.data, at)], write(&mut kept, dims.each()));
        self.m.run(cx, dims.batch, kept)
    }

    fn add<D: Primitives>(&self, cx: &Context<'_, D>, x: &mut Tensor<D>, shift: &D::Buffer, subtract: bool) {
        let (dims, at) = Self::half(x, self.changes_even);
        let f = if subtract { old() - input(0) } else { old() + input(0) };
        cx.device.map(&f, dims.shape(), &[read(shift, dims.each())], write(&mut x.data, at));
    }
}

impl<D: Primitives> Layer<D> for AdditiveCoupling {
    fn shapes(&self, input: Shape) -> Shapes {
        Shapes::same(input)
    }

    fn activations(&self, _: Shape) -> usize {
        self.m.activations()
    }

    fn full_activations(&self, _: Shape) -> usize {
        self.m.activations()
    }

    fn multiply_adds(&self, _: Shape) -> u128 {
        self.m.multiply_adds()
    }

    fn prepare(&self, _: &Context<'_, D>, _: Direction) -> Box<dyn Prepared<D>> {
        Box::new(self.clone())
    }
}

impl<D: Primitives> Prepared<D> for AdditiveCoupling {
    fn forward(&self, cx: &Context<'_, D>, state: &mut State<D>, save: Save) -> Saved {
        let (inputs, shift) = self.run(cx, &state.x);
        self.add(cx, &mut state.x, &shift, false);
        match save {
            Save::Minimum => Saved::NOTHING,
            Save::Activations => Saved::new((inputs, shift)),
        }
    }

    fn inverse(&self, cx: &Context<'_, D>, state: &mut State<D>) {
        let (_, shift) = self.run(cx, &state.x);
        self.add(cx, &mut state.x, &shift, true);
    }

    fn backward(&self, pass: &mut BackwardPass<'_, D>, saved: Saved) {
        let BackwardPass { cx, state, dx, gradient, .. } = pass;
        let (device, x) = (cx.device, &mut state.x);
        let saved = saved.take::<(Vec<D::Buffer>, D::Buffer)>();
        let (inputs, shift) = saved.unwrap_or_else(|| self.run(cx, x));
        self.add(cx, x, &shift, true);
        let (dims, at) = Self::half(x, self.changes_even);
        let mut dy = device.scratch(dims.len());
        device.map(&input(0), dims.shape(), &[read(&*dx, at)], write(&mut dy, dims.each()));
        let by_kept = self.m.backward(cx, dims.batch, inputs, dy, gradient);
        let (dims, at) = Self::half(x, !self.changes_even);
        device.map(&(old() + input(0)), dims.shape(), &[read(&by_kept, dims.each())], write(dx, at));
    }
}
