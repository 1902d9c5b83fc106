//! Buffers that are used again.
//!
//! A training step takes and drops the same few hundred buffers every time. Given back to the system each
//! time, their pages would have to be mapped and cleared anew; so a dropped buffer goes to its device's
//! pool, and the next one of the same length comes from there.

use std::collections::HashMap;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

type Free<T> = HashMap<usize, Vec<Memory<T>>>;

/// What a buffer lies in: the numbers from `first` on. No number is ever added, so that it stays where it is.
struct Memory<T> {
    numbers: Vec<T>,
    first: usize,
}

/// Where a buffer begins: at a cache line, so that no vector lies across two of them.
const ALIGNMENT: usize = 64;

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

impl<T: Copy + Default> Pool<T> {
    /// A buffer of any contents.
    pub fn take(&self, len: usize) -> Buffer<T> {
        let free = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&len).and_then(Vec::pop);
        let memory = free.unwrap_or_else(|| {
            let spare = ALIGNMENT / size_of::<T>();
            let numbers = vec![T::default(); len + spare];
            let first = numbers.as_ptr().align_offset(ALIGNMENT).min(spare);
            Memory { numbers, first }
        });
        Buffer { memory, len, pool: self.clone() }
    }
}

/// An array in main memory that goes back to its pool when dropped.
pub struct Buffer<T> {
    memory: Memory<T>,
    len: usize,
    pool: Pool<T>,
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        let memory = Memory { numbers: std::mem::take(&mut self.memory.numbers), first: self.memory.first };
        let mut free = self.pool.0.lock().unwrap_or_else(PoisonError::into_inner);
        free.entry(self.len).or_default().push(memory);
    }
}

impl<T> Deref for Buffer<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.memory.numbers[self.memory.first..][..self.len]
    }
}

impl<T> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.memory.numbers[self.memory.first..][..self.len]
    }
}

impl<T> fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer of {} elements", self.len)
    }
}
