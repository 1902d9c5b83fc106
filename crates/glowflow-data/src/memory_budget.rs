//! Memory budget for decoded images, which several datasets may share.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Remaining bytes.
pub(crate) struct MemoryBudget(AtomicUsize);

impl MemoryBudget {
    pub fn new(bytes: usize) -> Self {
        Self(AtomicUsize::new(bytes))
    }

    pub fn is_empty(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    /// Takes `bytes` from the budget; returns false if fewer remain.
    pub fn take(&self, bytes: usize) -> bool {
        let order = Ordering::Relaxed;
        self.0.fetch_update(order, order, |left| left.checked_sub(bytes)).is_ok()
    }

    /// Returns taken bytes to the budget.
    pub fn give_back(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}
