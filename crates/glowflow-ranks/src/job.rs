//! A rank of an MPI job, as used by the threads that compute.
//!
//! They pass operations to the [thread](crate::thread) that owns MPI, and wait for the results outside MPI. A
//! limit therefore holds even if an MPI call hangs. At half the limit, the other ranks are queried for their
//! positions: a rank that does not answer is stopped, dead or unreachable; a rank that has begun fewer waits
//! is late.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::abi::Abi;
use crate::alone::no_bucket;
use crate::board::{Board, Ready, State};
use crate::thread::{Command, run};
use crate::{Absent, Bucket, Launcher, Options, Ranks, RanksError, library, mpi};

/// Time for the launcher to relay this process's last messages before it ends the job. Hydra relays nothing
/// afterwards.
const RELAY: Duration = Duration::from_millis(250);
/// Time for `MPI_Abort`, which may hang, before the process exits without it.
const ABORT: Duration = Duration::from_secs(2);
/// Time for `MPI_Finalize` once all ranks are done. In MPICH 4.0 over UCX and TCP it may hang: a rank waits
/// for the answer of another that is already waiting outside UCX. Nothing is lost in that case, and the
/// process may exit.
const FINALIZE: Duration = Duration::from_secs(5);
/// Stack of the thread that owns MPI, as large as that of a main thread.
const STACK: usize = 8 << 20;

/// A rank of an MPI job.
#[derive(Debug)]
pub struct Mpi {
    rank: usize,
    library: String,
    hosts: Vec<String>,
    local: (usize, usize),
    commands: Sender<Command>,
    board: Arc<Board>,
    limit: Mutex<Duration>,
    /// Number of buckets that were started but not yet returned.
    started: AtomicUsize,
    /// Held from the start of a control operation to its result.
    one_operation: Mutex<()>,
}

impl Mpi {
    /// Opens the MPI library of the launcher, and connects this process to the others. Must be called once,
    /// concurrently on all ranks.
    pub fn start(launcher: Option<&Launcher>, options: &Options) -> Result<Self, RanksError> {
        static STARTED: AtomicBool = AtomicBool::new(false);
        if STARTED.swap(true, Ordering::Relaxed) {
            return Err(RanksError::Engine("MPI was already started in this process".into()));
        }
        let (commands, received) = channel();
        let board = Arc::new(Board::default());
        let (shared, owned) = (board.clone(), launcher.cloned());
        let body = move || {
            let _end = End(&shared);
            match library::open(owned.as_ref()) {
                Ok(Abi::Integers(table)) => run(table, owned.as_ref(), &received, &shared),
                Ok(Abi::Pointers(table)) => run(table, owned.as_ref(), &received, &shared),
                Err(error) => shared.fail(error),
            }
        };
        thread::Builder::new()
            .name("mpi".into())
            .stack_size(STACK)
            .spawn(body)
            .map_err(|error| RanksError::Engine(format!("cannot start a thread for MPI: {error}")))?;
        let ready = wait_for_start(&board, options.limit)?;
        let mut job = Self {
            rank: ready.rank,
            library: ready.library,
            hosts: vec![String::new(); ready.size],
            local: (0, 1),
            commands,
            board,
            limit: Mutex::new(options.limit),
            started: AtomicUsize::new(0),
            one_operation: Mutex::new(()),
        };
        let hosts = job.gather(ready.host.as_bytes())?;
        job.hosts = hosts.iter().map(|host| String::from_utf8_lossy(host).into_owned()).collect();
        let announced = launcher.and_then(|launcher| launcher.local);
        job.local = announced.unwrap_or_else(|| neighbours(&job.hosts, job.rank));
        Ok(job)
    }

    /// Name and version of the MPI library.
    pub fn library(&self) -> &str {
        &self.library
    }

    /// The host of each rank.
    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }

    fn send(&self, command: Command) {
        // The thread ends after a failure, which waits report, or after `finish`.
        let _ = self.commands.send(command);
    }

    /// Performs a control operation and returns its result.
    fn control(&self, command: Command) -> Result<Vec<Vec<u8>>, RanksError> {
        let _one = self.one_operation.lock().unwrap_or_else(PoisonError::into_inner);
        self.send(command);
        self.wait(|state| state.reply.take())
    }

    /// Waits until `take` returns a value, up to the limit.
    fn wait<T>(&self, take: impl Fn(&mut State) -> Option<T>) -> Result<T, RanksError> {
        let limit = *self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut waited, mut asked) = (Duration::ZERO, false);
        let mut state = self.board.lock();
        state.mine.waits += 1;
        state.heard.fill(None);
        loop {
            if let Some(result) = take(&mut state) {
                return Ok(result);
            }
            if let Some(failure) = &state.failure {
                return Err(failure.clone());
            }
            if waited >= limit {
                return Err(self.missing(&state, limit));
            }
            if !asked && waited >= limit / 2 {
                asked = true;
                self.send(Command::Ask);
            }
            let next = if asked { limit } else { limit / 2 };
            state = self.board.pause(state, next, &mut waited);
        }
    }

    /// The error of a wait that reached its limit: it lists ranks that do not answer, or if all do, those
    /// that are late.
    fn missing(&self, state: &State, limit: Duration) -> RanksError {
        let absent = |rank: usize| {
            let step = state.heard[rank].map(|position| position.step);
            Absent { rank, host: self.hosts[rank].clone(), step }
        };
        let others = || (0..self.hosts.len()).filter(|&rank| rank != self.rank);
        let mut ranks: Vec<Absent> =
            others().filter(|&rank| state.heard[rank].is_none()).map(absent).collect();
        if ranks.is_empty() {
            let is_late =
                |rank: &usize| state.heard[*rank].is_some_and(|other| other.waits < state.mine.waits);
            ranks = others().filter(is_late).map(absent).collect();
        }
        RanksError::Missing { waited: limit, step: state.mine.step, ranks }
    }
}

/// Records the end of the thread, so that no caller waits for it.
struct End<'a>(&'a Board);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.fail(RanksError::Engine("MPI has ended in this process".into()));
    }
}

fn wait_for_start(board: &Board, limit: Duration) -> Result<Ready, RanksError> {
    let mut waited = Duration::ZERO;
    let mut state = board.lock();
    loop {
        if let Some(ready) = &state.ready {
            return Ok(ready.clone());
        }
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        if waited >= limit {
            let seconds = limit.as_secs_f64();
            return Err(RanksError::Engine(format!("MPI did not connect all ranks within {seconds:.1} s")));
        }
        state = board.pause(state, limit, &mut waited);
    }
}

/// A rank's index among those on its host, and their number.
fn neighbours(hosts: &[String], rank: usize) -> (usize, usize) {
    let on_host = |hosts: &[String], host: &String| hosts.iter().filter(|other| *other == host).count();
    (on_host(&hosts[..rank], &hosts[rank]), on_host(hosts, &hosts[rank]))
}

impl Ranks for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.hosts.len()
    }

    fn local(&self) -> (usize, usize) {
        self.local
    }

    fn at(&self, step: u64) {
        self.board.lock().mine.step = step;
    }

    fn set_limit(&self, limit: Duration) {
        *self.limit.lock().unwrap_or_else(PoisonError::into_inner) = limit;
    }

    fn start(&self, bucket: Bucket) {
        self.started.fetch_add(1, Ordering::Relaxed);
        self.send(Command::Sum(bucket));
    }

    fn finished(&self) -> Result<Bucket, RanksError> {
        let one_less = |started: usize| started.checked_sub(1);
        if self.started.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_err() {
            return Err(no_bucket());
        }
        self.wait(|state| state.summed.pop_front())
    }

    fn gather(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>, RanksError> {
        self.control(Command::Gather(mine.to_vec()))
    }

    fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<(), RanksError> {
        let mine = if self.rank == 0 { std::mem::take(bytes) } else { Vec::new() };
        *bytes = self.control(Command::Broadcast(mine))?.pop().unwrap_or_default();
        Ok(())
    }

    fn finish(&self) -> Result<(), RanksError> {
        let _one = self.one_operation.lock().unwrap_or_else(PoisonError::into_inner);
        self.send(Command::Finish);
        self.wait(|state| state.together.then_some(()))?;
        let mut waited = Duration::ZERO;
        let mut state = self.board.lock();
        while !state.finalized {
            if let Some(failure) = &state.failure {
                return Err(failure.clone());
            }
            if waited >= FINALIZE {
                return Ok(());
            }
            state = self.board.pause(state, FINALIZE, &mut waited);
        }
        Ok(())
    }

    fn abort(&self, code: u8) {
        thread::sleep(RELAY);
        self.send(Command::Abort(code));
        thread::sleep(ABORT);
        mpi::exit(code.into());
    }
}

#[cfg(test)]
mod tests {
    use super::neighbours;

    #[test]
    fn ranks_are_numbered_on_their_host() {
        let hosts = ["a", "b", "a", "b", "b"].map(String::from);
        let local: Vec<_> = (0..hosts.len()).map(|rank| neighbours(&hosts, rank)).collect();
        assert_eq!(local, [(0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]);
    }
}
