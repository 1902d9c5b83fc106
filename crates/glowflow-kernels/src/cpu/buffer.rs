//! A pool of reusable buffers.
//!
//! A training step allocates and drops the same few hundred buffers every time. If they were returned to the
//! system, their pages would have to be mapped and cleared each time. A dropped buffer therefore goes to its
//! device's pool, which provides the next one of the same length.

use std::collections::HashMap;
use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::sync::{Arc, Mutex, PoisonError};

use crate::out_of_memory::out_of_memory;

type Free<T> = HashMap<usize, Vec<Vec<T>>>;

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

/// Allocates an array of zeros; ends the current work if memory is exhausted.
fn allocate<T: Copy + Default>(len: usize) -> Vec<T> {
    let bytes = len.saturating_mul(size_of::<T>());
    // Dropped immediately: the standard library has no fallible way to allocate memory that the system has
    // zeroed.
    if bytes >= TRIED_FROM && Vec::<T>::new().try_reserve_exact(len).is_err() {
        out_of_memory(bytes);
    }
    vec![T::default(); len]
}

impl<T: Copy + Default> Pool<T> {
    /// A buffer with unspecified contents.
    pub fn take(&self, len: usize) -> Buffer<T> {
        let free = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&len).and_then(Vec::pop);
        let data = free.unwrap_or_else(|| allocate(len.saturating_add(spare::<T>())));
        Buffer { data, pool: self.clone() }
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
        self.pool.0.lock().unwrap_or_else(PoisonError::into_inner).entry(len).or_default().push(data);
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
