//! A flow as a whole: its layers, run forward, inverse and backward.

use glowflow_kernels::{Device, Direction, Grid};

use super::config::ModelConfig;
use super::layout::{FixedPermutation, Layout, build};
use crate::flow::{Backward, Kept, Layer, Prepared, State, Tensor};

/// The layers of a model, and where its parameters lie. It holds no weights.
pub struct Flow<D: Device> {
    /// The architecture.
    pub config: ModelConfig,
    /// Names and places of the parameters.
    pub layout: Layout,
    layers: Vec<Box<dyn Layer<D>>>,
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

/// How far a training step has come: the output of the flow, and what its layers keep.
pub struct Forward<D: Device> {
    /// The output: latents and log-likelihoods.
    pub state: State<D>,
    kept: Vec<Option<Kept<D>>>,
}

impl<D: Device> Flow<D> {
    /// A flow of this architecture; `permutations` holds one entry a step, levels in order.
    pub fn new(config: ModelConfig, permutations: &[FixedPermutation]) -> Self {
        let (layout, layers) = build(&config, permutations);
        Self { config, layout, layers }
    }

    /// The state in which images `v` `[batch, H, W, C]` enter the flow.
    pub fn enter(&self, device: &D, batch: usize, v: D::Buffer, labels: D::Buffer) -> State<D> {
        let [height, width, channels] = self.config.image;
        State {
            x: Tensor { grid: Grid { batch, height, width }, channels, data: v },
            latents: vec![],
            logp: device.zeros(batch),
            labels,
        }
    }

    /// Makes all layers ready to run in one direction.
    pub fn prepare(&self, device: &D, params: &D::Buffer, direction: Direction) -> Vec<Box<dyn Prepared<D>>> {
        self.layers.iter().map(|layer| layer.prepare(device, params, direction)).collect()
    }

    /// The way forward of a training step. Layers are made ready one after the other, so that no second
    /// copy of the weights exists.
    pub fn forward(
        &self,
        device: &D,
        params: &D::Buffer,
        mut state: State<D>,
        backprop: Backprop,
    ) -> Forward<D> {
        let kept = self
            .layers
            .iter()
            .map(|layer| {
                let layer = layer.prepare(device, params, Direction::Forward);
                match backprop {
                    Backprop::Stored => layer.forward_keeping(device, &mut state),
                    Backprop::Reversible => {
                        layer.forward(device, &mut state);
                        None
                    }
                }
            })
            .collect();
        Forward { state, kept }
    }

    /// The way back: adds the gradient of the loss to `gradient` and returns the image as rebuilt from the latents.
    /// `dlogp` is the derivative of the loss by one sample's log-likelihood.
    pub fn backward(
        &self,
        device: &D,
        params: &D::Buffer,
        forward: Forward<D>,
        dlogp: f64,
        gradient: &mut D::Buffer,
    ) -> Tensor<D> {
        let Forward { state, kept } = forward;
        let dx = device.scratch(0);
        let mut pass = Backward { device, params, state, dx, dlogp, gradient };
        for (layer, kept) in self.layers.iter().zip(kept).rev() {
            layer.backward(&mut pass, kept);
        }
        pass.state.x
    }

    /// Data-dependent initialisation, layer by layer on the way up; returns where the batch ends.
    pub fn initialize(&self, device: &D, params: &mut D::Buffer, mut state: State<D>) -> State<D> {
        for layer in &self.layers {
            layer.initialize(device, params, &state);
            layer.prepare(device, params, Direction::Forward).forward(device, &mut state);
        }
        state
    }
}
