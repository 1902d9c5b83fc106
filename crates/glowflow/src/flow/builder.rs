//! [`FlowBuilder`]: assembles the layers of an architecture and derives their shapes.

use glowflow_kernels::{Device, Operations};

use super::Layer;
use super::dequantizer::Dequantizer;
use super::shape::{LatentShape, Shape};
use crate::models::Architecture;
use crate::params::{ParamBuilder, Source};

/// A layer with its name in reports, the first part of its parameters' names.
pub type NamedLayer<D> = (String, Box<dyn Layer<D>>);

/// Layers and tensors of a model under construction.
pub struct FlowBuilder<'a, D: Device> {
    /// The tensors.
    pub params: ParamBuilder<'a>,
    layers: Vec<NamedLayer<D>>,
    /// For each layer, the number of parameters declared when it was appended.
    ends: Vec<usize>,
    latents: Vec<LatentShape>,
    shape: Shape,
    /// For each layer, numbers per image that its backward pass holds in memory.
    activations: Vec<usize>,
    /// The part that is in single precision regardless of the networks' precision.
    full_activations: Vec<usize>,
    /// Multiply-adds per image of all layers and of the dequantiser.
    multiply_adds: u128,
    dequantizer: Option<Dequantizer>,
}

impl<'a, D: Device> FlowBuilder<'a, D> {
    /// Builds an architecture: its layers, then its dequantiser.
    pub fn build(architecture: &impl Architecture, source: Source<'a>) -> Self
    where
        D: Operations,
    {
        let image = architecture.image().into();
        let mut builder = Self::new(image, source);
        architecture.build(&mut builder);
        builder.dequantizer = architecture.dequantizer().map(|config| {
            builder.params.scope("dequantizer", |p| Dequantizer::new(p, image, architecture.bins(), config))
        });
        if let Some(dequantizer) = &builder.dequantizer {
            let activations = dequantizer.activations::<D>(image);
            builder.full_activations.extend(activations.iter().map(|_| 0));
            builder.activations.extend(activations);
            builder.multiply_adds += dequantizer.multiply_adds::<D>(image);
        }
        builder
    }

    /// Creates a builder without layers, for images of this shape.
    pub fn new(image: Shape, source: Source<'a>) -> Self {
        Self {
            params: ParamBuilder::new(source),
            layers: vec![],
            ends: vec![],
            latents: vec![],
            shape: image,
            activations: vec![],
            full_activations: vec![],
            multiply_adds: 0,
            dequantizer: None,
        }
    }

    /// Input shape of the next layer.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Appends a layer.
    pub fn push(&mut self, name: impl Into<String>, layer: impl Layer<D> + 'static) {
        let shapes = layer.shapes(self.shape);
        self.activations.push(layer.activations(self.shape));
        self.full_activations.push(layer.full_activations(self.shape));
        self.multiply_adds += layer.multiply_adds(self.shape);
        self.shape = shapes.output;
        self.latents.extend(shapes.latents);
        self.ends.push(self.params.layout().len());
        self.layers.push((name.into(), Box::new(layer)));
    }

    /// Appends the layer that `make` declares. Its tensors' names begin with `name` and a dot; `make`
    /// receives the shape of its input.
    pub fn push_with<L: Layer<D> + 'static>(
        &mut self,
        name: impl Into<String>,
        make: impl FnOnce(&mut ParamBuilder<'a>, Shape) -> L,
    ) {
        let (name, shape) = (name.into(), self.shape);
        let layer = self.params.scope(&name, |p| make(p, shape));
        self.push(name, layer);
    }

    /// Shapes and distributions of the latents, level by level.
    pub fn latents(&self) -> &[LatentShape] {
        &self.latents
    }

    /// For each layer and each coupling of the dequantiser, numbers per image that its backward pass holds in
    /// memory in addition to input and output.
    pub fn activations(&self) -> &[usize] {
        &self.activations
    }

    /// The part of [`activations`](Self::activations) that is in single precision regardless of the networks'
    /// precision.
    pub fn full_activations(&self) -> &[usize] {
        &self.full_activations
    }

    /// Multiply-adds of a forward pass per image: see [`Layer::multiply_adds`].
    pub fn multiply_adds(&self) -> u128 {
        self.multiply_adds
    }

    /// For each layer, the offset in the flat buffer at which its parameters and those of all earlier layers
    /// end.
    pub fn ends(&self) -> &[usize] {
        &self.ends
    }

    /// The dequantiser, if the architecture has one.
    pub fn dequantizer(&self) -> Option<&Dequantizer> {
        self.dequantizer.as_ref()
    }

    /// The tensors, the layers, and the latents.
    pub fn into_parts(self) -> (ParamBuilder<'a>, Vec<NamedLayer<D>>, Vec<LatentShape>) {
        (self.params, self.layers, self.latents)
    }
}
