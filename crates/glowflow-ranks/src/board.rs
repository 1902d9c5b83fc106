//! State shared by the thread that owns MPI and the threads that wait for it.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::{Bucket, RanksError};

/// Maximum length of the slices in which waits are counted.
const SLICE: Duration = Duration::from_millis(100);
/// A slice counts as at most this: if it took longer, this process was suspended.
const SUSPENDED: Duration = Duration::from_secs(1);

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
    changed: Condvar,
}

impl Board {
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a change, up to the end of a slice, given the time `waited` so far and its limit. Time during
    /// which this process was suspended does not count: the other ranks may have been suspended, too, or have
    /// waited for this one.
    pub fn pause<'a>(
        &self,
        state: MutexGuard<'a, State>,
        limit: Duration,
        waited: &mut Duration,
    ) -> MutexGuard<'a, State> {
        let begin = Instant::now();
        let time = limit.saturating_sub(*waited).min(SLICE);
        let (state, _) = self.changed.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner);
        *waited += begin.elapsed().min(SUSPENDED);
        state
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
