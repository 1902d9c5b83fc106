//! GPU memory: pools that reuse freed blocks, and buffers allocated from them.
//!
//! Allocating memory from the driver waits for the GPU, so freed blocks are kept for reuse. A pool belongs to
//! one stream: a block that is freed while work on it is still queued can be reused at once, because the next
//! owner's work comes later in the same stream. A capture has side streams, whose work must hold its blocks
//! until it has finished ([`Queue::retire`](super::queue::Queue::retire)).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use super::driver::Context;
use crate::device::{DeviceError, Memory};
use crate::shape::Span;

/// Memory blocks, used and free.
pub struct Pool {
    context: Arc<Context>,
    /// Free blocks by size.
    free: Mutex<FreeList>,
    /// True if a graph contains the blocks' addresses, so that none may be returned to the driver while the
    /// pool exists.
    captured: bool,
}

type FreeList = HashMap<usize, Vec<u64>>;

/// The size of a block for `bytes`: few distinct sizes, so that blocks can be reused, and at most an eighth
/// too large.
fn rounded(bytes: usize) -> usize {
    let step = (bytes.next_power_of_two() / 16).max(512);
    bytes.next_multiple_of(step)
}

impl Pool {
    pub fn new(context: &Arc<Context>, captured: bool) -> Arc<Self> {
        Arc::new(Self { context: Arc::clone(context), free: Mutex::default(), captured })
    }

    fn free_list(&self) -> MutexGuard<'_, FreeList> {
        self.free.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A block of at least `bytes` bytes.
    pub fn take(self: &Arc<Self>, bytes: usize) -> Result<Block, DeviceError> {
        let size = rounded(bytes.max(1));
        let mut free = self.free_list();
        let address = match free.get_mut(&size).and_then(Vec::pop) {
            Some(address) => address,
            None => match self.context.allocate(size)? {
                Some(address) => address,
                None => {
                    if !self.captured {
                        self.release(&mut free);
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

    fn release(&self, free: &mut FreeList) {
        for (size, addresses) in free.drain() {
            addresses.into_iter().for_each(|address| self.context.free(address, size));
        }
    }

    /// Returns free blocks to the driver.
    pub fn trim(&self) {
        self.release(&mut self.free_list());
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Every used block holds an `Arc` of the pool, so all blocks are free by now.
        self.trim();
    }
}

/// A block of GPU memory. It returns to its pool on drop.
pub struct Block {
    pub address: u64,
    size: usize,
    pool: Arc<Pool>,
}

impl Block {
    /// Size in bytes; at least the requested size.
    pub fn size(&self) -> usize {
        self.size
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.pool.free_list().entry(self.size).or_default().push(self.address);
    }
}

/// An array of `f32` in GPU memory.
pub struct Buffer {
    block: Option<Arc<Block>>,
    len: usize,
}

impl Buffer {
    /// `block` is absent if memory was exhausted; nothing is computed from then on.
    pub(crate) fn new(block: Option<Block>, len: usize) -> Self {
        Self { block: block.map(Arc::new), len }
    }

    /// Its memory, for deferred readers.
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

/// The address of a span of the parameters, or of their gradient.
pub fn at(buffer: u64, span: Span) -> u64 {
    buffer + 4 * span.start as u64
}
