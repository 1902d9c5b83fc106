//! RealNVP's coupling (Dinh, Sohl-Dickstein and Bengio 2016, sections 3.3 to 3.7, and the authors' program).
//!
//! A part of the image is kept; a network of it changes the rest, which is then batch normalised:
//!
//! ```text
//! (t, raw) = NN(what stays)     s = scale·tanh(raw)
//! y = (x + t) ⊙ exp(s)          z = (y − μ)/√(σ² + ε)          log|det| = Σ (s − ½·log(σ² + ε))
//! ```
//!
//! over the changed elements. The kept part is a checkerboard of the pixels or half of the channels. The
//! statistics of a checkerboard count the kept pixels as zeros. In training mode the backward pass inverts
//! with the saved statistics of the forward pass: 2 numbers per channel, independent of depth.

use glowflow_kernels::expr::{Expr, checkerboard, constant, input, old};
use glowflow_kernels::{Device, Direction, Grid, Primitives, Span, Strided, View};

use super::norm::{Running, Statistics};
use super::residual_network::{Activations, ResidualNetwork, Source, Weights};
use super::views::{Dims, PER_IMAGE, per_channel, read, scalar, write};
use super::{BackwardPass, Context, Layer, Mode, Prepared, Save, Saved, Shape, Shapes, State};
use crate::params::{Init, ParamBuilder};

/// The part of the image that a coupling does not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// The pixels where `row + column + parity` is even, with all their channels.
    Checkerboard {
        /// 0 or 1.
        parity: usize,
    },
    /// The first half of the channels.
    FirstHalf,
    /// The last half of the channels.
    LastHalf,
}

/// A coupling with a residual network and batch normalisation.
#[derive(Clone, Debug)]
pub struct MaskedCoupling {
    mask: Mask,
    scale: Span,
    running: Running,
    network: ResidualNetwork,
}

impl MaskedCoupling {
    /// Declares `scale`, `norm.*` and `network.*` for a flow of `channels` channels; the network has `hidden`
    /// channels and `blocks` residual blocks.
    pub fn new(p: &mut ParamBuilder<'_>, channels: usize, hidden: usize, blocks: usize, mask: Mask) -> Self {
        let (changed, source) = match mask {
            Mask::Checkerboard { parity } => (channels, Source::Checkerboard { parity }),
            Mask::FirstHalf => (channels / 2, Source::Channels { first: 0, of: channels }),
            Mask::LastHalf => (channels / 2, Source::Channels { first: channels / 2, of: channels }),
        };
        // The authors penalise only the scales of checkerboard couplings, which start at 0.
        let scale = match mask {
            Mask::Checkerboard { .. } => p.penalized("scale", &[1], Init::Zeros),
            Mask::FirstHalf | Mask::LastHalf => p.parameter("scale", &[1], Init::Constant(1.0)),
        };
        Self {
            mask,
            scale,
            running: p.scope("norm", |p| Running::new(p, changed)),
            network: p.scope("network", |p| ResidualNetwork::new(p, changed, hidden, blocks, source)),
        }
    }

    /// The changed elements of activations.
    fn changed(&self, grid: Grid, channels: usize) -> Changed {
        match self.mask {
            Mask::Checkerboard { parity } => {
                let dims = Dims::of(grid, channels);
                Changed { dims, at: dims.each(), mask: Some(checkerboard(grid.width, parity + 1)) }
            }
            Mask::FirstHalf | Mask::LastHalf => {
                let dims = Dims::of(grid, channels / 2);
                let first = if self.mask == Mask::FirstHalf { channels / 2 } else { 0 };
                Changed { dims, at: dims.part(channels, first), mask: None }
            }
        }
    }

    /// Number of changed pixels per image.
    fn changed_pixels(&self, grid: Grid) -> usize {
        match self.mask {
            Mask::Checkerboard { parity } => {
                let odd = grid.pixels() / 2;
                if parity % 2 == 0 { odd } else { grid.pixels() - odd }
            }
            Mask::FirstHalf | Mask::LastHalf => grid.pixels(),
        }
    }
}

/// The changed elements: axes, strides, and mask.
struct Changed {
    dims: Dims,
    at: Strided,
    /// 1 where an element is changed; `None` if all are.
    mask: Option<Expr>,
}

impl Changed {
    /// `f` for changed elements, 0 for others.
    fn only(&self, f: Expr) -> Expr {
        match &self.mask {
            Some(mask) => mask.clone() * f,
            None => f,
        }
    }

    /// `f` for changed elements; others keep the output's previous value.
    fn or_old(&self, f: Expr) -> Expr {
        match &self.mask {
            Some(mask) => mask.clone() * f + (constant(1.0) - mask.clone()) * old(),
            None => f,
        }
    }

    /// t or raw of a network's output: the first or the last half of its channels.
    fn half(&self, last: bool) -> Strided {
        self.dims.part(2 * self.dims.channels, if last { self.dims.channels } else { 0 })
    }
}

impl<D: Primitives> Layer<D> for MaskedCoupling {
    fn shapes(&self, input: Shape) -> Shapes {
        Shapes::same(input)
    }

    fn activations(&self, input: Shape) -> usize {
        self.network.activations() * input.pixels()
    }

    fn full_activations(&self, input: Shape) -> usize {
        Layer::<D>::activations(self, input)
    }

    fn multiply_adds(&self, input: Shape) -> u128 {
        self.network.multiply_adds() * input.pixels() as u128
    }

    fn prepare(&self, cx: &Context<'_, D>, direction: Direction) -> Box<dyn Prepared<D>> {
        let running = match (cx.mode, direction) {
            (Mode::Eval, _) => Some(self.running.running(cx)),
            (Mode::Train, _) => None,
        };
        Box::new(Ready::<D> { layer: self.clone(), weights: self.network.prepare(cx), running })
    }
}

struct Ready<D: Device> {
    layer: MaskedCoupling,
    weights: Weights<D>,
    /// The running statistics, in evaluation mode.
    running: Option<Statistics<D>>,
}

/// Values that a coupling saves.
struct SavedCoupling<D: Device> {
    /// Statistics of the changed part, in training mode.
    statistics: Option<Statistics<D>>,
    /// The network's output and activations.
    network: Option<(D::Buffer, Activations<D>)>,
}

impl<D: Primitives> Ready<D> {
    /// `s` of raw, which is input `index`, and of the scale, the next input.
    fn s(index: usize) -> Expr {
        input(index + 1) * input(index).tanh()
    }

    fn scale<'a>(&self, cx: &Context<'a, D>) -> View<'a, D::Buffer> {
        read(cx.params, scalar(self.layer.scale.start))
    }
}

impl<D: Primitives> Prepared<D> for Ready<D> {
    fn forward(&self, cx: &Context<'_, D>, state: &mut State<D>, save: Save) -> Saved {
        let device = cx.device;
        let State { x, logp, statistics: batch, .. } = state;
        let network = &self.layer.network;
        let mut batch = (cx.mode == Mode::Train).then_some(batch);
        let (o, activations) = network.run_saving(cx, &self.weights, x.grid, &x.data, batch.as_deref_mut());

        let changed = self.layer.changed(x.grid, x.channels);
        let (dims, shape) = (changed.dims, changed.dims.shape());
        let (t, raw) = (read(&o, changed.half(false)), read(&o, changed.half(true)));
        let scale = self.scale(cx);
        let f = changed.or_old((old() + input(0)) * Self::s(1).exp());
        device.map(&f, shape, &[t, raw, scale], write(&mut x.data, changed.at));
        device.reduce(&changed.only(Self::s(0)), shape, &[raw, scale], write(logp, PER_IMAGE), true);

        let own = self.running.is_none().then(|| {
            let y = read(&x.data, changed.at);
            self.layer.running.statistics(cx, dims, &changed.only(input(0)), &[y], batch)
        });
        if let Some(statistics) = own.as_ref().or(self.running.as_ref()) {
            let inputs = [statistics.mean(), statistics.inverse_deviation()];
            let f = changed.or_old((old() - input(0)) * input(1));
            device.map(&f, shape, &inputs, write(&mut x.data, changed.at));
            let mut log = device.scratch(1);
            let pixels = constant(self.layer.changed_pixels(x.grid) as f64);
            let f = pixels * input(0).ln();
            device.reduce(&f, [1, 1, dims.channels], &inputs[1..], write(&mut log, scalar(0)), false);
            device.map(
                &(old() + input(0)),
                [dims.batch, 1, 1],
                &[read(&log, scalar(0))],
                write(logp, PER_IMAGE),
            );
        }
        let network = (save == Save::Activations).then_some((o, activations));
        Saved::new(SavedCoupling { statistics: own, network })
    }

    fn inverse(&self, cx: &Context<'_, D>, state: &mut State<D>) {
        let (device, x) = (cx.device, &mut state.x);
        let Some(running) = &self.running else {
            panic!("a coupling with batch normalisation is inverted in evaluation mode only")
        };
        let o = self.layer.network.run(cx, &self.weights, x.grid, &x.data, None);
        let changed = self.layer.changed(x.grid, x.channels);
        let inputs = [
            read(&o, changed.half(false)),
            read(&o, changed.half(true)),
            self.scale(cx),
            running.mean(),
            running.inverse_deviation(),
        ];
        let y = old() / input(4) + input(3);
        let f = changed.or_old(y * (-Self::s(1)).exp() - input(0));
        device.map(&f, changed.dims.shape(), &inputs, write(&mut x.data, changed.at));
    }

    fn backward(&self, pass: &mut BackwardPass<'_, D>, saved: Saved) {
        let BackwardPass { cx, state, dx, dlogp, gradient, .. } = pass;
        let (device, x) = (cx.device, &mut state.x);
        let Some(SavedCoupling { statistics, network }) = saved.take::<SavedCoupling<D>>() else {
            panic!("a coupling with batch normalisation needs what its forward pass saved")
        };
        let (o, activations) = network
            .unwrap_or_else(|| self.layer.network.run_saving(cx, &self.weights, x.grid, &x.data, None));
        let changed = self.layer.changed(x.grid, x.channels);
        let (dims, shape) = (changed.dims, changed.dims.shape());
        let Some(norm) = statistics.as_ref().or(self.running.as_ref()) else { return };

        // The norm: dy = r·(dz − (Σ dz + z·(Σ dz·z + dlogp·elements))/rows), with the sums over the changed
        // elements.
        match cx.mode {
            Mode::Eval => {
                let f = changed.or_old(old() * input(0));
                device.map(&f, shape, &[norm.inverse_deviation()], write(dx, changed.at));
            }
            Mode::Train => {
                let mut sums = device.scratch(2 * dims.channels);
                let (dz, z) = (read(&*dx, changed.at), read(&x.data, changed.at));
                device.reduce(&changed.only(input(0)), shape, &[dz], write(&mut sums, per_channel(0)), false);
                let product = changed.only(input(0) * input(1));
                let at = per_channel(dims.channels);
                device.reduce(&product, shape, &[dz, z], write(&mut sums, at), false);
                let elements = (dims.batch * self.layer.changed_pixels(x.grid)) as f64;
                let by_variance = old() + constant(*dlogp * elements);
                device.map(&by_variance, [1, 1, dims.channels], &[], write(&mut sums, at));
                let share = constant(1.0 / dims.rows() as f64);
                let correction = share * (input(2) + input(0) * input(3));
                let f = changed.or_old(input(1) * (old() - correction));
                let inputs = [z, norm.inverse_deviation(), read(&sums, per_channel(0)), read(&sums, at)];
                device.map(&f, shape, &inputs, write(dx, changed.at));
            }
        }
        // y = z/r + μ
        let f = changed.or_old(old() / input(1) + input(0));
        let inputs = [norm.mean(), norm.inverse_deviation()];
        device.map(&f, shape, &inputs, write(&mut x.data, changed.at));

        // The affine map: ds = dy·y + dlogp, dt = dx = dy·exp(s).
        let (t, raw, scale) = (read(&o, changed.half(false)), read(&o, changed.half(true)), self.scale(cx));
        let mut d_o = device.scratch(dims.len() * 2);
        {
            let (dy, y) = (read(&*dx, changed.at), read(&x.data, changed.at));
            let by_s = || input(0) * input(1) + constant(*dlogp);
            let tanh = || input(2).tanh();
            let f = changed.only(by_s() * tanh());
            device.reduce(&f, shape, &[dy, y, raw], write(gradient, scalar(self.layer.scale.start)), true);
            let f = changed.only(by_s() * input(3) * (constant(1.0) - tanh() * tanh()));
            device.map(&f, shape, &[dy, y, raw, scale], write(&mut d_o, changed.half(true)));
            let f = changed.only(input(0) * Self::s(1).exp());
            device.map(&f, shape, &[dy, raw, scale], write(&mut d_o, changed.half(false)));
        }
        let f = changed.or_old(old() * Self::s(0).exp());
        device.map(&f, shape, &[raw, scale], write(dx, changed.at));
        let f = changed.or_old(old() * (-Self::s(1)).exp() - input(0));
        device.map(&f, shape, &[t, raw, scale], write(&mut x.data, changed.at));

        self.layer.network.backward(cx, &self.weights, x.grid, &x.data, activations, &d_o, dx, gradient);
    }
}
