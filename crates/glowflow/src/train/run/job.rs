//! The ranks of a run, and the messages that synchronise them.
//!
//! Rank 0 owns the folder, the records and the clock. All ranks exchange one control message before each
//! step, so that they perform the same steps and stop after the same one. Before work that only rank 0 does,
//! such as an evaluation or a checkpoint, it announces a pause, and the others use a longer timeout. Messages
//! also carry the broken images found by a rank, for rank 0 to report. A single rank exchanges nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use glowflow_data::Broken;
use glowflow_ranks::{Alone, Ranks, RanksError};

use crate::Error;

/// Maximum wait while rank 0 evaluates, draws or saves.
const MAX_PAUSE: Duration = Duration::from_secs(12 * 3600);

/// The ranks that train a model jointly.
#[derive(Clone)]
pub struct Job {
    ranks: Arc<dyn Ranks>,
    limit: Duration,
    /// True once all ranks have begun to train.
    begun: Arc<AtomicBool>,
    /// True if they ended before that.
    refused: Arc<AtomicBool>,
}

impl Job {
    /// Creates a job of these ranks. In a step, each waits for the others up to `limit`.
    pub fn new(ranks: Arc<dyn Ranks>, limit: Duration) -> Self {
        Self { ranks, limit, begun: Arc::default(), refused: Arc::default() }
    }

    /// Creates a job of this process alone.
    pub fn alone() -> Self {
        Self::new(Arc::new(Alone::new()), Duration::MAX)
    }

    /// The ranks.
    pub fn ranks(&self) -> &Arc<dyn Ranks> {
        &self.ranks
    }

    /// Longest time that ranks wait for each other in a step.
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// Returns whether there are other ranks.
    pub fn is_shared(&self) -> bool {
        self.ranks.size() > 1
    }

    /// Returns whether rank 0 has started the other ranks. From then on, [`Ranks::abort`] ends them after a
    /// failure.
    pub fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// Ends the other ranks if they have neither begun nor ended: rank 0 cannot begin a run.
    ///
    /// # Errors
    /// [`Error::Ranks`] if a rank is missing.
    pub fn refuse(&self) -> Result<(), Error> {
        if self.is_shared() && !self.has_begun() && !self.refused.swap(true, Ordering::Relaxed) {
            super::start::refuse(self)?;
            self.ranks.finish()?;
        }
        Ok(())
    }

    /// Starts the other ranks.
    pub(super) fn begin(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    /// Switches to the long timeout.
    pub(super) fn wait_long(&self) {
        self.ranks.set_limit(self.limit.max(MAX_PAUSE));
    }

    /// Switches to a timeout that allows rank 0 to process the images of all ranks.
    pub(super) fn wait_for_whole_batch(&self) {
        let ranks = u32::try_from(self.ranks.size()).unwrap_or(u32::MAX);
        self.ranks.set_limit(self.limit.saturating_mul(ranks));
    }

    /// Switches to the usual timeout.
    pub(super) fn wait_as_usual(&self) {
        self.ranks.set_limit(self.limit);
    }

    /// Checks that an operation succeeded on all ranks. Otherwise all return an error, which names the failed
    /// rank on the others.
    pub(super) fn all_done<T>(&self, mine: Result<T, Error>) -> Result<T, Error> {
        let message = mine.as_ref().err().map_or(vec![], |error| Failure::of(error).message());
        let all = self.ranks.gather(&message)?;
        let done = mine?;
        match all.iter().position(|message| !message.is_empty()) {
            Some(rank) => Err(failure(rank, &all[rank])),
            None => Ok(done),
        }
    }
}

/// The next action requested by a rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// A step.
    Step,
    /// Work that only rank 0 does.
    Pause,
    /// The end of training; only rank 0 requests it.
    End,
    /// The end of training on request.
    Stop,
    /// The end of training because of an error.
    Fail(Failure),
}

/// A failure of one rank, for the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    text: String,
    /// As [`Error::is_transient`].
    transient: bool,
}

impl Failure {
    /// Describes an error.
    pub fn of(error: &Error) -> Self {
        Self { text: error.to_string(), transient: error.is_transient() }
    }

    /// Encodes the failure as a byte, followed by its text.
    fn message(&self) -> Vec<u8> {
        [&[if self.transient { FAILED_FOR_NOW } else { FAILED }], self.text.as_bytes()].concat()
    }
}

impl Request {
    /// Encodes the request as a byte, followed by the error's text, or broken images.
    fn message(&self, broken: &[Broken]) -> Vec<u8> {
        let kind = match self {
            Self::Step => 0,
            Self::Pause => 1,
            Self::End => 2,
            Self::Stop => 3,
            Self::Fail(failure) => return failure.message(),
        };
        let mut message = vec![kind];
        if !broken.is_empty() {
            let broken: Vec<_> =
                broken.iter().map(|image| (image.index, &image.name, &image.reason)).collect();
            message.extend(serde_json::to_vec(&broken).unwrap_or_default());
        }
        message
    }
}

/// The first byte of a message of a rank that failed.
const FAILED: u8 = 4;
/// The same for a transient failure.
const FAILED_FOR_NOW: u8 = 5;

/// The broken images in a message.
fn broken(message: &[u8]) -> Vec<Broken> {
    let images: Vec<(usize, String, String)> = match message {
        [kind, images @ ..] if *kind < FAILED => serde_json::from_slice(images).unwrap_or_default(),
        _ => vec![],
    };
    images.into_iter().map(|(index, name, reason)| Broken { index, name, reason }).collect()
}

/// Determines the next action of all ranks from their messages.
///
/// # Errors
/// The failure of the first rank that failed.
fn agreed(messages: &[Vec<u8>]) -> Result<Request, Error> {
    let kind = |message: &Vec<u8>| message.first().copied().unwrap_or(FAILED);
    if let Some(rank) = messages.iter().position(|message| kind(message) >= FAILED) {
        return Err(failure(rank, &messages[rank]));
    }
    // During a pause, the others repeat their requests.
    if messages.first().is_some_and(|first| kind(first) == 1) {
        return Ok(Request::Pause);
    }
    Ok(match messages.iter().map(kind).max() {
        Some(3) => Request::Stop,
        Some(2) => Request::End,
        _ => Request::Step,
    })
}

/// The error of a rank that sent this message.
fn failure(rank: usize, message: &[u8]) -> Error {
    let text = format!("rank {rank}: {}", String::from_utf8_lossy(message.get(1..).unwrap_or_default()));
    match message.first() {
        Some(&FAILED_FOR_NOW) => RanksError::Engine(text).into(),
        _ => Error::Input(text),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The others expect a step.
    Steps,
    /// The others wait for rank 0.
    Paused,
    /// Training has ended, or a rank is missing: no more messages are exchanged.
    Ended,
}

/// The exchange of control messages.
pub(super) struct Control {
    job: Job,
    phase: Phase,
    /// Broken images for the next message.
    found: Vec<Broken>,
    /// Broken images reported by other ranks.
    heard: Vec<Broken>,
}

impl Control {
    /// Initial state, before the first step.
    pub fn new(job: Job) -> Self {
        let phase = if job.is_shared() { Phase::Steps } else { Phase::Ended };
        Self { job, phase, found: vec![], heard: vec![] }
    }

    /// Reports a broken image to the other ranks with the next message.
    pub fn report(&mut self, image: Broken) {
        self.found.push(image);
    }

    /// Returns broken images reported by other ranks since the last call.
    pub fn take_reported(&mut self) -> Vec<Broken> {
        std::mem::take(&mut self.heard)
    }

    /// Exchanges requests before a step. All ranks receive the same answer: a step, the end, or a stop.
    ///
    /// # Errors
    /// [`Error::Ranks`] if a rank is missing, and the failure of another rank. No messages are exchanged
    /// afterwards.
    pub fn agree(&mut self, request: Request, step: u64) -> Result<Request, Error> {
        if self.phase == Phase::Ended {
            return Ok(request);
        }
        self.job.ranks.at(step);
        loop {
            match self.exchange(&request)? {
                Request::Pause => self.job.wait_long(),
                agreed => {
                    self.job.wait_as_usual();
                    self.phase = if agreed == Request::Step { Phase::Steps } else { Phase::Ended };
                    return Ok(agreed);
                }
            }
        }
    }

    /// Announces work of rank 0, for which the others wait until the next [`agree`](Self::agree).
    ///
    /// # Errors
    /// As [`agree`](Self::agree).
    pub fn pause(&mut self) -> Result<(), Error> {
        if self.phase == Phase::Steps {
            self.exchange(&Request::Pause)?;
            self.phase = Phase::Paused;
        }
        Ok(())
    }

    /// Ends the other ranks, unless they have already ended.
    ///
    /// # Errors
    /// As [`agree`](Self::agree).
    pub fn dismiss(&mut self) -> Result<(), Error> {
        if self.phase != Phase::Ended {
            self.exchange(&Request::End)?;
            self.phase = Phase::Ended;
        }
        Ok(())
    }

    /// Stops exchanging messages: a step failed on this rank.
    pub fn end(&mut self) {
        self.phase = Phase::Ended;
    }

    fn exchange(&mut self, request: &Request) -> Result<Request, Error> {
        let all = self.job.ranks.gather(&request.message(&self.found)).map_err(Error::from);
        if let Ok(all) = &all {
            self.found.clear();
            let others = all.iter().enumerate().filter(|(rank, _)| *rank != self.job.ranks.rank());
            self.heard.extend(others.flat_map(|(_, message)| broken(message)));
        }
        all.and_then(|all| agreed(&all)).inspect_err(|_| self.end())
    }
}

#[cfg(test)]
mod tests {
    use glowflow_ranks::Local;

    use super::*;

    fn of(requests: &[Request]) -> Result<Request, String> {
        let messages: Vec<_> = requests.iter().map(|request| request.message(&[])).collect();
        agreed(&messages).map_err(|error| error.to_string())
    }

    #[test]
    fn ranks_agree() {
        use Request::{End, Pause, Step, Stop};
        assert_eq!(of(&[Step, Step]), Ok(Step));
        assert_eq!(of(&[End, Step]), Ok(End));
        assert_eq!(of(&[Step, Stop, Step]), Ok(Stop));
        assert_eq!(of(&[End, Stop]), Ok(Stop));
        assert_eq!(of(&[Pause, Stop]), Ok(Pause));
        let failed = of(&[Pause, Request::Fail(Failure::of(&Error::Input("no such file".into())))]);
        assert_eq!(failed, Err("rank 1: no such file".into()));
    }

    /// The program ends a job with another status if the run can be resumed later.
    #[test]
    fn a_transient_failure_of_another_rank_is_known_as_such() {
        let source = std::io::Error::other("too many open files");
        let transient = Error::Data(glowflow_data::Error::System { path: "a.png".into(), source });
        let text = format!("rank 0: {transient}");
        let message = Request::Fail(Failure::of(&transient)).message(&[]);
        let error = agreed(&[message, Request::Step.message(&[])]).unwrap_err();
        assert!(matches!(&error, Error::Ranks(RanksError::Engine(have)) if *have == text), "{error:?}");
    }

    #[test]
    fn broken_images_arrive_once() {
        let image = || Broken { index: 3, name: "a/b.png".into(), reason: "no \"PNG\"".into() };
        let mut controls = Local::job(2, Duration::from_secs(60)).into_iter().map(|ranks| {
            let job = Job::new(Arc::new(ranks), Duration::from_secs(60));
            Control::new(job)
        });
        let [mut root, mut other] = [(); 2].map(|()| controls.next().unwrap());
        std::thread::scope(|scope| {
            scope.spawn(move || {
                other.report(image());
                for step in 0..2 {
                    assert_eq!(other.agree(Request::Step, step).unwrap(), Request::Step);
                }
                assert_eq!(other.take_reported(), []);
            });
            assert_eq!(root.agree(Request::Step, 0).unwrap(), Request::Step);
            assert_eq!(root.take_reported(), [image()]);
            assert_eq!(root.agree(Request::Step, 1).unwrap(), Request::Step);
            assert_eq!(root.take_reported(), []);
        });
    }

    #[test]
    fn a_rank_alone_exchanges_nothing() {
        let mut control = Control::new(Job::alone());
        control.pause().unwrap();
        assert_eq!(control.agree(Request::Step, 1).unwrap(), Request::Step);
        assert_eq!(control.agree(Request::End, 1).unwrap(), Request::End);
    }
}
