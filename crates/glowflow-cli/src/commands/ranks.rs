//! Training on several processes started by `mpirun` or `srun`.

use std::path::Path;
use std::thread;
use std::time::Duration;

use glowflow::train::{self, Job, Limits};
use glowflow::{AnyDevice, DeviceChoice, DeviceError, Error, Precision};
use glowflow_ranks::{EXIT_CODE, Options};

use super::tell;
use crate::{ExitCode, advice, args, environment, signals};

/// The job of this process: a single process unless a launcher started several.
pub fn connect(limit: u64) -> anyhow::Result<Job> {
    let limit = Duration::from_secs(limit);
    let job = Job::new(glowflow_ranks::connect(&Options { limit })?, limit);
    if job.is_shared() {
        share_threads(&job)?;
    }
    Ok(job)
}

/// Divides the cores among the processes of this host, unless each is bound to its own cores or the number of
/// threads is given.
fn share_threads(job: &Job) -> anyhow::Result<()> {
    let (_, local) = job.ranks().local();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let bound = cores_online().is_some_and(|online| cores < online);
    if environment::threads()?.is_none() && !bound {
        let threads = (cores / local.max(1)).max(1);
        // Fails if the thread pool exists already, because its size was given.
        let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    }
    Ok(())
}

/// The number of cores of this host, regardless of the affinity of this process.
fn cores_online() -> Option<usize> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/online").ok()?;
    text.trim().split(',').map(count).sum()
}

/// The length of a range such as `0-3` or `5`.
fn count(range: &str) -> Option<usize> {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
    (last + 1).checked_sub(first)
}

/// Opens the device of this process. The processes of a host are assigned to its GPUs round-robin, if there
/// are any.
pub fn open(job: &Job, common: &args::Common, precision: Precision) -> Result<AnyDevice, DeviceError> {
    let (number, _) = job.ranks().local();
    match common.device.unwrap_or_default() {
        choice @ DeviceChoice::Auto if number > 0 => {
            let gpu = choice.for_process(number).open_tuned(precision, common.tuning, |_| ());
            gpu.or_else(|_| DeviceChoice::Cpu.open(precision, |_| ()))
        }
        _ => common.open(precision),
    }
}

/// Reports the division of a batch among the ranks.
pub fn report(job: &Job, batch: usize) {
    let ranks = job.ranks().size();
    if ranks > 1 {
        tell(&format!("{batch} images per step = {ranks} ranks × {}", batch / ranks));
    }
}

/// Participates in the run of rank 0.
pub fn follow(job: &Job, limit: u64, common: &args::Common) -> anyhow::Result<ExitCode> {
    let device = |config: &train::RunConfig| open(job, common, config.train.precision);
    match train::follow(job, device, signals::quiet_stop_flag()?) {
        Ok(()) | Err(Error::Stopped) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            tell(&format!("rank {}: {error}", job.ranks().rank()));
            // A launcher ends all processes when one exits. Rank 0 ends the job when it has saved.
            thread::sleep(time_for_rank_0(&error, Duration::from_secs(limit)));
            let code = exit_code(&error);
            job.ranks().abort(code);
            Ok(ExitCode::from(code))
        }
    }
}

/// The time in which rank 0 notices a failure and saves.
fn time_for_rank_0(error: &Error, limit: Duration) -> Duration {
    let saving = limit / 4;
    match error {
        // All ranks notice it at the same time.
        Error::Ranks(_) | Error::Diverged(_) => saving,
        _ => limit.saturating_add(saving),
    }
}

/// The exit status of a job that failed: [`EXIT_CODE`] if resuming the run may help.
fn exit_code(error: &Error) -> u8 {
    if error.is_transient() { EXIT_CODE } else { 1 }
}

/// Reports the failure of rank 0 and ends the other processes.
pub fn abort(job: &Job, error: Error, run: &Path, common: &args::Common, limits: Limits) -> ExitCode {
    let code = exit_code(&error);
    if let Err(error) = super::resuming::failed(error, run, common, limits) {
        tell(&format!("error: {}", advice::describe(&error)));
    }
    job.ranks().abort(code);
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_cores_are_counted() {
        assert_eq!(["0", "0-15", "3-3"].map(count), [Some(1), Some(16), Some(1)]);
        assert_eq!(["", "a-b", "7-2"].map(count), [None; 3]);
    }
}
