//! A coupling whose network also reads the state's condition `c`:
//!
//! ```text
//! [t, s] = NN([x_kept, c])     a = 2·tanh(s/2)     y_changed = x_changed·exp(a) + t     log|det| = Σ a
//! ```
//!
//! `NN` is the network of [`Coupling`](super::Coupling). The layer changes one half of the channels given the
//! other half, or all of them given only `c`. The last convolution of a new model is 0, so a new layer is the
//! identity. The scale `exp(a)` is between e⁻² and e².

use glowflow_kernels::expr::{constant, input, old};
use glowflow_kernels::ops::CouplingNetwork;
use glowflow_kernels::{Direction, Grid, NetworkParams, Strided};

use super::network::{convolutions, convolutions_multiply_adds};
use super::views::{Dims, PER_IMAGE, read, write};
use super::{BackwardPass, Context, Layer, Prepared, Save, Saved, Shape, Shapes, State, Tensor};
use crate::params::ParamBuilder;

/// The channels that a conditional coupling changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changes {
    /// The first half, given the rest.
    FirstHalf,
    /// The last half, given the rest.
    LastHalf,
    /// All, given only the condition.
    All,
}

impl Changes {
    /// The channels that change, and those that are kept.
    fn parts(self, channels: usize) -> (Part, Part) {
        let half = channels / 2;
        let (first, last) = (Part { first: 0, len: half }, Part { first: half, len: channels - half });
        match self {
            Self::FirstHalf => (first, last),
            Self::LastHalf => (last, first),
            Self::All => (Part { first: 0, len: channels }, Part { first: 0, len: 0 }),
        }
    }
}

/// A range of the channels of activations.
#[derive(Clone, Copy, Debug)]
struct Part {
    first: usize,
    len: usize,
}

impl Part {
    fn dims(self, grid: Grid) -> Dims {
        Dims::of(grid, self.len)
    }

    /// Its strides in activations with `of` channels.
    fn at(self, grid: Grid, of: usize) -> Strided {
        self.dims(grid).part(of, self.first)
    }
}

/// An affine coupling with a condition.
#[derive(Clone, Copy, Debug)]
pub struct ConditionalCoupling {
    channels: usize,
    condition: usize,
    changed: Part,
    kept: Part,
    network: NetworkParams,
}

impl ConditionalCoupling {
    /// Declares the network's tensors, like those of [`Coupling`](super::Coupling), for a flow of `channels`
    /// channels and a condition of `condition` channels.
    pub fn new(
        p: &mut ParamBuilder<'_>,
        channels: usize,
        condition: usize,
        hidden: usize,
        changes: Changes,
    ) -> Self {
        let (changed, kept) = changes.parts(channels);
        // No hidden weights: Muon moves a matrix by the same amount for any gradient. Those of a dequantiser
        // are so small that its units would stop responding.
        let network = convolutions(p, ParamBuilder::weight, kept.len + condition, hidden, 2 * changed.len);
        Self { channels, condition, changed, kept, network }
    }

    /// The parts of the network's input: `x_kept` and `c`. The network reads the first half of the channels
    /// of a buffer.
    fn inputs(&self) -> [Part; 2] {
        [Part { first: 0, len: self.kept.len }, Part { first: self.kept.len, len: self.condition }]
    }

    /// `[x_kept, c]`.
    fn input<D: CouplingNetwork>(&self, device: &D, state: &State<D>) -> D::Buffer {
        let (x, condition, width) = (&state.x, state.condition(), 2 * self.network.inputs);
        let mut to = device.scratch(x.grid.rows() * width);
        let from = [
            (&x.data, self.kept.at(x.grid, self.channels)),
            (&condition.data, Dims::of(x.grid, self.condition).each()),
        ];
        for (part, (buffer, at)) in self.inputs().into_iter().zip(from) {
            let dims = part.dims(x.grid);
            if !dims.is_empty() {
                let to = write(&mut to, part.at(x.grid, width));
                device.map(&input(0), dims.shape(), &[read(buffer, at)], to);
            }
        }
        to
    }

    /// A buffer for the network's output `[t, s]`.
    fn output<D: CouplingNetwork>(&self, device: &D, grid: Grid) -> D::Buffer {
        device.scratch(grid.rows() * self.network.conv3.outputs)
    }

    /// Turns `[t, s]` into `[t, a]`, with `2·tanh(s/2) = 4·sigmoid(s) − 2`.
    fn bound<D: CouplingNetwork>(&self, device: &D, grid: Grid, o: &mut D::Buffer) {
        let [_, s] = self.shift_and_scale(grid);
        let f = constant(4.0) * old().sigmoid() - constant(2.0);
        device.map(&f, self.changed.dims(grid).shape(), &[], write(o, s));
    }

    /// The strides of t, and of s or a, in the network's output.
    fn shift_and_scale(&self, grid: Grid) -> [Strided; 2] {
        let Part { len, .. } = self.changed;
        [0, len].map(|first| Part { first, len }.at(grid, 2 * len))
    }

    /// `x ← x·exp(a) + t`; adds `Σ a` to `logp`.
    fn couple<D: CouplingNetwork>(&self, device: &D, o: &D::Buffer, x: &mut Tensor<D>, logp: &mut D::Buffer) {
        let (dims, at) = (self.changed.dims(x.grid), self.changed.at(x.grid, self.channels));
        let [t, a] = self.shift_and_scale(x.grid).map(|at| read(o, at));
        device.reduce(&input(0), dims.shape(), &[a], write(logp, PER_IMAGE), true);
        let f = old() * input(1).exp() + input(0);
        device.map(&f, dims.shape(), &[t, a], write(&mut x.data, at));
    }

    /// `x ← (x − t)·exp(−a)`.
    fn uncouple<D: CouplingNetwork>(&self, device: &D, o: &D::Buffer, x: &mut Tensor<D>) {
        let (dims, at) = (self.changed.dims(x.grid), self.changed.at(x.grid, self.channels));
        let [t, a] = self.shift_and_scale(x.grid).map(|at| read(o, at));
        let f = (old() - input(0)) / input(1).exp();
        device.map(&f, dims.shape(), &[t, a], write(&mut x.data, at));
    }

    /// Replaces the output `x` by the input, and likewise `dx`, except for the part through the network;
    /// returns the gradient of the network's output `[t, s]`:
    ///
    /// ```text
    /// dt = dy     ds = (dy·(y − t) + dlogp)·(1 − a²/4)     dx = dy·exp(a)
    /// ```
    fn couple_backward<D: CouplingNetwork>(
        &self,
        device: &D,
        mut o: D::Buffer,
        x: &mut Tensor<D>,
        dx: &mut D::Buffer,
        dlogp: f64,
    ) -> D::Buffer {
        let grid = x.grid;
        let (dims, at) = (self.changed.dims(grid), self.changed.at(grid, self.channels));
        let [t_at, a_at] = self.shift_and_scale(grid);
        let [t, a] = [t_at, a_at].map(|at| read(&o, at));
        let mut d_o = self.output(device, grid);
        device.map(&input(0), dims.shape(), &[read(&*dx, at)], write(&mut d_o, t_at));
        let slope = constant(1.0) - constant(0.25) * input(3) * input(3);
        let f = (input(0) * (input(1) - input(2)) + constant(dlogp)) * slope;
        let inputs = [read(&*dx, at), read(&x.data, at), t, a];
        device.map(&f, dims.shape(), &inputs, write(&mut d_o, a_at));
        device.map(&old().exp(), dims.shape(), &[], write(&mut o, a_at));
        let [t, scale] = [t_at, a_at].map(|at| read(&o, at));
        device.map(&(old() * input(0)), dims.shape(), &[scale], write(dx, at));
        let f = (old() - input(0)) / input(1);
        device.map(&f, dims.shape(), &[t, scale], write(&mut x.data, at));
        d_o
    }

    /// Adds the parts of the network's input gradient to `dx` and `dcondition`.
    fn add_input_gradient<D: CouplingNetwork>(
        &self,
        device: &D,
        grid: Grid,
        d_input: &D::Buffer,
        dx: &mut D::Buffer,
        dcondition: &mut D::Buffer,
    ) {
        let to =
            [(dx, self.kept.at(grid, self.channels)), (dcondition, Dims::of(grid, self.condition).each())];
        for (part, (buffer, at)) in self.inputs().into_iter().zip(to) {
            let (dims, from) = (part.dims(grid), part.at(grid, 2 * self.network.inputs));
            if !dims.is_empty() {
                device.map(&(old() + input(0)), dims.shape(), &[read(d_input, from)], write(buffer, at));
            }
        }
    }
}

impl<D: CouplingNetwork> Layer<D> for ConditionalCoupling {
    fn shapes(&self, input: Shape) -> Shapes {
        Shapes::same(input)
    }

    fn activations(&self, input: Shape) -> usize {
        (2 * self.network.hidden + 2 * self.network.inputs) * input.pixels()
    }

    fn multiply_adds(&self, input: Shape) -> u128 {
        convolutions_multiply_adds(&self.network, input)
    }

    fn prepare(&self, cx: &Context<'_, D>, direction: Direction) -> Box<dyn Prepared<D>> {
        let network = match direction {
            Direction::Forward | Direction::Inverse => {
                Some(cx.device.prepare_network(&self.network, cx.params))
            }
            // With saved activations, the network does not run again.
            Direction::Backward => None,
        };
        Box::new(Ready::<D> { layer: *self, network })
    }

    fn initialize(&self, device: &D, params: &mut D::Buffer, parts: &[State<D>]) {
        let inputs: Vec<_> = parts.iter().map(|state| (state.x.grid, self.input(device, state))).collect();
        let inputs: Vec<_> = inputs.iter().map(|(grid, input)| (*grid, input)).collect();
        device.initialize_network_from(&self.network, &inputs, params);
    }
}

/// Activations of the network, saved so that the backward pass need not run it again.
struct Activations<D: CouplingNetwork> {
    hidden: D::Hidden,
    /// `[t, a]`
    o: D::Buffer,
}

struct Ready<D: CouplingNetwork> {
    layer: ConditionalCoupling,
    /// Absent in the backward pass.
    network: Option<D::Network>,
}

impl<D: CouplingNetwork> Ready<D> {
    fn network(&self) -> &D::Network {
        match &self.network {
            Some(network) => network,
            None => panic!("a coupling prepared for the backward pass does not run its network"),
        }
    }

    fn run(&self, device: &D, state: &State<D>) -> D::Buffer {
        let (input, mut o) = (self.layer.input(device, state), self.layer.output(device, state.x.grid));
        device.network(self.network(), state.x.grid, &input, &mut o);
        self.layer.bound(device, state.x.grid, &mut o);
        o
    }

    fn run_saving(&self, device: &D, network: &D::Network, grid: Grid, input: &D::Buffer) -> Activations<D> {
        let mut o = self.layer.output(device, grid);
        let hidden = device.network_saving(network, grid, input, &mut o);
        self.layer.bound(device, grid, &mut o);
        Activations { hidden, o }
    }
}

impl<D: CouplingNetwork> Prepared<D> for Ready<D> {
    fn forward(&self, cx: &Context<'_, D>, state: &mut State<D>, save: Save) -> Saved {
        let (device, layer) = (cx.device, &self.layer);
        match save {
            Save::Minimum => {
                let o = self.run(device, state);
                layer.couple(device, &o, &mut state.x, &mut state.logp);
                Saved::NOTHING
            }
            Save::Activations => {
                let input = layer.input(device, state);
                let activations = self.run_saving(device, self.network(), state.x.grid, &input);
                layer.couple(device, &activations.o, &mut state.x, &mut state.logp);
                Saved::new(activations)
            }
        }
    }

    fn inverse(&self, cx: &Context<'_, D>, state: &mut State<D>) {
        let o = self.run(cx.device, state);
        self.layer.uncouple(cx.device, &o, &mut state.x);
    }

    fn backward(&self, pass: &mut BackwardPass<'_, D>, saved: Saved) {
        let BackwardPass { cx: Context { device, params, .. }, state, dx, dcondition, dlogp, gradient } =
            pass;
        let (layer, grid) = (&self.layer, state.x.grid);
        let input = layer.input(*device, state);
        let Activations { hidden, o } = saved.take().unwrap_or_else(|| {
            let network = device.prepare_network(&layer.network, params);
            self.run_saving(device, &network, grid, &input)
        });
        let d_o = layer.couple_backward(*device, o, &mut state.x, dx, *dlogp);
        let mut d_input = device.zeros(grid.rows() * 2 * layer.network.inputs);
        device.network_backward(&layer.network, params, grid, &input, &hidden, &d_o, &mut d_input, gradient);
        layer.add_input_gradient(*device, grid, &d_input, dx, dcondition);
    }
}
