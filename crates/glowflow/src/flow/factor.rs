//! Factors out latents with a fixed base distribution, which need no standardisation.
//!
//! [`FactorOut`] removes the last half of the channels from the flow, [`FactorRest`] all remaining ones. The
//! log-density of the base distribution is added to the log-likelihood: `−½·(z² + log 2π)` or
//! `−|z| − 2·log(1 + exp(−|z|))` per number.

use glowflow_kernels::expr::{Expr, constant, input};
use glowflow_kernels::{Direction, Primitives};

use super::views::{Dims, PER_IMAGE, read, write};
use super::{
    BackwardPass, Base, Context, LatentShape, Layer, Prepared, Save, Saved, Shape, Shapes, State, Tensor,
};

/// Factors out the last half of the channels.
#[derive(Clone, Copy, Debug)]
pub struct FactorOut(pub Base);

/// Factors out everything: the end of a flow.
#[derive(Clone, Copy, Debug)]
pub struct FactorRest(pub Base);

impl Base {
    /// Log-density of one number `z`.
    fn log_density_of(self, z: Expr) -> Expr {
        match self {
            Self::Normal => constant(-0.5) * (z.clone() * z + constant(std::f64::consts::TAU.ln())),
            Self::Logistic => {
                let magnitude = z.abs();
                -(magnitude.clone() + constant(2.0) * (-magnitude).softplus())
            }
        }
    }

    /// Its derivative.
    fn slope(self, z: Expr) -> Expr {
        match self {
            Self::Normal => -z,
            Self::Logistic => constant(1.0) - constant(2.0) * z.sigmoid(),
        }
    }

    fn add_log_density<D: Primitives>(self, cx: &Context<'_, D>, z: &Tensor<D>, logp: &mut D::Buffer) {
        let dims = Dims::of(z.grid, z.channels);
        let each = read(&z.data, dims.each());
        cx.device.reduce(&self.log_density_of(input(0)), dims.shape(), &[each], write(logp, PER_IMAGE), true);
    }

    /// The gradient of the loss with respect to the latents.
    fn gradient<D: Primitives>(self, cx: &Context<'_, D>, z: &Tensor<D>, dlogp: f64) -> D::Buffer {
        let dims = Dims::of(z.grid, z.channels);
        let mut dz = cx.device.scratch(dims.len());
        let f = constant(dlogp) * self.slope(input(0));
        cx.device.map(&f, dims.shape(), &[read(&z.data, dims.each())], write(&mut dz, dims.each()));
        dz
    }
}

/// Splits activations into the first and the last half of the channels.
fn halves<D: Primitives>(cx: &Context<'_, D>, x: &Tensor<D>) -> [Tensor<D>; 2] {
    let (grid, channels) = (x.grid, x.channels / 2);
    let dims = Dims::of(grid, channels);
    [0, channels].map(|first| {
        let mut data = cx.device.scratch(dims.len());
        let from = read(&x.data, dims.part(2 * channels, first));
        cx.device.map(&input(0), dims.shape(), &[from], write(&mut data, dims.each()));
        Tensor { grid, channels, data }
    })
}

/// The inverse of [`halves`].
fn joined<D: Primitives>(cx: &Context<'_, D>, dims: Dims, halves: [&D::Buffer; 2]) -> D::Buffer {
    let mut data = cx.device.scratch(2 * dims.len());
    for (half, first) in halves.into_iter().zip([0, dims.channels]) {
        let to = write(&mut data, dims.part(2 * dims.channels, first));
        cx.device.map(&input(0), dims.shape(), &[read(half, dims.each())], to);
    }
    data
}

impl<D: Primitives> Layer<D> for FactorOut {
    fn shapes(&self, input: Shape) -> Shapes {
        let half = Shape { channels: input.channels / 2, ..input };
        Shapes { output: half, latents: Some(LatentShape { shape: half, base: self.0 }) }
    }

    fn prepare(&self, _: &Context<'_, D>, _: Direction) -> Box<dyn Prepared<D>> {
        Box::new(*self)
    }
}

impl<D: Primitives> Prepared<D> for FactorOut {
    fn forward(&self, cx: &Context<'_, D>, state: &mut State<D>, _: Save) -> Saved {
        let [first, last] = halves(cx, &state.x);
        self.0.add_log_density(cx, &last, &mut state.logp);
        state.x = first;
        state.latents.push(last);
        Saved::NOTHING
    }

    fn inverse(&self, cx: &Context<'_, D>, state: &mut State<D>) {
        let last = state.pop_latents();
        let Tensor { grid, channels, data } = &state.x;
        let data = joined(cx, Dims::of(*grid, *channels), [data, &last.data]);
        state.x = Tensor { grid: *grid, channels: 2 * channels, data };
    }

    fn backward(&self, pass: &mut BackwardPass<'_, D>, _: Saved) {
        let BackwardPass { cx, state, dx, dlogp, .. } = pass;
        if let Some(last) = state.latents.last() {
            let dz = self.0.gradient(cx, last, *dlogp);
            *dx = joined(cx, Dims::of(last.grid, last.channels), [&*dx, &dz]);
        }
        self.inverse(cx, state);
    }
}

impl<D: Primitives> Layer<D> for FactorRest {
    fn shapes(&self, input: Shape) -> Shapes {
        Shapes::end(input, self.0)
    }

    fn prepare(&self, _: &Context<'_, D>, _: Direction) -> Box<dyn Prepared<D>> {
        Box::new(*self)
    }
}

impl<D: Primitives> Prepared<D> for FactorRest {
    fn forward(&self, cx: &Context<'_, D>, state: &mut State<D>, _: Save) -> Saved {
        let nothing = Tensor { grid: state.x.grid, channels: 0, data: cx.device.scratch(0) };
        let z = std::mem::replace(&mut state.x, nothing);
        self.0.add_log_density(cx, &z, &mut state.logp);
        state.latents.push(z);
        Saved::NOTHING
    }

    fn inverse(&self, _: &Context<'_, D>, state: &mut State<D>) {
        state.x = state.pop_latents();
    }

    fn backward(&self, pass: &mut BackwardPass<'_, D>, _: Saved) {
        let z = pass.state.pop_latents();
        pass.dx = self.0.gradient(&pass.cx, &z, pass.dlogp);
        pass.state.x = z;
    }
}
