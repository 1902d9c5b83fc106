//! Memory on a GPU: pools that keep what was given back, and the buffers taken from them.
//!
//! Asking the driver for memory makes it wait for the GPU, so blocks are kept for whoever asks next. A pool belongs
//! to one stream: a block given back while work on it is still queued is safe to hand out again, since what
//! the next owner queues comes later in the same stream. A record has more streams, whose work has to hold its blocks
//! until it is done ([`Queue::end_beside`](super::queue::Queue::end_beside)).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use super::driver::Context;
use crate::device::{DeviceError, Memory};
use crate::shape::Span;

/// Blocks of memory, in use and kept.
pub struct Pool {
    context: Arc<Context>,
    /// Kept blocks by their size.
    kept: Mutex<Kept>,
    /// Whether recorded work knows the blocks' addresses, so that none may go back to the driver before the pool does.
    recorded: bool,
}

type Kept = HashMap<usize, Vec<u64>>;

/// The size of the block that holds `bytes`: few sizes, so that blocks fit again, and at most an eighth too large.
fn rounded(bytes: usize) -> usize {
    let step = (bytes.next_power_of_two() / 16).max(512);
    bytes.next_multiple_of(step)
}

impl Pool {
    pub fn new(context: &Arc<Context>, recorded: bool) -> Arc<Self> {
        Arc::new(Self { context: Arc::clone(context), kept: Mutex::default(), recorded })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A block of at least so many bytes.
    pub fn take(self: &Arc<Self>, bytes: usize) -> Result<Block, DeviceError> {
        let size = rounded(bytes.max(1));
        let mut kept = self.kept();
        let address = match kept.get_mut(&size).and_then(Vec::pop) {
            Some(address) => address,
            None => match self.context.allocate(size)? {
                Some(address) => address,
                None => {
                    if !self.recorded {
                        self.release(&mut kept);
                    }
                    self.context.allocate(size)?.ok_or_else(|| self.exhausted(bytes))?
                }
            },
        };
        Ok(Block { address, size, pool: Arc::clone(self) })
    }

    fn exhausted(&self, requested: usize) -> DeviceError {
        let (free, total) = self.context.memory().unwrap_or_default();
        let memory = Some(Memory { free, total });
        DeviceError::OutOfMemory { device: self.context.name.clone(), requested, memory }
    }

    fn release(&self, kept: &mut Kept) {
        for (size, addresses) in kept.drain() {
            addresses.into_iter().for_each(|address| self.context.free(address, size));
        }
    }

    /// Returns kept blocks to the driver.
    pub fn trim(&self) {
        self.release(&mut self.kept());
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Every block in use holds an `Arc` of the pool, so all blocks are kept ones by now.
        self.trim();
    }
}

/// A piece of a GPU's memory. Its pool gets it back when it is dropped.
pub struct Block {
    pub address: u64,
    size: usize,
    pool: Arc<Pool>,
}

impl Block {
    /// In bytes; at least as many as were asked for.
    pub fn size(&self) -> usize {
        self.size
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.pool.kept().entry(self.size).or_default().push(self.address);
    }
}

/// An array of `f32` in a GPU's memory.
pub struct Buffer {
    block: Option<Arc<Block>>,
    len: usize,
}

impl Buffer {
    /// `block` is absent where there was no memory; nothing is computed from there on.
    pub(crate) fn new(block: Option<Block>, len: usize) -> Self {
        Self { block: block.map(Arc::new), len }
    }

    /// Its memory, for whoever reads it later.
    pub(crate) fn block(&self) -> Option<&Arc<Block>> {
        self.block.as_ref()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn address(&self) -> u64 {
        self.block.as_ref().map_or(0, |block| block.address)
    }

    /// The address of element `index`.
    pub(crate) fn at(&self, index: usize) -> u64 {
        self.address() + 4 * index as u64
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} numbers at {:#x})", self.len, self.address())
    }
}

/// The address of a part of the parameters, or of their gradient.
pub fn at(buffer: u64, span: Span) -> u64 {
    buffer + 4 * span.start as u64
}
