//! The start of a run on several ranks: rank 0 distributes configuration and state.
//!
//! | message | content |
//! | --- | --- |
//! | header | JSON: version, configuration, counters, constants; empty if rank 0 cannot begin |
//! | numbers | weights, moments, averages and running statistics, in pieces |
//!
//! Then the ranks open their devices and images, and compare versions, device types and images.

use glowflow_kernels::Device;
use glowflow_ranks::{RanksError, require_equal};
use serde::{Deserialize, Serialize};

use super::job::Job;
use crate::Error;
use crate::params::Constant;
use crate::train::RunConfig;
use crate::train::images::Fingerprint;
use crate::train::numbers::{from_bytes, to_bytes};
use crate::train::state::{Progress, TrainState};

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Maximum count of numbers per message.
const PIECE: usize = 1 << 26;

#[derive(Serialize, Deserialize)]
struct Header {
    version: String,
    config: RunConfig,
    progress: Progress,
    constants: Vec<Fixed>,
    /// Lengths of weights, first and second moment, average, running statistics, and their average.
    lens: [usize; 6],
}

/// A constant tensor.
#[derive(Serialize, Deserialize)]
enum Fixed {
    Permutation(Vec<usize>),
    Signs(Vec<f64>),
}

/// Sends configuration and state to the other ranks.
pub(super) fn send(job: &Job, config: &RunConfig, state: &TrainState) -> Result<(), Error> {
    let numbers = numbers(state);
    let constants = state.constants.iter().map(|constant| match constant {
        Constant::Permutation(index) => Fixed::Permutation(index.clone()),
        Constant::Signs(signs) => Fixed::Signs(signs.clone()),
    });
    let header = Header {
        version: VERSION.into(),
        config: config.clone(),
        progress: state.progress.clone(),
        constants: constants.collect(),
        lens: numbers.map(Vec::len),
    };
    let header = serde_json::to_vec(&header)
        .map_err(|e| Error::Config(format!("the configuration cannot be handed to other ranks: {e}")));
    let mut bytes = match &header {
        Ok(bytes) => bytes.clone(),
        Err(_) => vec![],
    };
    job.ranks().broadcast(&mut bytes)?;
    header?;
    for piece in numbers.into_iter().flat_map(|values| values.chunks(PIECE)) {
        job.ranks().broadcast(&mut to_bytes(piece))?;
    }
    Ok(())
}

/// Ends the other ranks: rank 0 cannot begin.
pub(super) fn refuse(job: &Job) -> Result<(), Error> {
    Ok(job.ranks().broadcast(&mut vec![])?)
}

/// Receives configuration and state from rank 0.
///
/// # Errors
/// [`Error::Stopped`] if rank 0 cannot begin, which it reports itself; [`Error::Ranks`] if it is missing or
/// has another version.
pub(super) fn receive(job: &Job) -> Result<(RunConfig, TrainState), Error> {
    let mut bytes = vec![];
    job.ranks().broadcast(&mut bytes)?;
    if bytes.is_empty() {
        return Err(Error::Stopped);
    }
    let unlike = RanksError::Unlike { what: "version of glowflow", rank: job.ranks().rank() };
    let header: Header = serde_json::from_slice(&bytes).map_err(|_| unlike)?;
    let mut state = TrainState {
        constants: header.constants.into_iter().map(Constant::from).collect(),
        weights: vec![],
        buffers: vec![],
        first: vec![],
        second: vec![],
        ema: vec![],
        buffers_ema: vec![],
        progress: header.progress,
    };
    let TrainState { weights, buffers, first, second, ema, buffers_ema, .. } = &mut state;
    let all = [weights, first, second, ema, buffers, buffers_ema];
    for (values, len) in all.into_iter().zip(header.lens) {
        while values.len() < len {
            job.ranks().broadcast(&mut bytes)?;
            let piece = from_bytes(&bytes);
            if piece.is_empty() {
                return Err(RanksError::Engine("rank 0 sent a state without numbers".into()).into());
            }
            values.extend(piece);
        }
    }
    Ok((header.config, state))
}

/// Checks that all ranks have the same version, device type and images.
pub(super) fn compare<D: Device>(job: &Job, device: &D, images: Fingerprint) -> Result<(), Error> {
    let ranks = &**job.ranks();
    let kind: &[u8] = if device.peak_memory().is_some() { b"cuda" } else { b"cpu" };
    let data = [images.names.to_le_bytes(), images.contents.to_le_bytes()].concat();
    require_equal(ranks, "version of glowflow", VERSION.as_bytes())?;
    require_equal(ranks, "kind of device", kind)?;
    require_equal(ranks, "data", &data)?;
    Ok(())
}

fn numbers(state: &TrainState) -> [&Vec<f32>; 6] {
    [&state.weights, &state.first, &state.second, &state.ema, &state.buffers, &state.buffers_ema]
}

impl From<Fixed> for Constant {
    fn from(fixed: Fixed) -> Self {
        match fixed {
            Fixed::Permutation(index) => Self::Permutation(index),
            Fixed::Signs(signs) => Self::Signs(signs),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use glowflow_ranks::Local;

    use super::*;

    fn jobs() -> [Job; 2] {
        let mut ranks = Local::job(2, Duration::from_secs(60)).into_iter();
        [(); 2].map(|()| Job::new(Arc::new(ranks.next().unwrap()), Duration::from_secs(60)))
    }

    #[test]
    fn a_state_is_transferred_exactly() {
        let config = RunConfig::resolve(None, None, &[]).unwrap();
        let state = TrainState {
            constants: vec![Constant::Permutation(vec![1, 0]), Constant::Signs(vec![1.0, -1.0])],
            weights: vec![1.0, -0.0, 3e-40],
            buffers: vec![],
            first: vec![0.1; 3],
            second: vec![0.2; 3],
            ema: vec![0.3; 3],
            buffers_ema: vec![],
            progress: Progress { step: 7, window_sum: 0.1 + 0.2, ..Progress::default() },
        };
        let [root, other] = jobs();
        std::thread::scope(|scope| {
            let received = scope.spawn(move || receive(&other).unwrap());
            send(&root, &config, &state).unwrap();
            assert_eq!(received.join().unwrap(), (config.clone(), state.clone()));
        });
    }

    #[test]
    fn ranks_end_if_the_first_cannot_begin() {
        let [root, other] = jobs();
        std::thread::scope(|scope| {
            let received = scope.spawn(move || receive(&other));
            refuse(&root).unwrap();
            assert!(matches!(received.join().unwrap(), Err(Error::Stopped)));
        });
    }
}
