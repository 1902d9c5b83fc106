//! The context of operations: a stream, its memory, and its kernels.
//!
//! Operations at this level return errors directly. [`Cuda`](super::Cuda) records the first one and ignores
//! later operations.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use super::compile::{Compiled, HOPPER, Target};
use super::deferred::{Deferred, DeferredWork};
use super::driver::{Argument, Context, Event, Kernel, Launch, Pinned, Stream};
use super::hopper;
use super::kernels::Kernels;
use super::memory::{Block, Buffer, Pool};
use super::product::{Element, Operands, Product, Products, WORKSPACE};
use super::tuning::{HiddenKernels, Tuning};
use crate::device::DeviceError;

type Result<T> = std::result::Result<T, DeviceError>;

/// Queues a kernel: `launch!(queue, kernel, shape; arguments…)`.
macro_rules! launch {
    ($queue:expr, $kernel:expr, $shape:expr; $($argument:expr),* $(,)?) => {
        $queue.launch($kernel, $shape, &[$(Argument::from($argument)),*])
    };
}
pub(crate) use launch;

/// Side work that holds more than this fraction of a GPU's memory is waited for at once.
const SIDE_MEMORY_PART: usize = 128;

/// Maximum amount of side work in flight: that of two steps of flow, each with a network and a channel map.
const MAX_IN_FLIGHT: usize = 4;

/// Number of bytes per transfer from the GPU.
const RECEIVED_AT_ONCE: usize = 4 << 20;

/// State shared by all queues of a GPU.
pub struct Gpu {
    pub context: Arc<Context>,
    pub kernels: Kernels,
    pub products: Products,
    /// Element type of the coupling networks' matrices, and whether products may round `f32` to TF32.
    pub element: Element,
    pub tf32: bool,
    /// As [`Tuning::rows_at_once`], at least 1.
    pub rows_at_once: usize,
    /// Kernels for hidden layers in bf16, if this GPU has them.
    pub hidden: Option<hopper::LayerKernels>,
    /// Kernels for whole networks in bf16, if this GPU and the compiler support them and networks are in
    /// bf16.
    pub fused: Option<hopper::NetworkKernels>,
    /// Total bytes of memory.
    memory: usize,
    constants: Constants,
    /// Two buffers for pixels, so that one is filled while the other is read.
    staging: Mutex<(usize, [Option<Pinned>; 2])>,
    /// A buffer for pixels in the other direction.
    receiving: Mutex<Option<Pinned>>,
}

/// The fixed parts of permutations on the GPU, by content, because they never change.
struct Constants {
    stream: Stream,
    pool: Arc<Pool>,
    known: Mutex<HashMap<Vec<u32>, Arc<Block>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Gpu {
    pub fn new(
        context: Arc<Context>,
        compiled: &Compiled,
        element: Element,
        tf32: bool,
        tuning: Tuning,
    ) -> Result<Self> {
        let module = compiled.module;
        let hidden = compiled.target == Target::Machine(HOPPER) && tuning.hidden != HiddenKernels::Off;
        let fused = hidden && element == Element::Bf16 && tuning.hidden == HiddenKernels::Networks;
        // Compilers older than CUDA 13 serialise the products.
        let fused = fused && compiled.version.0 >= 13;
        Ok(Self {
            products: Products::new(&context)?,
            constants: Constants {
                stream: Stream::new(&context)?,
                pool: Pool::new(&context, false),
                known: Mutex::default(),
            },
            memory: context.memory()?.1,
            staging: Mutex::default(),
            receiving: Mutex::default(),
            kernels: Kernels::find(&context, module)?,
            hidden: hidden.then(|| hopper::LayerKernels::find(&context, module)).transpose()?,
            fused: fused.then(|| hopper::NetworkKernels::find(&context, module)).transpose()?,
            context,
            element,
            tf32,
            rows_at_once: tuning.rows_at_once.max(1),
        })
    }

    /// Constant words on the GPU. They are transferred in a separate stream, because any other may be
    /// capturing.
    pub fn constant(&self, words: Vec<u32>) -> Result<Arc<Block>> {
        let mut known = lock(&self.constants.known);
        if let Some(block) = known.get(&words) {
            return Ok(Arc::clone(block));
        }
        let block = Arc::new(self.constants.pool.take(4 * words.len())?);
        self.constants.stream.write(&words, block.address)?;
        self.constants.stream.synchronize()?;
        known.insert(words, Arc::clone(&block));
        Ok(block)
    }
}

/// A stream with its own memory.
pub struct Queue {
    pub gpu: Arc<Gpu>,
    pub stream: Stream,
    pub pool: Arc<Pool>,
    /// Workspace of products; allocated on first use.
    workspace: OnceLock<Block>,
    deferred: DeferredWork,
    side: Option<Box<SideStreams>>,
}

/// Side streams, which use the memory of the main one.
struct SideStreams {
    lanes: [Queue; 3],
    begun: Event,
    /// Lanes with work that the last lane does not wait for yet.
    given: Mutex<[bool; 3]>,
    /// Completion events of side work, with the memory that it uses until then; the oldest first.
    last: Mutex<VecDeque<(Event, Vec<Arc<Block>>)>>,
}

/// Side work runs in three lanes: a network's three weight gradients are independent of each other, and the
/// parameters' gradients are many short kernels.
#[derive(Clone, Copy)]
pub enum Lane {
    /// The weight gradient between both hidden layers, which takes as long as the other two.
    Middle,
    /// The gradients of the first and the last weight.
    Outer,
    /// Sums, and the parameters' gradients, which depend on them; side work is complete when this lane is.
    Last,
}

impl SideStreams {
    /// A lane, after it waits for everything queued in a stream so far.
    fn wait(&self, stream: &Stream, lane: Lane) -> Result<&Queue> {
        let queue = &self.lanes[lane as usize];
        self.begun.record(stream)?;
        queue.stream.wait(&self.begun)?;
        lock(&self.given)[lane as usize] = true;
        Ok(queue)
    }

    /// Makes the last lane wait for everything queued in the others.
    fn gather(&self) -> Result<()> {
        let given = std::mem::take(&mut *lock(&self.given));
        for lane in [Lane::Middle, Lane::Outer] {
            if given[lane as usize] {
                self.wait(&self.lanes[lane as usize].stream, Lane::Last)?;
            }
        }
        Ok(())
    }
}

impl Queue {
    pub fn new(gpu: &Arc<Gpu>) -> Result<Self> {
        Self::with_pool(gpu, Pool::new(&gpu.context, false))
    }

    /// A queue for a capture. The capture is valid as long as the queue exists.
    pub fn for_capture(gpu: &Arc<Gpu>) -> Result<Self> {
        let pool = Pool::new(&gpu.context, true);
        let lane = || Self::with_pool(gpu, Arc::clone(&pool));
        let side = SideStreams {
            lanes: [lane()?, lane()?, lane()?],
            begun: Event::new(&gpu.context)?,
            given: Mutex::default(),
            last: Mutex::default(),
        };
        Ok(Self { side: Some(Box::new(side)), ..Self::with_pool(gpu, pool)? })
    }

    fn with_pool(gpu: &Arc<Gpu>, pool: Arc<Pool>) -> Result<Self> {
        Ok(Self {
            gpu: Arc::clone(gpu),
            stream: Stream::new(&gpu.context)?,
            pool,
            workspace: OnceLock::new(),
            deferred: DeferredWork::default(),
            side: None,
        })
    }

    /// A queue for side work that may run concurrently with everything queued here from now on, and starts
    /// after everything queued here before. It must end with [`retire`](Self::retire).
    ///
    /// Outside a capture it is this queue itself, because launches from the host are then the bottleneck.
    pub fn side_stream(&self, lane: Lane) -> Result<&Self> {
        let Some(side) = &self.side else { return Ok(self) };
        side.wait(&self.stream, lane)
    }

    /// [`Lane::Last`], after everything queued in the other lanes.
    pub fn side_stream_after_all(&self) -> Result<&Self> {
        let Some(side) = &self.side else { return Ok(self) };
        side.gather()?;
        self.side_stream(Lane::Last)
    }

    /// Ends side work that uses `own` blocks and those of buffers until it is complete. This queue waits for
    /// it only after several more pieces of side work have ended; but if that would hold much memory that
    /// could be reused, it waits at once.
    pub fn retire(&self, own: Vec<Arc<Block>>, buffers: &[&Buffer]) -> Result<()> {
        let Some(side) = &self.side else { return Ok(()) };
        let bytes: usize = own.iter().map(|block| block.size()).sum();
        side.gather()?;
        let done = Event::new(&self.gpu.context)?;
        done.record(&side.lanes[Lane::Last as usize].stream)?;
        let blocks = buffers.iter().filter_map(|buffer| buffer.block()).cloned().chain(own).collect();
        lock(&side.last).push_back((done, blocks));
        self.join_all_but(if bytes > self.gpu.memory / SIDE_MEMORY_PART { 0 } else { MAX_IN_FLIGHT })
    }

    /// Makes everything queued here from now on wait for all side work.
    pub fn join(&self) -> Result<()> {
        self.join_all_but(0)
    }

    fn join_all_but(&self, count: usize) -> Result<()> {
        let Some(side) = &self.side else { return Ok(()) };
        let mut last = lock(&side.last);
        while last.len() > count {
            if let Some((done, _blocks)) = last.pop_front() {
                self.stream.wait(&done)?;
            }
        }
        Ok(())
    }

    /// Defers a piece of work that prepares layers until [`flush`](Self::flush).
    pub fn defer(&self, piece: impl Deferred) {
        self.deferred.push(piece);
    }

    /// Runs deferred work.
    pub fn flush(&self) -> Result<()> {
        self.deferred.flush(self)
    }

    pub fn kernels(&self) -> &Kernels {
        &self.gpu.kernels
    }

    pub fn launch(&self, kernel: Kernel, shape: Launch, arguments: &[Argument<'_>]) -> Result<()> {
        self.stream.launch(kernel, shape, arguments)
    }

    pub fn product(&self, product: Product, operands: Operands) -> Result<()> {
        let workspace = match self.workspace.get() {
            Some(workspace) => workspace.address,
            None => {
                let taken = self.pool.take(WORKSPACE)?;
                self.workspace.get_or_init(|| taken).address
            }
        };
        self.gpu.products.run(&self.stream, workspace, product, operands)
    }

    /// Allocates a matrix.
    pub fn matrix(&self, rows: usize, stride: usize, element: Element) -> Result<Block> {
        self.pool.take(rows * stride * element.bytes())
    }

    /// Allocates `f32` numbers.
    pub fn floats(&self, len: usize) -> Result<Block> {
        self.pool.take(4 * len)
    }

    /// Allocates `f32` zeros.
    pub fn zeros(&self, len: usize) -> Result<Block> {
        let block = self.floats(len)?;
        self.stream.clear(block.address, 4 * len)?;
        Ok(block)
    }

    /// Sends bytes to the GPU through pinned memory, without waiting for earlier work.
    pub fn send(&self, bytes: &[u8]) -> Result<Block> {
        let block = self.pool.take(bytes.len())?;
        let mut staging = lock(&self.gpu.staging);
        let (next, slots) = &mut *staging;
        let slot = &mut slots[*next];
        *next = 1 - *next;
        if slot.as_ref().is_none_or(|pinned| pinned.len() < bytes.len()) {
            *slot = Some(Pinned::new(&self.gpu.context, bytes.len())?);
        }
        if let Some(pinned) = slot {
            pinned.send(&self.stream, bytes, block.address)?;
        }
        Ok(block)
    }

    /// Receives bytes from the GPU through pinned memory, which is several times faster than pageable memory,
    /// after all queued work.
    pub fn receive(&self, from: u64, bytes: usize) -> Result<Vec<u8>> {
        let mut received = Vec::with_capacity(bytes);
        let mut receiving = lock(&self.gpu.receiving);
        let pinned = match &mut *receiving {
            Some(pinned) => pinned,
            none => none.insert(Pinned::new(&self.gpu.context, RECEIVED_AT_ONCE)?),
        };
        pinned.receive(&self.stream, from, bytes, &mut received)?;
        Ok(received)
    }

    /// A number of elements, which kernels count in 32 bits.
    ///
    /// # Errors
    /// [`DeviceError::Failed`] if it is larger.
    pub fn counted(&self, count: usize) -> Result<usize> {
        if count > i32::MAX as usize {
            return Err(DeviceError::Failed {
                device: self.gpu.context.name.clone(),
                reason: format!("an array of {count} numbers is larger than kernels can address"),
            });
        }
        Ok(count)
    }

    /// Partition of `rows` into slabs that are summed separately: their number, and rows per slab. It depends
    /// only on the number of rows, and therefore so do the sums.
    pub fn slabs(rows: usize) -> (usize, usize) {
        let slab = rows.div_ceil(512).max(64);
        (rows.div_ceil(slab), slab)
    }

    /// Writes the sums of `slabs` partial sums, `[slabs, count]`, to `total` `[count]`.
    pub fn sum_slabs(&self, count: usize, slabs: usize, sums: u64, total: u64) -> Result<()> {
        launch!(self, self.kernels().sum_slabs, Launch::blocks(count.div_ceil(8)); count, slabs, sums, total)
    }
}
