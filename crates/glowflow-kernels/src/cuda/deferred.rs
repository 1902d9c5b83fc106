//! Deferred work, so that pieces of the same kind run in one launch.

use std::any::Any;
use std::sync::{Mutex, PoisonError};

use super::queue::Queue;
use crate::device::DeviceError;

type Result<T> = std::result::Result<T, DeviceError>;

/// A piece of deferred work, which owns all memory that it reads and writes.
pub trait Deferred: Any + Send + Sized {
    /// Runs all pieces.
    fn flush(queue: &Queue, pieces: Vec<Self>) -> Result<()>;
}

/// Pieces of one kind.
trait Batch: Any + Send {
    fn flush(self: Box<Self>, queue: &Queue) -> Result<()>;
}

impl<T: Deferred> Batch for Vec<T> {
    fn flush(self: Box<Self>, queue: &Queue) -> Result<()> {
        T::flush(queue, *self)
    }
}

/// Deferred work, one batch per kind, in the order of their first pieces.
#[derive(Default)]
pub struct DeferredWork(Mutex<Vec<Box<dyn Batch>>>);

impl DeferredWork {
    /// Adds a piece to the batch of its kind.
    pub fn push<T: Deferred>(&self, piece: T) {
        let mut batches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_kind =
            batches.iter_mut().find_map(|batch| (&mut **batch as &mut dyn Any).downcast_mut::<Vec<T>>());
        match of_kind {
            Some(pieces) => pieces.push(piece),
            None => batches.push(Box::new(vec![piece])),
        }
    }

    /// Runs all deferred work.
    pub fn flush(&self, queue: &Queue) -> Result<()> {
        let batches = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        batches.into_iter().try_for_each(|batch| batch.flush(queue))
    }
}
