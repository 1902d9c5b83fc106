//! One type for all devices, for programs that choose one when they start.
//!
//! Everything is handed on to the device that was chosen. Buffers of one device must not be given to another, here as
//! everywhere: that is a mistake in a program, and panics.

use crate::cpu::Cpu;
use crate::cuda::Cuda;
use crate::device::{Device, DeviceError, Direction, Noise, Quantized, Training, Update, UpdateReport};
use crate::random::Stream;
use crate::shape::{
    ActNormParams, ChannelMapParams, CouplingKind, Grid, NetworkParams, TopPriorParams, ZeroConvParams,
};

/// A device of any kind.
#[derive(Clone, Debug)]
pub enum AnyDevice {
    /// The processor.
    Cpu(Cpu<f32>),
    /// An NVIDIA GPU.
    Cuda(Cuda),
}

/// Something that belongs to a device of one kind or the other.
#[derive(Debug)]
pub enum Either<A, B> {
    /// Of the processor.
    Cpu(A),
    /// Of an NVIDIA GPU.
    Cuda(B),
}

fn mixed() -> ! {
    panic!("a buffer of one device was given to another")
}

/// Hands an operation on. What belongs to the device is listed and unwrapped.
macro_rules! hand_on {
    ($self:expr, [$($part:ident),*], $device:ident => $call:expr) => {
        match ($self, $($part,)*) {
            (AnyDevice::Cpu($device), $(Either::Cpu($part),)*) => $call,
            (AnyDevice::Cuda($device), $(Either::Cuda($part),)*) => $call,
            #[allow(unreachable_patterns)] // where nothing is unwrapped
            _ => mixed(),
        }
    };
}

/// As [`hand_on`], and wraps the result.
macro_rules! make {
    ($self:expr, [$($part:ident),*], $device:ident => $call:expr) => {
        match ($self, $($part,)*) {
            (AnyDevice::Cpu($device), $(Either::Cpu($part),)*) => Either::Cpu($call),
            (AnyDevice::Cuda($device), $(Either::Cuda($part),)*) => Either::Cuda($call),
            #[allow(unreachable_patterns)]
            _ => mixed(),
        }
    };
}

type Buffer = Either<<Cpu<f32> as Device>::Buffer, <Cuda as Device>::Buffer>;

impl Device for AnyDevice {
    type Real = f32;
    type Buffer = Buffer;
    type ChannelMap = Either<<Cpu<f32> as Device>::ChannelMap, <Cuda as Device>::ChannelMap>;
    type Network = Either<<Cpu<f32> as Device>::Network, <Cuda as Device>::Network>;
    type Hidden = Either<<Cpu<f32> as Device>::Hidden, <Cuda as Device>::Hidden>;
    type ZeroConv = Either<<Cpu<f32> as Device>::ZeroConv, <Cuda as Device>::ZeroConv>;
    type TopPrior = Either<<Cpu<f32> as Device>::TopPrior, <Cuda as Device>::TopPrior>;
    type Recording = Either<<Cpu<f32> as Device>::Recording, <Cuda as Device>::Recording>;

    fn name(&self) -> String {
        hand_on!(self, [], device => device.name())
    }

    fn pixels_at_once(&self) -> usize {
        hand_on!(self, [], device => device.pixels_at_once())
    }

    fn layers_at_once(&self) -> usize {
        hand_on!(self, [], device => device.layers_at_once())
    }

    fn peak_memory(&self) -> Option<u64> {
        hand_on!(self, [], device => device.peak_memory())
    }

    fn within<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        hand_on!(self, [], device => device.within(work))
    }

    fn record<T>(&self, work: impl FnOnce(&Self) -> T) -> Option<(T, Self::Recording)> {
        match self {
            Self::Cpu(_) => None,
            Self::Cuda(device) => {
                let (result, recording) = device.record(|device| work(&Self::Cuda(device.clone())))?;
                Some((result, Either::Cuda(recording)))
            }
        }
    }

    fn replay(&self, recording: &Self::Recording) {
        hand_on!(self, [recording], device => device.replay(recording))
    }

    fn scratch(&self, len: usize) -> Buffer {
        make!(self, [], device => device.scratch(len))
    }

    fn zeros(&self, len: usize) -> Buffer {
        make!(self, [], device => device.zeros(len))
    }

    fn upload(&self, values: &[f32]) -> Buffer {
        make!(self, [], device => device.upload(values))
    }

    fn download(&self, buffer: &Buffer) -> Result<Vec<f32>, DeviceError> {
        hand_on!(self, [buffer], device => device.download(buffer))
    }

    fn copy(&self, from: &Buffer, to: &mut Buffer) {
        hand_on!(self, [from, to], device => device.copy(from, to))
    }

    fn dequantize(&self, pixels: &[u8], bits: u32, noise: Noise<'_, f32>, v: &mut Buffer) {
        hand_on!(self, [v], device => device.dequantize(pixels, bits, noise, v))
    }

    fn quantize(&self, v: &Buffer, bits: u32) -> Result<Quantized, DeviceError> {
        hand_on!(self, [v], device => device.quantize(v, bits))
    }

    fn normal(&self, stream: Stream, images: usize, scale: f64, out: &mut Buffer) {
        hand_on!(self, [out], device => device.normal(stream, images, scale, out))
    }

    fn squeeze(&self, grid: Grid, channels: usize, x: &Buffer, y: &mut Buffer) {
        hand_on!(self, [x, y], device => device.squeeze(grid, channels, x, y))
    }

    fn unsqueeze(&self, grid: Grid, channels: usize, y: &Buffer, x: &mut Buffer) {
        hand_on!(self, [y, x], device => device.unsqueeze(grid, channels, y, x))
    }

    fn split(&self, channels: usize, x: &Buffer, first: &mut Buffer, last: &mut Buffer) {
        hand_on!(self, [x, first, last], device => device.split(channels, x, first, last))
    }

    fn join(&self, channels: usize, first: &Buffer, last: &Buffer, x: &mut Buffer) {
        hand_on!(self, [first, last, x], device => device.join(channels, first, last, x))
    }

    fn prepare_channel_map(
        &self,
        at: &ChannelMapParams,
        params: &Buffer,
        direction: Direction,
    ) -> Self::ChannelMap {
        make!(self, [params], device => device.prepare_channel_map(at, params, direction))
    }

    fn channel_map(&self, map: &Self::ChannelMap, grid: Grid, x: &mut Buffer, logp: Option<&mut Buffer>) {
        match logp {
            Some(logp) => {
                hand_on!(self, [map, x, logp], device => device.channel_map(map, grid, x, Some(logp)))
            }
            None => hand_on!(self, [map, x], device => device.channel_map(map, grid, x, None)),
        }
    }

    fn channel_map_backward(
        &self,
        map: &Self::ChannelMap,
        at: &ChannelMapParams,
        params: &Buffer,
        grid: Grid,
        x: &mut Buffer,
        dx: &mut Buffer,
        dlogp: f64,
        gradient: &mut Buffer,
    ) {
        hand_on!(self, [map, params, x, dx, gradient], device => {
            device.channel_map_backward(map, at, params, grid, x, dx, dlogp, gradient);
        });
    }

    fn initialize_actnorm(&self, at: &ActNormParams, x: &Buffer, params: &mut Buffer) {
        hand_on!(self, [x, params], device => device.initialize_actnorm(at, x, params))
    }

    fn prepare_network(&self, at: &NetworkParams, params: &Buffer) -> Self::Network {
        make!(self, [params], device => device.prepare_network(at, params))
    }

    fn network(&self, network: &Self::Network, grid: Grid, x: &Buffer, o: &mut Buffer) {
        hand_on!(self, [network, x, o], device => device.network(network, grid, x, o))
    }

    fn network_keeping(
        &self,
        network: &Self::Network,
        grid: Grid,
        x: &Buffer,
        o: &mut Buffer,
    ) -> Self::Hidden {
        make!(self, [network, x, o], device => device.network_keeping(network, grid, x, o))
    }

    fn network_backward(
        &self,
        at: &NetworkParams,
        params: &Buffer,
        grid: Grid,
        x: &Buffer,
        hidden: &Self::Hidden,
        d_o: &Buffer,
        dx: &mut Buffer,
        gradient: &mut Buffer,
    ) {
        hand_on!(self, [params, x, hidden, d_o, dx, gradient], device => {
            device.network_backward(at, params, grid, x, hidden, d_o, dx, gradient);
        });
    }

    fn initialize_network(&self, at: &NetworkParams, grid: Grid, x: &Buffer, params: &mut Buffer) {
        hand_on!(self, [x, params], device => device.initialize_network(at, grid, x, params))
    }

    fn prepare_zero_conv(&self, at: &ZeroConvParams, params: &Buffer) -> Self::ZeroConv {
        make!(self, [params], device => device.prepare_zero_conv(at, params))
    }

    fn zero_conv(&self, conv: &Self::ZeroConv, grid: Grid, x: &Buffer, y: &mut Buffer) {
        hand_on!(self, [conv, x, y], device => device.zero_conv(conv, grid, x, y))
    }

    fn zero_conv_backward(
        &self,
        at: &ZeroConvParams,
        params: &Buffer,
        grid: Grid,
        x: &Buffer,
        dy: &Buffer,
        dx: &mut Buffer,
        gradient: &mut Buffer,
    ) {
        hand_on!(self, [params, x, dy, dx, gradient], device => {
            device.zero_conv_backward(at, params, grid, x, dy, dx, gradient);
        });
    }

    fn couple(
        &self,
        kind: CouplingKind,
        grid: Grid,
        channels: usize,
        o: &Buffer,
        x: &mut Buffer,
        logp: &mut Buffer,
    ) {
        hand_on!(self, [o, x, logp], device => device.couple(kind, grid, channels, o, x, logp))
    }

    fn uncouple(&self, kind: CouplingKind, channels: usize, o: &Buffer, x: &mut Buffer) {
        hand_on!(self, [o, x], device => device.uncouple(kind, channels, o, x))
    }

    fn couple_backward(
        &self,
        kind: CouplingKind,
        channels: usize,
        o: &Buffer,
        x: &mut Buffer,
        dx: &mut Buffer,
        dlogp: f64,
        d_o: &mut Buffer,
    ) {
        hand_on!(self, [o, x, dx, d_o], device => device.couple_backward(kind, channels, o, x, dx, dlogp, d_o))
    }

    fn prepare_top_prior(&self, at: &TopPriorParams, params: &Buffer) -> Self::TopPrior {
        make!(self, [params], device => device.prepare_top_prior(at, params))
    }

    fn top_prior(&self, top: &Self::TopPrior, grid: Grid, labels: &Buffer, prior: &mut Buffer) {
        hand_on!(self, [top, labels, prior], device => device.top_prior(top, grid, labels, prior))
    }

    fn top_prior_backward(
        &self,
        at: &TopPriorParams,
        grid: Grid,
        labels: &Buffer,
        d_prior: &Buffer,
        gradient: &mut Buffer,
    ) {
        hand_on!(self, [labels, d_prior, gradient], device => {
            device.top_prior_backward(at, grid, labels, d_prior, gradient);
        });
    }

    fn standardize(&self, grid: Grid, channels: usize, prior: &Buffer, z: &mut Buffer, logp: &mut Buffer) {
        hand_on!(self, [prior, z, logp], device => device.standardize(grid, channels, prior, z, logp))
    }

    fn unstandardize(&self, channels: usize, prior: &Buffer, eps: &mut Buffer) {
        hand_on!(self, [prior, eps], device => device.unstandardize(channels, prior, eps))
    }

    fn standardize_backward(
        &self,
        channels: usize,
        prior: &Buffer,
        eps: &Buffer,
        dlogp: f64,
        dz: &mut Buffer,
        d_prior: &mut Buffer,
    ) {
        hand_on!(self, [prior, eps, dz, d_prior], device => {
            device.standardize_backward(channels, prior, eps, dlogp, dz, d_prior);
        });
    }

    fn update(
        &self,
        update: &Update,
        logp: &[&Buffer],
        training: Training<'_, Buffer>,
    ) -> Result<UpdateReport, DeviceError> {
        let Training { weights, gradient, first, second, ema } = training;
        match self {
            Self::Cpu(device) => {
                let logp = logp.iter().map(|logp| match logp {
                    Either::Cpu(logp) => logp,
                    Either::Cuda(_) => mixed(),
                });
                let logp: Vec<_> = logp.collect();
                match (weights, gradient, first, second, ema) {
                    (
                        Either::Cpu(weights),
                        Either::Cpu(gradient),
                        Either::Cpu(first),
                        Either::Cpu(second),
                        Either::Cpu(ema),
                    ) => device.update(update, &logp, Training { weights, gradient, first, second, ema }),
                    _ => mixed(),
                }
            }
            Self::Cuda(device) => {
                let logp = logp.iter().map(|logp| match logp {
                    Either::Cuda(logp) => logp,
                    Either::Cpu(_) => mixed(),
                });
                let logp: Vec<_> = logp.collect();
                match (weights, gradient, first, second, ema) {
                    (
                        Either::Cuda(weights),
                        Either::Cuda(gradient),
                        Either::Cuda(first),
                        Either::Cuda(second),
                        Either::Cuda(ema),
                    ) => device.update(update, &logp, Training { weights, gradient, first, second, ema }),
                    _ => mixed(),
                }
            }
        }
    }
}
