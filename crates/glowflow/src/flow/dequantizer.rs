//! Variational dequantisation (Ho et al. 2019, "Flow++"): a conditional flow from noise to the position `w`
//! of a pixel within its bin. It precedes the flow of images and is conditioned on the bins.
//!
//! ```text
//! eps = ln(u/(1 − u))                      u uniform on (0, 1): logistic noise
//! c   = ReLU(actnorm(conv3×3(squeeze(x)))) x = (q + ½)/bins − ½ for bins q in {0, …, bins − 1}
//! y   = couplings(squeeze(eps), c)         couplings given c: of interleaved halves, or one of all channels
//! w   = sigmoid(unsqueeze(y))
//! v   = (q + w)/bins − ½
//!
//! ln P(q) ≥ E[ln p(v) − D·ln bins − ln r(w|q)]     ln r = Σ ln σ'(eps) − log|det couplings| − Σ ln σ'(ŵ)
//! ```
//!
//! Here `ŵ = unsqueeze(y)` and `ln σ'(z) = −z − 2·softplus(−z)`. In a new model the couplings are the
//! identity, so `w = u` and `ln r = 0`: uniform dequantisation. Decoding and sampling discard the position in
//! the bin: `q = floor((v + ½)·bins)`.
//!
//! The backward pass starts at `y`, which is saved: a saturated `sigmoid` cannot be inverted. The preceding
//! couplings are reversible.

use glowflow_kernels::expr::{Expr, constant, input, old};
use glowflow_kernels::{Device, Direction, Grid, Operations};

use super::condition_network::ConditionNetwork;
use super::conditional_coupling::{Changes, ConditionalCoupling};
use super::views::{Dims, PER_IMAGE, read, write};
use super::{BackwardPass, Context, Layer, Mode, Prepared, Save, Saved, Shape, State, Tensor};
use crate::params::ParamBuilder;

/// Maximum `w`, less than 1 so that rounding does not move `v` to the next bin.
const MAX_W: f64 = 1.0 - 1.0 / 4096.0;
/// Replaces `u = 0`. Uniform numbers are multiples of 2⁻²⁴ below 1.
const MIN_U: f64 = 1.0 / (1 << 25) as f64;
/// The range of `w` in latents: any value decodes to the bin, and the margin allows for the inversion error.
const TYPICAL_W: [f64; 2] = [0.1, 0.9];

/// Hyperparameters of a dequantiser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DequantizerConfig {
    /// Number of couplings of interleaved halves of the channels; 0 for a single coupling of all channels
    /// given only the bins.
    pub couplings: usize,
    /// Width of the coupling networks.
    pub hidden: usize,
    /// Number of channels of the condition `c`.
    pub channels: usize,
}

/// The description of a dequantiser: its parameters' spans.
#[derive(Clone, Debug)]
pub struct Dequantizer {
    bins: f64,
    /// Number of channels of the condition.
    channels: usize,
    condition: ConditionNetwork,
    couplings: Vec<ConditionalCoupling>,
}

/// Values that the forward pass saves for the backward pass.
pub struct Dequantized<D: Device> {
    /// The input `squeeze(x)` of the condition's network.
    x: D::Buffer,
    /// The couplings' output `y`, with the condition.
    state: State<D>,
    saved: Vec<Saved>,
}

/// `u`, moved away from 0, of the input with this index.
fn u(index: usize) -> Expr {
    input(index) + constant(MIN_U) * (constant(1.0) - input(index).step())
}

impl Dequantizer {
    /// Declares the tensors `condition.*` and `couplings.*` for images of this shape.
    pub fn new(p: &mut ParamBuilder<'_>, image: Shape, bins: u32, config: DequantizerConfig) -> Self {
        let (channels, DequantizerConfig { couplings, hidden, channels: of_condition }) =
            (4 * image.channels, config);
        let condition = p.scope("condition", |p| ConditionNetwork::new(p, channels, of_condition));
        let changes: Vec<Changes> = match couplings {
            0 => vec![Changes::All],
            count => [Changes::LastHalf, Changes::FirstHalf].into_iter().cycle().take(count).collect(),
        };
        let mut coupling = |(k, changes)| {
            p.scope(format!("couplings.{k}"), |p| {
                ConditionalCoupling::new(p, channels, of_condition, hidden, changes)
            })
        };
        let couplings = changes.into_iter().enumerate().map(&mut coupling).collect();
        Self { bins: bins.into(), channels: of_condition, condition, couplings }
    }

    /// Numbers per image that the backward pass of each coupling holds in memory.
    pub fn activations<D: Operations>(&self, image: Shape) -> Vec<usize> {
        self.couplings.iter().map(|coupling| Layer::<D>::activations(coupling, halved(image))).collect()
    }

    /// Multiply-adds per image: see [`Layer::multiply_adds`].
    pub fn multiply_adds<D: Operations>(&self, image: Shape) -> u128 {
        let shape = halved(image);
        let couplings = self.couplings.iter().map(|coupling| Layer::<D>::multiply_adds(coupling, shape));
        self.condition.multiply_adds(shape.pixels()) + couplings.sum::<u128>()
    }

    /// Converts the bin centres `x` in `state.x` to `v`, given uniform noise `u` on `[0, 1)` of the same
    /// shape, and subtracts `ln r` from the log-likelihoods. The layers that follow turn those into
    /// `ln p(v) − ln r`.
    pub fn forward<D: Operations>(
        &self,
        cx: &Context<'_, D>,
        u: &D::Buffer,
        state: &mut State<D>,
        save: Save,
    ) -> Dequantized<D> {
        let (x, mut noise) = self.enter(cx.device, u, state);
        noise.condition = Some(self.condition(cx, noise.x.grid, &x));
        let saved = self.couple(cx, &mut noise, save);
        self.leave(cx.device, u, &mut noise, state);
        Dequantized { x, state: noise, saved }
    }

    /// Data-dependent initialisation of all actnorms, in the order of the forward pass, which it also
    /// performs. The parts of the batch have noise `u` each.
    pub fn initialize<D: Operations>(
        &self,
        device: &D,
        params: &mut D::Buffer,
        buffers: &D::Buffer,
        u: &[D::Buffer],
        parts: &mut [State<D>],
    ) {
        let entered = u.iter().zip(&mut *parts).map(|(u, state)| self.enter(device, u, state));
        let (x, mut noise): (Vec<D::Buffer>, Vec<State<D>>) = entered.unzip();
        let grids: Vec<Grid> = noise.iter().map(|noise| noise.x.grid).collect();
        self.condition.initialize(device, params, &grids.iter().copied().zip(&x).collect::<Vec<_>>());
        let cx = Context { device, params, buffers, mode: Mode::Train };
        for (noise, x) in noise.iter_mut().zip(&x) {
            noise.condition = Some(self.condition(&cx, noise.x.grid, x));
        }
        for coupling in &self.couplings {
            coupling.initialize(device, params, &noise);
            let cx = Context { device, params, buffers, mode: Mode::Train };
            let ready: Box<dyn Prepared<D>> = coupling.prepare(&cx, Direction::Forward);
            for noise in &mut noise {
                ready.forward(&cx, noise, Save::Minimum);
            }
        }
        for ((u, noise), state) in u.iter().zip(&mut noise).zip(parts) {
            self.leave(device, u, noise, state);
        }
    }

    /// Adds the parameter gradient, given that of `v`:
    ///
    /// ```text
    /// dŵ = dv·w(1 − w)/bins + dlogp·(1 − 2w)
    /// ```
    pub fn backward<D: Operations>(
        &self,
        cx: &Context<'_, D>,
        dequantized: Dequantized<D>,
        dv: &D::Buffer,
        dlogp: f64,
        gradient: &mut D::Buffer,
    ) {
        let (device, Dequantized { x, state, mut saved }) = (cx.device, dequantized);
        let Tensor { grid, channels, ref data } = state.x;
        let dims = Dims::of(grid, channels);
        let mut dy = device.scratch(dims.len());
        device.squeeze(grid.doubled(), channels / 4, dv, &mut dy);
        let mut w = device.scratch(dims.len());
        let logit = read(data, dims.each());
        device.map(&input(0).sigmoid(), dims.shape(), &[logit], write(&mut w, dims.each()));
        let f = old() * input(0) * (constant(1.0) - input(0)) * constant(1.0 / self.bins)
            + constant(dlogp) * (constant(1.0) - constant(2.0) * input(0));
        device.map(&f, dims.shape(), &[read(&w, dims.each())], write(&mut dy, dims.each()));
        let dcondition = device.zeros(grid.rows() * self.channels);
        let mut pass = BackwardPass { cx: *cx, state, dx: dy, dcondition, dlogp, gradient };
        for coupling in self.couplings.iter().rev() {
            let ready: Box<dyn Prepared<D>> = coupling.prepare(cx, Direction::Backward);
            ready.backward(&mut pass, saved.pop().unwrap_or(Saved::NOTHING));
        }
        let BackwardPass { state, dcondition, gradient, .. } = pass;
        self.condition.backward(cx, grid, &x, &state.condition().data, dcondition, gradient);
    }

    /// Noise `w/bins` of a typical `w` for the bin centres `x`: that of `eps = 0`, the median of the noise,
    /// kept away from the edges of the bin.
    pub fn typical<D: Operations>(&self, cx: &Context<'_, D>, x: Tensor<D>) -> D::Buffer {
        let (device, Tensor { grid, channels, data }) = (cx.device, x);
        let dims = Dims::of(grid, channels);
        let x = squeezed(device, grid, channels, &data);
        let mut noise = empty(device, grid, channels, device.zeros(dims.len()), device.zeros(grid.batch));
        noise.condition = Some(self.condition(cx, noise.x.grid, &x));
        self.couple(cx, &mut noise, Save::Minimum);
        let mut to = device.scratch(dims.len());
        device.unsqueeze(grid, channels, &noise.x.data, &mut to);
        let [low, high] = TYPICAL_W.map(constant);
        let above = low.clone() + (old().sigmoid() - low).relu();
        let w = high.clone() - (high - above).relu();
        device.map(&(w * constant(1.0 / self.bins)), dims.shape(), &[], write(&mut to, dims.each()));
        to
    }

    fn condition<D: Operations>(&self, cx: &Context<'_, D>, grid: Grid, x: &D::Buffer) -> Tensor<D> {
        Tensor { grid, channels: self.channels, data: self.condition.run(cx, grid, x) }
    }

    fn couple<D: Operations>(&self, cx: &Context<'_, D>, noise: &mut State<D>, save: Save) -> Vec<Saved> {
        let ready = self.couplings.iter().map(|coupling| coupling.prepare(cx, Direction::Forward));
        ready.map(|ready: Box<dyn Prepared<D>>| ready.forward(cx, noise, save)).collect()
    }

    /// The input of the condition's network, and the initial state of the couplings, with the log-likelihoods
    /// moved out of `state`.
    fn enter<D: Operations>(&self, device: &D, u: &D::Buffer, state: &mut State<D>) -> (D::Buffer, State<D>) {
        let Tensor { grid, channels, ref data } = state.x;
        let x = squeezed(device, grid, channels, data);
        let dims = Dims::of(grid, channels);
        let mut eps = device.scratch(dims.len());
        let f = (self::u(0) / (constant(1.0) - self::u(0))).ln();
        device.map(&f, dims.shape(), &[read(u, dims.each())], write(&mut eps, dims.each()));
        let y = squeezed(device, grid, channels, &eps);
        let logp = std::mem::replace(&mut state.logp, device.scratch(0));
        (x, empty(device, grid, channels, y, logp))
    }

    /// Converts the couplings' output to `v`, and returns the log-likelihoods to `state`.
    fn leave<D: Operations>(&self, device: &D, u: &D::Buffer, noise: &mut State<D>, state: &mut State<D>) {
        let Tensor { grid, channels, ref mut data } = state.x;
        let dims = Dims::of(grid, channels);
        let mut logit = device.scratch(dims.len());
        device.unsqueeze(grid, channels, &noise.x.data, &mut logit);
        state.logp = std::mem::replace(&mut noise.logp, device.scratch(0));
        let logit = read(&logit, dims.each());
        // ln σ'(ŵ) − ln σ'(eps) with σ'(eps) = u(1 − u), in one sum; both cancel in a new model.
        let log_slope = -input(0) - constant(2.0) * (-input(0)).softplus();
        let f = log_slope - (self::u(1) * (constant(1.0) - self::u(1))).ln();
        let inputs = [logit, read(u, dims.each())];
        device.reduce(&f, dims.shape(), &inputs, write(&mut state.logp, PER_IMAGE), true);
        let w = constant(MAX_W) - (constant(MAX_W) - input(0).sigmoid()).relu();
        let f = old() + (w - constant(0.5)) * constant(1.0 / self.bins);
        device.map(&f, dims.shape(), &[logit], write(data, dims.each()));
    }
}

/// Shape of squeezed images.
fn halved(Shape { height, width, channels }: Shape) -> Shape {
    Shape { height: height / 2, width: width / 2, channels: 4 * channels }
}

/// Squeezes activations.
fn squeezed<D: Operations>(device: &D, grid: Grid, channels: usize, x: &D::Buffer) -> D::Buffer {
    let mut y = device.scratch(grid.rows() * channels);
    device.squeeze(grid, channels, x, &mut y);
    y
}

/// A state of squeezed activations `y` without latents, labels or statistics.
fn empty<D: Operations>(device: &D, grid: Grid, channels: usize, y: D::Buffer, logp: D::Buffer) -> State<D> {
    State {
        x: Tensor { grid: grid.halved(), channels: 4 * channels, data: y },
        latents: vec![],
        logp,
        labels: device.scratch(0),
        condition: None,
        statistics: device.scratch(0),
    }
}
