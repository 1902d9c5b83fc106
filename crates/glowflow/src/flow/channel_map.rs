//! ActNorm and the following permutation.
//!
//! ```text
//! actnorm       y = (x + bias) ⊙ exp(3·logs)                             log|det| = H·W·Σ 3·logs
//! permutation   y = W x,  W = P·L·(U + diag(sign ⊙ exp(log_s)))           log|det| = H·W·Σ log_s
//!               or a fixed permutation of the channels                    log|det| = 0
//! ```
//!
//! Both act on the channels of each pixel separately, so they are fused into one affine map (Kingma and
//! Dhariwal 2018, sections 3.1 and 3.2).

use glowflow_kernels::ops::{ActNorm, ChannelMap};
use glowflow_kernels::{ActNormParams, ChannelMapParams, Direction, PermutationParams};

use super::{BackwardPass, Context, Layer, Prepared, Save, Saved, Shape, Shapes, State};
use crate::models::PermutationType;
use crate::params::{Init, Lu, ParamBuilder, Triangle, random_rotation, shuffled};

/// Actnorm, then a permutation of the channels (or its generalisation, the invertible 1×1 convolution).
#[derive(Clone, Debug)]
pub struct ActNormPermutation {
    params: ChannelMapParams,
    /// True if the actnorm is initialised from data.
    from_data: bool,
}

impl ActNormPermutation {
    /// Declares the tensors `actnorm.*` and `permutation.*`. A new model's 1×1 convolution is a random
    /// rotation.
    pub fn new(p: &mut ParamBuilder<'_>, channels: usize, permutation: PermutationType) -> Self {
        let actnorm = p.scope("actnorm", |p| actnorm(p, channels));
        let stream = p.permutation_stream();
        let permutation = p.scope("permutation", |p| match permutation {
            PermutationType::Conv1x1 => {
                let lu = stream.map(|stream| random_rotation(stream, channels));
                let Lu { index, sign, lower, upper, log_s } = lu.unwrap_or_default();
                PermutationParams::Lu {
                    index: p.permutation("index", channels, || index),
                    sign: p.signs("sign", channels, || sign),
                    lower: p.triangle("lower", channels, Triangle::Lower, Init::Values(lower)),
                    upper: p.triangle("upper", channels, Triangle::Upper, Init::Values(upper)),
                    log_s: p.parameter("log_s", &[channels], Init::Values(log_s)),
                }
            }
            PermutationType::Shuffle => {
                let index = || stream.map_or(vec![], |stream| shuffled(stream, channels));
                PermutationParams::Fixed { index: p.permutation("index", channels, index) }
            }
            PermutationType::Reverse => {
                let index = || (0..channels).rev().collect();
                PermutationParams::Fixed { index: p.permutation("index", channels, index) }
            }
        });
        Self { params: ChannelMapParams { channels, actnorm, permutation }, from_data: true }
    }

    /// Keeps the actnorm at the identity: no data-dependent initialisation.
    pub fn without_initialization(self) -> Self {
        Self { from_data: false, ..self }
    }
}

/// Declares bias and log-scale of an actnorm, both 0.
pub(super) fn actnorm(p: &mut ParamBuilder<'_>, channels: usize) -> ActNormParams {
    ActNormParams {
        bias: p.parameter("bias", &[channels], Init::Zeros),
        logs: p.parameter("logs", &[channels], Init::Zeros),
    }
}

impl<D: ActNorm + ChannelMap> Layer<D> for ActNormPermutation {
    fn shapes(&self, input: Shape) -> Shapes {
        Shapes::same(input)
    }

    fn multiply_adds(&self, input: Shape) -> u128 {
        match self.params.permutation {
            PermutationParams::Lu { .. } => input.pixels() as u128 * (input.channels as u128).pow(2),
            PermutationParams::Fixed { .. } => 0,
        }
    }

    fn prepare(&self, cx: &Context<'_, D>, direction: Direction) -> Box<dyn Prepared<D>> {
        let map = cx.device.prepare_channel_map(&self.params, cx.params, direction);
        Box::new(Ready::<D> { at: self.params.clone(), map })
    }

    fn initialize(&self, device: &D, params: &mut D::Buffer, parts: &[State<D>]) {
        if self.from_data {
            let parts: Vec<_> = parts.iter().map(|state| &state.x.data).collect();
            device.initialize_actnorm_from(&self.params.actnorm, &parts, params);
        }
    }
}

struct Ready<D: ChannelMap> {
    at: ChannelMapParams,
    map: D::Map,
}

impl<D: ChannelMap> Prepared<D> for Ready<D> {
    fn forward(&self, cx: &Context<'_, D>, state: &mut State<D>, _: Save) -> Saved {
        cx.device.channel_map(&self.map, state.x.grid, &mut state.x.data, Some(&mut state.logp));
        Saved::NOTHING
    }

    fn inverse(&self, cx: &Context<'_, D>, state: &mut State<D>) {
        cx.device.channel_map(&self.map, state.x.grid, &mut state.x.data, None);
    }

    fn backward(&self, pass: &mut BackwardPass<'_, D>, _: Saved) {
        let x = &mut pass.state.x;
        pass.cx.device.channel_map_backward(
            &self.map,
            &self.at,
            pass.cx.params,
            x.grid,
            &mut x.data,
            &mut pass.dx,
            pass.dlogp,
            pass.gradient,
        );
    }
}
