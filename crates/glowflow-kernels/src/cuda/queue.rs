//! What operations are written with: a stream, its memory, and the kernels that go into it.
//!
//! An operation here returns its error at once. [`Cuda`](super::Cuda) remembers the first one and does nothing from there on.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use super::compile::{Compiled, HOPPER, Target};
use super::deferred::{Deferred, DeferredWork};
use super::driver::{Argument, Context, Event, Kernel, Launch, Pinned, Stream};
use super::hopper;
use super::kernels::Kernels;
use super::memory::{Block, Buffer, Pool};
use super::product::{Element, Operands, Product, Products, WORKSPACE};
use crate::device::DeviceError;

type Result<T> = std::result::Result<T, DeviceError>;

/// Queues a kernel: `launch!(queue, kernel, shape; arguments…)`.
macro_rules! launch {
    ($queue:expr, $kernel:expr, $shape:expr; $($argument:expr),* $(,)?) => {
        $queue.launch($kernel, $shape, &[$(Argument::from($argument)),*])
    };
}
pub(crate) use launch;

/// The environment variable that says how many rows of hidden activations a network computes at once, to try other numbers
/// than the usual 65,536. Results and their rounding may depend on it.
pub const ROWS_AT_ONCE: &str = "GLOWFLOW_CUDA_ROWS";

/// Enough that products have blocks for all multiprocessors several times over; and few enough that what a network needs beside its
/// hidden activations stays small.
const USUAL_ROWS_AT_ONCE: usize = 1 << 16;

/// The environment variable that, set to `off`, has hidden layers computed by cuBLASLt everywhere, and set to `layers` by kernels of their
/// own instead of those for whole networks, to find out what is faster. With the compiler of CUDA 12 it is as if it were `layers`.
pub const HIDDEN: &str = "GLOWFLOW_CUDA_HIDDEN";

/// A piece of work beside that has more than this part of a GPU's memory is waited for at once.
const KEPT_PART: usize = 128;

/// How much work beside may be under way: that of two steps of flow, a network's and a channel map's each.
const UNJOINED: usize = 4;

/// Bytes that come back from the GPU in one piece.
const RECEIVED_AT_ONCE: usize = 4 << 20;

/// What all queues of a GPU share.
pub struct Gpu {
    pub context: Arc<Context>,
    pub kernels: Kernels,
    pub products: Products,
    /// What coupling networks' matrices hold, and whether products may round `f32` to TF32.
    pub element: Element,
    pub tf32: bool,
    /// See [`ROWS_AT_ONCE`].
    pub rows_at_once: usize,
    /// Kernels for hidden layers in bf16, where this GPU has some.
    pub hidden: Option<hopper::LayerKernels>,
    /// Kernels for whole networks in bf16, where this GPU and the compiler have some and networks are in bf16.
    pub fused: Option<hopper::NetworkKernels>,
    /// Bytes of memory in all.
    memory: usize,
    constants: Constants,
    /// Two buffers for pixels, so that one is filled while the other is read.
    staging: Mutex<(usize, [Option<Pinned>; 2])>,
    /// And one for pixels on their way back.
    receiving: Mutex<Option<Pinned>>,
}

/// The fixed parts of permutations, on the GPU; by content, for they never change.
struct Constants {
    stream: Stream,
    pool: Arc<Pool>,
    known: Mutex<HashMap<Vec<u32>, Arc<Block>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// An environment variable's value. One that is set to nothing counts as unset.
fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(|value| value.to_string_lossy().into_owned())
}

fn wrong_variable(context: &Context, name: &str, value: &str, want: &str) -> DeviceError {
    let reason = format!("the environment variable {name} is {value:?}; it must be {want}");
    DeviceError::Unavailable { device: context.name.clone(), reason }
}

impl Gpu {
    pub fn new(context: Arc<Context>, compiled: &Compiled, element: Element, tf32: bool) -> Result<Self> {
        let (module, kernels) = (compiled.module, variable(HIDDEN).unwrap_or_default());
        if !["", "off", "layers"].contains(&kernels.as_str()) {
            return Err(wrong_variable(&context, HIDDEN, &kernels, "off or layers"));
        }
        let rows = variable(ROWS_AT_ONCE);
        let rows_at_once =
            match &rows {
                None => USUAL_ROWS_AT_ONCE,
                Some(text) => text.parse().ok().filter(|&rows| rows > 0).ok_or_else(|| {
                    wrong_variable(&context, ROWS_AT_ONCE, text, "a number of rows, 1 or more")
                })?,
            };
        let hidden = compiled.target == Target::Machine(HOPPER) && kernels != "off";
        let fused = hidden && element == Element::Bf16 && kernels != "layers";
        // Compilers before that of CUDA 13 let the products wait for each other.
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
            rows_at_once,
        })
    }

    /// Words that stay on the GPU. They are sent by a stream of their own, so that no other, which may be recording, takes
    /// notice.
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

/// A stream with memory of its own.
pub struct Queue {
    pub gpu: Arc<Gpu>,
    pub stream: Stream,
    pub pool: Arc<Pool>,
    /// Of products; taken when the first one comes.
    workspace: OnceLock<Block>,
    deferred: DeferredWork,
    beside: Option<Box<Beside>>,
}

/// Streams for work that others do not wait for, with the memory of the first.
struct Beside {
    lanes: [Queue; 3],
    begun: Event,
    /// Which lanes have been given work that the last one does not wait for yet.
    given: Mutex<[bool; 3]>,
    /// When the last of this work is done, and what it reads and writes until then; the oldest first.
    last: Mutex<VecDeque<(Event, Vec<Arc<Block>>)>>,
}

/// What runs beside the main stream does so in three lanes: a network's three gradients by weights have nothing to do with one another,
/// and the parameters' gradients are many short kernels.
#[derive(Clone, Copy)]
pub enum Lane {
    /// For the gradient by the weight between both hidden layers, as long as both others.
    Middle,
    /// For the gradients by the first and the last weight.
    Outer,
    /// For sums, and for the parameters' gradients, which are made of those; a piece of work ends when what is here is done.
    Last,
}

impl Beside {
    /// A lane, which waits for what a stream has been given so far.
    fn wait(&self, stream: &Stream, lane: Lane) -> Result<&Queue> {
        let queue = &self.lanes[lane as usize];
        self.begun.record(stream)?;
        queue.stream.wait(&self.begun)?;
        lock(&self.given)[lane as usize] = true;
        Ok(queue)
    }

    /// The last lane waits for what the others have been given.
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

    /// A queue to record in. What is recorded is good for as long as the queue is there.
    pub fn to_record(gpu: &Arc<Gpu>) -> Result<Self> {
        let pool = Pool::new(&gpu.context, true);
        let lane = || Self::with_pool(gpu, Arc::clone(&pool));
        let beside = Beside {
            lanes: [lane()?, lane()?, lane()?],
            begun: Event::new(&gpu.context)?,
            given: Mutex::default(),
            last: Mutex::default(),
        };
        Ok(Self { beside: Some(Box::new(beside)), ..Self::with_pool(gpu, pool)? })
    }

    fn with_pool(gpu: &Arc<Gpu>, pool: Arc<Pool>) -> Result<Self> {
        Ok(Self {
            gpu: Arc::clone(gpu),
            stream: Stream::new(&gpu.context)?,
            pool,
            workspace: OnceLock::new(),
            deferred: DeferredWork::default(),
            beside: None,
        })
    }

    /// A queue for work that may run beside what is queued here from now on, and begins when what was queued here before is done. It
    /// must end with [`end_beside`](Self::end_beside).
    ///
    /// Where nothing is recorded it is this queue itself: then the host is what work waits for.
    pub fn beside(&self, lane: Lane) -> Result<&Self> {
        let Some(beside) = &self.beside else { return Ok(self) };
        beside.wait(&self.stream, lane)
    }

    /// [`Lane::Last`], after all that the other lanes have been given.
    pub fn beside_after_all(&self) -> Result<&Self> {
        let Some(beside) = &self.beside else { return Ok(self) };
        beside.gather()?;
        self.beside(Lane::Last)
    }

    /// Ends work beside, which has `own` blocks and those of buffers until it is done. Nothing here waits for it before some more such
    /// work has ended, too; but where that would keep much memory that could be used again, what follows here waits at once.
    pub fn end_beside(&self, own: Vec<Arc<Block>>, buffers: &[&Buffer]) -> Result<()> {
        let Some(beside) = &self.beside else { return Ok(()) };
        let bytes: usize = own.iter().map(|block| block.size()).sum();
        beside.gather()?;
        let done = Event::new(&self.gpu.context)?;
        done.record(&beside.lanes[Lane::Last as usize].stream)?;
        let blocks = buffers.iter().filter_map(|buffer| buffer.block()).cloned().chain(own).collect();
        lock(&beside.last).push_back((done, blocks));
        self.join_all_but(if bytes > self.gpu.memory / KEPT_PART { 0 } else { UNJOINED })
    }

    /// What is queued from here on waits for all work beside.
    pub fn join(&self) -> Result<()> {
        self.join_all_but(0)
    }

    fn join_all_but(&self, count: usize) -> Result<()> {
        let Some(beside) = &self.beside else { return Ok(()) };
        let mut last = lock(&beside.last);
        while last.len() > count {
            if let Some((done, _blocks)) = last.pop_front() {
                self.stream.wait(&done)?;
            }
        }
        Ok(())
    }

    /// Defers a piece of work that makes layers ready, until [`flush`](Self::flush).
    pub fn defer(&self, piece: impl Deferred) {
        self.deferred.push(piece);
    }

    /// Does deferred work.
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

    /// Memory for a matrix.
    pub fn matrix(&self, rows: usize, stride: usize, element: Element) -> Result<Block> {
        self.pool.take(rows * stride * element.bytes())
    }

    /// Memory for `f32`.
    pub fn floats(&self, len: usize) -> Result<Block> {
        self.pool.take(4 * len)
    }

    /// Memory for `f32`, all 0.
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

    /// Bytes from the GPU through pinned memory, which is several times as fast as without, when everything queued before is done.
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

    /// How to cut `rows` into slabs that are summed apart: how many, and rows of each. It depends on nothing but the number
    /// of rows, so that sums do not either.
    pub fn slabs(rows: usize) -> (usize, usize) {
        let slab = rows.div_ceil(512).max(64);
        (rows.div_ceil(slab), slab)
    }

    /// Adds up partial sums, `[slabs, count]`, into `total` `[count]`.
    pub fn sum_slabs(&self, count: usize, slabs: usize, sums: u64, total: u64) -> Result<()> {
        launch!(self, self.kernels().sum_slabs, Launch::blocks(count.div_ceil(8)); count, slabs, sums, total)
    }
}
