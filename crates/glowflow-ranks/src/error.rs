//! Failures of a job's ranks.

use std::fmt::Write;
use std::time::Duration;

use thiserror::Error;

/// Failure of an operation between ranks.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RanksError {
    /// A wait reached its limit.
    #[error("{}", describe_missing(*waited, *step, ranks))]
    Missing {
        /// The limit.
        waited: Duration,
        /// Step at which it waited, as reported with [`Ranks::at`](crate::Ranks::at).
        step: u64,
        /// Ranks that did not take part in the operation.
        ranks: Vec<Absent>,
    },
    /// MPI failed, or an operation was used incorrectly.
    #[error("{0}")]
    Engine(String),
    /// A value that all ranks must share differs on one rank.
    #[error("rank {rank} has a different {what} than rank 0; all ranks of a job need the same {what}")]
    Unlike {
        /// The value that differs: `"data"`, `"version of glowflow"`.
        what: &'static str,
        /// First rank whose value is not rank 0's.
        rank: usize,
    },
    /// A launcher started this process, but no MPI library could be opened.
    #[error("this process was started by {launcher}, but no MPI library could be opened: {tried}")]
    NoLibrary {
        /// Name of the launcher.
        launcher: String,
        /// File names that were tried, each with its failure.
        tried: String,
    },
    /// Launcher and MPI library disagree on the number of ranks.
    #[error(
        "{launcher} started {promised} ranks, but {library} found {found}: the library does not belong to \
         this launcher; start the job with the launcher of that MPI, or name another library in \
         GLOWFLOW_MPI_LIBRARY"
    )]
    Mismatch {
        /// Name of the launcher.
        launcher: String,
        /// Number of ranks according to the launcher.
        promised: usize,
        /// Name and version of the library.
        library: String,
        /// Number of ranks according to the library.
        found: usize,
    },
    /// `torchrun`, or a launcher with the same environment variables, started this process.
    #[error(
        "this process was started by torchrun (RANK={rank}, WORLD_SIZE={size}), which provides no MPI; \
         start it with mpirun or srun"
    )]
    Torchrun {
        /// Value of `RANK`.
        rank: usize,
        /// Value of `WORLD_SIZE`.
        size: usize,
    },
    /// The parts of a batch cannot be distributed over the ranks.
    #[error(
        "{parts} parts of a batch cannot be distributed over {ranks} ranks: each rank needs the same number of \
         parts, a power of two; valid numbers of ranks: {}",
        list(fit)
    )]
    Parts {
        /// Number of parts.
        parts: usize,
        /// Number of ranks.
        ranks: usize,
        /// Possible numbers of ranks.
        fit: Vec<usize>,
    },
}

/// A rank that did not take part in an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absent {
    /// Its rank.
    pub rank: usize,
    /// The host on which it runs; empty if unknown.
    pub host: String,
    /// The step it reported during the wait; `None` if it did not answer at all.
    pub step: Option<u64>,
}

fn describe_missing(waited: Duration, step: u64, ranks: &[Absent]) -> String {
    let mut text = format!("step {step}: after {:.1} s ", waited.as_secs_f64());
    for (i, absent) in ranks.iter().enumerate() {
        text += if i == 0 { "" } else { ", " };
        let _ = write!(text, "rank {}", absent.rank);
        if !absent.host.is_empty() {
            let _ = write!(text, " on {}", absent.host);
        }
        let _ = match absent.step {
            None => write!(text, " does not answer"),
            Some(at) => write!(text, " has not finished step {at}"),
        };
    }
    if ranks.is_empty() {
        text += "all ranks answer, but the operation is not complete";
    }
    text
}

fn list(numbers: &[usize]) -> String {
    numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_ranks_are_named() {
        let silent = Absent { rank: 1, host: "node2".into(), step: None };
        let late = Absent { rank: 3, host: String::new(), step: Some(11) };
        let error =
            RanksError::Missing { waited: Duration::from_secs(5), step: 12, ranks: vec![silent, late] };
        let want = "step 12: after 5.0 s rank 1 on node2 does not answer, rank 3 has not finished step 11";
        assert_eq!(error.to_string(), want);
    }
}
