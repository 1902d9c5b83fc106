//! NVIDIA GPUs as devices.
//!
//! The driver, the kernels' compiler and the matrix products come from libraries that are opened when a device is
//! ([`LIBRARIES`]); nothing of CUDA is needed to build or to start the program. Kernels are CUDA C++, embedded as source
//! and compiled for the GPU found. Operations are queued in one stream, in a record also in lanes beside it; errors are remembered and reported
//! where the host waits for results. Equal inputs give equal bits: sums are added up in fixed orders, and never by two threads in one place.

mod channel_map;
mod compile;
mod convolution;
mod divisor;
mod driver;
mod fused;
mod hidden;
mod kernels;
mod lengths;
mod library;
mod memory;
mod network;
mod primitives;
mod product;
mod queue;
mod zero_conv;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytemuck::{Pod, Zeroable};

pub use channel_map::ChannelMap;
pub use compile::{SOURCE, Target};
pub use library::LIBRARIES;
pub use memory::Buffer;
pub use network::{Hidden, Network};
pub use queue::{HIDDEN, ROWS_AT_ONCE};
pub use zero_conv::ZeroConv;

use driver::{Argument, Context, Graph, Launch};
use lengths::{holds, holds_parameters};
use memory::Block;
use product::Element;
use queue::{Gpu, Queue, launch};

use crate::device::{Device, DeviceError, Direction, Noise, Quantized, Rule, Training, Update, UpdateReport};
use crate::random::Stream;
use crate::shape::{
    ActNormParams, ChannelMapParams, CouplingKind, Grid, NetworkParams, TopPriorParams, ZeroConvParams,
};

/// In what precision the products of coupling networks are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Bf16 where the GPU has it, and F32 where it is older.
    #[default]
    Auto,
    /// 32-bit floating point.
    F32,
    /// 32-bit numbers, rounded to 19 bits where they are multiplied.
    Tf32,
    /// 16-bit "brain" floating point, summed in `f32`.
    Bf16,
}

/// The compute capability of the first GPUs with products in bf16 and TF32, those of the Ampere generation.
const AMPERE: i32 = 80;

/// An NVIDIA GPU.
#[derive(Clone)]
pub struct Cuda {
    queue: Arc<Queue>,
    precision: Precision,
    /// The first failure; nothing is done from there on.
    failure: Arc<Mutex<Option<DeviceError>>>,
}

impl Cuda {
    /// The GPU with this number, counted as the driver does.
    ///
    /// # Errors
    /// [`DeviceError::Unavailable`] where there is no such GPU, driver or library, with the way out.
    pub fn new(index: usize, precision: Precision) -> Result<Self, DeviceError> {
        Self::with_libraries(index, precision, &[])
    }

    /// As [`new`](Self::new), looking for CUDA's libraries in these folders first. Libraries once opened stay for the whole process.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn with_libraries(
        index: usize,
        precision: Precision,
        folders: &[PathBuf],
    ) -> Result<Self, DeviceError> {
        library::load(&format!("cuda:{index}"), folders)?;
        let context = Arc::new(Context::open(index)?);
        let modern = context.capability >= AMPERE;
        let precision = match precision {
            Precision::Auto if modern => Precision::Bf16,
            Precision::Auto => Precision::F32,
            Precision::Bf16 | Precision::Tf32 if !modern => {
                return Err(DeviceError::Unavailable {
                    device: context.name.clone(),
                    reason: "this GPU is too old for bf16 and TF32; take --precision f32".into(),
                });
            }
            precision => precision,
        };
        let compiled = compile::module(&context)?;
        let element = match precision {
            Precision::Bf16 => Element::Bf16,
            _ => Element::F32,
        };
        let gpu = Arc::new(Gpu::new(context, &compiled, element, precision == Precision::Tf32)?);
        Ok(Self { queue: Arc::new(Queue::new(&gpu)?), precision, failure: Arc::default() })
    }

    /// Compiles the kernels for a target, without a GPU.
    ///
    /// # Errors
    /// [`DeviceError::Unavailable`] where the compiler is missing or refuses, in its words.
    pub fn compile(target: Target, folders: &[PathBuf]) -> Result<Vec<u8>, DeviceError> {
        let unavailable = |reason| DeviceError::Unavailable { device: "cuda".into(), reason };
        library::load_compiler(folders)?;
        compile::compile(SOURCE, target).map_err(unavailable)
    }

    /// The compute capabilities that the compiler knows, and its version.
    ///
    /// # Errors
    /// [`DeviceError::Unavailable`] where the compiler is missing.
    pub fn known(folders: &[PathBuf]) -> Result<(Vec<i32>, (i32, i32)), DeviceError> {
        library::load_compiler(folders)?;
        let (version, known) = compile::compiler()
            .map_err(|reason| DeviceError::Unavailable { device: "cuda".into(), reason })?;
        Ok((known, version))
    }

    /// The first failure, if there was one.
    fn failed(&self) -> Option<DeviceError> {
        self.failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// Does `work` if nothing has failed yet, and remembers its failure. What is pending comes first: `work` may need it, or overwrite the
    /// parameters that it is made of.
    fn attempt<T>(&self, work: impl FnOnce(&Queue) -> Result<T, DeviceError>) -> Option<T> {
        self.make_ready(|queue| {
            channel_map::make_pending(queue)?;
            network::make_pending(queue)?;
            work(queue)
        })
    }

    /// As [`attempt`](Self::attempt), for work that makes layers ready: it reads parameters and writes to memory of its own, so what is
    /// pending can wait for more of the kind.
    fn make_ready<T>(&self, work: impl FnOnce(&Queue) -> Result<T, DeviceError>) -> Option<T> {
        let mut failure = self.failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if failure.is_some() {
            return None;
        }
        work(&self.queue).map_err(|error| *failure = Some(error)).ok()
    }

    /// As [`attempt`](Self::attempt), where the caller can pass an error on.
    fn report<T>(&self, work: impl FnOnce(&Queue) -> Result<T, DeviceError>) -> Result<T, DeviceError> {
        self.attempt(work).ok_or_else(|| match self.failed() {
            Some(error) => error,
            None => DeviceError::Failed { device: self.name(), reason: "an operation was not done".into() },
        })
    }

    fn buffer(&self, len: usize, block: impl FnOnce(&Queue) -> Result<Block, DeviceError>) -> Buffer {
        let block = self.attempt(|queue| {
            if len > i32::MAX as usize {
                return Err(DeviceError::Failed {
                    device: queue.gpu.context.name.clone(),
                    reason: format!(
                        "an array of {len} numbers is larger than kernels can address; lower train.batch"
                    ),
                });
            }
            block(queue)
        });
        Buffer::new(block, len)
    }

    /// The sums of a batch's parts, added to `logp`. Where images have one part each, `work` adds them itself; otherwise it writes them:
    /// `[batch, parts]`.
    fn add_sums(
        queue: &Queue,
        grid: Grid,
        logp: &mut Buffer,
        work: impl FnOnce(usize, usize, u64) -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        let (parts, part) = parts_of(grid);
        if parts == 1 {
            return work(parts, part, logp.address());
        }
        let sums = queue.floats(grid.batch * parts)?;
        work(parts, part, sums.address)?;
        launch!(
            queue, queue.kernels().add_parts, Launch::of(grid.batch);
            grid.batch, parts, sums.address, logp.address()
        )
    }
}

impl std::fmt::Debug for Cuda {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cuda({}, {:?})", self.queue.gpu.context.name, self.precision)
    }
}

/// The top prior's parameters, as they were when it was made: mean and logs, then what classes add.
pub struct TopPrior {
    width: usize,
    classes: usize,
    values: Option<Block>,
}

/// Work that a GPU repeats, with the memory that it needs.
pub struct Recording {
    graph: Graph,
    _queue: Arc<Queue>,
}

/// What [`update`](Device::update) brings back; as in `update.cu`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Report {
    squared_norm: f64,
    shrink: f32,
    applied: i32,
}

impl Report {
    const SKIPPED: i32 = 0;
    const OVERFLOWED: i32 = 2;
}

/// The numbers of an optimiser step; as in `update.cu`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Rates {
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
    rate: f32,
    unbias2: f32,
    epsilon: f32,
    ema: f32,
    renew: f32,
}

impl Rates {
    fn of(update: &Update) -> Self {
        let correction1 = 1.0 - update.beta1.powf(update.count as f64);
        let correction2 = 1.0 - update.beta2.powf(update.count as f64);
        Self {
            beta1: update.beta1 as f32,
            rest1: (1.0 - update.beta1) as f32,
            beta2: update.beta2 as f32,
            rest2: (1.0 - update.beta2) as f32,
            rate: (update.learning_rate / correction1) as f32,
            unbias2: correction2.sqrt().recip() as f32,
            epsilon: update.epsilon as f32,
            ema: update.ema_decay as f32,
            renew: (1.0 - update.ema_decay) as f32,
        }
    }
}

/// How to cut an image's pixels into parts that are summed apart: how many, and pixels of each. It depends on the image's size
/// alone, so that its likelihood does not depend on the batch.
fn parts_of(grid: Grid) -> (usize, usize) {
    let part = grid.pixels().div_ceil(64).max(256);
    (grid.pixels().div_ceil(part), part)
}

/// How a kernel is told the kind of a coupling.
fn is_affine(kind: CouplingKind) -> i32 {
    i32::from(kind == CouplingKind::Affine)
}

impl Device for Cuda {
    type Real = f32;
    type Buffer = Buffer;
    type ChannelMap = Option<ChannelMap>;
    type Network = Option<Network>;
    type Hidden = Option<Hidden>;
    type ZeroConv = Option<ZeroConv>;
    type TopPrior = TopPrior;
    type Recording = Recording;

    fn name(&self) -> String {
        let precision = match self.precision {
            Precision::Tf32 => "tf32",
            Precision::Bf16 => "bf16",
            _ => "f32",
        };
        format!("{}, {precision}", self.queue.gpu.context.name)
    }

    fn pixels_at_once(&self) -> usize {
        1 << 21
    }

    fn layers_at_once(&self) -> usize {
        // One kernel makes the matrices of all of them.
        16
    }

    fn peak_memory(&self) -> Option<u64> {
        Some(self.queue.gpu.context.peak() as u64)
    }

    fn record<T>(&self, work: impl FnOnce(&Self) -> T) -> Option<(T, Recording)> {
        // What is recorded has memory of its own, so that nothing else is written there between its runs. What the main stream
        // keeps for later would stand in its way.
        let queue = self.attempt(|queue| {
            queue.stream.synchronize()?;
            queue.pool.trim();
            Ok(Queue::to_record(&queue.gpu))
        })?;
        // Where there is not the memory for that, the work can still be done without a record.
        let device = Self { queue: Arc::new(queue.ok()?), failure: Arc::default(), ..self.clone() };
        let recorded = device.queue.stream.record(|| {
            let result = work(&device);
            // What was not used yet belongs to the record, too.
            device.attempt(|queue| queue.join());
            result
        });
        let (result, graph) = recorded.ok()?;
        match device.failed() {
            Some(_) => None,
            None => Some((result, Recording { graph, _queue: device.queue })),
        }
    }

    fn replay(&self, recording: &Recording) {
        self.attempt(|queue| queue.stream.replay(&recording.graph));
    }

    fn scratch(&self, len: usize) -> Buffer {
        self.buffer(len, |queue| queue.floats(len))
    }

    fn zeros(&self, len: usize) -> Buffer {
        self.buffer(len, |queue| queue.zeros(len))
    }

    fn upload(&self, values: &[f32]) -> Buffer {
        self.buffer(values.len(), |queue| {
            let block = queue.floats(values.len())?;
            queue.stream.write(values, block.address)?;
            Ok(block)
        })
    }

    fn download(&self, buffer: &Buffer) -> Result<Vec<f32>, DeviceError> {
        self.report(|queue| {
            let mut values = vec![0.0; buffer.len()];
            queue.stream.read(buffer.address(), &mut values)?;
            Ok(values)
        })
    }

    fn copy(&self, from: &Buffer, to: &mut Buffer) {
        self.attempt(|queue| {
            // It may be a gradient.
            queue.join()?;
            queue.stream.copy(from.address(), to.address(), 4 * from.len().min(to.len()))
        });
    }

    fn dequantize(&self, pixels: &[u8], bits: u32, noise: Noise<'_, f32>, v: &mut Buffer) {
        holds("v", v, pixels.len());
        if let Noise::Given(noise) = noise {
            holds("v", v, noise.len());
            assert!(
                noise.len() >= pixels.len(),
                "{} numbers of noise for {} pixels",
                noise.len(),
                pixels.len()
            );
        }
        self.attempt(|queue| {
            let (mode, Stream { seed, id }) = match noise {
                Noise::Midpoint => (0, Stream { seed: 0, id: 0 }),
                Noise::Uniform(stream) => (1, stream),
                Noise::Given(noise) => {
                    queue.stream.write(noise, v.address())?;
                    (2, Stream { seed: 0, id: 0 })
                }
            };
            let count = pixels.len();
            let pixels = queue.send(pixels)?;
            launch!(
                queue, queue.kernels().dequantize, Launch::of(count.div_ceil(4));
                count, pixels.address, bits as i32, mode, seed, id, v.address()
            )
        });
    }

    fn quantize(&self, v: &Buffer, bits: u32) -> Result<Quantized, DeviceError> {
        self.report(|queue| {
            // Behind the pixels a word that is 0 as long as all is finite, so that one copy brings both.
            let word = v.len().next_multiple_of(4);
            let on_device = queue.pool.take(word + 4)?;
            let not_finite = on_device.address + word as u64;
            queue.stream.clear(not_finite, 4)?;
            launch!(
                queue, queue.kernels().quantize, Launch::of(v.len().div_ceil(4));
                v.len(), bits as i32, v.address(), on_device.address, not_finite
            )?;
            let mut pixels = queue.receive(on_device.address, word + 4)?;
            let finite = pixels[word..] == [0; 4];
            pixels.truncate(v.len());
            Ok(Quantized { pixels, finite })
        })
    }

    fn normal(&self, stream: Stream, images: usize, scale: f64, out: &mut Buffer) {
        self.attempt(|queue| {
            let length = out.len() / images.max(1);
            launch!(
                queue, queue.kernels().normal, Launch::of(images * length.div_ceil(4));
                images, length, stream.seed, stream.id, scale, out.address()
            )
        });
    }

    fn squeeze(&self, grid: Grid, channels: usize, x: &Buffer, y: &mut Buffer) {
        lengths::squeezes(grid, channels, x, y);
        self.attempt(|queue| {
            launch!(
                queue, queue.kernels().squeeze, Launch::of(x.len());
                x.len(), grid.height, grid.width, channels, 0, x.address(), y.address()
            )
        });
    }

    fn unsqueeze(&self, grid: Grid, channels: usize, y: &Buffer, x: &mut Buffer) {
        lengths::squeezes(grid, channels, x, y);
        self.attempt(|queue| {
            launch!(
                queue, queue.kernels().squeeze, Launch::of(x.len());
                x.len(), grid.height, grid.width, channels, 1, x.address(), y.address()
            )
        });
    }

    fn split(&self, channels: usize, x: &Buffer, first: &mut Buffer, last: &mut Buffer) {
        lengths::halves(channels, x, first, last);
        self.attempt(|queue| {
            launch!(
                queue, queue.kernels().split, Launch::of(x.len());
                x.len(), channels, 0, x.address(), first.address(), last.address()
            )
        });
    }

    fn join(&self, channels: usize, first: &Buffer, last: &Buffer, x: &mut Buffer) {
        lengths::halves(channels, x, first, last);
        self.attempt(|queue| {
            launch!(
                queue, queue.kernels().split, Launch::of(x.len());
                x.len(), channels, 1, x.address(), first.address(), last.address()
            )
        });
    }

    fn prepare_channel_map(
        &self,
        at: &ChannelMapParams,
        params: &Buffer,
        direction: Direction,
    ) -> Option<ChannelMap> {
        holds_parameters(params, at);
        self.make_ready(|queue| ChannelMap::prepare(queue, at, params, direction)).flatten()
    }

    fn channel_map(&self, map: &Option<ChannelMap>, grid: Grid, x: &mut Buffer, logp: Option<&mut Buffer>) {
        let Some(map) = map else { return };
        holds("x", x, grid.rows() * map.channels());
        if let Some(logp) = &logp {
            holds("logp", logp, grid.batch);
        }
        self.attempt(|queue| map.run(queue, grid, x.address(), logp.map(|logp| logp.address())));
    }

    fn channel_map_backward(
        &self,
        map: &Option<ChannelMap>,
        at: &ChannelMapParams,
        params: &Buffer,
        grid: Grid,
        x: &mut Buffer,
        dx: &mut Buffer,
        dlogp: f64,
        gradient: &mut Buffer,
    ) {
        holds_parameters(params, at);
        holds_parameters(gradient, at);
        holds("x", x, grid.rows() * at.channels);
        holds("dx", dx, grid.rows() * at.channels);
        let Some(map) = map else { return };
        self.attempt(|queue| {
            map.backward(queue, at, params, grid, x.address(), dx.address(), dlogp, gradient)
        });
    }

    fn initialize_actnorm(&self, at: &ActNormParams, x: &Buffer, params: &mut Buffer) {
        holds_parameters(params, at);
        self.attempt(|queue| {
            let channels = at.bias.len;
            let rows = x.len() / channels;
            network::initialize_actnorm(queue, at, rows, channels, x.address(), params.address())
        });
    }

    fn prepare_network(&self, at: &NetworkParams, params: &Buffer) -> Option<Network> {
        holds_parameters(params, at);
        self.make_ready(|queue| Network::prepare(queue, at, params)).flatten()
    }

    fn network(&self, network: &Option<Network>, grid: Grid, x: &Buffer, o: &mut Buffer) {
        let Some(network) = network else { return };
        let (inputs, outputs) = network.ends();
        holds("x", x, grid.rows() * 2 * inputs);
        holds("o", o, grid.rows() * outputs);
        self.attempt(|queue| network.run(queue, grid, x.address(), o.address()));
    }

    fn network_keeping(
        &self,
        network: &Option<Network>,
        grid: Grid,
        x: &Buffer,
        o: &mut Buffer,
    ) -> Option<Hidden> {
        let network = network.as_ref()?;
        let (inputs, outputs) = network.ends();
        holds("x", x, grid.rows() * 2 * inputs);
        holds("o", o, grid.rows() * outputs);
        self.attempt(|queue| network.run_keeping(queue, grid, x.address(), o.address()))
    }

    fn network_backward(
        &self,
        at: &NetworkParams,
        params: &Buffer,
        grid: Grid,
        _: &Buffer,
        hidden: &Option<Hidden>,
        d_o: &Buffer,
        dx: &mut Buffer,
        gradient: &mut Buffer,
    ) {
        holds_parameters(params, at);
        holds_parameters(gradient, at);
        holds("d_o", d_o, grid.rows() * at.conv3.outputs);
        holds("dx", dx, grid.rows() * 2 * at.inputs);
        let Some(hidden) = hidden else { return };
        assert!(hidden.are_of(at, grid), "hidden activations of another network, or on another grid");
        self.attempt(|queue| hidden.backward(queue, at, params, grid, d_o, dx.address(), gradient));
    }

    fn initialize_network(&self, at: &NetworkParams, grid: Grid, x: &Buffer, params: &mut Buffer) {
        holds_parameters(params, at);
        holds("x", x, grid.rows() * 2 * at.inputs);
        self.attempt(|queue| network::initialize(queue, at, grid, x.address(), params.address()));
    }

    fn prepare_zero_conv(&self, at: &ZeroConvParams, params: &Buffer) -> Option<ZeroConv> {
        holds_parameters(params, at);
        self.make_ready(|queue| ZeroConv::prepare(queue, at, params.address()))
    }

    fn zero_conv(&self, conv: &Option<ZeroConv>, grid: Grid, x: &Buffer, y: &mut Buffer) {
        let Some(conv) = conv else { return };
        let (inputs, outputs) = conv.ends();
        holds("x", x, grid.rows() * inputs);
        holds("y", y, grid.rows() * outputs);
        self.attempt(|queue| conv.run(queue, grid, x.address(), y.address()));
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
        holds_parameters(params, at);
        holds_parameters(gradient, at);
        holds("x", x, grid.rows() * at.inputs);
        holds("dx", dx, grid.rows() * at.inputs);
        holds("dy", dy, grid.rows() * at.outputs);
        self.attempt(|queue| {
            let (params, x, dy) = (params.address(), x.address(), dy.address());
            ZeroConv::backward(queue, at, params, grid, x, dy, dx.address(), gradient.address())
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
        holds("o", o, grid.rows() * kind.network_outputs(channels));
        holds("x", x, grid.rows() * channels);
        holds("logp", logp, grid.batch);
        self.attempt(|queue| {
            let work = |parts, part: usize, sums: u64| {
                // A part is one block's, so that it should have threads for all of it.
                let threads = (part.min(grid.pixels()) * channels / 4).next_power_of_two().clamp(128, 1024);
                let shape = Launch { block: threads as u32, ..Launch::grid(grid.batch, parts, 1) };
                launch!(
                    queue, queue.kernels().couple, shape;
                    grid.pixels(), channels, is_affine(kind), part, o.address(), x.address(), sums
                )
            };
            match kind {
                CouplingKind::Affine => Self::add_sums(queue, grid, logp, work),
                CouplingKind::Additive => {
                    let (parts, part) = parts_of(grid);
                    work(parts, part, 0)
                }
            }
        });
    }

    fn uncouple(&self, kind: CouplingKind, channels: usize, o: &Buffer, x: &mut Buffer) {
        holds("o", o, x.len() / channels * kind.network_outputs(channels));
        self.attempt(|queue| {
            let count = x.len() / 2;
            launch!(
                queue, queue.kernels().uncouple, Launch::of(count);
                count, channels, is_affine(kind), o.address(), x.address()
            )
        });
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
        let outputs = x.len() / channels * kind.network_outputs(channels);
        for (name, buffer) in [("o", o), ("d_o", &*d_o)] {
            holds(name, buffer, outputs);
        }
        holds("dx", dx, x.len());
        self.attempt(|queue| {
            let count = x.len() / 2;
            launch!(
                queue, queue.kernels().couple_backward, Launch::of(count);
                count, channels, is_affine(kind), dlogp as f32, o.address(), x.address(), dx.address(), d_o.address()
            )
        });
    }

    fn prepare_top_prior(&self, at: &TopPriorParams, params: &Buffer) -> TopPrior {
        holds_parameters(params, at);
        let width = 2 * at.channels;
        let classes = at.class_weight.map_or(0, |weight| weight.len / width);
        let values = self.make_ready(|queue| {
            let block = queue.floats(width * (1 + classes))?;
            let mut to = block.address;
            for span in [Some(at.mean), Some(at.logs), at.class_weight].into_iter().flatten() {
                queue.stream.copy(params.at(span.start), to, 4 * span.len)?;
                to += 4 * span.len as u64;
            }
            Ok(block)
        });
        TopPrior { width, classes, values }
    }

    fn top_prior(&self, top: &TopPrior, grid: Grid, labels: &Buffer, prior: &mut Buffer) {
        if top.classes > 0 {
            holds("labels", labels, prior.len().div_ceil(top.width * grid.pixels()));
        }
        let Some(values) = &top.values else { return };
        self.attempt(|queue| {
            let class_weight = values.address + 4 * top.width as u64;
            launch!(
                queue, queue.kernels().top_prior, Launch::of(prior.len());
                prior.len(), grid.pixels(), top.width, top.classes, values.address, class_weight, labels.address(),
                prior.address()
            )
        });
    }

    fn top_prior_backward(
        &self,
        at: &TopPriorParams,
        grid: Grid,
        labels: &Buffer,
        d_prior: &Buffer,
        gradient: &mut Buffer,
    ) {
        holds_parameters(gradient, at);
        holds("d_prior", d_prior, grid.rows() * 2 * at.channels);
        if at.class_weight.is_some() {
            holds("labels", labels, grid.batch);
        }
        self.attempt(|queue| {
            let width = 2 * at.channels;
            let (classes, d_class_weight) =
                at.class_weight.map_or((0, 0), |span| (span.len / width, gradient.at(span.start)));
            launch!(
                queue, queue.kernels().top_prior_backward, Launch::blocks(width);
                grid.batch, grid.pixels(), width, classes, labels.address(), d_prior.address(),
                gradient.at(at.mean.start), gradient.at(at.logs.start), d_class_weight
            )
        });
    }

    fn standardize(&self, grid: Grid, channels: usize, prior: &Buffer, z: &mut Buffer, logp: &mut Buffer) {
        holds("prior", prior, grid.rows() * 2 * channels);
        holds("z", z, grid.rows() * channels);
        holds("logp", logp, grid.batch);
        self.attempt(|queue| {
            Self::add_sums(queue, grid, logp, |parts, part, sums| {
                launch!(
                    queue, queue.kernels().standardize, Launch::grid(grid.batch, parts, 1);
                    grid.pixels(), channels, part, prior.address(), z.address(), sums
                )
            })
        });
    }

    fn unstandardize(&self, channels: usize, prior: &Buffer, eps: &mut Buffer) {
        holds("prior", prior, 2 * eps.len());
        self.attempt(|queue| {
            launch!(
                queue, queue.kernels().unstandardize, Launch::of(eps.len());
                eps.len(), channels, prior.address(), eps.address()
            )
        });
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
        holds("prior", prior, 2 * eps.len());
        holds("dz", dz, eps.len());
        holds("d_prior", d_prior, 2 * eps.len());
        self.attempt(|queue| {
            launch!(
                queue, queue.kernels().standardize_backward, Launch::of(eps.len());
                eps.len(), channels, dlogp as f32, prior.address(), eps.address(), dz.address(), d_prior.address()
            )
        });
    }

    fn update(
        &self,
        update: &Update,
        logp: &[&Buffer],
        training: Training<'_, Buffer>,
    ) -> Result<UpdateReport, DeviceError> {
        let Training { weights, gradient, first, second, ema } = training;
        for (name, buffer) in [("gradient", &*gradient), ("first", first), ("second", second), ("ema", ema)] {
            holds(name, buffer, weights.len());
        }
        self.report(|queue| {
            let (kernels, count) = (queue.kernels(), weights.len());
            let blocks = 4 * queue.gpu.context.multiprocessors;
            let partial = queue.pool.take(8 * blocks)?;
            let on_device = queue.pool.take(size_of::<Report>())?;
            launch!(
                queue, kernels.squared_norm, Launch::blocks(blocks); count, gradient.address(), partial.address
            )?;
            launch!(
                queue, kernels.begin_report, Launch::blocks(1);
                blocks, partial.address, update.clip.unwrap_or(0.0) as f32, i32::from(update.rule == Rule::Adamax),
                on_device.address
            )?;
            for logp in logp {
                launch!(
                    queue, kernels.check_finite, Launch::of(logp.len()); logp.len(), logp.address(), on_device.address
                )?;
            }
            launch!(
                queue, kernels.update, Launch::of(count.div_ceil(4));
                count, i32::from(update.rule == Rule::Adamax), Argument::of(Rates::of(update)), on_device.address,
                weights.address(), gradient.address(), first.address(), second.address(), ema.address()
            )?;
            let mut report = [Report::zeroed()];
            queue.stream.read(on_device.address, &mut report)?;
            let [report] = report;
            Ok(UpdateReport {
                gradient_norm: report.squared_norm.sqrt(),
                applied: report.applied != Report::SKIPPED,
                all_finite: report.applied != Report::OVERFLOWED,
            })
        })
    }
}
