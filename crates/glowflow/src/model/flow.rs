//! A complete flow: its layers, run forward, inverse and backward.

use std::fmt;
use std::slice::Chunks;

use glowflow_kernels::{Direction, Grid, Operations, Real};

use crate::Error;
use crate::flow::{
    BackwardPass, Context, Dequantizer, FlowBuilder, LatentShape, Mode, NamedLayer, Prepared, Save, Saved,
    Shape, State, Tensor,
};
use crate::models::Architecture;
use crate::params::{Constant, Layout, Source};

/// The layers of a model, and the spans of its tensors. It holds no weights.
pub struct Flow<D: Operations> {
    /// Names and spans of the tensors.
    pub layout: Layout,
    image: Shape,
    latents: Vec<LatentShape>,
    layers: Vec<NamedLayer<D>>,
    /// For each layer, the offset in the flat buffer at which the parameters of all earlier layers end.
    starts: Vec<usize>,
    /// The offset at which the parameters of all layers end.
    layers_end: usize,
    dequantizer: Option<Dequantizer>,
}

/// Treatment of hidden activations between the forward and the backward pass of a training step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backprop {
    /// Discards and recomputes them: memory does not grow with depth.
    Reversible,
    /// Saves them: three quarters of the arithmetic, with memory that grows with depth.
    Stored,
}

impl Backprop {
    /// Values that layers save in the forward pass.
    pub(crate) fn save(self) -> Save {
        match self {
            Self::Reversible => Save::Minimum,
            Self::Stored => Save::Activations,
        }
    }
}

/// Result of a forward pass: the flow's output, and the values its layers saved for the backward pass.
pub struct Forward<D: Operations> {
    /// The output: latents and log-likelihoods.
    pub state: State<D>,
    saved: Vec<Saved>,
}

/// Prepares a group of layers for one direction.
fn prepared<D: Operations>(
    layers: &[NamedLayer<D>],
    cx: &Context<'_, D>,
    direction: Direction,
) -> Vec<Box<dyn Prepared<D>>> {
    layers.iter().map(|(_, layer)| layer.prepare(cx, direction)).collect()
}

impl<D: Operations> Flow<D> {
    /// Creates a flow of this architecture, with the constants of such a model.
    pub fn new(architecture: &impl Architecture, constants: &[Constant]) -> Self {
        let builder = FlowBuilder::build(architecture, Source::Given(constants));
        let dequantizer = builder.dequantizer().cloned();
        let layers_end = builder.ends().last().copied().unwrap_or(0);
        let starts = std::iter::once(0).chain(builder.ends().iter().copied());
        let starts: Vec<usize> = starts.take(builder.ends().len()).collect();
        let (params, layers, latents) = builder.into_parts();
        Self {
            layout: params.into_layout(),
            image: architecture.image().into(),
            latents,
            layers,
            starts,
            layers_end,
            dequantizer,
        }
    }

    /// The dequantiser that converts bin centres to `v` before the first layer; `None` for uniform noise.
    pub fn dequantizer(&self) -> Option<&Dequantizer> {
        self.dequantizer.as_ref()
    }

    /// For each layer, the offset from which on the gradient is final once its backward pass is done, except
    /// that of the dequantiser's parameters.
    pub fn starts(&self) -> &[usize] {
        &self.starts
    }

    /// The offset at which the parameters of all layers end, and those of the dequantiser begin.
    pub fn layers_end(&self) -> usize {
        self.layers_end
    }

    /// Shape of an image.
    pub fn image(&self) -> Shape {
        self.image
    }

    /// Shapes and distributions of the latents, level by level.
    pub fn latents(&self) -> &[LatentShape] {
        &self.latents
    }

    /// The initial state of images `v` `[batch, H, W, C]`.
    pub fn enter(&self, cx: &Context<'_, D>, batch: usize, v: D::Buffer, labels: D::Buffer) -> State<D> {
        let Shape { height, width, channels } = self.image;
        let statistics = match cx.mode {
            Mode::Train => self.layout.buffers_len(),
            Mode::Eval => 0,
        };
        State {
            x: Tensor { grid: Grid { batch, height, width }, channels, data: v },
            latents: vec![],
            logp: cx.device.zeros(batch),
            labels,
            condition: None,
            statistics: cx.device.scratch(statistics),
        }
    }

    /// Prepares all layers for one direction.
    pub fn prepare(&self, cx: &Context<'_, D>, direction: Direction) -> Vec<Box<dyn Prepared<D>>> {
        cx.device.within(|| prepared(&self.layers, cx, direction))
    }

    /// Runs layers prepared for [`Direction::Forward`] on a state.
    pub fn encode(&self, cx: &Context<'_, D>, layers: &[Box<dyn Prepared<D>>], state: &mut State<D>) {
        cx.device.within(|| {
            layers.iter().for_each(|layer| {
                layer.forward(cx, state, Save::Minimum);
            })
        });
    }

    /// Runs layers prepared for [`Direction::Inverse`] on a state.
    pub fn decode(&self, cx: &Context<'_, D>, layers: &[Box<dyn Prepared<D>>], state: &mut State<D>) {
        cx.device.within(|| layers.iter().rev().for_each(|layer| layer.inverse(cx, state)));
    }

    /// The groups of layers that a training step prepares together.
    fn groups(&self, device: &D) -> Chunks<'_, NamedLayer<D>> {
        self.layers.chunks(device.layers_at_once().max(1))
    }

    /// Forward pass of a training step. Layers are prepared in groups of the device's preferred size, so that
    /// no second copy of all weights exists.
    pub fn forward(&self, cx: &Context<'_, D>, mut state: State<D>, backprop: Backprop) -> Forward<D> {
        let (save, mut saved) = (backprop.save(), vec![]);
        cx.device.within(|| {
            for group in self.groups(cx.device) {
                for layer in prepared(group, cx, Direction::Forward) {
                    saved.push(layer.forward(cx, &mut state, save));
                }
            }
        });
        Forward { state, saved }
    }

    /// Backward pass: adds the gradient of the loss to `gradient`. Returns the image reconstructed from the
    /// latents, and its gradient. `dlogp` is the derivative of the loss with respect to one sample's
    /// log-likelihood.
    pub fn backward(
        &self,
        cx: &Context<'_, D>,
        forward: Forward<D>,
        dlogp: f64,
        gradient: &mut D::Buffer,
    ) -> (Tensor<D>, D::Buffer) {
        let mut ignored = |_: &D, _: &mut D::Buffer, _: usize| ();
        self.backward_reporting(cx, forward, dlogp, gradient, &mut ignored)
    }

    /// Like [`backward`](Self::backward), and calls `done` after each layer, with the gradient and the offset
    /// from which on it is final ([`starts`](Self::starts)).
    pub fn backward_reporting(
        &self,
        cx: &Context<'_, D>,
        forward: Forward<D>,
        dlogp: f64,
        gradient: &mut D::Buffer,
        done: &mut (dyn FnMut(&D, &mut D::Buffer, usize) + Send),
    ) -> (Tensor<D>, D::Buffer) {
        let Forward { state, mut saved } = forward;
        let [dx, dcondition] = [(); 2].map(|()| cx.device.scratch(0));
        let mut pass = BackwardPass { cx: *cx, state, dx, dcondition, dlogp, gradient };
        cx.device.within(|| {
            for group in self.groups(cx.device).rev() {
                for layer in prepared(group, cx, Direction::Backward).into_iter().rev() {
                    layer.backward(&mut pass, saved.pop().unwrap_or(Saved::NOTHING));
                    let start = self.starts.get(saved.len()).copied().unwrap_or(0);
                    done(pass.cx.device, &mut *pass.gradient, start);
                }
            }
        });
        (pass.state.x, pass.dx)
    }

    /// Data-dependent initialisation from the parts of a batch, layer by layer during a forward pass.
    pub fn initialize(
        &self,
        device: &D,
        params: &mut D::Buffer,
        buffers: &D::Buffer,
        parts: &mut [State<D>],
    ) {
        device.within(|| {
            for (_, layer) in &self.layers {
                layer.initialize(device, params, parts);
                let cx = Context { device, params, buffers, mode: Mode::Train };
                let ready = layer.prepare(&cx, Direction::Forward);
                for state in &mut *parts {
                    ready.forward(&cx, state, Save::Minimum);
                }
            }
        });
    }

    /// The range of values after the dequantiser, if there is one, and after each layer.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn trace(&self, cx: &Context<'_, D>, mut state: State<D>) -> Result<Vec<Range>, Error> {
        let dequantized = self.dequantizer.iter().map(|_| Range::of("dequantizer", cx.device, &state));
        let mut ranges = dequantized.collect::<Result<Vec<_>, _>>()?;
        for (name, layer) in &self.layers {
            layer.prepare(cx, Direction::Forward).forward(cx, &mut state, Save::Minimum);
            ranges.push(Range::of(name, cx.device, &state)?);
        }
        Ok(ranges)
    }
}

/// The range of values after a layer: its output, new latents, and log-likelihoods.
#[derive(Clone, Debug)]
pub struct Range {
    /// The layer.
    pub layer: String,
    /// The smallest value; NaN if any value is NaN.
    pub low: f64,
    /// The largest value; NaN if any value is NaN.
    pub high: f64,
}

impl Range {
    /// The range of a state's values.
    fn of<D: Operations>(layer: &str, device: &D, state: &State<D>) -> Result<Self, Error> {
        let mut numbers = device.download(&state.x.data)?;
        numbers.extend(device.download(&state.logp)?);
        if let Some(eps) = state.latents.last() {
            numbers.extend(device.download(&eps.data)?);
        }
        let numbers = numbers.iter().map(|x| x.wide());
        let fold = |pick: fn(f64, f64) -> f64| {
            // Minimum and maximum ignore NaN, which must be detected here.
            numbers.clone().reduce(|a, b| if a.is_nan() || b.is_nan() { f64::NAN } else { pick(a, b) })
        };
        let (low, high) = (fold(f64::min).unwrap_or(0.0), fold(f64::max).unwrap_or(0.0));
        Ok(Self { layer: layer.to_owned(), low, high })
    }

    /// The largest magnitude.
    pub fn magnitude(&self) -> f64 {
        self.low.abs().max(self.high.abs())
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (from {:.3e} to {:.3e})", self.layer, self.low, self.high)
    }
}
