//! ActNorm and the permutation behind it.
//!
//! ```text
//! actnorm       y = (x + bias) ⊙ exp(3·logs)                             log|det| = H·W·Σ 3·logs
//! permutation   y = W x,  W = P·L·(U + diag(sign ⊙ exp(log_s)))           log|det| = H·W·Σ log_s
//!               or a fixed permutation of the channels                    log|det| = 0
//! ```
//!
//! Both act on each pixel's channels alone, so they run as one affine map (Kingma and Dhariwal 2018,
//! sections 3.1 and 3.2).

use glowflow_kernels::{ChannelMapParams, Device, Direction};

use super::{BackwardPass, Layer, Prepared, Save, Saved, State};

/// Actnorm, then a permutation of the channels (or its generalisation, the invertible 1×1 convolution).
#[derive(Clone, Debug)]
pub struct ActNormPermutation {
    /// Where the parameters are.
    pub params: ChannelMapParams,
}

impl<D: Device> Layer<D> for ActNormPermutation {
    fn prepare(&self, device: &D, params: &D::Buffer, direction: Direction) -> Box<dyn Prepared<D>> {
        let map = device.prepare_channel_map(&self.params, params, direction);
        Box::new(Ready::<D> { at: self.params.clone(), map })
    }

    fn initialize(&self, device: &D, params: &mut D::Buffer, input: &State<D>) {
        device.initialize_actnorm(&self.params.actnorm, &input.x.data, params);
    }
}

struct Ready<D: Device> {
    at: ChannelMapParams,
    map: D::ChannelMap,
}

impl<D: Device> Prepared<D> for Ready<D> {
    fn forward(&self, device: &D, state: &mut State<D>, _: Save) -> Saved {
        device.channel_map(&self.map, state.x.grid, &mut state.x.data, Some(&mut state.logp));
        Saved::NOTHING
    }

    fn inverse(&self, device: &D, state: &mut State<D>) {
        device.channel_map(&self.map, state.x.grid, &mut state.x.data, None);
    }

    fn backward(&self, pass: &mut BackwardPass<'_, D>, _: Saved) {
        let x = &mut pass.state.x;
        pass.device.channel_map_backward(
            &self.map,
            &self.at,
            pass.params,
            x.grid,
            &mut x.data,
            &mut pass.dx,
            pass.dlogp,
            pass.gradient,
        );
    }
}
