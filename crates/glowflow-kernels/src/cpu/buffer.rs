//! A pool of reusable buffers.
//!
//! A training step allocates and drops the same few hundred buffers every time. If they were returned to the
//! system, their pages would have to be mapped and cleared each time. A dropped buffer therefore goes to its
//! device's pool, which provides the next one of the same length.
//!
//! A server works on batches of many sizes, each with buffers of its own lengths. The pool therefore releases
//! the lengths that have long been unused. It measures time by the buffers taken, because a training step of a
//! large model may take minutes, and should find all buffers of the last one.

use std::collections::HashMap;
use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::out_of_memory::out_of_memory;

/// Number of buffers taken after which a length counts as unused. A training step with 96 steps of flow takes
/// about 60,000.
const MAX_IDLE: u64 = 1 << 20;

/// The unused buffers of one length.
struct FreeList<T> {
    /// Value of [`Free::taken`] when a buffer last returned.
    returned: u64,
    buffers: Vec<Vec<T>>,
}

/// The unused buffers, by length.
struct Free<T> {
    lists: HashMap<usize, FreeList<T>>,
    /// Number of buffers taken so far.
    taken: u64,
}

impl<T> Free<T> {
    fn take(&mut self, len: usize) -> Option<Vec<T>> {
        self.taken += 1;
        self.lists.get_mut(&len)?.buffers.pop()
    }

    fn put(&mut self, len: usize, data: Vec<T>) {
        let list = self.lists.entry(len).or_insert_with(|| FreeList { returned: 0, buffers: vec![] });
        list.returned = self.taken;
        list.buffers.push(data);
    }

    /// Every [`MAX_IDLE`] buffers, removes the lists of unused lengths.
    fn idle(&mut self) -> Vec<FreeList<T>> {
        if !self.taken.is_multiple_of(MAX_IDLE) {
            return vec![];
        }
        let oldest = self.taken - MAX_IDLE;
        self.lists.extract_if(|_, list| list.returned < oldest).map(|(_, list)| list).collect()
    }
}

/// Alignment of a buffer: a cache line, so that no vector straddles two of them.
const ALIGNMENT: usize = 64;

/// Number of elements by which an array exceeds its buffer, for alignment.
const fn spare<T>() -> usize {
    ALIGNMENT / size_of::<T>()
}

/// The pool of a device.
pub struct Pool<T>(Arc<Mutex<Free<T>>>);

impl<T> Clone for Pool<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Free { lists: HashMap::new(), taken: 0 })))
    }
}

/// Minimum size, in bytes, of allocations that are attempted fallibly. If a smaller one fails, the program
/// cannot continue anyway.
const TRIED_FROM: usize = 1 << 20;

impl<T: Copy + Default> Pool<T> {
    /// A buffer with unspecified contents.
    pub fn take(&self, len: usize) -> Buffer<T> {
        let mut free = self.lock();
        let data = free.take(len);
        let idle = free.idle();
        drop(free);
        drop(idle);
        let data = data.unwrap_or_else(|| self.allocate(len.saturating_add(spare::<T>())));
        Buffer { data, pool: self.clone() }
    }

    /// Allocates an array of zeros; ends the current work if memory is exhausted.
    fn allocate(&self, len: usize) -> Vec<T> {
        let bytes = len.saturating_mul(size_of::<T>());
        // Dropped immediately: the standard library has no fallible way to allocate memory that the system has
        // zeroed.
        let fits = || bytes < TRIED_FROM || Vec::<T>::new().try_reserve_exact(len).is_ok();
        if !fits() {
            self.lock().lists.clear();
            if !fits() {
                out_of_memory(bytes);
            }
        }
        vec![T::default(); len]
    }
}

impl<T> Pool<T> {
    fn lock(&self) -> MutexGuard<'_, Free<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An array in main memory that returns to its pool on drop.
pub struct Buffer<T> {
    data: Vec<T>,
    pool: Pool<T>,
}

impl<T> Buffer<T> {
    /// The buffer's range in the array: constant, because an array that never grows does not move.
    fn range(&self) -> Range<usize> {
        let first = self.data.as_ptr().align_offset(ALIGNMENT).min(spare::<T>());
        first..first + self.data.len() - spare::<T>()
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        let len = self.len();
        let data = std::mem::take(&mut self.data);
        self.pool.lock().put(len, data);
    }
}

impl<T> Deref for Buffer<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.data[self.range()]
    }
}

impl<T> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        let range = self.range();
        &mut self.data[range]
    }
}

impl<T> fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer of {} elements", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_reused() {
        let pool = Pool::<f32>::default();
        let first = pool.take(1000);
        let address = first.as_ptr();
        drop(first);
        drop(pool.take(2000));
        assert_eq!(pool.take(1000).as_ptr(), address);
    }

    #[test]
    fn lengths_that_have_long_been_unused_are_released() {
        let pool = Pool::<f32>::default();
        let held = |len| pool.lock().lists.contains_key(&len);
        for len in [1000, 2000, 3000] {
            drop(pool.take(len));
        }
        for taken in 0..2 * MAX_IDLE {
            drop(pool.take(1000));
            if taken % (MAX_IDLE / 2) == 0 {
                drop(pool.take(2000));
            }
        }
        assert!(held(1000) && held(2000) && !held(3000));
    }
}
