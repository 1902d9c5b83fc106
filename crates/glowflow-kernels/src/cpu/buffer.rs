//! Buffers that are used again.
//!
//! A training step takes and drops the same few hundred buffers every time. Given back to the system each
//! time, their pages would have to be mapped and cleared anew; so a dropped buffer goes to its device's
//! pool, and the next one of the same length comes from there.

use std::collections::HashMap;
use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::sync::{Arc, Mutex, PoisonError};

use crate::out_of_memory::out_of_memory;

type Free<T> = HashMap<usize, Vec<Vec<T>>>;

/// Where a buffer begins: at a cache line, so that no vector lies across two of them.
const ALIGNMENT: usize = 64;

/// Numbers that an array has more than its buffer, to begin where it should.
const fn spare<T>() -> usize {
    ALIGNMENT / size_of::<T>()
}

/// The buffers that nobody uses, by length.
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

/// Bytes from which on an allocation is tried first. A smaller one does not fail where a program can still
/// run.
const TRIED_FROM: usize = 1 << 20;

/// An array of zeros from the system, or the end of the current work if there is none.
fn allocate<T: Copy + Default>(len: usize) -> Vec<T> {
    let bytes = len.saturating_mul(size_of::<T>());
    // Dropped at once: the standard library has no fallible way to an array whose pages the system has
    // cleared.
    if bytes >= TRIED_FROM && Vec::<T>::new().try_reserve_exact(len).is_err() {
        out_of_memory(bytes);
    }
    vec![T::default(); len]
}

impl<T: Copy + Default> Pool<T> {
    /// A buffer of any contents.
    pub fn take(&self, len: usize) -> Buffer<T> {
        let free = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&len).and_then(Vec::pop);
        let data = free.unwrap_or_else(|| allocate(len.saturating_add(spare::<T>())));
        Buffer { data, pool: self.clone() }
    }
}

/// An array in main memory that goes back to its pool when dropped.
pub struct Buffer<T> {
    data: Vec<T>,
    pool: Pool<T>,
}

impl<T> Buffer<T> {
    /// Where in the array it lies: always the same, for an array that never grows stays where it is.
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
