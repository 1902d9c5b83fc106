//! Ranks of a data-parallel job: reproducible sums, gathers and broadcasts over MPI.
//!
//! A job is `N` processes with ranks `0 .. N` that run the same program on different parts of each batch.
//! [`Ranks`] is the interface between them. It has three implementations: [`Alone`] for a single process,
//! [`Local`] for ranks that are threads of one process (tests), and [`Mpi`] for the processes of a launcher
//! such as `mpirun` or `srun`. [`connect`] chooses between the first and the last.
//!
//! - **MPI is opened at run time**, with `dlopen`, and only in a process that a launcher started. It is not
//!   required at build time. The ABIs of Open MPI, MPICH and the MPI 5.0 standard are supported.
//! - **Sums have the same bits for any number of ranks.** MPI only transfers bytes. Ranks add the parts in a
//!   fixed balanced [tree](Tree), so the result depends neither on the number of ranks nor on the MPI
//!   library.
//! - **Every wait has a limit.** MPI is called by one thread of this crate. Callers wait for that thread, not
//!   in MPI, and receive [`RanksError::Missing`] with the ranks that do not answer.
//!
//! ```
//! use glowflow_ranks::{Bucket, Options, connect};
//!
//! let ranks = connect(&Options::default())?; // no launcher started this process: rank 0 of 1
//! ranks.start(Bucket { at: 0, values: vec![1.0, 2.0] });
//! assert_eq!(ranks.finished()?.values, [1.0, 2.0]);
//! assert_eq!(ranks.gather(b"ready")?, [b"ready"]);
//! ranks.finish()?;
//! # Ok::<(), glowflow_ranks::RanksError>(())
//! ```

mod alone;
mod error;
mod launcher;
mod local;
mod parts;
mod ranks;
mod tree;

#[cfg(all(unix, target_pointer_width = "64"))]
mod abi;
#[cfg(all(unix, target_pointer_width = "64"))]
mod board;
#[cfg(all(unix, target_pointer_width = "64"))]
mod job;
#[cfg(all(unix, target_pointer_width = "64"))]
mod library;
#[cfg(all(unix, target_pointer_width = "64"))]
mod mpi;
#[cfg(all(unix, target_pointer_width = "64"))]
mod operations;
#[cfg(all(unix, target_pointer_width = "64"))]
mod thread;

pub use alone::Alone;
pub use error::{Absent, RanksError};
#[cfg(all(unix, target_pointer_width = "64"))]
pub use job::Mpi;
pub use launcher::{Family, Launcher};
#[cfg(all(unix, target_pointer_width = "64"))]
pub use library::LIBRARY;
pub use local::Local;
pub use parts::parts_of;
pub use ranks::{Bucket, EXIT_CODE, Options, Ranks, connect, require_equal};
pub use tree::{Tree, sum};
