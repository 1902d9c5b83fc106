//! A pool of reusable buffers.
//!
//! A training step allocates and drops the same few hundred buffers every time. If they were returned to the
//! system, their pages would have to be mapped and cleared each time. A dropped buffer therefore goes to its
//! device's pool, which provides the next one of the same length.
//!
//! A server works on batches of many sizes, each with buffers of its own lengths. When a new buffer is needed,
//! the pool therefore releases the lengths that have not been used for a while.

use std::collections::HashMap;
use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::out_of_memory::out_of_memory;

/// Time after which unused buffers are released.
const KEPT: Duration = Duration::from_secs(10);

/// The unused buffers of one length.
struct Shelf<T> {
    used: Instant,
    buffers: Vec<Vec<T>>,
}

type Free<T> = HashMap<usize, Shelf<T>>;

/// Alignment of a buffer: a cache line, so that no vector straddles two of them.
const ALIGNMENT: usize = 64;

/// Number of elements by which an array exceeds its buffer, for alignment.
const fn spare<T>() -> usize {
    ALIGNMENT / size_of::<T>()
}

/// The unused buffers, by length.
pub struct Pool<T>(Arc<Mutex<Free<T>>>);

impl<T> Clone for Pool<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

/// Minimum size, in bytes, of allocations that are attempted fallibly. If a smaller one fails, the program
/// cannot continue anyway.
const TRIED_FROM: usize = 1 << 20;

impl<T: Copy + Default> Pool<T> {
    /// A buffer with unspecified contents.
    pub fn take(&self, len: usize) -> Buffer<T> {
        let data = self.unused(len).unwrap_or_else(|| self.allocate(len.saturating_add(spare::<T>())));
        Buffer { data, pool: self.clone() }
    }

    /// An unused buffer of this length. If there is none, releases the lengths that have not been used for a
    /// while.
    fn unused(&self, len: usize) -> Option<Vec<T>> {
        let now = Instant::now();
        let mut free = self.lock();
        if let Some(shelf) = free.get_mut(&len)
            && let Some(data) = shelf.buffers.pop()
        {
            shelf.used = now;
            return Some(data);
        }
        free.retain(|_, shelf| now.duration_since(shelf.used) < KEPT);
        None
    }

    /// Allocates an array of zeros; ends the current work if memory is exhausted.
    fn allocate(&self, len: usize) -> Vec<T> {
        let bytes = len.saturating_mul(size_of::<T>());
        // Dropped immediately: the standard library has no fallible way to allocate memory that the system has
        // zeroed.
        let fits = || bytes < TRIED_FROM || Vec::<T>::new().try_reserve_exact(len).is_ok();
        if !fits() {
            self.lock().clear();
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

    fn put(&self, len: usize, data: Vec<T>) {
        let now = Instant::now();
        let mut free = self.lock();
        let shelf = free.entry(len).or_insert_with(|| Shelf { used: now, buffers: vec![] });
        shelf.used = now;
        shelf.buffers.push(data);
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
        self.pool.put(len, data);
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
    fn buffers_are_reused_until_they_have_been_unused_for_a_while() {
        let pool = Pool::<f32>::default();
        let lengths = || {
            let mut lengths: Vec<usize> = pool.lock().keys().copied().collect();
            lengths.sort_unstable();
            lengths
        };
        let first = pool.take(1000);
        let address = first.as_ptr();
        drop(first);
        drop(pool.take(2000));
        let again = pool.take(1000);
        assert_eq!(again.as_ptr(), address);
        drop(again);

        // The longer buffer has not been used for a while, but no new buffer is needed yet.
        let earlier = Instant::now().checked_sub(2 * KEPT).expect("the system runs for longer than that");
        pool.lock().get_mut(&2000).unwrap().used = earlier;
        drop(pool.take(1000));
        assert_eq!(lengths(), [1000, 2000]);
        drop(pool.take(3000));
        assert_eq!(lengths(), [1000, 3000]);
    }
}
