//! Ranks that are threads of one process, for tests without MPI.
//!
//! Ranks share a board in memory. The `n`-th bucket of each rank belongs to round `n` of the sums, its `n`-th
//! other operation to round `n` of the messages. A round is complete when every rank has contributed.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::alone::no_bucket;
use crate::{Absent, Bucket, Ranks, RanksError, tree};

/// A rank that is a thread of this process.
#[derive(Debug)]
pub struct Local {
    rank: usize,
    size: usize,
    board: Arc<Board>,
    progress: Mutex<Progress>,
}

/// Number of rounds that this rank has entered.
#[derive(Debug)]
struct Progress {
    limit: Duration,
    sums_started: u64,
    sums_finished: u64,
    messages: u64,
}

#[derive(Debug, Default)]
struct Board {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    sums: BTreeMap<u64, Round<Bucket>>,
    messages: BTreeMap<u64, Round<Message>>,
    /// Current step of each rank.
    steps: Vec<u64>,
    aborted: Option<usize>,
}

/// Contributions of the ranks to one operation.
#[derive(Debug)]
struct Round<T> {
    given: Vec<Option<T>>,
    taken: usize,
}

#[derive(Clone, Debug, PartialEq)]
struct Message {
    operation: &'static str,
    bytes: Vec<u8>,
}

impl Local {
    /// Creates the ranks of a job of `size`, each to be moved to its thread.
    pub fn job(size: usize, limit: Duration) -> Vec<Self> {
        let board = Arc::new(Board::default());
        board.lock().steps = vec![0; size];
        let progress = || Progress { limit, sums_started: 0, sums_finished: 0, messages: 0 };
        (0..size)
            .map(|rank| Self { rank, size, board: board.clone(), progress: Mutex::new(progress()) })
            .collect()
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns all ranks' contributions to the next round of messages.
    fn exchange(&self, operation: &'static str, bytes: Vec<u8>) -> Result<Vec<Message>, RanksError> {
        let (number, limit) = {
            let mut progress = self.progress();
            progress.messages += 1;
            (progress.messages, progress.limit)
        };
        let mut state = self.board.lock();
        Round::give(&mut state.messages, number, (self.rank, self.size), Message { operation, bytes });
        self.board.changed.notify_all();
        let messages = self.wait(state, limit, |state| &mut state.messages, number)?;
        match messages.iter().position(|message| message.operation != operation) {
            Some(other) => Err(RanksError::Engine(format!(
                "rank {} calls {operation} but rank {other} calls {}",
                self.rank, messages[other].operation
            ))),
            None => Ok(messages),
        }
    }

    /// Waits for a round, and returns a copy of its contributions.
    fn wait<T: Clone>(
        &self,
        mut state: MutexGuard<'_, State>,
        limit: Duration,
        rounds: impl Fn(&mut State) -> &mut BTreeMap<u64, Round<T>>,
        number: u64,
    ) -> Result<Vec<T>, RanksError> {
        let begin = Instant::now();
        loop {
            if let Some(rank) = state.aborted {
                return Err(RanksError::Engine(format!("rank {rank} ended the job")));
            }
            if let Some(all) = Round::take(rounds(&mut state), number) {
                return Ok(all);
            }
            let Some(left) = limit.checked_sub(begin.elapsed()).filter(|left| !left.is_zero()) else {
                let missing = Round::missing(rounds(&mut state), number);
                let absent = |rank| Absent { rank, host: String::new(), step: Some(state.steps[rank]) };
                let ranks = missing.into_iter().map(absent).collect();
                return Err(RanksError::Missing { waited: limit, step: state.steps[self.rank], ranks });
            };
            (state, _) = self.board.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone> Round<T> {
    fn give(rounds: &mut BTreeMap<u64, Self>, number: u64, (rank, size): (usize, usize), value: T) {
        let round = rounds.entry(number).or_insert_with(|| Self { given: vec![None; size], taken: 0 });
        round.given[rank] = Some(value);
    }

    /// All contributions, if they are complete. The last rank to take them removes the round.
    fn take(rounds: &mut BTreeMap<u64, Self>, number: u64) -> Option<Vec<T>> {
        let round = rounds.get_mut(&number)?;
        let all: Vec<T> = round.given.iter().cloned().collect::<Option<_>>()?;
        round.taken += 1;
        if round.taken == all.len() {
            rounds.remove(&number);
        }
        Some(all)
    }

    fn missing(rounds: &BTreeMap<u64, Self>, number: u64) -> Vec<usize> {
        let given = rounds.get(&number).map_or(&[][..], |round| &round.given);
        (0..given.len()).filter(|&rank| given[rank].is_none()).collect()
    }
}

impl Ranks for Local {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn local(&self) -> (usize, usize) {
        (self.rank, self.size)
    }

    fn at(&self, step: u64) {
        self.board.lock().steps[self.rank] = step;
    }

    fn set_limit(&self, limit: Duration) {
        self.progress().limit = limit;
    }

    fn start(&self, bucket: Bucket) {
        let number = {
            let mut progress = self.progress();
            progress.sums_started += 1;
            progress.sums_started
        };
        Round::give(&mut self.board.lock().sums, number, (self.rank, self.size), bucket);
        self.board.changed.notify_all();
    }

    fn finished(&self) -> Result<Bucket, RanksError> {
        let (number, limit) = {
            let mut progress = self.progress();
            if progress.sums_finished == progress.sums_started {
                return Err(no_bucket());
            }
            progress.sums_finished += 1;
            (progress.sums_finished, progress.limit)
        };
        let state = self.board.lock();
        let buckets = self.wait(state, limit, |state| &mut state.sums, number)?;
        let (at, length) = (buckets[0].at, buckets[0].values.len());
        match buckets.iter().position(|bucket| (bucket.at, bucket.values.len()) != (at, length)) {
            Some(rank) => Err(RanksError::Unlike { what: "bucket", rank }),
            None => Ok(Bucket { at, values: tree::sum(buckets.into_iter().map(|bucket| bucket.values)) }),
        }
    }

    fn gather(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>, RanksError> {
        Ok(self.exchange("gather", mine.to_vec())?.into_iter().map(|message| message.bytes).collect())
    }

    fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<(), RanksError> {
        let mine = if self.rank == 0 { std::mem::take(bytes) } else { Vec::new() };
        *bytes = self.exchange("broadcast", mine)?.swap_remove(0).bytes;
        Ok(())
    }

    fn finish(&self) -> Result<(), RanksError> {
        self.exchange("finish", Vec::new()).map(|_| ())
    }

    fn abort(&self, _code: u8) {
        self.board.lock().aborted.get_or_insert(self.rank);
        self.board.changed.notify_all();
    }
}
