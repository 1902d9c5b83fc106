//! The processor as a device: the reference, and fast.
//!
//! Threads are those of the rayon pool that an operation is called from. Results do not depend on
//! their number: work is divided by output, and sums are added up in order.

mod actnorm;
mod buffer;
mod channel_map;
mod conv;
mod coupling;
mod element;
mod gaussian;
mod isa;
mod layout;
mod network;
mod panels;
mod patches;
mod precision;
mod primitives;
mod product;
mod simd;
mod update;
mod workspace;

use half::bf16;
use rayon::prelude::*;

pub use buffer::Buffer;
pub use channel_map::ChannelMap;
pub use conv::ZeroConv;
pub use element::Element;
pub use gaussian::TopPrior;
pub use isa::Isa;
pub use precision::{Hidden, Network, Precision};

use workspace::Workspace;

use crate::device::{Device, DeviceError, Direction, Noise, Quantized, Training, Update, UpdateReport};
use crate::random::Stream;
use crate::real::Real;
use crate::shape::{
    ActNormParams, ChannelMapParams, CouplingKind, Grid, NetworkParams, TopPriorParams, ZeroConvParams,
};

/// The processor, computing in `T`: `f32` to work, `f64` to check.
#[derive(Clone)]
pub struct Cpu<T: Real> {
    work: Workspace<T>,
    /// Where coupling networks multiply in a shorter format, if they do.
    narrow: Option<Workspace<T::Narrow>>,
}

impl<T: Real> Cpu<T> {
    /// The processor with the best instruction set that it has.
    pub fn new() -> Self {
        let pool = buffer::Pool::default();
        Self { work: Workspace::new(T::available()[0], pool.clone(), pool), narrow: None }
    }

    fn take(&self, len: usize) -> Buffer<T> {
        self.work.take(len)
    }

    fn fill(&self, out: &mut [T], four: impl Fn(u64) -> [f64; 4] + Sync) {
        out.par_chunks_mut(4).enumerate().with_min_len(256).for_each(|(i, out)| {
            out.iter_mut().zip(four(i as u64)).for_each(|(out, value)| *out = T::of(value));
        });
    }
}

impl<T: Real> Default for Cpu<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl Cpu<f32> {
    /// The processor, with coupling networks' products in the precision asked for.
    ///
    /// # Errors
    /// [`DeviceError::Unavailable`] where the processor has no instructions for it.
    pub fn with_precision(precision: Precision) -> Result<Self, DeviceError> {
        let mut cpu = Self::new();
        if precision == Precision::Bf16 {
            let isa = <bf16 as Element>::available()[0];
            if isa == Isa::Baseline {
                return Err(DeviceError::Unavailable {
                    device: "cpu with bf16".into(),
                    reason: "this processor has no instructions for it (AVX-512 BF16); take precision f32"
                        .into(),
                });
            }
            cpu.narrow = Some(Workspace::new(isa, buffer::Pool::default(), cpu.work.sums()));
        }
        Ok(cpu)
    }
}

impl<T: Real> std::fmt::Debug for Cpu<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.narrow {
            None => write!(f, "Cpu({:?})", self.work.isa()),
            Some(narrow) => write!(f, "Cpu({:?}, networks {:?})", self.work.isa(), narrow.isa()),
        }
    }
}

impl<T: Real> Device for Cpu<T> {
    type Real = T;
    type Buffer = Buffer<T>;
    type ChannelMap = ChannelMap<T>;
    type Network = Network<T>;
    type Hidden = Hidden<T>;
    type ZeroConv = ZeroConv<T>;
    type TopPrior = TopPrior<T>;
    type Recording = std::convert::Infallible;

    fn name(&self) -> String {
        let networks =
            self.narrow.as_ref().map_or(String::new(), |narrow| format!(" and {:?}", narrow.isa()));
        format!("cpu ({:?}{networks}, {} threads)", self.work.isa(), rayon::current_num_threads())
    }

    fn within<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        rayon::scope(|_| work())
    }

    fn pixels_at_once(&self) -> usize {
        64 * 32 * 32
    }

    fn layers_at_once(&self) -> usize {
        // What was just made ready is still in the cache.
        1
    }

    fn peak_memory(&self) -> Option<u64> {
        None
    }

    fn record<R>(&self, _: impl FnOnce(&Self) -> R) -> Option<(R, Self::Recording)> {
        None
    }

    fn replay(&self, recording: &Self::Recording) {
        match *recording {}
    }

    fn scratch(&self, len: usize) -> Buffer<T> {
        self.take(len)
    }

    fn zeros(&self, len: usize) -> Buffer<T> {
        let mut buffer = self.take(len);
        buffer.fill(T::zero());
        buffer
    }

    fn upload(&self, values: &[T]) -> Buffer<T> {
        let mut buffer = self.take(values.len());
        buffer.copy_from_slice(values);
        buffer
    }

    fn download(&self, buffer: &Buffer<T>) -> Result<Vec<T>, DeviceError> {
        Ok(buffer.to_vec())
    }

    fn copy(&self, from: &Buffer<T>, to: &mut Buffer<T>) {
        to.copy_from_slice(from);
    }

    fn dequantize(&self, pixels: &[u8], bits: u32, noise: Noise<'_, T>, v: &mut Buffer<T>) {
        let bins = f64::from(1u32 << bits);
        match noise {
            Noise::Midpoint => v.fill(T::of(0.5 / bins)),
            Noise::Uniform(stream) => self.fill(v, |i| stream.uniform(i).map(|u| u / bins)),
            Noise::Given(noise) => v.copy_from_slice(noise),
        }
        for (v, &pixel) in v.iter_mut().zip(pixels) {
            *v += T::of(f64::from(pixel >> (8 - bits)) / bins - 0.5);
        }
    }

    fn quantize(&self, v: &Buffer<T>, bits: u32) -> Result<Quantized, DeviceError> {
        let bins = f64::from(1u32 << bits);
        // A NaN becomes 0, as the saturating cast has it.
        let pixel = |v: &T| (((v.wide() + 0.5) * bins).floor().clamp(0.0, bins - 1.0) as u8) << (8 - bits);
        Ok(Quantized { pixels: v.iter().map(pixel).collect(), finite: v.iter().all(|v| v.is_finite()) })
    }

    fn normal(&self, stream: Stream, images: usize, scale: f64, out: &mut Buffer<T>) {
        let length = (out.len() / images.max(1)).max(1);
        for (image, out) in out.chunks_exact_mut(length).enumerate() {
            let stream = Stream { id: stream.id + image as u64, ..stream };
            self.fill(out, |i| stream.normal(i).map(|x| scale * x));
        }
    }

    fn squeeze(&self, grid: Grid, channels: usize, x: &Buffer<T>, y: &mut Buffer<T>) {
        layout::squeeze(grid, channels, x, y);
    }

    fn unsqueeze(&self, grid: Grid, channels: usize, y: &Buffer<T>, x: &mut Buffer<T>) {
        layout::unsqueeze(grid, channels, y, x);
    }

    fn split(&self, channels: usize, x: &Buffer<T>, first: &mut Buffer<T>, last: &mut Buffer<T>) {
        layout::split(channels, x, first, last);
    }

    fn join(&self, channels: usize, first: &Buffer<T>, last: &Buffer<T>, x: &mut Buffer<T>) {
        layout::join(channels, first, last, x);
    }

    fn prepare_channel_map(
        &self,
        at: &ChannelMapParams,
        params: &Buffer<T>,
        direction: Direction,
    ) -> ChannelMap<T> {
        ChannelMap::prepare(&self.work, at, params, direction)
    }

    fn channel_map(&self, map: &ChannelMap<T>, grid: Grid, x: &mut Buffer<T>, logp: Option<&mut Buffer<T>>) {
        map.run(&self.work, grid, x, logp.map(|logp| &mut logp[..]));
    }

    fn channel_map_backward(
        &self,
        map: &ChannelMap<T>,
        at: &ChannelMapParams,
        params: &Buffer<T>,
        grid: Grid,
        x: &mut Buffer<T>,
        dx: &mut Buffer<T>,
        dlogp: f64,
        gradient: &mut Buffer<T>,
    ) {
        map.backward(&self.work, at, params, grid, x, dx, dlogp, gradient);
    }

    fn initialize_actnorm(&self, at: &ActNormParams, x: &Buffer<T>, params: &mut Buffer<T>) {
        actnorm::initialize(at, x, params);
    }

    fn prepare_network(&self, at: &NetworkParams, params: &Buffer<T>) -> Network<T> {
        Network::prepare(self, at, params)
    }

    fn network(&self, network: &Network<T>, grid: Grid, x: &Buffer<T>, o: &mut Buffer<T>) {
        network.run(grid, x, o);
    }

    fn network_keeping(
        &self,
        network: &Network<T>,
        grid: Grid,
        x: &Buffer<T>,
        o: &mut Buffer<T>,
    ) -> Hidden<T> {
        network.run_keeping(grid, x, o)
    }

    fn network_backward(
        &self,
        at: &NetworkParams,
        params: &Buffer<T>,
        grid: Grid,
        x: &Buffer<T>,
        hidden: &Hidden<T>,
        d_o: &Buffer<T>,
        dx: &mut Buffer<T>,
        gradient: &mut Buffer<T>,
    ) {
        hidden.backward(at, params, grid, x, d_o, dx, gradient);
    }

    fn initialize_network(&self, at: &NetworkParams, grid: Grid, x: &Buffer<T>, params: &mut Buffer<T>) {
        network::initialize(&self.work, at, grid, x, params);
    }

    fn prepare_zero_conv(&self, at: &ZeroConvParams, params: &Buffer<T>) -> ZeroConv<T> {
        ZeroConv::prepare(&self.work, at, params)
    }

    fn zero_conv(&self, conv: &ZeroConv<T>, grid: Grid, x: &Buffer<T>, y: &mut Buffer<T>) {
        conv.run(&self.work, grid, x, y);
    }

    fn zero_conv_backward(
        &self,
        at: &ZeroConvParams,
        params: &Buffer<T>,
        grid: Grid,
        x: &Buffer<T>,
        dy: &Buffer<T>,
        dx: &mut Buffer<T>,
        gradient: &mut Buffer<T>,
    ) {
        ZeroConv::backward(&self.work, at, params, grid, x, dy, dx, gradient);
    }

    fn couple(
        &self,
        kind: CouplingKind,
        grid: Grid,
        channels: usize,
        o: &Buffer<T>,
        x: &mut Buffer<T>,
        logp: &mut Buffer<T>,
    ) {
        coupling::couple(kind, grid, channels, o, x, logp);
    }

    fn uncouple(&self, kind: CouplingKind, channels: usize, o: &Buffer<T>, x: &mut Buffer<T>) {
        coupling::uncouple(kind, channels, o, x);
    }

    fn couple_backward(
        &self,
        kind: CouplingKind,
        channels: usize,
        o: &Buffer<T>,
        x: &mut Buffer<T>,
        dx: &mut Buffer<T>,
        dlogp: f64,
        d_o: &mut Buffer<T>,
    ) {
        coupling::backward(kind, channels, o, x, dx, dlogp, d_o);
    }

    fn prepare_top_prior(&self, at: &TopPriorParams, params: &Buffer<T>) -> TopPrior<T> {
        TopPrior::prepare(at, params)
    }

    fn top_prior(&self, top: &TopPrior<T>, grid: Grid, labels: &Buffer<T>, prior: &mut Buffer<T>) {
        top.run(grid, labels, prior);
    }

    fn top_prior_backward(
        &self,
        at: &TopPriorParams,
        grid: Grid,
        labels: &Buffer<T>,
        d_prior: &Buffer<T>,
        gradient: &mut Buffer<T>,
    ) {
        gaussian::top_prior_backward(at, grid, labels, d_prior, gradient);
    }

    fn standardize(
        &self,
        grid: Grid,
        channels: usize,
        prior: &Buffer<T>,
        z: &mut Buffer<T>,
        logp: &mut Buffer<T>,
    ) {
        gaussian::standardize(grid, channels, prior, z, logp);
    }

    fn unstandardize(&self, channels: usize, prior: &Buffer<T>, eps: &mut Buffer<T>) {
        gaussian::unstandardize(channels, prior, eps);
    }

    fn standardize_backward(
        &self,
        channels: usize,
        prior: &Buffer<T>,
        eps: &Buffer<T>,
        dlogp: f64,
        dz: &mut Buffer<T>,
        d_prior: &mut Buffer<T>,
    ) {
        gaussian::backward(channels, prior, eps, dlogp, dz, d_prior);
    }

    fn update(
        &self,
        update: &Update,
        logp: &[&Buffer<T>],
        training: Training<'_, Buffer<T>>,
    ) -> Result<UpdateReport, DeviceError> {
        Ok(update::update(&self.work, update, logp, training))
    }
}
