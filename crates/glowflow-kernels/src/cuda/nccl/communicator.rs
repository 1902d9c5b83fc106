//! A GPU's connection to those of other processes: sums on a separate stream, and a limit on every wait.
//!
//! The stream joins a capture of the main stream, if there is one, so that sums are replayed with it. Receive
//! buffers stay in place as long as the connection exists, because captured graphs contain their addresses.
//!
//! While NCCL works on the GPU, the host alternates between polling for progress and for NCCL's errors. After
//! a failure or the limit, the communicator is aborted, which ends NCCL's kernels, and the GPU can be used as
//! before.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::library::{Handle, Library};
use super::schedule::{Parts, Schedule, Transfer};
use crate::communicator::{Communicator, Place};
use crate::cuda::Cuda;
use crate::cuda::driver::{Argument, Context, Event, Launch, Stream};
use crate::cuda::lengths::holds;
use crate::cuda::memory::{Block, Buffer, Pool};
use crate::cuda::queue::{Gpu, Queue};
use crate::device::DeviceError;

/// Minimum and maximum time between two polls.
const PAUSE: [Duration; 2] = [Duration::from_micros(20), Duration::from_millis(1)];
/// Maximum time for NCCL's kernels to end after an abort, and for a communicator to end. After that, the GPU
/// is given up.
const END: Duration = Duration::from_secs(10);
/// Maximum time counted between two polls; a longer one means that this process was suspended.
const SUSPENDED: Duration = Duration::from_secs(1);

/// A connection to the GPUs of other processes.
pub struct Peers {
    place: Place,
    limit: Duration,
    context: Arc<Context>,
    state: Mutex<State>,
    /// Work of sums.
    stream: Stream,
    /// When a vector is ready to be summed, and when sums are done.
    begun: Event,
    done: Event,
    /// True if the main stream has yet to wait for sums.
    unjoined: AtomicBool,
    pool: Arc<Pool>,
    /// The last one is the largest. The others are in captured graphs.
    scratch: Mutex<Vec<Block>>,
}

enum State {
    Open(Handle),
    Failed(DeviceError),
}

/// The duration of a wait. Time during which this process was suspended does not count: the other processes may
/// have been suspended, too, or have waited for this one.
struct Wait {
    duration: Duration,
    last: Instant,
}

impl Wait {
    fn begin() -> Self {
        Self { duration: Duration::ZERO, last: Instant::now() }
    }

    /// Sleeps for a hundredth of the wait so far, within the limits of a pause.
    fn pause(&mut self) {
        let [shortest, longest] = PAUSE;
        thread::sleep((self.duration / 100).clamp(shortest, longest));
        self.duration += self.last.elapsed().min(SUSPENDED);
        self.last = Instant::now();
    }
}

/// Waits for NCCL's part of a call, which is not that on the GPU.
fn until_ready(handle: &Handle, what: &str, limit: Duration) -> Result<(), String> {
    let mut wait = Wait::begin();
    while !handle.is_ready()? {
        if wait.duration >= limit {
            return Err(late(what, limit));
        }
        wait.pause();
    }
    Ok(())
}

const CONNECTING: &str = "connecting the GPUs";
const SUMMING: &str = "a sum over GPUs";

fn late(what: &str, limit: Duration) -> String {
    format!("{what} was not complete after {:.1} s", limit.as_secs_f64())
}

/// Aborts a communicator elsewhere: it may have to wait for captures that the caller holds.
fn abort(handle: Handle) -> mpsc::Receiver<()> {
    let (ended, end) = mpsc::channel();
    let body = move || {
        handle.abort();
        // Nobody may be waiting.
        let _ = ended.send(());
    };
    // Without a thread, there is no abort, and the process must end without it.
    let _ = thread::Builder::new().name("nccl-abort".into()).spawn(body);
    end
}

impl Peers {
    /// See [`Transport::connect`](crate::communicator::Transport::connect).
    pub fn connect(
        library: &Library,
        gpu: &Arc<Gpu>,
        id: &[u8],
        place: Place,
        limit: Duration,
    ) -> Result<Self, DeviceError> {
        let context = Arc::clone(&gpu.context);
        let failed = |reason| DeviceError::Failed { device: context.name.clone(), reason };
        let (stream, begun, done) = (Stream::new(&context)?, Event::new(&context)?, Event::new(&context)?);
        context.enter()?;
        let handle = library.begin(id, place.rank, place.size).map_err(failed)?;
        if let Err(reason) = until_ready(&handle, CONNECTING, limit) {
            abort(handle);
            return Err(failed(reason));
        }
        Ok(Self {
            place,
            limit,
            state: Mutex::new(State::Open(handle)),
            stream,
            begun,
            done,
            unjoined: AtomicBool::new(false),
            pool: Pool::new(&context, true),
            scratch: Mutex::default(),
            context: Arc::clone(&gpu.context),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing is summed from here on.
    fn fail(&self, state: &mut State, reason: String) -> DeviceError {
        let error = DeviceError::Failed { device: self.context.name.clone(), reason };
        if let State::Open(handle) = std::mem::replace(state, State::Failed(error.clone())) {
            abort(handle);
        }
        error
    }

    /// The failure, if there was one. Finds out about one in NCCL's work on the GPU.
    fn check(&self) -> Result<(), DeviceError> {
        let mut state = self.state();
        let ready = match &*state {
            State::Failed(error) => return Err(error.clone()),
            State::Open(handle) => handle.is_ready(),
        };
        ready.map(|_| ()).map_err(|reason| self.fail(&mut state, reason))
    }

    /// Queues transfers; false if the connection has failed.
    fn exchange(&self, transfers: &[Transfer]) -> bool {
        let mut state = self.state();
        let queued = match &*state {
            State::Failed(_) => return false,
            State::Open(_) if transfers.is_empty() => return true,
            State::Open(handle) => handle
                .begin_group(transfers, &self.stream)
                .and_then(|()| until_ready(handle, SUMMING, self.limit)),
        };
        match queued {
            Ok(()) => true,
            Err(reason) => {
                self.fail(&mut state, reason);
                false
            }
        }
    }

    fn add(&self, queue: &Queue, parts: &Parts, scratch: u64, values: u64) -> Result<(), DeviceError> {
        let Parts { count, stride, sum } = parts;
        let arguments: [Argument<'_>; 5] = [
            Argument::from(*count),
            Argument::from(sum.len()),
            Argument::from(*stride),
            Argument::from(scratch),
            Argument::from(values + 4 * sum.start as u64),
        ];
        self.stream.launch(queue.kernels().sum_parts, Launch::of(sum.len()), &arguments)
    }

    /// The address of memory for `len` numbers.
    fn scratch(&self, len: usize) -> Result<u64, DeviceError> {
        let mut blocks = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(block) = blocks.last()
            && block.size() >= 4 * len
        {
            return Ok(block.address);
        }
        let block = self.pool.take(4 * len)?;
        let address = block.address;
        blocks.push(block);
        Ok(address)
    }

    fn queue_sum(&self, queue: &Queue, values: u64, len: usize) -> Result<(), DeviceError> {
        let scratch = self.scratch(Schedule::scratch(self.place, len))?;
        let schedule = Schedule::new(self.place, len, values, scratch);
        // Weight gradients are computed concurrently with the main stream.
        queue.join()?;
        self.begun.record(&queue.stream)?;
        self.stream.wait(&self.begun)?;
        self.unjoined.store(true, Ordering::Relaxed);
        let (transfers, parts) = schedule.near();
        if !self.exchange(&transfers) {
            return Ok(());
        }
        self.add(queue, &parts, scratch, values)?;
        if let Some((transfers, parts)) = schedule.far() {
            if !self.exchange(&transfers) {
                return Ok(());
            }
            self.add(queue, &parts, scratch, values)?;
            self.exchange(&schedule.far_back());
        }
        self.exchange(&schedule.near_back());
        Ok(())
    }
}

impl Communicator<Cuda> for Peers {
    fn sum(&self, device: &Cuda, buffer: &mut Buffer, at: Range<usize>) {
        holds("a slice", buffer, at.end);
        if !at.is_empty() {
            device.attempt(|queue| self.queue_sum(queue, buffer.at(at.start), at.len()));
        }
    }

    fn join(&self, device: &Cuda) {
        device.attempt(|queue| {
            if self.unjoined.swap(false, Ordering::Relaxed) {
                self.done.record(&self.stream)?;
                queue.stream.wait(&self.done)?;
            }
            Ok(())
        });
    }

    fn wait(&self, device: &Cuda) -> Result<(), DeviceError> {
        let mut wait = Wait::begin();
        let is_done = || device.report(|queue| queue.stream.is_done());
        while !is_done()? {
            let is_late = wait.duration >= self.limit;
            let checked = match self.check() {
                Ok(()) if is_late => Err(self.fail(&mut self.state(), late(SUMMING, self.limit))),
                checked => checked,
            };
            if let Err(error) = checked {
                // The abort ends NCCL's kernels.
                let mut aborted = Wait::begin();
                while !is_done()? {
                    if aborted.duration >= END {
                        // Later waits for the GPU would not end.
                        device.attempt(|_| Err::<(), _>(error.clone()));
                        break;
                    }
                    aborted.pause();
                }
                return Err(error);
            }
            wait.pause();
        }
        self.check()
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        let failed = State::Failed(DeviceError::Failed {
            device: self.context.name.clone(),
            reason: "the connection to other GPUs has ended".into(),
        });
        let open = std::mem::replace(&mut *self.state(), failed);
        if let State::Open(handle) = open {
            // It returns at once, unless a capture of NCCL's work is still there.
            let _ = abort(handle).recv_timeout(END);
        }
    }
}
