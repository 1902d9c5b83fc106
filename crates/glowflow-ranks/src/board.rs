//! State shared by the thread that owns MPI and the threads that wait for it.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::{Bucket, RanksError};

/// Progress of a rank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// Number of waits begun. All ranks wait for the same operations in the same order.
    pub waits: u64,
    /// Step, as reported by the caller.
    pub step: u64,
}

/// State of the job after MPI has started.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    pub rank: usize,
    pub size: usize,
    pub host: String,
    pub library: String,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub ready: Option<Ready>,
    /// Buckets that are summed but not yet returned.
    pub summed: VecDeque<Bucket>,
    /// Result of the control operation that a caller is waiting for.
    pub reply: Option<Vec<Vec<u8>>>,
    /// True once all ranks have called `finish`.
    pub together: bool,
    /// True once MPI is finalised.
    pub finalized: bool,
    /// The first failure, after which all operations fail.
    pub failure: Option<RanksError>,
    /// Position of this rank.
    pub mine: Position,
    /// Positions that other ranks reported since this rank's last wait began.
    pub heard: Vec<Option<Position>>,
}

/// The state, and a signal for its changes. It is never locked during an MPI call.
#[derive(Debug, Default)]
pub(crate) struct Board {
    state: Mutex<State>,
    pub changed: Condvar,
}

impl Board {
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes the threads that wait for it.
    pub fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Records a failure, unless one was recorded earlier.
    pub fn fail(&self, error: RanksError) {
        self.update(|state| {
            state.failure.get_or_insert(error);
        });
    }
}
