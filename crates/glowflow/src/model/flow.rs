//! A flow as a whole: its layers, run forward, inverse and backward.

use std::fmt;
use std::slice::Chunks;

use glowflow_kernels::{Device, Direction, Grid, Real};

use super::layout::{FixedPermutation, Layout, NamedLayer, build};
use crate::Error;
use crate::flow::{BackwardPass, Prepared, Save, Saved, State, Tensor};
use crate::models::ModelConfig;

/// The layers of a model, and where its parameters lie. It holds no weights.
pub struct Flow<D: Device> {
    /// The architecture.
    pub config: ModelConfig,
    /// Names and places of the parameters.
    pub layout: Layout,
    layers: Vec<NamedLayer<D>>,
}

/// What a training step does with hidden activations between the way forward and the way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backprop {
    /// Drops them and runs each network once more: memory does not grow with depth.
    Reversible,
    /// Keeps them: three quarters of the arithmetic, for memory that grows with depth.
    Stored,
}

/// Result of a forward pass: the flow's output, and what its layers saved for the backward pass.
pub struct Forward<D: Device> {
    /// The output: latents and log-likelihoods.
    pub state: State<D>,
    saved: Vec<Saved>,
}

/// Makes some layers ready to run in one direction.
fn prepared<D: Device>(
    layers: &[NamedLayer<D>],
    device: &D,
    params: &D::Buffer,
    direction: Direction,
) -> Vec<Box<dyn Prepared<D>>> {
    layers.iter().map(|(_, layer)| layer.prepare(device, params, direction)).collect()
}

impl<D: Device> Flow<D> {
    /// A flow of this architecture; `permutations` holds one entry a step, levels in order.
    pub fn new(config: ModelConfig, permutations: &[FixedPermutation]) -> Self {
        let (layout, layers) = build(&config, permutations);
        Self { config, layout, layers }
    }

    /// The state in which images `v` `[batch, H, W, C]` enter the flow.
    pub fn enter(&self, device: &D, batch: usize, v: D::Buffer, labels: D::Buffer) -> State<D> {
        let [height, width, channels] = self.config.image();
        State {
            x: Tensor { grid: Grid { batch, height, width }, channels, data: v },
            latents: vec![],
            logp: device.zeros(batch),
            labels,
        }
    }

    /// Makes all layers ready to run in one direction.
    pub fn prepare(&self, device: &D, params: &D::Buffer, direction: Direction) -> Vec<Box<dyn Prepared<D>>> {
        device.within(|| prepared(&self.layers, device, params, direction))
    }

    /// Takes a state through layers that are ready for [`Direction::Forward`].
    pub fn encode(&self, device: &D, layers: &[Box<dyn Prepared<D>>], state: &mut State<D>) {
        device.within(|| {
            layers.iter().for_each(|layer| {
                layer.forward(device, state, Save::Minimum);
            })
        });
    }

    /// Takes a state back through layers that are ready for [`Direction::Inverse`].
    pub fn decode(&self, device: &D, layers: &[Box<dyn Prepared<D>>], state: &mut State<D>) {
        device.within(|| layers.iter().rev().for_each(|layer| layer.inverse(device, state)));
    }

    /// The layers that a training step makes ready together.
    fn groups(&self, device: &D) -> Chunks<'_, NamedLayer<D>> {
        self.layers.chunks(device.layers_at_once().max(1))
    }

    /// The way forward of a training step. Layers are made ready as many at a time as the device wants, so that no second copy of all
    /// weights exists.
    pub fn forward(
        &self,
        device: &D,
        params: &D::Buffer,
        mut state: State<D>,
        backprop: Backprop,
    ) -> Forward<D> {
        let save = match backprop {
            Backprop::Stored => Save::Activations,
            Backprop::Reversible => Save::Minimum,
        };
        let mut saved = vec![];
        device.within(|| {
            for group in self.groups(device) {
                for layer in prepared(group, device, params, Direction::Forward) {
                    saved.push(layer.forward(device, &mut state, save));
                }
            }
        });
        Forward { state, saved }
    }

    /// Backward pass: adds the gradient of the loss to `gradient`. Returns the image as rebuilt from the latents,
    /// and the gradient by it. `dlogp` is the derivative of the loss by one sample's log-likelihood.
    pub fn backward(
        &self,
        device: &D,
        params: &D::Buffer,
        forward: Forward<D>,
        dlogp: f64,
        gradient: &mut D::Buffer,
    ) -> (Tensor<D>, D::Buffer) {
        let Forward { state, mut saved } = forward;
        let dx = device.scratch(0);
        let mut pass = BackwardPass { device, params, state, dx, dlogp, gradient };
        device.within(|| {
            for group in self.groups(device).rev() {
                for layer in prepared(group, device, params, Direction::Backward).into_iter().rev() {
                    layer.backward(&mut pass, saved.pop().unwrap_or(Saved::NOTHING));
                }
            }
        });
        (pass.state.x, pass.dx)
    }

    /// Data-dependent initialisation, layer by layer on the way up; returns where the batch ends.
    pub fn initialize(&self, device: &D, params: &mut D::Buffer, mut state: State<D>) -> State<D> {
        device.within(|| {
            for (_, layer) in &self.layers {
                layer.initialize(device, params, &state);
                layer.prepare(device, params, Direction::Forward).forward(device, &mut state, Save::Minimum);
            }
        });
        state
    }

    /// The range of numbers behind each layer, on the way forward.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn trace(&self, device: &D, params: &D::Buffer, mut state: State<D>) -> Result<Vec<Range>, Error> {
        self.layers
            .iter()
            .map(|(name, layer)| {
                layer.prepare(device, params, Direction::Forward).forward(device, &mut state, Save::Minimum);
                let mut numbers = device.download(&state.x.data)?;
                numbers.extend(device.download(&state.logp)?);
                if let Some(eps) = state.latents.last() {
                    numbers.extend(device.download(&eps.data)?);
                }
                let numbers = numbers.iter().map(|x| x.wide());
                let fold = |pick: fn(f64, f64) -> f64| {
                    // Minimum and maximum skip NaN, which is what is looked for.
                    numbers
                        .clone()
                        .reduce(|a, b| if a.is_nan() || b.is_nan() { f64::NAN } else { pick(a, b) })
                };
                let (low, high) = (fold(f64::min).unwrap_or(0.0), fold(f64::max).unwrap_or(0.0));
                Ok(Range { layer: name.clone(), low, high })
            })
            .collect()
    }
}

/// The range of the numbers behind a layer: its output, new latents, and log-likelihoods.
#[derive(Clone, Debug)]
pub struct Range {
    /// The layer.
    pub layer: String,
    /// The smallest number; NaN where one is NaN.
    pub low: f64,
    /// The largest number; NaN where one is NaN.
    pub high: f64,
}

impl Range {
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
