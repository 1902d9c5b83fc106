//! A job of one process, without communication.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::{Bucket, Ranks, RanksError};

/// Rank 0 of 1: sums are the buckets themselves.
#[derive(Debug, Default)]
pub struct Alone {
    buckets: Mutex<VecDeque<Bucket>>,
}

impl Alone {
    /// A job of this process alone.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Ranks for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn local(&self) -> (usize, usize) {
        (0, 1)
    }

    fn at(&self, _step: u64) {}

    fn set_limit(&self, _limit: Duration) {}

    fn start(&self, bucket: Bucket) {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner).push_back(bucket);
    }

    fn finished(&self) -> Result<Bucket, RanksError> {
        let next = self.buckets.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        next.ok_or_else(no_bucket)
    }

    fn gather(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>, RanksError> {
        Ok(vec![mine.to_vec()])
    }

    fn broadcast(&self, _bytes: &mut Vec<u8>) -> Result<(), RanksError> {
        Ok(())
    }

    fn finish(&self) -> Result<(), RanksError> {
        Ok(())
    }

    fn abort(&self, _code: u8) {}
}

/// The error of waiting for a bucket when none was started.
pub(crate) fn no_bucket() -> RanksError {
    RanksError::Engine("no bucket was started".into())
}
