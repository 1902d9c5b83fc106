//! The interface between the ranks of a job.

use std::sync::Arc;
use std::time::Duration;

use crate::{Alone, Launcher, RanksError};

/// Exit status of a job that may succeed when it is started again (`EX_TEMPFAIL`), for example because a rank
/// was missing.
pub const EXIT_CODE: u8 = 75;

/// A part of a vector that is summed over all ranks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bucket {
    /// Position of the first value in the vector. Only the caller interprets it.
    pub at: usize,
    /// The values. Over MPI, spare capacity for `size - 1` more of them avoids a copy: they are padded to
    /// equal slices.
    pub values: Vec<f32>,
}

/// The ranks of a job, from the perspective of one of them.
///
/// All ranks must call [`start`](Ranks::start), [`gather`](Ranks::gather), [`broadcast`](Ranks::broadcast)
/// and [`finish`](Ranks::finish) in the same order. Buckets may be in flight during the other operations.
/// After an error, the job cannot continue: save the state if necessary and call [`abort`](Ranks::abort).
pub trait Ranks: Send + Sync {
    /// This rank, less than [`size`](Ranks::size).
    fn rank(&self) -> usize;

    /// Number of ranks.
    fn size(&self) -> usize;

    /// This rank's index among the ranks on its host, and their number.
    fn local(&self) -> (usize, usize);

    /// Reports the current step, for error messages of this rank and of others that wait for it.
    fn at(&self, step: u64);

    /// Sets the limit of subsequent waits, for example while rank 0 writes a checkpoint.
    fn set_limit(&self, limit: Duration);

    /// Starts to sum a bucket over all ranks, and returns immediately. Its position and length must be equal
    /// on all ranks. An error is that of [`finished`](Ranks::finished).
    fn start(&self, bucket: Bucket);

    /// Waits for the oldest bucket that was started but not yet returned. It holds the sum over all ranks,
    /// added in the order of the [tree](crate::Tree), with the same bits on each.
    ///
    /// # Errors
    /// [`RanksError::Missing`] if a rank does not take part within the limit; [`RanksError::Unlike`] or
    /// [`RanksError::Engine`] if its bucket differs in position or length; [`RanksError::Engine`] if MPI fails.
    fn finished(&self) -> Result<Bucket, RanksError>;

    /// Gathers the bytes of all ranks, in the order of ranks. Lengths may differ.
    ///
    /// # Errors
    /// [`RanksError::Missing`] or [`RanksError::Engine`], as of [`finished`](Ranks::finished).
    fn gather(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>, RanksError>;

    /// Replaces `bytes` by those of rank 0.
    ///
    /// # Errors
    /// [`RanksError::Missing`] or [`RanksError::Engine`], as of [`finished`](Ranks::finished).
    fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<(), RanksError>;

    /// Waits until all ranks have called it, then disconnects them. Later operations fail. Save results
    /// before calling it: when a rank exits afterwards, a launcher may end the others.
    ///
    /// # Errors
    /// [`RanksError::Missing`] or [`RanksError::Engine`], as of [`finished`](Ranks::finished).
    fn finish(&self) -> Result<(), RanksError>;

    /// Ends the job on all ranks after a failure. Over MPI, it ends this process with exit status `code` within
    /// three seconds and does not return: [`EXIT_CODE`] if starting the job again may help. Ranks other than 0
    /// should first allow rank 0 time to save: a launcher ends all ranks when one exits.
    fn abort(&self, code: u8);
}

/// Settings of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Maximum time that a rank waits for the others in one operation.
    pub limit: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { limit: Duration::from_secs(120) }
    }
}

/// Connects this process to the ranks of its job.
///
/// A process that was started without a launcher, or is the only one of its launcher, is [`Alone`]: no
/// library is opened.
///
/// # Errors
/// For a process that a launcher started: [`RanksError::NoLibrary`] without an MPI library,
/// [`RanksError::Mismatch`] if the library is not the launcher's, [`RanksError::Engine`] if MPI fails, and
/// [`RanksError::Missing`] if a rank does not connect within the limit.
pub fn connect(options: &Options) -> Result<Arc<dyn Ranks>, RanksError> {
    match Launcher::detect(|name| std::env::var(name).ok())? {
        None => Ok(Arc::new(Alone::new())),
        Some(launcher) if launcher.size == Some(1) => Ok(Arc::new(Alone::new())),
        Some(launcher) => over_mpi(&launcher, options),
    }
}

#[cfg(all(unix, target_pointer_width = "64"))]
fn over_mpi(launcher: &Launcher, options: &Options) -> Result<Arc<dyn Ranks>, RanksError> {
    Ok(Arc::new(crate::Mpi::start(Some(launcher), options)?))
}

#[cfg(not(all(unix, target_pointer_width = "64")))]
fn over_mpi(launcher: &Launcher, _: &Options) -> Result<Arc<dyn Ranks>, RanksError> {
    let name = launcher.name;
    Err(RanksError::Engine(format!(
        "this process was started by {name}, but MPI is not supported on this system"
    )))
}

/// Checks that `value` is equal on all ranks. All ranks return the same result.
///
/// # Errors
/// [`RanksError::Unlike`] with `what` and the first rank whose value differs from that of rank 0; errors of
/// [`Ranks::gather`].
pub fn require_equal(ranks: &dyn Ranks, what: &'static str, value: &[u8]) -> Result<(), RanksError> {
    let values = ranks.gather(value)?;
    match values.iter().position(|other| *other != values[0]) {
        Some(rank) => Err(RanksError::Unlike { what, rank }),
        None => Ok(()),
    }
}
